"""The operations on evaluations."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from types import NoneType
from typing import Any, NamedTuple, TypeVar

import msgspec

from banditloop_client.schemas import Endpoint
from bandits.errors import BanditloopError
from policies.personalizer.arguments import with_arguments
from policies.spec import PolicySpec
from policies.storage import join_name
from serve_app.api.routes import Call
from serve_app.api.wire import JSON, Answer
from serve_app.personalizer.evaluations.bodies import (
    EvaluatedPolicy,
    EvaluationBody,
    EvaluationContent,
    EvaluationContract,
    EvaluationPoint,
    EvaluationQuery,
    EvaluationSeries,
    EvaluationSummary,
    ListedBodies,
    ListQuery,
)
from serve_app.personalizer.evaluations.jobs import OVERDUE_MS, EvaluationJobs
from serve_app.personalizer.evaluations.judging import judge_archive
from serve_app.personalizer.loops.loop import StoredLoop
from serve_app.personalizer.refusals import RefusedCall
from serve_app.personalizer.route import PersonalizerRoute
from serve_app.personalizer.single_slot import check_id
from serve_app.settings import Settings
from serve_app.store.evaluations.kept import (
    KeptEvaluation,
    delete_evaluation,
    read_evaluation,
    read_evaluations,
)

NOTHING: Answer = (204, b"", JSON)
MADE: Answer = (200, b"", JSON)
MOST_POLICIES = 10
NO_SEARCH = (
    "No better policy was looked for: banditloop replay --search does that, and send what it finds"
    " as a policy to judge."
)
_NO_TIME = "0001-01-01T00:00:00"
_WINDOWS: Mapping[int, str] = {5: "Expanding", **dict.fromkeys((60, 360, 720, 1440), "Rolling")}
Result = TypeVar("Result")


class AskedTimes(NamedTuple):
    """From when to when."""

    start: datetime
    end: datetime


class EvaluationOperations:
    """The handlers, over the policies that are served."""

    def __init__(
        self, settings: Settings, loops: Mapping[str, StoredLoop], jobs: EvaluationJobs
    ) -> None:
        """Take what evaluations are made of.

        Args:
            settings: of the service.
            loops: by policy.
            jobs: does them.
        """
        self._settings, self._loops, self._jobs = settings, loops, jobs
        jobs.does["evaluations"] = self._evaluated

    async def create(self, call: Call[EvaluationContract]) -> Answer:
        """Begin an evaluation; it is done by a process beside this one."""
        sent, name = call.request, call.parameters["evaluation"]
        check_id(name, "evaluationId")
        times = _checked(sent)
        await self._loops[call.policy].demand_log(times.start, times.end)
        asked = {each.name: each.arguments for each in sent.policies or ()}
        kept = KeptEvaluation(
            name, sent.name, sent.start_time, sent.end_time, wall_ms(), "Running", asked=asked
        )
        if sent.enable_policy_optimization or sent.enable_offline_experimentation:
            kept = msgspec.structs.replace(kept, unsearched=True)
        if not await self._jobs.begin(call.policy, "evaluations", kept):
            raise RefusedCall(
                400, "EvaluationAlreadyExists", f"there is an evaluation {name!r}", "evaluationId"
            )
        return MADE

    def _evaluated(self, policy: str, kept: KeptEvaluation) -> KeptEvaluation:
        """Return an evaluation with what it has found; it blocks."""
        log = join_name(self._settings.archive_root(), policy)
        start, end = (_time(each, "").isoformat() for each in (kept.start, kept.end))
        found, said = judge_archive(log, start, end, kept.asked)
        status = "Succeeded" if found else "Failed"
        return msgspec.structs.replace(kept, status=status, found=found, said=said)

    async def get(self, call: Call[None]) -> EvaluationBody:
        """Return an evaluation with what it has found so far."""
        asked: EvaluationQuery = call.query
        minutes = 5 if asked.interval_in_minutes is None else asked.interval_in_minutes
        if minutes not in _WINDOWS or asked.window not in (None, _WINDOWS[minutes]):
            raise RefusedCall(
                400,
                "InvalidEvaluationContract",
                "an interval is of 5 minutes, Expanding, or of 60, 360, 720 or 1440, Rolling",
                "intervalInMinutes",
            )
        name = call.parameters["evaluation"]
        kept = await self._jobs.stored(lambda client: read_evaluation(client, call.policy, name))
        if kept is None:
            raise _unknown(name)
        return _body(kept, minutes, whole=True)

    async def list(self, call: Call[None]) -> ListedBodies:
        """Return evaluations, the newest first."""
        asked: ListQuery = call.query
        kept = await self._jobs.stored(lambda client: read_evaluations(client, call.policy))
        # All are asked for by somebody: none is of another type.
        listed = [] if "'Auto'" in asked.filter else kept[asked.skip :][: asked.top]
        return ListedBodies([_body(each, 5, whole=False) for each in listed])

    async def delete(self, call: Call[None]) -> Answer:
        """Forget an evaluation."""
        name = call.parameters["evaluation"]
        if not await self._jobs.stored(lambda client: delete_evaluation(client, call.policy, name)):
            raise _unknown(name)
        return NOTHING

    def routes(self) -> tuple[PersonalizerRoute[Any, Any], ...]:
        """Return the operations as routes."""
        one = "/evaluations/{evaluation}"
        none, body, listed = NoneType, EvaluationBody, ListedBodies
        table: tuple[tuple[Endpoint[Any, Any], str, Any], ...] = (
            (Endpoint("PUT", one, EvaluationContract, none, 200), "Evaluate", self.create),
            (
                Endpoint("GET", one, none, body, 200, query=EvaluationQuery),
                "An evaluation",
                self.get,
            ),
            (Endpoint("DELETE", one, none, none, 204), "Forget an evaluation", self.delete),
            (
                Endpoint("GET", "/evaluations", none, listed, 200, query=ListQuery),
                "All evaluations",
                self.list,
            ),
        )
        return tuple(
            PersonalizerRoute(
                endpoint,
                summary,
                scope="admin",
                handler=handler,
                refusal="InvalidEvaluationContract",
            )
            for endpoint, summary, handler in table
        )


def _checked(sent: EvaluationContract) -> AskedTimes:
    """Return the times of an evaluation that can be; refuse one that cannot."""
    contract = "InvalidEvaluationContract"
    if not sent.name:
        raise RefusedCall(400, contract, "an evaluation has a name", "name")
    if len(sent.policies or ()) > MOST_POLICIES:
        raise RefusedCall(
            400,
            "MaximumEvaluationCustomPoliciesExceeded",
            f"at most {MOST_POLICIES} policies",
            "policies",
        )
    names = [each.name for each in sent.policies or ()]
    if len(set(names)) != len(names):
        raise RefusedCall(400, "DuplicateCustomPolicyNames", "two policies of one name", "policies")
    for each in sent.policies or ():
        try:
            with_arguments(PolicySpec("custom"), each.arguments)
        except BanditloopError as error:
            raise RefusedCall(
                400, "InvalidPolicyConfiguration", f"{each.name}: {error.message}", "policies"
            ) from error

    return asked_times(sent.start_time, sent.end_time)


def asked_times(start: str, end: str) -> AskedTimes:
    """Return from when to when; refuse what is no time that has been.

    Args:
        start: from when, as it was sent.
        end: until when.
    """
    times = AskedTimes(_time(start, "startTime"), _time(end, "endTime"))
    if not times.start < times.end or times.end > datetime.now(UTC):
        raise RefusedCall(
            400,
            "InvalidDateTimesInEvaluationContract",
            "an evaluation is from some time to a later one, which has been",
            "endTime",
        )
    return times


def _time(text: str, target: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise RefusedCall(
            400,
            "InvalidDateTimesInEvaluationContract",
            f"a time is as in ISO 8601, not {text!r}",
            target,
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def wall_ms() -> int:
    """Return the time, in milliseconds since 1970."""
    return int(time.time() * 1000)


def _unknown(name: str) -> RefusedCall:
    return RefusedCall(404, "EvaluationNotFound", f"no evaluation {name!r}", "evaluationId")


def _body(kept: KeptEvaluation, minutes: int, *, whole: bool) -> EvaluationBody:
    """Return an evaluation as it is answered.

    Args:
        kept: the evaluation.
        minutes: the interval of its series.
        whole: whether with what it has found.
    """
    status = kept.status
    if status == "Running" and wall_ms() - kept.made_ms > OVERDUE_MS:
        status = "Timeout"

    content = None
    if whole:
        done = kept.status != "Running"
        content = EvaluationContent(
            start_time=kept.start if done else _NO_TIME,
            end_time=kept.end if done else _NO_TIME,
            interval_in_minutes=minutes if done else 0,
            value=[_evaluated(kept, at) for at in range(len(kept.found))],
        )

    made = datetime.fromtimestamp(kept.made_ms / 1000, UTC)
    return EvaluationBody(
        id=kept.id,
        name=kept.name,
        start_time=kept.start,
        end_time=kept.end,
        creation_time=made.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        status=status,
        evaluation_type="Manual",
        description=_described(kept) if whole else None,
        content=content,
    )


def _described(kept: KeptEvaluation) -> str | None:
    notes = [NO_SEARCH] if kept.unsearched else []
    return " ".join([*notes, *([kept.said] if kept.said else ())]) or None


def _evaluated(kept: KeptEvaluation, at: int) -> EvaluatedPolicy:
    found = kept.found[at]
    interval = found.low, found.high
    point = EvaluationPoint(
        time_stamp=kept.end, expected_reward=found.value, confidence_interval=interval
    )
    return EvaluatedPolicy(
        name=found.name,
        policy_source=found.source,
        slot_id="",
        arguments=found.arguments or None,
        summary=EvaluationSummary(expected_reward=found.value, confidence_interval=interval),
        timeseries=EvaluationSeries([point]),
    )
