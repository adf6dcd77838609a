"""Evaluation of pages: the earnings of all slots of a decision together under another policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

from bandits.errors import ReplayError
from bandits.log.join_rule import PageReward
from bandits.statistics.intervals import INTERVALS, REPLICATES, Bootstrap, Interval, Normal
from policies.artifacts.trained_on import RowOverlap
from simulator.logs.left_out import LeftOut, left_out_of
from simulator.logs.rows import NO_WAITING, Piece, Waiting, caution_of, no_rows_error, waiting_of
from simulator.ope.slates.batch import rewards_of_pages
from simulator.ope.slates.estimators import SlateDifference, SlateEstimator
from simulator.ope.slates.formulas import SLATE_FORMULAS, Weights
from simulator.ope.slates.pages import Pages, pages_of
from simulator.ope.slates.target_batch import OFF_THE_PATH, has_all_pmfs, target_slate_batch
from simulator.ope.targets import LoggingTarget, RowTarget, Target, UniformTarget, check_columns
from simulator.replay.evaluate import Mapper
from simulator.replay.leakage import count_seen, doubts_of, provenance_of
from simulator.replay.report import (
    EvaluationReport,
    LogSummary,
    PolicyResult,
    SlotExamination,
    compare_policies,
    winner_of,
    with_caution,
    with_doubts,
)

INTERVAL_KINDS = ("normal", "bootstrap", "anytime")
"""Kinds of intervals: the range of a product of weights says nothing, which the other needs."""
BY_NAME = ("pi", "snpi")
"""Estimators that are made when somebody names them: each page takes long."""
OF_PAGES = tuple(name for name, formula in SLATE_FORMULAS.items() if not formula(1).by_slot)
"""Estimators of one weight a page."""
SHOWN = ("sniips", "snrips")
"""What compares policies, and says what each slot earns: the first of these that can be had."""


@dataclass(frozen=True, slots=True)
class SlateQuestion:
    """The question asked of a log's pages.

    Attributes:
        targets: the policies to evaluate.
        estimators: names; with none, all that log and policies allow, but those of BY_NAME.
        horizon: slots of a page that count, the first ones.
        interval: normal, bootstrap or anytime.
        alpha: intervals cover with probability 1 - alpha.
        page_reward: what a page earns: ``sum``, or ``largest`` of its slots' rewards, for which
            there are estimators of one weight a page alone.
    """

    targets: Sequence[Target]
    estimators: Sequence[str] = ()
    horizon: int = 10
    interval: str = "normal"
    alpha: float = 0.05
    page_reward: PageReward = "sum"

    def __post_init__(self) -> None:
        """Refuse what cannot be answered, before anything is read."""
        names = [target.name for target in self.targets]
        if not names or len(set(names)) != len(names):
            raise ReplayError("name at least one policy, and each once", "policy")
        if not all(isinstance(target, RowTarget) for target in self.targets):
            raise ReplayError(
                "a column holds one probability per row; pages need policies with PMFs", "policy"
            )

        # Making them refuses names and horizons that there are not.
        if self.page_reward not in get_args(PageReward):
            raise ReplayError(
                f"a page's reward is {' or '.join(get_args(PageReward))}, not {self.page_reward!r}",
                "page_reward",
            )
        for name in self.names:
            made = SlateEstimator(name, horizon=self.horizon)
            if made.formula.by_slot and self.page_reward != "sum":
                raise ReplayError(
                    f"{name} adds up what slots earn: a page's largest reward needs"
                    f" {' or '.join(OF_PAGES)}",
                    "estimator",
                )
        if self.interval not in INTERVAL_KINDS:
            raise ReplayError(
                f"pages have intervals {', '.join(INTERVAL_KINDS)}, not {self.interval!r}",
                "interval",
            )
        if not 0.0 < self.alpha < 1.0:
            raise ReplayError(f"alpha is between 0 and 1, not {self.alpha}", "alpha")

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the estimators."""
        known = SLATE_FORMULAS if self.page_reward == "sum" else OF_PAGES
        return tuple(self.estimators) or tuple(name for name in known if name not in BY_NAME)

    @property
    def row_targets(self) -> list[RowTarget]:
        """Return the policies, all of which have PMFs of rows."""
        return [target for target in self.targets if isinstance(target, RowTarget)]

    @property
    def replicates(self) -> int:
        """Return how many replicates a bootstrap has, if there is to be one."""
        return REPLICATES if self.interval == "bootstrap" else 0

    def bounds(self) -> Interval:
        """Return the kind of interval."""
        return INTERVALS[self.interval](alpha=self.alpha)


@dataclass(frozen=True, slots=True, eq=False)
class SlatePlan:
    """A question, made definite by a look at the log.

    ``estimators`` are those that each policy can have. ``has_pmfs``: the log has the PMF of every
    slot.
    """

    question: SlateQuestion
    estimators: Mapping[str, Sequence[str]]
    has_pmfs: bool

    def needed(self, target: Target) -> set[Weights]:
        """Return the kinds of weights that a policy's estimators ask for."""
        return {SLATE_FORMULAS[name].weights for name in self.estimators[target.name]}

    def shown(self, *targets: Target) -> str | None:
        """Return which estimator speaks for some policies together, if any does."""
        asked = (name for name in (*SHOWN, "snsips", *SLATE_FORMULAS))
        return next(
            (
                name
                for name in asked
                if all(name in self.estimators[target.name] for target in targets)
            ),
            None,
        )


