"""Evaluation several decisions ahead: the earnings of whole sessions under another policy.

A session is a user's decisions with no pause above ``pause_s``, in the log's order. All of a log's
sessions are held in memory; chunks of them are tallied wherever there is room, and tallies merge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import numpy as np

from bandits.errors import ReplayError
from bandits.statistics.intervals import INTERVALS, REPLICATES, Interval
from policies.artifacts.trained_on import RowOverlap
from simulator.logs.left_out import BAD, LeftOut, left_out_of
from simulator.logs.rows import LoggedDecision, Piece, batch_of, caution_of, no_rows_error
from simulator.ope.comparisons import Difference
from simulator.ope.feature_design import FeatureScales
from simulator.ope.hashed_features import hash_rows
from simulator.ope.sessions.cutting import Rows, cut_sessions, owner_of
from simulator.ope.sessions.estimators import Reach, SessionEstimator
from simulator.ope.sessions.formulas import SESSION_FORMULAS, SESSION_MODEL
from simulator.ope.sessions.model import FittedSessionModel, SessionModel
from simulator.ope.sessions.target_batch import fit_target_sessions, target_session_batch
from simulator.ope.targets import ColumnTarget, LoggingTarget, Target, check_columns, demand_rows
from simulator.replay.evaluate import Mapper
from simulator.replay.leakage import Doubt, count_seen, doubts_of
from simulator.replay.report import (
    EvaluationReport,
    LogSummary,
    PolicyResult,
    compare_policies,
    winner_of,
    with_caution,
    with_doubts,
)

CHUNK = 500
"""Sessions that are tallied at a time."""
INTERVAL_KINDS = ("normal", "bootstrap")
"""Kinds of intervals: the range of a product of weights says nothing, which the others need."""


@dataclass(frozen=True, slots=True)
class SessionQuestion:
    """The question asked of a log's sessions.

    Attributes:
        targets: the policies to evaluate.
        estimators: names; with none, all.
        horizon: decisions of a session that count.
        gamma: what a reward counts one decision later.
        interval: normal or bootstrap.
        alpha: intervals cover with probability 1 - alpha.
        session: the context feature that names the session; None: a user's decisions with no pause
            above ``pause_s``.
        pause_s: seconds.
        bits: of the model, which has 2^bits coefficients.
        folds: of its cross-fitting.
        skip_bad: count decisions that do not say whose session they are of, and leave them out.
    """

    targets: Sequence[Target]
    estimators: Sequence[str] = ()
    horizon: int = 10
    gamma: float = 1.0
    interval: str = "normal"
    alpha: float = 0.05
    session: str | None = None
    pause_s: float = 1800.0
    bits: int = 8
    folds: int = 5
    skip_bad: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be answered, before anything is read."""
        names = [target.name for target in self.targets]
        if not names or len(set(names)) != len(names):
            raise ReplayError("name at least one policy, and each once", "policy")
        if any(isinstance(target, ColumnTarget) for target in self.targets):
            raise ReplayError(
                "a column holds one probability per row; sessions need policies with PMFs", "policy"
            )

        # Making them refuses names, horizons and discounts that there are not.
        for name in self.names:
            SessionEstimator(name, horizon=self.horizon, gamma=self.gamma)

        if self.interval not in INTERVAL_KINDS:
            raise ReplayError(
                f"sessions have intervals {', '.join(INTERVAL_KINDS)}, not {self.interval!r}",
                "interval",
            )
        if not 0.0 < self.alpha < 1.0:
            raise ReplayError(f"alpha is between 0 and 1, not {self.alpha}", "alpha")

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the estimators."""
        return tuple(self.estimators) or tuple(SESSION_FORMULAS)

    @property
    def replicates(self) -> int:
        """Return how many replicates a bootstrap has, if there is to be one."""
        return REPLICATES if self.interval == "bootstrap" else 0

    def bounds(self) -> Interval:
        """Return the kind of interval."""
        return INTERVALS[self.interval](alpha=self.alpha)


@dataclass(frozen=True, slots=True, eq=False)
class SessionPlan:
    """A question, made definite by a look at the log.

    ``models`` are of the targets that dr can be had for: a log without PMFs does not say what its
    own policy would have done. ``scales`` are the units of features in those models.
    """

    question: SessionQuestion
    models: Mapping[str, FittedSessionModel]
    scales: FeatureScales | None = None

    def estimators(self, target: Target) -> list[str]:
        """Return the names of a target's estimators."""
        return [
            name
            for name in self.question.names
            if name not in SESSION_MODEL or target.name in self.models
        ]

    def compared(self, left: Target, right: Target) -> str:
        """Return the estimator that compares two policies: wdr where both have it, else pdwis.

        Args:
            left: a policy of the question.
            right: the one it is compared with; their order makes no difference here.
        """
        shared = [name for name in self.estimators(left) if name in self.estimators(right)]
        return "wdr" if "wdr" in shared else "pdwis"


