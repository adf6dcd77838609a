"""The whole service, wired in one place: settings and specs in, a Ray Serve application out."""

from collections.abc import Sequence

from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from policies.spec import PolicySpec
from serve_app.background import Keeper
from serve_app.deployments import RankReplica
from serve_app.settings import Settings

APP_NAME = "banditloop"


class Ingress(RankReplica):
    """The one deployment on the request path. Holds the keeper's handle only so that it is part of the app."""

    def __init__(self, settings: Settings, specs: list[PolicySpec], keeper: DeploymentHandle) -> None:
        super().__init__(settings, specs)
        self._keeper = keeper


def build_app(settings: Settings, specs: Sequence[PolicySpec]) -> Application:
    """One ingress with ``settings.replicas`` replicas, and the keeper of what runs in the background."""
    # A dead replica is noticed by the next health check. Ray's default is to look every 10 s.
    quick = {
        "graceful_shutdown_wait_loop_s": 0.1,
        "graceful_shutdown_timeout_s": 10,
        "health_check_period_s": 1,
        "ray_actor_options": {"num_cpus": 0},
    }
    keeper = serve.deployment(Keeper, name="keeper").options(num_replicas=1, max_ongoing_requests=1, **quick)
    ingress = serve.deployment(serve.ingress()(Ingress), name="rank").options(
        num_replicas=settings.replicas,
        max_ongoing_requests=settings.max_ongoing_requests,
        max_queued_requests=settings.max_queued_requests,
        # /metrics counts requests: a line for each costs 4% of a replica, and to make and drop it another 2%
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
        **quick,
    )
    return ingress.bind(settings, list(specs), keeper.bind(settings, list(specs)))
