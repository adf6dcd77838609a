"""A shop whose policy has every kind of rule, while its stock, its prices and its clock go on."""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np

from banditloop_client.schemas import Item
from bandits.errors import MissingBlobError, NoCandidatesError
from bandits.log.codec import decode, encode
from bandits.log.positions import has_reached, is_after
from bandits.log.records import (
    BuildRecord,
    CatalogueRecord,
    ControlRecord,
    DecisionRecord,
    ItemChange,
    ItemsBaseRecord,
    ItemsRecord,
    LogEntry,
    LogRecord,
    RewardRecord,
    SpecRecord,
)
from bandits.log.versions import FOLD
from bandits.types import Snapshot
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.items.changes import encode_item
from policies.items.past import ItemsPast
from policies.items.timeline import ItemTimeline
from policies.profiles.known_user import KnownUser
from policies.profiles.part import ProfileEvent
from policies.profiles.user_profile import UserProfile
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.rules.quotas.controller import Controller
from policies.rules.quotas.measure import ShareMeter
from policies.rules.quotas.quota import Control
from policies.sources import load_sources
from policies.spec import spec_of
from simulator.doctor.checks.references import ReferencedBlobs

ITEMS, BRANDS, USERS = 300, 12, 500
SALT = b"ruled shop"
ROUND_MS = 1_000
START_MS = 1_760_000_000_000
PUBLISH_EVERY = 250
CHANGE_EVERY = 20
SPEC = {
    "name": "shop",
    "sources": [
        {"kind": "fresh", "name": "new", "half_life": "30d"},
        {"kind": "trending", "name": "trend", "half_life": "1d"},
    ],
    "limit": 20,
    "use": ["context", "item", "features"],
    "exploration": {"kind": "epsilon_greedy", "epsilon": 0.2},
    "join": {"window_s": 600},
    "profile": {"types": {"purchase": 1}},
    "holdout": {"fraction": 0.1, "policy": "uniform"},
    "filter": {
        "where": "item.stock > 0 && context.region in item.regions"
        " && (time.hour < 22 || item.night == true) && !(item.id in profile.purchase)",
        "fields": ["price", "brand"],
    },
    "boost": [
        {"when": 'item.season == "new"', "by": 0.2},
        {"when": "item.price > context.budget", "by": -0.3},
        {"when": "time.weekday >= 5 && item.night == true", "by": 0.1},
    ],
    "placements": [
        {"item": "i1", "slot": 1, "when": 'context.region == "eu"'},
        {"item": "i2", "slot": 0, "when": "time.hour < 6"},
        {"item": "i3", "slot": 0, "until": "2025-10-09T16:00:00Z"},
    ],
    "quota": [{"when": 'item.season == "new"', "at_least": 0.25, "within": "1h"}],
    "exposure": {"group": "brand", "floor": 0.04, "within": "2h"},
    "page": {
        "diversity": {"by": "taste", "weight": 0.2, "vector": True},
        "most": {"brand": 2},
        "in_a_row": {"season": 2},
    },
}
FILTERS = ["item.price < 40", 'item.brand in ["b1", "b2", "b3"] || item.stock > 5', "true"]


