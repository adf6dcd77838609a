"""The features that a scorer was fitted on, by their hashes, and what fields they make."""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArtifactError
from bandits.types import Float32, UInt32
from policies.artifacts.source_artifact import TrainedSource

LARGEST: Final = np.float32(10.0)
"""A number counts at most so many times its usual size: one slip of a pen moves no score far."""


@dataclass(frozen=True, slots=True, eq=False)
class FeatureVocabulary:
    """Features by hash, in ``fields`` of features with one name.

    ``hashes``: uint32[n], ascending; ``field``: int32[n], which each is of; ``scale``: float32[n],
    what its values are multiplied by.
    """

    hashes: UInt32
    field: NDArray[np.int32]
    scale: Float32
    fields: int

    @classmethod
    def load(cls, source: TrainedSource, name: str) -> Self:
        """Return the one that a trained source holds.

        Args:
            source: a scorer.
            name: that its arrays' names begin with.

        Raises:
            ArtifactError: its arrays do not fit together.
        """
        hashes = source.places(f"{name}_hashes")
        field = source.places(f"{name}_fields", len(hashes))
        scale = source.array(f"{name}_scales", len(hashes))
        fields = int(source.array(f"{name}_widths", None).size)
        if (hashes[1:] <= hashes[:-1]).any():
            raise ArtifactError(f"{source.kind}: {name}_hashes are not in order", name)
        if len(field) and not 0 <= field.min() <= field.max() < fields:
            raise ArtifactError(f"{source.kind}: a field of {name} is outside the {fields}", name)
        return cls(hashes, field, scale, fields)

    def __len__(self) -> int:
        return len(self.hashes)

    def codes(self, hashes: UInt32) -> NDArray[np.intp]:
        """Return the place of each hash, intp[...], -1 for one that was never seen."""
        if not len(self.hashes):
            return np.full(hashes.shape, -1, np.intp)
        places = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[places] == hashes, places, -1)

    def pooled(self, codes: NDArray[np.intp], values: Float32) -> Float32:
        """Return how much each feature counts, float32[rows, F].

        Values are scaled, and those of one field share it: a list counts as much as one text. What
        was never seen counts nothing.

        Args:
            codes: int[rows, F], -1 for what was never seen.
            values: float32[rows, F], 0 where a row has no such feature.
        """
        scaled = np.clip(values * self.scale[codes], -LARGEST, LARGEST) if len(self) else values
        counts = np.where(codes >= 0, scaled, np.float32(0.0))
        rows = np.arange(len(codes))[:, None] * self.fields
        if not self.fields or not counts.size:
            return counts

        cells = rows + self.field[codes]
        there = np.bincount(cells.ravel(), (counts != 0).ravel(), len(codes) * self.fields)
        shared: Float32 = counts / np.maximum(there, 1.0).astype(np.float32)[cells]
        return shared

    def vectors(self, codes: NDArray[np.intp], counts: Float32, table: Float32) -> Float32:
        """Return the vector of each row's fields, float32[rows, fields, d].

        Args:
            codes: int[rows, F].
            counts: as ``pooled`` has them, float32[rows, F].
            table: a vector of each feature, float32[n, d].
        """
        made = np.zeros((len(codes) * self.fields, table.shape[1]), np.float32)
        row, column = np.nonzero(counts)
        if row.size:
            code = codes[row, column]
            cells = row * self.fields + self.field[code]
            parts = table[code] * counts[row, column, None]

            # What is of one cell side by side: each sum has one order, whatever else is asked.
            order = np.argsort(cells, kind="stable")
            first = np.flatnonzero(np.diff(cells[order], prepend=-1))
            made[cells[order][first]] = np.add.reduceat(parts[order], first)
        return made.reshape(len(codes), self.fields, table.shape[1])


def dense(
    codes: NDArray[np.intp], counts: Float32, chosen: NDArray[np.int32], size: int
) -> Float32:
    """Return the counts of some features as columns, float32[rows, chosen].

    Args:
        codes: int[rows, F].
        counts: float32[rows, F], 0 for what is not there.
        chosen: the features, places in the vocabulary.
        size: of the vocabulary.
    """
    column = np.full(size + 1, len(chosen), np.intp)
    column[chosen] = np.arange(len(chosen))
    made = np.zeros((len(codes), len(chosen) + 1), np.float32)
    rows = np.broadcast_to(np.arange(len(codes))[:, None], codes.shape)
    np.add.at(made, (rows, np.where(counts != 0, column[codes], len(chosen))), counts)
    return np.ascontiguousarray(made[:, :-1])


def one_row(array: NDArray[Any]) -> NDArray[Any]:
    """Return a vector as a matrix of one row."""
    return array.reshape(1, -1)
