"""Stand-ins that behave: a log with a clock, a source that can fail, a service without Redis."""

import copy
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from itertools import pairwise

import msgspec
import numpy as np

from banditloop_client.schemas import (
    ItemResponse,
    ItemsPage,
    ItemsQuery,
    ItemsVersion,
    PolicyInfo,
    SimilarItem,
    SimilarResponse,
)
from banditloop_client.space_schemas import (
    ActivityEvent,
    ErasureState,
    HeldProfile,
    UserExport,
)
from bandits.errors import (
    BanditloopError,
    LogUnavailableError,
    SourceError,
    UnknownErasureError,
    UnknownItemError,
)
from bandits.log.older_decisions import Opened, opened_of
from bandits.log.positions import has_reached, log_order
from bandits.log.records import DecisionRecord, ItemChange, LogEntry, LogRecord, SpecRecord
from policies.explain.live import Explains, LiveExplainer
from policies.explain.looked_at import previewed
from policies.fold.checkpoint import FoldState, decode_state
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue, Item
from policies.items.offering import Offering
from policies.personalizer.pages import parts_pages
from policies.profiles.known_user import KnownUser
from policies.ranker import Ranker
from policies.sources.base import Candidates, ScoreItems, SourceRequest
from policies.spec import PolicySpec
from serve_app.api.bodies import whole
from serve_app.store.progress import LearningHealth

SALT = b"test salt"


class FakeLog:
    """The ordered log in memory.

    Time is what the test says; ``available`` False makes appending fail.
    """

    def __init__(self, spec: PolicySpec | None = None) -> None:
        self.entries: list[LogEntry] = []
        self.blobs: dict[str, bytes] = {}
        self.available = True
        if spec is not None:
            self.configure(spec, at=1)

    def append(self, record: LogRecord, *, at: int) -> LogEntry:
        if not self.available:
            raise LogUnavailableError("the log is down")
        sequence = sum(entry.time_ms == at for entry in self.entries[-50:])
        entry = LogEntry(f"{at}-{sequence}", record)
        self.entries.append(entry)
        return entry

    def configure(self, spec: PolicySpec, *, at: int) -> LogEntry:
        self.blobs[spec.digest] = spec.encoded
        return self.append(SpecRecord(spec.digest, "salt"), at=at)

    def past(self, after: str, through: str) -> list[LogEntry]:
        """The entries between two positions."""
        low, high = log_order(after), log_order(through)
        return [entry for entry in self.entries if low < log_order(entry.id) <= high]

    def fold(self, cuts: Iterable[int] = ()) -> Fold:
        """A fresh fold of the whole log, applied in batches that end at ``cuts``."""
        fold = Fold(self.blobs.__getitem__, salt=SALT, past=FakePast(self))
        edges = [0, *sorted(cuts), len(self.entries)]
        for low, high in pairwise(edges):
            fold.apply(self.entries[low:high])
        return fold


class FakePast:
    """The log behind a fold; ``checkpoints`` by position, kept by ``keep``."""

    aside = None

    def __init__(self, log: FakeLog) -> None:
        self._log = log
        self.checkpoints: dict[str, bytes] = {}

    def keep(self, position: str, data: Callable[[], bytes]) -> None:
        self.checkpoints[position] = data()

    def entries(self, after: str, through: str) -> list[LogEntry]:
        return self._log.past(after, through)

    def behind(self, after: str, through: str) -> Iterable[LogEntry]:
        return self.entries(after, through)

    def taught(self, after: str, through: str) -> Iterable[LogEntry]:
        return self.entries(after, through)

    def opened(self, after: str, through: str) -> Iterable[Opened]:
        return opened_of(self.entries(after, through))

    def checkpoint(self, position: str) -> FoldState | None:
        known = [each for each in self.checkpoints if has_reached(position, each)]
        return decode_state(self.checkpoints[max(known, key=log_order)]) if known else None


class FakeSource:
    """Proposes what it was given, best first; ``failing`` makes it fail."""

    def __init__(
        self, name: str, scores: Mapping[str, float], score_items: ScoreItems | None = None
    ) -> None:
        self.name = name
        self.scores = dict(scores)
        self.failing = False
        self.requests: list[SourceRequest] = []
        self._score_items = score_items
        self._offering = Offering()
        self._original: FakeSource | None = None

    def over(self, offering: Offering) -> "FakeSource":
        source = copy.copy(self)
        source._offering, source._original = offering, self._original or self
        return source

    def update(self, changed: Collection[str]) -> None:
        """What is offered is looked up."""

    @property
    def known(self) -> int:
        return sum(item in self._offering for item in self.scores)

    async def candidates(self, request: SourceRequest, limit: int) -> Candidates:
        self.requests.append(request)
        if (self._original or self).failing:
            raise SourceError(f"{self.name} is down", "source")
        ranked = sorted(
            (i for i in self.scores if i in self._offering and i not in request.exclude),
            key=lambda i: -self.scores[i],
        )[:limit]
        return Candidates(
            tuple(ranked), np.array([self.scores[i] for i in ranked], np.float32), self._score_items
        )


