"""What policies earn over time: the rows of a log by windows of their own time, as sums that merge.

Windows are multiples of their width since 1970, so that they do not depend on how a log was cut.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import ReplayError

MOST_WINDOWS = 10_000
"""Windows of the shortest width that a report may have: each has sums of its own."""
Z_95 = NormalDist().inv_cdf(0.975)


class TimePoint(msgspec.Struct, frozen=True):
    """What a policy earns in one window, and from the log's beginning to that window's end.

    ``rows``: those of the window. Intervals are infinite, null in JSON, while they cannot be told.
    ``verdict``: of the window's value, which is often of few rows; empty of a policy that learned
    on the way.
    """

    start_ms: int
    rows: int
    value: float
    interval: tuple[float, float]
    so_far: float
    interval_so_far: tuple[float, float]
    verdict: str = ""


class OverTime(msgspec.Struct, frozen=True):
    """What a policy earns over time, by one estimator: windows without rows are left out."""

    every_s: int
    estimator: str
    points: list[TimePoint]


class Valued(NamedTuple):
    """What sums over rows say: how many rows, the value with its interval, and its verdict."""

    rows: int
    value: float
    interval: tuple[float, float]
    verdict: str = ""


Summed = TypeVar("Summed")


def check_widths(every_s: Sequence[int]) -> None:
    """Refuse widths of windows that do not fit into one another.

    Raises:
        ReplayError: one is no multiple of the shortest.
    """
    shortest = min(every_s, default=1)
    if shortest < 1 or any(each % shortest for each in every_s):
        raise ReplayError(
            "--every is one span or several, each a multiple of the shortest: 5m and 1h, say",
            "every",
        )


def windows_of(
    times_ms: NDArray[np.int64], width_ms: int
) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each window that has rows, as its start in milliseconds, with the numbers of its rows.

    Args:
        times_ms: int64[n], of the rows.
        width_ms: of the windows.

    Raises:
        ReplayError: a row has no time.
    """
    if not times_ms.all():
        raise _without_time()
    numbers = times_ms // width_ms
    order = np.argsort(numbers, kind="stable")
    begins = np.flatnonzero(np.diff(numbers[order], prepend=numbers[order][:1] - 1))
    for rows in np.split(order, begins[1:]):
        if len(rows):
            yield int(numbers[rows[0]]) * width_ms, rows


def window_at(time_ms: int, width_ms: int) -> int:
    """Return where the window of a time begins, in milliseconds.

    Args:
        time_ms: the time.
        width_ms: of the windows.

    Raises:
        ReplayError: a row has no time.
    """
    if not time_ms:
        raise _without_time()
    return time_ms - time_ms % width_ms


def _without_time() -> ReplayError:
    return ReplayError("--every needs rows with times: this log has rows without", "every")


def check_count(windows: int) -> None:
    """Refuse more windows than a report may have.

    Raises:
        ReplayError: there are more.
    """
    if windows > MOST_WINDOWS:
        raise ReplayError(
            f"there are more than {MOST_WINDOWS:,} windows of the shortest --every: give a longer"
            " span, or a shorter part of the log (--since, --until)",
            "every",
        )


def over_time(
    name: str,
    windows: Mapping[int, Summed],
    every_s: Sequence[int],
    *,
    empty: Callable[[], Summed],
    merge: Callable[[Summed, Summed], None],
    valued: Callable[[Summed], Valued],
) -> list[OverTime]:
    """Return what a policy earns over time, for each width of the windows.

    Args:
        name: of the estimator.
        windows: the sums by start, of the shortest width.
        every_s: the widths, in seconds.
        empty: makes sums of no rows.
        merge: adds the second sums to the first.
        valued: says what sums say.
    """
    found: list[OverTime] = []
    for width_s in dict.fromkeys(every_s):
        within: defaultdict[int, Summed] = defaultdict(empty)
        for start in sorted(windows):
            merge(within[start - start % (1000 * width_s)], windows[start])

        points, so_far = [], empty()
        for start, sums in within.items():
            merge(so_far, sums)
            own, whole = valued(sums), valued(so_far)
            points.append(TimePoint(start, *own[:3], *whole[1:3], own.verdict))
        found.append(OverTime(width_s, name, points))
    return found


class ValueSums:
    """The sums of a policy that learns on the way: of weight times reward, a row's count each.

    ``squares`` are those of the products, each divided by its row's count.
    """

    def __init__(self) -> None:
        self.rows, self.products, self.squares, self.counts = 0, 0.0, 0.0, 0.0

    def add(self, product: float, count: float) -> None:
        """Add a row.

        Args:
            product: weight times reward, times the row's count.
            count: how many decisions the row stands for.
        """
        self.rows += 1
        self.products += product
        self.squares += product * product / count  # of large rewards infinite, and no error
        self.counts += count

    def merge(self, other: "ValueSums") -> None:
        """Add the rows of another."""
        self.rows += other.rows
        self.products += other.products
        self.squares += other.squares
        self.counts += other.counts

    @property
    def value(self) -> float:
        """The mean; NaN of nothing."""
        return self.products / self.counts if self.counts else math.nan

    @property
    def stderr(self) -> float:
        """The standard error of the mean; infinite of a single row, and of too large ones."""
        if self.counts < 2.0 or not math.isfinite(self.squares):
            return math.inf
        spread = max(self.squares / self.counts - self.value**2, 0.0)
        return math.sqrt(spread / (self.counts - 1.0))


def values_over_time(
    name: str, windows: Mapping[int, ValueSums], every_s: Sequence[int]
) -> list[OverTime]:
    """Return what a policy that learns on the way earns over time, with 95% intervals.

    Args:
        name: of the estimator.
        windows: the sums by start, of the shortest width.
        every_s: the widths, in seconds.
    """
    return over_time(
        name, windows, every_s, empty=ValueSums, merge=ValueSums.merge, valued=_value_of
    )


def _value_of(sums: ValueSums) -> Valued:
    half = Z_95 * sums.stderr
    return Valued(sums.rows, sums.value, (sums.value - half, sums.value + half))
