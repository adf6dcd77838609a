"""Hashed features of items, row by row; rows are only ever appended."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.features.namespaces import FEATURES
from bandits.types import Float32, UInt32, frozen
from bandits.values import FeatureMap
from policies.encoding import code_pairs, hash_pairs

LEAST_ROWS = 64
"""Rows for which there is room at first; it doubles."""


class FeatureTable:
    """Rows of hashed features, padded with zeros: row r is that of one version of one item.

    What was taken from it stays as it is while rows are appended: they go into room behind it, or
    into arrays of their own.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._seen: dict[int, int] = {}
        self._hashes: UInt32 = frozen(np.zeros(0, np.uint32))
        self._codes = np.zeros((0, 0), np.int32)
        self._values = np.zeros((0, 0), np.float32)
        self._alike = True

    def extend(self, features: Sequence[FeatureMap]) -> int:
        """Append a row for each item's features; return the number of the first."""
        codes, values = code_pairs([hash_pairs(each, FEATURES) for each in features], self._seen)
        first, self.rows = self.rows, self.rows + len(features)
        self._make_room(codes.shape[1])

        into = slice(first, self.rows), slice(0, codes.shape[1])
        self._codes[into], self._values[into] = codes, values
        if len(features):
            added = self._codes[first : self.rows]
            self._alike = self._alike and bool((added == self._codes[0]).all())
        return first

    def _make_room(self, width: int) -> None:
        room, wide = self._codes.shape
        if self.rows <= room and width <= wide:
            return
        room = room if self.rows <= room else max(self.rows, 2 * room, LEAST_ROWS)
        shape = room, max(width, wide)
        self._codes, self._values = _enlarged(self._codes, shape), _enlarged(self._values, shape)

    def trim(self) -> None:
        """Give the room back that no row has taken yet."""
        self._codes = self._codes[: self.rows].copy()
        self._values = self._values[: self.rows].copy()

    @property
    def alike(self) -> UInt32 | None:
        """The hashes that all rows share, uint32[F], if each row has the same, in one order."""
        return self.hashes[self._codes[0]] if self._alike and self.rows else None

    @property
    def hashes(self) -> UInt32:
        """The distinct hashes, uint32[U], in the order in which they came."""
        if len(self._hashes) != len(self._seen):
            self._hashes = frozen(np.array(list(self._seen), np.uint32))
        return self._hashes

    @property
    def codes(self) -> NDArray[np.int32]:
        """Which hash each value is of, int32[rows, F]."""
        return self._codes[: self.rows]

    @property
    def values(self) -> Float32:
        """The values, float32[rows, F]."""
        return self._values[: self.rows]


def _enlarged(array: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Return an array of this shape, zero but for what it had."""
    larger = np.zeros(shape, array.dtype)
    larger[: array.shape[0], : array.shape[1]] = array
    return larger
