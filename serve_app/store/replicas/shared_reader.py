"""Reading for many requests at once, for as long as a decision can wait."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from serve_app.store.clients import AsyncRedis, look_again_if, wire

READ_S = 0.5
"""How long an answer is waited for: a decision can be made without it."""
PAUSE_S = 0.05
"""Shortest pause between a failure and the next attempt."""
MAX_COMMANDS = 2000
"""How many commands go out at once, about."""

Command = tuple[Any, ...]


class _Asked(NamedTuple):
    commands: Sequence[Command]
    done: "asyncio.Future[list[Any] | None]"


class SharedReader:
    """Sends the commands of concurrent callers in one message, on a connection of its own.

    While one is on its way the next one gathers. After a failure nothing is asked for as long as it
    took, so that without Redis hardly a request waits.
    """

    def __init__(self, client: AsyncRedis, *, timeout_s: float = READ_S) -> None:
        """Read from a Redis.

        Args:
            client: of one Redis, or of a cluster.
            timeout_s: how long an answer is waited for.
        """
        self._client = client
        self._wire = wire(client)
        self._timeout_s = timeout_s
        self._waiting: deque[_Asked] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._failing = False
        self._retry_at = 0.0

    async def read(self, commands: Sequence[Command]) -> list[Any] | None:
        """Return an answer to each command; None if any of them was not answered."""
        loop = asyncio.get_running_loop()
        flushing = self._flusher is not None and not self._flusher.done()
        if self._failing and (flushing or loop.time() < self._retry_at):
            return None

        asked = _Asked(commands, loop.create_future())
        self._waiting.append(asked)
        if not flushing:
            self._flusher = asyncio.create_task(self._flush())
        return await asked.done

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, began = self._next(), loop.time()
            answers: list[Any] | None = None
            # What several ask for alike is asked for once.
            places: dict[Command, int] = {}
            own_places = [
                [places.setdefault(command, len(places)) for command in asked.commands]
                for asked in batch
            ]
            try:
                async with asyncio.timeout(self._timeout_s):
                    answers = await self._wire.send(list(places))
                await look_again_if(self._client, answers)
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
                batch += self._waiting
                self._waiting.clear()
                self._retry_at = loop.time() + max(PAUSE_S, loop.time() - began)
                await look_again_if(self._client, [error])

            self._failing = answers is None
            for at, asked in enumerate(batch):
                own = None if answers is None else [answers[place] for place in own_places[at]]
                if own is not None and any(isinstance(each, Exception) for each in own):
                    own = None
                if not asked.done.done():  # its request was cancelled
                    asked.done.set_result(own)

    def _next(self) -> list[_Asked]:
        batch: list[_Asked] = []
        size = 0
        while self._waiting and size < MAX_COMMANDS:
            batch.append(self._waiting.popleft())
            size += len(batch[-1].commands)
        return batch
