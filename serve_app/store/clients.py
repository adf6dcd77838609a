"""Clients of one Redis, or of a Redis Cluster.

The URL ``redis+cluster://host:port`` names any of a cluster's nodes. All keys of a partition are in
one slot, so on one node; different partitions may be on different ones.
"""

import contextlib
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Protocol, TypeAlias, cast

import redis
import redis.asyncio
from hiredis import pack_command
from redis import exceptions as errors
from redis.asyncio.cluster import RedisCluster as AsyncCluster
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import parse_url
from redis.retry import Retry

from serve_app.store.replicas.redis_line import RedisLine, take_over

Redis: TypeAlias = redis.Redis
"""A blocking client: of learners, archivers and commands."""
AsyncRedis: TypeAlias = redis.asyncio.Redis
"""A client for asyncio: of replicas."""

CLUSTER = "+cluster://"
REDIS_ERRORS = (errors.RedisError, errors.RedisClusterException)
"""The errors of redis-py. A cluster that does not answer raises the second: no RedisError."""
FAILURES = (*REDIS_ERRORS, OSError)
"""The errors when Redis cannot be reached, or refuses."""
LOST_ANSWERS = (errors.ConnectionError, errors.TimeoutError)
"""The errors when a command may have been carried out, and its answer was lost."""


def is_cluster(url: str) -> bool:
    """Say whether the URL is that of a Redis Cluster."""
    return CLUSTER in url


def without_cluster(url: str) -> str:
    """Return the URL as redis-py takes it, which knows no ``+cluster``."""
    return url.replace(CLUSTER, "://", 1)


def url_parts(url: str) -> dict[str, Any]:
    """Return what a URL says: host, port, path, user and so on, each only if it is there.

    Raises:
        ValueError: it is not the URL of a Redis; the text may hold a piece of the password.
    """
    parts: dict[str, Any] = parse_url(without_cluster(url))  # type: ignore[no-untyped-call]
    return parts


def blocking_client(url: str, *, timeout_s: float = 30.0) -> Redis:
    """Return a client for a process of its own: a learner, an archiver, a command.

    It never repeats a command by itself; see ``asyncio_client``.

    Args:
        url: of one Redis, or of any node of a cluster.
        timeout_s: how long to wait for an answer, in seconds.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": 5,
        "retry": Retry(NoBackoff(), 0),
    }
    if is_cluster(url):
        cluster: Any = RedisCluster.from_url(without_cluster(url), **options)
        return cast("Redis", cluster)
    return redis.Redis.from_url(url, **options)


def as_sent(client: Redis, command: bytes, *words: str | int) -> Any:
    """Return what Redis answers to XRANGE, XREVRANGE or XREAD, with fields one after the other.

    redis-py makes a dict of every entry that an answer to these names in text has. That of one
    server leaves alone what a name in bytes is answered; that of a cluster takes no such name.

    Args:
        client: of one Redis, or of a cluster.
        command: the command's name.
        words: what stands behind it.
    """
    asked: Any = client
    if not isinstance(client, RedisCluster):
        return asked.execute_command(command, *words)
    answer = asked.execute_command(command.decode(), *words)
    if command != b"XREAD":
        return _undone(answer)
    named = answer.items() if isinstance(answer, dict) else answer or ()
    return [
        (name, _undone(entries[0] if isinstance(answer, dict) else entries))
        for name, entries in named
    ]


def _undone(entries: Any) -> list[tuple[bytes, list[bytes]]]:
    """Return entries with their fields one after the other, as Redis sends them."""
    return [(entry_id, [*chain.from_iterable(fields.items())]) for entry_id, fields in entries]


def asyncio_client(url: str, *, timeout_s: float) -> AsyncRedis:
    """Return a client that never repeats a command by itself.

    A command whose answer was lost may have been carried out. By default ``Redis()`` of redis-py 8
    repeats ten times, ``from_url()`` never, and the client of a cluster does.

    Args:
        url: of one Redis, or of any node of a cluster.
        timeout_s: how long to wait for a connection, or for an answer, in seconds.
    """
    never = AsyncRetry(NoBackoff(), 0)

    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": never,
    }
    if is_cluster(url):
        cluster: Any = AsyncCluster.from_url(without_cluster(url), **options)
        return cast("AsyncRedis", cluster)
    return redis.asyncio.Redis.from_url(url, **options)


class Wire(Protocol):
    """Sends commands at once."""

    async def send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return the answer to each command, or the error that it is."""
        ...

    def line(self) -> RedisLine | None:
        """Return the open connection, to be asked directly; None: ``send`` sees to that."""
        ...


