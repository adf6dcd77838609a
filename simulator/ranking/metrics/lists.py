"""Metrics of ranked lists, vectorised over users.

A list holds indices of items, best first: int32[users, n], -1 where a list has ended. Relevance is
binary, but for ``graded_ndcg``. The numbers equal those of ranx (https://github.com/AmenRA/ranx),
and of AUC and the errors of ratings those of scikit-learn, to 1e-9
(tests/unit/simulator/ranking/test_metrics.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64

Bools = NDArray[np.bool_]
Lists = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class ItemSets:
    """A set of items by user, as CSR rows.

    ``starts``: int64[users + 1]; ``indices``: int32[n], ascending within each row.
    """

    starts: NDArray[np.int64]
    indices: NDArray[np.int32]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How many items each user has, int64[users]."""
        return np.diff(self.starts)

    def rows(self, chosen: slice) -> "ItemSets":
        """Return the sets of consecutive users."""
        starts = self.starts[chosen.start : chosen.stop + 1]
        return ItemSets(starts - starts[0], self.indices[starts[0] : starts[-1]])

    def take(self, users: NDArray[np.intp]) -> "ItemSets":
        """Return the sets of some users, in this order."""
        starts, at = self.cells(users)
        return ItemSets(starts, self.indices[at])

    def cells(self, users: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where the sets of some users begin, and the places of their items in these."""
        sizes = self.sizes[users]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        return starts, np.arange(starts[-1]) + np.repeat(self.starts[users] - starts[:-1], sizes)

    def owners(self) -> NDArray[np.int64]:
        """Return the row of each index, int64[n]."""
        return np.repeat(np.arange(len(self.starts) - 1), self.sizes)

    def holds(self, lists: Lists) -> Bools:
        """Return which entries of lists are in their user's set, bool[users, n]."""
        found: Bools = self.find(lists) >= 0
        return found

    def find(self, lists: Lists) -> NDArray[np.int64]:
        """Return the place in ``indices`` of each entry of lists, int64[users, n]; -1: none."""
        rows = np.broadcast_to(np.arange(len(lists))[:, None], lists.shape)
        return self.find_pairs(rows, lists)

    def holds_pairs(self, rows: NDArray[Any], items: NDArray[Any]) -> Bools:
        """Return which items are in the set of their row, of the arguments' shape; -1 never is."""
        found: Bools = self.find_pairs(rows, items) >= 0
        return found

    def find_pairs(self, rows: NDArray[Any], items: NDArray[Any]) -> NDArray[np.int64]:
        """Return the place in ``indices`` of items in the set of their row; -1 if they are not."""
        span = 1 + max(int(items.max(initial=0)), int(self.indices.max(initial=0)))
        mine = self.owners() * span + self.indices
        if not mine.size:
            return np.full(items.shape, -1, np.int64)
        asked = rows.astype(np.int64) * span + items
        at = np.minimum(np.searchsorted(mine, asked), mine.size - 1)
        return np.where((mine[at] == asked) & (items >= 0), at, -1)


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """Hits, bool[users, k], and relevant items, int64[users]: metrics are made of them."""

    hits: Bools
    relevant: NDArray[np.int64]

    @property
    def k(self) -> int:
        """The length that lists are cut to."""
        return int(self.hits.shape[1])


def hits_of(lists: Lists, relevant: ItemSets, k: int) -> Hits:
    """Return which of the first k places hold a relevant item.

    Args:
        lists: int32[users, n]; those that are shorter than k miss in the places they lack.
        relevant: the relevant items of each user.
        k: where lists are cut.
    """
    hits = np.zeros((len(lists), k), np.bool_)
    hits[:, : lists.shape[1]] = relevant.holds(lists[:, :k])
    return Hits(hits, relevant.sizes)


def recall(of: Hits) -> Float64:
    """Return the share of the relevant items that are among the first k: |hits| / |relevant|."""
    return _share(of.hits.sum(axis=1), of.relevant)


def precision(of: Hits) -> Float64:
    """Return the share of the first k places that hold a relevant item: |hits| / k."""
    share: Float64 = of.hits.sum(axis=1) / of.k
    return share


def f1(of: Hits) -> Float64:
    """Return the harmonic mean of precision and recall: 2 |hits| / (k + |relevant|).

    Van Rijsbergen 1979, Information Retrieval, chapter 7.
    """
    mean: Float64 = 2 * of.hits.sum(axis=1) / (of.k + of.relevant)
    return mean


def ndcg(of: Hits) -> Float64:
    """Return the discounted gain over that of the best list: Σ hit_i / log₂(i + 1), i from 1.

    Järvelin & Kekäläinen 2002, https://doi.org/10.1145/582415.582418, with gains of 0 and 1. The
    best list has its min(k, |relevant|) relevant items first.
    """
    gains = 1 / np.log2(np.arange(2, of.k + 2))
    best = np.concatenate([[0.0], np.cumsum(gains)])[np.minimum(of.relevant, of.k)]
    return _share(of.hits @ gains, best)


def average_precision(of: Hits) -> Float64:
    """Return Σ precision@i over the hits i ≤ k, divided by |relevant|: MAP is its mean.

    As TREC's and ranx's: a user with more than k relevant items cannot reach 1.
    """
    at = np.cumsum(of.hits, axis=1) / np.arange(1, of.k + 1)
    return _share((at * of.hits).sum(axis=1), of.relevant)


def reciprocal_rank(of: Hits) -> Float64:
    """Return 1 / (place of the first hit), 0 without one: MRR is its mean.

    Voorhees 1999, TREC-8 question answering track.
    """
    first = np.argmax(of.hits, axis=1)
    return _share(of.hits.max(axis=1, initial=False), first + 1)


def hit_rate(of: Hits) -> Float64:
    """Return 1 where any of the first k is relevant, else 0."""
    return np.asarray(of.hits.any(axis=1), np.float64)


def graded_ndcg(lists: Lists, relevant: ItemSets, gains: Float64, k: int) -> Float64:
    """Return nDCG with a gain of its own for each relevant item: Σ gain_i / log₂(i + 1).

    Järvelin & Kekäläinen 2002, https://doi.org/10.1145/582415.582418. The best list has the largest
    gains first.

    Args:
        lists: int32[users, n].
        relevant: the relevant items of each user.
        gains: of each of them, float64[pairs], above 0.
        k: where lists are cut.
    """
    discounts = 1 / np.log2(np.arange(2, k + 2))
    at = relevant.find(lists[:, :k])
    reached = np.where(at >= 0, gains[np.maximum(at, 0)], 0.0) @ discounts[: at.shape[1]]

    owners = relevant.owners()
    order = np.lexsort((-gains, owners))
    rank = np.arange(owners.size) - relevant.starts[owners]
    first = rank < k
    best = np.bincount(
        owners[first], gains[order][first] * discounts[rank[first]], minlength=len(lists)
    )
    return _share(reached, best)


LIST_METRICS: Final[Mapping[str, Callable[[Hits], Float64]]] = {
    "ndcg": ndcg,
    "recall": recall,
    "precision": precision,
    "f1": f1,
    "map": average_precision,
    "mrr": reciprocal_rank,
    "hit_rate": hit_rate,
}


def auc(scores: NDArray[Any], relevant: ItemSets, barred: ItemSets) -> Float64:
    """Return the chance that a relevant item is scored above another one, ties half: AUC by user.

    Rendle et al. 2009, https://arxiv.org/abs/1205.2618, section 4.1.1. NaN for a user with nothing
    relevant, or with nothing else.

    Args:
        scores: of all items, float[users, items]; -inf where a source does not propose an item.
        relevant: the relevant items of each user, of which none is barred.
        barred: items that are not ranked.
    """
    values = np.full(len(scores), np.nan)
    for user in range(len(scores)):
        mine = relevant.indices[relevant.starts[user] : relevant.starts[user + 1]]
        out = barred.indices[barred.starts[user] : barred.starts[user + 1]]
        if mine.size == 0:
            continue

        # For each item: how many relevant ones are below it, and how many are not above it. Summed
        # over all items, each relevant one is counted among the others and itself; both are left.
        ours = np.sort(scores[user, mine])
        below = np.searchsorted(ours, scores[user], "left")
        up_to = np.searchsorted(ours, scores[user], "right")
        lost = (below + up_to).sum() - (below[out] + up_to[out]).sum()
        lost -= (below[mine] + up_to[mine]).sum()

        pairs = mine.size * (scores.shape[1] - out.size - mine.size)
        if pairs:
            values[user] = 1 - lost / (2 * pairs)
    return values


def rating_errors(predicted: Float64, ratings: Float64) -> dict[str, float]:
    """Return MSE, RMSE and MAE of predicted ratings, over all pairs of user and item.

    Args:
        predicted: float64[n].
        ratings: float64[n], what users gave.
    """
    apart = predicted - ratings
    mse = float(np.mean(apart**2))
    return {"rmse": mse**0.5, "mse": mse, "mae": float(np.mean(np.abs(apart)))}


def _share(part: NDArray[Any], whole: NDArray[Any]) -> Float64:
    share: Float64 = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return share
