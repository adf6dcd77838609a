"""One connection for many requests: what they write and read at a time goes out as one message."""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from itertools import islice
from typing import Any

import msgspec
from redis import exceptions as errors

from bandits.errors import LogUnavailableError
from serve_app.store.clients import AsyncRedis, look_again_if, wire

MAX_BATCH = 512
MAX_WAITING = 50_000
PAUSE_S = 0.05
"""Shortest pause between a failure and the one write that tries again."""
TIMEOUT_S = 2.0

Command = tuple[Any, ...]


class UnconfirmedError(errors.RedisError):
    """Fewer Redis replicas than asked for hold the write."""


# The first that fits. Python's own TimeoutError is an OSError.
REASONS: tuple[tuple[type[Exception], str], ...] = (
    (errors.TimeoutError, "timeout"),
    (TimeoutError, "timeout"),
    (errors.BusyLoadingError, "loading"),
    (errors.ReadOnlyError, "readonly"),
    (errors.OutOfMemoryError, "oom"),
    (errors.ConnectionError, "connection"),
    (UnconfirmedError, "unconfirmed"),
    (errors.RedisClusterException, "connection"),
    (OSError, "connection"),
)


LOG_REASONS = (*dict.fromkeys(reason for _, reason in REASONS), "other", "skipped", "crowded")
"""Why a write is not known to be logged."""


def reason_of(error: Exception) -> str:
    """Return why Redis did not do as asked, as metrics have it: one of REASONS, or other."""
    return next((reason for kind, reason in REASONS if isinstance(error, kind)), "other")


class _Asked(msgspec.Struct, frozen=True, eq=False):
    """``count`` entries to append, or commands that only read.

    ``head``: what the command begins with that all who append alike share, each with its ``data``;
    without any, it is a command of this one's own. Without a head, ``data`` are commands that read.
    """

    head: tuple[Any, ...]
    data: Sequence[Any]
    count: int
    done: "asyncio.Future[Any]"
    due: float


class _Message:
    """What goes out at once: one command for all that append alike, one for each that has its own.

    What several read alike is asked for once. The ``writes`` stand first.
    """

    def __init__(self, batch: Sequence[_Asked]) -> None:
        self._batch = batch
        self._alone: list[_Asked] = []
        self._by_head: dict[Command, list[_Asked]] = {}
        self._reads: dict[Command, int] = {}
        for asked in batch:
            if not asked.head:
                for command in asked.data:
                    self._reads.setdefault(command, len(self._reads))
            elif asked.data:
                self._by_head.setdefault(asked.head, []).append(asked)
            else:
                self._alone.append(asked)
        self.writes = len(self._alone) + len(self._by_head)

    @property
    def commands(self) -> list[Command]:
        """The commands."""
        commands = [asked.head for asked in self._alone]
        for head, sharing in self._by_head.items():
            commands.append((*head, *[data for asked in sharing for data in asked.data]))
        return [*commands, *self._reads]

    def results(self, written: Sequence[Any], read: Sequence[Any]) -> list[Any]:
        """Return the result of each that was asked, or its error.

        Args:
            written: the answers to the writes.
            read: those to the reads.
        """
        result_of = dict(zip(map(id, self._alone), written, strict=False))
        # One answer holds the ids of all entries, in the order of those who append alike.
        answers = written[len(self._alone) :]
        for sharing, answer in zip(self._by_head.values(), answers, strict=True):
            entries = iter(() if isinstance(answer, Exception) else answer)
            for asked in sharing:
                own = list(islice(entries, asked.count))
                result_of[id(asked)] = answer if isinstance(answer, Exception) else own
        if self._reads:
            for asked in self._batch:
                if not asked.head:
                    found = [read[self._reads[command]] for command in asked.data]
                    wrong = (each for each in found if isinstance(each, Exception))
                    result_of[id(asked)] = next(wrong, found)
        return [result_of[id(asked)] for asked in self._batch]


