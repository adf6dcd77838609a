"""The metrics of spaces: how far what users did has come, and what is missing in their profiles."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from bandits.log.positions import position_ms
from serve_app.replica.metrics import INBOX_OUTCOMES
from serve_app.store.clients import AsyncRedis, clock_ms
from serve_app.store.keys import ActivityKeys, UsersKeys
from serve_app.store.profiles.part_state import decode_part_state
from serve_app.store.spaces import ACTIVITY, decode_space


class SpaceState(msgspec.Struct, frozen=True):
    """How a space stands.

    Attributes:
        lag_s: the time since the position of the leader of activity, if the log goes on.
        entries: of the log of activity, in Redis.
        missing: parts of the profiles that are being made anew, or that nobody has begun.
        inbox: what became of what was left in the inbox, by outcome.
        copied_s: the age of the newest copy of who its users are; None: none are made.
    """

    lag_s: float
    entries: int
    missing: int
    inbox: dict[str, int]
    copied_s: float | None = None


async def read_states(client: AsyncRedis, spaces: Iterable[str]) -> dict[str, SpaceState]:
    """Return how each space stands, by name.

    Args:
        client: of the service's Redis.
        spaces: their names.

    Raises:
        RedisError: Redis does not answer.
    """
    return {name: await _read_state(client, name) for name in spaces}


async def _read_state(client: AsyncRedis, name: str) -> SpaceState:
    keys, users = ActivityKeys(name), UsersKeys(name)
    pipeline: Any = client.pipeline(transaction=False)
    pipeline.hgetall(users.policies)
    pipeline.hgetall(users.parts)
    pipeline.xlen(keys.log)
    pipeline.xrevrange(keys.log, count=1)
    pipeline.hgetall(keys.inbox_counts)
    pipeline.get(users.backed_up)
    members, parts, entries, newest, inbox, copied = await pipeline.execute()

    states = {part: decode_part_state(data) for part, data in parts.items()}
    wanted = [part.encode() for part in decode_space(name, members).parts]
    found = [states.get(part) for part in wanted]
    missing = sum(state is None or not state.is_whole for state in found)

    now_ms = await clock_ms(client, keys.log)
    copied_s = None if copied is None else max(0.0, (now_ms - int(copied)) / 1000)

    # Measured here, because a leader that has died cannot say that it is behind.
    led, lag_s = states.get(ACTIVITY.encode()), 0.0
    unread: Any = (
        newest if led is None else await client.xrange(keys.log, f"({led.position}", count=1)
    )
    if unread:
        lag_s = max(0.0, (now_ms - position_ms(unread[0][0].decode())) / 1000)
    counts = {outcome.decode(): int(count) for outcome, count in inbox.items()}
    return SpaceState(lag_s, int(entries), missing, counts, copied_s)


def space_families(states: Mapping[str, SpaceState]) -> Iterator[Metric]:
    """Yield every family, also those that have no sample yet."""
    lag = GaugeMetricFamily(
        "banditloop_activity_lag_seconds",
        "Age of the oldest entry of activity that its leader has not read",
        labels=["space"],
    )
    entries = GaugeMetricFamily(
        "banditloop_activity_log_entries",
        "Entries of the log of activity in Redis",
        labels=["space"],
    )
    missing = GaugeMetricFamily(
        "banditloop_profile_parts_missing",
        "Parts of profiles that are being made anew: until then, profiles say less",
        labels=["space"],
    )
    inbox = CounterMetricFamily(
        "banditloop_activity_inbox",
        "Events of a space's inbox by outcome: moved into the log, or refused",
        labels=["space", "outcome"],
    )
    copied = GaugeMetricFamily(
        "banditloop_users_backup_age_seconds",
        "Age of the newest copy of who a space's users are, where copies are made",
        labels=["space"],
    )

    for name, state in states.items():
        if state.copied_s is not None:
            copied.add_metric([name], state.copied_s)
        lag.add_metric([name], state.lag_s)
        entries.add_metric([name], state.entries)
        missing.add_metric([name], state.missing)
        counts = {**dict.fromkeys(INBOX_OUTCOMES, 0), **state.inbox}
        for outcome, count in sorted(counts.items()):
            inbox.add_metric([name, outcome], count)

    yield from (lag, entries, missing, inbox, copied)
