"""Several policies of a space as one service in this process: learners, leaders, archivers, a replica."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
from support.replica import Replica

from bandits.log.records import DecisionRecord, LogRecord
from policies.artifacts.fetch import load_artifact
from policies.spec import PolicySpec
from serve_app.admin.freshness import read_all
from serve_app.admin.preflight import check_logs, validate
from serve_app.replica.deployment import RankReplica
from serve_app.settings import Settings
from serve_app.store.clients import Redis
from serve_app.store.keys import Keys, LogKeys
from serve_app.workers.activity_leader import activity_leader_of_service
from serve_app.workers.actors import logs_of
from serve_app.workers.archiver import Archiver
from serve_app.workers.learner_factory import learner_of_service


class SpaceShop:
    """A service of several policies, over a real server."""

    def __init__(self, client: Redis, url: str, folder: Path, specs: Sequence[PolicySpec]) -> None:
        self.client = client
        self.specs = list(specs)
        self.settings = Settings(
            redis_url=url,
            data_dir=folder,
            publish_interval_ms=20,
            merge_interval_ms=50,
            checkpoint_interval_s=1,
            follow_interval_ms=20,
        )
        validate(self.settings, self.specs)
        check_logs(url, self.specs)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Have a learner for each log, and a leader for each space."""
        stop = threading.Event()
        loops: list[Any] = []
        for spec in self.specs:
            trained = load_artifact(spec.artifact) if spec.artifact else None
            loops += [
                learner_of_service(self.settings, spec, number, trained, 1)
                for number in range(spec.partitions)
            ]
            if spec.profile is not msgspec.UNSET:
                loops.append(activity_leader_of_service(self.settings, spec, 1))
        threads = [threading.Thread(target=loop.run, args=(stop,), daemon=True) for loop in loops]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(10)
            for loop in loops:
                own: Any = loop.log if hasattr(loop, "log") else loop
                (own.client if hasattr(own, "client") else own._client).close()

    @contextlib.asynccontextmanager
    async def answering(self) -> AsyncIterator[httpx.AsyncClient]:
        """Have a replica of all policies, which is ready."""
        replica = Replica(self.settings, self.specs)
        transport = httpx.ASGITransport(replica.app())
        async with httpx.AsyncClient(transport=transport, base_url="http://test/v1") as http:
            try:
                await until_true(lambda: all(s.ready for s in replica._services.values()))
                yield http
            finally:
                await RankReplica.__del__(replica)

    def archive(self) -> str:
        """Archive all logs to their ends, and trim what nobody needs; return where."""
        root = self.settings.archive_root()
        for _, name, which in logs_of(self.specs):
            archiver = Archiver(self.client, name, root, max_age_s=0.0, retain_s=0.0, **which)
            while archiver.step():
                pass
            while archiver.trim():
                pass
        return root

    def records(self, keys: LogKeys) -> list[LogRecord]:
        """Return what is in a log."""
        return [entry.record for entry in read_all(self.client, keys)]

    def decisions(self, policy: str) -> list[DecisionRecord]:
        """Return the decisions of a policy in one log."""
        return [r for r in self.records(Keys(policy)) if isinstance(r, DecisionRecord)]


async def until_true(condition: Callable[[], object], within_s: float = 30.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.01)
