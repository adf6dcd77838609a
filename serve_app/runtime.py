"""Starting and stopping what the service stands on: an embedded Valkey, Ray, Serve."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from bandits.errors import SpecError, StartupError
from bandits.vw_merge import check_mergeable
from policies import artifact
from policies.blend import make_learner
from policies.catalogue import Catalogue
from policies.sources import load_sources
from policies.spec import PolicySpec, VwConfig, decode_spec
from serve_app.client import is_ready
from serve_app.embedded import embedded_valkey, running_url
from serve_app.environment import is_free, prepare_environment
from serve_app.keys import Keys
from serve_app.loopback import check_ray_is_on_loopback, ray_on_loopback, refuse_open_doors
from serve_app.redis_clients import blocking_client
from serve_app.security import read_keys
from serve_app.settings import Settings
from serve_app.stored import partition_count

READY_S = 120.0
PATIENCE_S = 10.0
POLL_S = 0.2

log = logging.getLogger("banditloop.runtime")


@contextlib.contextmanager
def valkey(settings: Settings) -> Iterator[str]:
    """The URL of the configured Redis, or of an embedded Valkey that lives as long as this context."""
    if settings.redis_url is not None:
        yield settings.redis_url
        return
    with embedded_valkey(settings.data_dir / "valkey", settings.durability) as url:
        yield url


@contextlib.contextmanager
def any_redis(settings: Settings) -> Iterator[str]:
    """For commands: the configured Redis, the embedded Valkey of a service that runs, or one of our own meanwhile."""
    folder = settings.data_dir / "valkey"
    running = running_url(folder) if settings.redis_url is None else None
    if running is not None:
        yield running
        return
    if settings.redis_url is None and not folder.exists():
        message = f"no service has kept a log in {settings.data_dir}: use --data-dir or --redis-url"
        raise StartupError(message, "data_dir")
    with valkey(settings) as url:
        yield url


def validate(specs: Sequence[PolicySpec]) -> None:
    """Refuse what replicas and learners would stumble over, while it can still be said in one line.

    Raises:
        SpecError, ArtifactError: which names the field or file.
    """
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise SpecError(f"two specs share a name: {sorted(names)}", "name")
    for spec in specs:
        decode_spec(spec.encoded)  # one made in Python is held to what a file is held to; its name becomes part of keys
        make_learner(spec, salt=b"validation")
        if spec.partitions > 1 and isinstance(spec.learner, VwConfig):
            check_mergeable(spec.learner.args)
        trained = artifact.load(Path(spec.artifact)) if spec.artifact else None
        load_sources(trained, spec.sources)
        if trained is not None:
            Catalogue.of(trained.catalogue)


def check_partitions(url: str, specs: Sequence[PolicySpec]) -> None:
    """Refuse to divide a log otherwise than it is: rewards would miss their decisions.

    Raises:
        SpecError: which names the policy.
    """
    with contextlib.closing(blocking_client(url)) as client:
        for spec in specs:
            begun = client.exists(Keys(spec.name).head)
            count = partition_count(client, spec.name) if begun else spec.partitions
            if count != spec.partitions:
                raise SpecError(
                    f"the log of {spec.name} is in {count} partitions and stays so: set partitions to {count}, or begin"
                    " a policy of another name",
                    "partitions",
                )


@contextlib.contextmanager
def serving(settings: Settings, specs: Sequence[PolicySpec]) -> Iterator[str]:
    """The whole service, until the context ends. Yields its base URL once every policy is ready.

    Raises:
        StartupError: it does not start; with the reason.
    """
    prepare_environment()
    refuse_open_doors(settings)
    if settings.keys_file is not None:
        read_keys(settings.keys_file)
        settings = settings.model_copy(update={"keys_file": settings.keys_file.resolve()})
    if not is_free(settings.host, settings.port):
        raise StartupError(f"cannot listen on {settings.host}:{settings.port}: try --port", "port")
    validate(specs)
    if settings.archive_root():
        from policies.storage import Storage

        Storage(settings.archive_root(), "")
    import ray
    from ray import serve

    from serve_app.app import APP_NAME, build_app

    with valkey(settings) as url, ray_on_loopback(settings) as inside:
        settings = settings.model_copy(
            update={
                "redis_url": url,
                "data_dir": Path(settings.data_dir).resolve(),
                "archive": settings.archive_root(),
            }
        )
        settings.secret()
        with contextlib.suppress(RedisError, OSError):  # then replicas and learners wait for it
            check_partitions(url, specs)
        ray.init(
            address="local",  # its own, whatever else runs on this machine
            namespace="banditloop",
            include_dashboard=False,
            log_to_driver=settings.log_level == "DEBUG",
            logging_level=logging.WARNING,
            object_store_memory=128 * 2**20,
        )
        try:
            check_ray_is_on_loopback(ray.util.get_node_ip_address())
            serve.start(http_options={"host": inside, "port": settings.port})
            target = serve.RunTarget(build_app(settings, specs), APP_NAME)
            serve.run_many([target], wait_for_applications_running=False)
            base = f"http://{f'[{settings.host}]' if ':' in settings.host else settings.host}:{settings.port}"
            _wait_until_ready(base, lambda: serve.status().applications.get(APP_NAME))
            yield base
        finally:
            serve.shutdown()
            ray.shutdown()


def _wait_until_ready(url: str, status: Callable[[], Any]) -> None:
    """Wait until all answers, with every replica there.

    A replica that dies meanwhile makes Serve call the whole deployment failed, and start another one: only a failure
    that lasts ends a service, and none does that answers.

    Raises:
        StartupError: with what Serve says of each deployment that fails.
    """
    began = time.monotonic()
    failing_since = ready_since = math.inf
    while True:
        ready, found, now = is_ready(url), status(), time.monotonic()
        state = None if found is None else found.status
        if ready and state == "RUNNING":
            return
        ready_since = min(ready_since, now) if ready else math.inf
        failing_since = min(failing_since, now) if state == "DEPLOY_FAILED" else math.inf
        if now - ready_since > PATIENCE_S:
            log.warning("ready, though Serve says %s: %s", state, _reasons(found))
            return
        if not ready and now - failing_since > PATIENCE_S:
            raise StartupError(f"not started: {_reasons(found)}", "deployments")
        if now - began > READY_S:
            raise StartupError(
                f"not ready after {READY_S:.0f} s ({_reasons(found)}): see /tmp/ray/session_latest/logs", "deployments"
            )
        time.sleep(POLL_S)


def _reasons(found: Any) -> str:
    if found is None:
        return "Serve knows of no application"
    reasons = [f"{name}: {each.message}" for name, each in found.deployments.items() if each.message]
    return "; ".join(reasons) or found.message or str(found.status)
