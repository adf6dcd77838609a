"""Differences of two policies on the same rows, so that what both share cancels."""

import math
from collections.abc import Mapping

import msgspec
import numpy as np

from bandits.errors import ReplayError
from bandits.statistics.intervals import ALPHA, Interval, Normal, Sample, p_of, per_decision
from bandits.statistics.moments import Moments, add_rows
from bandits.types import Float64
from simulator.ope.batch import OpeBatch
from simulator.ope.diagnostics import Diagnostics
from simulator.ope.estimators import formula_columns
from simulator.ope.formulas import Formula, RewardRange
from simulator.ope.verdict import Verdict, judge

VERDICTS: tuple[Verdict, ...] = ("reliable", "weak", "unreliable")
"""All verdicts, the best first."""


class Comparison(msgspec.Struct, frozen=True):
    """The value of the left policy less that of the right.

    ``p_value`` is of the two-sided test that there is no difference; ``adjusted`` is the
    same for the number of comparisons made together, and ``significant`` says whether it is below
    alpha. ``verdict`` is the worse of the two policies'.
    """

    difference: float
    stderr: float
    interval: tuple[float, float]
    p_value: float
    adjusted: float
    significant: bool
    verdict: Verdict
    reason: str

    @property
    def conclusive(self) -> bool:
        """Whether there is a difference that can be relied on."""
        return self.significant and self.verdict != "unreliable"


class Difference:
    """One formula for two target policies over one log: a monoid like an Estimator.

    ``replicates`` and ``counted`` are an Estimator's.
    """

    def __init__(self, formula: Formula, replicates: int = 0, *, counted: bool = False) -> None:
        self.formula, self._counted = formula, counted
        self._moments = Moments.empty(2 * formula.k + counted, replicates)
        self._sides = Diagnostics(), Diagnostics()

    def gather(self, left: OpeBatch, right: OpeBatch) -> list[tuple[Moments, Float64]]:
        """Count rows, and return which columns are to be added to which moments; see ``update``.

        Args:
            left: rows beside what the left policy would have done.
            right: the same rows beside what the right policy would have done.

        Raises:
            ReplayError: they are not the same rows, predictions are needed and missing, or a value
                is not finite.
        """
        if not np.array_equal(left.keys, right.keys):
            raise ReplayError(
                "two policies are compared on the same rows, in the same order", "keys"
            )
        both = (
            formula_columns(self.formula, batch, counted=self._counted) for batch in (left, right)
        )
        columns, rows = zip(*both, strict=True)
        for mine, added in zip(self._sides, rows, strict=True):
            mine.merge(added)

        # Both sides would count the same decisions: one column of these is enough.
        return [(self._moments, np.concatenate([columns[0][: self.formula.k], columns[1]]))]

    def update(self, left: OpeBatch, right: OpeBatch) -> None:
        """Add rows.

        Args:
            left: rows beside what the left policy would have done.
            right: the same rows beside what the right policy would have done.

        Raises:
            ReplayError: they are not the same rows, predictions are needed and missing, or a value
                is not finite.
        """
        add_rows(self.gather(left, right), left.keys)

    def merge(self, other: "Difference") -> None:
        """Add the rows of another, of the same formula.

        Raises:
            ReplayError: it is another formula.
        """
        if other.formula != self.formula:
            raise ReplayError(f"cannot merge {other.formula} into {self.formula}", "estimator")
        self._moments.merge(other._moments)  # noqa: SLF001
        for mine, theirs in zip(self._sides, other._sides, strict=True):  # noqa: SLF001
            mine.merge(theirs)

    def compare(self, interval: Interval = Normal()) -> Comparison:  # noqa: B008 - frozen
        """Compare on the rows so far, as if there were no other comparison."""
        sample = Sample(
            self._moments,
            self._value,
            self._gradient,
            self._span,
            self._largest(),
            self._rewards(),
            effective=self._effective(),
            draws=self._draws(),
        )
        sample = per_decision(sample) if self._counted else sample
        low, high, note = interval.bounds(sample)

        # A difference can be relied on as far as the worse of its sides.
        verdicts = [
            judge(
                rows, sample.stderr, weighted=self.formula.weighted, modelled=self.formula.modelled
            )
            for rows in self._sides
        ]
        verdict, reason = max(verdicts, key=lambda judged: VERDICTS.index(judged[0]))

        value = _p_value(sample.point, sample.stderr, sample.effective)
        return Comparison(
            difference=sample.point,
            stderr=sample.stderr,
            interval=(low, high),
            p_value=value,
            adjusted=value,
            significant=value < ALPHA,
            verdict=verdict,
            reason=f"{reason}; {note}" if note else reason,
        )

    def _value(self, means: Float64) -> Float64:
        k = self.formula.k
        with np.errstate(invalid="ignore"):  # two infinite ratios have no difference
            value: Float64 = self.formula.value(means[..., :k]) - self.formula.value(means[..., k:])
        return value

    def _gradient(self, means: Float64) -> Float64:
        k = self.formula.k
        return np.concatenate([self.formula.gradient(means[:k]), -self.formula.gradient(means[k:])])

    def _span(self, max_weight: float, rewards: RewardRange) -> tuple[Float64, Float64]:
        low, high = self.formula.span(max_weight, rewards)
        return np.tile(low, 2), np.tile(high, 2)

    def _largest(self) -> float:
        return max(rows.largest for rows in self._sides)

    def _effective(self) -> float:
        """Return how many rows count; infinite where the limit of many is taken."""
        return math.inf

    def _draws(self) -> float:
        """Return how many draws the weights were found by; infinite where they are exact."""
        return math.inf

    def _rewards(self) -> RewardRange:
        return min(rows.reward_low for rows in self._sides), max(
            rows.reward_high for rows in self._sides
        )


def compare_all(
    differences: Mapping[str, Difference],
    interval: Interval = Normal(),  # noqa: B008 - frozen
    alpha: float = ALPHA,
) -> dict[str, Comparison]:
    """Return several comparisons, their p-values adjusted for their number (Holm 1979).

    The chance that any difference is called significant where there is none is at most alpha.
    Intervals are not adjusted.

    Args:
        differences: by name.
        interval: the kind of interval.
        alpha: the significance level of all comparisons together.

    Returns:
        A comparison for each name, in the order given.
    """
    alone = {name: difference.compare(interval) for name, difference in differences.items()}

    # Holm's step-down: the smallest p-value is adjusted for all comparisons, the next for one less.
    adjusted, running = {}, 0.0
    for rank, name in enumerate(sorted(alone, key=lambda name: alone[name].p_value)):
        running = max(running, min(1.0, (len(alone) - rank) * alone[name].p_value))
        adjusted[name] = running

    return {
        name: msgspec.structs.replace(
            result, adjusted=adjusted[name], significant=adjusted[name] < alpha
        )
        for name, result in alone.items()
    }


def _p_value(difference: float, stderr: float, effective: float) -> float:
    """Return the two-sided p-value, by Student's distribution where few rows count.

    It is 1 when nothing can be told.
    """
    if not (math.isfinite(difference) and math.isfinite(stderr)) or difference == 0.0:
        return 1.0
    if stderr == 0.0:
        return 0.0
    return p_of(abs(difference) / stderr, effective)
