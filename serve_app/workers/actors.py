"""The processes that answer nobody: a learner per policy with its standbys, and the archiver.

They are plain actors of Ray, not deployments: Ray starts one that died again by itself, on any node
that is left, whatever has become of Serve's controller, and such a process need not import Serve,
which is most of a replica's start. One small deployment, the keeper, knows which there are to be.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import ray

from policies.artifacts.fetch import load_artifact
from policies.spec import PolicySpec
from serve_app.host.environment import collect_rarely
from serve_app.host.json_logs import configure_logging
from serve_app.host.placement import on_node_for
from serve_app.settings import Settings
from serve_app.store.clients import blocking_client

if TYPE_CHECKING:
    from serve_app.workers.learner import LearnerLoop

NAMESPACE = "banditloop"
STOP_S = 5.0
LAST = 19
"""The niceness of what everything else goes before."""
PACE_S, MAX_PACE_S = 1.0, 30.0
PING_S = 10.0
"""How long the keeper waits for a process to start and to catch up with the log."""

log = logging.getLogger("banditloop.background")

WorkerKind = tuple["type[WorkerActor]", tuple[Any, ...]]
"""The class of a worker, and the arguments that it is made with."""
PolicyLog = tuple[str, str, dict[str, Any]]
"""A log's name, whose it is, and which of its logs it is."""


class WorkerActor:
    """A process of threads that run until they are told to stop.

    If one ends by itself, so does the process.
    """

    def __init__(self, settings: Settings) -> None:
        os.nice(settings.learner_niceness)
        configure_logging(settings.log_level)
        collect_rarely()
        self._wanted_by = 0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def run(self, target: Callable[[threading.Event], None], name: str) -> None:
        """Start a thread.

        Args:
            target: what it runs, until the event is set.
            name: the thread's, for the log.
        """

        def work() -> None:
            try:
                target(self._stop)
            except BaseException:
                log.exception("%s has died: starting this process again", name)
            if not self._stop.is_set():
                os._exit(1)  # Ray starts it again

        self._threads.append(threading.Thread(target=work, name=name, daemon=True))
        self._threads[-1].start()

    async def begun(self) -> None:
        """Return: this process has started."""

    async def ping(self, generation: int) -> int:
        """Return once this process is up to date: the newest deployment that has asked for it.

        Args:
            generation: that of the deployment that asks, which wants this process.
        """
        self._wanted_by = max(self._wanted_by, generation)
        await self._up_to_date()
        return self._wanted_by

    async def _up_to_date(self) -> None:
        """Return once this process has done what was there to do when it started."""

    async def stop(self, generation: int | None = None) -> bool:
        """End every thread between two steps, unless a later deployment wants this process.

        What was read but not finished is done again at the next start. Return whether it ends.

        Args:
            generation: that of the deployment that does not want it any more; None: no deployment
                does. Builds before this argument are stopped without it.
        """
        if generation is not None and self._wanted_by > generation:
            return False
        self._stop.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, STOP_S)
        return True


class LearnerActor(WorkerActor):
    """The learner of one policy, or of one of its partitions, leading or standing by."""

    def __init__(
        self, settings: Settings, spec: PolicySpec, partition: int, generation: int
    ) -> None:
        super().__init__(settings)
        self._arguments = settings, spec, partition, generation
        self._caught_up = threading.Event()
        self.run(self._learn, f"learner-{spec.name}")
        if partition == 0 and spec.profile is not msgspec.UNSET:
            self.run(self._lead_activity, f"activity-{spec.shares}")

    def _lead_activity(self, stop: threading.Event) -> None:
        from serve_app.workers.activity_leader import activity_leader_of_service  # noqa: PLC0415

        settings, spec, _, generation = self._arguments
        activity_leader_of_service(settings, spec, generation).run(stop)

    def _learn(self, stop: threading.Event) -> None:
        loop = self._make_loop(stop)
        if loop is not None:
            loop.lease.caught_up = self._caught_up
            loop.run(stop)

    def _make_loop(self, stop: threading.Event) -> "LearnerLoop[Any] | None":
        """Make the learner; None if this process was told to stop before there was one.

        What it needs may be missing for a while (an artifact, say): to try that again costs less
        than another process.
        """
        # Imported here because pyarrow takes 30 MB, which the keeper can do without.
        from serve_app.workers.learner_factory import learner_of_service  # noqa: PLC0415

        settings, spec, partition, generation = self._arguments
        pace_s = PACE_S
        while not stop.is_set():
            try:
                trained = load_artifact(spec.artifact, needs="log") if spec.artifact else None
                return learner_of_service(settings, spec, partition, trained, generation)
            except Exception:
                log.exception(
                    "the learner of policy %s cannot be made: the next attempt in %g s",
                    spec.name,
                    pace_s,
                )
                stop.wait(pace_s)
                pace_s = min(2 * pace_s, MAX_PACE_S)
        return None

    async def _up_to_date(self) -> None:
        """Return once this learner has read the log to its end, or after PING_S."""
        await asyncio.to_thread(self._caught_up.wait, PING_S)


