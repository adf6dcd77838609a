"""The candidate sources of a policy over what it may offer now, and what they propose together."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

import msgspec

from bandits.errors import (
    EmptyActionsError,
    IncomparableError,
    InvalidFieldError,
    NoCandidatesError,
    UnknownItemError,
)
from bandits.log.trends import PublishedTrend
from bandits.types import Snapshot
from policies.asker import Asker, asked_of_sources
from policies.candidate_pool import NOTHING, Pool
from policies.items.catalogue import Catalogue
from policies.items.offering import Offering
from policies.items.timeline import ItemTimeline
from policies.none_proposed import why_nothing
from policies.offered import AT_ONCE, NextTurn, Offered
from policies.requests import RankRequest
from policies.rules.ruled_items import Asked, RuledItems
from policies.rules.ruling import Ruling
from policies.rules.sent import SentItems
from policies.source_answers import MORE, SourceAnswers
from policies.sources.base import (
    Candidates,
    DemandFollower,
    ImmediateSource,
    Passes,
    SnapshotFollower,
    SourceRequest,
)
from policies.sources.local import EMPTY
from policies.sources.source_set import SourceSet
from policies.spec import PolicySpec


class _Ready(NamedTuple):
    """Sources that are to be swapped in, and what has changed since they were made ready."""

    offered: Offered
    since: set[str]


class Proposers:
    """The candidate sources of one policy.

    ``answers``: what is wrong with what they say, too.

    Args:
        spec: the policy.
        sources: all of its sources, as they were loaded.
        clock: seconds since 1970.
    """

    def __init__(
        self, spec: PolicySpec, sources: SourceSet, clock: Callable[[], float] = time.time
    ) -> None:
        self._rules = spec.rules
        self.offered = Offered(Offering(clock=clock, ruled=self._ruled()), sources)
        self.answers = SourceAnswers(spec)
        self._spec = spec
        self._clock = clock
        self._snapshot: Snapshot | None = None
        self._turn = 0
        self._soon = NextTurn()
        self._sent = None if self._rules is None else SentItems(self._rules)
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

    # What may be offered

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

    # What is proposed

    async def pool(self, request: RankRequest, asker: Asker) -> tuple[Pool, Offered, Ruling | None]:
        """Return the union of what the sources propose; what may be offered, and what rules say.

        Args:
            request: it brings no actions.
            asker: who asks.

        Raises:
            NoCandidatesError, UnknownUserError: nothing to choose from.
            SourceError: every source failed.
        """
        offered = self.now()
        if not offered.offering.is_late:
            return await self._pool(request, asker, offered)

        # Sources propose items that are over, too: if too few others are left, they are told of all
        # at once.
        with contextlib.suppress(NoCandidatesError):
            pool, now, ruling = await self._pool(request, asker, offered)
            if pool is NOTHING or len(pool.ids) >= request.slots:
                return pool, now, ruling
        self.offered.pass_time()
        return await self._pool(request, asker, self.now())

    async def _pool(
        self, request: RankRequest, asker: Asker, offered: Offered
    ) -> tuple[Pool, Offered, Ruling | None]:
        """Return what ``pool`` does.

        Args:
            request: it brings no actions.
            asker: who asks.
            offered: what may be offered now.
        """
        sources = offered.sources
        if not sources.proposing:
            raise EmptyActionsError(
                f"policy {self._spec.name} has no source that proposes items: send the actions to"
                " choose from",
                "actions",
            )

        ruling = self.ruling(request, asker, offered)
        admission = None if ruling is None else ruling.admission
        placed = () if ruling is None else ruling.placed
        if len(placed) == request.slots:
            return NOTHING, offered, ruling
        asked = asked_of_sources(request, asker, sources, admission, placed)
        changes = offered.offering.changes
        if admission is not None and offered.looks_at_filters:
            await admission.look_at_all()
        wanted = self._wanted(sources, ruling)
        answers = await self._answers(sources, asked, wanted)

        # One source that answers is enough; the record says which failed.
        told = {name: answer for name, answer in answers.items() if isinstance(answer, Candidates)}
        proposed = {
            name: answer.first(self._spec.limit) if name in wanted else answer
            for name, answer in told.items()
        }
        pool = self.answers.union(proposed, sources.artifact)
        spare = {name: told[name] for name in wanted if name in told}
        pool = await self._with_scarce(pool, proposed, spare, asked, sources, ruling)
        if failed := {name: reason for name, reason in answers.items() if isinstance(reason, str)}:
            pool = msgspec.structs.replace(pool, failed=failed)
        if not pool.ids:
            if placed and not failed and ruling is not None and ruling.has_page:
                return NOTHING, offered, ruling  # a shorter page, of what was placed
            if admission is not None:
                await admission.look_at_all()
            raise why_nothing(self.offered, asked, asker, failed, admission)

        # While the sources answered, items may have gone. What follows the offering has looked at
        # everything else already.
        as_before = offered.all_follow and self.is_as_before(offered, changes)
        if as_before and not offered.offering.look_at_clock():
            return pool, self.offered, ruling
        removed = {} if admission is None else admission.removed
        kept, now, ruling = await self._still_offered(pool, request, asker, removed)
        kept = kept.without(() if ruling is None else ruling.placed)
        if not kept.ids:
            raise NoCandidatesError(
                f"none of the {len(pool.ids)} items that were proposed may be offered any more:"
                " they were deleted or hidden, or their time is over",
                "actions",
            )
        return kept, now, ruling

    async def _answers(
        self, sources: SourceSet, asked: SourceRequest, wanted: Mapping[str, int]
    ) -> dict[str, Candidates | str]:
        """Return what each source proposes, or why it failed, in the order of the sources.

        While those that have to be waited for are at work the others compute: a task of its own for
        each of these would take as long as some of them do.
        """
        waited = [each for each in sources.proposing if not isinstance(each, ImmediateSource)]
        if not waited:
            return {
                each.name: (await self.answers.ask(each, asked, wanted.get(each.name)))[1]
                for each in sources.proposing
            }

        asking = asyncio.gather(
            *(self.answers.ask(each, asked, wanted.get(each.name)) for each in waited)
        )
        await asyncio.sleep(0)

        try:
            answers = {
                each.name: (await self.answers.ask(each, asked, wanted.get(each.name)))[1]
                for each in sources.proposing
                if isinstance(each, ImmediateSource)
            }
            answers.update(await asking)
        finally:
            asking.cancel()
        return {each.name: answers[each.name] for each in sources.proposing}

    def _wanted(self, sources: SourceSet, ruling: Ruling | None) -> dict[str, int]:
        """Return how many candidates those sources are asked for that are asked for more.

        Whoever has to be waited for is asked once: where items of a group may have to be looked
        for, they are looked for in what he proposes beyond the usual.
        """
        if ruling is None or not ruling.seeks_groups:
            return {}
        return {
            source.name: MORE * self._spec.limit
            for source in sources.proposing
            if not isinstance(source, ImmediateSource)
        }

    async def _with_scarce(
        self,
        pool: Pool,
        proposed: Mapping[str, Candidates],
        spare: Mapping[str, Candidates],
        asked: SourceRequest,
        sources: SourceSet,
        ruling: Ruling | None,
    ) -> Pool:
        """Return a pool that holds enough of each group that is to have a share of what is shown.

        A price can bring about a share of what is in the pool alone. So the sources that wait for
        nobody are asked for the best of a group that lacks items, and of the others what they have
        said beyond the usual is looked at; those are of the blend's pool, and not of what the
        holdout chooses from.

        Args:
            pool: what was proposed.
            proposed: the same, by source.
            spare: what some sources have said in all.
            asked: what the sources were asked.
            sources: all of them.
            ruling: what the rules say; None: there are none.
        """
        if ruling is None or not ruling.has_quotas or not pool.ids:
            return pool
        self._turn += 1
        groups = ruling.scarce(pool.ids, self._spec.limit, self._turn)
        local = [
            source
            for source in sources.proposing
            if source.name in proposed and isinstance(source, ImmediateSource)
        ]
        answers = dict(proposed)
        for wanted, admission in groups:
            of_group = replace(asked, admission=admission)
            for source in local:
                name, more = await self.answers.ask(source, of_group, wanted)
                if isinstance(more, Candidates):
                    answers[name] = answers[name].joined(more)
            for name, every in spare.items():
                of_it = await admission.sift(every.ids)
                answers[name] = answers[name].joined(every.at(of_it[:wanted].tolist()))

        if all(answers[name] is found for name, found in proposed.items()):
            return pool
        larger = self.answers.union(answers, sources.artifact)
        added = frozenset(larger.ids).difference(pool.ids)
        return msgspec.structs.replace(larger, for_quotas=added)

    async def _still_offered(
        self, pool: Pool, request: RankRequest, asker: Asker, removed: Mapping[str, None]
    ) -> tuple[Pool, Offered, Ruling | None]:
        """Return what of a pool may be offered now; the rest as ``pool`` does.

        Args:
            pool: what was proposed.
            request: the decision's.
            asker: who asks.
            removed: what filters have removed before.
        """
        while True:
            now = self.now()
            changes, ruling = now.offering.changes, self.ruling(request, asker, now)
            if ruling is None or ruling.admission is None:
                return pool.within(now.offering), now, ruling

            # Of what is no longer offered, filters have removed what is there all the same.
            ruling.admission.go_on(removed)
            there = [at for at, item in enumerate(pool.ids) if item in now.offering.catalogue]
            known = pool.at(there) if now.offering.limits else pool
            kept = known.at((await ruling.admission.sift(known.ids)).tolist())
            if self.is_as_before(now, changes):
                now.offering.look_at_clock()
                return kept.within(now.offering), now, ruling

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

    def similar(
        self, item_id: str, source: str | None, limit: int, where: str | None = None
    ) -> tuple[str, Candidates]:
        """Return what is like an item, and the source that says it; see ``Ranker.similar``."""
        offered = self.now()
        passes = self._passes(where, offered)
        offering, can = offered.offering, offered.sources.comparing
        if source not in {None, *can}:
            raise IncomparableError(
                f"source {source!r} cannot say what is similar: {_those(can)}", "source"
            )
        if not can:
            raise IncomparableError(
                f"no source of policy {self._spec.name} can say what is similar: add one that is"
                " trained (als, item_knn, ease, rp3beta) or compares contents",
                "source",
            )

        asked = list(can) if source is None else [source]
        is_known = item_id in offering.catalogue
        for name in asked if is_known or not offering.limits else ():
            found = can[name].similar(item_id, limit, passes)
            if found is not None and offering.is_late:
                found = found.at([at for at, each in enumerate(found.ids) if each in offering])
            if found is not None and found.ids:
                return name, found
            is_known |= found is not None
        if not is_known:
            raise UnknownItemError(f"there is no item {item_id!r}", "item_id")
        return asked[0], EMPTY  # nobody has seen it yet, or nothing that is like it passes

    def _passes(self, where: str | None, offered: Offered) -> Passes | None:
        """Return what says which items a filter admits that nobody in particular asks for.

        Raises:
            InvalidFieldError: it is none, or looks at who asks.
        """
        if where is None:
            return None
        ruled = self._filterable(offered)
        own = ruled.own_filter(where)
        assert own is not None  # noqa: S101 - there is a filter, and a policy's
        looks = own.condition.looks
        if looks.activities or looks.context:
            raise InvalidFieldError(
                "nobody asks what is similar: a filter of it looks at item and time alone", "filter"
            )
        asked = Asked({}, dict, int(self._clock() * 1000), own)
        return lambda rows: ruled.passing(own, rows, asked)

    async def read_filter(self, where: str | None) -> None:
        """Read a request's filter before it is asked for; see ``RuledItems.read_ahead``."""
        ruled = self.offered.offering.ruled
        if ruled is not None:
            await ruled.read_ahead(where)

    def _filterable(self, offered: Offered) -> RuledItems:
        """Return the items as filters of requests see them.

        Raises:
            InvalidFieldError: the policy takes none.
        """
        ruled = offered.offering.ruled
        if ruled is None or ruled.rules.filter_rule is None:
            raise InvalidFieldError(
                f"policy {self._spec.name} takes no filters: give its spec a filter, such as"
                ' {where: "true", fields: [stock]}',
                "filter",
            )
        return ruled

    def ruling(self, request: RankRequest, asker: Asker, offered: Offered) -> Ruling | None:
        """Return what the policy's rules say of a request; None: there are none.

        Args:
            request: the decision's.
            asker: who asks.
            offered: whose items they are.

        Raises:
            InvalidFieldError: the request's filter is none.
        """
        ruled = offered.offering.ruled if request.filter is None else self._filterable(offered)
        if ruled is None:
            return None

        own = ruled.own_filter(request.filter)
        asks = [] if own is None else sorted(own.condition.looks.activities)
        if asks and self._spec.profile is msgspec.UNSET:
            raise InvalidFieldError(
                f"policy {self._spec.name} keeps no profiles, of which profile.{asks[0]} is: set"
                " profile in its spec",
                "filter",
            )
        now_ms = int(self._clock() * 1000)
        asked = Asked(request.context, asker.done, now_ms, own)
        ruling = Ruling(ruled, asked, request.filter, self._sent)
        if ruled.rules.placements is not None:
            excluded = asker.held_back.union(request.exclude)
            ruling.place(request, offered.offering, excluded)
        return ruling


def _those(can: Collection[str]) -> str:
    return f"these can: {', '.join(can)}" if can else "none of this policy's can"
