"""How far each of a policy's shadows is, as its process says: it may be dead when that is read."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bandits.log.positions import START, own_position, position_ms
from serve_app.store.clients import FAILURES, AsyncRedis, Redis, clock_ms
from serve_app.store.keys import Keys


class ShadowProgress(msgspec.Struct, frozen=True):
    """How far a shadow is: ``position`` is that of the newest entry that it has followed."""

    position: str


def say_progress(client: Redis, keys: Keys, name: str, progress: ShadowProgress) -> None:
    """Say how far a shadow is; where Redis does not answer, it is said another time.

    Args:
        client: the shadow's own connection.
        keys: of the log that it follows.
        name: the shadow's.
        progress: how far it is.
    """
    with contextlib.suppress(*FAILURES):
        client.hset(keys.shadows, name, msgspec.json.encode(progress))


def forget_progress(client: Redis, keys: Keys) -> None:
    """Forget all shadows of a policy: those that there are say anew how far they are.

    Args:
        client: a connection.
        keys: of the policy's log.
    """
    with contextlib.suppress(*FAILURES):
        client.delete(keys.shadows)


async def read_shadow_lags(client: AsyncRedis, keys: Sequence[Keys]) -> dict[str, float]:
    """Return the age of the oldest entry that each shadow has not followed, in seconds; 0: of none.

    Measured here, because a process that has died cannot say that it is behind.

    Args:
        client: of the service's Redis.
        keys: of each partition of the policy, in their order.

    Raises:
        RedisError: Redis does not answer.
        MsgspecError: something else is stored there.
    """
    raw: Any = await client.hgetall(keys[0].shadows)
    lags = {}
    for name, progress in _decoded(raw).items():
        unread = [await _first_past(client, own, progress.position, len(keys)) for own in keys]
        since_ms = min((ms for ms in unread if ms is not None), default=None)
        if since_ms is None:
            lags[name] = 0.0
        else:
            now_ms = await clock_ms(client, keys[0].log)
            lags[name] = max(0.0, (now_ms - since_ms) / 1000)
    return lags


async def _first_past(client: AsyncRedis, own: Keys, merged: str, count: int) -> int | None:
    """Return the time of a partition's first entry that a shadow lacks, in ms; None: of none."""
    # Who has read nothing yet is behind as far as Redis goes back.
    past = "-" if merged == START else f"({own_position(merged, own.partition, count)}"
    found: Any = await client.xrange(own.log, past, count=1)
    return position_ms(found[0][0].decode()) if found else None


def _decoded(raw: Mapping[bytes, bytes]) -> dict[str, ShadowProgress]:
    """Return how far each shadow is, by name."""
    return {
        name.decode(): msgspec.json.decode(data, type=ShadowProgress) for name, data in raw.items()
    }
