"""What a network is trained on that meets an item with what a user did before it."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bandits.types import Float32
from policies.artifacts.histories import Histories

JUDGED: Final = 1_000
"""Users at most whose last item is held out, to judge how good a network has become."""
JUDGED_SHARE: Final = 0.5
"""Of few users, the part whose last item is held out."""
LIST: Final = 10
"""Items of the lists that are judged."""


@dataclass(frozen=True, slots=True, eq=False)
class PastItems:
    """The interactions that speak for their item, by user, oldest first.

    ``items`` int64[n] and ``weights`` float32[n]; ``users``, int64[n], who; ``first``, int64[n],
    where the user's begin. ``rows`` are the places that are trained on, ``held_out`` those that are
    judged.
    """

    items: NDArray[np.int64]
    weights: Float32
    users: NDArray[np.int64]
    first: NDArray[np.int64]
    end: NDArray[np.int64]
    rows: NDArray[np.int64]
    held_out: NDArray[np.int64]

    @classmethod
    def of(cls, histories: Histories, *, seed: int, also_first: bool = False) -> Self:
        """Return those of some histories.

        The order of items without times is drawn, so that nothing is learned of it.

        Args:
            histories: who interacted with what.
            seed: of what is drawn.
            also_first: whether a user's first item is trained on, before which nothing is known.
        """
        rng = np.random.default_rng([seed, 11])
        users = np.repeat(np.arange(len(histories.users)), np.diff(histories.starts))
        times = np.full(users.size, -1) if histories.times is None else histories.times
        kept = np.flatnonzero(histories.weights > 0)
        kept = kept[np.lexsort((rng.random(kept.size), times[kept], users[kept]))]

        users = users[kept]
        begins = np.append(True, users[1:] != users[:-1])[: users.size]
        first = np.maximum.accumulate(np.where(begins, np.arange(users.size), 0))
        last = np.append(begins[1:], True)[: users.size] & ~begins

        held = np.flatnonzero(last)
        most = min(JUDGED, int(JUDGED_SHARE * held.size))
        held = np.sort(rng.choice(held, most, replace=False))
        trained = np.ones(users.size, np.bool_) if also_first else ~begins
        trained[held] = False

        # Where those end that are trained on.
        count = np.bincount(users, minlength=len(histories.users))
        end = first + count[users]
        is_held = np.zeros(users.size, np.bool_)
        is_held[held] = True
        end -= is_held[end - 1]
        return cls(
            histories.indices[kept].astype(np.int64),
            histories.weights[kept],
            users,
            first,
            end,
            np.flatnonzero(trained),
            held,
        )

    def around(self, rows: NDArray[np.int64], before: int, after: int = 0) -> "Bags":
        """Return what users did around some interactions, these left out.

        Args:
            rows: int64[b], places of interactions.
            before: items at most that came before each.
            after: items at most that came after each, and are not held out.
        """
        begin = np.maximum(self.first[rows], rows - before)
        behind = np.maximum(np.minimum(self.end[rows] - rows - 1, after), 0)
        sizes = rows - begin + behind
        starts = np.append(0, np.cumsum(sizes))
        at = np.arange(starts[-1]) + np.repeat(begin - starts[:-1], sizes)
        row = np.repeat(rows, sizes)
        at += at >= row
        return Bags(
            torch.from_numpy(self.items[at]),
            torch.from_numpy(self.weights[at]),
            torch.from_numpy(starts[:-1]),
            torch.from_numpy(row - at),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Bags:
    """The histories of a batch, side by side.

    ``items`` int64[m], ``weights`` float32[m]; ``starts``, int64[b], where each begins; ``back``,
    int64[m], how many items before the last one each is, the last counted as 1.
    """

    items: Tensor
    weights: Tensor
    starts: Tensor
    back: Tensor

    @property
    def owners(self) -> Tensor:
        """Return of which history each item is, int64[m]."""
        sizes = torch.diff(self.starts, append=torch.tensor([len(self.items)]))
        return torch.repeat_interleave(torch.arange(len(self.starts)), sizes)

    def kept(self, chosen: Tensor) -> "Bags":
        """Return the histories with some of their items alone.

        Args:
            chosen: bool[m].
        """
        before = torch.cat([torch.zeros(1, dtype=torch.int64), chosen.cumsum(0)])
        return Bags(
            self.items[chosen], self.weights[chosen], before[self.starts], self.back[chosen]
        )

    def means(self, vectors: Tensor) -> Tensor:
        """Return the weighted mean of each history's vectors, float32[b, d]; zeros of an empty one.

        Args:
            vectors: float32[n, d], of which ``items`` are rows.
        """
        owners = self.owners
        sums = torch.zeros(len(self.starts)).index_add_(0, owners, self.weights)
        means: Tensor = torch.nn.functional.embedding_bag(
            self.items,
            vectors,
            self.starts,
            mode="sum",
            per_sample_weights=self.weights / sums[owners],
        )
        return means


def mean_ndcg(scores: Tensor, wanted: Tensor, bags: Bags) -> float:
    """Return the mean nDCG of lists of which one item is wanted.

    Args:
        scores: float32[b, items], which are changed: what is in a history is never listed.
        wanted: int64[b].
        bags: the histories.
    """
    own = scores.gather(1, wanted[:, None])
    scores[bags.owners, bags.items] = -torch.inf
    rank = (scores > own).sum(1)
    gains = torch.where(rank < LIST, 1.0 / torch.log2(rank + 2.0), 0.0)
    return float(gains.mean()) if len(gains) else 0.0
