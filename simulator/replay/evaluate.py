"""Off-policy evaluation in pieces that merge: the earnings of other policies on a log.

A piece of the log is tallied wherever there is room for it; tallies merge in the order of the log.
Nothing depends on how the log was cut but the last digits of sums.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np

from bandits.errors import ReplayError
from bandits.statistics.intervals import INTERVALS, REPLICATES, Interval
from bandits.statistics.moments import add_rows
from policies.artifacts.trained_on import RowOverlap
from simulator.logs.actions.from_rows import with_actions
from simulator.logs.left_out import LeftOut, left_out_of
from simulator.logs.rows import (
    NO_WAITING,
    LogBatch,
    Piece,
    Waiting,
    caution_of,
    column_notes_of,
    no_rows_error,
    waiting_of,
)
from simulator.logs.scored_rows import ScoredRows, check_scored
from simulator.logs.text_records import WEIGHT, counts_of
from simulator.ope.charts import ChartSums
from simulator.ope.comparisons import Difference
from simulator.ope.estimators import Estimator, Slope, make_estimator
from simulator.ope.formulas import FORMULAS
from simulator.ope.hashed_features import hash_rows
from simulator.ope.reward_model import DEFAULT_KINDS, FittedRewardModel, RewardModel
from simulator.ope.target_batch import predict_actions, target_batch
from simulator.ope.targets import LoggingTarget, SourceTarget, Target, check_columns
from simulator.replay.laxer import laxer_filters
from simulator.replay.leakage import Doubt, count_seen, doubts_of, provenance_of
from simulator.replay.over_time import check_widths
from simulator.replay.report import (
    EvaluationReport,
    LogSummary,
    PolicyResult,
    compare_policies,
    winner_of,
    with_caution,
    with_doubts,
)
from simulator.replay.windows import EstimatesOverTime

BITS_RANGE = (4, 11)
"""Bits of the reward model, at least and at most: it holds folds x 4^bits numbers."""
WITH_MODEL = frozenset(name for name, kind in FORMULAS.items() if kind.modelled)
"""The estimators that need a reward model."""
Result = TypeVar("Result")
Mapper = Callable[[Callable[[Any], Result], Sequence[Any]], Iterable[Result]]
"""Applies a function to every piece, here or elsewhere, and yields results in the pieces' order."""


