"""Estimates by windows of a log's time: what an evaluation gathers of them, as a monoid."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from bandits.statistics.intervals import Interval
from bandits.statistics.moments import add_rows
from simulator.logs.rows import LogBatch
from simulator.ope.batch import OpeBatch
from simulator.ope.estimators import Estimator, Slope
from simulator.replay.over_time import OverTime, Valued, check_count, over_time, windows_of

Makes = Callable[[str], Estimator | Slope]
"""From an estimator's name to one without rows."""


class EstimatesOverTime:
    """Estimators of policies, one for each window of time that has rows."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], dict[int, Estimator | Slope]] = {}

    def add(
        self,
        batch: LogBatch,
        seen: Mapping[str, OpeBatch],
        wanted: Collection[tuple[str, str]],
        width_s: int,
        make: Makes,
    ) -> None:
        """Add the rows of a batch to the windows that they are in.

        Args:
            batch: the rows.
            seen: the same as each policy has them.
            wanted: policies, each with the name of an estimator.
            width_s: of the windows, in seconds.
            make: makes estimators.

        Raises:
            ReplayError: a row has no time, or there are too many windows.
        """
        for start, rows in windows_of(batch.times_ms, 1000 * width_s):
            blocks = []
            for policy, name in wanted:
                windows = self._windows.setdefault((policy, name), {})
                if start not in windows:
                    windows[start] = make(name)
                blocks += windows[start].gather(seen[policy].take(rows))
            add_rows(blocks, batch.keys[rows])
        self._check()

    def merge(self, other: "EstimatesOverTime") -> None:
        """Add the rows of another, which answers the same question.

        Raises:
            ReplayError: there are too many windows.
        """
        for at, windows in other._windows.items():  # noqa: SLF001
            mine = self._windows.setdefault(at, {})
            for start, theirs in windows.items():
                if start in mine:
                    _merge(mine[start], theirs)
                else:
                    mine[start] = theirs
        self._check()

    def found(
        self, policy: str, name: str, every_s: Sequence[int], bounds: Interval, make: Makes
    ) -> list[OverTime]:
        """Return what a policy earns over time.

        Args:
            policy: its name.
            name: of the estimator.
            every_s: widths of windows, in seconds, each a multiple of the one rows were added by.
            bounds: the kind of interval.
            make: makes estimators.
        """

        def valued(estimator: Estimator | Slope) -> Valued:
            estimate = estimator.estimate(bounds)
            return Valued(estimate.n, estimate.value, estimate.interval, estimate.verdict)

        windows = self._windows.get((policy, name), {})
        return over_time(
            name, windows, every_s, empty=partial(make, name), merge=_merge, valued=valued
        )

    def _check(self) -> None:
        check_count(max(map(len, self._windows.values()), default=0))


def _merge(into: Estimator | Slope, other: Estimator | Slope) -> None:
    into.merge(other)  # type: ignore[arg-type] # of one question