def fresh_ranker(
    spec: PolicySpec, sources: Iterable[FakeSource] = (), catalogue: Catalogue | None = None
) -> Ranker:
    """A ranker that serves the snapshot of an empty log."""
    ranker = Ranker(spec, list(sources), salt=SALT)
    ranker.serve("s0", FakeLog(spec).fold().snapshot())
    if catalogue is not None:
        ranker.offer(catalogue)
    return ranker


class FakeService:
    """What the HTTP API needs of a policy, over a real ranker and the log in memory."""

    def __init__(self, ranker: Ranker) -> None:
        self.ranker = ranker
        self.records = FakeLog()
        self.catalogues: list[list[Item]] = []
        self.changes: list[ItemChange] = []
        self.named: dict[str, list[str]] = {}
        self.queries: list[ItemsQuery] = []
        self.learns = LearningHealth("ok")
        self.artifact_is_old = False
        self.repeats = False
        self.known: KnownUser | None = None

    @property
    def signals(self):
        signals = self.ranker.spec.signals
        return () if signals is msgspec.UNSET else signals

    @property
    def explains_unasked(self) -> bool:
        own = self.ranker.spec.personalizer
        return own is not msgspec.UNSET and own.explains

    @property
    def has_one_slot(self) -> bool:
        own = self.ranker.spec.personalizer
        return own is not msgspec.UNSET and own.has_one_slot

    @property
    def parts_pages(self) -> bool:
        return parts_pages(self.ranker.spec)

    @property
    def ready(self) -> bool:
        return self.ranker.serving is not None

    @property
    def learning(self) -> LearningHealth:
        return self.learns

    def begin(self, request):
        return request

    async def rank(self, request, *, is_new=False, again=False) -> tuple[DecisionRecord, bool]:
        record = await self.ranker.rank(whole(request), self.known)
        try:
            self.records.append(record, at=1)
        except LogUnavailableError:
            return record, False
        return record, True

    async def preview(self, request):
        explain = self.explaining()
        record = await self.ranker.rank(request, self.known)
        return previewed(record, explain(record))

    @property
    def source_failures(self):
        return self.ranker.proposers.answers.failures

    def explaining(self) -> Explains:
        return LiveExplainer(self.ranker).begin()

    async def rank_all(self, requests) -> list[tuple[DecisionRecord, bool] | BanditloopError]:
        answers = []
        for request in requests:
            try:
                answers.append(await self.rank(request))
            except BanditloopError as error:
                answers.append(error)
        return answers

    async def log(self, records) -> None:
        for record in records:
            self.records.append(record, at=1)

    async def name_slots(self, event_id, names) -> None:
        self.named.setdefault(event_id, list(names))

    async def slot_names(self, event_id) -> list[str]:
        return self.named.get(event_id, [])

    async def change_items(self, changes) -> ItemsVersion:
        self.changes += changes
        return ItemsVersion("v", len(changes))

    def vector_lengths(self, but):
        return self.ranker.vector_lengths(but)

    async def item(self, item_id) -> ItemResponse:
        if item_id != "known":
            raise UnknownItemError(f"there is no item {item_id!r}", "item_id")
        return ItemResponse("v", Item("known"))

    async def items(self, query) -> ItemsPage:
        self.queries.append(query)
        return ItemsPage("v", 0, [])

    async def similar(self, item_id, query) -> SimilarResponse:
        source, found = self.ranker.similar(item_id, query.source, query.limit, query.filter)
        scored = zip(found.ids, found.scores.tolist(), strict=True)
        return SimilarResponse(item_id, source, [SimilarItem(*each) for each in scored])

    async def replace_catalogue(self, items: list[Item]) -> str:
        if not self.records.available:
            raise LogUnavailableError("the log is down")
        self.catalogues.append(items)
        return Catalogue(items).digest

    async def info(self) -> PolicyInfo:
        spec = msgspec.to_builtins(self.ranker.spec)
        return PolicyInfo(self.ranker.spec.name, self.ready, "s0", "0-0", 0, 0, [], spec, {})


class FakeSpace:
    """What the HTTP API needs of a space: it keeps what was sent."""

    def __init__(self) -> None:
        self.events: list[ActivityEvent] = []
        self.merged: list[tuple[str, str]] = []
        self.erased: list[str] = []

    async def add_activity(self, events) -> list[str]:
        for at, event in enumerate(events):
            if event.item_id == "none":
                raise UnknownItemError("there is no item 'none'", f"events[{at}].item_id")
        self.events += events
        return [event.id or f"made-{at}" for at, event in enumerate(events)]

    async def erase(self, user_id: str) -> ErasureState:
        self.erased.append(user_id)
        return await self.erasure("known")

    async def erasure(self, name: str) -> ErasureState:
        if name != "known":
            raise UnknownErasureError(f"there is no erasure {name!r}", "erasure")
        asked = datetime(2026, 1, 2, tzinfo=UTC)
        return ErasureState(name, "running", asked, None, ["home.0"], ["mail"])

    async def export_user(self, user_id: str) -> UserExport:
        profile = HeldProfile(True, [], [])
        return UserExport("shop", user_id, None, [], 0, profile, [], [], False, [])

    async def merge_users(self, user_id: str, into: str) -> int:
        self.merged.append((user_id, into))
        return 2