@dataclass(frozen=True, slots=True)
class OpeQuestion:
    """The question asked of a log.

    Attributes:
        targets: the policies to evaluate.
        estimators: names; with none, all that log and policies allow.
        parameters: by estimator, e.g. ``{"clipped_ips": {"clip": "auto"}}``.
        interval: normal, bootstrap, bernstein or anytime.
        alpha: intervals cover with probability 1 - alpha.
        bits: of the reward model, which has 2^bits coefficients.
        folds: of its cross-fitting.
        models: kinds of reward models; of several, the one that predicts unseen rewards best.
        every_s: widths of windows of time that each policy is evaluated in, too, in seconds.
    """

    targets: Sequence[Target]
    estimators: Sequence[str] = ()
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    interval: str = "normal"
    alpha: float = 0.05
    bits: int = 8
    folds: int = 5
    models: Sequence[str] = DEFAULT_KINDS
    every_s: Sequence[int] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be answered, before anything is read."""
        names = [target.name for target in self.targets]
        if not names or len(set(names)) != len(names):
            raise ReplayError("name at least one policy, and each once", "policy")

        check_widths(self.every_s)

        # Making them refuses names and parameters that there are not.
        self.reward_model()
        for name in self.estimators or FORMULAS:
            make_estimator(name, **self.parameters.get(name, {}))
        for name, parameters in self.parameters.items():
            if name not in (self.estimators or FORMULAS):
                raise ReplayError(
                    f"{' and '.join(parameters)} is of {name}, which is not asked for", "estimator"
                )

        if not (BITS_RANGE[0] <= self.bits <= BITS_RANGE[1] and self.folds >= 2):
            low, high = BITS_RANGE
            raise ReplayError(
                f"a reward model has {low} to {high} bits and 2 folds or more", "bits"
            )
        if self.interval not in INTERVALS:
            raise ReplayError(
                f"an interval is one of {', '.join(INTERVALS)}, not {self.interval!r}", "interval"
            )
        if not 0.0 < self.alpha < 1.0:
            raise ReplayError(f"alpha is between 0 and 1, not {self.alpha}", "alpha")

    @property
    def replicates(self) -> int:
        """Return how many replicates a bootstrap has, if there is to be one."""
        return REPLICATES if self.interval == "bootstrap" else 0

    def reward_model(self) -> RewardModel:
        """Return a reward model of no rows.

        Raises:
            ReplayError: there is no model of such a name.
        """
        return RewardModel(bits=self.bits, folds=self.folds, kinds=self.models)

    def bounds(self) -> Interval:
        """Return the kind of interval."""
        return INTERVALS[self.interval](alpha=self.alpha)


@dataclass(slots=True, eq=False)
class OpeTally:
    """The sums of some rows: a monoid.

    ``overlap`` counts, by policy, how many of the rows it has learned from. ``estimates`` are by
    policy and estimator, ``differences`` by two policies and estimator.
    """

    chart_sums: ChartSums
    rows: int = 0
    decisions: float = 0.0
    left_out: LeftOut = field(default_factory=LeftOut)
    waiting: Waiting = NO_WAITING
    first_ms: int = 0
    last_ms: int = 0
    total_reward: float = 0.0
    min_propensity: float = 1.0
    overlap: dict[str, RowOverlap] = field(default_factory=dict)
    estimates: dict[tuple[str, str], Estimator | Slope] = field(default_factory=dict)
    differences: dict[tuple[str, str, str], Difference] = field(default_factory=dict)
    windows: EstimatesOverTime = field(default_factory=EstimatesOverTime)

    def count(self, batch: LogBatch) -> None:
        """Add a batch to the counts."""
        times = batch.times_ms[batch.times_ms > 0]
        if times.size:
            first = int(times.min())
            self.first_ms = first if self.first_ms == 0 else min(self.first_ms, first)
            self.last_ms = max(self.last_ms, int(times.max()))

        counts = counts_of(batch)
        self.rows += len(batch)
        self.decisions += float(counts.sum())
        self.total_reward += float(counts @ batch.reward)
        self.min_propensity = min(self.min_propensity, float(batch.propensity.min(initial=1.0)))

    def merge(self, other: "OpeTally") -> None:
        """Add the rows of another, which answers the same question."""
        self.chart_sums.merge(other.chart_sums)
        self.rows += other.rows
        self.decisions += other.decisions
        self.left_out.merge(other.left_out)
        self.waiting = self.waiting.plus(other.waiting)

        # A time of 0 is none.
        times = [first_ms for first_ms in (self.first_ms, other.first_ms) if first_ms]
        self.first_ms, self.last_ms = min(times, default=0), max(self.last_ms, other.last_ms)
        self.total_reward += other.total_reward
        self.min_propensity = min(self.min_propensity, other.min_propensity)

        for policy, overlap in self.overlap.items():
            overlap.merge(other.overlap[policy])
        for at, mine in self.estimates.items():
            mine.merge(other.estimates[at])  # type: ignore[arg-type] # of one question
        for pair, difference in self.differences.items():
            difference.merge(other.differences[pair])
        self.windows.merge(other.windows)


@dataclass(frozen=True, slots=True)
class OpePlan:
    """A question, made definite by a look at the log.

    ``modelled``: the policies that DM and DR can be had for. ``counted``: rows say how many
    decisions they stand for. ``caution`` and ``columns`` are what is to be said of the log, and
    ``laxer``, by policy, of a filter for which it cannot answer.
    """

    question: OpeQuestion
    modelled: frozenset[str]
    counted: bool = False
    caution: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    laxer: Mapping[str, Doubt] = field(default_factory=dict)

    def estimators(self, target: Target) -> list[str]:
        """Return the names of a policy's estimators."""
        asked = self.question.estimators or FORMULAS
        return [name for name in asked if name not in WITH_MODEL or target.name in self.modelled]

    @property
    def needs_model(self) -> bool:
        """Whether a reward model is to be fitted."""
        return any(
            WITH_MODEL.intersection(self.estimators(target)) for target in self.question.targets
        )

    def empty(self) -> OpeTally:
        """Return a tally of no rows."""
        question = self.question
        out = OpeTally(ChartSums([target.name for target in question.targets]))
        out.overlap = {
            target.name: RowOverlap() for target in question.targets if provenance_of(target)
        }

        for target in question.targets:
            for name in self.estimators(target):
                out.estimates[target.name, name] = self.estimator(name)

        # Every pair of policies is compared once.
        for number, left in enumerate(question.targets):
            for right in question.targets[number + 1 :]:
                name = self.compared(left, right)
                out.differences[left.name, right.name, name] = Difference(
                    FORMULAS[name](), question.replicates, counted=self.counted
                )
        return out

    def estimator(self, name: str) -> Estimator | Slope:
        """Return an estimator of the question, without rows."""
        question = self.question
        parameters = question.parameters.get(name, {})
        return make_estimator(
            name, replicates=question.replicates, counted=self.counted, **parameters
        )

    def compared(self, left: Target, right: Target) -> str:
        """Return the estimator that compares two policies: dr where both can have it, else snips.

        Args:
            left: a policy of the question.
            right: the one it is compared with; their order makes no difference here.
        """
        return "dr" if "dr" in self.estimators(left) and "dr" in self.estimators(right) else "snips"


