"""The candidate sources of a policy over what it may offer now, and what they propose together."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import msgspec
import numpy as np

from bandits.errors import EmptyActionsError, InvalidFieldError, NoCandidatesError
from policies.asker import Asker, asked_of_sources
from policies.candidate_pool import NOTHING, Pool
from policies.none_proposed import NOTHING_PROPOSED, why_nothing
from policies.offered import Offered, OfferedNow
from policies.requests import RankRequest
from policies.rules.filters import Filter
from policies.rules.ruled_items import Asked, RuledItems
from policies.rules.ruling import Admission, Ruling
from policies.rules.sent import SentItems
from policies.rules.turns import own_turn
from policies.similar import is_short, passing_in_turns, similar_items
from policies.source_answers import MORE, SourceAnswers
from policies.sources.base import Candidates, ImmediateSource, SourceRequest
from policies.sources.source_set import SourceSet
from policies.spec import PolicySpec


class Proposers(OfferedNow):
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
        super().__init__(spec.rules, sources, clock)
        self.answers = SourceAnswers(spec)
        self._spec = spec
        self._turn = 0
        self._sent = None if spec.rules is None else SentItems(spec.rules)

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
        with contextlib.suppress(*NOTHING_PROPOSED):
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
        proposed_of = None if admission is None else (admission, offered, changes)
        kept, now, ruling = await self._still_offered(pool, request, asker, proposed_of)
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
            await own_turn()  # many may have been answered at once
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
        self,
        pool: Pool,
        request: RankRequest,
        asker: Asker,
        proposed_of: tuple[Admission, Offered, int] | None,
    ) -> tuple[Pool, Offered, Ruling | None]:
        """Return what of a pool may be offered now; the rest as ``pool`` does.

        Args:
            pool: what was proposed.
            request: the decision's.
            asker: who asks.
            proposed_of: what admitted the proposals, what was offered then, and as of which change;
                None: there are no filters.
        """
        while True:
            now = self.now()
            changes, ruling = now.offering.changes, self.ruling(request, asker, now)
            if ruling is None or ruling.admission is None or proposed_of is None:
                return pool.within(now.offering), now, ruling

            # Of what is no longer offered, filters have removed what is there all the same.
            before, then, at = proposed_of
            ruling.admission.go_on(before, same_items=self.is_as_before(then, at))
            there = [at for at, item in enumerate(pool.ids) if item in now.offering.catalogue]
            known = pool.at(there) if now.offering.limits else pool
            kept = known.at((await ruling.admission.sift(known.ids)).tolist())
            if self.is_as_before(now, changes):
                now.offering.look_at_clock()
                return kept.within(now.offering), now, ruling

    def similar(
        self, item_id: str, source: str | None, limit: int, where: str | None = None
    ) -> tuple[str, Candidates]:
        """Return what is like an item, and the source that says it; see ``Ranker.similar``."""
        offered, passes = self.now(), None
        if where is not None:
            ruled, own, asked = self._asked_by_nobody(where, offered)
            passes = partial(ruled.passing, own, asked=asked)
        return similar_items(self._spec.name, offered, item_id, source, limit, passes)

    async def similar_in_turns(
        self, item_id: str, source: str | None, limit: int, where: str | None = None
    ) -> tuple[str, Candidates]:
        """Return the same as ``similar``; others have their turns while a long filter is asked."""
        await self.read_filter(where)
        while where is not None:
            offered = self.now()
            changes = offered.offering.changes
            ruled, own, asked = self._asked_by_nobody(where, offered)
            if is_short(ruled, own):
                break
            passes = await passing_in_turns(ruled, own, asked)
            now = self.now()
            if now.offering.ruled is not ruled:
                continue  # there are other items in all

            name, found = similar_items(self._spec.name, now, item_id, source, limit, passes)
            if not self.is_as_before(offered, changes):
                passing = ruled.passing(own, ruled.rows(found.ids), asked)
                found = found.at(np.flatnonzero(passing).tolist())
            return name, found
        return self.similar(item_id, source, limit, where)

    def _asked_by_nobody(self, where: str, offered: Offered) -> tuple[RuledItems, Filter, Asked]:
        """Return the items as rules see them, a filter, and what it looks at beside them.

        Raises:
            InvalidFieldError: it is none, or looks at who asks.
        """
        ruled = self._filterable(offered)
        own = ruled.own_filter(where)
        assert own is not None  # noqa: S101 - there is a filter, and a policy's
        looks = own.condition.looks
        if looks.activities or looks.context:
            raise InvalidFieldError(
                "nobody asks what is similar: a filter of it looks at item and time alone", "filter"
            )
        return ruled, own, Asked({}, dict, int(self._clock() * 1000), own)

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
