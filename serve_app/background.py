"""The processes that answer nobody: a learner per policy with its standbys, and the archiver.

They are plain actors of Ray, not deployments: Ray starts one that died again by itself, on any node that is left,
whatever has become of Serve's controller, and such a process need not import Serve, which is most of a replica's start.
One small deployment, the keeper, says which there are.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import ray
from ray.exceptions import ActorDiedError, RayActorError

from bandits.codec import digest
from policies import artifact
from policies.spec import PolicySpec
from serve_app.logs import configure_logging
from serve_app.loopback import keep_replica_on_loopback
from serve_app.redis_clients import blocking_client
from serve_app.settings import Settings

NAMESPACE = "banditloop"
STOP_S = 5.0

log = logging.getLogger("banditloop.background")


class Background:
    """A process of threads that run until they are told to stop. If one ends by itself, so does the process."""

    def __init__(self, settings: Settings) -> None:
        configure_logging(settings.log_level)
        os.nice(settings.learner_niceness)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def run(self, target: Callable[[threading.Event], None], name: str) -> None:
        """Start a thread."""

        def work() -> None:
            try:
                target(self._stop)
            except BaseException:
                log.exception("%s has died: starting this process again", name)
            if not self._stop.is_set():
                os._exit(1)  # Ray starts it again

        self._threads.append(threading.Thread(target=work, name=name, daemon=True))
        self._threads[-1].start()

    async def ping(self) -> None:
        """Nothing, from a process that has started."""

    async def stop(self) -> None:
        """End every thread between two steps; what was read but not finished is done again at the next start."""
        self._stop.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, STOP_S)


class Learner(Background):
    """One policy's learner, or that of one of its partitions, leading or standing by."""

    def __init__(self, settings: Settings, spec: PolicySpec, partition: int = 0) -> None:
        from serve_app.partitions import make_loop  # noqa: PLC0415 - pyarrow takes 30 MB, which the keeper can do without

        super().__init__(settings)
        trained = artifact.load(Path(spec.artifact)) if spec.artifact else None
        loop = make_loop(settings, spec, partition, trained)
        self.run(loop.run, f"learner-{spec.name}")


class Archiver(Background):
    """Archives and trims every policy's logs, one thread each. Several may run: see archiver.py.

    ``policies``: name and number of partitions of each.
    """

    def __init__(self, settings: Settings, policies: Sequence[tuple[str, int]]) -> None:
        from serve_app import archiver  # noqa: PLC0415

        super().__init__(settings)
        for policy, partition, partitions in logs_of(policies):
            loop = archiver.Archiver(
                blocking_client(str(settings.redis_url)),
                policy,
                settings.archive_root(),
                max_age_s=settings.archive_max_age_s,
                retain_s=settings.archive_retain_s,
                partition=partition,
                partitions=partitions,
            )
            self.run(loop.run, f"archiver-{policy}.{partition}")


def logs_of(policies: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int, int]]:
    """Policy, partition and number of partitions of each log."""
    for policy, partitions in policies:
        for partition in range(partitions):
            yield policy, partition, partitions


class Keeper:
    """The deployment that says which background processes there are, and ends them with the application.

    Their names carry a digest of what they were started with: a keeper that is started again finds them, one of an
    application that has changed starts its own while the old one ends its.
    """

    def __init__(self, settings: Settings, specs: Sequence[PolicySpec]) -> None:
        configure_logging(settings.log_level)
        keep_replica_on_loopback()
        encoded = [settings.model_dump_json().encode(), *(spec.encoded for spec in specs)]
        version = digest(msgspec.msgpack.encode(encoded))[:8]
        self._wanted: dict[str, tuple[type[Background], tuple[Any, ...]]] = {}
        for spec in specs:
            for partition in range(spec.partitions):
                name = spec.name if spec.partitions == 1 else f"{spec.name}.{partition}"
                for number in range(1 + spec.learner.standbys):
                    self._wanted[f"learner-{name}-{number}-{version}"] = Learner, (settings, spec, partition)
        if settings.archive_root():
            policies = [(spec.name, spec.partitions) for spec in specs]
            self._wanted[f"archiver-{version}"] = Archiver, (settings, policies)
        self._actors = {name: self._start(name) for name in self._wanted}

    def _start(self, name: str) -> Any:
        kind, arguments = self._wanted[name]
        options = {"namespace": NAMESPACE, "lifetime": "detached", "max_restarts": -1, "num_cpus": 0}
        if kind is Learner and arguments[1].partitions > 1:
            options["scheduling_strategy"] = "SPREAD"  # over the nodes, if there are several
        return ray.remote(kind).options(name=name, get_if_exists=True, **options).remote(*arguments)

    async def check_health(self) -> None:
        """Called by Serve. A process that Ray does not start again, for its constructor failed, is tried anew."""
        for name, actor in self._actors.items():
            try:
                await actor.ping.remote()
            except ActorDiedError as error:
                log.error("%s does not start: %s", name, error)  # noqa: TRY400 - its own trace is in the message
                self._actors[name] = self._start(name)
            except RayActorError:
                log.warning("%s has died: Ray is starting it again", name)

    async def __del__(self) -> None:
        """The application ends, or another version of it has begun."""
        for actor in self._actors.values():
            try:
                await asyncio.wait_for(actor.stop.remote(), STOP_S)
            except (RayActorError, TimeoutError):
                log.warning("a background process did not stop: ending it")
            ray.kill(actor)
