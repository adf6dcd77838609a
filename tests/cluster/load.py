"""Closed-loop load on a policy, and an account of it against the log."""

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import httpx
import numpy as np
import redis

from bandits.log.encoded_decisions import DECISIONS
from bandits.log.records import RewardRecord
from policies.archive.archive import ArchiveReader
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.client import AsyncClient, ServiceError

ACTIONS = ["news", "match", "film", "song"]
WAIT_S = 0.3


@contextlib.contextmanager
def slow_source() -> Iterator[str]:
    """The URL of a candidate source that thinks for WAIT_S: waiting for it keeps replicas busy, but not cores."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            time.sleep(WAIT_S)
            body = json.dumps(
                {"candidates": [{"id": name, "score": 1.0} for name in ACTIONS]}
            ).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Load:
    """So many ``workers``, each ranking and rewarding as fast as it is answered, from a thread, while in its context.

    ``actions`` None has the policy's sources asked. ``decisions`` and ``rewards``: ids that were
    acknowledged. ``failed``: what each request that failed for good was answered; ``retried``
    counts attempts that were made again.
    """

    def __init__(
        self,
        url: str,
        policy: str,
        *,
        workers: int,
        pause_s: float = 0.0,
        actions: list[str] | None = ACTIONS,
    ) -> None:
        self.policy = policy
        self.decisions: set[str] = set()
        self.rewards: set[str] = set()
        self.unlogged = self.answered = self.retried = 0
        self.slowest_s = 0.0
        self.failed: Counter[str] = Counter()
        self._url, self._workers, self._pause_s, self._actions = url, workers, pause_s, actions
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "requests are still on their way"

    async def _run(self) -> None:
        # retries for as long as a client would wait for a page
        async with (
            AsyncClient(self._url, self.policy, retries=6, timeout_s=10.0) as client,
            asyncio.TaskGroup() as group,
        ):
            for worker in range(self._workers):
                group.create_task(self._work(client, worker))
        self.retried = client.retried

    async def _work(self, client: AsyncClient, worker: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            event_id = f"{self.policy}-{id(self):x}-{worker}-{number}"
            began = time.monotonic()
            try:
                answer = await client.rank(self._actions, event_id=event_id, user_id=f"u{worker}")
                self.answered += 1
                if answer.logged:
                    self.decisions.add(event_id)
                else:
                    self.unlogged += 1
                if number % 2:
                    await client.reward(event_id, 1.0, reward_id=f"r-{event_id}")
                    self.rewards.add(f"r-{event_id}")
            except (ServiceError, httpx.HTTPError) as error:
                self.failed[str(error)] += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            await asyncio.sleep(self._pause_s)

    def audit(self, redis_url: str, archive: str) -> int:
        """Every acknowledged event is in the log, decisions once. How many events those are."""
        with redis.Redis.from_url(redis_url) as client:
            stored = StoredPolicy(client, self.policy, ArchiveReader(archive, self.policy))
            records = [entry.record for entry in stored.history.encoded("0-0")]
        decisions = Counter(record.event_id for record in records if isinstance(record, DECISIONS))
        rewards = {record.reward_id for record in records if isinstance(record, RewardRecord)}
        assert self.decisions, "nothing was acknowledged, so there is nothing to audit"
        assert self.decisions <= set(decisions)
        assert self.rewards <= rewards
        assert all(decisions[event_id] == 1 for event_id in self.decisions)
        return len(self.decisions) + len(self.rewards)

    def __str__(self) -> str:
        counts = (
            f"{self.answered:,} decisions, {self.unlogged} unlogged, {self.failed.total()} failed"
        )
        return f"{counts}, {self.retried} attempts made again, slowest {self.slowest_s:.2f} s"


def eventually(condition, timeout_s: float, what: str):
    """Poll until the condition gives something true; that."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it never happened within {timeout_s:.0f} s: {what}"
        time.sleep(0.2)
    return found


def write_log(path: Path, *, rows: int) -> None:
    """A CSV for ``banditloop replay`` with the probabilities of two policies, ``new`` and ``old``."""
    rng = np.random.default_rng(0)
    columns = np.column_stack([rng.random((rows, 3)) * 0.9 + 0.1, rng.random(rows) < 0.3])
    np.savetxt(
        path, columns, "%.4g", delimiter=",", header="propensity,new,old,reward", comments=""
    )


@contextlib.contextmanager
def stopwatch(times: dict[str, float], what: str) -> Iterator[None]:
    """Note how many seconds something takes."""
    began = time.monotonic()
    yield
    times[what] = round(time.monotonic() - began, 1)
