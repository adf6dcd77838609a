"""What the units of a comparison earned: users, mostly, each of whom a holdout keeps or does not.

What one user does at several decisions is alike, so a mean over decisions has the variance that
users give it.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64

Numbers = NDArray[np.integer]
Bools = NDArray[np.bool_]


class GroupMean(NamedTuple):
    """The mean reward of a decision in one group, a ratio of sums over its units.

    Attributes:
        units: how many the group has.
        decisions: how many they have, in all.
        mean: of the decisions; NaN without any.
        variance: that of the mean, over units; infinite below two of them.
        third: the third central moment of the mean.
        largest: the largest share of the variance that one unit has.
    """

    units: int
    decisions: int
    mean: float
    variance: float
    third: float
    largest: float

    @property
    def per_unit(self) -> float:
        """How many decisions a unit has; 0 without any."""
        return self.decisions / self.units if self.units else 0.0


@dataclass(slots=True)
class LoneDecisions:
    """Decisions that are units by themselves: how many, and the sums of powers of their rewards."""

    count: int = 0
    powers: Float64 = field(default_factory=lambda: np.zeros(3))
    least: float = math.inf
    most: float = -math.inf

    def add(self, rewards: Float64) -> None:
        """Add the rewards of some decisions, at least one."""
        self.count += len(rewards)
        self.powers = self.powers + [(rewards**power).sum() for power in (1, 2, 3)]
        self.least = min(self.least, float(rewards.min()))
        self.most = max(self.most, float(rewards.max()))

    def around(self, mean: float) -> tuple[float, float, float]:
        """Return the sums of squares and of cubes around a mean, and the largest square."""
        if not self.count:
            return 0.0, 0.0, 0.0
        one, two, three = self.powers.tolist()
        squares = two - 2.0 * mean * one + self.count * mean**2
        cubes = three - 3.0 * mean * two + 3.0 * mean**2 * one - self.count * mean**3
        return max(0.0, squares), cubes, max((self.least - mean) ** 2, (self.most - mean) ** 2)


def group_mean(decisions: Float64, rewards: Float64, alone: LoneDecisions) -> GroupMean:
    """Return the mean over the decisions of some units, with what is linear in it.

    Args:
        decisions: float64[U], how many each unit has; 0 of one that is not of the group.
        rewards: float64[U], what it earned in them.
        alone: decisions of the group that are units by themselves.
    """
    there = decisions > 0.0
    units, total = int(there.sum()) + alone.count, float(decisions.sum()) + alone.count
    if not units:
        return GroupMean(0, 0, math.nan, math.inf, 0.0, 0.0)
    mean = (float(rewards.sum()) + float(alone.powers[0])) / total

    # Each unit's part in the error of the ratio (Cochran 1977, 6.3).
    parts = (rewards - mean * decisions)[there]
    squared = parts * parts
    squares, cubes, largest = alone.around(mean)
    squares, cubes = squares + float(squared.sum()), cubes + float(squared @ parts)
    largest = max(largest, float(squared.max(initial=0.0)))
    return GroupMean(
        units,
        int(total),
        mean,
        squares / total**2 * units / (units - 1) if units > 1 else math.inf,
        cubes / total**3,
        largest / squares if squares > 0.0 else 0.0,
    )


class UnitSums:
    """The decisions and rewards of units, by group: those of the policy, and the holdout's."""

    def __init__(self) -> None:
        self._decisions, self._rewards = np.zeros((2, 0)), np.zeros((2, 0))
        self._alone = LoneDecisions(), LoneDecisions()

    def add(self, units: Numbers, held_out: Bools, rewards: Float64) -> None:
        """Add n decisions.

        Args:
            units: integers [n], the number of each one's unit; below 0: it is one by itself.
            held_out: bool[n], whether it is of the holdout.
            rewards: float64[n], what it earned.
        """
        most = int(units.max(initial=-1)) + 1
        if most > self._decisions.shape[1]:
            room = (0, 0), (0, max(most, 2 * self._decisions.shape[1]) - self._decisions.shape[1])
            self._decisions = np.pad(self._decisions, room)
            self._rewards = np.pad(self._rewards, room)

        size, numbered = self._decisions.shape[1], units >= 0
        for group, mine in enumerate((~held_out, held_out)):
            at = mine & numbered
            self._decisions[group] += np.bincount(units[at], minlength=size)
            self._rewards[group] += np.bincount(units[at], rewards[at], size)
            if (by_itself := mine & ~numbered).any():
                self._alone[group].add(rewards[by_itself])

    def policy(self) -> GroupMean:
        """Return the mean of those that the policy served."""
        return self._mean(0)

    def holdout(self) -> GroupMean:
        """Return the mean of those that were held out."""
        return self._mean(1)

    def _mean(self, group: int) -> GroupMean:
        return group_mean(self._decisions[group], self._rewards[group], self._alone[group])
