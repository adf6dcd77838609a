"""How far each of a policy's shadows is, as its process says: it may be dead when that is read."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bandits.log.positions import START, log_order, merged_position, position_ms
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
    """Return the seconds since the position of each shadow, if the log goes on.

    Measured here, because a process that has died cannot say that it is behind.

    Args:
        client: of the service's Redis.
        keys: of each partition of the policy, in their order.

    Raises:
        RedisError: Redis does not answer.
        MsgspecError: something else is stored there.
    """
    raw: Any = await client.hgetall(keys[0].shadows)
    if not raw:
        return {}
    oldest, ends = [], []
    for own in keys:
        newest: Any = await client.xrevrange(own.log, count=1)
        first: Any = await client.xrange(own.log, count=1)
        if newest and first:
            ends.append(merged_position(newest[0][0].decode(), own.partition, len(keys)))
            oldest.append(first[0][0].decode())
    if not ends:
        return dict.fromkeys(_decoded(raw), 0.0)

    # Who has read nothing yet is behind as far as Redis goes back.
    end, begins_ms = max(ends, key=log_order), min(map(position_ms, oldest))
    now_ms = await clock_ms(client, keys[0].log)
    lags = {}
    for name, progress in _decoded(raw).items():
        at = progress.position
        since_ms = begins_ms if at == START else position_ms(at)
        lags[name] = 0.0 if at == end else max(0.0, (now_ms - since_ms) / 1000)
    return lags


def _decoded(raw: Mapping[bytes, bytes]) -> dict[str, ShadowProgress]:
    """Return how far each shadow is, by name."""
    return {
        name.decode(): msgspec.json.decode(data, type=ShadowProgress) for name, data in raw.items()
    }
