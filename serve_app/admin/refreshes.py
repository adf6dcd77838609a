"""Refreshes of a policy's sources: one at a time, and what became of the last one."""

import contextlib
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from banditloop_client.schemas import RefreshInfo
from bandits.errors import RefreshRunningError
from bandits.log.codec import MALFORMED
from serve_app.store.clients import FAILURES, AsyncRedis, Redis
from serve_app.store.keys import Keys

LEASE_S = 15.0
"""How long a refresh whose machine died keeps others from one."""
HEARTBEAT_S = 3.0

_FIRST_LOOK = "first_look_ms"
_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
"""
_RELEASE = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
)

log = logging.getLogger("banditloop.refresh")


class Refresher(msgspec.Struct, frozen=True):
    """Who refreshes: in words, since when (ms of the log's clock), under a name of its own."""

    by: str
    since_ms: int
    token: str


@contextlib.contextmanager
def only_refresh(client: Redis, keys: Keys, by: str, since_ms: int) -> Iterator[Callable[[], None]]:
    """Be the only one who refreshes a policy.

    Yields a function that demands that it still is so, before anything is changed.

    Args:
        client: of the policy's Redis.
        keys: of partition 0.
        by: who refreshes, in words.
        since_ms: the time, on the log's clock.

    Raises:
        RefreshRunningError: another does; it says who, and since when.
    """
    own = msgspec.json.encode(Refresher(by, since_ms, uuid.uuid4().hex))
    lease_ms = round(1000 * LEASE_S)

    def demand() -> None:
        if not client.eval(_RENEW, 1, keys.refreshing, own, lease_ms):
            raise _running(client, keys)

    def renew(stop: threading.Event) -> None:
        while not stop.wait(HEARTBEAT_S):
            try:
                client.eval(_RENEW, 1, keys.refreshing, own, lease_ms)
            except FAILURES as error:
                log.warning("the refresh's lease is not renewed (%s)", type(error).__name__)

    demand()
    stop = threading.Event()
    heartbeat = threading.Thread(target=renew, args=(stop,), name="refresh", daemon=True)
    heartbeat.start()
    try:
        yield demand
    finally:
        stop.set()
        heartbeat.join()
        with contextlib.suppress(*FAILURES):
            client.eval(_RELEASE, 1, keys.refreshing, own)


def _running(client: Redis, keys: Keys) -> RefreshRunningError:
    raw: Any = client.get(keys.refreshing)
    try:
        held = msgspec.json.decode(raw or b"", type=Refresher)
    except MALFORMED:
        return RefreshRunningError("another refresh has just ended: try again", "policy")
    since = datetime.fromtimestamp(held.since_ms / 1000, UTC).isoformat(" ", "seconds")
    return RefreshRunningError(
        f"{held.by} refreshes {keys.policy} since {since}: wait for it, or end it", "policy"
    )


def write_refresh(client: Redis, keys: Keys, info: RefreshInfo) -> None:
    """Store what became of a refresh, and count it.

    Args:
        client: of the policy's Redis.
        keys: of partition 0.
        info: the refresh; its counts do not matter.
    """
    client.set(keys.refreshed, msgspec.json.encode(msgspec.structs.replace(info, counts={})))
    client.hincrby(keys.refreshes, info.outcome, 1)


def is_running(client: Redis, keys: Keys) -> bool:
    """Return whether somebody refreshes the policy now.

    Args:
        client: of the policy's Redis.
        keys: of partition 0.
    """
    return bool(client.exists(keys.refreshing))


def first_look_ms(client: Redis, keys: Keys, now_ms: int) -> int:
    """Return when a schedule first looked at the policy: now, unless one has before.

    Args:
        client: of the policy's Redis.
        keys: of partition 0.
        now_ms: the time, on the log's clock.
    """
    client.hsetnx(keys.refreshes, _FIRST_LOOK, now_ms)
    found: Any = client.hget(keys.refreshes, _FIRST_LOOK)
    return int(found)


def read_refresh(client: Redis, keys: Keys) -> RefreshInfo | None:
    """Return the last refresh; None if there never was one.

    Args:
        client: of the policy's Redis.
        keys: of partition 0.
    """
    last: Any = client.get(keys.refreshed)
    counts: Any = client.hgetall(keys.refreshes)
    return _decoded(last, counts)


async def follow_refresh(client: AsyncRedis, keys: Keys) -> RefreshInfo | None:
    """Return the last refresh, as ``read_refresh`` does.

    Args:
        client: of the policy's Redis.
        keys: of partition 0.
    """
    last: Any = await client.get(keys.refreshed)
    counts: Any = await client.hgetall(keys.refreshes) if last is not None else {}
    return _decoded(last, counts)


def _decoded(last: bytes | None, counts: dict[bytes, bytes]) -> RefreshInfo | None:
    if last is None:
        return None
    info = msgspec.json.decode(last, type=RefreshInfo)
    counted = {name.decode(): int(count) for name, count in sorted(counts.items())}
    counted.pop(_FIRST_LOOK, None)
    return msgspec.structs.replace(info, counts=counted)
