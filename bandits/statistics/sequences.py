"""Intervals and tests that hold at every look, for an estimate that more data make more precise.

An estimate theta_t that is asymptotically linear and efficient for what it sees has, however its
data are clustered, the increments of a Brownian motion: I_t (theta_t - theta) where I_t =
1 / Var(theta_t) is its information (Scharfstein, Tsiatis & Robins 1997). So time is not counted in
rows, of which a user brings many that are alike, but in information.
"""

import math
from dataclasses import dataclass

from bandits.statistics.intervals import ALPHA, z_of

POWER_Z = 0.8416212335729143
"""The quantile of the standard normal distribution at a power of 0.8."""


@dataclass(frozen=True, slots=True)
class MixtureSequence:
    """A normal mixture over effects (Robbins 1970; Waudby-Smith et al. 2021, theorem 2.2).

    The mixture's spread is chosen so that the interval is tightest at the information at which a
    test with one look would find ``effect`` with a power of 0.8.

    Attributes:
        effect: a difference that would matter, above 0, in the estimate's unit.
        alpha: the probability that any interval of the sequence misses the truth.
    """

    effect: float
    alpha: float = ALPHA

    @property
    def fixed_information(self) -> float:
        """The information that a test with one look needs to find the effect."""
        return ((z_of(self.alpha) + POWER_Z) / self.effect) ** 2

    def radius(self, variance: float) -> float:
        """Return half the width of the interval around an estimate; infinite without a variance.

        Args:
            variance: that of the estimate.
        """
        if not 0.0 < variance < math.inf:
            return math.inf
        scaled = self._scaled(variance)
        factor = (scaled + 1.0) / scaled * (math.log1p(scaled) + self._spent)
        return math.sqrt(factor * variance)

    def log_evidence(self, estimate: float, variance: float) -> float:
        """Return the logarithm of the evidence against no difference; above log(1 / alpha) it is.

        Its exponential is an e-process: a fair bettor's money, who would lose if there were none.

        Args:
            estimate: the difference that was seen.
            variance: that of the estimate.
        """
        if not 0.0 < variance < math.inf:
            return 0.0
        scaled = self._scaled(variance)
        return 0.5 * (estimate**2 / variance * scaled / (scaled + 1.0) - math.log1p(scaled))

    def information_to_find(self, effect: float) -> float:
        """Return the information at which an effect as large as it is expected lies outside of 0.

        Args:
            effect: the true difference, not 0.
        """
        low = high = self.fixed_information
        while abs(effect) < self.radius(1.0 / high):
            low, high = high, 2.0 * high
        while abs(effect) > self.radius(1.0 / low):
            low, high = low / 2.0, low
        for _ in range(50):
            middle = math.sqrt(low * high)
            found = abs(effect) > self.radius(1.0 / middle)
            low, high = (low, middle) if found else (middle, high)
        return high

    @property
    def _spent(self) -> float:
        return -2.0 * math.log(self.alpha)

    def _scaled(self, variance: float) -> float:
        tightest = self._spent + math.log(self._spent + 1.0)
        return tightest / (variance * self.fixed_information)
