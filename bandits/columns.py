"""From hashed features to the columns of a design matrix, handed out as features are first met."""

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.hashing import hash_feature
from bandits.types import ActionSet, Context, Float64, Namespace, Row

FNV, MASK = 16777619, 0xFFFFFFFF
FNV_PRIME = np.uint32(FNV)
INTERCEPT = hash_feature("constant", "constant")


class FeatureIndex:
    """Columns for feature hashes, in the order they were first met. Column 0 is the intercept.

    ``interactions``: pairs of namespaces that are crossed. ``ignored``: a namespace that has no columns of its own.
    ``limit``: the most columns there will be; a feature first met after that is ignored.
    """

    def __init__(
        self, interactions: Sequence[tuple[str, str]], ignored: str | None, limit: int, hashes: Sequence[int]
    ) -> None:
        self._interactions = interactions
        self._ignored = ignored
        self._limit = limit
        self.hashes = list(hashes)
        self._columns = {h: column for column, h in enumerate(self.hashes)}
        self._sorted, self._order = _sorted(self.hashes)  # as of the last call of matrix

    def matrix(self, context: Context, actions: ActionSet) -> tuple[NDArray[np.intp], Float64]:
        """The known features of every action, interactions included.

        Returns the ascending columns that occur, intp[n], and their values, float64[K, n]. With features crossed by a
        category of the context, most of the d columns are zero for any one decision.
        """
        if self._sorted.size != len(self.hashes):
            self._sorted, self._order = _sorted(self.hashes)
        count = len(actions)
        at: list[NDArray[np.intp]] = [np.zeros((count, 1), np.intp)]  # the intercept
        values: list[NDArray[Any]] = [np.ones((count, 1))]
        for hashes, given in self._terms(context, actions):
            found = self._lookup(hashes, given)
            at.append(np.broadcast_to(found, (count, found.shape[-1])))
            values.append(np.broadcast_to(given, (count, given.shape[-1])))
        columns_at = np.concatenate(at, axis=1)
        present = np.zeros(len(self.hashes) + 1, bool)  # the last one stands for the unknown, -1
        present[columns_at] = True
        present[-1] = False
        columns = np.flatnonzero(present)
        compact = np.full(present.size, columns.size)
        compact[columns] = np.arange(columns.size)
        width = columns.size + 1
        flat = compact[columns_at] + width * np.arange(count)[:, None]
        weights = np.concatenate(values, axis=1, dtype=np.float64)
        sums: Any = np.bincount(flat.ravel(), weights.ravel(), count * width)
        return columns, sums.reshape(count, width)[:, :-1]

    def dense(self, context: Context, actions: ActionSet) -> Float64:
        """float64[K, d]: the same with every column."""
        columns, values = self.matrix(context, actions)
        features = np.zeros((len(actions), len(self.hashes)))
        features[:, columns] = values
        return features

    def row(self, features: Row, *, learn: bool) -> tuple[list[int], list[float]]:
        """Columns and values of one action; with ``learn``, a feature not met before gets a column, up to the limit.

        In plain Python: for a row of some dozen features that is several times faster than arrays.
        """
        pairs: list[tuple[int, float]] = []
        for name, own in features.items():
            if name != self._ignored:
                pairs += own
        for one, other in self._interactions:
            if one in features and other in features:
                first, second = features[one], features[other]
                products = array("f", [u * v for _, u in first for _, v in second])  # as a scorer's
                pairs += zip([FNV * a & MASK ^ b for a, _ in first for b, _ in second], products, strict=True)
        columns, values = self._columns, {0: 1.0}
        for hashed, value in pairs:
            column = columns.get(hashed)
            if column is None:
                if not learn or not value or len(self.hashes) >= self._limit:
                    continue
                column = columns[hashed] = len(self.hashes)
                self.hashes.append(hashed)
            if column in values:
                values[column] += value
            elif value:
                values[column] = value
        return list(values), list(values.values())

    def _terms(self, context: Context, actions: ActionSet) -> list[tuple[NDArray[np.uint32], NDArray[np.float32]]]:
        groups = {ns.name: ns for ns in (*context.namespaces, *actions.namespaces)}
        terms = [(ns.hashes, ns.values) for ns in groups.values() if ns.name != self._ignored]
        for first, second in self._interactions:
            if first in groups and second in groups:
                terms.append(_cross(groups[first], groups[second]))
        return terms

    def _lookup(self, hashes: NDArray[np.uint32], values: NDArray[np.float32]) -> NDArray[np.intp]:
        """Column of each feature; -1 where it is unknown, or padding."""
        at = np.minimum(self._sorted.searchsorted(hashes), self._sorted.size - 1)
        known = self._sorted[at] == hashes
        return np.where(known & (values != 0.0) if hashes.shape == values.shape else known, self._order[at], -1)


def row_of(context: Context, actions: ActionSet, index: int) -> Row:
    """One action's features, and its context's."""
    features: dict[str, list[tuple[int, float]]] = {}
    for ns in context.namespaces:
        features[ns.name] = list(zip(ns.hashes.tolist(), ns.values.tolist(), strict=True))
    for ns in actions.namespaces:
        hashes = ns.hashes if ns.hashes.ndim == 1 else ns.hashes[index]
        features[ns.name] = list(zip(hashes.tolist(), ns.values[index].tolist(), strict=True))
    return features


def _cross(first: Namespace, second: Namespace) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Every pair of features of two namespaces; hashed as Vowpal Wabbit hashes quadratic features."""
    hashes = (first.hashes[..., :, None] * FNV_PRIME) ^ second.hashes[..., None, :]
    values = first.values[..., :, None] * second.values[..., None, :]
    return hashes.reshape(*hashes.shape[:-2], -1), values.reshape(*values.shape[:-2], -1)


def _sorted(hashes: Sequence[int]) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    array = np.array(hashes, np.uint32)
    order = np.argsort(array)
    return array[order], order
