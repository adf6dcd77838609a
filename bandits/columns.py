"""From hashed features to the columns of a design matrix, handed out as features are first met."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.hashing import hash_feature
from bandits.types import ActionSet, Context, Float32, Float64, Namespace, Row, UInt32

FNV_PRIME = np.uint32(16777619)
WIDER = 2
"""A product of dense rows costs a fifth or less of one cell by cell, so up to twice the width it is worth it."""
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

        Returns the columns that may occur, intp[n], each once, and their values, float64[K, n]. And of the features
        that were never met, and could still get a column, the sum of squares per action, float64[K]; without those
        that all actions share, which tell no action from another.
        """
        count = len(actions)
        shared = {ns.name for ns in context.namespaces}
        given = {ns.name: ns for ns in (*context.namespaces, *actions.namespaces)}
        groups = {name: ns.distinct() for name, ns in given.items()}
        columns: list[NDArray[np.intp]] = [np.zeros(1, np.intp)]  # the intercept
        values: list[Float64] = [np.ones((count, 1))]
        unmet = np.zeros(count)
        room = len(self.hashes) < self._limit
        for name, (hashes, weight) in groups.items():
            if name != self._ignored:
                found = self._lookup(hashes)
                met = np.flatnonzero(found >= 0)
                columns.append(found[met])
                values.append(_tall(weight[:, met], count))
                if room and met.size < found.size and name not in shared:
                    unmet += np.square(weight[:, found < 0]).sum(axis=1)
        for one, other in self._interactions:
            if one not in groups or other not in groups:
                continue
            (first, left), (second, right) = groups[one], groups[other]
            cells = count * given[one].values.shape[-1] * given[other].values.shape[-1]
            if first.size * second.size > cells:  # of many names few occur together
                found, product, left_out = self._together(given[one], given[other])
                columns.append(found)
                values.append(product)
                unmet += left_out if room else 0.0
                continue
            crossed = self._lookup((first[:, None] * FNV_PRIME) ^ second)
            i, j = np.nonzero(crossed >= 0)
            columns.append(crossed[i, j])
            values.append(_tall(left[:, i] * right[:, j], count))
            if room and i.size < crossed.size and not {one, other} <= shared:
                unmet += ((np.square(left) @ (crossed < 0)) * np.square(right)).sum(axis=1)
        return *_once(np.concatenate(columns), np.concatenate(values, axis=1)), unmet

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
        columns = self._lookup_rows(hashes)
        if len(self.hashes) < self._limit:
            fresh = hashes[(columns < 0) & (values != 0.0) & np.array(learn)[:, None]]
            if fresh.size:
                self._add(fresh)
                columns = self._lookup_rows(hashes)
        met = (columns >= 0) & (values != 0.0)
        width = int(met.sum(axis=1).max())
        if width < met.shape[1]:
            first = np.argsort(~met, axis=1, kind="stable")[:, :width]
            columns, values = np.take_along_axis(columns, first, axis=1), np.take_along_axis(values, first, axis=1)
            met = np.take_along_axis(met, first, axis=1)
        columns, values = np.where(met, columns, 0), np.where(met, values, 0.0)
        return np.concatenate([np.zeros_like(columns, shape=ones.shape), columns], axis=1), np.concatenate(
            [ones, values], axis=1
        )

    def _add(self, hashes: UInt32) -> None:
        """Columns for hashes that have none, in their order, up to the limit."""
        distinct, first = np.unique(hashes, return_index=True)
        self.hashes += distinct[np.argsort(first)].tolist()[: self._limit - len(self.hashes)]

    def _terms(self, namespaces: Sequence[Namespace]) -> list[tuple[UInt32, NDArray[Any]]]:
        """The features of every namespace and interaction, row by row."""
        groups = {ns.name: ns for ns in namespaces}
        terms: list[tuple[UInt32, NDArray[Any]]] = [
            (ns.cells(), ns.values) for ns in groups.values() if ns.name != self._ignored
        ]
        for first, second in self._interactions:
            if first in groups and second in groups:
                terms.append(_cross(groups[first], groups[second]))
        return terms

    def _together(self, first: Namespace, second: Namespace) -> tuple[NDArray[np.intp], Float64, Float64]:
        """Of one interaction: the columns that occur, their values [K, n], and the sum of squares of the others [K]."""
        hashes, values = _cross(first, second)
        count = len(values)
        found = self._lookup(hashes)
        columns, at = np.unique(found, return_inverse=True)
        flat = at.reshape(found.shape) + columns.size * np.arange(count)[:, None]
        sums: Any = np.bincount(flat.ravel(), values.ravel(), count * columns.size)
        met = columns >= 0
        unmet: Float64 = np.square(np.where(found < 0, values, 0.0)).sum(axis=1)
        return columns[met], sums.reshape(count, columns.size)[:, met], unmet

    def _lookup_rows(self, hashes: UInt32) -> NDArray[np.intp]:
        """The same of rows [n, w], which often are of the same features."""
        if (hashes == hashes[0]).all():
            return np.broadcast_to(self._lookup(hashes[0]), hashes.shape)
        return self._lookup(hashes)

    def _lookup(self, hashes: UInt32) -> NDArray[np.intp]:
        """Column of each feature; -1 where it has none."""
        if self._sorted.size != len(self.hashes):
            self._sorted, self._order = _sorted(self.hashes)
        at = np.minimum(self._sorted.searchsorted(hashes), self._sorted.size - 1)
        return np.where(self._sorted[at] == hashes, self._order[at], -1)


