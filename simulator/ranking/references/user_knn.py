"""Neighbours of users: what those with the most similar histories had.

The model is the histories themselves, and an artifact holds no user: so it is a row to compare
sources with, and is not served.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32, Float64
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import Calibration
from simulator.ranking.asking import TrainedModels

NAME: Final = "user_knn"
NEIGHBOURS: Final = 50
"""Users who are compared with; by measurement, docs/benchmarks/sources.md."""
UNSCALED: Final = Calibration(0.0, 1.0)
NOTE: Final = "it keeps everybody's history: compared, and not served"


class UserNeighbours:
    """A score sums, over the most similar users, the similarity times what the item was worth.

    Herlocker, Konstan, Borchers & Riedl 1999, https://doi.org/10.1145/312624.312682. Users are
    compared by the cosine of their histories, an item weighed by its inverse frequency. Differs
    from the paper: feedback is implicit, so no mean is taken off, and sums are not normalised.
    """

    needs_history = True
    floor = 0.0

    def __init__(
        self,
        starts: NDArray[np.int64],
        items: NDArray[np.int64],
        weights: Float32,
        n_items: int,
        neighbours: int = NEIGHBOURS,
    ) -> None:
        self._starts, self._items, self._weights = starts, items, weights
        self._n_items, self._neighbours = n_items, neighbours
        users = len(starts) - 1
        owners = np.repeat(np.arange(users), np.diff(starts))
        had = np.bincount(items, minlength=n_items)
        self._rarity: Float64 = np.log((1 + users) / (1 + had)) + 1

        vectors = weights * self._rarity[items]
        lengths = np.sqrt(np.bincount(owners, vectors**2, minlength=users))
        lengths[lengths == 0] = 1
        by_item = np.argsort(items, kind="stable")
        self._posting_starts = np.concatenate([[0], np.cumsum(had)])
        self._posting_users = owners[by_item]
        self._postings = (vectors / lengths[owners])[by_item]

    @classmethod
    def of(cls, histories: Histories, items: Sequence[str]) -> Self:
        """Return the model of some users' histories.

        Args:
            histories: theirs.
            items: the items that are ranked, in their order; others are left out.
        """
        place_of = {item: place for place, item in enumerate(items)}
        places = np.array([place_of.get(item, -1) for item in histories.items], np.int64)
        at = places[histories.indices]
        users = len(histories.starts) - 1
        owners = np.repeat(np.arange(users), np.diff(histories.starts))[at >= 0]
        starts = np.searchsorted(owners, np.arange(users + 1)).astype(np.int64)
        return cls(starts, at[at >= 0], histories.weights[at >= 0], len(items))

    def raw(self, indices: NDArray[Any], weights: Float32) -> Float32:
        """Return the score of every item, float32[items]. Pure.

        Args:
            indices: items of the history, int[h].
            weights: float32[h], how strongly each speaks for its item.
        """
        users, alike = self._most_similar(indices, weights * self._rarity[indices])
        at, owner = _ranges(self._starts[users], self._starts[users + 1])
        by = alike[owner] * self._weights[at]
        return np.bincount(self._items[at], by, minlength=self._n_items).astype(np.float32)

    def _most_similar(
        self, indices: NDArray[Any], vector: Float64
    ) -> tuple[NDArray[np.int64], Float64]:
        """Return the most similar users and their similarities, in the order of the users."""
        at, owner = _ranges(self._posting_starts[indices], self._posting_starts[indices + 1])
        products = np.bincount(
            self._posting_users[at], vector[owner] * self._postings[at], len(self._starts) - 1
        )
        if np.count_nonzero(products) > self._neighbours:
            # Of equals the earlier user, so that the same histories give the same neighbours.
            least = np.partition(products, -self._neighbours)[-self._neighbours]
            equal = np.flatnonzero(products == least)
            above = np.flatnonzero(products > least)
            users = np.sort(np.concatenate([above, equal[: self._neighbours - above.size]]))
        else:
            users = np.flatnonzero(products)
        length = np.sqrt(np.sum(vector**2)) or 1.0
        return users, products[users] / length


def user_neighbours(histories: Histories, items: Sequence[str]) -> TrainedModels:
    """Return neighbours of users as what is asked beside the sources.

    Args:
        histories: of the users of the training part.
        items: those of the sources, in their order.
    """
    scales: Mapping[str, Calibration] = {NAME: UNSCALED}
    return TrainedModels(tuple(items), {NAME: UserNeighbours.of(histories, items)}, scales)


def _ranges(
    starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of several ranges, one after the other, and which range each is of."""
    sizes = stops - starts
    owner = np.repeat(np.arange(sizes.size), sizes)
    ends = np.cumsum(sizes)
    return np.arange(owner.size) + (starts - (ends - sizes))[owner], owner
