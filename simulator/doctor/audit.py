"""An audit of a log's propensities: every draw is derived again, and the weights are tested.

The tests bet against the log (Ville 1939; Shafer 2021, doi:10.1111/rssa.12647): a bettor who
predicts choices better than the logged PMFs do multiplies her money at each draw by the likelihood
ratio of her prediction. If the log is true her money is a non-negative martingale that starts at 1,
whatever the policy did and learned meanwhile. So 1 / money bounds the chance of what was seen, for
any number of decisions, with no approximation.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bandits.decide import PURPOSE_ACTION, PURPOSE_APPRENTICE, uniform
from bandits.kernels.actions import draw
from bandits.log.records import DecisionRecord
from bandits.statistics.betting import BETS_ABOVE, p_value
from bandits.types import Pmf

FALSE_ALARM = 1e-4
"""The false-alarm rate of each statistical test; of draws, every one must re-derive."""

BETS_BELOW = np.array([0.9, 0.5, 0.2, 0.1, 0.03, 0.01])
"""Bets that unlikely actions are chosen less than logged.

Each is a share of the largest such bet that cannot lose everything.
"""


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit of a log's decisions.

    ``excess``: the mean over draws of (1 / propensity of the chosen) - K, where K is the number of
    actions with positive probability. If the logged propensities are the sampling probabilities,
    its expectation is 0 whatever the policy did, and its variance follows from the PMFs:
    sum(1/p) - K^2 per draw. ``z`` is the excess in those standard errors, about standard normal
    when there are many decisions. ``p_value`` bounds the chance of such weights for any number of
    decisions, however small their propensities. ``rederived`` counts the decisions whose every slot
    is drawn again, bit for bit, from the record and the salt.
    """

    decisions: int
    excess: float
    stderr: float
    p_value: float
    rederived: int

    @property
    def z(self) -> float:
        """Return the excess in standard errors; 0 when nothing was random."""
        return self.excess / self.stderr if self.stderr > 0 else 0.0

    @property
    def sound(self) -> bool:
        """Whether there are decisions, all re-derive, and chance explains the weights."""
        return (
            self.decisions > 0 and self.rederived == self.decisions and self.p_value >= FALSE_ALARM
        )


class WeightTest:
    """Tests E[1 / p(chosen)] = K, one draw at a time."""

    def __init__(self) -> None:
        self.draws = 0
        self._total = 0.0
        self._variance = 0.0
        self._log_money_above = np.zeros(BETS_ABOVE.size)
        self._log_money_below = np.zeros(BETS_BELOW.size)

    def add(self, pmf: Pmf, chosen: int) -> None:
        """Count a draw.

        Args:
            pmf: float64[K], the logged PMF.
            chosen: the index of the action that was drawn, whose probability is above 0.
        """
        support = pmf[pmf > 0.0]
        size, inverse = support.size, 1.0 / float(pmf[chosen])

        self.draws += 1
        self._total += inverse - size
        self._variance += float((1.0 / support).sum()) - size**2

        excess = inverse / size - 1.0
        largest_bet = size * float(support.min())
        self._log_money_above += np.log1p(BETS_ABOVE * excess)
        self._log_money_below += np.log1p(BETS_BELOW * (largest_bet * -excess))

    @property
    def excess(self) -> float:
        """Return the mean of 1 / p(chosen) - K."""
        return self._total / self.draws if self.draws else 0.0

    @property
    def stderr(self) -> float:
        """Return the standard error of the excess, from the PMFs."""
        return math.sqrt(max(self._variance, 0.0)) / self.draws if self.draws else 0.0

    @property
    def p_value(self) -> float:
        """Return a bound on the chance of such weights in a true log."""
        return p_value(np.concatenate([self._log_money_above, self._log_money_below]))


def redraws(record: DecisionRecord, salt: bytes) -> bool:
    """Return whether every slot is drawn again, bit for bit, from its logged PMF.

    Args:
        record: the decision.
        salt: of the service that made it, from which the uniforms of its slots derive.
    """
    own = record.apprentice
    # What the caller drew, nobody else can draw again.
    if not (own is not None and own.served == "request") and not _draws(
        record, salt, PURPOSE_ACTION
    ):
        return False
    return own is None or _draws(record.own(), salt, PURPOSE_APPRENTICE)


def _draws(record: DecisionRecord, salt: bytes, purpose: str) -> bool:
    pmfs = record.pmfs()
    return all(
        draw(pmfs[slot], uniform(salt, record.policy, record.event_id, slot, purpose)) == index
        for slot, index in enumerate(record.chosen)
    )


def audit(records: Iterable[DecisionRecord], *, salt: bytes) -> Audit:
    """Audit the weight and the draw of every slot.

    Args:
        records: decisions of one log.
        salt: of the service that made them.
    """
    count, rederived, weights = 0, 0, WeightTest()
    for record in records:
        count += 1
        rederived += redraws(record, salt)
        for pmf, index in zip(record.pmfs(), record.chosen, strict=True):
            weights.add(pmf, index)

    return Audit(count, weights.excess, weights.stderr, weights.p_value, rederived)
