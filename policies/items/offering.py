"""The items that may be offered now: all but those that are hidden, outside their time, or refused.

Refused by the part of a policy's filter that looks at items alone: it is one for whoever asks.
"""

import time
from collections.abc import Callable, Collection, Iterable
from heapq import heapify, heappop, heappush
from itertools import islice
from math import inf

from banditloop_client.schemas import Item
from policies.items.catalogue import Catalogue
from policies.items.timeline import ItemTimeline, Offer
from policies.rules.columns import ItemColumns
from policies.rules.policy_rules import PolicyRules
from policies.rules.ruled_items import RuledItems

NAMED_BY = 100
"""Items of which the names of features are looked at, where one is misspelt."""
SPARE = 64
"""Entries of the queue beyond twice those that are due, before it is made anew."""


class Offering:
    """The items that a policy may offer at this moment: ``in`` tells of each whether it is one.

    It is told what has changed, and when it is to look at the time again; both cost what has
    changed, however many items there are. Whatever keeps something of its own by what may be
    offered (``OfferingFollower``) is told the same ids.

    Attributes:
        catalogue: the newest version of the items.
        timeline: the items as they are now.
        limits: whether only they may be offered: not before a catalogue was ever put.
        now_ms: the time that was looked at last, in ms since 1970.
        changes: goes up whenever an item has changed, or its time has come or is over.
        is_late: whether there are items whose time has come, or is over, of which nobody was told
            yet. Those that are over are none of the offering even so.
        ruled: the items as the policy's rules see them; None: it has none.
    """

    def __init__(
        self,
        catalogue: Catalogue | None = None,
        timeline: ItemTimeline | None = None,
        *,
        clock: Callable[[], float] = time.time,
        ruled: RuledItems | None = None,
    ) -> None:
        """Begin with a catalogue.

        Args:
            catalogue: the items; without one, none was ever put.
            timeline: what the catalogue is the newest version of; made of it if there is none.
            clock: seconds since 1970.
            ruled: is told of all items, and of what becomes of them.
        """
        catalogue = Catalogue() if catalogue is None else catalogue
        self.timeline = ItemTimeline(catalogue) if timeline is None else timeline
        self.catalogue = catalogue
        self.limits = catalogue.limits
        self.changes = 0
        self.now_ms = clock() * 1000
        self.is_late = False

        self._clock = clock
        self._offers: dict[str, Offer] = {}
        self._closed = set[str]()
        self._records: list[set[str]] = []

        self.ruled = ruled
        if ruled is not None:
            ruled.load(self.timeline.values(ruled.rules.item_fields))
            for some in ruled.closed():
                self._closed.update(some)
            if ruled.vectors is not None:
                ruled.vectors.item_of = self.item

        # When an item's time comes next, and the same as a queue, which also has what is no more.
        self._due: dict[str, float] = {}
        self._queue: list[tuple[float, str]] = []
        for item_id, offer in list(self.timeline.offers.items()):
            self._look(item_id, offer)

    def __contains__(self, item_id: object) -> bool:
        if not self.limits:
            return self.admits_strangers
        if not isinstance(item_id, str) or item_id not in self.catalogue:
            return False
        return item_id not in self._closed and not (self.is_late and self._is_over(item_id))

    def _is_over(self, item_id: str) -> bool:
        """Return whether an item that was offered is no more, though nobody was told."""
        offer = self._offers.get(item_id)
        return offer is not None and not offer.holds(self.now_ms)

    @property
    def admits_strangers(self) -> bool:
        """Whether the filter lets items be offered of which nothing is known."""
        return self.ruled is None or self.ruled.opens("")

    def __len__(self) -> int:
        return len(self.catalogue) - len(self._closed)

    @property
    def closed(self) -> frozenset[str]:
        """The items of the catalogue that may not be offered now, as of this moment."""
        return frozenset(self._closed)

    @property
    def ids(self) -> list[str]:
        """All items, those that may not be offered now among them, as they came."""
        return list(self.timeline)

    def item(self, item_id: str) -> Item | None:
        """Return an item as it is now, also one that may not be offered; None: there is none."""
        return self.timeline.item(item_id)

    def feature_names(self) -> list[str]:
        """Return the names of features that some of the items have."""
        return feature_names(self.timeline)

    def rule_troubles(self) -> dict[str, str]:
        """Return by field of the spec what its rule asks of items and none of them can answer."""
        if self.ruled is None:
            return {}
        return self.ruled.rules.troubles(self.ruled.columns, self.feature_names)

    def offer_of(self, item_id: str) -> Offer | None:
        """Return when an item is offered; None: always, or there is no such item."""
        return self._offers.get(item_id)

    def change(
        self, catalogue: Catalogue, timeline: ItemTimeline, changed: Collection[str]
    ) -> None:
        """Take over a newer version.

        Args:
            catalogue: the newest.
            timeline: what it is of.
            changed: the items that were put, patched or deleted since the last one.
        """
        self.catalogue, self.timeline = catalogue, timeline
        for item_id in changed:
            if self.ruled is not None:
                self.ruled.change(item_id, timeline.item(item_id))
            self._look(item_id, timeline.offers.get(item_id))
        self._note(changed)

    def look_at_clock(self) -> bool:
        """Let it be now, and return whether that makes it late (``is_late``)."""
        self.now_ms = self._clock() * 1000
        self.is_late = bool(self._queue) and self._queue[0][0] <= self.now_ms
        return self.is_late

    def pass_time(self, most: float = inf) -> Collection[str]:
        """Let it be now; return the items whose time has come, or is over.

        Args:
            most: return no more of them; whether there are others, ``is_late`` says.
        """
        turned: dict[str, None] = {}
        while self.look_at_clock() and len(turned) < most:
            due_ms, item_id = heappop(self._queue)
            if self._due.get(item_id) == due_ms:
                self._look(item_id, self._offers[item_id])
                turned[item_id] = None
        if turned:
            self._note(turned)
        return turned.keys()

    def record(self) -> set[str]:
        """Return a set that collects what changes from now on, until ``stop`` is given it."""
        self._records.append(set())
        return self._records[-1]

    def stop(self, record: set[str]) -> None:
        """Let a record be as it is."""
        self._records = [each for each in self._records if each is not record]

    def _note(self, changed: Iterable[str]) -> None:
        self.changes += 1
        for record in self._records:
            record.update(changed)

    def _look(self, item_id: str, offer: Offer | None) -> None:
        """Find out whether an item may be offered now, and when that changes by itself."""
        there = item_id in self.catalogue
        if there and offer is not None:
            self._offers[item_id] = offer
            self._wait(item_id, _next_ms(offer, self.now_ms))
        else:
            self._offers.pop(item_id, None)
            self._due.pop(item_id, None)

        held = offer is None or offer.holds(self.now_ms)
        if not there or (held and (self.ruled is None or self.ruled.opens(item_id))):
            self._closed.discard(item_id)
        else:
            self._closed.add(item_id)

    def _wait(self, item_id: str, due_ms: float) -> None:
        if due_ms == inf:
            self._due.pop(item_id, None)
        elif self._due.get(item_id) != due_ms:
            self._due[item_id] = due_ms
            heappush(self._queue, (due_ms, item_id))

        # What is due no more goes with the others when its time comes, or here.
        if len(self._queue) > 2 * len(self._due) + SPARE:
            self._queue = [(due_ms, item_id) for item_id, due_ms in self._due.items()]
            heapify(self._queue)


def _next_ms(offer: Offer, now_ms: float) -> float:
    """Return when it changes next whether an item is offered; infinite if it never does."""
    if offer.hidden or now_ms >= offer.until_ms:
        return inf
    return offer.until_ms if now_ms >= offer.from_ms else offer.from_ms


def feature_names(timeline: ItemTimeline) -> list[str]:
    """Return the names of features that some of the items have."""
    some = (timeline.item(item_id) for item_id in islice(timeline, NAMED_BY))
    return sorted({name for item in some if item is not None for name in item.features})


def rule_troubles(rules: PolicyRules, timeline: ItemTimeline) -> dict[str, str]:
    """Return by field of a spec what its rule asks of items and none of them can answer.

    Args:
        rules: the spec's.
        timeline: the items; they are looked at until all is answered, mostly the first ones alone.
    """
    columns, troubles = ItemColumns(rules.item_fields), dict[str, str]()
    for ids, values in timeline.values(rules.item_fields):
        columns.load(ids, values)
        troubles = rules.troubles(columns, lambda: feature_names(timeline))
        if not troubles:
            break
    return troubles
