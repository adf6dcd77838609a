"""The two ends of a connection that redis-py has opened: commands go out, answers come in."""

import asyncio
from typing import Any, cast

import hiredis
from redis import exceptions as errors

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
        self._done: asyncio.Future[list[Any]] | None = None
        self._answers: list[Any] = []
        self._lacking = 0

    def ask(self, packed: bytes, count: int) -> "asyncio.Future[list[Any]]":
        """Send commands; return what will be their answers, each of which may be an error.

        Args:
            packed: the commands, as they are sent.
            count: how many they are.
        """
        self._answers, self._lacking = [], count
        done = self._done = self._loop.create_future()
        self._transport.write(packed)
        return done

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
        if not self._lacking and self._done is not None and not self._done.done():
            self._done.set_result(self._answers)

    def _fail(self, error: Exception) -> None:
        self.lose()
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)

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
