"""What a policy may offer now, and the sources over it."""

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping
from math import inf
from typing import Final, NamedTuple

from bandits.log.trends import PublishedTrend
from bandits.types import Snapshot
from policies.items.catalogue import Catalogue
from policies.items.offering import Offering
from policies.items.timeline import ItemTimeline
from policies.rules.policy_rules import PolicyRules
from policies.rules.ruled_items import RuledItems
from policies.sources.base import DemandFollower, ImmediateSource, SnapshotFollower
from policies.sources.source_set import SourceSet

AT_ONCE: Final = 100
"""Items whose time has come that are looked at in one turn: a few thousandths of a second."""
PAUSE_S: Final = 0.002
"""How long other requests have between two such turns at least."""


class Offered:
    """The items that may be offered, and the sources over them: both are swapped at once."""

    def __init__(self, offering: Offering, sources: SourceSet) -> None:
        """Join the two.

        Args:
            offering: what may be.
            sources: those over it, or, before a catalogue was ever put, as they were loaded.
        """
        self.offering = offering
        self.sources = sources
        self._followers = sources.followers
        self.all_follow = len(self._followers) == len(sources.proposing)
        self.looks_at_filters = any(isinstance(each, ImmediateSource) for each in self._followers)

    def tell(self, changed: Collection[str]) -> None:
        """Tell the sources what has changed."""
        for follower in self._followers:
            follower.update(changed)

    def pass_time(self, most: float = inf) -> bool:
        """Let it be now, and tell the sources whose time has come, or is over.

        Args:
            most: of how many items at most.

        Returns:
            Whether there are more.
        """
        if turned := self.offering.pass_time(most):
            self.tell(turned)
        return self.offering.is_late


class NextTurn:
    """Has something done in an event loop when others have had their turns, once at a time."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def ask(self, action: Callable[[], object]) -> bool:
        """Have it done; return whether it will be: not where no event loop runs.

        Args:
            action: what is to be done.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(PAUSE_S, self._do, action)
        return True

    def _do(self, action: Callable[[], object]) -> None:
        self._loop = None
        action()


class _Ready(NamedTuple):
    """Sources that are to be swapped in, and what has changed since they were made ready."""

    offered: Offered
    since: set[str]


class OfferedNow:
    """What one policy may offer now: newer items and sources are swapped in between requests.

    Args:
        rules: the policy's; None: it has none.
        sources: all of its sources, as they were loaded.
        clock: seconds since 1970.
    """

    def __init__(
        self, rules: PolicyRules | None, sources: SourceSet, clock: Callable[[], float]
    ) -> None:
        self._rules = rules
        self._clock = clock
        self.offered = Offered(Offering(clock=clock, ruled=self._ruled()), sources)
        self._soon = NextTurn()
        self._snapshot: Snapshot | None = None
        self._demand: tuple[Mapping[int, PublishedTrend], int] | None = None

        # Threads make ready what the event loop swaps in; the second lock is held for an instant.
        self._making, self._swapping = threading.Lock(), threading.Lock()
        self._ready: _Ready | None = None

    def learn(self, snapshot: Snapshot) -> None:
        """Have the sources that go by snapshots go by this one.

        Raises:
            SnapshotError: what it brings for them cannot be read.
        """
        with self._swapping:
            self._teach(self.offered, snapshot)
            self._snapshot = snapshot

    def follow(self, demand: Mapping[int, PublishedTrend], at_ms: int) -> None:
        """Have the sources that go by demand go by what users did, too; see DemandFollower."""
        with self._swapping:
            self._demand = demand, at_ms
            self._teach(self.offered, None)

    def _teach(self, offered: Offered, snapshot: Snapshot | None) -> None:
        for source in offered.sources.proposing:
            if self._demand is not None and isinstance(source, DemandFollower):
                source.follow(*self._demand)
            if snapshot is not None and isinstance(source, SnapshotFollower):
                source.learn(snapshot)

    def offer(
        self,
        catalogue: Catalogue,
        timeline: ItemTimeline | None = None,
        changed: Collection[str] | None = None,
    ) -> None:
        """Take over a newer version of the items; see ``Ranker.offer``."""
        limits = self.offered.offering.limits
        if changed is not None and timeline is not None and catalogue.limits == limits:
            self.offered.offering.change(catalogue, timeline, changed)
            self.offered.tell(changed)
            return

        with self._making:
            offering = Offering(catalogue, timeline, clock=self._clock, ruled=self._ruled())
            newest = self.offered if self._ready is None else self._ready.offered
            made = Offered(offering, newest.sources.over(offering))

            # Meanwhile those that were ready before are swapped in: no request waits for these.
            with self._swapping:
                self._teach(made, self._snapshot)
                self.offered, self._ready = made, None

    def _ruled(self) -> RuledItems | None:
        return None if self._rules is None else RuledItems(self._rules)

    def equip(self, sources: SourceSet) -> None:
        """Swap in other sources, from the next decision on; see ``Ranker.equip``."""
        with self._making:
            offering = self.offered.offering
            if self._ready is not None:
                offering.stop(self._ready.since)
            since = offering.record()
            self._ready = _Ready(Offered(offering, sources.over(offering)), since)

    def now(self) -> Offered:
        """Return what may be offered now, and the sources over it.

        Where the time of many items has come, or is over, at one moment, the sources are told of
        some, and of the others between requests.
        """
        if self._ready is not None:
            self._swap()
        if self.offered.pass_time(AT_ONCE) and not self._soon.ask(self.now):
            self.offered.pass_time()
        return self.offered

    def _swap(self) -> None:
        """Swap in the sources that are ready, with what has changed since."""
        with self._swapping:
            ready, self._ready = self._ready, None
            if ready is None or ready.offered.offering is not self.offered.offering:
                return  # a whole catalogue has come, and took them along
            self.offered.offering.stop(ready.since)
            if ready.since:
                ready.offered.tell(ready.since)
            self._teach(ready.offered, self._snapshot)
            self.offered = ready.offered

    def is_as_before(self, offered: Offered, changes: int) -> bool:
        """Return whether the same items are there, for all that the sources know.

        Args:
            offered: what was.
            changes: those of its offering by then.
        """
        if self._ready is not None:
            self._swap()
        now = self.offered.offering
        return now is offered.offering and now.changes == changes
