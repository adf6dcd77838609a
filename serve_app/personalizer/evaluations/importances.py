"""The operations on feature importances."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import NoneType
from typing import Any

import msgspec

from banditloop_client.schemas import Endpoint
from serve_app.admin.replayed.verification import LogAddress
from serve_app.api.routes import Call
from serve_app.api.wire import Answer
from serve_app.personalizer.evaluations.bodies import (
    FeatureImportance,
    FeatureImportanceContract,
    ImportantFeature,
    ListedBodies,
    ListQuery,
)
from serve_app.personalizer.evaluations.jobs import EvaluationJobs
from serve_app.personalizer.evaluations.operations import MADE, NOTHING, asked_times, wall_ms
from serve_app.personalizer.evaluations.weighing import WeighingRequest, weigh_features
from serve_app.personalizer.loops.loop import StoredLoop
from serve_app.personalizer.refusals import RefusedCall
from serve_app.personalizer.route import PersonalizerRoute
from serve_app.personalizer.single_slot import check_id
from serve_app.settings import Settings
from serve_app.store.evaluations.kept import (
    KeptEvaluation,
    Kind,
    delete_evaluation,
    read_evaluation,
    read_evaluations,
)

OF: Kind = "importances"


class ImportanceOperations:
    """The handlers, over the policies that are served."""

    def __init__(
        self, settings: Settings, loops: Mapping[str, StoredLoop], jobs: EvaluationJobs
    ) -> None:
        """Take what feature importances are made of.

        Args:
            settings: of the service.
            loops: by policy.
            jobs: does them.
        """
        self._settings, self._loops, self._jobs = settings, loops, jobs
        jobs.does[OF] = self._weighed

    async def create(self, call: Call[FeatureImportanceContract]) -> Answer:
        """Begin to weigh features; it is done by a process beside this one."""
        sent, name = call.request, call.parameters["importance"]
        check_id(name, "featureImportanceId")
        times = asked_times(sent.start_time, sent.end_time)
        await self._loops[call.policy].demand_log(times.start, times.end)
        kept = KeptEvaluation(name, sent.name, sent.start_time, sent.end_time, wall_ms(), "Running")
        if not await self._jobs.begin(call.policy, OF, kept):
            raise RefusedCall(
                400,
                "FeatureImportanceAlreadyExists",
                f"there is a feature importance {name!r}",
                "featureImportanceId",
            )
        return MADE

    def _weighed(self, policy: str, kept: KeptEvaluation) -> KeptEvaluation:
        """Return feature importances with what was found; it blocks."""
        settings = self._settings
        address = LogAddress(
            str(settings.redis_url), policy, settings.archive_root(), settings.secret()
        )
        times = asked_times(kept.start, kept.end)
        start, end = (f"{int(each.timestamp() * 1000)}-0" for each in times)
        scores, said = weigh_features(WeighingRequest(msgspec.msgpack.encode(address), start, end))
        status = "Succeeded" if scores else "Failed"
        return msgspec.structs.replace(kept, status=status, scores=scores, said=said)

    async def get(self, call: Call[None]) -> FeatureImportance:
        """Return feature importances, with their scores once they are there."""
        name = call.parameters["importance"]
        kept = await self._jobs.stored(
            lambda client: read_evaluation(client, call.policy, name, OF)
        )
        if kept is None:
            raise _unknown(name)
        return _body(kept, whole=True)

    async def list(self, call: Call[None]) -> ListedBodies:
        """Return all feature importances, the newest first, without their scores."""
        asked: ListQuery = call.query
        kept = await self._jobs.stored(lambda client: read_evaluations(client, call.policy, OF))
        return ListedBodies([_body(each, whole=False) for each in kept[asked.skip :][: asked.top]])

    async def delete(self, call: Call[None]) -> Answer:
        """Forget feature importances."""
        name = call.parameters["importance"]
        if not await self._jobs.stored(
            lambda client: delete_evaluation(client, call.policy, name, OF)
        ):
            raise _unknown(name)
        return NOTHING

    def routes(self) -> tuple[PersonalizerRoute[Any, Any], ...]:
        """Return the operations as routes."""
        one, none, listed = "/featureImportances/{importance}", NoneType, ListedBodies
        table: tuple[tuple[Endpoint[Any, Any], str, Any], ...] = (
            (Endpoint("PUT", one, FeatureImportanceContract, none, 200), "Weigh", self.create),
            (Endpoint("GET", one, none, FeatureImportance, 200), "Weights", self.get),
            (Endpoint("DELETE", one, none, none, 204), "Forget weights", self.delete),
            (
                Endpoint("GET", "/featureImportances", none, listed, 200, query=ListQuery),
                "All feature importances",
                self.list,
            ),
        )
        return tuple(
            PersonalizerRoute(
                endpoint, summary, scope="admin", handler=handler, refusal="InvalidContract"
            )
            for endpoint, summary, handler in table
        )


def _unknown(name: str) -> RefusedCall:
    return RefusedCall(
        404, "FeatureImportanceNotFound", f"no feature importance {name!r}", "featureImportanceId"
    )


def _body(kept: KeptEvaluation, *, whole: bool) -> FeatureImportance:
    made = datetime.fromtimestamp(kept.made_ms / 1000, UTC)
    scores = [ImportantFeature(each.namespace, each.name, each.score) for each in kept.scores]
    return FeatureImportance(
        id=kept.id,
        name=kept.name,
        start_time=kept.start,
        end_time=kept.end,
        creation_time=made.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        status=kept.status,
        description=(kept.said or None) if whole else None,
        feature_scores=scores if whole else None,
    )
