"""What whole sessions would have earned under another policy: off-policy evaluation several decisions ahead.

A session is a user's decisions with no pause above ``pause_s``, in the log's order. All of a log's
sessions are held in memory; chunks of them are tallied wherever there is room, and tallies merge.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import numpy as np

from bandits.errors import ReplayError
from bandits.statistics.intervals import INTERVALS, REPLICATES, Interval
from bandits.types import Float64
from policies.artifacts.trained_on import RowOverlap
from simulator.logs.left_out import BAD, LeftOut, left_out_of
from simulator.logs.rows import LoggedDecision, Piece, caution_of, key_of, no_rows_error
from simulator.ope.charts import Charts
from simulator.ope.comparisons import Difference, compare_all
from simulator.ope.hashed_features import FeatureScales, hash_decisions
from simulator.ope.sessions.batch import SessionBatch, session_batch
from simulator.ope.sessions.estimators import Reach, SessionEstimator
from simulator.ope.sessions.formulas import SESSION_FORMULAS, SESSION_MODEL
from simulator.ope.sessions.model import FittedSessionModel, SessionModel, mean_features
from simulator.ope.targets import ColumnTarget, LoggingTarget, Target, check_columns, demand_rows
from simulator.replay.leakage import Doubt, count_seen, doubts_of
from simulator.replay.report import (
    EvaluationReport,
    LogSummary,
    PolicyComparison,
    PolicyResult,
    winner_of,
    with_caution,
    with_doubts,
)

Rows = Sequence[LoggedDecision]
Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
CHUNK = 500
"""Sessions that are tallied together."""
ALLOWED = ("normal", "bootstrap")


@dataclass(frozen=True, slots=True)
class SessionQuestion:
    """What is asked.

    ``horizon``: decisions of a session that count; ``gamma``: what a reward counts one later.

    ``session``: the context feature that names the session; None: a user's decisions with no pause
    above ``pause_s``. ``skip_bad``: decisions that do not say whose session they are of are counted
    and left out.
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
        for name in self.names:
            SessionEstimator(name, horizon=self.horizon, gamma=self.gamma)
        if self.interval not in ALLOWED:
            raise ReplayError(
                f"sessions have intervals {', '.join(ALLOWED)}, not {self.interval!r}", "interval"
            )
        if not 0.0 < self.alpha < 1.0:
            raise ReplayError(f"alpha is between 0 and 1, not {self.alpha}", "alpha")

    @property
    def names(self) -> Sequence[str]:
        """Of the estimators."""
        return tuple(self.estimators) or tuple(SESSION_FORMULAS)

    @property
    def replicates(self) -> int:
        """Of the bootstrap, if there is to be one."""
        return REPLICATES if self.interval == "bootstrap" else 0

    def bounds(self) -> Interval:
        """The kind of interval."""
        return INTERVALS[self.interval](alpha=self.alpha)


def sessions_of(rows: Iterable[LoggedDecision], question: SessionQuestion) -> list[Rows]:
    """The log's sessions, in the order they begin.

    Raises:
        ReplayError: a row does not say whose session it is of, or is of a slate.
    """
    found: list[list[LoggedDecision]] = []
    open_: dict[str, list[LoggedDecision]] = {}
    for row in rows:
        if row.slot:
            raise ReplayError(
                "a slate is several choices of one decision: sessions are of one slot each", "slot"
            )
        user = _owner(row, question.session)
        mine = open_.get(user)
        if mine is None or (
            question.session is None and row.time_ms - mine[-1].time_ms > 1000.0 * question.pause_s
        ):
            mine = open_[user] = []
            found.append(mine)
        mine.append(row)
    return list(found)


def _owner(row: LoggedDecision, session: str | None) -> str:
    if session is not None:
        value = row.context.get(session)
        if value is None or value in ("", []):
            raise ReplayError(
                f"decision {row.event_id} is of no session: it has no context feature"
                f" {session!r}, or an empty one"
                " (--skip-bad counts such decisions and leaves them out)",
                "session",
            )
        return f"{type(value).__name__} {value}"
    if row.record is None or not row.record.user:
        raise ReplayError(
            f"decision {row.event_id} has no user: name the context feature that tells sessions"
            " apart (--session)",
            "session",
        )
    return row.record.user


@dataclass(frozen=True, slots=True, eq=False)
class SessionPlan:
    """A question, made definite by a look at the log.

    ``models``: of the targets that dr can be had for.

    ``scales``: the units of features in those models. A log without PMFs does not say what its own
    policy would have done.
    """

    question: SessionQuestion
    models: Mapping[str, FittedSessionModel]
    scales: FeatureScales | None = None

    def estimators(self, target: Target) -> list[str]:
        """The names of a target's estimators."""
        return [
            name
            for name in self.question.names
            if name not in SESSION_MODEL or target.name in self.models
        ]

    def compared(self, left: Target, right: Target) -> str:
        """The estimator that a difference is told by."""
        shared = [name for name in self.estimators(left) if name in self.estimators(right)]
        return "wdr" if "wdr" in shared else "pdwis"


