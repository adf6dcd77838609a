"""Estimators at work: rows are added in batches, shards merge.

An estimate comes with its interval and its verdict. Rows are taken for independent draws. Slots of
one decision are not: evaluate each slot by itself, or all of them with the bootstrap, which draws
the slots of a decision together.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import msgspec
import numpy as np

from bandits.errors import ReplayError
from bandits.statistics.intervals import Interval, Normal, Sample, per_decision
from bandits.statistics.moments import Moments, add_rows, checked
from bandits.types import Float64
from simulator.ope.batch import OpeBatch
from simulator.ope.diagnostics import Diagnostics
from simulator.ope.formulas import FORMULAS, Formula
from simulator.ope.verdict import Verdict, judge


class Estimate(msgspec.Struct, frozen=True):
    """A target policy's mean reward per row, as estimated.

    ``stderr`` and ``interval`` are infinite while they cannot be told, and ``value`` is NaN without
    rows: null in JSON. ``ess`` and ``max_weight`` are of the weights as used; ``clipped_fraction``
    is the share of all importance weight that the estimator took away. ``reason`` is one sentence:
    the cause of the verdict and what to do about it.
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    n: int
    ess: float
    max_weight: float
    clipped_fraction: float
    verdict: Verdict
    reason: str


class Estimator:
    """One formula over one log and one target policy.

    ``replicates`` are for a bootstrap, which costs; 0 for none. ``counted``: the rows have
    ``counts``.
    """

    def __init__(self, formula: Formula, replicates: int = 0, *, counted: bool = False) -> None:
        self.formula, self._counted = formula, counted
        self._moments = Moments.empty(formula.k + counted, replicates)
        self._rows = Diagnostics()

    def gather(self, batch: OpeBatch) -> list[tuple[Moments, Float64]]:
        """Count rows, and return which columns are to be added to which moments; see ``update``.

        Raises:
            ReplayError: predictions are needed and missing, or a value is not finite.
        """
        columns, rows = formula_columns(self.formula, batch, counted=self._counted)
        self._rows.merge(rows)
        return [(self._moments, columns)]

    def update(self, batch: OpeBatch) -> None:
        """Add rows.

        Raises:
            ReplayError: predictions are needed and missing, or a value is not finite.
        """
        update_all([self], batch)

    def merge(self, other: "Estimator") -> None:
        """Add the rows of another, of the same formula.

        Raises:
            ReplayError: it is another formula.
        """
        if (other.formula, other._counted) != (self.formula, self._counted):  # noqa: SLF001
            raise ReplayError(f"cannot merge {other.formula} into {self.formula}", "estimator")
        self._moments.merge(other._moments)  # noqa: SLF001
        self._rows.merge(other._rows)  # noqa: SLF001

    def sample(self) -> Sample:
        """Return what an interval is computed from."""
        formula, rows = self.formula, self._rows
        rewards = (rows.reward_low, rows.reward_high)
        sample = Sample(
            self._moments, formula.value, formula.gradient, formula.span, rows.largest, rewards
        )
        return per_decision(sample) if self._counted else sample

    def estimate(self, interval: Interval = Normal()) -> Estimate:  # noqa: B008 - frozen
        """Return the estimate from the rows so far."""
        sample, rows = self.sample(), self._rows
        low, high, note = interval.bounds(sample)
        verdict, reason = judge(
            rows, sample.stderr, weighted=self.formula.weighted, modelled=self.formula.modelled
        )

        # A note of the interval's does not change the verdict.
        return Estimate(
            value=sample.point,
            stderr=sample.stderr,
            interval=(low, high),
            n=rows.n,
            ess=rows.ess,
            max_weight=rows.used_largest,
            clipped_fraction=rows.clipped_fraction,
            verdict=verdict,
            reason=f"{reason}; {note}" if note else reason,
        )


