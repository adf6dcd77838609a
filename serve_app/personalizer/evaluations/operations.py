"""The operations on evaluations."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import NoneType
from typing import Any

import msgspec

from banditloop_client.schemas import Endpoint
from bandits.errors import BanditloopError
from policies.personalizer.arguments import with_arguments
from policies.personalizer.configuration import arguments_of
from policies.spec import PolicySpec
from policies.storage import join_name
from serve_app.api.routes import Call
from serve_app.api.wire import Answer
from serve_app.personalizer.evaluations.bodies import (
    EvaluationBody,
    EvaluationContract,
    EvaluationQuery,
    ListedBodies,
    ListQuery,
)
from serve_app.personalizer.evaluations.jobs import Done, EvaluationJobs
from serve_app.personalizer.evaluations.judging import (
    POLICIES,
    LogPart,
    judge_learning,
    judge_served,
)
from serve_app.personalizer.evaluations.kept_operations import (
    AskedTimes,
    KeptOperations,
    asked_times,
    read_time,
    wall_ms,
)
from serve_app.personalizer.evaluations.searching import better_than_online, search_better
from serve_app.personalizer.evaluations.told import WINDOWS, AskedSeries, told
from serve_app.personalizer.loops.loop import StoredLoop
from serve_app.personalizer.refusals import RefusedCall
from serve_app.personalizer.route import PersonalizerRoute
from serve_app.settings import Settings
from serve_app.store.evaluations.kept import KeptEvaluation
from serve_app.store.evaluations.series import read_series

MOST_POLICIES = 10
MOST_WINDOWS = 2500
"""Windows of one width that a series may have: of a longer time the shortest are left out."""


class EvaluationOperations(KeptOperations):
    """The handlers, over the policies that are served."""

    kind = "evaluations"
    parameter = "evaluation"
    target = "evaluationId"
    word = "an evaluation"
    code = "Evaluation"

    def __init__(
        self, settings: Settings, loops: Mapping[str, StoredLoop], jobs: EvaluationJobs
    ) -> None:
        """Take what evaluations are made of; see ``KeptOperations``."""
        super().__init__(settings, loops, jobs)
        jobs.does[self.kind] = self._evaluated

    async def create(self, call: Call[EvaluationContract]) -> Answer:
        """Begin an evaluation; it is done by a process beside this one."""
        sent, name = call.request, self.new_id(call)
        times = _checked(sent)
        loop = self.loops[call.policy]
        logged = await loop.demand_log(times.start, times.end)
        searches = sent.enable_policy_optimization or sent.enable_offline_experimentation
        kept = KeptEvaluation(
            name,
            sent.name,
            sent.start_time,
            sent.end_time,
            wall_ms(),
            "Running",
            asked={each.name: each.arguments for each in sent.policies or ()},
            base=arguments_of(await loop.spec()) if searches else "",
            minutes=widths_of(times, logged),
        )
        return await self.begin(call, kept)

    def _evaluated(self, policy: str, kept: KeptEvaluation) -> Done:
        """Return an evaluation with what it has found; it blocks."""
        log = join_name(self.settings.archive_root(), policy)
        start, end = (read_time(each, "").isoformat() for each in (kept.start, kept.end))
        part = LogPart(log, start, end, kept.minutes)

        served = judge_served(part)
        if served.waits:  # as there: it is done, and there is nothing to tell yet
            return msgspec.structs.replace(kept, status="Succeeded", said=served.said), {}
        custom = judge_learning(part, kept.asked, "Custom") if served.found else served
        if not served.found or len(custom.found) < len(kept.asked):
            return msgspec.structs.replace(kept, status="Failed", said=custom.said), {}
        judged = [served, custom]
        if kept.base:
            judged.append(search_better(part, kept.base, kept.asked))

        found = [each for one in judged for each in one.found]
        said = " ".join(filter(None, (one.said for one in judged)))
        ended = msgspec.structs.replace(
            kept, status="Succeeded", found=found, said=said, best=better_than_online(found)
        )
        return ended, {name: each for one in judged for name, each in one.series.items()}

    async def get(self, call: Call[None]) -> EvaluationBody:
        """Return an evaluation with what it has found so far."""
        asked = _asked_series(call.query)
        kept = await self.kept(call)
        series = await self.jobs.stored(lambda client: read_series(client, call.policy, kept.job))
        return told(kept, series, asked)

    async def list(self, call: Call[None]) -> ListedBodies:
        """Return evaluations, the newest first."""
        asked: ListQuery = call.query
        # All are asked for by somebody: none is of another type.
        listed = [] if "'Auto'" in asked.filter else await self.listed(call)
        return ListedBodies([told(each) for each in listed])

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


def widths_of(times: AskedTimes, logged: Sequence[int]) -> list[int]:
    """Return the widths of the windows that an evaluation has series of, in minutes.

    Args:
        times: of the evaluation.
        logged: from when to when there is a log, in milliseconds since 1970.
    """
    first = max(1000 * times.start.timestamp(), logged[0])
    last = min(1000 * times.end.timestamp(), logged[1])
    span = timedelta(milliseconds=max(last - first, 0))
    fit = [each for each in WINDOWS if span <= MOST_WINDOWS * timedelta(minutes=each)]
    return fit or [max(WINDOWS)]


def _asked_series(query: EvaluationQuery) -> AskedSeries:
    """Return which part of its series is asked for; refuse an interval or a time that is none."""
    minutes = 5 if query.interval_in_minutes is None else query.interval_in_minutes
    if minutes not in WINDOWS or query.window not in (None, WINDOWS[minutes]):
        raise RefusedCall(
            400,
            "InvalidEvaluationContract",
            "an interval is of 5 minutes, Expanding, or of 60, 360, 720 or 1440, Rolling",
            "intervalInMinutes",
        )
    start, end = (
        None if text is None else read_time(text, target)
        for text, target in ((query.start_time, "startTime"), (query.end_time, "endTime"))
    )
    return AskedSeries(minutes, _ms(start), _ms(end))


def _ms(moment: datetime | None) -> float | None:
    return None if moment is None else 1000 * moment.timestamp()


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
    of_others = [name for name, _ in POLICIES.values()]
    if len({*names, *of_others}) != len(names) + len(of_others):
        raise RefusedCall(
            400,
            "DuplicateCustomPolicyNames",
            f"two policies of one name; {', '.join(of_others)} are there already",
            "policies",
        )
    for each in sent.policies or ():
        try:
            with_arguments(PolicySpec("custom"), each.arguments)
        except BanditloopError as error:
            raise RefusedCall(
                400, "InvalidPolicyConfiguration", f"{each.name}: {error.message}", "policies"
            ) from error

    return asked_times(sent.start_time, sent.end_time)
