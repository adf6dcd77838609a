"""The Ray Serve deployments. Thin: all they do is wire plain objects to a process's life."""

import asyncio
import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

import redis

from policies import artifact
from policies.catalogue import Catalogue
from policies.spec import PolicySpec
from serve_app.event_log import LogWriter, connect
from serve_app.http import Api
from serve_app.logs import configure_logging
from serve_app.loopback import keep_replica_on_loopback
from serve_app.metrics import Metrics, collect
from serve_app.security import KeyRing
from serve_app.service import RedisPolicyService
from serve_app.settings import Settings

log = logging.getLogger("banditloop.replica")


class RankReplica:
    """Answers HTTP for all policies, in one process. Wrapped by ``serve.ingress`` in app.py."""

    def __init__(self, settings: Settings, specs: list[PolicySpec]) -> None:
        configure_logging(settings.log_level)
        keep_replica_on_loopback()
        self._settings = settings
        self._specs = specs
        self._name = uuid.uuid4().hex[:12]
        self._metrics = Metrics(self._name)
        timeout = settings.redis_timeout_s
        self._client = connect(str(settings.redis_url), timeout_s=timeout)
        self._writer = LogWriter(self._client, timeout_s=timeout, confirm_replicas=settings.confirm_replicas)
        self._services = {
            spec.name: RedisPolicyService(
                spec,
                self._client,
                self._writer,
                salt=settings.secret(),
                replica=self._name,
                follow_interval_s=settings.follow_interval_ms / 1000,
            )
            for spec in specs
        }
        self._keys = KeyRing(settings.keys_file, replicas=settings.replicas) if settings.keys_file else None
        self._metrics.gauges = self._gauges
        self._metrics.refresh = self._refresh
        self._tasks: list[asyncio.Task[None]] = []

    def __serve_build_asgi_app__(self) -> Api:
        """Called by Serve once this object stands, on the replica's event loop."""
        for service in self._services.values():
            service.start()
        self._tasks.append(asyncio.ensure_future(self._metrics.push_forever(self._client)))
        if self._keys is not None:
            self._tasks.append(asyncio.ensure_future(self._keys.follow()))
        return Api(self._services, self._metrics, self._scrape, self._keys)

    async def _scrape(self) -> bytes:
        return await collect(self._client, self._metrics.sample(), self._services)

    def _refresh(self) -> None:
        """Counters that others keep."""
        for name, service in self._services.items():
            for source, failures in service.ranker.source_failures.items():
                self._metrics.counts["source_failures", name, source] = failures
            for reason, failures in service.follower.failures.items():
                self._metrics.counts["snapshot_failures", name, reason] = failures
        for reason, failures in self._writer.failures.items():
            self._metrics.counts["log_failures", reason] = failures
        if self._keys is not None:
            self._metrics.counts[("keys_file_failures",)] = self._keys.failures

    def _gauges(self) -> Iterable[tuple[str, list[str], float]]:
        for name, service in self._services.items():
            if service.ready:
                yield "snapshot_age_seconds", [name], time.monotonic() - service.loaded_at

    async def __del__(self) -> None:
        """Serve awaits this when the replica stops, after the last request was answered."""
        for task in self._tasks:
            task.cancel()
        for service in self._services.values():
            await service.stop()
        with contextlib.suppress(Exception):
            await self._client.aclose()


class Archiver:
    """Archives and trims every policy's log, one thread each. Several may run: see archiver.py."""

    def __init__(self, settings: Settings, policies: list[str]) -> None:
        from serve_app import archiver  # noqa: PLC0415 - pyarrow takes 30 MB, which replicas and learners can do without

        configure_logging(settings.log_level)
        keep_replica_on_loopback()
        self._stop = threading.Event()
        self._threads = []
        for policy in policies:
            loop = archiver.Archiver(
                redis.Redis.from_url(str(settings.redis_url), socket_timeout=30, socket_connect_timeout=5),
                policy,
                settings.archive_root(),
                max_age_s=settings.archive_max_age_s,
                retain_s=settings.archive_retain_s,
            )
            thread = threading.Thread(target=loop.run, args=(self._stop,), name=f"archiver-{policy}", daemon=True)
            self._threads.append(thread)
            thread.start()

    async def check_health(self) -> None:
        """Called by Serve; with a dead thread a log is no longer archived, and all are restarted."""
        for thread in self._threads:
            if not thread.is_alive():
                raise RuntimeError(f"the thread {thread.name} has died: see its log")

    async def __del__(self) -> None:
        """Stop between two steps; a range that was committed and not written is written at the next start."""
        self._stop.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, 5)


class Learner:
    """Runs one policy's learner, leading or standing by, on a thread; the event loop stays free for health checks."""

    def __init__(self, settings: Settings, spec: PolicySpec) -> None:
        from policies.archive import ArchiveReader  # noqa: PLC0415 - pyarrow takes 30 MB, which replicas can do without
        from serve_app.learner import LearnerLoop  # noqa: PLC0415

        configure_logging(settings.log_level)
        keep_replica_on_loopback()
        os.nice(settings.learner_niceness)
        trained = artifact.load(Path(spec.artifact)) if spec.artifact else None
        loop = LearnerLoop(
            redis.Redis.from_url(str(settings.redis_url), socket_timeout=30, socket_connect_timeout=5),
            spec,
            salt=settings.secret(),
            publish_interval_s=settings.publish_interval_ms / 1000,
            checkpoint_interval_s=settings.checkpoint_interval_s,
            archive=ArchiveReader(settings.archive_root(), spec.name) if settings.archive_root() else None,
            artifact=trained.version if trained else None,
            catalogue=Catalogue.of(trained.catalogue) if trained else None,
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=loop.run, args=(self._stop,), name="learner", daemon=True)
        self._thread.start()

    async def check_health(self) -> None:
        """Called by Serve; a dead thread is a dead learner, and gets restarted."""
        if not self._thread.is_alive():
            raise RuntimeError("the learner's thread has died: see its log")

    async def __del__(self) -> None:
        """Stop between two steps; what was read but not published is folded again at the next start."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, 5)