@dataclass(slots=True, eq=False)
class SessionTally:
    """What some sessions say. ``estimates``: by policy and estimator; ``reaches``: by policy."""

    plan: SessionPlan
    estimates: dict[tuple[str, str], SessionEstimator] = field(default_factory=dict)
    reaches: dict[str, Reach] = field(default_factory=dict)
    differences: dict[tuple[str, str, str], Difference] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Of no sessions."""
        asked = self.plan.question
        for number, target in enumerate(asked.targets):
            self.reaches[target.name] = Reach(asked.horizon)
            for name in self.plan.estimators(target):
                self.estimates[target.name, name] = SessionEstimator(
                    name, horizon=asked.horizon, gamma=asked.gamma, replicates=asked.replicates
                )
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


def _of_a_session(rows: Rows, question: SessionQuestion, left_out: LeftOut) -> Rows:
    """The rows that say whose session they are of.

    The others are counted, if bad rows may be left out.
    """
    if not question.skip_bad:
        return rows
    kept = []
    for row in rows:
        try:
            _owner(row, question.session)
        except ReplayError as error:
            left_out.add(BAD, error.message)
        else:
            kept.append(row)
    return kept


def evaluate_sessions(
    question: SessionQuestion, pieces: Sequence[Piece], mapper: Mapper = map
) -> EvaluationReport:
    """Read the log and say what each policy's sessions would have earned, up to the horizon.

    Raises:
        ReplayError: the log is empty, or does not say whose decisions they are.
        BadRowError: a row is malformed.
    """
    seen = {target.name: RowOverlap() for target in question.targets}
    read: list[LoggedDecision] = []
    for piece in pieces:
        for batch in piece.batches():
            read += demand_rows(batch, "sessions")
            count_seen(seen, question.targets, piece, batch)
    if not read:
        raise no_rows_error(pieces, "sessions to evaluate")
    check_columns(question.targets, pieces)
    left_out = left_out_of(pieces)
    rows = _of_a_session(read, question, left_out)
    if not rows:
        raise ReplayError(
            f"no decision of the log says whose session it is of: {left_out.first_bad}", "session"
        )
    sessions = sessions_of(rows, question)
    chunks = [sessions[start : start + CHUNK] for start in range(0, len(sessions), CHUNK)]
    complete = all(row.pmf is not None for row in rows)
    known = [
        target for target in question.targets if complete or not isinstance(target, LoggingTarget)
    ]
    models: dict[str, FittedSessionModel] = {}
    scales = None
    if SESSION_MODEL.intersection(question.names):
        scales = FeatureScales.of(hash_decisions(rows, chosen=True))
    for target in known if scales is not None else ():
        assert scales is not None  # noqa: S101 - as the line above says
        sums = SessionModel(bits=question.bits, folds=question.folds)
        for part in mapper(partial(fit_sessions, question, target, scales), chunks):
            sums.merge(part)
        models[target.name] = sums.fit(question.horizon, question.gamma)
    plan = SessionPlan(question, models, scales)
    total = SessionTally(plan)
    for part in mapper(partial(tally_sessions, plan), chunks):
        total.merge(part)
    doubts = doubts_of(question.targets, seen, len(read))
    found = _report(plan, total, rows, left_out, caution_of(pieces), doubts)
    return msgspec.structs.replace(found, log=found.log.of(pieces))


def fit_sessions(
    question: SessionQuestion, target: Target, scales: FeatureScales, sessions: Sequence[Rows]
) -> SessionModel:
    """What some sessions add to a target's model."""
    out = SessionModel(bits=question.bits, folds=question.folds)
    rows = [row for session in sessions for row in session]
    chosen = mean_features(rows, [_choice(row) for row in rows], question.bits, scales)
    expected = mean_features(rows, [target.pmf(row) for row in rows], question.bits, scales)
    rewards = np.array([row.reward for row in rows])
    start = 0
    for session in sessions:
        mine = slice(start, start + len(session))
        out.update(chosen[mine], expected[mine], rewards[mine], key_of(session[0].event_id))
        start += len(session)
    return out


def tally_sessions(plan: SessionPlan, sessions: Sequence[Rows]) -> SessionTally:
    """What some sessions say."""
    question, out = plan.question, SessionTally(plan)
    seen = {target.name: _seen(plan, target, sessions) for target in question.targets}
    for (policy, _), each in out.estimates.items():
        each.update(seen[policy])
    for policy, reach in out.reaches.items():
        reach.update(seen[policy], [len(session) for session in sessions])
    for (left, right, _), difference in out.differences.items():
        difference.update(seen[left], seen[right])
    return out


