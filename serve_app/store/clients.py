"""Clients of one Redis, or of a Redis Cluster: ``redis+cluster://host:port`` names any of its nodes.

All keys of a partition are in one slot, so on one node; different partitions may be on different
ones.
"""

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias, cast

import redis
import redis.asyncio
from redis import exceptions as errors
from redis.asyncio.cluster import RedisCluster as AsyncCluster
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import parse_url
from redis.retry import Retry

Redis: TypeAlias = redis.Redis
"""A blocking client: of learners, archivers and commands."""
AsyncRedis: TypeAlias = redis.asyncio.Redis
"""A client for asyncio: of replicas."""

CLUSTER = "+cluster://"
REDIS_ERRORS = (errors.RedisError, errors.RedisClusterException)
"""What redis-py raises. The second, of a cluster of which no node answers, is none of the first."""
FAILURES = (*REDIS_ERRORS, OSError)
"""What it is when Redis cannot be reached, or refuses."""
LOST_ANSWERS = (errors.ConnectionError, errors.TimeoutError)
"""What it is when a command may have been carried out, and its answer was lost."""


def is_cluster(url: str) -> bool:
    """Whether the URL is of a Redis Cluster."""
    return CLUSTER in url


def without_cluster(url: str) -> str:
    """The URL as of one Redis."""
    return url.replace(CLUSTER, "://", 1)


def url_parts(url: str) -> dict[str, Any]:
    """Return what a URL says: host, port, path, user and so on, each only if it is there.

    Raises:
        ValueError: it is not the URL of a Redis; the text may hold a piece of the password.
    """
    parts: dict[str, Any] = parse_url(without_cluster(url))  # type: ignore[no-untyped-call]
    return parts


def blocking_client(url: str, *, timeout_s: float = 30.0) -> "redis.Redis":
    """For a process of its own: learner, archiver, command.

    Like ``asyncio_client``, it never repeats a command by itself.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": 5,
        "retry": Retry(NoBackoff(), 0),
    }
    if is_cluster(url):
        cluster: Any = RedisCluster.from_url(without_cluster(url), **options)
        return cast("redis.Redis", cluster)
    return redis.Redis.from_url(url, **options)


def asyncio_client(url: str, *, timeout_s: float) -> "redis.asyncio.Redis":
    """A client that never repeats a command by itself: one whose answer was lost may have been carried out.

    Left to itself ``Redis()`` of redis-py 8 repeats ten times, ``from_url()`` never, and a client
    of a cluster does.
    """
    never = AsyncRetry(NoBackoff(), 0)
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": never,
    }
    if is_cluster(url):
        cluster: Any = AsyncCluster.from_url(without_cluster(url), **options)
        return cast("redis.asyncio.Redis", cluster)
    return redis.asyncio.Redis.from_url(url, **options)


class Wire(Protocol):
    """Sends commands at once."""

    async def send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answer to each, or the error that it is."""
        ...


def wire(client: "redis.asyncio.Redis") -> Wire:
    """For one caller at a time; closed with the client."""
    return _Pipeline(client) if isinstance(client, AsyncCluster) else _Connection(client)


class _Connection:
    """A connection that is kept.

    A pipeline fetches one, and locks, counts and times that, for every batch anew.

    Whoever calls bounds the time: a connection whose answer nobody waited for is closed.
    """

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        self._client = client
        self._kept: Any = None

    async def send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        if self._kept is None:
            self._kept = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
            self._kept.socket_timeout = None
        # nothing was asked: the server has closed it
        if self._kept.is_connected and await self._kept.can_read():
            await self._kept.disconnect(nowait=True)
        await self._kept.send_packed_command(self._kept.pack_commands(commands))
        answers: list[Any] = []
        for _ in commands:
            try:
                answers.append(await self._kept.read_response())
            except errors.ResponseError as error:
                answers.append(error)
        if self._kept.should_reconnect() or any(
            isinstance(answer, errors.ReadOnlyError) for answer in answers
        ):
            await self._kept.disconnect(nowait=True)
        return answers


class _Pipeline:
    """Of a cluster, whose keys may be anywhere."""

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        self._client = client

    async def send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers


async def look_again(client: "redis.asyncio.Redis") -> None:
    """Before the next command find out anew who is where: a primary may have become a replica, or be gone."""
    if isinstance(client, AsyncCluster):
        await client.aclose()
    else:
        await client.connection_pool.disconnect(inuse_connections=False)


async def look_again_if(client: "redis.asyncio.Redis", results: Iterable[Any]) -> None:
    """The same, where a result says that the server was the wrong one, or has gone."""
    wrong = (
        (errors.ReadOnlyError, errors.ConnectionError)
        if isinstance(client, AsyncCluster)
        else errors.ReadOnlyError
    )
    if any(isinstance(result, wrong) for result in results):
        with contextlib.suppress(*FAILURES):
            await look_again(client)


def now_ms(client: "redis.Redis", key: str) -> int:
    """The clock, in milliseconds, of the server that holds ``key``."""
    at: dict[str, Any] = (
        {"target_nodes": client.get_node_from_key(key)} if isinstance(client, RedisCluster) else {}
    )
    return _ms(client.time(**at))


async def clock_ms(client: "redis.asyncio.Redis", key: str) -> int:
    """The same."""
    at: dict[str, Any] = (
        {"target_nodes": client.get_node_from_key(key)} if isinstance(client, AsyncCluster) else {}
    )
    return _ms(await client.time(**at))


def _ms(time: Any) -> int:
    seconds, micros = time
    return int(seconds) * 1000 + int(micros) // 1000
