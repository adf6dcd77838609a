"""Can an estimate be trusted? What its weights say, in one word and one sentence.

What cannot be seen: propensities that are wrong and still have a mean weight of 1 under this target
policy, say because the target policy does not tell apart the actions whose propensities are
exchanged. Nor, in a log without PMFs, target mass m on actions that the log lacks, while m is below
about 3 standard errors of the mean weight.
"""

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from bandits.statistics.betting import BETS_ABOVE, p_value
from bandits.types import Float64
from simulator.ope.batch import OpeBatch

Verdict = Literal["reliable", "weak", "unreliable"]

FALSE_ALARM = 1e-4
"""Of each test that finds an estimate unreliable.

There is one of the weights, one of the model's predictions.
"""
SUSPICION = 1e-2
"""Of the same tests, to find it weak."""
SURPRISE = 0.02
"""Of the normal tests of the same means, to find it weak: right in the limit only, and they see more."""
TOO_FEW_ROWS, ENOUGH_ROWS = 30.0, 100.0
"""Rows that count: below the first a standard error is itself a guess, from the second the normal limit is near."""
POSITIVES = 25.0
"""With fewer, means are too skewed for the normal limit: n > 25 G^2, G the skewness (Cochran 1977, section 2.15)."""
SHARE = 0.05
"""Of the weight, in one row: it would be a twentieth of the answer."""
UNSUPPORTED, UNSUPPORTED_MUCH = 0.01, 0.1
CLIPPED = 0.05
"""Of the weight, taken away by clipping, switching or shrinking."""
SHIFT = 0.5
"""Standard errors by which that changed the value: an interval counts no bias."""
STEADY = 1e-12
"""What sums may be off by, in shares of what is summed: predictions that do not differ are no test of weights."""
MISLED = 2.0
"""Squared errors of the reward model over those of a constant: beyond that DR does better without it."""
SQUARES_SEEN = 0.5
"""Of the mean squared weight that the PMFs promise."""

CHECK_LOG = "run the doctor on the log, and do not evaluate this stretch of it"
EXPLORE = "log with more exploration, or evaluate a policy closer to the logging policy"


