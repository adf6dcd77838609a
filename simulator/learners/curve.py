"""A learning curve: a mean as a log is read, in few points however long the log is."""

import math
from dataclasses import dataclass

MAX_POINTS = 200


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A point of a curve; a mean of nothing is NaN.

    Attributes:
        rows: How many rows had been read, those that do not enter the mean included.
        value: Mean of all rows up to here.
        recent: Mean of the rows since the point before.
    """

    rows: int
    value: float
    recent: float


class Curve:
    """A weighted mean and how it came about.

    Points stand evenly apart; when they are too many, every other one goes.
    """

    def __init__(self) -> None:
        self._rows, self._total, self._weight = 0, 0.0, 0.0
        self._rows_apart = 1
        self._kept: list[tuple[int, float, float]] = []

    def add(self, total: float, weight: float) -> None:
        """Add one row.

        Args:
            total: The row's value times its weight.
            weight: The row's weight; 0 if it does not enter the mean.
        """
        self._rows += 1
        self._total += total
        self._weight += weight

        if self._rows % self._rows_apart == 0:
            self._kept.append((self._rows, self._total, self._weight))
            if len(self._kept) == MAX_POINTS:
                self._rows_apart *= 2
                self._kept = self._kept[1::2]

    @property
    def value(self) -> float:
        """The mean of all rows; NaN when none entered it."""
        return _mean(self._total, self._weight)

    def points(self) -> tuple[CurvePoint, ...]:
        """Return at most MAX_POINTS points, the last one at the last row."""
        kept = [*self._kept]
        if self._rows and self._rows % self._rows_apart:
            kept.append((self._rows, self._total, self._weight))
        before = [(0, 0.0, 0.0), *kept]
        return tuple(
            CurvePoint(rows, _mean(total, weight), _mean(total - old_total, weight - old_weight))
            for (rows, total, weight), (_, old_total, old_weight) in zip(kept, before, strict=False)
        )


def _mean(total: float, weight: float) -> float:
    return total / weight if weight > 0.0 else math.nan
