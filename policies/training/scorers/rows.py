"""What a scorer is fitted on: who took what, by what was known of them, and what they did not."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bandits.types import Float32
from policies.artifacts.histories import Histories
from policies.training.scorers.network import WhoAsks

HELD_OUT: int = 1000
"""Users at most whose last item is held out, and one in so many of them:"""
ONE_IN: int = 10
FEWEST: int = 20
"""Of fewer, none is held out."""
DRAWN: int = 100
"""Items that what was held out is judged among."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """All interactions, user by user, oldest first.

    ``item``: int64[n]; ``weight``: float32[n]; ``owner``: int64[n], the row of the user; ``first``:
    int64[n], where the user's own begin. ``users``: int64[users], the row of each one's context, -1
    for none.
    """

    item: NDArray[np.int64]
    weight: Float32
    owner: NDArray[np.int64]
    first: NDArray[np.int64]
    users: NDArray[np.int64]
    items: int

    @classmethod
    def of(cls, histories: Histories, users: NDArray[np.int64]) -> "Interactions":
        """Return those of some histories.

        Args:
            histories: who interacted with what.
            users: the row of each user's context, -1 for none.
        """
        order, counts = histories.by_time, np.diff(histories.starts)
        owner = np.repeat(np.arange(len(counts)), counts)
        return cls(
            histories.indices[order].astype(np.int64),
            histories.weights[order],
            owner,
            histories.starts[owner],
            users,
            len(histories.items),
        )

    @cached_property
    def cells(self) -> Tensor:
        """Who has what, int64[n] ascending: the user's row times the number of items, and it."""
        return torch.from_numpy(np.sort(self.owner * self.items + self.item))

    @cached_property
    def chances(self) -> NDArray[np.float64]:
        """The chance of each item to be drawn beside one that was taken, float64[items]."""
        chances: NDArray[np.float64] = 0.5 * self.counts / self.counts.sum() + 0.5 / self.items
        return chances

    @cached_property
    def counts(self) -> NDArray[np.float64]:
        """How often each item was taken, float64[items]."""
        return np.bincount(self.item[self.weight > 0], minlength=self.items).astype(np.float64)

    @cached_property
    def _up_to(self) -> Tensor:
        return torch.from_numpy(np.cumsum(self.chances))

    def drawn(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Return items drawn by their chances, int64[shape]."""
        draws = torch.rand(shape, generator=generator, dtype=torch.float64)
        return torch.searchsorted(self._up_to, draws).clamp(max=self.items - 1)

    def has(self, owner: Tensor, items: Tensor) -> Tensor:
        """Return which items the users have, bool[B, K].

        Args:
            owner: int64[B].
            items: int64[B, K].
        """
        wanted = owner[:, None] * self.items + items
        at = torch.searchsorted(self.cells, wanted).clamp(max=len(self.cells) - 1)
        return self.cells[at] == wanted

    def asked(self, rows: Tensor, history: int) -> WhoAsks:
        """Return who asked, as they were known before some interactions.

        Args:
            rows: int64[B], of the interactions.
            history: of how many of the newest items before it.
        """
        number = rows.numpy()
        at = number[:, None] - np.arange(history, 0, -1)
        there = at >= self.first[number][:, None]
        at = np.maximum(at, 0)
        weights = np.where(there, self.weight[at], np.float32(0.0))
        total = weights.sum(axis=1, keepdims=True)
        weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
        last = np.where(total[:, 0] > 0, self.item[at[:, -1]], -1)
        return WhoAsks(
            torch.from_numpy(self.users[self.owner[number]]),
            torch.from_numpy(np.where(there, self.item[at], 0)),
            torch.from_numpy(weights),
            torch.from_numpy(last),
        )

    def held_out(self, seed: int) -> NDArray[np.int64]:
        """Return the interactions that are judged by, ascending: the last of some users.

        Nothing is held out where users are few.

        Args:
            seed: of the sample of users.
        """
        last = np.append(self.owner[1:] != self.owner[:-1], True)
        last &= (self.weight > 0) & (np.arange(len(last)) > self.first)
        found = np.flatnonzero(last)
        count = min(HELD_OUT, len(found) // ONE_IN)
        if count < FEWEST:
            return found[:0]
        rng = np.random.default_rng(seed)
        return np.sort(rng.choice(found, count, replace=False))
