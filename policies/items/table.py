"""Hashed features of items, row by row; rows are only ever appended."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.features.namespaces import FEATURES
from bandits.types import Float32, UInt32, frozen
from bandits.values import FeatureMap
from policies.encoding import code_pairs, hash_pairs

LEAST_ROWS = 64
"""Rows for which there is room at first; it doubles."""
MOST_WAITING = 1_000
"""Rows that wait to be hashed together, until somebody looks: one by one is many times as slow."""


class FeatureTable:
    """Rows of hashed features, padded with zeros: row r is that of one version of one item.

    What was taken from it stays as it is while rows are appended: they go into room behind it, or
    into arrays of their own.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._seen: dict[int, int] = {}
        self._named: UInt32 = np.zeros(0, np.uint32)
        self._hashes: UInt32 = frozen(self._named[:0])
        self._codes = np.zeros((0, 0), np.int32)
        self._values = np.zeros((0, 0), np.float32)
        self._alike = True
        self._shared: UInt32 | None = None
        self._waiting: list[FeatureMap] = []

    def extend(self, features: Sequence[FeatureMap]) -> int:
        """Append a row for each item's features; return the number of the first."""
        first, self.rows = self.rows, self.rows + len(features)
        self._waiting += features
        if len(self._waiting) >= MOST_WAITING:
            self.catch_up()
        return first

    def catch_up(self) -> None:
        """Hash the rows that wait, as whoever looks at them does."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        # By name, as a catalogue's blob has them: so whoever makes a row makes the same.
        rows = [hash_pairs(dict(sorted(each.items())), FEATURES) for each in waiting]
        codes, values = code_pairs(rows, self._seen)
        self._make_room(codes.shape[1])

        first = self.rows - len(waiting)
        into = slice(first, self.rows), slice(0, codes.shape[1])
        self._codes[into], self._values[into] = codes, values
        added = self._codes[first : self.rows]
        self._alike = self._alike and bool((added == self._codes[0]).all())

    def _make_room(self, width: int) -> None:
        room, wide = self._codes.shape
        if self.rows <= room and width <= wide:
            return
        room = room if self.rows <= room else max(self.rows, 2 * room, LEAST_ROWS)
        shape = room, max(width, wide)
        self._codes, self._values = _enlarged(self._codes, shape), _enlarged(self._values, shape)

    def trim(self) -> None:
        """Give the room back that no row has taken yet."""
        self.catch_up()
        self._codes = self._codes[: self.rows].copy()
        self._values = self._values[: self.rows].copy()

    def taken(self, rows: NDArray[np.intp]) -> "FeatureTable":
        """Return a table of some rows, in this order, without what only the others have needed."""
        made, codes, values = FeatureTable(), self.codes[rows], self.values[rows]
        used = np.flatnonzero(values.any(axis=0))
        width = int(used[-1]) + 1 if used.size else 0
        codes, values = codes[:, :width], values[:, :width].copy()

        kept = np.zeros(self.hashes.size, np.bool_)
        kept[codes] = True
        numbers = np.cumsum(kept, dtype=np.int32) - np.int32(1)
        made.rows = len(rows)
        made._seen = {name: code for code, name in enumerate(self.hashes[kept].tolist())}
        made._codes, made._values = numbers[codes], values
        made._alike = not made.rows or bool((made._codes == made._codes[0]).all())
        return made

    @property
    def alike(self) -> UInt32 | None:
        """The hashes that all rows share, uint32[F], if each row has the same, in one order."""
        if self._waiting:
            self.catch_up()
        if not self._alike or not self.rows:
            return None

        # The first row stays what it is, but for its padding.
        if self._shared is None or self._shared.size != self._codes.shape[1]:
            self._shared = frozen(self.hashes[self._codes[0]])
        return self._shared

    @property
    def hashes(self) -> UInt32:
        """The distinct hashes, uint32[U], in the order in which they came."""
        self.catch_up()
        known, count = len(self._hashes), len(self._seen)
        if known == count:
            return self._hashes

        # Of a million only the few that are new are looked at: they are the last ones.
        if count > self._named.size:
            room = np.zeros(max(count, 2 * self._named.size), np.uint32)
            room[:known] = self._hashes
            self._named = room
        new = list(islice(reversed(self._seen), count - known))
        self._named[known:count] = new[::-1]
        self._hashes = frozen(self._named[:count])
        return self._hashes

    @property
    def codes(self) -> NDArray[np.int32]:
        """Which hash each value is of, int32[rows, F]."""
        self.catch_up()
        return self._codes[: self.rows]

    @property
    def values(self) -> Float32:
        """The values, float32[rows, F]."""
        self.catch_up()
        return self._values[: self.rows]


def _enlarged(array: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Return an array of this shape, zero but for what it had."""
    larger = np.zeros(shape, array.dtype)
    larger[: array.shape[0], : array.shape[1]] = array
    return larger
