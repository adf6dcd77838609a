"""The whole service, wired in one place: settings and specs in, a Ray Serve application out."""

from collections.abc import Sequence

from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from policies.spec import PolicySpec
from serve_app.deployments import Archiver, Learner, RankReplica
from serve_app.settings import Settings

APP_NAME = "banditloop"


class Ingress(RankReplica):
    """The one deployment on the request path. Holds the others' handles only so that they are part of the app."""

    def __init__(self, settings: Settings, specs: list[PolicySpec], *others: DeploymentHandle) -> None:
        super().__init__(settings, specs)
        self._others = others


def build_app(settings: Settings, specs: Sequence[PolicySpec]) -> Application:
    """One ingress with ``settings.replicas`` replicas, a learner per policy with its standbys, and the archiver."""
    # A dead replica is noticed by the next health check. Ray's default is to look every 10 s.
    quick = {"graceful_shutdown_wait_loop_s": 0.1, "graceful_shutdown_timeout_s": 10, "health_check_period_s": 1}
    learners = [
        serve.deployment(Learner, name=f"learner-{spec.name}")
        .options(
            num_replicas=1 + spec.learner.standbys,
            max_ongoing_requests=1,
            ray_actor_options={"num_cpus": 0},
            **quick,
        )
        .bind(settings, spec)
        for spec in specs
    ]
    archivers = [
        serve.deployment(Archiver, name="archiver")
        .options(num_replicas=1, max_ongoing_requests=1, ray_actor_options={"num_cpus": 0}, **quick)
        .bind(settings, [spec.name for spec in specs])
    ]
    ingress = serve.deployment(serve.ingress()(Ingress), name="rank").options(
        num_replicas=settings.replicas,
        max_ongoing_requests=settings.max_ongoing_requests,
        max_queued_requests=settings.max_queued_requests,
        logging_config={"enable_access_log": False},  # /metrics counts requests; a line for each costs 4% of a replica
        ray_actor_options={"num_cpus": 0},
        **quick,
    )
    return ingress.bind(settings, list(specs), *learners, *(archivers if settings.archive_root() else ()))
