"""Does the log tell the truth about its propensities? Re-derives every draw, and tests the weights."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bandits.decide import PURPOSE_ACTION, draw, uniform
from bandits.records import DecisionRecord

FALSE_ALARM = 1e-4
"""Of the weights' test. Every decision's draw must re-derive, with no allowance."""


@dataclass(frozen=True, slots=True)
class Audit:
    """``excess``: mean over decisions of (1 / propensity of the chosen) - K, K the actions of positive probability.

    If the logged propensities are the sampling probabilities, its expectation is 0 whatever the policy did, and its
    variance follows from the PMFs: sum(1/p) - K^2 per decision. ``z`` is the excess in those standard errors, about
    standard normal when there are many decisions. ``p_value`` bounds the chance of so large an excess for any number
    of decisions, however small their propensities (Freedman's inequality for bounded martingale differences, 1975).
    ``rederived`` counts the decisions whose every slot is drawn again, bit for bit, from the record and the salt.
    """

    decisions: int
    excess: float
    stderr: float
    p_value: float
    rederived: int

    @property
    def z(self) -> float:
        """Excess in standard errors; 0 when nothing was random."""
        return self.excess / self.stderr if self.stderr > 0 else 0.0

    @property
    def sound(self) -> bool:
        """All decisions re-derived, and an excess that chance explains."""
        return self.rederived == self.decisions and self.p_value >= FALSE_ALARM


def audit(records: Iterable[DecisionRecord], *, salt: bytes) -> Audit:
    """Audit the first slot's weights and every slot's draw."""
    count, rederived, total, variance, largest = 0, 0, 0.0, 0.0, 0.0
    for record in records:
        pmfs = record.pmfs()
        first = pmfs[0]
        weights = 1.0 / first[first > 0.0]
        deviations = weights - weights.size
        count += 1
        total += 1.0 / first[record.chosen[0]] - weights.size
        variance += float(weights.sum()) - weights.size**2
        largest = max(largest, float(np.abs(deviations).max()))
        rederived += all(
            draw(pmfs[slot], uniform(salt, record.policy, record.event_id, slot, PURPOSE_ACTION)) == index
            for slot, index in enumerate(record.chosen)
        )
    if count == 0:
        return Audit(0, 0.0, 0.0, 1.0, 0)
    return Audit(
        count, total / count, math.sqrt(max(variance, 0.0)) / count, _bound(total, variance, largest), rederived
    )


def _bound(total: float, variance: float, largest: float) -> float:
    """Freedman: P(|sum| >= t) <= 2 exp(-t^2 / 2(V + b t / 3)), V the summed variances, b the largest deviation."""
    spread = variance + largest * abs(total) / 3.0
    return 1.0 if spread <= 0.0 else min(1.0, 2.0 * math.exp(-(total**2) / (2.0 * spread)))
