"""The uplift over the holdout: what the policy earns more per decision, at every look.

The interval is a confidence sequence in information (bandits/statistics/sequences.py): it holds at
all looks at once, however often somebody looks and whenever they stop.
"""

import math
from typing import NamedTuple

import msgspec
from scipy.special import betaln

from bandits.statistics.intervals import ALPHA
from bandits.statistics.sequences import MixtureSequence
from simulator.report.units import GroupMean

WORTH_FINDING = 0.1
"""The difference that the intervals are made to find first, as a share of the holdout's mean."""
OF_SPREAD = 0.05
"""The same, as a share of a decision's standard deviation, where the mean is near 0."""
FEWEST_UNITS = 50
"""Units that each group has before there is an interval: it is right in the limit of many."""
LARGEST_PART = 0.2
"""Share of the variance in one unit, above which there is no interval yet."""
SKEWED = 0.2
"""Skewness of the difference above which an interval may miss more often: n > 25 G^2 (Cochran)."""
RATIO_PRIOR = 100.0
"""Units that the alternatives to the intended ratio are spread by: see ``ratio_evidence``."""
RATIO_ALARM = 1e-3
"""False-alarm rate of the check that units are divided as the spec says."""


class UpliftLook(msgspec.Struct, frozen=True):
    """What could be said after some of the decisions.

    Attributes:
        decisions: how many had been made, in both groups.
        time_ms: when the last of them was made.
        difference: the policy's mean reward per decision less that of the holdout; NaN while one
            of the two has none.
        low: the lower end of an interval that holds at all looks at once; -infinity: none yet.
        high: the upper end.
        evidence: the logarithm of the evidence against no difference.
    """

    decisions: int
    time_ms: int
    difference: float
    low: float
    high: float
    evidence: float


class Compared(NamedTuple):
    """Two groups compared at one look. ``ready``: whether the limit of many units is near."""

    difference: float
    variance: float
    skewness: float
    sequence: MixtureSequence | None
    ready: bool

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends; infinite while there is none."""
        if self.sequence is None or not self.ready:
            return -math.inf, math.inf
        radius = self.sequence.radius(self.variance)
        return self.difference - radius, self.difference + radius

    @property
    def evidence(self) -> float:
        """The logarithm of the evidence against no difference; 0 while there is none."""
        if self.sequence is None or not self.ready:
            return 0.0
        return self.sequence.log_evidence(self.difference, self.variance)


def compare_groups(policy: GroupMean, holdout: GroupMean, alpha: float = ALPHA) -> Compared:
    """Compare the means of two groups of units.

    Args:
        policy: those whom the policy served.
        holdout: those whom it did not.
        alpha: the probability that the sequence of intervals ever misses the truth.
    """
    difference = policy.mean - holdout.mean
    variance = policy.variance + holdout.variance
    if not (math.isfinite(variance) and variance > 0.0):
        return Compared(difference, variance, 0.0, None, ready=False)

    skewness = abs(policy.third - holdout.third) / variance**1.5
    fewest = min(policy.units, holdout.units)
    largest = max(
        policy.largest * policy.variance / variance, holdout.largest * holdout.variance / variance
    )
    return Compared(
        difference,
        variance,
        skewness,
        MixtureSequence(_worth_finding(holdout), alpha),
        ready=fewest >= FEWEST_UNITS and largest <= LARGEST_PART,
    )


def _worth_finding(holdout: GroupMean) -> float:
    """Return the difference that would matter, in rewards per decision."""
    relative = WORTH_FINDING * abs(holdout.mean)
    if abs(holdout.mean) > 2.0 * math.sqrt(holdout.variance):
        return relative
    return max(relative, OF_SPREAD * math.sqrt(holdout.variance * holdout.decisions))


def ratio_evidence(held_out: int, units: int, fraction: float) -> float:
    """Return the logarithm of the evidence that units are not divided as intended, at any look.

    A mixture of binomials by a Beta distribution around the intended share (Lindon & Malek 2022,
    arXiv:2011.03567).

    Args:
        held_out: how many units are in the holdout.
        units: how many there are.
        fraction: the share that the spec holds out.
    """
    if not 0.0 < fraction < 1.0 or not units:
        return 0.0
    a, b = RATIO_PRIOR * fraction, RATIO_PRIOR * (1.0 - fraction)
    served = units - held_out
    mixed = float(betaln(a + held_out, b + served) - betaln(a, b))
    return mixed - held_out * math.log(fraction) - served * math.log1p(-fraction)
