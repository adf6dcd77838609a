"""From rows of a log to what the reward model sees: hashed features of every action."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bandits.columns import FNV_PRIME
from bandits.hashing import hash_feature
from bandits.types import Float64, frozen
from policies.catalogue import hash_pairs, hash_rows
from policies.features import CONTEXT, ITEM, score_features
from simulator.logs.base import LoggedDecision

CELLS = 1 << 20
"""Features of actions that are held at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """Some rows of a batch, from ``start``. ``columns``: int64[n, K, F] hashes, ``values``: float64[n, K, F].

    K is the most actions and F the most features that a row has; the rest is padding, with value 0.
    """

    start: int
    columns: NDArray[np.int64]
    values: Float64

    def chosen(self, chosen: NDArray[np.intp]) -> tuple[NDArray[np.int64], Float64]:
        """Of the chosen actions: int64[n, F] and float64[n, F]. ``chosen``: intp[n]."""
        rows = np.arange(len(chosen))
        return self.columns[rows, chosen], self.values[rows, chosen]


def designs(rows: Sequence[LoggedDecision]) -> Iterator[Design]:
    """All rows, in parts that fit the memory."""
    start, held = 0, Held()
    for number, row in enumerate(rows):
        if held.cells_with(row) > CELLS and number > start:
            yield held.padded(start)
            start, held = number, Held()
        held.add(row)
    if start < len(rows):
        yield held.padded(start)


class Held:
    """Rows that are to be one design: ids, context, features and scores, each as it comes."""

    def __init__(self) -> None:
        self._ids: list[NDArray[np.uint32]] = []
        self._contexts: list[list[tuple[int, float]]] = []
        self._features: list[tuple[NDArray[np.uint32], NDArray[np.float32]] | None] = []
        self._scores: list[tuple[NDArray[np.uint32], NDArray[np.float32]] | None] = []
        self._actions = 0
        self._width = 0

    def cells_with(self, row: LoggedDecision) -> int:
        """About how many numbers there are with one row more."""
        width = max(self._width, 1 + 2 * len(row.context))
        return (len(self._ids) + 1) * max(self._actions, len(row.action_ids)) * width

    def add(self, row: LoggedDecision) -> None:
        """Hash a row's features."""
        self._ids.append(_hashed(tuple(row.action_ids)))
        self._contexts.append(hash_pairs(row.context, CONTEXT))
        features = None if row.features is None else hash_rows(row.features)
        scores = None
        if row.scores:
            ranked = score_features(row.scores)
            scores = (np.broadcast_to(ranked.hashes, ranked.values.shape), ranked.values)
        self._features.append(features)
        self._scores.append(scores)
        width = 1 + 2 * len(self._contexts[-1])
        width += sum(each[0].shape[1] for each in (features, scores) if each is not None)
        self._width = max(self._width, width)
        self._actions = max(self._actions, len(row.action_ids))

    def padded(self, start: int) -> Design:
        """The design: id, context, context crossed with id, features, scores."""
        n, k = len(self._ids), self._actions
        ids, there = np.zeros((n, k, 1), np.uint32), np.zeros((n, k, 1))
        for row, hashes in enumerate(self._ids):
            ids[row, : len(hashes), 0], there[row, : len(hashes), 0] = hashes, 1.0
        width = max(map(len, self._contexts), default=0)
        context = [[hashed for hashed, _ in pairs] + [0] * (width - len(pairs)) for pairs in self._contexts]
        values = [[value for _, value in pairs] + [0.0] * (width - len(pairs)) for pairs in self._contexts]
        shared = np.array(context, np.uint32).reshape(n, 1, width)
        weight = np.array(values, np.float64).reshape(n, 1, width) * there
        own = [_stacked(each, n, k) for each in (self._features, self._scores)]
        hashed = [ids, np.broadcast_to(shared, weight.shape), (ids * FNV_PRIME) ^ shared, *(each[0] for each in own)]
        return Design(
            start,
            np.concatenate(hashed, axis=2, dtype=np.int64),
            np.concatenate([there, weight, weight, *(each[1] for each in own)], axis=2),
        )


def _stacked(
    given: Sequence[tuple[NDArray[np.uint32], NDArray[np.float32]] | None], n: int, k: int
) -> tuple[NDArray[np.uint32], Float64]:
    """Features of the actions of n rows, where a row has them: [n, k, F] each."""
    width = max((each[0].shape[1] for each in given if each is not None), default=0)
    hashes, values = np.zeros((n, k, width), np.uint32), np.zeros((n, k, width))
    for row, each in enumerate(given):
        if each is not None:
            actions, columns = each[0].shape
            hashes[row, :actions, :columns], values[row, :actions, :columns] = each
    return hashes, values


@lru_cache(maxsize=1024)
def _hashed(ids: tuple[str, ...]) -> NDArray[np.uint32]:
    hashes: NDArray[np.uint32] = np.array([hash_feature(ITEM, action_id) for action_id in ids], np.uint32)
    return frozen(hashes)
