"""Starting and stopping what the service stands on: an embedded Valkey, Ray, Serve."""

import contextlib
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from bandits.errors import StartupError
from policies.spec import PolicySpec
from serve_app.admin.preflight import check_logs
from serve_app.admin.wanted.specs import governed
from serve_app.client import is_ready
from serve_app.host.embedded import near_url, valkey
from serve_app.host.environment import join_clusters, prepare_environment
from serve_app.host.front import standing_in
from serve_app.host.lean_ray import lean_ray
from serve_app.host.loopback import (
    check_ray_is_on_loopback,
    is_loopback,
    ray_on_loopback,
    refuse_open_doors,
)
from serve_app.settings import Settings

READY_S = 120.0
PATIENCE_S = 10.0
POLL_S = 0.2
START_S = 5.0
"""How long the next process waits for one to start, where others answer meanwhile."""
CONTROLLER = {"name": "SERVE_CONTROLLER_ACTOR", "namespace": "serve"}
CONTROLLER_POLL_S = 0.05

log = logging.getLogger("banditloop.runtime")


class RunningService:
    """A service that this process has started: where it answers, and what it serves.

    ``generation`` is that of its newest deployment. ``given`` are the specs of the files, and
    ``specs`` those that are served: clients may have set others.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        specs: Sequence[PolicySpec],
        generation: int,
        given: Sequence[PolicySpec],
    ) -> None:
        self.url = url
        self.settings = settings
        self.specs = list(specs)
        self.generation = generation
        self.given = list(given)
        from serve_app.workers.actors import workers_of

        self._since = dict.fromkeys(workers_of(settings, specs), generation)

    def redeploy(self, specs: Sequence[PolicySpec]) -> None:
        """Serve other policies, as a deployment on a cluster does: the new ones beside the old.

        Return once the new ones answer, and what was there before has ended.

        Raises:
            StartupError: they do not start, with the reason; what was served before is again.
        """
        before = self.specs
        self._deploy(specs)
        try:
            self._wait_until_settled()
        except StartupError:
            # A deployment of what was there before is the way back.
            self._deploy(before)
            raise

    def _deploy(self, specs: Sequence[PolicySpec]) -> None:
        from ray import serve

        from serve_app.app import APP_NAME, build_app, new_generation
        from serve_app.workers.actors import kept_since, start_learners, workers_of

        # Who is to do what it does already goes on.
        since = kept_since(self.settings, self.specs, specs, self._since)
        self.specs, self.generation = list(specs), new_generation()
        self._since = dict.fromkeys(workers_of(self.settings, specs), self.generation) | since

        # One after the other: those that answer share the cores with all that starts.
        start_learners(self.settings, specs, self.generation, since, each_s=START_S)
        app = build_app(self.settings, specs, self.generation, since)
        serve.run_many([serve.RunTarget(app, APP_NAME)], wait_for_applications_running=False)

    def _wait_until_settled(self) -> None:
        """Wait until every replica is of the newest deployment, and no worker of an earlier one.

        Raises:
            StartupError: it does not get there within READY_S, or lastingly fails.
        """
        from ray import serve

        from serve_app.app import APP_NAME
        from serve_app.workers.keeper import other_generations

        began, failing_since = time.monotonic(), math.inf
        kept = [f"{called}.{since}" for called, since in self._since.items()]
        while True:
            application, now = serve.status().applications.get(APP_NAME), time.monotonic()
            runs = application is not None and _only_runs(application)
            if runs and not other_generations(self.generation, kept)[0]:
                return
            failed = application is not None and application.status == "DEPLOY_FAILED"
            failing_since = min(failing_since, now) if failed else math.inf
            if now - failing_since > PATIENCE_S or now - began > READY_S:
                raise StartupError(
                    f"not served after {now - began:.0f} s ({_reasons(application)}): see"
                    " /tmp/ray/session_latest/logs",
                    "deployments",
                )
            time.sleep(POLL_S)


@contextlib.contextmanager
def serving(
    settings: Settings, specs: Sequence[PolicySpec], forks: str | None = None
) -> Iterator[RunningService]:
    """Run the whole service until the context ends; yield it once it is ready.

    What it needs is tried before: see ``preflight.demand_all``.

    Args:
        settings: of the service.
        specs: the policies to serve.
        forks: the name of the fork server's socket; None: each process starts by itself.

    Raises:
        StartupError: it does not start; with the reason.
    """
    prepare_environment()
    refuse_open_doors(settings)
    if settings.keys_file is not None:
        settings = settings.model_copy(update={"keys_file": settings.keys_file.resolve()})
    import ray

    with valkey(settings) as url, ray_on_loopback(settings) as inside:
        settings = settings.model_copy(
            update={
                "redis_url": near_url(settings, url),
                "data_dir": Path(settings.data_dir).resolve(),
                "archive": settings.archive_root(),
                "users_backup": settings.users_backup_root(),
            }
        )
        settings.secret()
        check_logs(url, specs)
        given = specs
        # Clients may set specs as soon as they are answered.
        specs = governed(settings, given) or list(given)

        try:
            with ThreadPoolExecutor(1) as pool:
                # The import takes most of a second, in which Ray's processes start.
                pool.submit(import_module, "serve_app.app")
                follows_logs = settings.log_level == "DEBUG"
                lean = lean_ray(settings.data_dir, forks=forks, follows_logs=follows_logs)
                with _signals_wait(), lean:
                    ray.init(
                        address="local",  # its own, whatever else runs on this machine
                        namespace="banditloop",
                        include_dashboard=False,
                        log_to_driver=follows_logs,
                        logging_level=logging.WARNING,
                        object_store_memory=128 * 2**20,
                    )
            from ray import serve

            from serve_app.app import APP_NAME, build_app, new_generation
            from serve_app.workers.actors import start_learners

            check_ray_is_on_loopback(ray.util.get_node_ip_address())

            # Learners start while Serve does: they take as long as a replica.
            generation = new_generation()
            start_learners(settings, specs, generation)
            target = serve.RunTarget(build_app(settings, specs, generation), APP_NAME)
            with _serve_started({"host": inside, "port": settings.port}):
                serve.run_many([target], wait_for_applications_running=False)
            base = _url(settings.host, settings.port)
            _wait_until_ready(base, lambda: serve.status().applications.get(APP_NAME), len(specs))
            if settings.console == "on":
                _open_office(settings, forks)
            with standing_in(settings):
                yield RunningService(base, settings, specs, generation, given)
        finally:
            _stop_ray()


@contextlib.contextmanager
def serving_on_cluster(
    settings: Settings, specs: Sequence[PolicySpec], address: str
) -> Iterator[RunningService]:
    """Run the application on a Ray cluster until the context ends; yield it once it is ready.

    What Redis, salt and archive must be for that: see ``fit_for_cluster``.

    Args:
        settings: of the service.
        specs: the policies to serve.
        address: auto, or HOST:PORT of the cluster's head.

    Raises:
        StartupError: no cluster answers, or it does not start; with the reason.
    """
    prepare_environment()
    join_clusters()
    if settings.keys_file is not None:
        settings = settings.model_copy(update={"keys_file": settings.keys_file.resolve()})
    import ray
    from ray import serve

    from serve_app.app import APP_NAME, build_app, fit_for_cluster, new_generation
    from serve_app.office.names import OFFICE_APP

    # All nodes get the salt that is kept here, if the environment has none.
    if settings.redis_url is not None:
        settings = settings.model_copy(update={"salt": SecretStr(settings.secret().decode())})
    try:
        with _signals_wait():
            ray.init(
                address=address,
                namespace="banditloop",
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
    except ConnectionError as error:
        raise StartupError(f"no Ray cluster answers at {address!r}: {error}", "address") from error

    try:
        serve.start(http_options={"host": settings.host, "port": settings.port})
        given, generation = specs, new_generation()
        settings, specs = fit_for_cluster(settings, given)
        target = serve.RunTarget(build_app(settings, specs, generation), APP_NAME)
        serve.run_many([target], wait_for_applications_running=False)
        base = _url(settings.host if is_loopback(settings.host) else "127.0.0.1", settings.port)
        try:
            _wait_until_ready(base, lambda: serve.status().applications.get(APP_NAME), len(specs))
            if settings.console == "on":
                _open_office(settings)
            yield RunningService(base, settings, specs, generation, given)
        finally:
            serve.delete(APP_NAME)
            if settings.console == "on":
                serve.delete(OFFICE_APP)
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Hold back signals that come meanwhile; they have their effect at the end.

    Interrupted, Ray leaves processes behind for a minute. It also installs handlers of its own,
    which exit, or print a trace and end; at the end the handlers of before are back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    from ray._private import utils

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    came: list[int] = []
    for number in before:
        signal.signal(number, lambda number, _: came.append(number))
    rays_own, utils.set_sigterm_handler = utils.set_sigterm_handler, lambda _: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = rays_own
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _stop_ray() -> None:
    """Stop Serve and Ray, as far as they have started."""
    import ray
    from ray import serve

    if ray.is_initialized():
        try:
            serve.shutdown()
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _serve_started(http_options: dict[str, Any]) -> Iterator[None]:
    """Start Serve: its controller before the context begins, HAProxy before it ends.

    HAProxy takes seconds longer.
    """
    import ray
    from ray import serve

    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(serve.start, http_options=http_options)
        while not started.done() and CONTROLLER not in ray.util.list_named_actors(
            all_namespaces=True
        ):
            time.sleep(CONTROLLER_POLL_S)
        if started.done():
            started.result()  # raises what went wrong

        yield
        started.result()


def _open_office(settings: Settings, forks: str | None = None) -> None:
    """Start the console's process; nobody waits for it: the service is ready without.

    Args:
        settings: of the service.
        forks: the name of the fork server's socket, if there is one on this machine.
    """
    from ray import serve

    from serve_app.app import api_address, build_office
    from serve_app.office.names import CONSOLE_PREFIX, OFFICE_APP

    app = build_office(settings, api_address(settings), forks)
    target = serve.RunTarget(app, OFFICE_APP, route_prefix=CONSOLE_PREFIX)
    serve.run_many([target], wait_for_applications_running=False)


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _wait_until_ready(url: str, status: Callable[[], Any], policies: int) -> None:
    """Wait until the service answers, with every replica there.

    Return, too, when it has answered for PATIENCE_S while Serve still says that something fails,
    and when some policies, but not all, stand still before they have a model.

    Args:
        url: the service's.
        status: returns what Serve says of the application; None while it knows of none.
        policies: the number of policies that are served.

    Raises:
        StartupError: it does not start within READY_S, or lastingly fails; with what Serve says of
            each deployment that fails, or where learning stands still.
    """
    began = time.monotonic()
    failing_since = ready_since = stalled_since = math.inf
    while True:
        ready, application, now = is_ready(url), status(), time.monotonic()
        state = None if application is None else application.status
        if ready and state == "RUNNING":
            return

        # A replica that dies while others start makes Serve call the whole deployment failed, and
        # start another replica. So a failure counts when it lasts, and not if the service answers.
        ready_since = min(ready_since, now) if ready else math.inf
        failing_since = min(failing_since, now) if state == "DEPLOY_FAILED" else math.inf
        if now - ready_since > PATIENCE_S:
            log.warning("ready, though Serve says %s: %s", state, _reasons(application))
            return

        # Policies whose learning stands still before they had a model do not hold up the others.
        stalled = [] if ready else without_model(url)
        stalled_since = min(stalled_since, now) if stalled else math.inf
        if now - stalled_since > PATIENCE_S:
            why = f"{'; '.join(stalled)}: see /tmp/ray/session_latest/logs for the reason"
            if len(stalled) == policies:
                raise StartupError(f"not started: {why}", "learning")
            log.error("serving the other policies: %s", why)
            return

        if not ready and now - failing_since > PATIENCE_S:
            raise StartupError(f"not started: {_reasons(application)}", "deployments")
        if now - began > READY_S:
            raise StartupError(
                f"not ready after {READY_S:.0f} s ({_reasons(application)}): see"
                " /tmp/ray/session_latest/logs",
                "deployments",
            )

        time.sleep(POLL_S)


def without_model(url: str) -> list[str]:
    """Say why each policy without a snapshot waits, if learning stands still for all of them.

    Args:
        url: of a service that is not ready.
    """
    try:
        answer = httpx.get(f"{url}/readyz", timeout=2).json()
        where = {
            stalled["policy"]: f"the {stalled['kind']} at {stalled['entry']}"
            for stalled in answer["stalled"]
        }
        waiting: list[str] = answer["waiting_for"]
    except (httpx.TransportError, ValueError, KeyError, TypeError):
        return []

    if not set(waiting) <= set(where):
        return []
    return [
        f"policy {name} has no model, and its learning stands still at {where[name]}"
        for name in waiting
    ]


def _only_runs(application: Any) -> bool:
    """Return whether an application runs, and none of its replicas starts, stops or is old."""
    states = {state for each in application.deployments.values() for state in each.replica_states}
    return application.status == "RUNNING" and states == {"RUNNING"}


def _reasons(application: Any) -> str:
    """Return what Serve says of each deployment that fails."""
    if application is None:
        return "Serve knows of no application"
    reasons = [
        f"{name}: {deployment.message}"
        for name, deployment in application.deployments.items()
        if deployment.message
    ]
    return "; ".join(reasons) or application.message or str(application.status)
