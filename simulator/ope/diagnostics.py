"""Diagnostics of an estimate's weights and of the log: sums over rows, so that shards merge."""

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from bandits.statistics.betting import BETS_ABOVE, p_value
from bandits.types import Float64
from simulator.ope.batch import OpeBatch
from simulator.ope.kernels import sum_logs

ROUNDING = 1e-12
"""The rounding of sums, as a share of their terms."""


@dataclass(slots=True, eq=False)
class Diagnostics:
    """Sums over rows of the weights used, w', of the importance weights, w, and of what PMFs tell.

    Each row counts as often as the decisions that it stands for.

    Attributes:
        n: rows.
        decisions: what the rows stand for.
        used: sum of w'; ``used_squares`` and ``used_largest`` are of its squares and its maximum.
        weights: sum of w; ``squares`` and ``largest`` are of its squares and its maximum.
        carried_squares: sum of (w' r)^2; ``carried_cubes`` of its third power.
        shift: what using w' in place of w changed.
        excess_squares: sum of the squares of w, with the mass on what the log lacks, less 1.
        balance: sum of w (q - e), where there is a reward model; ``balance_squares`` of its
            squares.
        heavy_rewards: sum of w'^2 r.
        missed_squares: sum of (w' (r - q))^2, where there is a reward model.
        known: rows that came with their PMFs.
        unsupported: the target policy's mass on actions that the log lacks, of those rows.
        second_moments: sum of the means of w^2 under the logging policy, of those rows.
        reward_low: the least of rewards and predictions; ``reward_high`` the largest.
        money: float64[bets], the logarithm, per bet, of the test that the mean weight is not above
            1, for which a row's count must not depend on its action.
    """

    n: int = 0
    decisions: float = 0.0
    used: float = 0.0
    used_squares: float = 0.0
    used_largest: float = 0.0
    weights: float = 0.0
    squares: float = 0.0
    largest: float = 0.0
    carried_squares: float = 0.0
    carried_cubes: float = 0.0
    shift: float = 0.0
    excess_squares: float = 0.0
    balance: float = 0.0
    balance_squares: float = 0.0
    heavy_rewards: float = 0.0
    missed_squares: float = 0.0
    known: int = 0
    unsupported: float = 0.0
    second_moments: float = 0.0
    reward_low: float = math.inf
    reward_high: float = -math.inf
    money: Float64 = field(default_factory=lambda: np.zeros(BETS_ABOVE.size))

    @classmethod
    def of(cls, batch: OpeBatch, used: Float64, shift: float) -> "Diagnostics":
        """Sum over a batch's rows.

        Args:
            batch: n rows.
            used: float64[n], the weights the estimator uses, times decisions.
            shift: what using them in place of importance weights changed.
        """
        if not len(batch):
            return cls()

        missed_squares = 0.0
        if batch.predicted is not None:
            missed_squares = float(np.square(used * (batch.reward - batch.predicted)).sum())
        squares = (used * batch.reward) ** 2
        return replace(
            _of_batch(batch),
            used=float(used.sum()),
            used_squares=float(used @ used),
            used_largest=float(used.max()),
            carried_squares=float(squares.sum()),
            carried_cubes=float(squares @ np.sqrt(squares)),
            heavy_rewards=float((used * used) @ batch.reward),
            missed_squares=missed_squares,
            shift=shift,
        )

    def merge(self, other: "Diagnostics") -> None:
        """Add the rows of another."""
        self.used_largest = max(self.used_largest, other.used_largest)
        self.largest = max(self.largest, other.largest)
        self.reward_low = min(self.reward_low, other.reward_low)
        self.reward_high = max(self.reward_high, other.reward_high)
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def ess(self) -> float:
        """Return the effective sample size, (sum w')^2 / sum w'^2 (Kong 1992)."""
        return _effective(self.used, self.used_squares)

    @property
    def expected_ess(self) -> float:
        """Return the effective sample size that the PMFs promise; infinite without PMFs."""
        if not self.pmfs:
            return math.inf
        return _effective(self.decisions - self.unsupported, self.second_moments)

    @property
    def positives(self) -> float:
        """Return how many rows carry the value, as far as skewness goes.

        (sum (w' r)^2)^3 / (sum |w' r|^3)^2: with weights and rewards of 0 and 1 it is the number of
        ones; a few large rewards among many small ones are few. It would be n over the squared
        skewness, were w' r not centred.
        """
        return self.carried_squares**3 / self.carried_cubes**2 if self.carried_cubes > 0.0 else 0.0

    @property
    def clipped_fraction(self) -> float:
        """Return the share of all importance weight that the estimator takes away."""
        return max(0.0, 1.0 - self.used / self.weights) if self.weights else 0.0

    @property
    def mean_weight(self) -> float:
        """Return the mean weight, 1 when propensities are right.

        The mass on what the log lacks, whose weight is never seen, is added to it.
        """
        return (self.weights + self.unsupported) / self.decisions if self.n else 1.0

    @property
    def weight_p_value(self) -> float:
        """Return a bound on the chance of such a mean weight if propensities are right.

        It makes no assumption on tails. Above 1 it is a bet, as in simulator.doctor.audit. Below 1:
        for non-negative w, P(sum of E w - w >= t) is at most exp(-t^2 / (2 sum of E w^2)) (Maurer
        2003, J. Inequal. Pure Appl. Math. 4(1), theorem 1). Without PMFs E w^2 is taken from what
        was seen, and that side is no bound: weights so rare that none came look like missing mass,
        and are as bad for the estimate.
        """
        if self.n == 0:
            return 1.0
        second = self.second_moments if self.pmfs else self.squares
        missing = max(self.decisions - self.unsupported - self.weights, 0.0)
        below = math.exp(-(missing**2) / (2.0 * second)) if second > 0.0 else float(missing == 0.0)
        return min(1.0, 2.0 * min(below, p_value(self.money)))

    @property
    def balance_p_value(self) -> float:
        """Return the p-value of the test that weighted predictions have the mean they should.

        E w (q - e) = 0 when propensities are right. With z its self-normalised mean, 2 exp(-z^2 /
        2): a bound for symmetric tails (Efron 1969, doi:10.1080/01621459.1969.10501068), and above
        the normal p-value for many rows.
        """
        z = _normalised(self.balance, self.balance_squares)
        return min(1.0, 2.0 * math.exp(-(z**2) / 2.0))

    @property
    def surprise(self) -> float:
        """Return the p-value of the normal tests of both means, times their number (Bonferroni)."""
        excess = _normalised(self.weights + self.unsupported - self.decisions, self.excess_squares)
        balance = _normalised(self.balance, self.balance_squares)
        tests = 2 if self.balance_squares > 0.0 else 1
        return min(1.0, tests * math.erfc(max(abs(excess), abs(balance)) / math.sqrt(2.0)))

    @property
    def misled(self) -> float:
        """Return the reward model's squared errors over those of the best constant; 0 without one.

        Errors count by squared weights, which is what the variance of DR is made of: above 1, the
        model adds to it.
        """
        constant = self.carried_squares
        if self.used_squares > 0.0:
            constant -= self.heavy_rewards**2 / self.used_squares
        return self.missed_squares / constant if constant > ROUNDING * self.carried_squares else 0.0

    @property
    def pmfs(self) -> bool:
        """Whether every row came with its PMFs."""
        return self.known == self.n


