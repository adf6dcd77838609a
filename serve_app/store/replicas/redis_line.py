"""The two ends of a connection that redis-py has opened: commands go out, answers come in."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import hiredis
from redis import exceptions as errors

Then = Callable[[list[Any] | Exception], None]
"""Is given the answers to what was asked, or why there are none."""
_NOT_YET = object()
_CLOSED = "the server has closed the connection"


class RedisLine(asyncio.Protocol):
    """Commands and their answers, one message at a time.

    ``is_lost``: nothing more can be asked.
    """

    def __init__(
        self, transport: asyncio.Transport, reader: "hiredis.Reader", former: asyncio.BaseProtocol
    ) -> None:
        """Take a connection over.

        Args:
            transport: on which nothing is asked yet.
            reader: of answers; it gives _NOT_YET where one is not complete.
            former: is told when the connection ends, as who waits for it there.
        """
        self.is_lost = False
        self._loop = asyncio.get_running_loop()
        self._transport, self._reader, self._former = transport, reader, former
        self._then: Then | None = None
        self._answers: list[Any] = []
        self._lacking = 0

    def ask(self, packed: bytes, count: int) -> "asyncio.Future[list[Any]]":
        """Send commands; return what will be their answers, each of which may be an error.

        Args:
            packed: the commands, as they are sent.
            count: how many they are.
        """
        done: asyncio.Future[list[Any]] = self._loop.create_future()

        def give(answers: list[Any] | Exception) -> None:
            if done.done():
                return
            if isinstance(answers, Exception):
                done.set_exception(answers)
            else:
                done.set_result(answers)

        self.ask_then(packed, count, give)
        return done

    def ask_then(self, packed: bytes, count: int, then: Then) -> None:
        """Send commands, and call with their answers as soon as these have come.

        Args:
            packed: the commands, as they are sent.
            count: how many they are.
            then: called once; it may ask again.
        """
        self._answers, self._lacking, self._then = [], count, then
        self._transport.write(packed)

    def lose(self) -> None:
        """Let nobody ask any more: an answer may come that nobody waits for."""
        self.is_lost = True
        self._transport.close()

    # Called by the loop

    def data_received(self, data: bytes) -> None:
        """Take what has come of the answers."""
        reader = self._reader
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not _NOT_YET:
                self._take(answer)
        except (errors.ConnectionError, errors.InvalidResponse) as error:
            self._fail(error)

    def _take(self, answer: Any) -> None:
        # What nobody asked for says that the server is about to move: nothing is asked of it again.
        if isinstance(answer, hiredis.PushNotification) or not self._lacking:
            self.is_lost = True
            return

        # Such an answer is about the server, not about the command.
        first = answer[0] if isinstance(answer, list) and answer else answer
        if isinstance(first, errors.ConnectionError):
            raise first

        self._answers.append(answer)
        self._lacking -= 1
        if not self._lacking:
            self._give(self._answers)

    def _fail(self, error: Exception) -> None:
        self.lose()
        self._give(error)

    def _give(self, answers: list[Any] | Exception) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(answers)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: what was asked has no answer."""
        self._fail(errors.ConnectionError(f"{_CLOSED}: {exc}" if exc else _CLOSED))
        self._former.connection_lost(exc)


def take_over(connection: Any) -> RedisLine:
    """Return the line of a connection of redis-py, which reads nothing from it any more.

    redis-py has no name for its transport: of its private parts this needs two (``_writer``,
    ``_parser``), and tests fail where they are others.

    Args:
        connection: open, and not asked anything.
    """
    transport = cast("asyncio.Transport", connection._writer.transport)  # noqa: SLF001
    reader = hiredis.Reader(
        protocolError=errors.InvalidResponse,
        replyError=connection._parser.parse_error,  # noqa: SLF001
        notEnoughData=_NOT_YET,
    )
    line = RedisLine(transport, reader, transport.get_protocol())
    transport.set_protocol(line)
    return line
