"""Popularity now: each event counts for less the older it is."""

from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32
from policies.artifacts.fitted_with import Positive
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.training.cf import Step

DAY_MS: Final = 86_400_000
HELD_OUT: Final = 0.1
"""Share of the events, the latest, that decide on the half-life."""
HALVINGS: Final = 12
"""The half-lives that are tried are the events' whole time, half of it, … this often."""
PARTS: Final = 50
"""Parts of the latest events: each is predicted from all before it."""
UNSEEN: Final = 0.1
"""Share of the probability that is spread over all items evenly, when half-lives are compared."""


@dataclass(frozen=True, slots=True)
class TrendingConfig:
    """``half_life_days``: after so many days an event counts half; None: chosen on the data."""

    half_life_days: Positive | None = None


class ItemEvents(NamedTuple):
    """Events of items, in the order of time.

    ``item``: int[n], places of items; ``time``: int64[n], ms since 1970; ``weight``: float32[n].
    """

    item: NDArray[Any]
    time: NDArray[np.int64]
    weight: Float32

    def part(self, first: int, last: int) -> "ItemEvents":
        """Return those from the first to before the last."""
        return ItemEvents(self.item[first:last], self.time[first:last], self.weight[first:last])


def fit_trending(histories: Histories, config: TrendingConfig, *, step: Step) -> TrainedSource:
    """Sum the weights of each item's interactions, halved with every half-life of their age.

    Age is counted back from the last event. A user's interaction with an item counts once, by its
    latest event; one without a time counts nothing.

    Args:
        histories: who interacted with what, and when.
        config: see TrendingConfig.
        step: told when it is done.
    """
    events = timed_events(histories)
    if config.half_life_days is None:
        config = replace(config, half_life_days=choose_half_life(events, len(histories.items)))

    counts = _counts(events, len(histories.items), config.half_life_days or np.inf)
    step(1, 1)
    return TrainedSource("trending", {"counts": counts.astype(np.float32)}, asdict(config))


def timed_events(histories: Histories) -> ItemEvents:
    """Return the interactions that have a time and a weight above 0."""
    if histories.times is None:
        return ItemEvents(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    kept = np.flatnonzero((histories.times >= 0) & (histories.weights > 0))
    kept = kept[np.argsort(histories.times[kept], kind="stable")]
    return ItemEvents(histories.indices[kept], histories.times[kept], histories.weights[kept])


def choose_half_life(events: ItemEvents, n_items: int) -> float:
    """Return the half-life, in days, that best predicts the latest events from those before.

    The best gives the items of the latest events the highest mean log-probability, each part of
    them from all that came before it.

    Args:
        events: see ItemEvents.
        n_items: how many items there are.
    """
    edges = np.linspace(events.time.size * (1 - HELD_OUT), events.time.size, PARTS + 1).astype(int)
    span = (events.time[-1] - events.time[0]) / DAY_MS if events.time.size else 0.0
    if edges[0] == 0 or span == 0:
        return 1.0

    def fit(half_life_days: float) -> float:
        counts, found = _counts(events.part(0, edges[0]), n_items, half_life_days), 0.0
        for i, j in pairwise(edges.tolist()):
            if i == j:
                continue
            part = events.part(i, j)
            smooth = counts + UNSEEN * counts.sum() / n_items
            found += part.weight @ np.log(smooth[part.item] / smooth.sum())

            age = (part.time[-1] - events.time[i - 1]) / DAY_MS
            counts *= np.exp2(-age / half_life_days)
            counts += _counts(part, n_items, half_life_days)
        return float(found)

    return float(max((span / 2**k for k in range(HALVINGS)), key=fit))


def _counts(events: ItemEvents, n_items: int, half_life_days: float) -> NDArray[np.float64]:
    """Return the weight of each item at the last event, float64[n_items]."""
    if not events.time.size:
        return np.zeros(n_items)
    age = (events.time[-1] - events.time) / DAY_MS
    worth = events.weight * np.exp2(-age / half_life_days)
    return np.bincount(events.item, worth, minlength=n_items).astype(np.float64)