class ArchiverActor(WorkerActor):
    """The archiver of all policies, one thread for each log, and for each space that has users.

    Several may run: see archiver.py and users_backup.py.
    """

    def __init__(
        self,
        settings: Settings,
        logs: Sequence[PolicyLog],
        spaces: Sequence[str],
        unshadowed: Sequence[str],
    ) -> None:
        """Start to archive.

        Args:
            settings: of the service.
            logs: of the policies, as ``logs_of`` yields them; none where nothing is archived.
            spaces: those whose users are copied.
            unshadowed: the policies that have no shadow.
        """
        # Imported here because of pyarrow, too.
        from serve_app.workers.archiver import Archiver  # noqa: PLC0415
        from serve_app.workers.shadows.following import forget_shadows  # noqa: PLC0415
        from serve_app.workers.users_backup import ScheduledUsersBackup  # noqa: PLC0415

        super().__init__(settings)

        # Where no policy has a shadow, there is no process that could say so.
        for name in unshadowed:
            forget_shadows(settings, name)

        # Each thread has a connection of its own.
        for space in spaces:
            client = blocking_client(str(settings.redis_url))
            backup = ScheduledUsersBackup(client, space, settings)
            self.run(backup.run, f"users-backup-{space}")
        for name, policy, which in logs:
            archiver = Archiver(
                blocking_client(str(settings.redis_url)),
                policy,
                settings.archive_root(),
                max_age_s=settings.archive_max_age_s,
                retain_s=settings.archive_retain_s,
                **which,
            )
            self.run(archiver.run, f"archiver-{name}")


class RefresherActor(WorkerActor):
    """The process that trains sources anew: one thread for each policy that says when."""

    def __init__(self, settings: Settings, specs: Sequence[PolicySpec]) -> None:
        """Start to wait.

        Args:
            settings: of the service.
            specs: the policies that have a schedule.
        """
        from serve_app.workers.refresher import ScheduledRefresh  # noqa: PLC0415

        super().__init__(settings)
        address = str(ray.get_runtime_context().gcs_address)
        for spec in specs:
            client = blocking_client(str(settings.redis_url))
            schedule = ScheduledRefresh(client, spec, settings, address=address)
            self.run(schedule.run, f"refresher-{spec.name}")


class ShadowActor(WorkerActor):
    """The process that follows logs as shadows: a thread for each shadow of each policy.

    It yields to all others on its machine, so it may lag; nothing waits for it.
    """

    def __init__(self, settings: Settings, specs: Sequence[PolicySpec]) -> None:
        """Start to follow.

        Args:
            settings: of the service.
            specs: the policies that have shadows.
        """
        from serve_app.workers.shadows.following import follow_policy  # noqa: PLC0415

        super().__init__(settings)
        os.setpriority(os.PRIO_PROCESS, 0, LAST)
        for spec in specs:
            for name, run in follow_policy(settings, spec):
                self.run(run, name)


def logs_of(specs: Sequence[PolicySpec]) -> Iterator[PolicyLog]:
    """Yield each log's name, whose it is, and which of its logs it is, as an Archiver is told.

    Args:
        specs: the policies; what some of them share is one log.
    """
    for spec in specs:
        for partition in range(spec.partitions):
            which = {"partition": partition, "partitions": spec.partitions}
            yield f"{spec.name}.{partition}", spec.name, which

    for space in dict.fromkeys(spec.shares for spec in specs):
        yield f"{space}.items", space, {"shared": "items"}
    for space in spaces_with_users(specs):
        yield f"{space}.activity", space, {"shared": "activity"}


