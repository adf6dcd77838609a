"""The traffic of benchmarks/soak/soak.py: decisions and rewards, and a few requests that no client should send."""

import asyncio
import contextlib
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from banditloop_client.schemas import RankResponse
from serve_app.api.wire import MAX_BODY

ITEMS, ACTIONS, TOPICS = 200, 20, 8
CONNECTIONS = 16
OPEN_CONNECTIONS = 256
MAX_UNANSWERED = 2000
REWARD_DELAY_S = 2.0
FAULTY = 0.01
EXAMPLES = 20
SERVER_ERROR, UNAVAILABLE = 500, 503

decode_rank = msgspec.json.Decoder(RankResponse).decode


class Load:
    """Sends to one policy, and counts the answers in ``statuses``, by kind of request and status.

    In place of a status stands "no answer" for a broken connection, "unlogged" for a decision that
    is not known to be logged, "unsent" for a request left out because MAX_UNANSWERED were waiting,
    and "left" for a client that hung up. ``failures`` holds the first few answers of a status of
    500 or more other than 503.
    """

    def __init__(self, url: str, policy: str, seed: int) -> None:
        self.statuses: Counter[str] = Counter()
        self.failures: list[str] = []
        self._url = url
        self._policy = policy
        self._chance = random.Random(seed)
        self._ids = [f"item{k}" for k in range(ITEMS)]
        self._number = 0
        self._answered: deque[dict[str, Any]] = deque(maxlen=200)
        self._faults = {
            "malformed JSON": self._malformed,
            "wrong types": self._wrong_types,
            "unknown policy": self._unknown_policy,
            "unknown event": self._unknown_event,
            "oversize body": self._oversize,
            "retried": self._retried,
            "event_id of another request": self._conflicting,
            "hangs up": self._hang_up,
        }

    @contextlib.asynccontextmanager
    async def _session(self, connections: int) -> Any:
        connector = aiohttp.TCPConnector(limit=connections)
        timeout = aiohttp.ClientTimeout(total=30)
        base = f"{self._url}/v1/policies/"
        async with aiohttp.ClientSession(base, connector=connector, timeout=timeout) as self._http:
            yield

    async def put_catalogue(self) -> None:
        """The items, with a few features each."""
        items = [
            {
                "id": name,
                "features": {
                    "topic": f"topic{k % TOPICS}",
                    "price": k / ITEMS,
                    "age": float(k % 7),
                },
            }
            for k, name in enumerate(self._ids)
        ]
        async with (
            self._session(1),
            self._http.put(f"{self._policy}/catalogue", json={"items": items}) as answer,
        ):
            answer.raise_for_status()

    async def capacity(self, seconds: float) -> float:
        """Decisions with their rewards per second, when every connection sends its next request at once."""
        return await self._closed_loop(CONNECTIONS, seconds)

    async def crowd(self, seconds: float) -> None:
        """As many connections as ``drive`` has, all at once, each with decisions, rewards and bodies too large."""
        await self._closed_loop(OPEN_CONNECTIONS, seconds, self._oversize)

    async def _closed_loop(
        self, connections: int, seconds: float, also: Callable[[], Awaitable[None]] | None = None
    ) -> float:
        """Decisions with their rewards per second.

        ``also``: what each connection sends after every one.
        """
        began, pairs = time.monotonic(), 0

        async def client() -> None:
            nonlocal pairs
            while time.monotonic() < began + seconds:
                await self._pair(0.0)
                pairs += 1
                if also is not None:
                    await also()

        async with self._session(connections):
            await asyncio.gather(*(client() for _ in range(connections)))
        return pairs / (time.monotonic() - began)

    async def drive(self, per_s: float, seconds: float) -> None:
        """Decisions at a fixed rate, whatever the answers; returns when all are answered."""
        began, sent = time.monotonic(), 0
        async with self._session(OPEN_CONNECTIONS), asyncio.TaskGroup() as group:
            waiting: set[asyncio.Task[None]] = set()
            while (passed := time.monotonic() - began) < seconds:
                for _ in range(int(passed * per_s) - sent):
                    sent += 1
                    if len(waiting) >= MAX_UNANSWERED:
                        self.statuses["rank unsent"] += 1
                        continue
                    faulty = self._chance.random() < FAULTY
                    fault = self._chance.choice(list(self._faults.values()))
                    task = group.create_task(fault() if faulty else self._pair(REWARD_DELAY_S))
                    waiting.add(task)
                    task.add_done_callback(waiting.discard)
                await asyncio.sleep(0.005)

    async def _pair(self, delay_s: float) -> None:
        """A decision, and its reward some time after it was answered."""
        asked = self._request()
        body = await self._post("rank", f"{self._policy}/rank", msgspec.json.encode(asked))
        if body is None:
            return
        answer = decode_rank(body)
        self._answered.append(asked)
        if not answer.logged:
            self.statuses["rank unlogged"] += 1
        if delay_s:
            await asyncio.sleep(self._chance.expovariate(1 / delay_s))
        reward = {"value": self._chance.random(), "reward_id": f"r-{answer.event_id}"}
        await self._post("reward", self._reward_path(answer.event_id), msgspec.json.encode(reward))

    def _request(self) -> dict[str, Any]:
        self._number += 1
        return {
            # of one length, or Valkey holds more as the number grows
            "event_id": f"soak-{self._number:09}",
            "context": {
                "hour": float(self._number % 24),
                "device": self._chance.choice(["phone", "desktop"]),
            },
            "actions": [{"id": name} for name in self._chance.sample(self._ids, ACTIONS)],
        }

    def _reward_path(self, event_id: str) -> str:
        return f"{self._policy}/events/{event_id}/reward"

    async def _post(self, kind: str, path: str, body: bytes) -> bytes | None:
        """The body of a 200 or 202; counts every answer."""
        try:
            async with self._http.post(
                path, data=body, headers={"content-type": "application/json"}
            ) as response:
                status, answer = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError):
            self.statuses[f"{kind} no answer"] += 1
            return None
        self.statuses[f"{kind} {status}"] += 1
        if status >= SERVER_ERROR and status != UNAVAILABLE and len(self.failures) < EXAMPLES:
            self.failures.append(f"{kind} {status}: {answer[:200].decode(errors='replace')}")
        return answer if response.ok else None

    async def _malformed(self) -> None:
        body = msgspec.json.encode(self._request())
        await self._post(
            "malformed JSON", f"{self._policy}/rank", body[: self._chance.randrange(1, len(body))]
        )

    async def _wrong_types(self) -> None:
        field, value = self._chance.choice(
            [("event_id", 7), ("context", ["hour"]), ("actions", "item1")]
        )
        body = msgspec.json.encode({**self._request(), field: value})
        await self._post("wrong types", f"{self._policy}/rank", body)

    async def _unknown_policy(self) -> None:
        await self._post("unknown policy", "nobody/rank", msgspec.json.encode(self._request()))

    async def _unknown_event(self) -> None:
        self._number += 1
        await self._post(
            "unknown event", self._reward_path(f"never-{self._number}"), b'{"value": 1.0}'
        )

    async def _oversize(self) -> None:
        await self._post("oversize body", f"{self._policy}/rank", b" " * (MAX_BODY + 1))

    async def _retried(self) -> None:
        for asked in self._earlier():
            await self._post("retried", f"{self._policy}/rank", msgspec.json.encode(asked))

    async def _conflicting(self) -> None:
        for asked in self._earlier():
            other = {**asked, "context": {"hour": -1.0}}
            await self._post(
                "event_id of another request", f"{self._policy}/rank", msgspec.json.encode(other)
            )

    def _earlier(self) -> Iterator[dict[str, Any]]:
        """A request that was answered, if there was one."""
        if self._answered:
            yield self._chance.choice(self._answered)

    async def _hang_up(self) -> None:
        """A client that leaves in the middle of its request, or before the answer."""
        parts = urlsplit(self._url)
        body = msgspec.json.encode(self._request())
        head = f"POST /v1/policies/{self._policy}/rank HTTP/1.1\r\nhost: soak\r\ncontent-length: {len(body)}\r\n\r\n"
        try:
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(
                head.encode() + body[: self._chance.choice([0, len(body) // 2, len(body)])]
            )
            await writer.drain()
            await asyncio.sleep(self._chance.choice([0.0, 0.01]))
            writer.transport.abort()
        except OSError:
            self.statuses["hangs up no answer"] += 1
            return
        self.statuses["hangs up left"] += 1
