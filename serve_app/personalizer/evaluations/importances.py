"""The operations on feature importances."""

from collections.abc import Mapping
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
from serve_app.personalizer.evaluations.jobs import Done, EvaluationJobs
from serve_app.personalizer.evaluations.kept_operations import (
    KeptOperations,
    asked_times,
    kept_status,
    told_time,
    wall_ms,
)
from serve_app.personalizer.evaluations.weighing import WeighingRequest, weigh_features
from serve_app.personalizer.loops.loop import StoredLoop
from serve_app.personalizer.route import PersonalizerRoute
from serve_app.settings import Settings
from serve_app.store.evaluations.kept import KeptEvaluation


class ImportanceOperations(KeptOperations):
    """The handlers, over the policies that are served."""

    kind = "importances"
    parameter = "importance"
    target = "featureImportanceId"
    word = "a feature importance"
    code = "FeatureImportance"

    def __init__(
        self, settings: Settings, loops: Mapping[str, StoredLoop], jobs: EvaluationJobs
    ) -> None:
        """Take what feature importances are made of; see ``KeptOperations``."""
        super().__init__(settings, loops, jobs)
        jobs.does[self.kind] = self._weighed

    async def create(self, call: Call[FeatureImportanceContract]) -> Answer:
        """Begin to weigh features; it is done by a process beside this one."""
        sent, name = call.request, self.new_id(call)
        times = asked_times(sent.start_time, sent.end_time)
        await self.loops[call.policy].demand_log(times.start, times.end)
        kept = KeptEvaluation(name, sent.name, sent.start_time, sent.end_time, wall_ms(), "Running")
        return await self.begin(call, kept)

    def _weighed(self, policy: str, kept: KeptEvaluation) -> Done:
        """Return feature importances with what was found; it blocks."""
        settings = self.settings
        address = LogAddress(
            str(settings.redis_url), policy, settings.archive_root(), settings.secret()
        )
        times = asked_times(kept.start, kept.end)
        start, end = (f"{int(each.timestamp() * 1000)}-0" for each in times)
        found = weigh_features(WeighingRequest(msgspec.msgpack.encode(address), start, end))
        status = "Succeeded" if found.is_done else "Failed"
        return msgspec.structs.replace(
            kept, status=status, scores=found.scores, said=found.said
        ), {}

    async def get(self, call: Call[None]) -> FeatureImportance:
        """Return feature importances, with their scores once they are there."""
        return _body(await self.kept(call), whole=True)

    async def list(self, call: Call[None]) -> ListedBodies:
        """Return all feature importances, the newest first, without their scores."""
        return ListedBodies([_body(each, whole=False) for each in await self.listed(call)])

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


def _body(kept: KeptEvaluation, *, whole: bool) -> FeatureImportance:
    scores = [ImportantFeature(each.namespace, each.name, each.score) for each in kept.scores]
    return FeatureImportance(
        id=kept.id,
        name=kept.name,
        start_time=kept.start,
        end_time=kept.end,
        creation_time=told_time(kept.made_ms),
        status=kept_status(kept),
        description=(kept.said or None) if whole else None,
        feature_scores=scores if whole else None,
    )