@dataclass(slots=True, eq=False)
class SessionTally:
    """The sums of some sessions: a monoid.

    ``estimates`` are by policy and estimator, ``reaches`` by policy, ``differences`` by two
    policies and estimator.
    """

    plan: SessionPlan
    estimates: dict[tuple[str, str], SessionEstimator] = field(default_factory=dict)
    reaches: dict[str, Reach] = field(default_factory=dict)
    differences: dict[tuple[str, str, str], Difference] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make what tallies, of no sessions."""
        asked = self.plan.question
        for number, target in enumerate(asked.targets):
            self.reaches[target.name] = Reach(asked.horizon)
            for name in self.plan.estimators(target):
                self.estimates[target.name, name] = SessionEstimator(
                    name, horizon=asked.horizon, gamma=asked.gamma, replicates=asked.replicates
                )

            # Every pair of policies is compared once.
            for other in asked.targets[number + 1 :]:
                name = self.plan.compared(target, other)
                formula = SESSION_FORMULAS[name](asked.horizon, asked.gamma)
                self.differences[target.name, other.name, name] = Difference(
                    formula, asked.replicates
                )

    def merge(self, other: "SessionTally") -> None:
        """Add the sessions of another, which answers the same question."""
        for at, mine in self.estimates.items():
            mine.merge(other.estimates[at])
        for policy, reach in self.reaches.items():
            reach.merge(other.reaches[policy])
        for pair, difference in self.differences.items():
            difference.merge(other.differences[pair])


def evaluate_sessions(
    question: SessionQuestion, pieces: Sequence[Piece], mapper: Mapper[Any] = map
) -> EvaluationReport:
    """Read the log and say what each policy's sessions would have earned, up to the horizon.

    Args:
        question: what is asked.
        pieces: the log.
        mapper: where its sessions are tallied.

    Raises:
        ReplayError: the log is empty, or does not say whose decisions they are.
        BadRowError: a row is malformed.
    """
    overlap = {target.name: RowOverlap() for target in question.targets}
    read: list[LoggedDecision] = []
    for piece in pieces:
        for batch in piece.batches():
            read += demand_rows(batch, "sessions")
            count_seen(overlap, question.targets, piece, batch)
    if not read:
        raise no_rows_error(pieces, "sessions to evaluate")
    check_columns(question.targets, pieces)

    left_out = left_out_of(pieces)
    rows = _rows_of_sessions(read, question, left_out)
    if not rows:
        raise ReplayError(
            f"no decision of the log says whose session it is of: {left_out.first_bad}", "session"
        )
    sessions = cut_sessions(rows, session=question.session, pause_s=question.pause_s)
    chunks = [sessions[start : start + CHUNK] for start in range(0, len(sessions), CHUNK)]

    plan = _make_plan(question, rows, chunks, mapper)
    total = SessionTally(plan)
    for part in mapper(partial(tally_sessions, plan), chunks):
        total.merge(part)

    doubts = doubts_of(question.targets, overlap, len(read))
    report = _report_of(plan, total, rows, left_out, caution_of(pieces), doubts)
    return msgspec.structs.replace(report, log=report.log.of(pieces))


def _rows_of_sessions(rows: Rows, question: SessionQuestion, left_out: LeftOut) -> Rows:
    """Return the rows that say whose session they are of.

    The others are counted, if bad rows may be left out.
    """
    if not question.skip_bad:
        return rows
    kept = []
    for row in rows:
        try:
            owner_of(row, question.session)
        except ReplayError as error:
            left_out.add(BAD, error.message)
        else:
            kept.append(row)
    return kept


def _make_plan(
    question: SessionQuestion, rows: Rows, chunks: Sequence[Sequence[Rows]], mapper: Mapper[Any]
) -> SessionPlan:
    """Fit the models that the question needs and the log allows."""
    if not SESSION_MODEL.intersection(question.names):
        return SessionPlan(question, {})

    scales = FeatureScales.of(hash_rows(batch_of(rows), chosen=True))
    complete = all(row.pmf is not None for row in rows)
    models: dict[str, FittedSessionModel] = {}
    for target in question.targets:
        if isinstance(target, LoggingTarget) and not complete:
            continue
        sums = SessionModel(bits=question.bits, folds=question.folds)
        for part in mapper(partial(fit_sessions, question, target, scales), chunks):
            sums.merge(part)
        models[target.name] = sums.fit(question.horizon, question.gamma)
    return SessionPlan(question, models, scales)


def fit_sessions(
    question: SessionQuestion, target: Target, scales: FeatureScales, sessions: Sequence[Rows]
) -> SessionModel:
    """Return what some sessions add to a target's model.

    Args:
        question: which says what model it is to be.
        target: the policy.
        scales: the units of features.
        sessions: of the log.
    """
    out = SessionModel(bits=question.bits, folds=question.folds)
    fit_target_sessions(out, target, scales, sessions)
    return out


def tally_sessions(plan: SessionPlan, sessions: Sequence[Rows]) -> SessionTally:
    """Return what some sessions say.

    Args:
        plan: what is asked, and what the log allows.
        sessions: of the log.
    """
    question, out = plan.question, SessionTally(plan)
    seen = {
        target.name: target_session_batch(
            target,
            sessions,
            horizon=question.horizon,
            gamma=question.gamma,
            bits=question.bits,
            model=plan.models.get(target.name),
            scales=plan.scales,
        )
        for target in question.targets
    }

    # Of a session that is longer than the horizon, its reach counts the rest, too.
    lengths = [len(session) for session in sessions]
    for (policy, _), estimator in out.estimates.items():
        estimator.update(seen[policy])
    for policy, reach in out.reaches.items():
        reach.update(seen[policy], lengths)
    for (left, right, _), difference in out.differences.items():
        difference.update(seen[left], seen[right])
    return out


def _report_of(
    plan: SessionPlan,
    total: SessionTally,
    rows: Rows,
    left_out: LeftOut,
    caution: str,
    doubts: Mapping[str, Doubt],
) -> EvaluationReport:
    """Return the answer."""
    question, bounds = plan.question, plan.question.bounds()
    results = []
    for target in question.targets:
        reach, estimates = total.reaches[target.name], {}
        for name in plan.estimators(target):
            estimate = total.estimates[target.name, name].estimate(reach, bounds)
            cautioned = with_caution(estimate, caution)
            estimates[name] = with_doubts(cautioned, doubts.get(target.name))
        notes = [*target.notes, *_notes(question, reach)]
        results.append(PolicyResult(target.name, "sessions", estimates, notes=notes))

    compared = compare_policies(
        total.differences, bounds, question.alpha, caution=caution, doubts=doubts
    )

    # A time of 0 is none.
    times = [row.time_ms for row in rows if row.time_ms]
    summary = LogSummary(
        rows=len(rows),
        skipped=left_out.skipped,
        first_ms=min(times, default=0),
        last_ms=max(times, default=0),
        mean_reward=float(np.mean([row.reward for row in rows])),
        min_propensity=min(row.propensity for row in rows),
        left_out=dict(left_out.counts),
        first_bad=left_out.first_bad,
    )
    return EvaluationReport(summary, results, compared, winner_of(results, compared, doubts))


def _notes(question: SessionQuestion, reach: Reach) -> list[str]:
    """Return what a reader should know of the sessions, and how far ahead they reach."""
    shown = [at for at in (1, 2, 5, 10, 20, 50, 100) if at < question.horizon] + [question.horizon]
    ess = ", ".join(f"{reach.ess[at - 1]:,.0f} at {at}" for at in shown)
    sessions = max(reach.sessions, 1)
    lengths = (
        f"{reach.sessions:,} sessions of {reach.decisions / sessions:.1f} decisions on average,"
        f" {reach.cut / sessions:.1%} of them longer than the horizon of {question.horizon}: what"
        " they earn after it is left out"
    )
    return [lengths, f"effective sample size by decision: {ess}"]
