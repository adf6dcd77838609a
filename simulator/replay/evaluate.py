"""What other policies would have earned on a log: off-policy evaluation, in pieces whose results merge.

A piece of the log is tallied wherever there is room for it; tallies merge in the order of the log.
Nothing depends on how the log was cut but the last digits of sums.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np

from bandits.errors import ReplayError
from bandits.statistics.intervals import INTERVALS, REPLICATES, Interval
from bandits.statistics.moments import add_rows
from bandits.types import Float64
from policies.artifacts.trained_on import RowOverlap
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
from simulator.ope.batch import OpeBatch, ope_batch_from_pmfs
from simulator.ope.charts import ChartSums
from simulator.ope.comparisons import Difference, compare_all
from simulator.ope.estimators import Estimator, Slope, make_estimator
from simulator.ope.formulas import FORMULAS
from simulator.ope.hashed_features import hash_decisions, hash_in_parts
from simulator.ope.reward_model import DEFAULT_KINDS, FittedRewardModel, RewardModel
from simulator.ope.targets import LoggingTarget, SourceTarget, Target, check_columns, demand_rows
from simulator.replay.leakage import count_seen, doubts_of, provenance_of
from simulator.replay.report import (
    EvaluationReport,
    LogSummary,
    PolicyComparison,
    PolicyResult,
    winner_of,
    with_caution,
    with_doubts,
)

BITS_RANGE = (4, 11)
"""Of the reward model: it holds folds x 4^bits numbers."""
WITH_MODEL = frozenset(name for name, kind in FORMULAS.items() if kind.modelled)
Result = TypeVar("Result")
Mapper = Callable[[Callable[[Piece], Result], Sequence[Piece]], Iterable[Result]]
"""Applies a function to every piece, here or elsewhere, and yields the results in the order of the pieces."""


@dataclass(frozen=True, slots=True)
class OpeQuestion:
    """What is asked of a log. ``estimators``: names; of none, all that log and policies allow.

    ``parameters``: by estimator, e.g. ``{"clipped_ips": {"clip": "auto"}}``. ``interval``: normal,
    bootstrap, bernstein or anytime, at level 1 - ``alpha``. ``bits``, ``folds``, ``models``: of the
    reward model; of several models the one that predicts unseen rewards best.
    """

    targets: Sequence[Target]
    estimators: Sequence[str] = ()
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    interval: str = "normal"
    alpha: float = 0.05
    bits: int = 8
    folds: int = 5
    models: Sequence[str] = DEFAULT_KINDS

    def __post_init__(self) -> None:
        """Refuse what cannot be answered, before anything is read."""
        names = [target.name for target in self.targets]
        if not names or len(set(names)) != len(names):
            raise ReplayError("name at least one policy, and each once", "policy")
        self.reward_model()
        for name in self.estimators or FORMULAS:
            make_estimator(name, **self.parameters.get(name, {}))
        for name, given in self.parameters.items():
            if name not in (self.estimators or FORMULAS):
                raise ReplayError(
                    f"{' and '.join(given)} is of {name}, which is not asked for", "estimator"
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
        """Of the bootstrap, if there is to be one."""
        return REPLICATES if self.interval == "bootstrap" else 0

    def reward_model(self) -> RewardModel:
        """Of no rows.

        Raises:
            ReplayError: there is no model of such a name.
        """
        return RewardModel(bits=self.bits, folds=self.folds, kinds=self.models)

    def bounds(self) -> Interval:
        """The kind of interval."""
        return INTERVALS[self.interval](alpha=self.alpha)


@dataclass(slots=True, eq=False)
class OpeTally:
    """What some rows say.

    ``estimates``: by policy and estimator; ``differences``: by two policies and estimator.

    ``seen``: how many of the rows a policy has learned from, by policy.
    """

    overview: ChartSums
    rows: int = 0
    decisions: float = 0.0
    left_out: LeftOut = field(default_factory=LeftOut)
    waiting: Waiting = NO_WAITING
    first_ms: int = 0
    last_ms: int = 0
    total_reward: float = 0.0
    min_propensity: float = 1.0
    seen: dict[str, RowOverlap] = field(default_factory=dict)
    estimates: dict[tuple[str, str], Estimator | Slope] = field(default_factory=dict)
    differences: dict[tuple[str, str, str], Difference] = field(default_factory=dict)

    def count(self, batch: LogBatch) -> None:
        """Add a batch to the counts."""
        known = batch.times_ms[batch.times_ms > 0]
        if known.size:
            first = int(known.min())
            self.first_ms = first if self.first_ms == 0 else min(self.first_ms, first)
            self.last_ms = max(self.last_ms, int(known.max()))
        self.rows += len(batch)
        counts = counts_of(batch)
        self.decisions += float(counts.sum())
        self.total_reward += float(counts @ batch.reward)
        self.min_propensity = min(self.min_propensity, float(batch.propensity.min(initial=1.0)))

    def merge(self, other: "OpeTally") -> None:
        """Add the rows of another, which answers the same question."""
        self.overview.merge(other.overview)
        self.rows += other.rows
        self.decisions += other.decisions
        self.left_out.merge(other.left_out)
        self.waiting = self.waiting.plus(other.waiting)
        times = [each for each in (self.first_ms, other.first_ms) if each]
        self.first_ms, self.last_ms = min(times, default=0), max(self.last_ms, other.last_ms)
        self.total_reward += other.total_reward
        self.min_propensity = min(self.min_propensity, other.min_propensity)
        for policy, seen in self.seen.items():
            seen.merge(other.seen[policy])
        for at, mine in self.estimates.items():
            mine.merge(other.estimates[at])  # type: ignore[arg-type] # the same question made the same kinds
        for pair, difference in self.differences.items():
            difference.merge(other.differences[pair])


@dataclass(frozen=True, slots=True)
class OpePlan:
    """A question, made definite by a look at the log.

    ``modelled``: the policies that DM and DR can be had for. ``counted``: rows say how many
    decisions they stand for. ``caution``, ``columns``: what is to be said of the log.
    """

    question: OpeQuestion
    modelled: frozenset[str]
    counted: bool = False
    caution: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)

    def estimators(self, target: Target) -> list[str]:
        """The names of a policy's estimators."""
        asked = self.question.estimators or FORMULAS
        return [name for name in asked if name not in WITH_MODEL or target.name in self.modelled]

    @property
    def needs_model(self) -> bool:
        """Whether a reward model is to be fitted."""
        return any(
            WITH_MODEL.intersection(self.estimators(target)) for target in self.question.targets
        )

    def empty(self) -> OpeTally:
        """A tally of no rows."""
        question = self.question
        out = OpeTally(ChartSums([target.name for target in question.targets]))
        out.seen = {
            target.name: RowOverlap() for target in question.targets if provenance_of(target)
        }
        for target in question.targets:
            for name in self.estimators(target):
                parameters = question.parameters.get(name, {})
                out.estimates[target.name, name] = make_estimator(
                    name, replicates=question.replicates, counted=self.counted, **parameters
                )
        for number, left in enumerate(question.targets):
            for right in question.targets[number + 1 :]:
                name = self.compared(left, right)
                out.differences[left.name, right.name, name] = Difference(
                    FORMULAS[name](), question.replicates, counted=self.counted
                )
        return out

    def compared(self, left: Target, right: Target) -> str:
        """The estimator that a difference of two policies is told by: DR where it can be had."""
        return "dr" if "dr" in self.estimators(left) and "dr" in self.estimators(right) else "snips"