SUMS = (
    "n",
    "decisions",
    "used",
    "used_squares",
    "weights",
    "squares",
    "excess_squares",
    "carried_squares",
    "carried_cubes",
    "shift",
    "balance",
    "balance_squares",
    "heavy_rewards",
    "missed_squares",
    "known",
    "unsupported",
    "second_moments",
    "money",
)
"""The attributes of Diagnostics that are sums."""


@lru_cache(maxsize=32)
def _of_batch(batch: OpeBatch) -> Diagnostics:
    """Sum what does not depend on the estimator: several look at a batch in turn."""
    zeros = np.zeros(len(batch))
    counts = batch.decisions + zeros
    excess = batch.weight - 1.0 + (zeros if batch.unsupported is None else batch.unsupported)
    weight, balance = batch.weight * counts, zeros

    # Predictions that differ by rounding alone say nothing of the weights.
    if batch.predicted is not None and batch.expected is not None:
        moved = batch.predicted - batch.expected
        size = np.abs(batch.predicted) + np.abs(batch.expected)
        moved[np.abs(moved) <= ROUNDING * size] = 0.0
        balance = weight * moved

    second_moments = 0.0
    if batch.second_moment is not None:
        second_moments = float(counts**2 @ batch.second_moment)

    columns = (batch.reward, batch.predicted, batch.expected)
    values = [column for column in columns if column is not None]
    return Diagnostics(
        n=len(batch),
        decisions=float(counts.sum()),
        weights=float(weight.sum()),
        squares=float(weight @ weight),
        excess_squares=float((counts * excess) @ (counts * excess)),
        largest=float(batch.weight.max()),
        balance=float(balance.sum()),
        balance_squares=float(balance @ balance),
        known=0 if batch.second_moment is None else len(batch),
        unsupported=0.0 if batch.unsupported is None else float(counts @ batch.unsupported),
        second_moments=second_moments,
        reward_low=min(float(column.min()) for column in values),
        reward_high=max(float(column.max()) for column in values),
        money=sum_logs(excess, BETS_ABOVE),
    )


def _normalised(total: float, squares: float) -> float:
    """Return a sum in standard errors, from the sum of squares."""
    return total / math.sqrt(squares) if squares > 0.0 else 0.0


def _effective(total: float, squares: float) -> float:
    """Return the effective sample size of weights, from their sum and that of their squares."""
    return (total / math.sqrt(squares)) ** 2 if squares > 0.0 else 0.0
