"""The whole service, wired in one place: settings and specs in, a Ray Serve application out."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import UNSET
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig
from ray.serve.handle import DeploymentHandle

from bandits.errors import StartupError
from policies.spec import PolicySpec, load_spec, read_spec
from policies.typed_yaml import choices
from serve_app.admin.preflight import check_logs, validate
from serve_app.admin.wanted.specs import governed
from serve_app.host.loopback import refuse_open_doors, serve_host
from serve_app.host.placement import on_node_for
from serve_app.office.deployment import Office
from serve_app.office.names import OFFICE
from serve_app.replica.deployment import RankReplica
from serve_app.settings import Settings
from serve_app.workers.keeper import Keeper

APP_NAME = "banditloop"
RETRY_AFTER_S = 1.0
SURGE_PERCENT = 20
"""Replicas of the next deployment that start before one of this ends: one of up to five."""


class Ingress(RankReplica):
    """The one deployment on the request path.

    It holds the keeper's handle only to make the keeper part of the application.
    """

    def __init__(
        self, settings: Settings, specs: list[PolicySpec], keeper: DeploymentHandle
    ) -> None:
        super().__init__(settings, specs)
        self._keeper = keeper


def new_generation() -> int:
    """Return the number of a deployment, which is greater than that of any before it."""
    return time.time_ns() // 1_000_000


def build_app(
    settings: Settings,
    specs: Sequence[PolicySpec],
    generation: int,
    since: Mapping[str, int] | None = None,
    given: Sequence[PolicySpec] | None = None,
) -> Application:
    """Return the application: an ingress with its replicas, and the keeper of the workers.

    Args:
        settings: of the service.
        specs: the policies to serve.
        generation: that of the deployment.
        since: of the workers that it keeps of the one before, the generation that began them.
        given: the specs of a Serve config, where the keeper is to have served what clients set.
    """
    # A dead replica is noticed by the next health check. Ray's default is to look every 10 s.
    quick = {
        "graceful_shutdown_wait_loop_s": 0.1,
        "graceful_shutdown_timeout_s": 10,
        "health_check_period_s": 1,
    }
    # Of two keepers the newer one wins, so it can start before the older one ends: no policy is
    # without a learner.
    keeper = serve.deployment(Keeper, name="keeper").options(
        num_replicas=1,
        max_ongoing_requests=1,
        max_surge_percent=100,
        ray_actor_options={"num_cpus": 0, **on_node_for("learner")},
        **quick,
    )

    # Where a core is not set aside for each replica, another finds room. Elsewhere a change would
    # wait for a node, unless there is but one replica: then nobody would answer.
    surges = settings.replica_cpus == 0 or settings.replicas == 1
    ingress = serve.deployment(serve.ingress()(Ingress), name="rank").options(
        num_replicas=settings.replicas,
        max_surge_percent=SURGE_PERCENT if surges else 0,
        max_ongoing_requests=settings.max_ongoing_requests,
        max_queued_requests=settings.max_queued_requests,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=RETRY_AFTER_S),
        ray_actor_options={"num_cpus": settings.replica_cpus, **on_node_for("serve")},
        # /metrics counts requests: a line for each costs 4% of a replica, and to make and drop it
        # another 2%
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
        **quick,
    )

    kept = keeper.bind(
        settings,
        list(specs),
        generation,
        dict(since or {}),
        None if given is None else list(given),
    )
    return ingress.bind(settings, list(specs), kept)


def build_office(settings: Settings, api_url: str, forks: str | None = None) -> Application:
    """Return the application of the console: one process beside the replicas.

    Args:
        settings: of the service.
        api_url: where the service's HTTP API is, as this process reaches it.
        forks: the name of the fork server's socket, of which commands are forked; None: each begins
            by itself.
    """
    office = serve.deployment(serve.ingress()(Office), name=OFFICE).options(
        num_replicas=1,
        max_ongoing_requests=64,
        ray_actor_options={"num_cpus": 0, **on_node_for("serve")},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=2,
    )
    return office.bind(settings, api_url, forks)


def api_address(settings: Settings) -> str:
    """Return where a process on a node of the service reaches its HTTP API."""
    everywhere = settings.host in {"0.0.0.0", "::"}  # noqa: S104 - it is asked, not opened
    host = "127.0.0.1" if everywhere else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


class ClusterArgs(BaseModel):
    """``args`` of the application in a Serve config file.

    ``policies``: specs, each the path of a file that every node has or the spec itself.
    ``settings``: fields of ``Settings``; what is not named there comes from the nodes' environment
    (``BANDITLOOP_REDIS_URL``, ``BANDITLOOP_SALT``), and secrets should. ``edition``: which specs
    clients have set; the service writes it, where it deploys the config again because of them.
    """

    model_config = ConfigDict(extra="forbid")

    policies: list[str | dict[str, Any]] = Field(min_length=1)
    settings: dict[str, Any] = {}
    edition: str = ""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        if isinstance(given, dict) and (unknown := sorted(set(given) - set(cls.model_fields))):
            raise ValueError(
                f"no argument is called {unknown[0]!r}: {choices(unknown[0], cls.model_fields)}"
            )
        return given


def build(args: ClusterArgs) -> Application:
    """Return the application of a Serve config file: ``import_path: serve_app.app:build``.

    Raises:
        StartupError, SpecError, ArtifactError: it names the setting, field or file at fault.
    """
    specs = [_spec_of(policy, number) for number, policy in enumerate(args.policies)]
    return build_for_cluster(_settings_of(args.settings), specs)


def build_for_cluster(settings: Settings, given: Sequence[PolicySpec]) -> Application:
    """Return the application of a Serve config: what it says, or what clients have set since.

    Args:
        settings: of the service.
        given: the policies of the config.

    Raises:
        StartupError, SpecError, ArtifactError: it names the setting, field or file at fault.
    """
    settings, specs = fit_for_cluster(settings, given)
    return build_app(settings, specs, new_generation(), given=given)


def fit_for_cluster(
    settings: Settings, given: Sequence[PolicySpec]
) -> tuple[Settings, list[PolicySpec]]:
    """Return the settings and the policies of a cluster; refuse what only works on one machine.

    Args:
        settings: of the service.
        given: the policies of the files; clients may have set others.

    Raises:
        StartupError, SpecError, ArtifactError: it names the setting, field or file at fault.
    """
    # Every node must find the same things.
    if settings.redis_url is None:
        raise StartupError(
            "a cluster needs a Redis that every node reaches: set BANDITLOOP_REDIS_URL on every"
            " node",
            "redis_url",
        )
    if settings.salt is None:
        raise StartupError(
            "every node needs the same salt: set BANDITLOOP_SALT on every node", "salt"
        )
    if settings.archive is None:
        raise StartupError(
            "say where every node reaches the archive: archive: s3://bucket/prefix, or none",
            "archive",
        )

    if settings.users_backup is None and any(spec.profile is not UNSET for spec in given):
        raise StartupError(
            "say where every node reaches the copies of who users are: users_backup:"
            " s3://bucket/prefix, or none",
            "users_backup",
        )

    settings.secret()
    refuse_open_doors(settings.model_copy(update={"host": serve_host()}))

    # Clients may set specs as soon as they are answered.
    specs = governed(settings, given) or list(given)
    validate(settings, specs)
    check_logs(str(settings.redis_url), specs)
    roots = {"archive": settings.archive_root(), "users_backup": settings.users_backup_root()}
    return settings.model_copy(update=roots), specs


class ConsoleArgs(BaseModel):
    """``args`` of the console's application in a Serve config file.

    ``settings``: as those of the service's application.
    """

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any] = {}


def build_console(args: ConsoleArgs) -> Application:
    """Return the console's application of a Serve config file, whose route_prefix is ``/console``.

    Raises:
        StartupError: it names the setting at fault.
    """
    settings = _settings_of(args.settings)
    if settings.redis_url is None or settings.salt is None or settings.archive is None:
        raise StartupError(
            "the console needs what the service has: BANDITLOOP_REDIS_URL, BANDITLOOP_SALT and an"
            " archive",
            "settings",
        )
    return build_office(
        settings.model_copy(update={"archive": settings.archive_root()}), api_address(settings)
    )


def _settings_of(given: dict[str, Any]) -> Settings:
    """Return the settings of a Serve config file.

    Raises:
        StartupError: it names the setting at fault.
    """
    if unknown := sorted(set(given) - set(Settings.model_fields)):
        known = choices(unknown[0], Settings.model_fields)
        raise StartupError(f"no setting is called {unknown[0]!r}: {known}", unknown[0])

    # The text of pydantic's error may hold the value, and that may be a secret.
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "settings"
        raise StartupError(f"settings: {field}: {first['msg']}", field) from None


def _spec_of(policy: str | dict[str, Any], number: int) -> PolicySpec:
    """Return a spec that is given as a path or as itself."""
    if isinstance(policy, str):
        return load_spec(Path(policy))
    return read_spec(policy, f"policies[{number}]", Path.cwd())