def _seen(plan: SessionPlan, target: Target, sessions: Sequence[Rows]) -> SessionBatch:
    question, model, scales = plan.question, plan.models.get(target.name), plan.scales
    kept = [session[: question.horizon] for session in sessions]
    lengths = np.array([len(session) for session in kept])
    rows = [row for session in kept for row in session]
    keys = np.array([key_of(session[0].event_id) for session in sessions], np.uint64)
    there = np.arange(question.horizon) < lengths[:, None]

    def laid_out(values: Iterable[float]) -> Float64:
        out = np.zeros(there.shape)
        out[there] = np.fromiter(values, np.float64, len(rows))
        return out

    actions = values = None
    known = model is not None or not isinstance(target, LoggingTarget)
    pmfs = [target.pmf(row) for row in rows] if known else []
    mass, unsupported = [row.propensity for row in rows], [0.0] * len(rows)
    if known:
        mass = [float(pmf[row.chosen]) for pmf, row in zip(pmfs, rows, strict=True)]
        unsupported = [_unsupported(pmf, row) for pmf, row in zip(pmfs, rows, strict=True)]
    if model is not None and scales is not None:
        ahead = question.horizon - np.arange(question.horizon)
        owner, places = np.repeat(keys, lengths), np.broadcast_to(ahead, there.shape)[there]
        chosen = mean_features(rows, [_choice(row) for row in rows], question.bits, scales)
        actions = laid_out(model.values(chosen, owner, places))
        values = laid_out(
            model.values(mean_features(rows, pmfs, question.bits, scales), owner, places)
        )
    return session_batch(
        keys,
        lengths,
        laid_out(row.reward for row in rows),
        laid_out(row.propensity for row in rows),
        laid_out(mass),
        laid_out(unsupported),
        gamma=question.gamma,
        action_values=actions,
        values=values,
    )


def _choice(row: LoggedDecision) -> Float64:
    """All mass on what was chosen."""
    pmf = np.zeros(len(row.action_ids))
    pmf[row.chosen] = 1.0
    return pmf


def _unsupported(pmf: Float64, row: LoggedDecision) -> float:
    """The mass on actions that the log never takes, or that the row does not have."""
    outside = max(0.0, 1.0 - float(pmf.sum()))
    never = 0.0 if row.pmf is None else float(pmf[row.pmf <= 0.0].sum())
    return never + (outside if outside > 1e-9 else 0.0)


def _report(
    plan: SessionPlan,
    total: SessionTally,
    rows: Rows,
    left_out: LeftOut,
    caution: str,
    doubts: Mapping[str, Doubt],
) -> EvaluationReport:
    question, bounds = plan.question, plan.question.bounds()
    results = []
    for target in question.targets:
        reach = total.reaches[target.name]
        estimates = {
            name: with_doubts(
                with_caution(total.estimates[target.name, name].estimate(reach, bounds), caution),
                doubts.get(target.name),
            )
            for name in plan.estimators(target)
        }
        results.append(
            PolicyResult(
                target.name, "sessions", estimates, notes=[*target.notes, *_notes(question, reach)]
            )
        )
    compared = compare_all(
        {"\0".join(at): each for at, each in total.differences.items()}, bounds, question.alpha
    )
    named = [
        PolicyComparison(
            *at,
            result=with_doubts(
                with_caution(compared["\0".join(at)], caution), *map(doubts.get, at[:2])
            ),
        )
        for at in total.differences
    ]
    times = [row.time_ms for row in rows if row.time_ms]
    summary = LogSummary(
        len(rows),
        left_out.skipped,
        min(times, default=0),
        max(times, default=0),
        float(np.mean([row.reward for row in rows])),
        min(row.propensity for row in rows),
        left_out=dict(left_out.counts),
        first_bad=left_out.first_bad,
    )
    charts: Charts | None = None
    return EvaluationReport(summary, results, named, winner_of(results, named, doubts), charts)


def _notes(question: SessionQuestion, reach: Reach) -> list[str]:
    shown = [at for at in (1, 2, 5, 10, 20, 50, 100) if at < question.horizon] + [question.horizon]
    ess = ", ".join(f"{reach.ess[at - 1]:,.0f} at {at}" for at in shown)
    lengths = (
        f"{reach.sessions:,} sessions of {reach.decisions / max(reach.sessions, 1):.1f} decisions"
        " on average,"
        f" {reach.cut / max(reach.sessions, 1):.1%} of them longer than the horizon of"
        f" {question.horizon}: what they"
        " earn after it is left out"
    )
    return [lengths, f"effective sample size by decision: {ess}"]