@dataclass(slots=True, eq=False)
class SlateTally:
    """The sums of some pages: a monoid.

    ``estimates`` are by policy and estimator, ``differences`` by two policies and estimator.
    ``drawn`` is of pages whose slots are filled uniformly, where the log can tell.
    """

    plan: SlatePlan
    rows: int = 0
    pages: int = 0
    cut: int = 0
    total_reward: float = 0.0
    min_propensity: float = 1.0
    first_ms: int = 0
    last_ms: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    waiting: Waiting = NO_WAITING
    overlap: dict[str, RowOverlap] = field(default_factory=dict)
    estimates: dict[tuple[str, str], SlateEstimator] = field(default_factory=dict)
    differences: dict[tuple[str, str, str], SlateDifference] = field(default_factory=dict)
    drawn: SlateEstimator | None = None

    def __post_init__(self) -> None:
        """Make what tallies, of no pages."""
        asked = self.plan.question
        if self.plan.has_pmfs:
            self.drawn = SlateEstimator("sniips", horizon=asked.horizon)
        for number, target in enumerate(asked.targets):
            if provenance_of(target):
                self.overlap[target.name] = RowOverlap()
            for name in self.plan.estimators[target.name]:
                self.estimates[target.name, name] = SlateEstimator(
                    name, horizon=asked.horizon, replicates=asked.replicates
                )

            # Every pair of policies is compared once.
            for other in asked.targets[number + 1 :]:
                shown = self.plan.shown(target, other)
                if shown is not None:
                    self.differences[target.name, other.name, shown] = SlateDifference(
                        shown, horizon=asked.horizon, replicates=asked.replicates
                    )

    def count(self, pages: Pages) -> None:
        """Add pages to the counts."""
        batch = pages.batch
        self.rows += len(batch)
        self.pages += len(pages)
        self.cut += pages.cut
        rewards = pages.laid_out(batch.reward)
        kind = self.plan.question.page_reward
        self.total_reward += float(rewards_of_pages(rewards, pages.there, kind).sum())
        self.min_propensity = min(self.min_propensity, float(batch.propensity.min(initial=1.0)))

        # A time of 0 is none.
        times = batch.times_ms[batch.times_ms > 0]
        if times.size:
            first = int(times.min())
            self.first_ms = first if self.first_ms == 0 else min(self.first_ms, first)
            self.last_ms = max(self.last_ms, int(times.max()))

    def merge(self, other: "SlateTally") -> None:
        """Add the pages of another, which answers the same question."""
        self.rows += other.rows
        self.pages += other.pages
        self.cut += other.cut
        self.total_reward += other.total_reward
        self.min_propensity = min(self.min_propensity, other.min_propensity)
        times = [first_ms for first_ms in (self.first_ms, other.first_ms) if first_ms]
        self.first_ms, self.last_ms = min(times, default=0), max(self.last_ms, other.last_ms)

        self.left_out.merge(other.left_out)
        self.waiting = self.waiting.plus(other.waiting)
        for policy, overlap in self.overlap.items():
            overlap.merge(other.overlap[policy])
        if self.drawn is not None and other.drawn is not None:
            self.drawn.merge(other.drawn)
        for at, mine in self.estimates.items():
            mine.merge(other.estimates[at])
        for pair, difference in self.differences.items():
            difference.merge(other.differences[pair])


def evaluate_slates(
    question: SlateQuestion, pieces: Sequence[Piece], mapper: Mapper[Any] = map
) -> EvaluationReport:
    """Read the log and say what each policy's pages would have earned.

    Args:
        question: what is asked.
        pieces: the log; no page is in two of them.
        mapper: where they are tallied.

    Raises:
        ReplayError: the log is empty, or does not hold what a policy or an estimator needs.
        BadRowError: a row is malformed.
    """
    plan = make_slate_plan(question, pieces)
    total = SlateTally(plan)
    for part in mapper(partial(tally_slates, plan), pieces):
        total.merge(part)
    return _report_of(plan, total, caution_of(pieces))