def evaluate(
    question: OpeQuestion, pieces: Sequence[Piece], mapper: Mapper[Any] = map
) -> EvaluationReport:
    """Read the log, once or, for a reward model, twice, and say what each policy would have earned.

    Raises:
        ReplayError: the log is empty, or does not hold what a policy or an estimator needs.
        BadRowError: a row is malformed.
    """
    if sources := [
        target.source for target in question.targets if isinstance(target, SourceTarget)
    ]:
        pieces = [ScoredRows(piece, sources) for piece in pieces]
    plan = make_plan(question, pieces)
    model = fit_reward_model(question, pieces, mapper) if plan.needs_model else None
    total = plan.empty()
    for part in mapper(partial(tally_piece, plan, model), pieces):
        total.merge(part)
    found = report_of(plan, total)
    return found if model is None else msgspec.structs.replace(found, reward_model=model.summary)


def fit_reward_model(
    question: OpeQuestion, pieces: Sequence[Piece], mapper: Mapper[Any] = map
) -> FittedRewardModel:
    """Of DM and DR: cross-fitted on all pieces.

    It depends on the log alone, not on the policies.
    """
    sample = question.reward_model()
    for part in mapper(partial(fit_piece, question), pieces):
        sample.merge(part)
    return sample.fit()


def make_plan(question: OpeQuestion, pieces: Sequence[Piece]) -> OpePlan:
    """Look at the first row, and find out what the log allows.

    Raises: ReplayError: there are no rows, an estimator was asked for by name that cannot be had,
        or a policy has learned
            of a column what it is not here.
    """
    batch = next((batch for piece in pieces for batch in piece.batches() if len(batch)), None)
    if batch is None:
        check_scored(pieces)
        raise no_rows_error(pieces)
    check_columns(question.targets, pieces)
    modelled = set()
    for target in question.targets:
        try:
            target.pmf(demand_rows(batch, target.name)[0])
        except ReplayError:
            if WITH_MODEL.intersection(question.estimators) and not isinstance(
                target, LoggingTarget
            ):
                raise
        else:
            modelled.add(target.name)
    counted = WEIGHT in batch.columns
    return OpePlan(
        question, frozenset(modelled), counted, caution_of(pieces), column_notes_of(pieces)
    )


def fit_piece(question: OpeQuestion, piece: Piece) -> RewardModel:
    """What the rows of a piece add to a reward model."""
    out = question.reward_model()
    for batch in piece.batches():
        wanted = np.flatnonzero(out.wanted(batch.keys)).tolist()
        features = hash_decisions([batch.decisions[row] for row in wanted], chosen=True)
        out.update(features, batch.reward[wanted], batch.keys[wanted], rows=len(batch))
    return out


