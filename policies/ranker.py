"""The decision path as a plain object: request, candidates, features, PMF, decision, record."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

import msgspec

from bandits.errors import (
    NoCandidatesError,
    NotReadyError,
)
from bandits.log.records import DecisionRecord
from bandits.log.trends import PublishedTrend
from bandits.types import Snapshot
from policies.artifacts.profiles import Profiles
from policies.asker import Asker
from policies.blend import load_policy
from policies.candidate_pool import NOTHING, Pool, explicit_pool
from policies.decisions.decider import Decider, Serving
from policies.decisions.mixture import Mixture
from policies.decisions.together import Together
from policies.items.catalogue import Catalogue
from policies.items.offering import Offering
from policies.items.timeline import ItemTimeline
from policies.none_proposed import none_admitted
from policies.offered import Offered
from policies.profiles.known_user import (
    KnownUser,
    LiveHistory,
    OfEvents,
    RepeatRules,
    live_history,
    named_in_files,
)
from policies.proposers import Proposers
from policies.pseudonyms import pseudonym
from policies.requests import BareRequest, RankRequest
from policies.rules.quotas.quota import Control
from policies.rules.ruling import Ruling
from policies.sources.base import Candidates, ImmediateSource, Source
from policies.sources.source_set import SourceSet
from policies.spec import PolicySpec

T = TypeVar("T")


class Around(Protocol):
    """Puts something around some methods of a part, such as what tells how long each takes."""

    def __call__(self, part: T, name: str, *methods: str) -> T:
        """Return what is like the part in all else.

        Args:
            part: what takes its part in decisions.
            name: what it does, in a word.
            methods: the names of those methods.
        """
        ...


class Ranker:
    """Makes decisions for one policy.

    It holds no connection: sources are given to it, with what is known of users, and its caller
    logs the decisions. The model (``serve``) and the items (``offer``) come independently, each
    whenever it is new.
    """

    def __init__(
        self,
        spec: PolicySpec,
        sources: Sequence[Source],
        *,
        salt: bytes,
        profiles: Profiles | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make a ranker that has no model, and whose sources may propose anything.

        Args:
            spec: the policy.
            sources: those that it names.
            salt: draws and pseudonyms are hashed with it.
            profiles: what is known of users.
            clock: seconds since 1970; items are offered by it.
        """
        self.spec = spec
        self.serving: Serving | None = None
        self.proposers = Proposers(spec, SourceSet.of(sources, profiles), clock)
        self._decider = Decider(spec, salt=salt, failed=self.proposers.answers.failed)
        self._together = Together(spec, salt=salt)
        self._salt = salt
        self._clock = clock
        self._repeat = None if spec.repeat is msgspec.UNSET else RepeatRules(spec.repeat)

        self._live_history: OfEvents[LiveHistory | None] | None = None
        if spec.profile is not msgspec.UNSET:
            self._live_history = OfEvents(partial(live_history, options=spec.profile))

    def put_around_parts(self, around: Around) -> None:
        """Put something around the parts of each decision; see ``Around``."""
        self.proposers.answers = around(self.proposers.answers, "source", "ask")
        self.proposers = around(self.proposers, "candidates", "pool")
        self._decider = around(self._decider, "decide", "decide")
        self._together = around(self._together, "decide", "decide", "decide_one")

    def serve(self, snapshot_id: str, snapshot: Snapshot) -> None:
        """Swap in a snapshot; the state of the quotas' controller stays.

        Args:
            snapshot_id: the name that decisions are logged with.
            snapshot: the model.

        Raises:
            SnapshotError: it cannot be loaded; the previous one keeps serving.
        """
        policy = load_policy(self.spec, snapshot)
        if self.spec.kind == "mixture":
            policy = Mixture(policy, self.spec.within, self.spec.floor)
        self.proposers.learn(snapshot)
        control = None if self.serving is None else self.serving.control
        self.serving = Serving(snapshot_id, policy, snapshot, control)

    def steer(self, control: Control | None) -> None:
        """Swap in a state of the quotas' controller; the snapshot stays.

        Raises:
            NotReadyError: there is none yet.
        """
        self.serving = replace(self._ready(), control=control)

    def offer(
        self,
        catalogue: Catalogue,
        timeline: ItemTimeline | None = None,
        changed: Collection[str] | None = None,
    ) -> None:
        """Take over a newer version of the items: from now on nothing else is proposed.

        Called on the event loop after each batch of changes, at their cost.

        Args:
            catalogue: the newest.
            timeline: what it is of; made of it if there is none.
            changed: the items that were put, patched or deleted since the last version; with None
                anything may be another (at the start, after a whole catalogue): everything is made
                anew, which may be done in a thread while requests are answered.
        """
        self.proposers.offer(catalogue, timeline, changed)

    def follow(self, demand: Mapping[int, PublishedTrend], at_ms: int) -> None:
        """Have the sources that go by demand go by what users did outside of decisions, too.

        Args:
            demand: by half-life in milliseconds.
            at_ms: as of when, in milliseconds since 1970.
        """
        self.proposers.follow(demand, at_ms)

    def equip(self, sources: SourceSet) -> None:
        """Swap in the sources of another artifact, from the next decision on.

        They are made ready here, in a thread while requests are answered; what changes meanwhile
        they are told when they are swapped in.
        """
        self.proposers.equip(sources)

    @property
    def offering(self) -> Offering:
        """The items that may be offered, as of the last change."""
        return self.proposers.offered.offering

    async def rank(self, request: RankRequest, known: KnownUser | None = None) -> DecisionRecord:
        """Ask the sources, choose, and return the record of the decision.

        Args:
            request: what is asked.
            known: what is known of who asks, where the policy looks at that.

        Raises:
            NotReadyError: no snapshot yet.
            InvalidInputError: a field of the request is wrong.
            UnknownUserError, NoCandidatesError: nothing to choose from.
            SourceError: every source failed.
        """
        # While sources are asked, a snapshot or items may be swapped in: the decision is made of
        # what is the newest then.
        self._ready()
        asker = self._asker(request, known)
        made = await self._pool(request, asker)
        return self._decider.decide(self._ready(), request, asker, *made)

    @property
    def waits(self) -> bool:
        """Whether any source of candidates has to be waited for."""
        proposing = self.proposers.now().sources.proposing
        return not all(isinstance(each, ImmediateSource) for each in proposing)

    async def read_filter(self, where: str | None) -> None:
        """Read a request's filter before its decision is made; see ``RuledItems.read_ahead``."""
        await self.proposers.read_filter(where)

    def rank_together(
        self, requests: Sequence[RankRequest], known: Sequence[object]
    ) -> list[DecisionRecord | None]:
        """Return the record of each decision that can be made with others; the same as ``rank``.

        Args:
            requests: what is asked.
            known: what is known of who asks; None of those of whom nothing is looked up.

        Returns:
            None of each that ``rank`` has to be asked for, which says what is wrong with it.
        """
        alone = [of is None for of in known]
        if self.serving is None or not any(alone):
            return [None] * len(requests)
        offered = self.proposers.now()
        asked = [each for each, is_alone in zip(requests, alone, strict=True) if is_alone]
        made = iter(self._together.decide(self.serving, asked, offered))
        return [next(made) if is_alone else None for is_alone in alone]

    def rank_bare(self, request: BareRequest) -> DecisionRecord | None:
        """Return the decision of a request whose actions are as they were sent, as ``rank`` does.

        Args:
            request: what is asked, by somebody of whom nothing is looked up.

        Returns:
            None: ``rank`` has to be asked, with the actions decoded.
        """
        serving = self.serving
        if serving is None:
            return None
        return self._together.decide_one(serving, request, self.proposers.now())

    def decide(self, request: RankRequest, pool: Pool) -> DecisionRecord:
        """Choose from a pool.

        Pure, but for the event_id that it makes when the request has none.

        Args:
            request: its actions, history and exclusions no longer matter: the pool is made.
            pool: the K actions, at least as many as there are slots.

        Raises:
            NotReadyError: no snapshot yet.
            InvalidInputError: a field of the request is wrong.
        """
        asker, offered = self._asker(request, None), self.proposers.offered
        ruling = self.proposers.ruling(request, asker, offered)
        pool = pool.without(() if ruling is None else ruling.placed)
        return self._decider.decide(self._ready(), request, asker, pool, offered, ruling)

    def _asker(self, request: RankRequest, known: KnownUser | None) -> Asker:
        """Return who asks."""
        keyed = pseudonym(self._salt, request.user_id) if request.user_id else None
        if known is None or self._live_history is None:
            return Asker(keyed, () if keyed is None else (keyed,))
        filed = named_in_files(keyed, known)
        profiles = self.proposers.offered.sources.profiles
        if filed and profiles is not None:
            known = msgspec.structs.replace(known, before=profiles.before(filed))
        held_back = known.visit
        if self._repeat is not None:
            held_back = self._repeat.held_back(known, 1000 * self._clock())
        live = self._live_history(() if known.profile is None else known.profile.events)
        return Asker(
            known.pseudonym, filed, live, held_back, known.version, repeats=True, did=known.did
        )

    def _ready(self) -> Serving:
        if self.serving is None:
            raise NotReadyError("no snapshot is loaded yet: try again in a moment")
        return self.serving

    async def pool(self, request: RankRequest) -> Pool:
        """Return the explicit actions, or the union of what the sources propose.

        What the request excludes is gone before any PMF. Explicit actions are the caller's affair:
        they may be anything.

        Raises:
            InvalidInputError: an action is wrong.
            NoCandidatesError, UnknownUserError: nothing to choose from.
            SourceError: every source failed.
        """
        pool, _, _ = await self._pool(request, self._asker(request, None))
        return pool

    async def scored_pool(self, request: RankRequest, catalogue: Catalogue) -> Pool:
        """Return the pool with the scores of all sources, as a decision has them.

        Args:
            request: what is asked.
            catalogue: what sources that look at the context know of items by.

        Raises:
            BanditloopError: as ``pool``.
        """
        asker = self._asker(request, None)
        pool, offered, _ = await self._pool(request, asker)
        return self._decider.scored(pool, request, offered.sources, catalogue, asker)

    async def _pool(
        self, request: RankRequest, asker: Asker
    ) -> tuple[Pool, Offered, Ruling | None]:
        """Return the pool, what may be offered once it is made, and what the rules say."""
        await self.proposers.read_filter(request.filter)
        if request.actions is None:
            return await self.proposers.pool(request, asker)

        excluded = asker.held_back.union(request.exclude)
        pool = explicit_pool(request.actions, excluded, repeats=bool(asker.held_back))
        while True:
            offered = self.proposers.now()
            changes = offered.offering.changes
            ruling = self.proposers.ruling(request, asker, offered)
            placed = () if ruling is None else ruling.placed
            if len(placed) == request.slots:
                return NOTHING, offered, ruling
            admitted = await _admitted(pool.without(placed), ruling)
            if self.proposers.is_as_before(offered, changes):
                return admitted, offered, ruling

    def similar(
        self, item_id: str, source: str | None, limit: int, where: str | None = None
    ) -> tuple[str, Candidates]:
        """Return the source that says it, and the items most like one that may be offered.

        Args:
            item_id: the one.
            source: who is asked; None: all that can say, and the first that knows any answers.
            limit: how many at most.
            where: a filter (CEL) over item and time, besides the policy's; None: there is none.

        Raises:
            UnknownItemError: the catalogue has no such item.
            IncomparableError: the source cannot say of any item; it lists those that can.
            InvalidFieldError: the filter is none that the policy takes.
        """
        return self.proposers.similar(item_id, source, limit, where)

    async def similar_in_turns(
        self, item_id: str, source: str | None, limit: int, where: str | None = None
    ) -> tuple[str, Candidates]:
        """Return the same as ``similar``; others have their turns while a long filter is asked."""
        return await self.proposers.similar_in_turns(item_id, source, limit, where)

    def vector_lengths(self, but: Collection[str] | None) -> Mapping[str, int]:
        """Return how long vectors of items are; see ``SourceSet.vector_lengths``."""
        return self.proposers.now().sources.vector_lengths(but)


async def _admitted(pool: Pool, ruling: Ruling | None) -> Pool:
    """Return the actions of a request that the filters admit.

    Raises:
        NoCandidatesError: there are none.
    """
    if ruling is None or ruling.admission is None or not pool.ids:
        return pool
    kept = pool.at((await ruling.sift(pool.ids, pool.features)).tolist())
    if not kept.ids:
        why = ruling.admission.why_nothing()
        raise NoCandidatesError(none_admitted(len(pool.ids), "actions", why), "filter")
    return kept
