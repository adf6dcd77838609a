"""One policy in a replica: the ranker, its sources, its log and its snapshots, wired together."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from banditloop_client.console_schemas import PreviewResponse
from banditloop_client.schemas import (
    ItemResponse,
    ItemsPage,
    ItemsQuery,
    ItemsVersion,
    PolicyInfo,
    PriorInfo,
    QuotaInfo,
    Refused,
    SignalInfo,
    SimilarItem,
    SimilarQuery,
    SimilarResponse,
)
from bandits.errors import (
    BanditloopError,
    EventConflictError,
    SnapshotError,
    UnknownItemError,
)
from bandits.log.records import ActivationRecord, DecisionRecord, ItemChange, RewardRecord
from policies.decisions.batch import Known, decide_all
from policies.explain.explained import MOST_OTHERS
from policies.explain.live import Explains, LiveExplainer
from policies.explain.looked_at import previewed
from policies.fold.known_prior import KnownPrior
from policies.items.timeline import ItemTimeline
from policies.personalizer.pages import parts_pages
from policies.profiles.known_user import KnownUser
from policies.ranker import Around, Ranker
from policies.requests import BareRequest, Item, RankRequest
from policies.rules.turns import Turn, gather_in_turns
from policies.sources.source_set import SourceSet
from policies.spec import PolicySpec, decode_spec
from serve_app.admin.refreshes import follow_refresh
from serve_app.api.bodies import whole, whole_or_error
from serve_app.api.readiness import stalled_at
from serve_app.replica.artifact_swap import ArtifactSwap
from serve_app.replica.decision_log import DecisionLog
from serve_app.replica.items import ReplicaItems
from serve_app.replica.known_users import KnownUsers
from serve_app.replica.learning_watch import LearningWatch
from serve_app.replica.scrape import read_learner_stats, read_troubles
from serve_app.store.clients import FAILURES, AsyncRedis
from serve_app.store.event_log import LogWriter
from serve_app.store.keys import ItemsKeys, Keys
from serve_app.store.progress import LearningHealth
from serve_app.store.replicas.artifacts import forget, read_artifact_trouble, report
from serve_app.store.snapshots import Follower, Published
from serve_app.store.stats import Stats

REPORT_S = 0.5
"""Time between two reports of the artifact that serves, in seconds."""
ERASED_ATTEMPTS = 3
"""How often a user may be erased, and come back, while one decision is made for them."""

log = logging.getLogger("banditloop.service")


class RedisPolicyService:
    """Serves one policy.

    ``start`` begins to follow snapshots; until one is loaded the policy is not ready.

    Args:
        spec: the policy.
        client: of the Redis with its log and snapshots.
        writer: appends to its log.
        salt: draws and pseudonyms are hashed with it.
        replica: the process's name, which snapshots are acknowledged under.
        follow_interval_s: how often to look for a new snapshot.
        watch: knows how its learning stands; without one that is unknown.
        known: knows its users, where its spec has profiles.
    """

    def __init__(
        self,
        spec: PolicySpec,
        client: AsyncRedis,
        writer: LogWriter,
        *,
        salt: bytes,
        replica: str,
        follow_interval_s: float,
        watch: LearningWatch | None = None,
        known: KnownUsers | None = None,
    ) -> None:
        self.spec = spec
        self.loaded_at = time.monotonic()
        self._watch = watch
        self._replica = replica
        self._client = client
        self._writer = writer
        self._keys = Keys(spec.name)
        self._known = known
        self._log = DecisionLog(spec, writer, known, salt=salt)

        self.artifacts = ArtifactSwap(spec, salt)
        self.ranker = Ranker(spec, [], salt=salt)
        self._explainer = LiveExplainer(self.ranker)
        self._equipped: SourceSet | None = None
        self._parts_pages = parts_pages(spec)
        self._equip(self.artifacts.loaded)
        self._swapping = threading.Lock()

        self.items_log = ReplicaItems(
            client,
            writer,
            ItemsKeys(spec.shares),
            self._offer,
            older=self._keys,
            brought=spec.artifact is not None,
        )
        self.follower = Follower(
            client,
            self._keys,
            self._accept,
            self.items_log,
            replica=replica,
            interval_s=follow_interval_s,
            steer=self.ranker.steer,
            wire=writer.wire,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False
        self._was_ready = self._is_watched = False

    def start(self) -> None:
        """Begin to follow snapshots, and the artifact that they are served with."""
        self._tasks.append(asyncio.create_task(self.follower.run()))
        if self.spec.artifact is not None or self.vector_lengths(frozenset()):
            self._tasks.append(asyncio.create_task(self._follow_artifact()))

    def put_around_parts(self, around: Around) -> None:
        """Put something around the parts of each decision; see ``Around``."""
        if self._known is not None:
            self._known = around(self._known, "profile", "know")
        self._is_watched = True
        appends = ("append", "append_each", "append_once", "append_events")
        self._log = around(self._log, "log", *appends)
        self.ranker.put_around_parts(around)

    async def stop(self) -> None:
        """Stop following, and close the sources' connections."""
        self.follower.stop()
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        with contextlib.suppress(*FAILURES):
            await forget(self._client, self._keys, self._replica)

        for source in self.artifacts.loaded.all:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()

    @property
    def repeats(self) -> bool:
        """Whether its spec says what is not offered again."""
        return self.spec.repeat is not msgspec.UNSET

    @property
    def explains_unasked(self) -> bool:
        """Whether answers of Personalizer's protocol say why."""
        own = self.spec.personalizer
        return own is not msgspec.UNSET and own.explains

    @property
    def has_one_slot(self) -> bool:
        """Whether clients of Personalizer's protocol have set a policy of one slot."""
        own = self.spec.personalizer
        return own is not msgspec.UNSET and own.has_one_slot

    @property
    def parts_pages(self) -> bool:
        """Whether each slot of a page of Personalizer's protocol may be a decision of its own."""
        return self._parts_pages

    @property
    def ready(self) -> bool:
        """Whether a snapshot was loaded, and the items; they serve on while newer ones are read."""
        self._was_ready |= self.ranker.serving is not None and self.items_log.loaded
        return self._was_ready

    @property
    def signals(self) -> Collection[str]:
        """What its rewards may name as their signal."""
        signals = self.spec.signals
        return () if signals is msgspec.UNSET else signals.keys()

    @property
    def artifact_is_old(self) -> bool:
        """Whether the artifact that the log says cannot be loaded here, and another serves."""
        return self.artifacts.is_behind

    @property
    def learning(self) -> LearningHealth:
        """How its learning stands, as of the last look."""
        return LearningHealth() if self._watch is None else self._watch.of(self.spec.name)

    def begin(
        self, request: RankRequest
    ) -> "tuple[DecisionRecord, asyncio.Future[object]] | RankRequest":
        """Decide where nothing is looked up first, and begin to log the decision.

        Whoever asks has the time until it is on disk for the answer.

        Args:
            request: what is asked; its actions may be as they were sent.

        Returns:
            The decision, and what is awaited until it is in the log, which raises
            LogUnavailableError where that is not known; or what ``rank`` has to be asked.
        """
        looks = self._known is not None or request.event_id is not None or request.explain
        if looks or self._is_watched or type(request) is not BareRequest:
            return request
        record = self.ranker.rank_bare(request)
        return whole(request) if record is None else (record, self._log.begin(record))

    async def rank(
        self, request: RankRequest, *, is_new: bool = False, again: bool = False
    ) -> tuple[DecisionRecord, bool]:
        """Decide, and log the decision; return it, and whether it is known to be logged.

        Args:
            request: what is asked; its actions may be as they were sent.
            is_new: whether its event_id was made just now, so that it has answered nobody.
            again: whether a request is decided, too, whose event_id has answered another one: that
                is logged, and never learned.
        """
        bare = None
        if type(request) is BareRequest:
            if self._known is None:
                bare = self.ranker.rank_bare(request)
            if bare is not None and request.event_id is None:
                return bare, bool(await self._log.append(bare, request))
            # What a client's own event_id is remembered with is all that was asked, decoded.
            request = whole(request)

        for _ in range(ERASED_ATTEMPTS):
            known = None if self._known is None else await self._known.know(request)
            made = bare if bare is not None else await self._decide(request, known)
            if isinstance(made, BanditloopError):
                return await self._shown_before(request, made), True
            record = made
            if request.event_id is None or is_new:
                logged = await self._log.append(record, request)
            else:
                # A retry under the client's own event_id gets the decision that is in the log
                # already.
                answer = await self._log.append_once(request, record)
                if isinstance(answer, EventConflictError) and again:
                    return record, await self._log.append_again(record)
                if isinstance(answer, BanditloopError):
                    raise answer
                record, logged = answer

            if logged is not None or self._known is None:
                break
            # Who was erased since they were looked up is decided for as somebody new.
            self._known.forget(request)
        return record, bool(logged)

    async def preview(self, request: RankRequest) -> PreviewResponse:
        """Return what a request would be answered now; nothing is logged, and nobody made known."""
        explain = self._explainer.begin(MOST_OTHERS)
        known = None if self._known is None else await self._known.look_up(request)
        record = await self.ranker.rank(request, known)
        return previewed(record, explain(record))

    @property
    def source_failures(self) -> Mapping[str, int]:
        """How often each source gave nothing, since this process started."""
        return self.ranker.proposers.answers.failures

    def explaining(self) -> Explains:
        """Return what says of a decision that is made from now on why it is so."""
        return self._explainer.begin()

    async def _shown_before(self, request: RankRequest, error: BanditloopError) -> DecisionRecord:
        """Return the first answer to a request that cannot be decided any more.

        That answer itself may be why: what a visit was shown is held back.

        Raises:
            BanditloopError: there is none.
        """
        first = None
        if self.repeats and request.event_id:
            first = await self._log.find_once(request, request.event_id)
        if first is None:
            raise error
        return first

    async def rank_all(
        self, requests: Sequence[RankRequest]
    ) -> list[tuple[DecisionRecord, bool] | BanditloopError]:
        """Return the same for several; each has its own answer or error, in order."""
        # What is looked up by a user, or remembered, is looked up and remembered whole.
        looks = self._known is not None
        asked: list[RankRequest | BanditloopError] = []
        turn = Turn()
        for each in requests:
            if turn.is_over:
                await turn.give_way()
            asked.append(whole_or_error(each) if looks or each.event_id is not None else each)
        good = [each for each in asked if not isinstance(each, BanditloopError)]
        made = iter(await self._rank_in_rounds(good))
        return [each if isinstance(each, BanditloopError) else next(made) for each in asked]

    async def _rank_in_rounds(
        self, requests: Sequence[RankRequest]
    ) -> list[tuple[DecisionRecord, bool] | BanditloopError]:
        if self._known is None:
            return await self._rank_at_once(requests)
        answers: list[Any] = [None] * len(requests)
        for places in self._known.rounds(requests):
            made = await self._rank_at_once([requests[at] for at in places])
            for at, answer in zip(places, made, strict=True):
                answers[at] = answer
        return answers

    async def _rank_at_once(
        self, requests: Sequence[RankRequest]
    ) -> list[tuple[DecisionRecord, bool] | BanditloopError]:
        answers: list[Any] = await self._decide_all(requests)
        made = [at for at, answer in enumerate(answers) if isinstance(answer, DecisionRecord)]

        # Only what has no event_id of the client's can be written at once: the others may be
        # retries, each of which has to find its first decision.
        fresh = [at for at in made if requests[at].event_id is None]
        retried = [at for at in made if requests[at].event_id is not None]
        logged, once = await asyncio.gather(
            self._log.append_each([answers[at] for at in fresh], [requests[at] for at in fresh]),
            gather_in_turns(lambda at: self._log.append_once(requests[at], answers[at]), retried),
        )

        for at, is_logged in zip(fresh, logged, strict=True):
            answers[at] = answers[at], is_logged
        for at, answer in zip(retried, once, strict=True):
            answers[at] = answer
        if self._known is not None:
            await self._answer_again(self._known, requests, answers)
        return answers

    async def _answer_again(
        self, users: KnownUsers, requests: Sequence[RankRequest], answers: list[Any]
    ) -> None:
        """Answer by itself what could not be answered with the others.

        Those are of users who were erased meanwhile, and retries of what a visit was shown.
        """
        for at, answer in enumerate(answers):
            request = requests[at]
            if isinstance(answer, BanditloopError):
                if not (self.repeats and request.event_id):
                    continue
            elif answer[1] is None:
                users.forget(request)
            else:
                continue
            try:
                answers[at] = await self.rank(request)
            except BanditloopError as error:
                answers[at] = error

    async def _decide_all(
        self, requests: Sequence[RankRequest]
    ) -> list[DecisionRecord | BanditloopError]:
        """Decide each request; other requests of the replica take turns in between."""
        known: Sequence[Known] = [None] * len(requests)
        if self._known is not None:
            known = await gather_in_turns(partial(self._know, self._known), requests)
        return await decide_all(self.ranker, requests, known, whole_or_error)

    async def _know(
        self, users: KnownUsers, request: RankRequest
    ) -> KnownUser | BanditloopError | None:
        try:
            return await users.know(request)
        except BanditloopError as error:
            return error

    async def _decide(
        self, request: RankRequest, known: KnownUser | BanditloopError | None
    ) -> DecisionRecord | BanditloopError:
        if isinstance(known, BanditloopError):
            return known
        try:
            return await self.ranker.rank(request, known)
        except BanditloopError as error:
            return error

    async def log(self, records: Sequence[RewardRecord | ActivationRecord]) -> None:
        """Make events durable, each in the log of its decision.

        Raises:
            LogUnavailableError: not all are known to be logged.
        """
        await self._log.append_events(records)

    async def name_slots(self, event_id: str, names: Sequence[str]) -> None:
        """Keep what a caller calls the slots of a decision; see ``DecisionLog.name_slots``."""
        await self._log.name_slots(event_id, names)

    async def slot_names(self, event_id: str) -> list[str]:
        """Return what a caller calls the slots of a decision; see ``DecisionLog.slot_names``."""
        return await self._log.slot_names(event_id)

    async def change_items(self, changes: Sequence[ItemChange]) -> ItemsVersion:
        """Append changes to the log of items, as one entry; see ``ReplicaItems.change``."""
        return await self.items_log.change(changes)

    def vector_lengths(self, but: Collection[str] | None) -> Mapping[str, int]:
        """Return how long vectors of items are; see ``Ranker.vector_lengths``."""
        return self.ranker.vector_lengths(but)

    async def replace_catalogue(self, items: list[Item]) -> str:
        """Replace all items; see ``ReplicaItems.replace``."""
        return await self.items_log.replace(items)

    async def item(self, item_id: str) -> ItemResponse:
        """Return an item as it is now; see ``ReplicaItems.item``."""
        return await self.items_log.item(item_id)

    async def items(self, query: ItemsQuery) -> ItemsPage:
        """Return a page of the items there are now; see ``ReplicaItems.page``."""
        return await self.items_log.page(query)

    async def similar(self, item_id: str, query: SimilarQuery) -> SimilarResponse:
        """Return the items like one that may be offered now.

        Args:
            item_id: the one.
            query: who is asked, and for how many.

        Raises:
            UnknownItemError: there is no such item.
            IncomparableError: the source cannot say.
            InvalidFieldError: the filter is none that the policy takes.
        """
        asked = item_id, query.source, query.limit, query.filter
        try:
            source, found = await self.ranker.similar_in_turns(*asked)
        except UnknownItemError:
            # It may have been put through another replica a moment ago.
            await self.items_log.catch_up()
            source, found = await self.ranker.similar_in_turns(*asked)
        scored = zip(found.ids, found.scores.tolist(), strict=True)
        return SimilarResponse(item_id, source, [SimilarItem(*each) for each in scored])

    async def info(self) -> PolicyInfo:
        """Return what is served, and what the learner has counted."""
        serving, troubles, stats = self.ranker.serving, self.ranker.proposers.answers.troubles, None
        refreshed, trouble = None, self.artifacts.trouble

        # Without Redis the answer is what this process knows by itself.
        with contextlib.suppress(*FAILURES, msgspec.MsgspecError):
            stats = await read_learner_stats(self._client, self.spec.name, self.spec.partitions)
            troubles = await read_troubles(self._client, self.spec.name, troubles)
            refreshed = await follow_refresh(self._client, self._keys)
            if trouble is None and self.spec.artifact is not None:
                trouble = await read_artifact_trouble(self._client, self._keys)

        learning = self.learning
        return PolicyInfo(
            policy=self.spec.name,
            ready=self.ready,
            snapshot_id=serving.snapshot_id if serving else None,
            position=serving.snapshot.position if serving else None,
            learned=serving.snapshot.learned if serving else 0,
            items=len(self.items_log.timeline),
            sources=[source.name for source in self.spec.sources],
            spec=_spec_fields(self.spec),
            outcomes=stats.outcomes if stats else {},
            source_troubles=troubles,
            learning=learning.state,
            stalled=stalled_at(self.spec.name, learning),
            reason=learning.stall.reason if learning.stall else None,
            refused=[
                Refused(refusal.position, refusal.kind, refusal.reason)
                for refusal in learning.refused
            ],
            prior=None if stats is None else _prior_info(stats.prior),
            artifact=self.artifacts.loaded.artifact,
            catalogue=self.ranker.offering.catalogue.digest if serving else None,
            artifact_wanted=self.artifacts.wanted if self.artifacts.is_behind else None,
            artifact_trouble=trouble,
            refresh=refreshed,
            signals=_signals_info(stats),
            quotas=_quotas_info(stats),
            rule_troubles=self.ranker.offering.rule_troubles(),
        )

    def _accept(self, snapshot_id: str, published: Published) -> None:
        if published.spec != self.spec.digest:
            raise SnapshotError("it was learned for another spec than this replica serves", "spec")
        # A snapshot waits for the artifact that it is to be served with: its weights are of that
        # one's scores. Where that cannot be loaded, the one before serves on.
        with self._swapping:
            self._equip(self.artifacts.follow(published.artifact))
            self.ranker.serve(snapshot_id, published.snapshot)
        self.items_log.of_snapshot = published.catalogue
        self.loaded_at = time.monotonic()

    def _offer(self, timeline: ItemTimeline, changed: Collection[str] | None) -> None:
        self.ranker.offer(timeline.newest, timeline, changed)
        if changed is None:
            for field, trouble in self.ranker.offering.rule_troubles().items():
                log.warning("%s of %s: %s", field, self.spec.name, trouble)

    async def _follow_artifact(self) -> None:
        """Say what serves, and load an artifact that is asked for or could not be loaded before."""
        artifacts = self.artifacts
        while not self._stopped:
            # Without Redis nobody asks, and what serves goes on.
            asked, told = "", artifacts.report()
            vectors = {**self.vector_lengths(frozenset())}
            with contextlib.suppress(*FAILURES):
                said = msgspec.structs.replace(told, vectors=vectors)
                asked = await report(self._client, self._keys, self._replica, said)

            if artifacts.has_work(asked):
                await asyncio.to_thread(self._load_what_is_asked, asked)
            if artifacts.report() == told:
                await asyncio.sleep(REPORT_S)

    def _load_what_is_asked(self, version: str) -> None:
        with self._swapping:
            self.artifacts.prepare(version)
            if self.artifacts.is_behind:
                self._equip(self.artifacts.follow(self.artifacts.wanted))

    def _equip(self, sources: SourceSet) -> None:
        if sources is not self._equipped:
            self.ranker.equip(sources)
            self._equipped = sources


def _signals_info(stats: Stats | None) -> dict[str, SignalInfo]:
    counted = {} if stats is None else stats.signals
    return {name: SignalInfo(count, total / count) for name, (count, total) in counted.items()}


def _quotas_info(stats: Stats | None) -> dict[str, QuotaInfo]:
    states = {} if stats is None else stats.quotas
    return {name: QuotaInfo(*msgspec.structs.astuple(each)) for name, each in states.items()}


def _prior_info(known: KnownPrior | None) -> PriorInfo | None:
    """Return what became of a log's prior; None if it has none."""
    if known is None:
        return None
    taught = known.taught
    if taught is None:
        return PriorInfo(0, 0, known.strength, known.reason)
    return PriorInfo(taught.rows, taught.skipped, taught.strength, known.reason)


def _spec_fields(spec: PolicySpec) -> dict[str, Any]:
    """Return the fields of a spec, as its encoding has them."""
    return dict(msgspec.to_builtins(decode_spec(spec.encoded)))
