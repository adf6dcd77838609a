"""What a network of sequences is trained on: stretches of what users did, and who judges it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policies.training.sequence.order import Ordered

LEAST_TO_JUDGE = 3
"""Events of a user of whom the last is held out: it leaves one to go by, and one to learn from."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretches:
    """Stretches of users' events: in each, every event but the first is predicted.

    ``items``: int64[n], and ``weights``: float32[n], all events; ``starts`` and ``stops``:
    int64[windows], where each stretch begins, and ends before. ``judged``: int64[users], the places
    of the last events of those by whom a network is judged; they are in no stretch. ``first``:
    int64[users], where the events of each of these begin.
    """

    items: Tensor
    weights: Tensor
    starts: Tensor
    stops: Tensor
    judged: Tensor
    first: Tensor

    def events(self, starts: Tensor, stops: Tensor) -> tuple[Tensor, Tensor]:
        """Return the events of some stretches, one stretch after the other.

        Args:
            starts: int64[n], where they begin.
            stops: int64[n], where they end before; none is empty.

        Returns:
            int64[events], their places, and bool[n, longest], how many each stretch has: the row of
            a shorter one is filled up behind.
        """
        lengths = (stops - starts)[:, None]
        steps = torch.arange(int(lengths.max()))
        there = steps < lengths
        return (starts[:, None] + steps)[there], there


def stretches_of(events: Ordered, length: int, held_out: int, *, seed: int) -> Stretches:
    """Return the stretches of users' events, of ``length`` + 1 at most.

    The newest stretch of a user ends with the last event, the one before it where this begins: so
    that each event is predicted once, but for a user's first.

    Args:
        events: what users did.
        length: how many events a network looks at.
        held_out: how many users are to judge it, at most; and at most a fifth of those who can.
        seed: of the users that are drawn.
    """
    counts = np.diff(events.starts)
    able = np.flatnonzero(counts >= LEAST_TO_JUDGE)
    rng = np.random.default_rng(seed)
    judges = np.sort(rng.choice(able, min(held_out, able.size // 5), replace=False))

    ends = events.starts[1:].copy()
    ends[judges] -= 1
    parts = np.maximum(0, -(-(ends - events.starts[:-1] - 1) // length))
    user = np.repeat(np.arange(counts.size), parts)
    back = np.arange(user.size) - np.repeat(np.cumsum(parts) - parts, parts)
    stops = ends[user] - back * length
    starts = np.maximum(stops - length - 1, events.starts[:-1][user])
    return Stretches(
        torch.from_numpy(events.items),
        torch.from_numpy(events.weights),
        torch.from_numpy(starts),
        torch.from_numpy(stops),
        torch.from_numpy(ends[judges]),
        torch.from_numpy(events.starts[:-1][judges]),
    )
