"""What an evaluation found: estimates, differences, and how far each can be relied on."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from simulator.learners.curve import CurvePoint
from simulator.logs.rows import Piece, Waiting, column_notes_of, describe_waiting, waiting_of
from simulator.ope.charts import Charts
from simulator.ope.comparisons import VERDICTS, Comparison
from simulator.ope.estimators import Estimate
from simulator.ope.reward_model import ModelSummary
from simulator.replay.leakage import Doubt


class LogSummary(msgspec.Struct, frozen=True):
    """What was read. ``skipped``: bad rows left out.

    ``first_ms``, ``last_ms``: 0 in a log without times.

    ``decisions``: those of the service that the rows stand for; more than the rows where some were
    left out (pdrop). ``waiting``: decisions that are no rows yet, as their windows are open, the
    last one ``waiting_until_ms``. ``columns``: of a table, how each column of the context was read.
    ``left_out``: how many records of the log are no rows, by why. ``first_bad``: what is wrong with
    the first bad one.
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
        """The same, with what is to be said of pieces that were read here."""
        waiting = waiting_of(pieces)
        return msgspec.structs.replace(
            self,
            waiting=waiting.decisions,
            waiting_until_ms=waiting.last_ms,
            columns=column_notes_of(pieces),
        )


def log_remarks(log: LogSummary) -> list[tuple[str, str]]:
    """What a reader of the report should know of the log beside its size: what it is about, and what is said of it."""
    said = [(f"column {name}", kind) for name, kind in log.columns.items()]
    said += [("left out", f"{why}: {count:,}") for why, count in log.left_out.items()]
    if log.first_bad:
        said.append(("the first bad row", log.first_bad))
    if log.waiting:
        said.append(
            (
                "left out",
                describe_waiting(Waiting(log.waiting, log.waiting_until_ms, log.waiting_until_ms)),
            )
        )
    return said


class PolicyResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found of one policy.

    ``method``: ope, progressive or rejection; their numbers are not comparable.

    ``estimates``: of ope, by the estimator's name. Of a policy that learned on the way: ``curve``,
    ``average_loss`` (of progressive; minus the IPS value, as VW has it) and ``learned``, its
    numbers by name.
    """

    policy: str
    method: str
    estimates: dict[str, Estimate] = {}
    average_loss: float | None = None
    curve: list[CurvePoint] = []
    learned: dict[str, float] = {}
    notes: list[str] = []


class PolicyComparison(msgspec.Struct, frozen=True):
    """``left`` less ``right``, by one estimator."""

    left: str
    right: str
    estimator: str
    result: Comparison


NO_LOWER_END = -1e300
"""The lower end of what cannot be relied on."""


class Trial(msgspec.Struct, frozen=True):
    """What a spec scored in a rung, having learned from ``rows``.

    ``lower``: the lower end of DR's 95% interval on the selecting rows, by which it was ranked; a
    value that cannot be relied on ranks last.
    """

    spec: str
    rung: int
    rows: int
    value: float
    lower: float
    verdict: str
    kept: bool


class SearchSummary(msgspec.Struct, frozen=True):
    """``best``: the spec found, as its YAML would hold it.

    ``trials``: rung by rung, the best first.
    """

    best: dict[str, Any]
    trials: list[Trial]


class EvaluationReport(msgspec.Struct, frozen=True):
    """What an evaluation found.

    ``winner``: the policy whose value is significantly above every other's, if there is one and its
    estimate can be relied on. ``charts``: what there is to draw. ``search``: how the policies were
    found, if they were searched for. ``reward_model``: of DM and DR, where one was fitted.
    """

    log: LogSummary
    results: list[PolicyResult]
    comparisons: list[PolicyComparison]
    winner: str | None = None
    charts: Charts | None = None
    search: SearchSummary | None = None
    reward_model: ModelSummary | None = None


Judged = TypeVar("Judged", Estimate, Comparison)


def with_caution(judged: Judged, caution: str) -> Judged:
    """What is to be said of every number is said of this one, which is no longer reliable for it."""
    return with_doubts(judged, Doubt("weak", caution)) if caution else judged


def with_doubts(judged: Judged, *doubts: Doubt | None) -> Judged:
    """The same with a verdict that is no better than doubts allow, whose reason begins with the worst of them."""
    for doubt in filter(None, doubts):
        worse = VERDICTS.index(doubt.verdict) > VERDICTS.index(judged.verdict)
        sound = judged.verdict == "reliable"
        said = (
            (doubt.reason,)
            if sound
            else (doubt.reason, judged.reason)
            if worse
            else (judged.reason, doubt.reason)
        )
        judged = msgspec.structs.replace(
            judged, verdict=doubt.verdict if worse else judged.verdict, reason="; ".join(said)
        )
    return judged


def winner_of(
    results: Sequence[PolicyResult], named: Sequence[PolicyComparison], doubts: Collection[str] = ()
) -> str | None:
    """The policy that is significantly better than every other.

    Never one whose estimate cannot be relied on.

    ``doubts``: policies that may have learned from these rows.
    """
    for policy in (result.policy for result in results if result.policy not in doubts):
        mine = [each for each in named if policy in {each.left, each.right}]
        if mine and all(
            each.result.shown and (each.result.difference > 0.0) == (each.left == policy)
            for each in mine
        ):
            return policy
    return None
