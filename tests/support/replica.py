"""A replica's whole HTTP service in this process, over a real server, and an account of what it acknowledged."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from support.fakes import FakeLog
from support.servers import PATIENCE_S, Server

from bandits.log.records import DecisionRecord, RewardRecord
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from serve_app.admin.freshness import read_all
from serve_app.replica import deployment as deployments
from serve_app.replica.deployment import RankReplica
from serve_app.settings import Settings
from serve_app.store.keys import Keys
from serve_app.store.lease import Lease
from serve_app.store.snapshots import Published, publish

HOME = "/v1/policies/home"
KEYS = Keys("home")
SPEC = PolicySpec("home")
TIMEOUT_S = 1.0
"""How long a test that is about waiting has a write wait; others have patience."""
SLACK_S = 2.0
"""What a crowded machine may add to a deadline."""


class Replica(RankReplica):
    """As Serve runs it, but in the test's process: it leaves Ray and the logging alone, and the test stops it."""

    def __init__(self, *arguments) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deployments, "keep_replica_on_loopback", lambda: None)
            patch.setattr(deployments, "configure_logging", lambda level: None)
            super().__init__(*arguments)

    def __del__(self) -> None:
        """Nothing: ``serving`` has awaited the other one."""


@dataclass(frozen=True)
class Answer:
    """A response, and how long it took."""

    response: httpx.Response
    seconds: float

    @property
    def logged(self) -> bool:
        return self.response.status_code == 200 and self.response.json()["logged"]


class Caller:
    """Sends requests, and remembers for each event whether it was acknowledged."""

    def __init__(self, http: httpx.AsyncClient, server: Server) -> None:
        self.http = http
        self.server = server
        self.decisions: dict[str, bool] = {}
        self.rewards: dict[str, bool] = {}
        self.answers: list[Answer] = []

    async def rank(self, event_id: str | None = None, **fields) -> Answer:
        """Rank; under a client-made event_id if one is given."""
        body = {"actions": [{"id": name} for name in "abcdefgh"], **fields}
        answer = await self._send(
            f"{HOME}/rank", body if event_id is None else {**body, "event_id": event_id}
        )
        if answer.response.status_code == 200:
            name = answer.response.json()["event_id"]
            self.decisions[name] = self.decisions.get(name, False) or answer.logged
        return answer

    async def reward(self, reward_id: str) -> Answer:
        """Reward some event under a reward_id."""
        answer = await self._send(f"{HOME}/events/e/reward", {"value": 1, "reward_id": reward_id})
        self.rewards[reward_id] = answer.response.status_code == 202
        return answer

    async def _send(self, path: str, body: dict) -> Answer:
        began = time.monotonic()
        response = await self.http.post(path, json=body)
        self.answers.append(Answer(response, time.monotonic() - began))
        return self.answers[-1]

    async def traffic(self, seconds: float, workers: int = 8) -> list[Answer]:
        """Rank and reward from several workers for a while; what they were answered."""
        first, until = len(self.answers), time.monotonic() + seconds

        async def work(worker: int) -> None:
            while time.monotonic() < until:
                number = len(self.answers)
                await self.rank(f"t{worker}-{number}" if worker % 2 else None)
                await self.reward(f"r{worker}-{number}")
                await asyncio.sleep(0)  # what is answered at once lets the others go on, too

        await asyncio.gather(*(work(worker) for worker in range(workers)))
        return self.answers[first:]

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        text = (await self.http.get("/metrics")).text
        samples = (
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        )
        return sum(
            s.value
            for s in samples
            if s.name == f"banditloop_{name}" and labels.items() <= s.labels.items()
        )

    async def is_ready(self) -> bool:
        """Whether a snapshot is served."""
        return (await self.http.get("/readyz")).status_code == 200

    async def recovered(self) -> None:
        """Wait until what is sent is logged again."""
        await eventually(self._logs, "writes are logged again")

    async def logged(self, event_id: str | None = None, **fields) -> dict:
        """Rank until the decision is logged: on a busy machine a write may take too long."""
        answers: list[Answer] = []

        async def is_logged() -> bool:
            answers.append(await self.rank(event_id, **fields))
            return answers[-1].logged

        await eventually(is_logged, "a decision is logged")
        return answers[-1].response.json()

    async def _logs(self) -> bool:
        return (await self.rank()).logged

    def audit(self, server: Server | None = None) -> None:
        """Every acknowledged event is in the log once, every other at most once, and there is nothing else."""
        with (server or self.server).client() as client:
            records = [entry.record for entry in read_all(client, KEYS)]
        for kind, sent, name in (
            (DecisionRecord, self.decisions, "event_id"),
            (RewardRecord, self.rewards, "reward_id"),
        ):
            found = Counter(getattr(record, name) for record in records if isinstance(record, kind))
            assert (
                {event for event, acknowledged in sent.items() if acknowledged}
                <= set(found)
                <= set(sent)
            )
            assert set(found.values()) <= {1}
        assert any(self.decisions.values())


async def eventually(condition, what: str) -> None:
    """Wait for an awaitable condition to hold."""
    deadline = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline, f"it never happened: {what}"
        await asyncio.sleep(0.02)


def put_snapshot(
    client: redis.Redis, number: int, *, keys: Keys = KEYS, spec: str = "", catalogue: str = ""
) -> str:
    """Publish a snapshot that differs for each number, and loads unless it is said to be of another spec."""
    first = FakeLog(SPEC).fold().snapshot()
    published = Published(
        first.kind,
        f"{number}-0",
        0,
        first.payload,
        spec or SPEC.digest,
        catalogue or Catalogue().digest,
    )
    lease = Lease(client, keys, "test", lease_s=60.0)
    assert lease.acquire()
    try:
        return publish(client, lease, keys, published)
    finally:
        lease.release()


@contextlib.asynccontextmanager
async def serving(
    server: Server,
    folder: Path,
    *,
    url: str | None = None,
    ready: bool = True,
    spec: PolicySpec = SPEC,
    timeout_s: float = PATIENCE_S,
    **options,
) -> AsyncIterator[Caller]:
    """A replica; unless ``ready`` is False, there is a first snapshot and it serves it.

    ``spec``: of a policy called home; ``timeout_s``: for a write; a busy machine's disk may take
    long, so only a test that is about waiting says how long; ``options``: more settings.
    """
    settings = Settings(
        redis_url=url or server.url,
        data_dir=folder,
        redis_timeout_s=timeout_s,
        follow_interval_ms=10,
        **options,
    )
    replica = Replica(settings, [spec])
    http = httpx.AsyncClient(transport=httpx.ASGITransport(replica.app()), base_url="http://test")
    caller = Caller(http, server)
    try:
        if ready:
            with server.client() as client:
                put_snapshot(client, 1, spec=spec.digest)
            await eventually(caller.is_ready, "a first snapshot is served")
        yield caller
    finally:
        await http.aclose()
        await RankReplica.__del__(replica)
