"""What is in demand in a space, by what its users did: counted by the leader of their log.

It is what a policy's own log says of rewarded items (bandits/log/trends.py), of the log of
activity: each thing done counts once, if its type speaks for its item. Nothing of it is in a log;
whoever leads next goes on from the counts that were stored last, and reads again what came since.
"""

from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

import msgspec

from bandits.log.codec import MALFORMED
from bandits.log.positions import START, has_reached, position_ms
from bandits.log.records import ActivityRecord, LogEntry
from bandits.log.trends import PublishedTrend, Trends, TrendState
from serve_app.store.clients import AsyncRedis, Redis
from serve_app.store.keys import ActivityKeys
from serve_app.store.lease import Command

PUBLISH_S = 0.5
STORE_S = 10.0
POSITION, TRENDS = "position", "trends"

_encode = msgspec.msgpack.Encoder().encode


class StoredDemand(msgspec.Struct, frozen=True, array_like=True):
    """The counts, through an entry of the log."""

    position: str
    trends: list[TrendState]


def decode_demand(data: bytes) -> StoredDemand:
    """Return counts that were stored; a DecodeError of msgspec says that they are none."""
    return _decoder.decode(data)


class Demand:
    """Counts what is in demand.

    ``position``: the counts say what the log says up to here.
    """

    def __init__(self, keys: ActivityKeys) -> None:
        """Count nothing yet; ``keys`` are those of the log."""
        self._keys = keys
        self.position = START
        self._trends: list[Trends] = []
        self._published = self._stored = ""
        self._published_at = self._stored_at = -STORE_S

    def begin(self, half_lives_ms: Iterable[int], since: StoredDemand | None = None) -> None:
        """Count from the beginning of the log.

        Args:
            half_lives_ms: of the space's sources; without any, nothing is counted.
            since: the counts where the log begins; None: there is nothing before its first entry.
        """
        before = {} if since is None else {each.half_life_ms: each for each in since.trends}
        self._trends = [
            Trends(each, before[each].items if each in before else ())
            for each in sorted(set(half_lives_ms))
        ]
        self.position = START if since is None else since.position
        self._published = self._stored = ""

    def lead(
        self, client: Redis, half_lives_ms: Sequence[int], since: StoredDemand | None = None
    ) -> None:
        """Go on from the counts that were stored last.

        Args:
            client: a connection.
            half_lives_ms: see ``begin``.
            since: see ``begin``.

        Raises:
            RedisError: Redis does not answer.
        """
        data: Any = client.get(self._keys.demand)
        try:
            stored = since if data is None else _decoder.decode(data)
        except MALFORMED:  # it is made of the log
            stored = since

        # A half-life that is new needs all of the log, and then the others are counted anew, too.
        known = set() if stored is None else {each.half_life_ms for each in stored.trends}
        self.begin(half_lives_ms, stored if known >= set(half_lives_ms) else since)

    @property
    def encoded(self) -> bytes:
        """The counts, as they are stored."""
        return _encode(StoredDemand(self.position, [each.state for each in self._trends]))

    @property
    def counts(self) -> bool:
        """Whether there is anybody who asks."""
        return bool(self._trends)

    def take(self, entries: Sequence[LogEntry], weights: Mapping[str, float]) -> None:
        """Count what entries say; those that were counted are passed over.

        Args:
            entries: some that follow each other.
            weights: how strongly each type speaks for its item.
        """
        for entry in entries:
            if has_reached(self.position, entry.id):
                continue
            record = entry.record
            if isinstance(record, ActivityRecord) and weights.get(record.event_type, 0.0) > 0:
                for trends in self._trends:
                    trends.add(record.item, position_ms(entry.id))
            self.position = entry.id

    def due(self) -> list[Command]:
        """Return the commands that tell replicas, and keep the counts, where that is due."""
        commands: list[Command] = []
        now = monotonic()
        if not self._trends or self.position == START:
            return commands
        if self.position != self._published and now - self._published_at >= PUBLISH_S:
            now_ms = position_ms(self.position)
            data = _encode([each.published(now_ms) for each in self._trends])
            key = self._keys.in_demand
            commands.append(("HSET", key, POSITION, self.position, TRENDS, data))
            self._published, self._published_at = self.position, now
        if self.position != self._stored and now - self._stored_at >= STORE_S:
            for each in self._trends:
                each.prune(position_ms(self.position))
            commands.append(("SET", self._keys.demand, self.encoded))
            self._stored, self._stored_at = self.position, now
        return commands


class DemandReader:
    """Reads in a replica what is in demand."""

    def __init__(self, client: AsyncRedis, keys: ActivityKeys) -> None:
        """Read what ``keys`` name."""
        self._client, self._keys = client, keys
        self.position = START

    async def newer(self) -> dict[int, PublishedTrend] | None:
        """Return what is in demand by half-life, as of ``position``; None: nothing is new.

        Raises:
            RedisError: Redis does not answer.
        """
        key = self._keys.in_demand
        client: Any = self._client
        position = await client.hget(key, POSITION)
        if position is None or position.decode() == self.position:
            return None
        found, data = await client.hmget(key, [POSITION, TRENDS])
        if found is None or data is None:
            return None
        try:
            trends = _published.decode(data)
        except MALFORMED:  # of another build: the next that is written may be of this one
            return None
        self.position = found.decode()
        return {each.half_life_ms: each for each in trends}


_decoder = msgspec.msgpack.Decoder(StoredDemand)
_published = msgspec.msgpack.Decoder(list[PublishedTrend])
