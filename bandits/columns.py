"""From hashed features to the columns of a design matrix, handed out as features are first met."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.hashing import hash_feature
from bandits.types import ActionSet, Context, Float32, Float64, Namespace, Row, UInt32

FNV_PRIME = np.uint32(16777619)
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
        self._sorted, self._order = _sorted(self.hashes)  # as of the last lookup

    def matrix(self, context: Context, actions: ActionSet) -> tuple[NDArray[np.intp], Float64, Float64]:
        """The features of every action, interactions included.

        Returns the ascending columns that occur, intp[n], and their values, float64[K, n]: with features crossed by a
        category of the context, most of the d columns are zero for any one decision. And of the features that were
        never met, and could still get a column, the sum of squares per action, float64[K]; without those that all
        actions share, which tell no action from another.
        """
        count = len(actions)
        at: list[NDArray[np.intp]] = [np.zeros((count, 1), np.intp)]  # the intercept
        values: list[NDArray[Any]] = [np.ones((count, 1))]
        unmet = np.zeros(count)
        for hashes, given in self._terms((*context.namespaces, *actions.namespaces)):
            found = self._lookup(hashes, given)
            if given.ndim > 1 and len(self.hashes) < self._limit:
                unmet += np.square(given, dtype=np.float64, where=found < 0, out=np.zeros(given.shape)).sum(axis=1)
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
        return columns, sums.reshape(count, width)[:, :-1], unmet

    def dense(self, context: Context, actions: ActionSet) -> tuple[Float64, Float64]:
        """float64[K, d] and float64[K]: the same with every column."""
        columns, values, unmet = self.matrix(context, actions)
        features = np.zeros((len(actions), len(self.hashes)))
        features[:, columns] = values
        return features, unmet

    def rows(self, batch: Sequence[Row], learn: Sequence[bool]) -> tuple[NDArray[np.intp], Float64]:
        """Columns and values of one action each; where ``learn``, a feature first met gets a column, up to the limit.

        Returns intp[n, w] and float64[n, w], filled up with zeros in column 0. What a row becomes depends on the rows
        before it, and on how many are asked for together only in that width.
        """
        names = sorted({name for row in batch for name in row})
        terms = self._terms([Namespace(name, *_padded([row.get(name, ()) for row in batch])) for name in names])
        ones = np.ones((len(batch), 1))
        if not terms:
            return np.zeros((len(batch), 1), np.intp), ones
        hashes = np.concatenate([hashes for hashes, _ in terms], axis=1)
        values: Float64 = np.concatenate([values for _, values in terms], axis=1, dtype=np.float64)
        columns = self._lookup(hashes, values)
        if len(self.hashes) < self._limit:
            fresh = hashes[(columns < 0) & (values != 0.0) & np.array(learn)[:, None]]
            if fresh.size:
                self._add(fresh)
                columns = self._lookup(hashes, values)
        met = columns >= 0
        width = int(met.sum(axis=1).max())
        if width < met.shape[1]:
            first = np.argsort(~met, axis=1, kind="stable")[:, :width]
            columns, values = np.take_along_axis(columns, first, axis=1), np.take_along_axis(values, first, axis=1)
            met = columns >= 0
        columns, values = np.where(met, columns, 0), np.where(met, values, 0.0)
        return np.concatenate([np.zeros_like(columns, shape=ones.shape), columns], axis=1), np.concatenate(
            [ones, values], axis=1
        )

    def _add(self, hashes: UInt32) -> None:
        """Columns for hashes that have none, in their order, up to the limit."""
        distinct, first = np.unique(hashes, return_index=True)
        self.hashes += distinct[np.argsort(first)].tolist()[: self._limit - len(self.hashes)]

    def _terms(self, namespaces: Sequence[Namespace]) -> list[tuple[UInt32, Float32]]:
        """The features of every namespace and interaction; of a name that comes twice, the last."""
        groups = {ns.name: ns for ns in namespaces}
        terms = [(ns.hashes, ns.values) for ns in groups.values() if ns.name != self._ignored]
        for first, second in self._interactions:
            if first in groups and second in groups:
                terms.append(_cross(groups[first], groups[second]))
        return terms

    def _lookup(self, hashes: UInt32, values: NDArray[Any]) -> NDArray[np.intp]:
        """Column of each feature; -1 where it is unknown, or padding."""
        if self._sorted.size != len(self.hashes):
            self._sorted, self._order = _sorted(self.hashes)
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


def _padded(rows: Sequence[Sequence[tuple[int, float]]]) -> tuple[UInt32, Float32]:
    """Hashes and values of rows of pairs, each [n, w], filled up with zeros."""
    lengths = np.array([len(row) for row in rows])
    there = np.arange(lengths.max()) < lengths[:, None]
    hashes, values = np.zeros(there.shape, np.uint32), np.zeros(there.shape, np.float32)
    pairs = np.array([pair for row in rows for pair in row]).reshape(-1, 2)
    hashes[there], values[there] = pairs[:, 0], pairs[:, 1]
    return hashes, values


def _cross(first: Namespace, second: Namespace) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Every pair of features of two namespaces; hashed as Vowpal Wabbit hashes quadratic features."""
    hashes = (first.hashes[..., :, None] * FNV_PRIME) ^ second.hashes[..., None, :]
    values = first.values[..., :, None] * second.values[..., None, :]
    return hashes.reshape(*hashes.shape[:-2], -1), values.reshape(*values.shape[:-2], -1)


def _sorted(hashes: Sequence[int]) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    array = np.array(hashes, np.uint32)
    order = np.argsort(array)
    return array[order], order