def evaluate(
    question: OpeQuestion, pieces: Sequence[Piece], mapper: Mapper[Any] = map
) -> EvaluationReport:
    """Read the log, once or, for a reward model, twice, and say what each policy would have earned.

    Args:
        question: what is asked.
        pieces: the log.
        mapper: where its pieces are tallied.

    Raises:
        ReplayError: the log is empty, or does not hold what a policy or an estimator needs.
        BadRowError: a row is malformed.
    """
    # A source that scored nothing in a row has no choice there.
    sources = [target.source for target in question.targets if isinstance(target, SourceTarget)]
    if sources:
        pieces = [ScoredRows(piece, sources) for piece in pieces]

    plan = make_plan(question, pieces)
    model = fit_reward_model(question, pieces, mapper) if plan.needs_model else None
    total = plan.empty()
    for part in mapper(partial(tally_piece, plan, model), pieces):
        total.merge(part)

    report = report_of(plan, total)
    return report if model is None else msgspec.structs.replace(report, reward_model=model.summary)


def fit_reward_model(
    question: OpeQuestion, pieces: Sequence[Piece], mapper: Mapper[Any] = map
) -> FittedRewardModel:
    """Fit the reward model of DM and DR on all pieces.

    It depends on the log alone, not on the policies.

    Args:
        question: which says what model it is to be.
        pieces: the log.
        mapper: where its pieces are read.
    """
    sample = question.reward_model()
    for part in mapper(partial(fit_piece, question), pieces):
        sample.merge(part)
    return sample.fit()


def make_plan(question: OpeQuestion, pieces: Sequence[Piece]) -> OpePlan:
    """Look at the first row, and find out what the log allows.

    Args:
        question: what is asked.
        pieces: the log.

    Raises:
        ReplayError: there are no rows, an estimator was asked for by name that cannot be had, or a
            policy has learned of a column what it is not here.
    """
    batch = next((batch for piece in pieces for batch in piece.batches() if len(batch)), None)
    if batch is None:
        check_scored(pieces)
        raise no_rows_error(pieces)
    check_columns(question.targets, pieces)

    # A policy that has no PMF for the first row has none for any.
    first, modelled = with_actions(batch.take(slice(0, 1))), set()
    for target in question.targets:
        if isinstance(target, LoggingTarget):
            known = first.actions is not None and not first.actions.lacking[0]
            modelled |= {target.name} if known else set()
            continue
        try:
            target.flat_pmfs(first)
        except ReplayError:
            if WITH_MODEL.intersection(question.estimators):
                raise
        else:
            modelled.add(target.name)

    counted = WEIGHT in batch.columns
    return OpePlan(
        question,
        frozenset(modelled),
        counted,
        caution_of(pieces),
        column_notes_of(pieces),
        laxer_filters(question.targets, pieces),
    )


