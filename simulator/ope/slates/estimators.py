"""Estimators of pages at work: a value for the page, and one for each of its slots."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from bandits.errors import ReplayError
from bandits.statistics.intervals import Interval, Normal, Sample
from bandits.statistics.moments import Moments, add_rows, checked
from bandits.statistics.skewness import Skews
from bandits.types import Float64
from simulator.ope.batch import OpeBatch
from simulator.ope.comparisons import VERDICTS, Comparison, Difference
from simulator.ope.diagnostics import Diagnostics
from simulator.ope.estimators import Estimate
from simulator.ope.formulas import RewardRange
from simulator.ope.slates.batch import SlateBatch
from simulator.ope.slates.formulas import SLATE_FORMULAS, SlateFormula, Weights, pages_in
from simulator.ope.verdict import Verdict, judge

NO_BETS = 0.0
"""What the bets on the mean weight have won where weights may be below 0: such bets are none."""


class SlateEstimator:
    """One formula over one log of pages and one target policy: a monoid, see Estimator.

    The verdict is that of the slot that is worst off.
    """

    def __init__(self, name: str, *, horizon: int, replicates: int = 0) -> None:
        if name not in SLATE_FORMULAS:
            raise ReplayError(
                f"there is no estimator {name!r} of pages; there are {', '.join(SLATE_FORMULAS)}",
                "estimator",
            )
        if horizon < 1:
            raise ReplayError(f"a page has 1 slot or more, not {horizon}", "horizon")
        self.formula = SLATE_FORMULAS[name](horizon)
        self._moments = Moments.empty(self.formula.k, replicates)
        # Of the page, then of each slot. A ratio of means is not skewed as its rows are.
        self._skews = None if self.formula.normalised else Skews.empty(1 + self.formula.k)
        self._slots = SlotsSeen(self.formula)

    def update(self, batch: SlateBatch) -> None:
        """Add pages.

        Raises:
            ReplayError: they lack the weights, or a weight is not finite.
        """
        columns = checked(self.formula.columns(batch.weight, batch))
        self._slots.update(batch)
        add_rows([(self._moments, columns)], batch.keys)
        if self._skews is not None:
            self._skews.update(np.concatenate([columns.sum(axis=0, keepdims=True), columns]))

    def merge(self, other: "SlateEstimator") -> None:
        """Add the pages of another, of the same formula and horizon."""
        if other.formula != self.formula:
            raise ReplayError(f"cannot merge {other.formula} into {self.formula}", "estimator")
        self._moments.merge(other._moments)  # noqa: SLF001
        self._slots.merge(other._slots)  # noqa: SLF001
        if self._skews is not None and other._skews is not None:  # noqa: SLF001
            self._skews.merge(other._skews)  # noqa: SLF001

    def estimate(self, interval: Interval = Normal()) -> Estimate:  # noqa: B008 - frozen
        """Return the estimate of a page's value from the pages so far."""
        slots = self._slots.seen
        sample = self._sample(None)
        low, high, note = interval.bounds(sample)

        # Which slots earn what they are said to earn: a page is as good as the worst of them.
        verdict, reason = self._slots.judge()
        return Estimate(
            value=sample.point,
            stderr=sample.stderr,
            interval=(low, high),
            n=self._moments.n,
            ess=min((rows.ess for rows in slots), default=0.0),
            max_weight=max((rows.used_largest for rows in slots), default=0.0),
            clipped_fraction=0.0,
            verdict=verdict,
            reason=f"{reason}; {note}" if note else reason,
        )

    def estimates_by_slot(self, interval: Interval = Normal()) -> list[Estimate]:  # noqa: B008
        """Return the estimate of each slot that some page has; none where a page has one weight."""
        out = []
        for slot, rows in enumerate(self._slots.seen if self.formula.by_slot else ()):
            sample = self._sample(slot)
            low, high, note = interval.bounds(sample)
            verdict, reason = judge(rows, sample.stderr)
            out.append(
                Estimate(
                    value=sample.point,
                    stderr=sample.stderr,
                    interval=(low, high),
                    n=int(self._slots.pages[slot]),
                    ess=rows.ess,
                    max_weight=rows.used_largest,
                    clipped_fraction=0.0,
                    verdict=verdict,
                    reason=f"{reason}; {note}" if note else reason,
                )
            )
        return out

    def ratios_to_first(self, interval: Interval) -> list[tuple[float, float, float]]:
        """Return what each slot earns over what the first earns, with both ends of its interval.

        Args:
            interval: its kind.
        """
        formula = self.formula
        out = []
        for slot in range(len(self._slots.seen) if formula.by_slot else 0):

            def value(means: Float64, slot: int = slot) -> Float64:
                values = formula.slot_values(means)
                with np.errstate(divide="ignore", invalid="ignore"):
                    ratio: Float64 = values[..., slot] / values[..., 0]
                return ratio

            def gradient(means: Float64, slot: int = slot) -> Float64:
                values, gradients = formula.slot_values(means), formula.slot_gradients(means)
                with np.errstate(divide="ignore", invalid="ignore"):
                    ratio: Float64 = (
                        gradients[slot] - values[slot] / values[0] * gradients[0]
                    ) / values[0]
                return ratio

            sample = Sample(
                self._moments,
                value,
                gradient,
                formula.span,
                0.0,
                (0.0, 0.0),
                effective=effective_rows([self._slots.rows[0], self._slots.rows[slot]]),
            )
            low, high, _ = interval.bounds(sample)
            out.append((sample.point, low, high))
        return out

    def _sample(self, slot: int | None) -> Sample:
        """Return what an interval of a slot's value is computed from; None: of the page's."""
        slots, of = (slice(None), 0) if slot is None else (slice(slot, slot + 1), 1 + slot)
        skewness = 0.0 if self._skews is None else float(self._skews.skewness[of])
        formula, slots_seen = self.formula, self._slots.rows
        rewards = (
            min(rows.reward_low for rows in slots_seen),
            max(rows.reward_high for rows in slots_seen),
        )
        largest = max(rows.largest for rows in slots_seen)

        def value(means: Float64) -> Float64:
            total: Float64 = formula.slot_values(means)[..., slots].sum(axis=-1)
            return total

        def gradient(means: Float64) -> Float64:
            total: Float64 = formula.slot_gradients(means)[slots].sum(axis=0)
            return total

        return Sample(
            self._moments,
            value,
            gradient,
            formula.span,
            largest,
            rewards,
            skewness,
            effective_rows(self._slots.seen[slots]),
            self._slots.draws,
        )


