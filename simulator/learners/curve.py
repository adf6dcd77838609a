"""A learning curve: a mean as a log is read, in few points however long the log is."""

import math
from dataclasses import dataclass

MAX_POINTS = 200


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """``value``: the mean of all up to here; ``recent``: of what came since the point before.

    NaN: a mean of nothing.

    ``rows``: how many had been read, those that do not enter the mean included.
    """

    rows: int
    value: float
    recent: float


class Curve:
    """A weighted mean and how it came about.

    Points stand evenly apart; when they are too many, half of them go.
    """

    def __init__(self) -> None:
        self._rows, self._total, self._weight = 0, 0.0, 0.0
        self._apart = 1
        self._kept: list[tuple[int, float, float]] = []

    def add(self, total: float, weight: float) -> None:
        """One row: its value times its weight, and its weight (0: it does not enter the mean)."""
        self._rows += 1
        self._total += total
        self._weight += weight
        if self._rows % self._apart == 0:
            self._kept.append((self._rows, self._total, self._weight))
            if len(self._kept) == MAX_POINTS:
                self._apart *= 2
                self._kept = self._kept[1::2]

    @property
    def value(self) -> float:
        """The mean of all; NaN when nothing entered it."""
        return _mean(self._total, self._weight)

    def points(self) -> tuple[CurvePoint, ...]:
        """At most MAX_POINTS of them, the last one at the last row."""
        kept = [*self._kept]
        if self._rows and self._rows % self._apart:
            kept.append((self._rows, self._total, self._weight))
        before = [(0, 0.0, 0.0), *kept]
        return tuple(
            CurvePoint(rows, _mean(total, weight), _mean(total - old_total, weight - old_weight))
            for (rows, total, weight), (_, old_total, old_weight) in zip(kept, before, strict=False)
        )


def _mean(total: float, weight: float) -> float:
    return total / weight if weight > 0.0 else math.nan
