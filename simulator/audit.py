"""Does the log tell the truth about its propensities? Re-derives every draw, and tests the weights."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bandits.decide import PURPOSE_ACTION, draw, uniform
from bandits.records import DecisionRecord


@dataclass(frozen=True, slots=True)
class Audit:
    """``excess``: mean over decisions of (1 / propensity of the chosen) - K, K the actions of positive probability.

    If the logged propensities are the sampling probabilities, its expectation is 0 whatever the policy did, and ``z``
    (excess in standard errors) is about standard normal. ``rederived`` counts the decisions whose every slot is drawn
    again, bit for bit, from the record and the salt.
    """

    decisions: int
    excess: float
    stderr: float
    rederived: int

    @property
    def z(self) -> float:
        """Excess in standard errors; 0 when nothing was random."""
        return self.excess / self.stderr if self.stderr > 0 else 0.0

    @property
    def sound(self) -> bool:
        """All decisions re-derived, and the excess within 4 standard errors (false alarm 6e-5)."""
        return self.rederived == self.decisions and abs(self.z) <= 4.0


def audit(records: Iterable[DecisionRecord], *, salt: bytes) -> Audit:
    """Audit the first slot's weights and every slot's draw."""
    excesses, rederived = [], 0
    for record in records:
        pmfs = record.pmfs()
        first = pmfs[0]
        excesses.append(1.0 / first[record.chosen[0]] - np.count_nonzero(first))
        rederived += all(
            draw(pmfs[slot], uniform(salt, record.policy, record.event_id, slot, PURPOSE_ACTION)) == index
            for slot, index in enumerate(record.chosen)
        )
    values = np.array(excesses)
    count = values.size
    stderr = float(values.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0
    return Audit(count, float(values.mean()) if count else 0.0, stderr, rederived)