def row_of(context: Context, actions: ActionSet, index: int) -> Row:
    """One action's features, and its context's."""
    features: dict[str, list[tuple[int, float]]] = {}
    for ns in context.namespaces:
        features[ns.name] = list(zip(ns.hashes.tolist(), ns.values.tolist(), strict=True))
    for ns in actions.namespaces:
        cells = ns.cells()
        hashes = cells if cells.ndim == 1 else cells[index]
        features[ns.name] = list(zip(hashes.tolist(), ns.values[index].tolist(), strict=True))
    return features


def side_by_side(columns: NDArray[np.intp], values: Float64) -> tuple[NDArray[np.intp], Float64] | None:
    """Rows of sparse values as a dense matrix of the columns that occur; None if it would be mostly zeros.

    Also None where a row has a column twice, which a matrix cannot say.
    """
    width = columns.shape[1]
    if (columns == columns[0]).all() and np.unique(columns[0]).size == width:
        return columns[0], values
    occurs = np.zeros(int(columns.max()) + 1, bool)
    occurs[columns] = True
    distinct = np.flatnonzero(occurs)
    if distinct.size > WIDER * width:
        return None
    there = values != 0.0
    dense = np.zeros((len(values), distinct.size))
    dense[np.nonzero(there)[0], (np.cumsum(occurs) - 1)[columns[there]]] = values[there]
    return (distinct, dense) if np.count_nonzero(dense) == np.count_nonzero(there) else None


def _padded(rows: Sequence[Sequence[tuple[int, float]]]) -> tuple[UInt32, Float32]:
    """Hashes and values of rows of pairs, each [n, w], filled up with zeros."""
    lengths = np.array([len(row) for row in rows])
    there = np.arange(lengths.max()) < lengths[:, None]
    hashes, values = np.zeros(there.shape, np.uint32), np.zeros(there.shape, np.float32)
    hashes[there] = np.fromiter([hashed for row in rows for hashed, _ in row], np.int64)
    values[there] = np.fromiter([value for row in rows for _, value in row], np.float64)
    return hashes, values


def _cross(first: Namespace, second: Namespace) -> tuple[UInt32, Float64]:
    """Every pair of features of two namespaces, row by row; hashed as Vowpal Wabbit hashes quadratic features."""
    hashes = (first.cells()[..., :, None] * FNV_PRIME) ^ second.cells()[..., None, :]
    values = np.multiply(first.values[..., :, None], second.values[..., None, :], dtype=np.float64)
    return hashes.reshape(*hashes.shape[:-2], -1), values.reshape(*values.shape[:-2], -1)


def _tall(values: Float64, count: int) -> Float64:
    return values if len(values) == count else np.broadcast_to(values, (count, values.shape[1]))


def _once(columns: NDArray[np.intp], values: Float64) -> tuple[NDArray[np.intp], Float64]:
    """Each column once, with the sum of its values: two names may share a hash."""
    if len(set(columns.tolist())) == columns.size:
        return columns, values
    distinct, at = np.unique(columns, return_inverse=True)
    sums = np.zeros((len(values), distinct.size))
    np.add.at(sums.T, at, values.T)
    return distinct, sums


def _sorted(hashes: Sequence[int]) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    array = np.array(hashes, np.uint32)
    order = np.argsort(array)
    return array[order], order
