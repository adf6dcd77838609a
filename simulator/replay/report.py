"""The report of an evaluation: estimates, differences, and how far each can be relied on."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from bandits.statistics.intervals import Interval
from simulator.learners.curve import CurvePoint
from simulator.logs.rows import Piece, Waiting, column_notes_of, describe_waiting, waiting_of
from simulator.ope.charts import Charts
from simulator.ope.comparisons import VERDICTS, Comparison, Difference, compare_all
from simulator.ope.estimators import Estimate
from simulator.ope.reward_model import ModelSummary
from simulator.ope.verdict import Verdict
from simulator.replay.leakage import Doubt
from simulator.replay.over_time import OverTime

NO_LOWER_END = -1e300
"""The lower end of what cannot be relied on."""


class LogSummary(msgspec.Struct, frozen=True):
    """The log, as it was read.

    Attributes:
        rows: decisions of the log, a slot each.
        skipped: bad rows that were left out.
        first_ms: the time of the first row; 0 in a log without times.
        last_ms: that of the last row.
        mean_reward: of the decisions.
        min_propensity: the least of the chosen actions.
        decisions: those of the service that the rows stand for; more than the rows where some were
            left out (pdrop).
        waiting: decisions that are no rows yet, as their windows are open.
        waiting_until_ms: when the last of these windows closes.
        columns: of a table, how each column of the context was read.
        left_out: how many records of the log are no rows, by why.
        first_bad: what is wrong with the first bad row.
    """

    rows: int
    skipped: int
    first_ms: int
    last_ms: int
    mean_reward: float
    min_propensity: float
    decisions: float = 0.0
    waiting: int = 0
    waiting_until_ms: int = 0
    columns: dict[str, str] = {}
    left_out: dict[str, int] = {}
    first_bad: str = ""

    def of(self, pieces: Iterable[Piece]) -> "LogSummary":
        """Return the same, with what is to be said of pieces that were read here."""
        waiting = waiting_of(pieces)
        return msgspec.structs.replace(
            self,
            waiting=waiting.decisions,
            waiting_until_ms=waiting.last_ms,
            columns=column_notes_of(pieces),
        )


def log_remarks(log: LogSummary) -> list[tuple[str, str]]:
    """Return what a reader should know of the log beside its size: the subject and the remark."""
    remarks = [(f"column {name}", kind) for name, kind in log.columns.items()]
    remarks += [("left out", f"{why}: {count:,}") for why, count in log.left_out.items()]
    if log.first_bad:
        remarks.append(("the first bad row", log.first_bad))
    if log.waiting:
        waiting = Waiting(log.waiting, log.waiting_until_ms, log.waiting_until_ms)
        remarks.append(("left out", describe_waiting(waiting)))
    return remarks


class PolicyResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """The results of one policy.

    Attributes:
        policy: its name.
        method: ope, sessions, slates, progressive or rejection; their numbers are not comparable.
        estimates: by the estimator's name, where the policy did not learn on the way.
        slots: of slates, what each slot earns, the first one first, by one estimator's name.
        average_loss: of progressive: minus the IPS value, as VW has it.
        curve: how a policy did while it learned on the way.
        learned: numbers about a policy that learned on the way, by name.
        notes: what a reader should know of it.
        over_time: what it earns by windows of the log's time, where that was asked for.
    """

    policy: str
    method: str
    estimates: dict[str, Estimate] = {}
    slots: dict[str, list[Estimate]] = {}
    average_loss: float | None = None
    curve: list[CurvePoint] = []
    learned: dict[str, float] = {}
    notes: list[str] = []
    over_time: list[OverTime] = []


class PolicyComparison(msgspec.Struct, frozen=True):
    """The value of ``left`` less that of ``right``, by one estimator."""

    left: str
    right: str
    estimator: str
    result: Comparison


class Trial(msgspec.Struct, frozen=True):
    """The score of a spec in a rung of a search, having learned from ``rows``.

    ``lower`` is the lower end of DR's 95% interval on the selecting rows, by which the spec was
    ranked; a value that cannot be relied on ranks last.
    """

    spec: str
    rung: int
    rows: int
    value: float
    lower: float
    verdict: str
    kept: bool


class SearchSummary(msgspec.Struct, frozen=True):
    """The trials of a search for a policy.

    ``best`` is the spec found, as its YAML would hold it. ``trials`` go rung by rung, the best
    first.
    """

    best: dict[str, Any]
    trials: list[Trial]


class SlotExamination(msgspec.Struct, frozen=True):
    """What a uniformly drawn action earns in a slot, over what it earns in the first one.

    Where a reward needs a look at the slot, and nothing else on the page matters, that is how often
    the slot is looked at, the first one being looked at always (the position-based model, Craswell
    et al. 2008, doi:10.1145/1341531.1341545).
    """

    value: float
    interval: tuple[float, float]
    verdict: Verdict
    reason: str


class EvaluationReport(msgspec.Struct, frozen=True):
    """The results of an evaluation.

    Attributes:
        log: what was read.
        results: one a policy.
        comparisons: of every two policies.
        winner: the policy whose value is significantly above every other's, if there is one and its
            estimate can be relied on.
        charts: what there is to draw.
        search: how the policies were found, if they were searched for.
        reward_model: of DM and DR, where one was fitted.
        examination: of slates, what each slot earns over the first one, the first one first.
    """

    log: LogSummary
    results: list[PolicyResult]
    comparisons: list[PolicyComparison]
    winner: str | None = None
    charts: Charts | None = None
    search: SearchSummary | None = None
    reward_model: ModelSummary | None = None
    examination: list[SlotExamination] = []


Judged = TypeVar("Judged", Estimate, Comparison)


def with_caution(judged: Judged, caution: str) -> Judged:
    """Return an estimate or comparison that is no better than weak, for a caution's sake.

    Args:
        judged: the estimate or comparison.
        caution: what is to be said of every number; empty if there is nothing.
    """
    return with_doubts(judged, Doubt("weak", caution)) if caution else judged


def with_doubts(judged: Judged, *doubts: Doubt | None) -> Judged:
    """Return an estimate or comparison whose verdict is no better than doubts allow.

    Args:
        judged: the estimate or comparison.
        doubts: None is no doubt.

    Returns:
        The same, with a reason that begins with the worst of them.
    """
    for doubt in filter(None, doubts):
        worse = VERDICTS.index(doubt.verdict) > VERDICTS.index(judged.verdict)

        # The reason of a sound estimate, that nothing speaks against it, no longer holds.
        if judged.verdict == "reliable":
            reasons = [doubt.reason]
        elif worse:
            reasons = [doubt.reason, judged.reason]
        else:
            reasons = [judged.reason, doubt.reason]
        judged = msgspec.structs.replace(
            judged, verdict=doubt.verdict if worse else judged.verdict, reason="; ".join(reasons)
        )
    return judged


def compare_policies(
    differences: Mapping[tuple[str, str, str], Difference],
    interval: Interval,
    alpha: float,
    *,
    caution: str,
    doubts: Mapping[str, Doubt],
) -> list[PolicyComparison]:
    """Compare policies, all at one significance level.

    Args:
        differences: by two policies and estimator.
        interval: the kind of interval.
        alpha: the significance level of all comparisons together.
        caution: what is to be said of every number.
        doubts: by policy, why its estimates cannot be taken as they are.
    """
    compared = compare_all({"\0".join(at): one for at, one in differences.items()}, interval, alpha)

    # A comparison is as doubtful as either of its policies.
    comparisons = []
    for left, right, estimator in differences:
        cautioned = with_caution(compared[f"{left}\0{right}\0{estimator}"], caution)
        result = with_doubts(cautioned, doubts.get(left), doubts.get(right))
        comparisons.append(PolicyComparison(left, right, estimator, result))
    return comparisons


def winner_of(
    results: Sequence[PolicyResult],
    comparisons: Sequence[PolicyComparison],
    doubts: Collection[str] = (),
) -> str | None:
    """Return the policy that is significantly better than every other, if there is one.

    It is never one whose estimate cannot be relied on.

    Args:
        results: of all policies.
        comparisons: of every two of them.
        doubts: policies that may have learned from these rows.
    """
    for policy in (result.policy for result in results if result.policy not in doubts):
        mine = [one for one in comparisons if policy in {one.left, one.right}]

        # A difference is left less right: it is to be on this policy's side.
        if mine and all(
            one.result.conclusive and (one.result.difference > 0.0) == (one.left == policy)
            for one in mine
        ):
            return policy
    return None