class SlateDifference(Difference):
    """One formula for two target policies over one log of pages; see Difference."""

    def __init__(self, name: str, *, horizon: int, replicates: int = 0) -> None:
        formula = SLATE_FORMULAS[name](horizon)
        super().__init__(formula, replicates)
        self._pages = formula
        self._both = SlotsSeen(formula), SlotsSeen(formula)

    def gather(self, left: OpeBatch, right: OpeBatch) -> list[tuple[Moments, Float64]]:
        """Count pages, and return which columns are to be added to which moments; see Difference.

        Args:
            left: pages beside what the left policy would have done.
            right: the same pages beside what the right policy would have done.
        """
        sides = [pages_in(batch, self._pages.horizon) for batch in (left, right)]
        for slots, batch in zip(self._both, sides, strict=True):
            slots.update(batch)
        columns = [checked(self._pages.columns(batch.weight, batch)) for batch in sides]
        return [(self._moments, np.concatenate(columns))]

    def merge(self, other: "Difference") -> None:
        """Add the pages of another, of the same formula."""
        super().merge(other)
        assert isinstance(other, SlateDifference)  # noqa: S101 - of the same formula
        for mine, theirs in zip(self._both, other._both, strict=True):  # noqa: SLF001
            mine.merge(theirs)

    def compare(self, interval: Interval = Normal()) -> Comparison:  # noqa: B008 - frozen
        """Compare on the pages so far; the verdict is that of the worse side's worst slot."""
        judged = [slots.judge() for slots in self._both]
        verdict, reason = max(judged, key=lambda each: VERDICTS.index(each[0]))
        return msgspec.structs.replace(super().compare(interval), verdict=verdict, reason=reason)

    def _rewards(self) -> RewardRange:
        return 0.0, 0.0

    def _effective(self) -> float:
        return min(effective_rows(slots.seen) for slots in self._both)

    def _draws(self) -> float:
        return min(slots.draws for slots in self._both)


