"""Looks at Redis that a process takes many times a second, sent with what others write and read."""

from typing import Any

from serve_app.store.replicas.messages import Command
from serve_app.store.replicas.shared_wire import SharedWire

_STREAMS = frozenset({"XRANGE", "XREVRANGE"})


class SharedPipeline:
    """Commands that change nothing, added and answered as by a pipeline of redis-py.

    That one takes a connection from its pool, and waits for each answer by itself: for a look that
    finds nothing new it costs several times as much.
    """

    def __init__(self, wire: SharedWire) -> None:
        """Begin with no commands, which go out over ``wire``."""
        self._wire = wire
        self._commands: list[Command] = []

    def get(self, key: str) -> None:
        """Ask for a value."""
        self._commands.append(("GET", key))

    def hmget(self, key: str, fields: tuple[str, ...]) -> None:
        """Ask for some fields of a hash.

        Args:
            key: the hash.
            fields: their names.
        """
        self._commands.append(("HMGET", key, *fields))

    def lrange(self, key: str, start: int, end: int) -> None:
        """Ask for a part of a list.

        Args:
            key: the list.
            start: the place of the first.
            end: that of the last.
        """
        self._commands.append(("LRANGE", key, start, end))

    def xrange(self, key: str, first: str = "-", last: str = "+", *, count: int) -> None:
        """Ask for entries of a stream.

        Args:
            key: the stream.
            first: where to begin.
            last: where to end.
            count: how many at most.
        """
        self._commands.append(("XRANGE", key, first, last, "COUNT", count))

    def xrevrange(self, key: str, *, count: int) -> None:
        """Ask for the newest entries of a stream, the newest first.

        Args:
            key: the stream.
            count: how many at most.
        """
        self._commands.append(("XREVRANGE", key, "+", "-", "COUNT", count))

    async def execute(self) -> list[Any]:
        """Return the answers, in the order of the commands.

        Raises:
            RedisError, OSError: not all are answered.
        """
        answers = await self._wire.ask(self._commands)
        return [
            [_entry(each) for each in answer] if command[0] in _STREAMS else answer
            for command, answer in zip(self._commands, answers, strict=True)
        ]


def _entry(raw: Any) -> tuple[bytes, dict[bytes, bytes]]:
    """Return an entry's position and its fields, which the client of a cluster has paired."""
    position, fields = raw
    if isinstance(fields, dict):
        return position, fields
    return position, dict(zip(fields[::2], fields[1::2], strict=True))
