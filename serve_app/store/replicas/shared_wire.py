"""One connection for many requests: what they write and read at a time goes out as one message."""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from redis import exceptions as errors

from bandits.errors import LogUnavailableError
from serve_app.store.clients import AsyncRedis, look_again_if, lose_if_replica, packed, wire
from serve_app.store.replicas.messages import (
    Command,
    LoneMessage,
    Posted,
    WireMessage,
    message_of,
)
from serve_app.store.replicas.redis_line import RedisLine

MAX_BATCH = 512
MAX_WAITING = 50_000
PAUSE_S = 0.05
"""Shortest pause between a failure and the one write that tries again."""
TIMEOUT_S = 2.0


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


def _is_error(answer: Any) -> bool:
    return isinstance(answer, Exception)


class _Sent(NamedTuple):
    """A message that was sent on a line and has no answer yet; ``began``: when, in loop time."""

    batch: list[Posted]
    message: WireMessage | LoneMessage
    line: RedisLine
    began: float


class SharedWire:
    """Sends the writes and reads of concurrent callers at once: one fsync of the server for all.

    With ``confirm_replicas`` a write is acknowledged only when so many replicas of this Redis hold
    it (WAIT).

    While a batch is on its way the next one gathers: latency is one or two round trips, never a
    timer. A batch of one goes out at once, where the one before was of one, too. Nobody waits
    longer than ``timeout_s``. When a batch fails as a whole, all that wait fail with it; then
    nothing is sent for as long as the failure took, and then one caller at a time tries while the
    others fail at once, until one succeeds.

    ``failures`` counts the writes not known to be logged by reason: those of ``reason_of``,
    ``skipped`` (not sent, after another's failure) and ``crowded`` (MAX_WAITING were waiting).
    ``written_at``: when somebody has last had something to write, of the loop's time.
    """

    def __init__(self, client: AsyncRedis, *, timeout_s: float, confirm_replicas: int) -> None:
        self.failures: Counter[str] = Counter()
        self.written_at = -math.inf
        self._client = client
        self._wire = wire(client)
        self._timeout_s = timeout_s
        self._confirm_replicas = confirm_replicas
        self._waiting: deque[Posted] = deque()
        self._held = 0
        self._flusher: asyncio.Task[None] | None = None
        self._sent: _Sent | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._begins = self._failing = self._is_lone = False
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
        asked = self._read(commands)
        answers: list[Any] | Exception | None = None if isinstance(asked, str) else await asked
        return None if isinstance(answers, Exception) else answers

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Return an answer to each command, which changes nothing; see ``read``.

        Raises:
            RedisError, OSError: one was not answered.
        """
        asked = self._read(commands)
        if isinstance(asked, str):
            raise errors.ConnectionError(f"not asked ({asked}): Redis has not answered others")
        answers: list[Any] | Exception = await asked
        if isinstance(answers, Exception):
            raise answers
        return answers

    async def send(
        self, head: Command, data: Sequence[Any], count: int, alone: Command = ()
    ) -> Any:
        """Append entries; return the answer, of all that append alike this caller's part.

        Args:
            head: what the command begins with; all of it, where there is no ``data``.
            data: what this caller adds to a command that several share.
            count: how many entries are appended.
            alone: what a command begins with that appends one entry and answers with its id, where
                the shared one does no more.

        Raises:
            LogUnavailableError: not known to be logged.
        """
        return await self.begin(head, data, count, alone)

    def begin(
        self, head: Command, data: Sequence[Any], count: int, alone: Command = ()
    ) -> "asyncio.Future[Any]":
        """Begin to append entries; return what becomes the answer, or its error.

        Whoever asks may do something else while the server syncs; see ``send``.

        Args:
            head: see ``send``.
            data: see there.
            count: see there.
            alone: see there.
        """
        loop = asyncio.get_running_loop()
        self.written_at = now = loop.time()
        due, done = now + self._timeout_s, loop.create_future()
        asked = self._wait(loop, now, Posted(head, data, count, done, due, alone))
        if isinstance(asked, str):
            done.set_exception(self.failed(asked, count))
            return done
        return asked

    def _read(self, commands: Sequence[Command]) -> "asyncio.Future[Any] | str":
        """Have commands that only read sent with the next batch, or say why they are not."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        due, done = now + self._timeout_s, loop.create_future()
        return self._wait(loop, now, Posted((), commands, 0, done, due))

    def _wait(
        self, loop: asyncio.AbstractEventLoop, now: float, asked: Posted
    ) -> "asyncio.Future[Any] | str":
        """Have something sent with the next batch, or say why it is not.

        Args:
            loop: the one that runs.
            now: its time.
            asked: what is to be sent.
        """
        flushing = (
            self._begins
            or self._sent is not None
            or (self._flusher is not None and not self._flusher.done())
        )

        # After a failure one caller at a time tries; the others fail at once.
        if self._failing and (flushing or now < self._retry_at):
            return "skipped"
        if self._held >= MAX_WAITING:
            return "crowded"

        self._waiting.append(asked)
        self._held += asked.count or 1
        if flushing:
            return asked.done

        # Others may ask in this round of the loop. Whoever was the only one the last time does not
        # wait to see.
        if self._is_lone:
            self._begin(loop)
        else:
            self._begins = True
            loop.call_soon(self._begin, loop)
        return asked.done

    def _next(self) -> list[Posted]:
        """Take those that wait, up to about MAX_BATCH records."""
        batch: list[Posted] = []
        size = 0
        while self._waiting and size < MAX_BATCH:
            batch.append(self._waiting.popleft())
            size += max(1, batch[-1].count)
        self._held -= size
        return batch

    # A message over a line that is open: no task waits for its answers

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send what waits, on the open line, or from a task where there is none."""
        self._begins = False
        line = self._wire.line()
        if line is None:
            self._flusher = asyncio.create_task(self._flush())
            return

        batch = self._next()
        self._is_lone = len(batch) == 1
        sent = self._sent = _Sent(batch, message_of(batch), line, loop.time())
        if self._watch is None:
            self._watch = loop.call_at(batch[0].due, self._look)
        try:
            commands = self._commands_of(sent.message)
            line.ask_then(packed(commands), len(commands), partial(self._take, sent))
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
            self._take(sent, error)

    def _look(self) -> None:
        """Give up a message that is overdue; otherwise look again when it would be."""
        self._watch, sent, loop = None, self._sent, asyncio.get_running_loop()
        if sent is None:
            return
        due = sent.batch[0].due
        if loop.time() < due:
            self._watch = loop.call_at(due, self._look)
        else:
            sent.line.lose()
            self._take(sent, TimeoutError())

    def _take(self, sent: _Sent, answers: list[Any] | Exception) -> None:
        """Give everyone their answers, and send what has come to wait; failures are a task's."""
        if self._sent is not sent:
            return  # it was given up
        self._sent, results = None, None
        if not isinstance(answers, Exception) and not any(map(_is_error, answers)):
            try:
                results = self._results(sent.message, answers)
            except Exception as error:  # noqa: BLE001 - as above
                answers = error
        if results is None:
            self._flusher = asyncio.create_task(self._flush(sent, answers))
            return

        self._failing = False
        for asked, result in zip(sent.batch, results, strict=True):
            if not asked.done.done():  # its request was not cancelled
                asked.done.set_result(result)
        if self._waiting:
            self._begin(asyncio.get_running_loop())

    # Or from a task, which opens a connection, and sees to failures

    async def _flush(
        self, sent: _Sent | None = None, answers: Sequence[Any] | Exception = ()
    ) -> None:
        """Send what waits, message after message.

        Args:
            sent: a message that was sent already.
            answers: its answers, among which is an error; or why there are none.
        """
        loop = asyncio.get_running_loop()
        while sent is not None or self._waiting:
            results: list[Any] | Exception
            batch = self._next() if sent is None else sent.batch
            began = loop.time() if sent is None else sent.began
            try:
                if sent is None:
                    results = await self._execute(batch)
                elif isinstance(answers, Exception):
                    raise answers  # noqa: TRY301 - handled as any other
                else:
                    lose_if_replica(sent.line, answers)
                    await look_again_if(self._client, answers)
                    results = self._results(sent.message, answers)
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
                await look_again_if(self._client, [error])
                results = error
            sent = None
            self._settle(batch, results, began)

    def _settle(self, batch: list[Posted], results: list[Any] | Exception, began: float) -> None:
        """Give everyone of a batch their result, or its error.

        Args:
            batch: those who asked.
            results: of each; or why there are none.
            began: when the batch was sent, of the loop's time.
        """
        now = asyncio.get_running_loop().time()
        if isinstance(results, Exception):
            # All that wait fail with the batch: its failure is theirs.
            batch += self._waiting
            self._waiting.clear()
            self._held = 0
            results, self._failing = [results] * len(batch), True
        else:
            self._failing = any(isinstance(result, errors.ReadOnlyError) for result in results)

        self._retry_at = now + max(PAUSE_S, now - began)
        for asked, result in zip(batch, results, strict=True):
            if asked.done.done():  # its request was cancelled
                continue
            if not isinstance(result, Exception) or not asked.head:
                asked.done.set_result(result)
            else:
                asked.done.set_exception(self.failed(reason_of(result), asked.count))

    async def _execute(self, batch: Sequence[Posted]) -> list[Any]:
        """Return a result or an error for each that was asked."""
        message = message_of(batch)
        async with asyncio.timeout_at(batch[0].due):
            answers = await self._wire.send(self._commands_of(message))
            await look_again_if(self._client, answers)
        return self._results(message, answers)

    def _commands_of(self, message: WireMessage | LoneMessage) -> list[Command]:
        """Return what is sent: a message's commands, and the wait for other servers."""
        commands = message.commands
        if self._confirm_replicas and message.writes:
            return [*commands, ("WAIT", self._confirm_replicas, round(self._timeout_s * 500))]
        return commands

    def _results(self, message: WireMessage | LoneMessage, answers: Sequence[Any]) -> list[Any]:
        """Return the result of each that was asked, or its error.

        Args:
            message: what was sent.
            answers: to its commands, and of the wait.

        Raises:
            UnconfirmedError: too few replicas hold the writes.
        """
        written, read = answers[: message.writes], answers[message.writes :]
        if self._confirm_replicas and message.writes:
            written, read = self._confirmed(written, read[-1]), read[:-1]
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