def wire(client: AsyncRedis) -> Wire:
    """Return what sends a client's commands for one caller at a time; closed with the client."""
    return _Pipeline(client) if isinstance(client, AsyncCluster) else _Connection(client)


class _Connection:
    """A connection that is kept, where a pipeline would fetch, lock and time one for every batch.

    redis-py opens it, and says who we are. From then on the bytes are our own affair: a stream, a
    task that waits for it and a look whether it can be read cost more than what is asked. Whoever
    calls bounds the time: a connection whose answer nobody waited for is closed.
    """

    def __init__(self, client: AsyncRedis) -> None:
        self._client = client
        self._kept: Any = None
        self._line: RedisLine | None = None

    def line(self) -> RedisLine | None:
        line = self._line
        return None if line is None or line.is_lost or self._kept.should_reconnect() else line

    async def send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        line = self.line()
        if line is None:
            line = self._line = await self._open()

        try:
            answers = await line.ask(packed(commands), len(commands))
        except BaseException:
            line.lose()
            raise
        lose_if_replica(line, answers)
        return answers

    async def _open(self) -> "RedisLine":
        """Connect anew."""
        if self._kept is None:
            pool: Any = self._client.connection_pool
            self._kept = await pool.get_connection()
        else:
            await self._kept.disconnect(nowait=True)
            await self._kept.connect()
        return take_over(self._kept)


def packed(commands: Iterable[tuple[Any, ...]]) -> bytes:
    """Return commands as they are sent."""
    return b"".join(map(pack_command, commands))


def lose_if_replica(line: RedisLine, answers: Iterable[Any]) -> None:
    """Ask a server nothing more that has become a replica: it stays one.

    The next command finds out who is primary.

    Args:
        line: to the server.
        answers: its.
    """
    if any(isinstance(answer, errors.ReadOnlyError) for answer in answers):
        line.lose()


class _Pipeline:
    """A pipeline, for a cluster, whose keys may be on any node."""

    def __init__(self, client: AsyncRedis) -> None:
        self._client = client

    def line(self) -> None:
        """There is none."""

    async def send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers


async def look_again(client: AsyncRedis) -> None:
    """Have the next command find out anew who is where: a primary may have changed, or be gone."""
    if isinstance(client, AsyncCluster):
        await client.aclose()
    else:
        await client.connection_pool.disconnect(inuse_connections=False)


async def look_again_if(client: AsyncRedis, results: Iterable[Any]) -> None:
    """Look again if a result says that the server was the wrong one, or has gone.

    Args:
        client: the one that the results came from.
        results: an answer or an error for each command.
    """
    failures = [each for each in results if isinstance(each, Exception)]
    if not failures:
        return
    wrong = (
        (errors.ReadOnlyError, errors.ConnectionError)
        if isinstance(client, AsyncCluster)
        else errors.ReadOnlyError
    )
    if any(isinstance(each, wrong) for each in failures):
        with contextlib.suppress(*FAILURES):
            await look_again(client)


def now_ms(client: Redis, key: str) -> int:
    """Return what a server's clock shows, in milliseconds since 1970.

    Args:
        client: of one Redis, or of a cluster.
        key: the server that holds it is asked; it need not exist.
    """
    at: dict[str, Any] = (
        {"target_nodes": client.get_node_from_key(key)} if isinstance(client, RedisCluster) else {}
    )
    return _ms(client.time(**at))


async def clock_ms(client: AsyncRedis, key: str) -> int:
    """Return what a server's clock shows, in milliseconds since 1970, without blocking.

    Args:
        client: of one Redis, or of a cluster.
        key: the server that holds it is asked; it need not exist.
    """
    at: dict[str, Any] = (
        {"target_nodes": client.get_node_from_key(key)} if isinstance(client, AsyncCluster) else {}
    )
    return _ms(await client.time(**at))


def _ms(time: Any) -> int:
    seconds, micros = time
    return int(seconds) * 1000 + int(micros) // 1000
