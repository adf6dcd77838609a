"""The newest items by what they have in common, as items come and go."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64, UInt32
from policies.sources.highest import Admits

LEAST_ROOM = 64
"""Items for which there is room at first; it doubles."""
LOOK = 64
"""Places of a list that are looked at first, from its new end; four times as many each time."""


class NewestIndex:
    """Items by time, all of them and those with each trait, newest last.

    A trait is a number (the hash of ``genre=drama``, say). An item has a number of its own, in the
    order in which items were added; of two of the same time, the later one is newer. What an index
    was made with lies in arrays, by trait; what was added since in lists, by trait, in order. An
    item that goes is marked, and passed over.

    Args:
        times: float64[n], ms, of the items that it begins with, numbered from 0.
        items: int[p], an item of each pair of an item and one of its traits.
        traits: uint32[p], the trait of each pair.
    """

    def __init__(self, times: Float64, items: NDArray[Any], traits: UInt32) -> None:
        self._times = times.astype(np.float64)
        self._there = np.ones(times.size, np.bool_)
        self._first = self._next = times.size
        self.count = times.size

        # By item, to take the traits of one away; by trait and age, to find the newest.
        by_item = np.argsort(items, kind="stable")
        self._own = traits[by_item]
        self._own_starts = np.searchsorted(items[by_item], np.arange(times.size + 1))
        order = np.lexsort((items, times[items], traits))
        self._traits, starts = np.unique(traits[order], return_index=True)
        self._starts = np.append(starts, order.size)
        self._order = items[order].astype(np.int32)

        # Of a list that has been looked at: what is left of it, newest last, in parts.
        every = np.argsort(times, kind="stable").astype(np.int32)
        self._parts: dict[int | None, list[NDArray[np.int32]]] = {None: [every]}
        self._crowded: dict[int | None, list[NDArray[np.int32]]] = {}
        self._added: dict[int | None, list[tuple[float, int]]] = {None: []}
        self._added_traits: dict[int, tuple[int, ...]] = {}
        self._more: dict[int, int] = {}

    def add(self, time_ms: float, traits: Iterable[int]) -> int:
        """Add an item; return its number.

        Args:
            time_ms: its time.
            traits: those that it has.
        """
        item, own = self._next, tuple(traits)
        self._next += 1
        if item >= self._times.size:
            room = np.zeros(max(LEAST_ROOM, self._times.size))
            self._times = np.concatenate([self._times, room])
            self._there = np.concatenate([self._there, room.astype(np.bool_)])
        self._times[item], self._there[item] = time_ms, True

        self.count += 1
        self._added_traits[item] = own
        self._tally(own, 1)
        for each in (None, *own):
            insort(self._added.setdefault(each, []), (time_ms, item))
        return item

    def remove(self, item: int) -> None:
        """Take an item away, by its number."""
        self._there[item] = False
        self.count -= 1
        own = self.traits(item)
        self._tally(own, -1)
        if item < self._first:
            return

        del self._added_traits[item]
        key = float(self._times[item]), item
        for trait in (None, *own):
            added = self._added[trait]
            del added[bisect_left(added, key)]
            if not added and trait is not None:
                del self._added[trait]

    def _tally(self, traits: Iterable[int], more: int) -> None:
        for trait in traits:
            self._more[trait] = self._more.get(trait, 0) + more

    def traits(self, item: int) -> tuple[int, ...]:
        """Return the traits of an item that is there, by its number."""
        if item >= self._first:
            return self._added_traits[item]
        return tuple(self._own[self._own_starts[item] : self._own_starts[item + 1]].tolist())

    def traits_of(self, items: NDArray[np.intp]) -> tuple[NDArray[np.intp], UInt32]:
        """Return pairs of an item and one of its traits: int[p], its place, and uint32[p].

        Args:
            items: the numbers of some that are there, int[n].
        """
        first = np.flatnonzero(items < self._first)
        begin, end = self._own_starts[items[first]], self._own_starts[items[first] + 1]
        lengths = end - begin
        starts = np.cumsum(lengths) - lengths
        pairs = np.arange(int(lengths.sum())) + np.repeat(begin - starts, lengths)
        places, traits = [np.repeat(first, lengths)], [self._own[pairs]]

        added = np.flatnonzero(items >= self._first)
        if added.size:
            own = [self._added_traits[item] for item in items[added].tolist()]
            places.append(np.repeat(added, [len(each) for each in own]))
            traits.append(np.array([*chain.from_iterable(own)], np.uint32))
        return np.concatenate(places), np.concatenate(traits)

    def counts(self, traits: UInt32) -> NDArray[np.intp]:
        """Return how many items have each trait, int[n]."""
        if not self._traits.size:
            return np.array([self._more.get(trait, 0) for trait in traits.tolist()], np.intp)
        at = np.minimum(np.searchsorted(self._traits, traits), self._traits.size - 1)
        first = np.where(self._traits[at] == traits, self._starts[at + 1] - self._starts[at], 0)
        return first + np.array([self._more.get(trait, 0) for trait in traits.tolist()], np.intp)

    def newest(
        self,
        trait: int | None,
        limit: int,
        barred: Sequence[int] = (),
        admits: Admits | None = None,
    ) -> NDArray[np.intp]:
        """Return the numbers of the newest items, newest first.

        Args:
            trait: one that they have; None: of all.
            limit: how many at most.
            barred: numbers of items that are passed over.
            admits: says which items, by their numbers, are not passed over; None: all.
        """
        (found,) = self.newest_of_each([trait], limit, barred, admits)
        return found.astype(np.intp)

    def newest_of_each(
        self,
        traits: Iterable[int | None],
        limit: int,
        barred: Sequence[int] = (),
        admits: Admits | None = None,
    ) -> list[NDArray[np.int32]]:
        """Return the numbers of the newest items with each trait, newest first.

        Args:
            traits: None among them: of all.
            limit: how many at most, of each.
            barred: numbers of items that are passed over.
            admits: says which items, by their numbers, are not passed over; None: all.
        """
        there, out = self._there, [item for item in barred if self._there[item]]
        there[out] = False
        asked = list(traits)
        last = {} if admits is not None else self._last_of_each(asked, limit)
        found = [self._newest(trait, max(limit, 0), admits, last.get(trait)) for trait in asked]
        there[out] = True
        self._thin()
        return found

    def _newest(
        self,
        trait: int | None,
        limit: int,
        admits: Admits | None,
        first: NDArray[np.int32] | None,
    ) -> NDArray[np.int32]:
        """Return the newest items with a trait that are there, newest first.

        Args:
            trait: see ``newest``.
            limit: likewise.
            admits: likewise.
            first: the newest of those that the index began with, newest last; None: look for them.
        """
        if first is None:
            first = self._first_newest(trait, limit, admits)
        if not self._added.get(trait):
            return first[::-1][:limit]
        items = np.concatenate([first, *self._added_newest(trait, limit, admits)])
        return items[np.lexsort((-items, -self._times[items]))][:limit]

    def _added_newest(
        self,
        trait: int | None,
        limit: int,
        admits: Admits | None,
    ) -> list[NDArray[np.int32]]:
        """Return the newest of those that were added since, in no order."""
        added, count, look = self._added.get(trait, ()), 0, LOOK
        kept: list[NDArray[np.int32]] = []
        end = len(added)
        while end > 0 and count < limit:
            begin = max(0, end - look)
            seen = np.array([item for _, item in added[begin:end]], np.int32)
            seen = seen[self._there[seen]]
            kept.append(seen if admits is None else seen[admits(seen)])
            count += kept[-1].size
            end, look = begin, 4 * look
        return kept

    def _first_newest(
        self,
        trait: int | None,
        limit: int,
        admits: Admits | None,
    ) -> NDArray[np.int32]:
        """Return the newest of those that the index began with, newest last."""
        parts = self._parts.get(trait)
        if parts is None:
            parts = [self._order[:0] if trait is None else self._first_with(trait)]

        looked: list[NDArray[np.int32]] = []
        kept: list[NDArray[np.int32]] = []
        count, look, left = 0, LOOK, list(parts)
        while left and count < limit:
            part = left.pop()
            seen = part[-look:]
            looked.append(seen)
            if admits is not None:
                kept.append(seen[self._there[seen] & admits(seen)])
                count += kept[-1].size
            else:
                count += int(np.count_nonzero(self._there[seen]))
            if part.size > look:
                left.append(part[:-look])
            look *= 4
        if not looked:
            return self._order[:0]
        if admits is not None:
            return np.concatenate(kept[::-1])

        # What has gone is not looked at again and again.
        seen = np.concatenate(looked[::-1])
        if seen.size > LOOK + 4 * limit:
            self._crowded[trait] = [*left, seen]
        return seen[self._there[seen]]

    def _last_of_each(
        self, traits: Iterable[int | None], limit: int
    ) -> dict[int | None, NDArray[np.int32]]:
        """Return by trait what ``_first_newest`` does, where a look at the last LOOK is enough.

        All traits are looked at together, which is several times as fast.

        Args:
            traits: see ``newest_of_each``.
            limit: how many are wanted of each.
        """
        given = [trait for trait in traits if trait is not None and trait not in self._parts]
        if not given or not self._traits.size:
            return {}
        asked = np.array(given, np.uint32)
        at = np.minimum(np.searchsorted(self._traits, asked), self._traits.size - 1)
        end = self._starts[at + 1]
        begin = np.where(self._traits[at] == asked, self._starts[at], end)

        places = end[:, None] - np.arange(LOOK, 0, -1)
        items = self._order[np.maximum(places, 0)]
        there = self._there[items] & (places >= begin[:, None])
        enough = (np.count_nonzero(there, axis=1) >= limit) | (end - begin <= LOOK)
        each = zip(given, items, there, enough.tolist(), strict=True)
        return {trait: own[kept] for trait, own, kept, is_enough in each if is_enough}

    def _first_with(self, trait: int) -> NDArray[np.int32]:
        """Return the items with a trait that the index began with, newest last."""
        at = int(np.searchsorted(self._traits, np.uint32(trait)))
        if at == self._traits.size or self._traits[at] != trait:
            return self._order[:0]
        return self._order[self._starts[at] : self._starts[at + 1]]

    def _thin(self) -> None:
        """Let lists whose newest items have gone begin with those that are there."""
        for trait, (*left, seen) in self._crowded.items():
            self._parts[trait] = [*left, seen[self._there[seen]]]
        self._crowded.clear()

    def times(self, items: Sequence[int] | NDArray[Any]) -> Float64:
        """Return the times of some items, float64[n]."""
        times: Float64 = self._times[items]
        return times