def fit_piece(question: OpeQuestion, piece: Piece) -> RewardModel:
    """Return what the rows of a piece add to a reward model.

    Args:
        question: which says what model it is to be.
        piece: of the log.
    """
    out = question.reward_model()
    for batch in piece.batches():
        rows = batch.take(np.flatnonzero(out.wanted(batch.keys)))
        out.update(hash_rows(rows, chosen=True), rows.reward, rows.keys, rows=len(batch))
    return out


def tally_piece(plan: OpePlan, model: FittedRewardModel | None, piece: Piece) -> OpeTally:
    """Return what the rows of a piece say.

    Args:
        plan: what is asked, and what the log allows.
        model: of DM and DR.
        piece: of the log.
    """
    out, targets = plan.empty(), plan.question.targets
    for read in piece.batches():
        batch = with_actions(read)
        out.count(batch)
        count_seen(out.overlap, targets, piece, batch)

        predictions = None if model is None else predict_actions(model, batch)
        seen = {
            target.name: target_batch(
                target,
                batch,
                predictions,
                has_pmfs=target.name in plan.modelled,
                counted=plan.counted,
            )
            for target in targets
        }
        out.chart_sums.update(batch, seen)

        # All sums of all estimators are one matrix product.
        blocks = [
            block
            for (policy, _), estimator in out.estimates.items()
            for block in estimator.gather(seen[policy])
        ]
        for (left, right, _), difference in out.differences.items():
            blocks += difference.gather(seen[left], seen[right])
        add_rows(blocks, batch.keys)
        if every_s := plan.question.every_s:
            out.windows.add(batch, seen, out.estimates, min(every_s), plan.estimator)

    # What a piece leaves out is known once it has been read.
    out.left_out, out.waiting = left_out_of([piece]), waiting_of([piece])
    return out


def report_of(plan: OpePlan, total: OpeTally) -> EvaluationReport:
    """Return the answer.

    Args:
        plan: what was asked.
        total: what all rows say.
    """
    question, bounds = plan.question, plan.question.bounds()
    doubts = {**plan.laxer, **doubts_of(question.targets, total.overlap, total.rows)}

    results = []
    for target in question.targets:
        estimates = {}
        for name in plan.estimators(target):
            estimate = total.estimates[target.name, name].estimate(bounds)
            cautioned = with_caution(estimate, plan.caution)
            estimates[name] = with_doubts(cautioned, doubts.get(target.name))
        in_time = [
            each
            for name in plan.estimators(target)
            for each in total.windows.found(
                target.name, name, question.every_s, bounds, plan.estimator
            )
        ]
        notes = list(target.notes)
        results.append(PolicyResult(target.name, "ope", estimates, notes=notes, over_time=in_time))

    compared = compare_policies(
        total.differences, bounds, question.alpha, caution=plan.caution, doubts=doubts
    )
    summary = LogSummary(
        rows=total.rows,
        skipped=total.left_out.skipped,
        first_ms=total.first_ms,
        last_ms=total.last_ms,
        mean_reward=total.total_reward / max(total.decisions, 1.0),
        min_propensity=total.min_propensity,
        decisions=total.decisions,
        waiting=total.waiting.decisions,
        waiting_until_ms=total.waiting.last_ms,
        columns=dict(plan.columns),
        left_out=dict(total.left_out.counts),
        first_bad=total.left_out.first_bad,
    )
    winner = winner_of(results, compared, doubts)
    return EvaluationReport(summary, results, compared, winner, total.chart_sums.charts())
