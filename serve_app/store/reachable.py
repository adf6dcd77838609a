"""Whether a Redis answers and takes writes, and in one line what is wrong if it does not."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import redis
from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from bandits.errors import StartupError, plain
from serve_app.store.clients import FAILURES, is_cluster, url_parts, without_cluster

TIMEOUTS = (TimeoutError, redis_errors.TimeoutError)

T = TypeVar("T")


def demand_redis(url: str, timeout_s: float) -> None:
    """Demand that a Redis answers in time, lets this user in, and takes writes.

    Args:
        url: of one Redis, or of any node of a cluster; user and password are in it.
        timeout_s: how long to wait for an answer, in seconds.

    Raises:
        StartupError: with its address, without its password, and the reason.
    """
    try:
        call_within(timeout_s, lambda: _write(url, timeout_s))
    except FAILURES as error:
        raise no_redis(url, error, timeout_s) from error


def no_redis(url: str, error: Exception, timeout_s: float) -> StartupError:
    """Return what is wrong with the Redis at ``url``, and what to do.

    Args:
        url: the Redis's. No password of it is shown.
        error: what was raised.
        timeout_s: how long was waited for an answer, in seconds.
    """
    parts = url_parts(url)
    where = parts.get("path") or f"{parts.get('host', 'localhost')}:{parts.get('port', 6379)}"
    advice = _advice(error, timeout_s)
    if isinstance(error, TIMEOUTS) and url.startswith("rediss"):
        advice += "; a Redis without TLS does not answer rediss:// either"
    return StartupError(f"the Redis at {where} {advice}", "redis_url")


def _write(url: str, timeout_s: float) -> None:
    kind = RedisCluster if is_cluster(url) else redis.Redis
    once = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
    }
    with contextlib.closing(kind.from_url(without_cluster(url), **once)) as client:
        if kind is redis.Redis and client.info("cluster").get("cluster_enabled"):
            raise redis_errors.ResponseError("MOVED")
        client.set("bl:{needs}:try", b"", px=1)


def _advice(error: Exception, timeout_s: float) -> str:
    """Return what is wrong and what to do, quoting the server only where it tells no secret."""
    # The system's own error; redis-py repeats it with a number and the address once more.
    first: BaseException = error
    while first.__context__ is not None and not isinstance(first, OSError):
        first = first.__context__
    detail = first.strerror if isinstance(first, OSError) and first.strerror else plain(error)

    for kind, word, advice in _ADVICE:
        if isinstance(error, kind) and word in detail.lower():
            return advice.format(detail=detail, timeout_s=timeout_s)
    return f"cannot be reached ({detail}): start it, or see that its address is right, in {_WHERE}"


_WHERE = "--redis-url or BANDITLOOP_REDIS_URL"
_ADVICE: Sequence[tuple[type[Exception] | tuple[type[Exception], ...], str, str]] = (
    (
        redis_errors.AuthenticationError,
        "",
        "does not let us in: see user and password of " + _WHERE,
    ),
    (
        redis_errors.NoPermissionError,
        "",
        "does not allow what the service does: see deploy/valkey.acl",
    ),
    (
        redis_errors.ReadOnlyError,
        "",
        "is a replica and takes no writes: give the address of its primary",
    ),
    (redis_errors.BusyLoadingError, "", "is still loading its data: try again when it has"),
    (redis_errors.OutOfMemoryError, "", "takes no writes, for its maxmemory is reached: raise it"),
    (
        redis_errors.ResponseError,
        "moved",
        "is a node of a cluster: write redis+cluster:// or rediss+cluster://",
    ),
    (
        redis_errors.RedisClusterException,
        "cluster mode",
        "is no cluster: write redis:// or rediss://, without +cluster",
    ),
    (redis_errors.ResponseError, "noauth", "demands a password: give it in BANDITLOOP_REDIS_URL"),
    (redis_errors.ResponseError, "", "takes no writes ({detail}): mend that first"),
    (
        Exception,
        "certificate",
        "has a certificate that is not to be trusted ({detail}): see ssl_ca_certs in its URL",
    ),
    (
        Exception,
        "ssl",
        "does not speak TLS with us ({detail}): see rediss:// and the ssl_ settings of its URL",
    ),
    (FileNotFoundError, "", "was not asked ({detail}): see the ssl_ settings of its URL"),
    (
        TIMEOUTS,
        "",
        "does not answer within {timeout_s:g} s: see that it runs and that its address is right,"
        " in " + _WHERE,
    ),
)
"""Kind of the error, a word in it, and the advice; the first that fits counts."""


def call_within(seconds: float, work: Callable[[], T]) -> T:
    """Return what some work returns, or raise what it raises, if it ends in time.

    For work without a timeout of its own, like the search for an address.

    Args:
        seconds: how long to wait for it.
        work: runs in a thread of its own.

    Raises:
        TimeoutError: it takes longer; it is left to itself.
    """
    done: list[Callable[[], T]] = []

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            failed = error

            def fail() -> T:
                raise failed

            done.append(fail)
        else:
            done.append(lambda: result)

    # A daemon, so that work that never ends does not hold up the process.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)

    if not done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return done[0]()