def spaces_with_users(specs: Sequence[PolicySpec]) -> list[str]:
    """Return the spaces in which it is known who users are: those of policies with profiles."""
    named = (spec.shares for spec in specs if spec.profile is not msgspec.UNSET)
    return list(dict.fromkeys(named))


def workers_of(settings: Settings, specs: Sequence[PolicySpec]) -> dict[str, WorkerKind]:
    """Return the workers that a service is to have, by what they are called in all deployments.

    A learner's generation comes after these arguments.

    Args:
        settings: of the service.
        specs: its policies.
    """
    kinds: dict[str, WorkerKind] = {}
    for spec in specs:
        for partition in range(spec.partitions):
            policy = spec.name if spec.partitions == 1 else f"{spec.name}.{partition}"
            for number in range(1 + spec.learner.standbys):
                kinds[f"learner-{policy}-{number}"] = LearnerActor, (settings, spec, partition)

    refreshed = [spec for spec in specs if spec.refresh is not msgspec.UNSET]
    if refreshed:
        kinds["refresher"] = RefresherActor, (settings, refreshed)

    shadowed = [spec for spec in specs if spec.shadow]
    if shadowed:
        kinds["shadows"] = ShadowActor, (settings, shadowed)

    spaces = spaces_with_users(specs) if settings.users_backup_root() else []
    logs = list(logs_of(specs)) if settings.archive_root() else []
    if logs or spaces:
        unshadowed = [spec.name for spec in specs if not spec.shadow]
        kinds["archiver"] = ArchiverActor, (settings, logs, spaces, unshadowed)
    return kinds


def worker_kinds(
    settings: Settings,
    specs: Sequence[PolicySpec],
    generation: int,
    since: Mapping[str, int] | None = None,
) -> dict[str, WorkerKind]:
    """Return the workers that a deployment is to have, by name.

    Args:
        settings: of the service.
        specs: its policies.
        generation: that of the deployment, which ends the names of those that it begins.
        since: of those that it keeps, the generation of the deployment that has begun them.
    """
    kinds: dict[str, WorkerKind] = {}
    for called, (kind, arguments) in workers_of(settings, specs).items():
        own = (since or {}).get(called, generation)
        kinds[f"{called}.{own}"] = kind, (*arguments, own) if kind is LearnerActor else arguments
    return kinds


def kept_since(
    settings: Settings,
    before: Sequence[PolicySpec],
    after: Sequence[PolicySpec],
    since: Mapping[str, int],
) -> dict[str, int]:
    """Return which workers of a deployment are as the next one wants them, and since when.

    Args:
        settings: of the service.
        before: the deployment's specs.
        after: those of the next.
        since: the generation that has begun each of its workers.
    """
    had = workers_of(settings, before)
    wanted = workers_of(settings, after)
    return {called: since[called] for called in had if had[called] == wanted.get(called)}


def start_worker(
    settings: Settings, name: str, kind: type[WorkerActor], arguments: tuple[Any, ...]
) -> Any:
    """Return the actor of this name; it is started unless there is one.

    Args:
        settings: of the service; they say how many cores a learner takes.
        name: the actor's name.
        kind: its class.
        arguments: what that is made with.
    """
    options = {
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "max_restarts": -1,
        "get_if_exists": True,
    }

    # The archiver waits more than it works: it takes no core of a node.
    cpus = settings.learner_cpus if kind is LearnerActor else 0
    where = {"num_cpus": cpus, "scheduling_strategy": "SPREAD", **on_node_for("learner")}
    return ray.remote(kind).options(name=name, **options, **where).remote(*arguments)


def start_learners(
    settings: Settings,
    specs: Sequence[PolicySpec],
    generation: int,
    since: Mapping[str, int] | None = None,
    *,
    each_s: float = 0.0,
) -> None:
    """Start the learners of a deployment that is yet to come: its keeper will find them.

    They start while Serve does.

    Args:
        settings: of the service.
        specs: its policies.
        generation: that of the deployment.
        since: see ``worker_kinds``.
        each_s: how long the next one waits for each to start, in seconds.
    """
    for name, (kind, arguments) in worker_kinds(settings, specs, generation, since).items():
        if kind is LearnerActor:
            learner = start_worker(settings, name, kind, arguments)
            if each_s:
                ray.wait([learner.begun.remote()], timeout=each_s)