@lru_cache(maxsize=32)
def formula_columns(
    formula: Formula, batch: OpeBatch, *, counted: bool = False
) -> tuple[Float64, Diagnostics]:
    """Compute a formula's columns, and what the rows tell beside them; nobody changes either.

    An estimator and the comparisons that use its formula ask for the same, one after the other.

    Args:
        formula: with k columns.
        batch: n rows.
        counted: multiply each row by the decisions it stands for, and add these as a last column.

    Returns:
        float64[k, n], or float64[k + 1, n] if counted, and the diagnostics of the rows.

    Raises:
        ReplayError: predictions are needed and missing, or a weight is not finite.
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        weight = batch.weight
        if not np.isfinite(weight).all():
            raise ReplayError(
                "an importance weight is infinite or NaN; leave rows of propensity 0 out",
                "propensity",
            )

        used = formula.weight(weight)
        columns = formula.columns(used, batch)
        if counted:
            columns = np.vstack([columns, np.ones(len(batch))]) * batch.decisions

        # How far clipping, switching or shrinking changes the value: an interval counts no bias.
        plain = formula.columns(weight, batch)[0] * batch.decisions if formula.tuned else columns[0]
        return checked(columns), Diagnostics.of(
            batch, used * batch.decisions, float((columns[0] - plain).sum())
        )


class Slope:
    """One estimator whose parameter is chosen from its data.

    SLOPE (Su, Srinath & Krishnamurthy 2020, arXiv:2002.07729). All values of the grid are estimated
    side by side, the least biased first. Lepski's principle: as long as all intervals value +- 2
    standard errors have a point in common, bias does not show above chance, and the last of them,
    which has the least variance, is chosen. Standard errors that grow along the grid are evened, as
    the authors do. The aim is a small mean square error: the interval of the choice takes no
    account of its being chosen, nor of bias, and the verdict says how much weight was taken away.
    """

    def __init__(self, members: Sequence[Estimator]) -> None:
        self._members = members

    def gather(self, batch: OpeBatch) -> list[tuple[Moments, Float64]]:
        """Count rows for all members; see Estimator."""
        return [block for member in self._members for block in member.gather(batch)]

    def update(self, batch: OpeBatch) -> None:
        """Add rows to all members; see Estimator."""
        update_all([self], batch)

    def merge(self, other: "Slope") -> None:
        """Add the rows of another, of the same grid.

        Raises:
            ReplayError: it is another grid.
        """
        theirs = other._members  # noqa: SLF001
        if len(theirs) != len(self._members):
            raise ReplayError("cannot merge estimators of different grids", "estimator")
        for member, other_member in zip(self._members, theirs, strict=True):
            member.merge(other_member)

    @property
    def chosen(self) -> Estimator:
        """Return the member that SLOPE chooses."""
        samples = [member.sample() for member in self._members]
        widths = [2.0 * sample.stderr for sample in samples]

        # Narrow what all intervals so far have in common, until it is empty.
        chosen, low, high = self._members[0], float("-inf"), float("inf")
        for at, (member, sample) in enumerate(zip(self._members, samples, strict=True)):
            width = max(widths[at:])
            low, high = max(low, sample.point - width), min(high, sample.point + width)
            if not low <= high:
                break
            chosen = member
        return chosen

    def estimate(self, interval: Interval = Normal()) -> Estimate:  # noqa: B008 - frozen
        """Return the estimate of the member that is chosen; the reason says which."""
        formula = self.chosen.formula
        estimate = self.chosen.estimate(interval)
        value = getattr(formula, formula.tuned or "")
        return msgspec.structs.replace(
            estimate, reason=f"{estimate.reason}; SLOPE chose {formula.tuned} = {value:g}"
        )


def update_all(estimators: Iterable[Estimator | Slope], batch: OpeBatch) -> None:
    """Add rows to several estimators at once.

    The draws of their bootstraps are shared, and all their sums are one matrix product.

    Args:
        estimators: of one target policy.
        batch: the rows.

    Raises:
        ReplayError: predictions are needed and missing, or a value is not finite.
    """
    add_rows([block for estimator in estimators for block in estimator.gather(batch)], batch.keys)


def make_estimator(
    name: str, *, replicates: int = 0, counted: bool = False, **parameter: float | Literal["auto"]
) -> Estimator | Slope:
    """Return an estimator by its name, without rows.

    Args:
        name: ips, clipped_ips(clip=10), snips, dm, dr, sndr, switch_dr(tau=10) or
            dros(lambda_=100).
        replicates: how many for a bootstrap.
        counted: whether rows have ``counts``.
        parameter: a number from 0, or "auto" to choose it by SLOPE.

    Raises:
        ReplayError: no such estimator or parameter.
    """
    if name not in FORMULAS:
        raise ReplayError(
            f"there is no estimator {name!r}; there are {', '.join(FORMULAS)}", "estimator"
        )

    formula = FORMULAS[name]
    for key, value in parameter.items():
        if key != formula.tuned:
            raise ReplayError(
                f"{name} has no parameter {key!r}; it has {formula.tuned or 'none'}", key
            )
        if value == "auto":
            formulas = [formula(**{key: limit}) for limit in formula.grid]
            return Slope([Estimator(one, replicates, counted=counted) for one in formulas])
        if not (isinstance(value, (int, float)) and value >= 0.0):
            raise ReplayError(f"{key} is a number from 0, or 'auto', not {value!r}", key)

    return Estimator(formula(**parameter), replicates, counted=counted)