class ItemsInMemory:
    """The log of the shop's items, in memory."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []
        self.blobs: dict[str, bytes] = {}
        self.timeline = ItemTimeline()

    def append(self, record: LogRecord, time_ms: int) -> None:
        """Append an entry, and let the timeline follow."""
        self.entries.append(LogEntry(f"{time_ms}-{len(self.entries)}", record))
        self.timeline.apply(self.entries[-1], self.blob)

    def encoded(self, after: str, through: str | None = None) -> Iterator[LogEntry]:
        """Yield the entries past a position."""
        for entry in self.entries[self._place(after) :]:
            if through is not None and not has_reached(through, entry.id):
                return
            yield entry

    def _place(self, after: str) -> int:
        """The place of the first entry past a position: its sequence is where it stands."""
        place = min(int(after.partition("-")[2] or 0), len(self.entries))
        while place and is_after(self.entries[place - 1].id, after):
            place -= 1
        while place < len(self.entries) and not is_after(self.entries[place].id, after):
            place += 1
        return place

    def bases(self, through: str) -> Iterator[LogEntry]:
        """Yield whole catalogues at or before a position, newest first."""
        for entry in reversed(self.entries):
            if isinstance(entry.record, ItemsBaseRecord) and has_reached(through, entry.id):
                yield entry

    def blob(self, name: str) -> bytes:
        """A whole catalogue."""
        if name not in self.blobs:
            raise MissingBlobError(f"blob {name} is gone", "digest")
        return self.blobs[name]


def make_item(number: int, rng: np.random.Generator) -> Item:
    """An item: what it costs, where it may be sold, and how many there are."""
    regions = [["eu"], ["us"], ["eu", "us"]][int(rng.integers(3))]
    features = {
        "stock": float(rng.integers(0, 9)),
        "price": float(rng.integers(5, 100)),
        "brand": f"b{number % BRANDS}",
        "season": "new" if rng.random() < 0.2 else "old",
        "night": bool(rng.random() < 0.3),
        "regions": regions,
    }
    if rng.random() < 0.05:
        del features["stock"]  # of some nobody has counted them
    taste = rng.normal(size=4).round(3).tolist()
    return Item(f"i{number}", features, vectors={"taste": taste})


@dataclass(eq=False)
class RuledShop:
    """The shop: it decides, learns, publishes, sells out, and counts what came of it."""

    seed: int
    spec: dict[str, object] = field(default_factory=lambda: dict(SPEC))
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    refused: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.now_ms = START_MS
        self.policy = spec_of(self.spec)
        self.items = ItemsInMemory()
        blobs = {self.policy.digest: self.policy.encoded, Catalogue().digest: Catalogue().encoded}
        self.blobs = blobs
        self.fold = Fold(blobs.__getitem__, salt=SALT, items=ItemsPast(self.items))
        self.ranker = Ranker(
            self.policy,
            list(load_sources(None, self.policy.sources).values()),
            salt=SALT,
            clock=lambda: self.now_ms / 1000,
        )
        self.bought: dict[int, deque[str]] = {}
        self._sequence = 0
        rules = self.policy.rules
        quotas = None if rules is None else rules.quotas
        self._meter = None if quotas is None else ShareMeter(quotas)
        self._controller = None if quotas is None else Controller(quotas)

        catalogue = Catalogue.put([make_item(number, self.rng) for number in range(ITEMS)])
        self.items.blobs[catalogue.digest] = catalogue.encoded
        self.items.append(ItemsBaseRecord(catalogue.digest), self.now_ms)
        self.ranker.offer(self.items.timeline.newest, self.items.timeline)

    @property
    def stored(self) -> ReferencedBlobs:
        """What the doctor reads beside the log."""
        return ReferencedBlobs(self.blobs.get, self.snapshots.get, items=ItemsPast(self.items))

    def entries(self, rounds: int) -> Iterator[LogEntry]:
        """Yield the entries of the log as they are made, each through the codec."""
        for record in (
            BuildRecord({"fold": str(FOLD)}),
            SpecRecord(self.policy.digest, "salt"),
            CatalogueRecord(Catalogue().digest),
        ):
            yield self._append(record)

        rewards: deque[tuple[int, RewardRecord]] = deque()
        with asyncio.Runner() as runner:
            for number in range(rounds):
                self.now_ms += ROUND_MS
                while rewards and rewards[0][0] <= self.now_ms:
                    yield self._append(rewards.popleft()[1])
                if number % PUBLISH_EVERY == 0:
                    self._publish(number)
                if number % CHANGE_EVERY == 0:
                    self._change()
                request, user = self._request(number)
                try:
                    made = runner.get_loop().run_until_complete(self.ranker.rank(request, user))
                except NoCandidatesError:
                    self.refused += 1
                    continue
                yield self._append(made)
                if (state := self._steered(made)) is not None:
                    yield state
                rewards += [(self.now_ms + 30_000, each) for each in self._earned(made, number)]

    def _append(self, record: LogRecord) -> LogEntry:
        self._sequence += 1
        entry = LogEntry(f"{self.now_ms}-{self._sequence}", decode(encode(record)))
        self.fold.apply([entry])
        return entry

    def _steered(self, record: DecisionRecord) -> LogEntry | None:
        """Measure a decision; say a new state of the quotas where prices have moved."""
        meter, controller = self._meter, self._controller
        if meter is None or controller is None or record.holdout:
            return None
        offering = self.ranker.offering
        shares = meter.measure(record, offering.catalogue, offering.item)
        controller.measured(self.now_ms, shares)
        serving = self.ranker.serving
        known = None if serving is None or serving.control is None else serving.control.prices
        if not controller.changed_from(known or {}):
            return None
        entry = self._append(ControlRecord(controller.prices))
        self.ranker.steer(Control(entry.id, controller.prices))
        return entry

    def _publish(self, number: int) -> None:
        name = f"s{self.seed}.{number}"
        self.snapshots.clear()  # the doctor looks while decisions are made
        self.snapshots[name] = self.fold.snapshot()
        self.ranker.serve(name, self.snapshots[name])

    def _change(self) -> None:
        """Sell some items out, and get others again."""
        changed = []
        for number in self.rng.integers(0, ITEMS, 6).tolist():
            item = make_item(number, self.rng)
            changed.append(item)
        changes = [ItemChange("put", item.id, encode_item(item)) for item in changed]
        self.items.append(ItemsRecord(changes), self.now_ms)
        ids = [item.id for item in changed]
        self.ranker.offer(self.items.timeline.newest, self.items.timeline, ids)

    def _request(self, number: int) -> tuple[RankRequest, KnownUser]:
        rng, actions = self.rng, None
        user = int(rng.integers(USERS))
        if rng.random() < 0.2:
            ids = rng.permutation(ITEMS)[:40].tolist()
            actions = [ActionRequest(f"i{each}") for each in ids]
            if rng.random() < 0.5:
                own = make_item(ids[0], rng).features
                actions[0] = msgspec.structs.replace(actions[0], features=own)
        request = RankRequest(
            event_id=f"{self.seed}.{number}",
            user_id=f"u{user}",
            context={"region": ["eu", "us"][user % 2], "budget": float(rng.integers(10, 90))},
            actions=actions,
            slots=int(rng.integers(1, 6)),
            filter=FILTERS[int(rng.integers(len(FILTERS)))] if rng.random() < 0.3 else None,
        )
        did = tuple(
            ProfileEvent(1 + at, 1, 0, item, "purchase")
            for at, item in enumerate(self.bought.get(user, ()))
        )
        return request, KnownUser(f"p{user}", UserProfile(did, (), "v"))

    def _earned(self, record: DecisionRecord, number: int) -> Iterator[RewardRecord]:
        """What the shown items earn: who likes a brand buys of it."""
        for slot, at in enumerate(record.chosen):
            item = int(record.action_ids[at][1:])
            if self.rng.random() < (0.5 if item % BRANDS == number % 3 else 0.05):
                yield RewardRecord(record.event_id, 1.0, f"{number}.{slot}", slot)
                user = self.bought.setdefault(int(self.rng.integers(USERS)), deque(maxlen=5))
                user.append(f"i{item}")
