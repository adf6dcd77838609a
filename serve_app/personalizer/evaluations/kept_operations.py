"""What evaluations and feature importances have in common: begun by an id, looked at, forgotten."""

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple

from serve_app.api.routes import Call
from serve_app.api.wire import JSON, Answer
from serve_app.personalizer.evaluations.bodies import ListQuery
from serve_app.personalizer.evaluations.jobs import OVERDUE_MS, EvaluationJobs
from serve_app.personalizer.loops.loop import StoredLoop
from serve_app.personalizer.refusals import RefusedCall
from serve_app.personalizer.single_slot import check_id
from serve_app.settings import Settings
from serve_app.store.evaluations.kept import (
    KeptEvaluation,
    Kind,
    delete_evaluation,
    read_evaluation,
    read_evaluations,
)

_OF_TYPE = re.compile(r"\s*(?:metadata\s*=\s*)?evaluationType\s+eq\s+'(Manual|Auto)'\s*")
"""What a list is asked to be of; none is begun by itself here, so there are manual ones only."""
NOTHING: Answer = (204, b"", JSON)
MADE: Answer = (200, b"", JSON)


class AskedTimes(NamedTuple):
    """From when to when."""

    start: datetime
    end: datetime


class KeptOperations:
    """The handlers that both have, over the policies that are served.

    Attributes:
        kind: of what is kept.
        parameter: the id's name in a path.
        target: the id's name in an error.
        word: what one is called.
        code: what the protocol's codes of one begin with.
    """

    kind: ClassVar[Kind]
    parameter: ClassVar[str]
    target: ClassVar[str]
    word: ClassVar[str]
    code: ClassVar[str]

    def __init__(
        self, settings: Settings, loops: Mapping[str, StoredLoop], jobs: EvaluationJobs
    ) -> None:
        """Take what they are made of.

        Args:
            settings: of the service.
            loops: by policy.
            jobs: does them.
        """
        self.settings, self.loops, self.jobs = settings, loops, jobs

    def new_id(self, call: Call[Any]) -> str:
        """Return the id that a caller gives to a new one; refuse one that cannot be."""
        name = call.parameters[self.parameter]
        check_id(name, self.target)
        return name

    async def begin(self, call: Call[Any], kept: KeptEvaluation) -> Answer:
        """Begin one; it is done by a process beside this one.

        Args:
            call: the request.
            kept: what was asked.

        Raises:
            RefusedCall: there is one of this id.
        """
        if not await self.jobs.begin(call.policy, self.kind, kept):
            raise RefusedCall(
                400,
                f"{self.code}AlreadyExists",
                f"there is {self.word} {kept.id!r}: give another id",
                self.target,
            )
        return MADE

    async def kept(self, call: Call[None]) -> KeptEvaluation:
        """Return one.

        Raises:
            RefusedCall: there is none of this id.
        """
        name = call.parameters[self.parameter]
        kept = await self.jobs.stored(
            lambda client: read_evaluation(client, call.policy, name, self.kind)
        )
        if kept is None:
            raise self._unknown(name)
        return kept

    async def listed(self, call: Call[None]) -> list[KeptEvaluation]:
        """Return those that are asked for, the newest first.

        Raises:
            RefusedCall: the filter is none that there is.
        """
        asked: ListQuery = call.query
        of_type = _OF_TYPE.fullmatch(asked.filter)
        if asked.filter and of_type is None:
            raise RefusedCall(
                400, "InvalidRequest", "a filter is metadata=evaluationType eq 'Manual'", "filter"
            )
        if of_type is not None and of_type[1] == "Auto":
            return []

        kept = await self.jobs.stored(
            lambda client: read_evaluations(client, call.policy, self.kind)
        )
        return kept[asked.skip :][: asked.top]

    async def delete(self, call: Call[None]) -> Answer:
        """Forget one."""
        name = call.parameters[self.parameter]
        if not await self.jobs.stored(
            lambda client: delete_evaluation(client, call.policy, name, self.kind)
        ):
            raise self._unknown(name)
        return NOTHING

    def _unknown(self, name: str) -> RefusedCall:
        return RefusedCall(
            404, f"{self.code}NotFound", f"there is no {self.code} {name!r}", self.target
        )


def asked_times(start: str, end: str) -> AskedTimes:
    """Return from when to when; refuse what is no time that has been.

    Args:
        start: from when, as it was sent.
        end: until when.
    """
    times = AskedTimes(read_time(start, "startTime"), read_time(end, "endTime"))
    if not times.start < times.end or times.end > datetime.now(UTC):
        raise RefusedCall(
            400,
            "InvalidDateTimesInEvaluationContract",
            "an evaluation is from some time to a later one, which has been",
            "endTime",
        )
    return times


def read_time(text: str, target: str) -> datetime:
    """Return a time, one without a zone as of UTC.

    Args:
        text: the time.
        target: where it stands in the request.
    """
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


def told_time(time_ms: float) -> str:
    """Return a time, in milliseconds since 1970, as answers have it."""
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def kept_status(kept: KeptEvaluation) -> str:
    """Return how one stands: what nobody goes on with any more has timed out."""
    overdue = kept.status == "Running" and wall_ms() - kept.made_ms > OVERDUE_MS
    return "Timeout" if overdue else kept.status
