"""The operations on evaluations, and those on feature importances, of which there are none."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
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
from serve_app.personalizer.evaluations.judging import judge_archive
from serve_app.personalizer.loops.loop import StoredLoop
from serve_app.personalizer.refusals import RefusedCall
from serve_app.personalizer.route import PersonalizerRoute
from serve_app.personalizer.single_slot import check_id
from serve_app.settings import Settings
from serve_app.store.clients import Redis, blocking_client
from serve_app.store.evaluations.kept import (
    KeptEvaluation,
    begin_evaluation,
    delete_evaluation,
    end_evaluation,
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
OVERDUE_MS = 3_600_000
"""After this long an evaluation is taken for one whose process has died."""
_NO_TIME = "0001-01-01T00:00:00"
_WINDOWS: Mapping[int, str] = {5: "Expanding", **dict.fromkeys((60, 360, 720, 1440), "Rolling")}
Result = TypeVar("Result")


class AskedTimes(NamedTuple):
    """From when to when."""

    start: datetime
    end: datetime


class EvaluationOperations:
    """The handlers, over the policies that are served."""

    def __init__(self, settings: Settings, loops: Mapping[str, StoredLoop]) -> None:
        """Take what evaluations are made of.

        Args:
            settings: of the service.
            loops: by policy.
        """
        self._settings, self._loops = settings, loops
        self._running: set[asyncio.Task[None]] = set()

    async def create(self, call: Call[EvaluationContract]) -> Answer:
        """Begin an evaluation; it is done by a process beside this one."""
        sent, name = call.request, call.parameters["evaluation"]
        check_id(name, "evaluationId")
        times = _checked(sent)
        logged = await self._loops[call.policy].log_times()
        first_ms, last_ms = (1000 * each.timestamp() for each in times)
        if logged is None or first_ms > logged[1] or last_ms < logged[0]:
            raise RefusedCall(
                400, "NoLogsExistInDateRange", "there is no log from then to then", "startTime"
            )
        kept = KeptEvaluation(name, sent.name, sent.start_time, sent.end_time, _now_ms(), "Running")
        if sent.enable_policy_optimization or sent.enable_offline_experimentation:
            kept = msgspec.structs.replace(kept, unsearched=True)
        if not await self._stored(lambda client: begin_evaluation(client, call.policy, kept)):
            raise RefusedCall(
                400, "EvaluationAlreadyExists", f"there is an evaluation {name!r}", "evaluationId"
            )
        asked = {each.name: each.arguments for each in sent.policies or ()}
        task = asyncio.create_task(self._evaluate(call.policy, kept, times, asked))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return MADE

    async def _evaluate(
        self, policy: str, kept: KeptEvaluation, times: AskedTimes, asked: Mapping[str, str]
    ) -> None:
        log = join_name(self._settings.archive_root(), policy)
        start, end = times.start.isoformat(), times.end.isoformat()
        try:
            found, said = await asyncio.to_thread(judge_archive, log, start, end, asked)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody waits for it any more
            found, said = [], f"{type(error).__name__}: {error}"
        status = "Succeeded" if found else "Failed"
        ended = msgspec.structs.replace(kept, status=status, found=found, said=said)
        await self._stored(lambda client: end_evaluation(client, policy, ended))

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
        kept = await self._stored(lambda client: read_evaluation(client, call.policy, name))
        if kept is None:
            raise _unknown(name)
        return _body(kept, minutes, whole=True)

    async def list(self, call: Call[None]) -> ListedBodies:
        """Return evaluations, the newest first."""
        asked: ListQuery = call.query
        kept = await self._stored(lambda client: read_evaluations(client, call.policy))
        # All are asked for by somebody: none is of another type.
        listed = [] if "'Auto'" in asked.filter else kept[asked.skip :][: asked.top]
        return ListedBodies([_body(each, 5, whole=False) for each in listed])

    async def delete(self, call: Call[None]) -> Answer:
        """Forget an evaluation."""
        name = call.parameters["evaluation"]
        if not await self._stored(lambda client: delete_evaluation(client, call.policy, name)):
            raise _unknown(name)
        return NOTHING

    async def _stored(self, do: Callable[[Redis], Result]) -> Result:
        def run() -> Result:
            with contextlib.closing(blocking_client(str(self._settings.redis_url))) as client:
                return do(client)

        return await asyncio.to_thread(run)

    # What there is not

    async def no_importance(self, call: Call[None]) -> Answer:  # noqa: ARG002 - a handler
        """Refuse: there are no feature importances."""
        raise RefusedCall(
            404,
            "FeatureImportanceNotFound",
            "feature importances are not computed here: banditloop explain says what each feature"
            " added to a decision",
            "featureImportanceId",
        )

    async def no_importances(self, call: Call[None]) -> ListedBodies:  # noqa: ARG002 - a handler
        """Return that there are none."""
        return ListedBodies([])

    def routes(self) -> tuple[PersonalizerRoute[Any, Any], ...]:
        """Return the operations as routes."""
        one, importance = "/evaluations/{evaluation}", "/featureImportances/{importance}"
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
            (
                Endpoint("GET", "/featureImportances", none, listed, 200),
                "No feature importances",
                self.no_importances,
            ),
            *(
                (
                    Endpoint(method, importance, none, none, 404),
                    "No feature importance",
                    self.no_importance,
                )
                for method in ("PUT", "GET", "DELETE")
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

    times = AskedTimes(_time(sent.start_time, "startTime"), _time(sent.end_time, "endTime"))
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


def _now_ms() -> int:
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
    if status == "Running" and _now_ms() - kept.made_ms > OVERDUE_MS:
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