class SlotsSeen:
    """What tells of the weights of each slot of pages, or of whole pages: a monoid.

    A page that has ended counts in the slots below, with the weight that it has there and without a
    reward: values are of pages. ``pages``: int64[S], how many have each slot. ``draws``: how many
    draws the weights of pages were found by.
    """

    def __init__(self, formula: SlateFormula) -> None:
        count = formula.horizon if formula.by_slot else 1
        self.rows = [Diagnostics() for _ in range(count)]
        self.pages = np.zeros(count, np.int64)
        self.draws = math.inf
        self._formula = formula

    @property
    def seen(self) -> list[Diagnostics]:
        """Return those of the slots that some page has."""
        return self.rows[: np.count_nonzero(self.pages)]

    def update(self, batch: SlateBatch) -> None:
        """Add pages."""
        formula, used = self._formula, self._formula.used(batch)
        ones = np.ones(len(batch))
        if formula.weights == "pseudo_inverse":
            self.draws = min(self.draws, batch.page_draws)

        for slot, diagnostics in enumerate(self.rows):
            self.pages[slot] += int((batch.lengths > slot).sum())
            weights = np.ascontiguousarray(used[:, slot])
            rewards = batch.rewards[:, slot] if formula.by_slot else batch.reward
            missing, second = _told(batch, formula.weights, slot)

            rows = OpeBatch(
                batch.keys,
                np.ascontiguousarray(rewards),
                ones,
                weights,
                unsupported=missing,
                second_moment=second,
            )
            added = Diagnostics.of(rows, weights, 0.0)
            if formula.weights == "pseudo_inverse":
                added.money = np.full_like(added.money, NO_BETS)
            diagnostics.merge(added)

    def merge(self, other: "SlotsSeen") -> None:
        """Add the pages of another, of the same formula."""
        self.pages += other.pages
        self.draws = min(self.draws, other.draws)
        for mine, theirs in zip(self.rows, other.rows, strict=True):
            mine.merge(theirs)

    def judge(self) -> tuple[Verdict, str]:
        """Return the verdict of the worst slot, and its first cause with what to do about it."""
        judged = [judge(rows, 0.0) for rows in self.seen or [Diagnostics()]]
        worst = max(range(len(judged)), key=lambda slot: VERDICTS.index(judged[slot][0]))
        verdict, reason = judged[worst]
        if verdict == "reliable" or not self._formula.by_slot:
            return verdict, reason

        # Deeper slots are worse off; how many are well, the reason says.
        well = next(slot for slot, each in enumerate(judged) if each[0] != "reliable")
        advice = f" (the first {well} are reliable: --horizon {well})" if well else ""
        return verdict, f"slot {worst}{advice}: {reason}"


def effective_rows(rows: Sequence[Diagnostics]) -> float:
    """Return how many pages count in the weights of some slots, where fewest do.

    As far as was seen, or as PMFs promise, if that is less: by luck the largest weights have not
    come yet.
    """
    return min((min(each.ess, each.expected_ess) for each in rows), default=math.inf)


def _told(batch: SlateBatch, weights: Weights, slot: int) -> tuple[Float64 | None, Float64 | None]:
    """Return what PMFs tell of the weights of a slot, float64[n] each.

    The target's mass that the log lacks, and the mean of the weight's square under the logging
    policy; None where they are not known.

    Of a product of weights the mean of the square is that of what each slot is known to multiply
    it by, below what stood above it. The products themselves say less: most of their mean square is
    of pages so rare that none has come. Differs from that mean as far as the pages to which most of
    it belongs have other actions left than those of the log.
    """
    missing = second = None
    match weights:
        case "cascade" | "page":
            # A page's weight is that of its last slot.
            below = batch.horizon - 1 if weights == "page" else slot
            last = np.minimum(batch.lengths - 1, below)
            rows = np.arange(len(batch))
            missing = (batch.before * batch.missing).cumsum(axis=1)[rows, last]
            if batch.second is not None:
                with np.errstate(over="ignore", invalid="ignore"):
                    products = batch.second.cumprod(axis=1)[rows, last]
                second = np.nan_to_num(products, nan=np.inf, posinf=np.inf)
        case "slot":
            missing = None if batch.slot_missing is None else batch.slot_missing[:, slot].copy()
            second = None if batch.slot_second is None else batch.slot_second[:, slot].copy()
        case "pseudo_inverse":
            missing, second = np.zeros(len(batch)), batch.page_second
    return missing, second