class SharedWire:
    """Sends the writes and reads of concurrent callers at once: one fsync of the server for all.

    With ``confirm_replicas`` a write is acknowledged only when so many replicas of this Redis hold
    it (WAIT).

    While a batch is on its way the next one gathers: latency is one or two round trips, never a
    timer. Nobody waits longer than ``timeout_s``. When a batch fails as a whole, all that wait fail
    with it; then nothing is sent for as long as the failure took, and then one caller at a time
    tries while the others fail at once, until one succeeds.

    ``failures`` counts the writes not known to be logged by reason: those of ``reason_of``,
    ``skipped`` (not sent, after another's failure) and ``crowded`` (MAX_WAITING were waiting).
    """

    def __init__(self, client: AsyncRedis, *, timeout_s: float, confirm_replicas: int) -> None:
        self.failures: Counter[str] = Counter()
        self._client = client
        self._wire = wire(client)
        self._timeout_s = timeout_s
        self._confirm_replicas = confirm_replicas
        self._waiting: deque[_Asked] = deque()
        self._held = 0
        self._flusher: asyncio.Task[None] | None = None
        self._failing = False
        self._retry_at = 0.0

    def failed(self, reason: str, count: int = 1) -> LogUnavailableError:
        """Count writes that are not known to be logged; return the error that says so.

        Args:
            reason: why, as ``failures`` counts it.
            count: how many records they hold.
        """
        self.failures[reason] += count
        return LogUnavailableError(
            f"the log did not confirm the entry ({reason}): retry in a moment"
        )

    async def read(self, commands: Sequence[Command]) -> list[Any] | None:
        """Return an answer to each command, which changes nothing; None if one was not answered.

        What several callers ask for alike is asked for once.
        """
        asked = self._wait((), commands, 0)
        answers: list[Any] | Exception | None = None if isinstance(asked, str) else await asked
        return None if isinstance(answers, Exception) else answers

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Return an answer to each command, which changes nothing; see ``read``.

        Raises:
            RedisError, OSError: one was not answered.
        """
        asked = self._wait((), commands, 0)
        if isinstance(asked, str):
            raise errors.ConnectionError(f"not asked ({asked}): Redis has not answered others")
        answers: list[Any] | Exception = await asked
        if isinstance(answers, Exception):
            raise answers
        return answers

    async def send(self, head: tuple[Any, ...], data: Sequence[Any], count: int) -> Any:
        """Append entries; return the answer, of all that append alike this caller's part.

        Args:
            head: what the command begins with; all of it, where there is no ``data``.
            data: what this caller adds to a command that several share.
            count: how many entries are appended.

        Raises:
            LogUnavailableError: not known to be logged.
        """
        asked = self._wait(head, data, count)
        if isinstance(asked, str):
            raise self.failed(asked, count)
        return await asked

    def _wait(
        self, head: tuple[Any, ...], data: Sequence[Any], count: int
    ) -> "asyncio.Future[Any] | str":
        """Have something sent with the next batch, or say why it is not."""
        loop = asyncio.get_running_loop()
        flushing = self._flusher is not None and not self._flusher.done()

        # After a failure one caller at a time tries; the others fail at once.
        if self._failing and (flushing or loop.time() < self._retry_at):
            return "skipped"
        if self._held >= MAX_WAITING:
            return "crowded"

        asked = _Asked(head, data, count, loop.create_future(), loop.time() + self._timeout_s)
        self._waiting.append(asked)
        self._held += max(1, count)
        if not flushing:
            self._flusher = asyncio.create_task(self._flush())
        return asked.done

    def _next(self) -> list[_Asked]:
        """Take those that wait, up to about MAX_BATCH records."""
        batch: list[_Asked] = []
        size = 0
        while self._waiting and size < MAX_BATCH:
            batch.append(self._waiting.popleft())
            size += max(1, batch[-1].count)
        self._held -= size
        return batch

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = self._next()
            began = loop.time()
            try:
                results = await self._execute(batch)
                self._failing = any(isinstance(result, errors.ReadOnlyError) for result in results)
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
                # All that wait fail with the batch: its failure is theirs.
                batch += self._waiting
                self._waiting.clear()
                self._held = 0
                results, self._failing = [error] * len(batch), True
                await look_again_if(self._client, [error])

            self._retry_at = loop.time() + max(PAUSE_S, loop.time() - began)
            for asked, result in zip(batch, results, strict=True):
                if asked.done.done():  # its request was cancelled
                    continue
                if not isinstance(result, Exception):
                    asked.done.set_result(result)
                elif not asked.head:
                    asked.done.set_result(result)
                else:
                    asked.done.set_exception(self.failed(reason_of(result), asked.count))

    async def _execute(self, batch: Sequence[_Asked]) -> list[Any]:
        """Return a result or an error for each that was asked."""
        message = _Message(batch)
        async with asyncio.timeout_at(batch[0].due):
            commands = message.commands
            confirms = self._confirm_replicas and message.writes
            if confirms:
                commands.append(("WAIT", self._confirm_replicas, round(self._timeout_s * 500)))
            results = await self._wire.send(commands)
            await look_again_if(self._client, results)

        written, read = results[: message.writes], results[message.writes :]
        if confirms:
            written = self._confirmed(written, read.pop())
        return message.results(written, read)

    def _confirmed(self, results: Sequence[Any], holding: Any) -> list[Any]:
        """Return the results of the writes; if the WAIT behind them was refused, none is confirmed.

        Raises:
            UnconfirmedError: too few replicas hold the writes.
        """
        if isinstance(holding, Exception):
            return [result if isinstance(result, Exception) else holding for result in results]
        if holding < self._confirm_replicas:
            raise UnconfirmedError
        return list(results)
