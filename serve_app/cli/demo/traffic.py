"""The demo's traffic: decisions over HTTP, and rewards that come late, unordered, some twice."""

import asyncio
import heapq
import time
import uuid
from collections.abc import Iterator

import aiohttp
import msgspec
import numpy as np

from banditloop_client.client import rank_body
from banditloop_client.schemas import RankResponse, RewardEvent, RewardsRequest
from serve_app.client import ServiceError
from simulator.worlds.demo import DemoBench, Traffic

CONNECTIONS = 4
MEAN_DELAY_S = 1.0
RESENT = 0.01
"""Share of rewards that are sent twice."""
POLL_S = 0.05

decode_rank = msgspec.json.Decoder(RankResponse).decode


class Driver:
    """Makes decisions over a few connections at once, and sends their rewards.

    It sends the client's bodies through aiohttp: httpx would take more of the machine than the
    service does.
    """

    @staticmethod
    def session(base: str, policy: str) -> aiohttp.ClientSession:
        """Return an HTTP session whose paths begin at one policy.

        Args:
            base: URL of the service.
            policy: Name of the policy.
        """
        return aiohttp.ClientSession(f"{base}/v1/policies/{policy}/")

    def __init__(
        self, session: aiohttp.ClientSession, bench: DemoBench, traffic: Traffic, seed: int
    ) -> None:
        self._session = session
        self._bench = bench
        self._traffic = traffic
        self._rng = np.random.default_rng(seed)
        # A heap of rewards by the time when they are due.
        self._pending: list[tuple[float, str, RewardEvent]] = []
        self._deciding = True

    async def run(self, rounds: int) -> None:
        """Decide ``rounds`` times; return when the last reward is sent."""
        remaining = iter(range(rounds))
        rewards = asyncio.create_task(self._send_rewards())
        await asyncio.gather(*(self._decide(remaining) for _ in range(CONNECTIONS)))

        self._deciding = False
        await rewards

    async def _decide(self, remaining: Iterator[int]) -> None:
        requests, traffic = self._bench.requests, self._traffic
        for _ in remaining:
            request = requests.request(self._rng)
            fields = {"user_id": request.user_id, "context": request.context}
            began = time.perf_counter()
            response = decode_rank(await self._post("rank", rank_body(None, fields)))
            traffic.latencies_ms.append(1000 * (time.perf_counter() - began))

            reward = requests.reward(request, response.chosen[0].id, self._rng)
            traffic.users.append(str(request.user_id))
            traffic.rewards.append(reward)
            traffic.unlogged += not response.logged

            # No reward is as good as a reward of 0, so only others are sent.
            if reward:
                self._schedule(RewardEvent(response.event_id, reward, uuid.uuid4().hex))

    def _schedule(self, event: RewardEvent) -> None:
        for _ in range(1 + int(self._rng.random() < RESENT)):
            due = time.monotonic() + self._rng.exponential(MEAN_DELAY_S)
            heapq.heappush(self._pending, (due, event.reward_id or "", event))

    async def _send_rewards(self) -> None:
        while self._deciding or self._pending:
            now, due = time.monotonic(), []
            while self._pending and self._pending[0][0] <= now:
                due.append(heapq.heappop(self._pending)[-1])

            if due:
                await self._post("rewards", msgspec.json.encode(RewardsRequest(due)))
                self._traffic.acknowledged += len(due)
            await asyncio.sleep(POLL_S)

    async def _post(self, path: str, body: bytes) -> bytes:
        async with self._session.post(path, data=body) as response:
            content = await response.read()
            if not response.ok:
                message = content.decode(errors="replace")
                raise ServiceError(response.status, "demo_failed", message)
            return content