def make_slate_plan(question: SlateQuestion, pieces: Sequence[Piece]) -> SlatePlan:
    """Look at the first pages, and find out what the log and the policies allow.

    Args:
        question: what is asked.
        pieces: the log.

    Raises:
        ReplayError: there are no pages, or an estimator was asked for by name that cannot be had.
    """
    left_out = LeftOut()
    look = (pages for piece in pieces for pages in pages_of(piece, question.horizon, left_out))
    first = next(look, None)
    if first is None and left_out:
        raise ReplayError(f"the log has no pages to evaluate: {left_out}", "log")
    if first is None:
        raise no_rows_error(pieces, "pages to evaluate")
    check_columns(question.targets, pieces)

    # The longest of the first pages: there, a policy has to say most.
    at = int(first.lengths.argmax())
    page = first.take(slice(at, at + 1))
    actions = page.batch.actions
    without: dict[Weights, ReplayError] = {}
    if actions is None or not has_all_pmfs(actions):
        error = ReplayError(
            "this log has propensities of what was shown alone, not of what else could have stood"
            " there: iips and pi need the PMFs of every slot; use rips",
            "estimator",
        )
        without = dict.fromkeys(OFF_THE_PATH, error)

    allowed: dict[str, Sequence[str]] = {}
    for target in question.row_targets:
        lacking = {} if isinstance(target, LoggingTarget) else dict(without)
        asked = {SLATE_FORMULAS[name].weights for name in question.names}
        for kind in (OFF_THE_PATH & asked) - lacking.keys():
            try:
                target_slate_batch(target, page, {kind})
            except ReplayError as error:
                lacking[kind] = error
        allowed[target.name] = [
            name for name in question.names if SLATE_FORMULAS[name].weights not in lacking
        ]
        for name in question.estimators:
            if SLATE_FORMULAS[name].weights in lacking:
                raise lacking[SLATE_FORMULAS[name].weights]
    return SlatePlan(question, allowed, actions is not None and has_all_pmfs(actions))


def tally_slates(plan: SlatePlan, piece: Piece) -> SlateTally:
    """Return what the pages of a piece say.

    Args:
        plan: what is asked, and what the log allows.
        piece: of the log.
    """
    question, out = plan.question, SlateTally(plan)
    broken = LeftOut()
    for pages in pages_of(piece, question.horizon, broken):
        out.count(pages)
        count_seen(out.overlap, question.targets, piece, pages.batch)
        seen = {
            target.name: target_slate_batch(
                target, pages, plan.needed(target), question.page_reward
            )
            for target in question.row_targets
        }
        for (policy, _), estimator in out.estimates.items():
            estimator.update(seen[policy])
        if out.drawn is not None:
            out.drawn.update(target_slate_batch(UniformTarget(), pages, {"slot"}))
        for (left, right, _), difference in out.differences.items():
            difference.update(seen[left], seen[right])

    # What a piece leaves out is known once it has been read.
    out.left_out, out.waiting = left_out_of([piece]), waiting_of([piece])
    out.left_out.merge(broken)
    return out


def _report_of(plan: SlatePlan, total: SlateTally, caution: str) -> EvaluationReport:
    """Return the answer."""
    question, bounds = plan.question, plan.question.bounds()
    doubts = doubts_of(question.targets, total.overlap, total.rows)
    results = []
    for target in question.targets:
        estimates, slots = {}, {}
        for name in plan.estimators[target.name]:
            estimate = total.estimates[target.name, name].estimate(bounds)
            cautioned = with_caution(estimate, caution)
            estimates[name] = with_doubts(cautioned, doubts.get(target.name))
        shown = plan.shown(target)
        if shown in SHOWN:
            slots = {shown: total.estimates[target.name, shown].estimates_by_slot(bounds)}
        notes = [*target.notes, *_notes(question, total)]
        results.append(PolicyResult(target.name, "slates", estimates, notes=notes, slots=slots))

    differences: Mapping[tuple[str, str, str], Any] = total.differences
    compared = compare_policies(differences, bounds, question.alpha, caution=caution, doubts=doubts)
    summary = LogSummary(
        rows=total.rows,
        skipped=total.left_out.skipped,
        first_ms=total.first_ms,
        last_ms=total.last_ms,
        mean_reward=total.total_reward / max(total.pages, 1),
        min_propensity=total.min_propensity,
        decisions=total.pages,
        waiting=total.waiting.decisions,
        waiting_until_ms=total.waiting.last_ms,
        left_out=dict(total.left_out.counts),
        first_bad=total.left_out.first_bad,
    )
    winner = winner_of(results, compared, doubts)
    looked = [] if total.drawn is None else _examination(total.drawn, bounds, caution)
    return EvaluationReport(summary, results, compared, winner, examination=looked)


def _examination(drawn: SlateEstimator, bounds: Interval, caution: str) -> list[SlotExamination]:
    """Return how much of what an action earns it earns in each slot."""
    # Of replicates there are none: an interval of a ratio is a normal one.
    kind = Normal(bounds.alpha) if isinstance(bounds, Bootstrap) else bounds
    out = []
    estimates, ratios = drawn.estimates_by_slot(kind), drawn.ratios_to_first(kind)
    for estimate, (value, low, high) in zip(estimates, ratios, strict=True):
        judged = with_caution(estimate, caution)
        out.append(SlotExamination(value, (low, high), judged.verdict, judged.reason))
    return out


def _notes(question: SlateQuestion, total: SlateTally) -> list[str]:
    """Return what a reader should know of the pages."""
    mean = total.rows / max(total.pages, 1)
    note = f"{total.pages:,} pages of {mean:.1f} slots on average; values are of a page"
    if question.page_reward != "sum":
        note += ", which earns what the best of its slots does"
    if total.cut:
        note += (
            f"; {total.cut / total.pages:.1%} of them are longer than {question.horizon} slots:"
            " what they earn below is left out (--horizon)"
        )
    return [note]