@dataclass(slots=True, eq=False)
class Diagnostics:
    """Sums over rows of the weights used, w', of the importance weights, w, and of what PMFs tell where they are known.

    Each row counts as often as the decisions that it stands for.

    ``n``: rows, ``decisions``: what they stand for. ``known``: how many rows came with their PMFs.
    ``carried``: powers of w' r. ``excess_squares``: of w, with the mass on what the log lacks, less
    1. ``shift``: of what using w' in place of w changed. ``balance``: of w (q - e), where there is
    a reward model. ``money``: the logarithm, per bet, of the test that the mean weight is not above
    1, for which a row's count must not depend on its action. ``reward_low``, ``reward_high``: over
    rewards and predictions.
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
        """Of the batch's rows.

        ``used``: float64[n], the weights the estimator uses, times decisions.
        """
        if not len(batch):
            return cls()
        squares = (used * batch.reward) ** 2
        return replace(
            _of_batch(batch),
            used=float(used.sum()),
            used_squares=float(used @ used),
            used_largest=float(used.max()),
            carried_squares=float(squares.sum()),
            carried_cubes=float(squares @ np.sqrt(squares)),
            heavy_rewards=float((used * used) @ batch.reward),
            missed_squares=0.0
            if batch.predicted is None
            else float(np.square(used * (batch.reward - batch.predicted)).sum()),
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
        """Effective sample size, (sum w')^2 / sum w'^2 (Kong 1992)."""
        return _effective(self.used, self.used_squares)

    @property
    def expected_ess(self) -> float:
        """The effective sample size that the PMFs promise; infinite when they are not known."""
        return (
            _effective(self.decisions - self.unsupported, self.second_moments)
            if self.pmfs
            else math.inf
        )

    @property
    def positives(self) -> float:
        """Rows that carry the value, as far as skewness goes: (sum (w' r)^2)^3 / (sum |w' r|^3)^2.

        Of weights and rewards of 0 and 1 the number of ones; few large rewards among many small
        ones are few. It is n over the squared skewness, were w' r not centred.
        """
        return self.carried_squares**3 / self.carried_cubes**2 if self.carried_cubes > 0.0 else 0.0

    @property
    def clipped_fraction(self) -> float:
        """The share of all importance weight that the estimator takes away."""
        return max(0.0, 1.0 - self.used / self.weights) if self.weights else 0.0

    @property
    def mean_weight(self) -> float:
        """With the unsupported mass, whose weight is never seen: 1 when propensities are right."""
        return (self.weights + self.unsupported) / self.decisions if self.n else 1.0

    @property
    def weight_p_value(self) -> float:
        """Bounds the chance of such a mean weight if propensities are right, with no assumption on tails.

        Above 1: a bet, as in simulator.doctor.audit. Below 1: for non-negative w, P(sum of E w - w >= t)
        is at most exp(-t^2 / (2 sum of E w^2)) (Maurer 2003, J. Inequal. Pure Appl. Math. 4(1),
        theorem 1). Without PMFs E w^2 is taken from what was seen, and that side is no bound:
        weights so rare that none came look like missing mass, and are as bad for the estimate.
        """
        if self.n == 0:
            return 1.0
        second = self.second_moments if self.pmfs else self.squares
        missing = max(self.decisions - self.unsupported - self.weights, 0.0)
        below = math.exp(-(missing**2) / (2.0 * second)) if second > 0.0 else float(missing == 0.0)
        return min(1.0, 2.0 * min(below, p_value(self.money)))

    @property
    def balance_p_value(self) -> float:
        """Of the test that the reward model's predictions, weighted, have the mean they have under the target policy.

        E w (q - e) = 0 when propensities are right. With z its self-normalised mean, 2 exp(-z^2 /
        2): a bound for symmetric tails (Efron 1969, doi:10.1080/01621459.1969.10501068), and above
        the normal p-value for many rows.
        """
        return min(
            1.0, 2.0 * math.exp(-(_normalised(self.balance, self.balance_squares) ** 2) / 2.0)
        )

    @property
    def surprise(self) -> float:
        """The p-value of the normal tests of the same means, self-normalised, times their number (Bonferroni)."""
        excess = _normalised(self.weights + self.unsupported - self.decisions, self.excess_squares)
        balance = _normalised(self.balance, self.balance_squares)
        tests = 2 if self.balance_squares > 0.0 else 1
        return min(1.0, tests * math.erfc(max(abs(excess), abs(balance)) / math.sqrt(2.0)))

    @property
    def misled(self) -> float:
        """The squared errors of the reward model's predictions, by squared weights, over those of the best constant.

        That is what the variance of DR is made of: above 1, the model adds to it. 0 without a
        model.
        """
        plain = self.carried_squares
        if self.used_squares > 0.0:
            plain -= self.heavy_rewards**2 / self.used_squares
        return self.missed_squares / plain if plain > STEADY * self.carried_squares else 0.0

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


@lru_cache(maxsize=2)
def _of_batch(batch: OpeBatch) -> Diagnostics:
    """What does not depend on the estimator: several look at a batch in turn."""
    zeros = np.zeros(len(batch))
    counts = batch.decisions + zeros
    excess = batch.weight - 1.0 + (zeros if batch.unsupported is None else batch.unsupported)
    weight, balance = batch.weight * counts, zeros
    if batch.predicted is not None and batch.expected is not None:
        moved = batch.predicted - batch.expected
        # rounding
        moved[np.abs(moved) <= STEADY * (np.abs(batch.predicted) + np.abs(batch.expected))] = 0.0
        balance = weight * moved
    values = [each for each in (batch.reward, batch.predicted, batch.expected) if each is not None]
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
        second_moments=0.0
        if batch.second_moment is None
        else float(counts**2 @ batch.second_moment),
        reward_low=min(float(each.min()) for each in values),
        reward_high=max(float(each.max()) for each in values),
        money=np.array([np.log(1.0 + share * excess).sum() for share in BETS_ABOVE]),
    )


def judge(
    rows: Diagnostics, stderr: float, *, weighted: bool = True, modelled: bool = False
) -> tuple[Verdict, str]:
    """The verdict on an estimate with this standard error, and its first cause with what to do about it.

    ``weighted``: the estimator uses weights. ``modelled``: it uses the reward model.
    """
    unreliable = _unreliable(rows)
    if unreliable is not None:
        return unreliable
    reason = _weak(rows, stderr, weighted=weighted)
    if weighted and modelled and rows.misled > MISLED:
        reason = f"{_misled(rows)}; {reason}" if reason else _misled(rows)
    return ("weak", reason) if reason else ("reliable", _sound(rows))


def _unreliable(rows: Diagnostics) -> tuple[Verdict, str] | None:
    p, missing = rows.weight_p_value, rows.unsupported / max(rows.decisions, 1.0)
    reason = ""
    if rows.n == 0:
        reason = "there are no rows: give a log that is not empty, and check what filtered it"
    elif p < FALSE_ALARM:
        reason = f"{_mean_weight(rows)} (p = {p:.1g}): {_suspect(rows)}; {CHECK_LOG}"
    elif missing > UNSUPPORTED_MUCH:
        reason = f"{_unsupported(missing)}; {EXPLORE}"
    elif missing <= UNSUPPORTED and rows.balance_p_value < FALSE_ALARM:
        reason = f"{_unbalanced(rows)}: {_suspect(rows)}; {CHECK_LOG}"
    elif rows.ess < TOO_FEW_ROWS:
        reason = f"of {rows.n:,} rows only {rows.ess:.1f} count (effective sample size); {EXPLORE}"
    elif rows.expected_ess < TOO_FEW_ROWS:
        reason = f"{_promised(rows)}; {EXPLORE}"
    return ("unreliable", reason) if reason else None


def _weak(rows: Diagnostics, stderr: float, *, weighted: bool) -> str:
    taken = rows.clipped_fraction
    reason = _suspicious(rows)
    if reason:
        pass
    elif rows.ess < ENOUGH_ROWS:
        reason = (
            f"of {rows.n:,} rows only {rows.ess:.0f} count (effective sample size); use more of"
            f" the log, or {EXPLORE}"
        )
    elif rows.expected_ess < ENOUGH_ROWS or (
        rows.pmfs and rows.squares < SQUARES_SEEN * rows.second_moments
    ):
        reason = f"{_promised(rows)}; use more of the log, or {EXPLORE}"
    elif rows.used_largest > SHARE * rows.used:
        share = rows.used_largest / rows.used
        reason = f"one row has {share:.0%} of all weight (its weight is {rows.used_largest:.4g}); use more of the log"
    elif weighted and (taken > CLIPPED or abs(rows.shift) > SHIFT * stderr * rows.decisions):
        reason = (
            f"{taken:.1%} of the weight is taken away, a bias the interval does not count; raise"
            " the limit, or use dr"
        )
    elif not weighted:
        reason = "the value is the reward model's alone, and no weight corrects its bias; use dr beside it"
    elif rows.positives < POSITIVES:
        reason = (
            f"few or rare large rewards carry the value, as {rows.positives:.0f} alike would: an"
            " interval may miss what"
            " has not come yet; use more of the log"
        )
    return reason


def _misled(rows: Diagnostics) -> str:
    return (
        f"where weights are large the reward model has {rows.misled:.3g} times the squared error"
        " of a constant, so it"
        " adds to the error of dr; use snips, or another --reward-model"
    )


def _suspicious(rows: Diagnostics) -> str:
    """What makes one doubt the log, or nothing."""
    p, missing = rows.weight_p_value, rows.unsupported / rows.decisions
    if p < SUSPICION:
        return f"{_mean_weight(rows)} (p = {p:.1g}): {_suspect(rows)}; run the doctor on the log"
    if missing > UNSUPPORTED:
        return f"{_unsupported(missing)}; {EXPLORE}"
    if rows.balance_p_value < SUSPICION:
        return f"{_unbalanced(rows)}: {_suspect(rows)}; run the doctor on the log"
    if rows.surprise < SURPRISE:
        return (
            f"{_mean_weight(rows)}; weights and what they do to predictions are as far off in"
            f" {rows.surprise:.1%} of"
            " sound logs: run the doctor on the log, or use more of it"
        )
    return ""


def _sound(rows: Diagnostics) -> str:
    return (
        f"the mean weight is {rows.mean_weight:.3f} and {rows.ess:,.0f} of {rows.n:,} rows count"
        " (effective sample"
        " size): nothing speaks against the estimate"
    )


def _mean_weight(rows: Diagnostics) -> str:
    return f"the mean weight is {rows.mean_weight:.4g} where true propensities give 1"


def _suspect(rows: Diagnostics) -> str:
    if rows.mean_weight > 1.0 or rows.pmfs:
        return "the log's propensities are not those its choices were drawn with"
    return "the target policy takes actions that the log lacks, or the log's propensities are wrong"


def _unbalanced(rows: Diagnostics) -> str:
    return (
        "weighted, the reward model's predictions miss their mean under the target policy, which"
        " true propensities give"
        f" (p = {rows.balance_p_value:.1g})"
    )


def _unsupported(share: float) -> str:
    return f"{share:.1%} of the target policy's choices are actions that the logging policy never takes there"


def _promised(rows: Diagnostics) -> str:
    return (
        f"the target policy takes actions so rare in the log that {rows.expected_ess:,.1f} of"
        f" {rows.n:,} rows are"
        f" expected to count, whatever the {rows.ess:,.0f} seen"
    )


def _normalised(total: float, squares: float) -> float:
    return total / math.sqrt(squares) if squares > 0.0 else 0.0


def _effective(total: float, squares: float) -> float:
    return (total / math.sqrt(squares)) ** 2 if squares > 0.0 else 0.0
