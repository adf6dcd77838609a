"""Steady traffic that remembers what it was promised."""

import asyncio
import random
import threading
import time
from dataclasses import dataclass, field

import httpx
from people import SPACE, People, user_of

from serve_app.client import AsyncClient, ServiceError

ACTIONS = ["news", "match", "film", "song"]
PUT_EVERY = 4
DID_EVERY = 2
"""After so many decisions an item is put anew, and a user does something else."""


@dataclass(slots=True)
class Promised:
    """What the service has acknowledged, by id; and when it last did so, on the monotonic clock."""

    decisions: dict[str, float] = field(default_factory=dict)  # by event_id, and by reward_id: when
    rewards: dict[str, float] = field(default_factory=dict)
    items: dict[str, float] = field(default_factory=dict)  # by what each put says of its item
    unlogged: int = 0
    refused: int = 0
    ranked_at: float = 0.0
    rewarded_at: float = 0.0


class Traffic:
    """Ranks and rewards over HTTP, from a thread of its own, until it is stopped."""

    def __init__(
        self, url: str, policy: str, *, per_s: float, seed: int, by_sources: bool = False
    ) -> None:
        """Be ready to send.

        Args:
            url: the service's.
            policy: the policy's name.
            per_s: decisions a second.
            seed: of what is drawn.
            by_sources: whether every second decision of a user is for the sources to propose for.
        """
        self.promised = Promised()
        self._url = url
        self._policy = policy
        self._interval_s = 1 / per_s
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._prefix, self._by_sources = f"chaos-{seed}", by_sources
        self.people = People(self._prefix, ACTIONS)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send no more, and wait for what is on its way: promised later, it would look lost."""
        self._stop.set()
        self._thread.join(60)
        if self._thread.is_alive():
            raise TimeoutError("requests are still on their way a minute after the last was sent")

    async def _run(self) -> None:
        async with (
            AsyncClient(self._url, self._policy, retries=2, timeout_s=4.0, space=SPACE) as client,
            asyncio.TaskGroup() as group,
        ):
            number, due = 0, time.monotonic()
            while not self._stop.is_set():
                group.create_task(self._one(client, number))
                if number % PUT_EVERY == 0:
                    group.create_task(self._put(client, number))
                if number % DID_EVERY == 0:
                    self.people.begin(group, client, number // DID_EVERY)
                number += 1
                due = max(due + self._interval_s, time.monotonic() - 1.0)
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _one(self, client: AsyncClient, number: int) -> None:
        event_id, reward_id, promised = f"{self._prefix}-{number}", f"r-{number}", self.promised
        rewarded, delay_s = self._random.random() < 0.5, self._random.expovariate(2.0)
        user = user_of(number)
        try:
            answer = await client.rank(
                None if self._by_sources and user is not None and number % 2 else ACTIONS,
                event_id=event_id,
                context={"hour": number % 24},
                user_id=user,
            )
        except (ServiceError, httpx.HTTPError):
            promised.refused += 1
            return
        if answer.logged:
            promised.decisions[event_id] = promised.ranked_at = time.monotonic()
        else:
            promised.unlogged += 1
        if not rewarded:
            return
        await asyncio.sleep(delay_s)
        try:
            await client.reward(event_id, 1.0, reward_id=reward_id)
        except (ServiceError, httpx.HTTPError):
            promised.refused += 1
        else:
            promised.rewards[reward_id] = promised.rewarded_at = time.monotonic()

    async def _put(self, client: AsyncClient, number: int) -> None:
        name, said = ACTIONS[number // PUT_EVERY % len(ACTIONS)], f"{self._prefix}-item-{number}"
        features = {"x": number % 5 / 4, "hour": number % 24 / 24}
        try:
            await client.put_item(name, features=features, metadata={"said": said})
        except (ServiceError, httpx.HTTPError):
            self.promised.refused += 1
        else:
            self.promised.items[said] = time.monotonic()
