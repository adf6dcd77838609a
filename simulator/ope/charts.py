"""Charts beside the estimates: rewards over time, weights, actions. Shards of it merge."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64
from simulator.logs.rows import LogBatch
from simulator.logs.text_records import counts_of
from simulator.ope.batch import OpeBatch
from simulator.ope.kernels import count_in_bins, sum_by_place

HOUR_MS = 3_600_000
EDGES: Float64 = np.concatenate([[0.0], 10.0 ** np.arange(-2.0, 4.01, 0.25)])
"""Where the bins of the histogram of weights begin: 0 by itself, then four bins a decade."""
SPREAD = 4
"""Places per row of a batch that are counted without being sorted."""
MAX_ACTIONS = 10_000
"""Actions that are counted; of a log with more, none is shown."""


class TimeBucket(msgspec.Struct, frozen=True):
    """A stretch of the log from ``start_ms``: decisions, mean reward, each policy's IPS value."""

    start_ms: int
    rows: int
    reward: float
    values: dict[str, float]


class ActionShares(msgspec.Struct, frozen=True):
    """How often the log chose an action, and the share that each policy gives it.

    The policies' shares are estimated from weights.
    """

    action: str
    share: float
    shares: dict[str, float]


class Charts(msgspec.Struct, frozen=True):
    """The data of a report's charts.

    ``weights`` counts rows by policy, in the bins that begin at ``edges``. ``actions`` begins with
    the most frequent.
    """

    edges: list[float]
    weights: dict[str, list[int]]
    times: list[TimeBucket]
    actions: list[ActionShares]


class ChartSums:
    """Sums over decisions that charts are made of.

    By hour there are sums of 1, rewards, and each policy's weighted rewards; by action of 1, 1, and
    each policy's weights: float64[2 + P] each.
    """

    def __init__(self, policies: Sequence[str]) -> None:
        self._policies = tuple(policies)
        self._weights = np.zeros((len(policies), EDGES.size), np.int64)
        self._hours, self._actions = (_Sums(2 + len(policies)) for _ in range(2))
        self._crowded = False

    def update(self, batch: LogBatch, seen: Mapping[str, OpeBatch]) -> None:
        """Add a batch of the log.

        Args:
            batch: of the log.
            seen: by policy, what each would have done with its rows.
        """
        weights = np.stack([seen[policy].weight for policy in self._policies])
        counts = counts_of(batch)
        for number, weight in enumerate(weights):
            count_in_bins(weight, EDGES, self._weights[number])

        # A log without times has no chart over time.
        if (batch.times_ms > 0).any():
            columns = np.vstack([np.ones(len(batch)), batch.reward, weights * batch.reward])
            self._hours.add(*_summed(batch.times_ms // HOUR_MS, counts * columns))

        if batch.actions is not None and not self._crowded:
            codes, names = batch.actions.chosen_ids
            columns = np.vstack([np.ones((2, len(batch))), weights])
            places, sums = _summed(codes, counts * columns)
            self._actions.add([names[place] for place in places], sums)
            self._drop_crowd()

    def merge(self, other: "ChartSums") -> None:
        """Add the rows of another, of the same policies."""
        self._weights += other._weights  # noqa: SLF001
        self._crowded |= other._crowded  # noqa: SLF001
        self._hours.merge(other._hours)  # noqa: SLF001
        self._actions.merge(other._actions)  # noqa: SLF001
        self._drop_crowd()

    def charts(self, *, buckets: int = 60, actions: int = 30) -> Charts:
        """Return what there is to draw.

        Args:
            buckets: of time, at most.
            actions: that are shown, at most.
        """
        by_action = self._actions.by_key()
        total = sum(sums[0] for sums in by_action.values())
        often = sorted(by_action, key=lambda name: (-by_action[name][0], name))[:actions]

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
                    float(by_action[name][0] / total),
                    self._by_policy(by_action[name] / total),
                )
                for name in often
            ],
        )

    def _times(self, buckets: int) -> list[TimeBucket]:
        by_hour = self._hours.by_key()
        hours = sorted(by_hour)
        if not hours:
            return []

        # Buckets are of whole hours, all of one length.
        width = -(-(hours[-1] - hours[0] + 1) // buckets)
        totals: dict[int, Float64] = {}
        for hour in hours:
            start = hours[0] + (hour - hours[0]) // width * width
            sums = by_hour[hour]
            totals[start] = totals[start] + sums if start in totals else sums

        return [
            TimeBucket(
                start * HOUR_MS,
                int(sums[0]),
                float(sums[1] / sums[0]),
                self._by_policy(sums / sums[0]),
            )
            for start, sums in totals.items()
        ]

    def _by_policy(self, sums: Float64) -> dict[str, float]:
        return dict(zip(self._policies, sums[2:].tolist(), strict=True))

    def _drop_crowd(self) -> None:
        """Count actions no longer once there are too many."""
        if self._crowded or len(self._actions) > MAX_ACTIONS:
            self._crowded, self._actions = True, _Sums(2 + len(self._policies))


class _Sums:
    """Sums of ``width`` columns by key, in the order in which keys first came."""

    def __init__(self, width: int) -> None:
        self._places: dict[Any, int] = {}
        self._sums = np.zeros((0, width))

    def __len__(self) -> int:
        return len(self._places)

    def add(self, keys: Sequence[Any], sums: Float64) -> None:
        """Add the sums, float64[m, width], of m keys, each named once."""
        places = self._places
        at = [places.setdefault(key, len(places)) for key in keys]
        if missing := max(0, len(places) - len(self._sums)):
            room = np.zeros((max(missing, len(self._sums)), self._sums.shape[1]))
            self._sums = np.concatenate([self._sums, room])
        self._sums[at] += sums

    def merge(self, other: "_Sums") -> None:
        """Add those of another."""
        self.add(list(other._places), other._sums[: len(other)])  # noqa: SLF001

    def by_key(self) -> dict[Any, Float64]:
        """Return float64[width] by key."""
        return dict(zip(self._places, self._sums, strict=False))


def _summed(at: NDArray[np.integer], columns: Float64) -> tuple[list[int], Float64]:
    """Return the places that rows have, and the sums of columns, float64[C, n], at each."""
    low, high = int(at.min()), int(at.max())
    if high - low <= SPREAD * len(at):
        known = np.arange(low, high + 1)
        inverse = at.astype(np.int64) - low
    else:
        known, inverse = np.unique(at, return_inverse=True)

    sums, rows = np.zeros((len(known), len(columns))), np.zeros(len(known), np.int64)
    sum_by_place(inverse, columns, sums, rows)
    there = rows > 0
    places: list[int] = known[there].tolist()
    return places, sums[there]
