"""What users did, in its order."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32
from policies.artifacts.histories import Histories


@dataclass(frozen=True, slots=True, eq=False)
class Ordered:
    """Events that speak for their items, one user's after another's, each user's oldest first.

    ``items``: int64[n], places of items; ``weights``: float32[n], above 0; ``after``: int64[n], how
    many of the same user follow; ``starts``: int64[users + 1], where each user's begin.
    """

    items: NDArray[np.int64]
    weights: Float32
    after: NDArray[np.int64]
    starts: NDArray[np.int64]

    def pairs(self, lag: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the places of all pairs of a user's events that lie ``lag`` apart, earlier first.

        Args:
            lag: 0 or more.
        """
        earlier = np.flatnonzero(self.after >= lag)
        return earlier, earlier + lag


def in_order(histories: Histories) -> Ordered:
    """Return the events of histories; those without weight are none.

    Args:
        histories: who interacted with what; without times, in the order of the items.
    """
    at = histories.by_time
    owner = np.repeat(np.arange(len(histories.users)), np.diff(histories.starts))
    kept = histories.weights[at] > 0
    at, owner = at[kept], owner[kept]

    starts = np.searchsorted(owner, np.arange(len(histories.users) + 1))
    after = starts[owner + 1] - 1 - np.arange(at.size)
    return Ordered(histories.indices[at].astype(np.int64), histories.weights[at], after, starts)
