"""What to look at beside the estimates: rewards over time, weights, actions.

It merges like them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64
from simulator.logs.rows import LogBatch
from simulator.logs.text_records import counts_of
from simulator.ope.batch import OpeBatch

HOUR_MS = 3_600_000
EDGES: Float64 = np.concatenate([[0.0], 10.0 ** np.arange(-2.0, 4.01, 0.25)])
"""Of the histogram of weights: 0 by itself, then four bins a decade, and what is beyond."""
MAX_ACTIONS = 10_000
"""Actions that are counted; of a log with more, none is shown."""


class TimeBucket(msgspec.Struct, frozen=True):
    """Some time of a log, from ``start_ms``: its decisions, their mean reward, and the IPS value of each policy."""

    start_ms: int
    rows: int
    reward: float
    values: dict[str, float]


class ActionShares(msgspec.Struct, frozen=True):
    """How often the log chose an action, and the share that each policy gives it, estimated from weights."""

    action: str
    share: float
    shares: dict[str, float]


class Charts(msgspec.Struct, frozen=True):
    """``weights``: rows by policy, in the bins that begin at ``edges``.

    ``actions``: the most frequent first.
    """

    edges: list[float]
    weights: dict[str, list[int]]
    times: list[TimeBucket]
    actions: list[ActionShares]


class ChartSums:
    """Sums over decisions: by hour and by action float64[1 + 1 + P], of 1, rewards or 1, and weights of each policy."""

    def __init__(self, policies: Sequence[str]) -> None:
        self._policies = tuple(policies)
        self._weights = np.zeros((len(policies), EDGES.size), np.int64)
        self._hours: dict[int, Float64] = {}
        self._actions: dict[str, Float64] = {}
        self._crowded = False

    def update(self, batch: LogBatch, seen: Mapping[str, OpeBatch]) -> None:
        """Add a batch of the log, beside what each policy would have done."""
        weights, counts = (
            np.stack([seen[policy].weight for policy in self._policies]),
            counts_of(batch),
        )
        for number, weight in enumerate(weights):
            self._weights[number] += np.bincount(
                EDGES.searchsorted(weight, side="right") - 1, minlength=EDGES.size
            )
        if (batch.times_ms > 0).any():
            hours = batch.times_ms // HOUR_MS
            _add(
                self._hours,
                hours,
                counts * np.vstack([np.ones(len(batch)), batch.reward, weights * batch.reward]),
            )
        if batch.decisions and not self._crowded:
            ids = np.array([row.action_ids[row.chosen] for row in batch.decisions], object)
            _add(self._actions, ids, counts * np.vstack([np.ones((2, len(batch))), weights]))
            self._crowd()

    def merge(self, other: "ChartSums") -> None:
        """Add the rows of another, of the same policies."""
        self._weights += other._weights  # noqa: SLF001
        self._crowded |= other._crowded  # noqa: SLF001
        for hour, sums in other._hours.items():  # noqa: SLF001
            self._hours[hour] = self._hours[hour] + sums if hour in self._hours else sums
        for name, sums in other._actions.items():  # noqa: SLF001
            self._actions[name] = self._actions[name] + sums if name in self._actions else sums
        self._crowd()

    def charts(self, *, buckets: int = 60, actions: int = 30) -> Charts:
        """What there is to draw, in at most so many buckets of time and actions."""
        total = sum(sums[0] for sums in self._actions.values())
        often = sorted(self._actions, key=lambda name: (-self._actions[name][0], name))[:actions]
        return Charts(
            edges=EDGES.tolist(),
            weights={
                policy: row.tolist()
                for policy, row in zip(self._policies, self._weights, strict=True)
            },
            times=self._times(buckets),
            actions=[
                ActionShares(
                    name,
                    float(self._actions[name][0] / total),
                    self._by_policy(self._actions[name] / total),
                )
                for name in often
            ],
        )

    def _times(self, buckets: int) -> list[TimeBucket]:
        hours = sorted(self._hours)
        if not hours:
            return []
        wide = -(-(hours[-1] - hours[0] + 1) // buckets)
        joined: dict[int, Float64] = {}
        for hour in hours:
            start = hours[0] + (hour - hours[0]) // wide * wide
            joined[start] = (
                joined[start] + self._hours[hour] if start in joined else self._hours[hour]
            )
        return [
            TimeBucket(
                start * HOUR_MS,
                int(sums[0]),
                float(sums[1] / sums[0]),
                self._by_policy(sums / sums[0]),
            )
            for start, sums in joined.items()
        ]

    def _by_policy(self, sums: Float64) -> dict[str, float]:
        return dict(zip(self._policies, sums[2:].tolist(), strict=True))

    def _crowd(self) -> None:
        if self._crowded or len(self._actions) > MAX_ACTIONS:
            self._crowded = True
            self._actions.clear()


def _add(sums: dict[Any, Float64], at: NDArray[Any], columns: Float64) -> None:
    """Add columns, float64[C, n], by where each row belongs."""
    places, inverse = np.unique(at, return_inverse=True)
    added = np.stack([np.bincount(inverse, column, len(places)) for column in columns], axis=1)
    for place, row in zip(places.tolist(), added, strict=True):
        sums[place] = sums[place] + row if place in sums else row
