"""Demand by item: how often it was rewarded, each time half as much a while later.

A count is kept as of the item's own last reward, so it depends on the sequence of the item's
rewards alone: not on when it was looked at, nor on how the log was read.
"""

import math
from collections.abc import Iterable
from heapq import nlargest

import msgspec

from bandits.errors import SnapshotError
from bandits.log.codec import MALFORMED

MOST_KEPT = 20_000
"""Items that are kept at a checkpoint: those that are most in demand then."""
MOST_PUBLISHED = 2_000
"""Items that a snapshot brings."""


class ItemCount(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An item's count, as of a time, in ms since 1970."""

    id: str
    count: float
    at_ms: int


class TrendState(msgspec.Struct, frozen=True, array_like=True):
    """The counts of a half-life, in the order in which their items came."""

    half_life_ms: int
    items: list[ItemCount]


class PublishedTrend(msgspec.Struct, frozen=True, array_like=True):
    """The items that are most in demand, the first first, and their counts as of one time."""

    half_life_ms: int
    ids: list[str]
    counts: list[float]


class Trends:
    """Counts of rewards by item, which halve with every half-life.

    Args:
        half_life_ms: in milliseconds.
        items: what they begin with.
    """

    def __init__(self, half_life_ms: int, items: Iterable[ItemCount] = ()) -> None:
        self.half_life_ms = half_life_ms
        self._items = {item.id: item for item in items}

    def add(self, item_id: str, now_ms: int) -> None:
        """Count a reward of an item.

        Args:
            item_id: what was chosen.
            now_ms: the time of the entry that brought the reward; never less than before.
        """
        known = self._items.get(item_id)
        count = 1.0 if known is None else 1.0 + self._as_of(known, now_ms)
        self._items[item_id] = ItemCount(item_id, count, now_ms)

    def prune(self, now_ms: int) -> None:
        """Forget all but MOST_KEPT items."""
        if len(self._items) > MOST_KEPT:
            kept = {item.id for item in self._most(MOST_KEPT, now_ms)}
            self._items = {name: item for name, item in self._items.items() if name in kept}

    @property
    def state(self) -> TrendState:
        """The counts as a checkpoint holds them."""
        return TrendState(self.half_life_ms, list(self._items.values()))

    def published(self, now_ms: int) -> PublishedTrend:
        """Return what a snapshot brings, as of its time."""
        most = self._most(MOST_PUBLISHED, now_ms)
        return PublishedTrend(
            self.half_life_ms,
            [item.id for item in most],
            [self._as_of(item, now_ms) for item in most],
        )

    def _as_of(self, item: ItemCount, now_ms: int) -> float:
        return item.count * math.pow(2.0, -(now_ms - item.at_ms) / self.half_life_ms)

    def _most(self, count: int, now_ms: int) -> list[ItemCount]:
        """Return the items most in demand, the first first; ties by id."""
        return nlargest(
            count, self._items.values(), lambda item: (self._as_of(item, now_ms), item.id)
        )


def encode_trends(trends: Iterable[Trends], now_ms: int) -> bytes:
    """Return what a snapshot brings of all half-lives, as of a time in ms since 1970."""
    return msgspec.msgpack.encode([each.published(now_ms) for each in trends])


def decode_trends(data: bytes) -> dict[int, PublishedTrend]:
    """Return what a snapshot brings, by half-life in milliseconds.

    Raises:
        SnapshotError: it is something else.
    """
    try:
        found = _published.decode(data)
    except MALFORMED as error:
        raise SnapshotError(f"not a snapshot's trends: {error}", "trends") from error
    return {each.half_life_ms: each for each in found}


_published = msgspec.msgpack.Decoder(list[PublishedTrend])