def tally_piece(plan: OpePlan, model: FittedRewardModel | None, piece: Piece) -> OpeTally:
    """What the rows of a piece say."""
    out = plan.empty()
    for batch in piece.batches():
        out.count(batch)
        predictions = None if model is None else _predictions(model, batch)
        seen = {
            target.name: _seen(plan, target, batch, predictions) for target in plan.question.targets
        }
        out.overview.update(batch, seen)
        count_seen(out.seen, plan.question.targets, piece, batch)
        blocks = [
            block
            for (policy, _), each in out.estimates.items()
            for block in each.gather(seen[policy])
        ]
        for (left, right, _), difference in out.differences.items():
            blocks += difference.gather(seen[left], seen[right])
        add_rows(blocks, batch.keys)
    out.left_out, out.waiting = left_out_of([piece]), waiting_of([piece])
    return out


def report_of(plan: OpePlan, total: OpeTally) -> EvaluationReport:
    """The answer."""
    bounds = plan.question.bounds()
    doubts = doubts_of(plan.question.targets, total.seen, total.rows)
    results = [
        PolicyResult(
            target.name,
            "ope",
            {
                name: with_doubts(
                    with_caution(total.estimates[target.name, name].estimate(bounds), plan.caution),
                    doubts.get(target.name),
                )
                for name in plan.estimators(target)
            },
            notes=list(target.notes),
        )
        for target in plan.question.targets
    ]
    compared = compare_all(
        {"\0".join(at): each for at, each in total.differences.items()}, bounds, plan.question.alpha
    )
    named = [
        PolicyComparison(
            *at,
            result=with_doubts(
                with_caution(compared["\0".join(at)], plan.caution), *map(doubts.get, at[:2])
            ),
        )
        for at in total.differences
    ]
    summary = LogSummary(
        total.rows,
        total.left_out.skipped,
        total.first_ms,
        total.last_ms,
        total.total_reward / max(total.decisions, 1.0),
        total.min_propensity,
        total.decisions,
        total.waiting.decisions,
        total.waiting.last_ms,
        dict(plan.columns),
        dict(total.left_out.counts),
        total.left_out.first_bad,
    )
    return EvaluationReport(
        summary, results, named, winner_of(results, named, doubts), total.overview.charts()
    )


def _chosen(batch: LogBatch) -> np.ndarray[Any, np.dtype[np.intp]]:
    return np.fromiter((row.chosen for row in batch.decisions), np.intp, len(batch.decisions))


def _predictions(model: FittedRewardModel, batch: LogBatch) -> Float64:
    """Of every action of every row: float64[n, K]."""
    out = np.zeros((len(batch), max(len(row.action_ids) for row in batch.decisions)))
    for part, features in hash_in_parts(batch.decisions):
        out[part, : features.ids.shape[1]] = model.predict(features, batch.keys[part])
    return out


def _seen(plan: OpePlan, target: Target, batch: LogBatch, predictions: Float64 | None) -> OpeBatch:
    seen = _seen_of(plan, target, batch, predictions)
    return replace(seen, counts=counts_of(batch)) if plan.counted else seen


def _seen_of(
    plan: OpePlan, target: Target, batch: LogBatch, predictions: Float64 | None
) -> OpeBatch:
    if target.name not in plan.modelled:
        return OpeBatch(batch.keys, batch.reward, batch.propensity, target.propensities(batch))
    rows = batch.decisions
    width = max(len(row.action_ids) for row in rows)
    pmfs, logging = np.zeros((len(rows), width)), np.zeros((len(rows), width))
    known, logs = True, isinstance(target, LoggingTarget)
    for number, row in enumerate(rows):
        if row.pmf is None:
            known = False
        # what was chosen is a draw from the PMF that is lacking, so it stands for it
        if row.pmf is None and logs:
            pmfs[number, row.chosen] = 1.0
            continue
        pmfs[number, : len(row.action_ids)] = target.pmf(row)
        if row.pmf is not None and known:
            logging[number, : len(row.action_ids)] = row.pmf
    chosen = _chosen(batch)
    outside = np.maximum(0.0, 1.0 - pmfs.sum(axis=1))  # on actions that the row does not have
    outside[outside < 1e-9] = 0.0
    if known:
        seen = ope_batch_from_pmfs(batch.keys, batch.reward, chosen, logging, pmfs, predictions)
        assert seen.unsupported is not None  # noqa: S101 - made from PMFs
        return replace(seen, unsupported=seen.unsupported + outside)
    at = np.arange(len(rows))
    return OpeBatch(
        keys=batch.keys,
        reward=batch.reward,
        propensity=batch.propensity,
        target=batch.propensity if logs else pmfs[at, chosen],
        predicted=None if predictions is None else predictions[at, chosen],
        expected=None if predictions is None else np.einsum("nk,nk->n", predictions, pmfs),
        unsupported=outside,
    )
