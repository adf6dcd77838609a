"""Random policies, items and requests: what the rules refuse has no chance, and all derives again."""

import asyncio
import json
from itertools import chain

import msgspec
import numpy as np
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from support.fakes import SALT, FakeLog
from support.items import MemoryItems, put
from support.strategies import MANY

from bandits.errors import InvalidFieldError, NoCandidatesError, SpecError
from bandits.log.codec import decode, encode
from bandits.log.records import ControlRecord, ItemChange
from policies.items.past import ItemsPast
from policies.profiles.known_user import KnownUser
from policies.profiles.part import ProfileEvent
from policies.profiles.user_profile import UserProfile
from policies.ranker import Ranker
from policies.requests import ActionRequest, Item, RankRequest
from policies.rules.quotas.quota import Control
from policies.sources.base import Candidates, ImmediateSource, SourceRequest
from policies.spec import PolicySpec, spec_of
from simulator.doctor.checks.references import ReferencedBlobs
from simulator.doctor.examine import examine

IDS = [f"i{n}" for n in range(12)]
NAMES = [*IDS, "unheard"]
BRANDS = ["a", "b", ""]


def texts(*choices: str):
    return st.sampled_from(choices)


ATOMS = st.one_of(
    texts(
        "item.stock > 0",
        "item.stock / item.size > 1",
        'item.brand == "a"',
        'item.brand in ["a", "b"]',
        "item.hot",
        "context.region in item.regions",
        "item.size <= context.budget * 1.5",
        "item.brand == context.brand",
        "has(item.hot)",
        "size(item.regions) > 1",
        'item.id != "i3"',
        "item.id in profile.buy",
        "time.hour < 12",
        "time.now > 1000",
        "context.vip == true",
        "true",
    )
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        inner.map(lambda one: f"!({one})"),
        st.tuples(inner, texts("&&", "||"), inner).map(lambda each: f"({' '.join(each)})"),
    ),
    max_leaves=4,
)
OF_ITEMS = texts("item.stock > 2", 'item.brand == "a"', "item.hot && item.size > 1")
FEATURES = st.fixed_dictionaries(
    {},
    optional={
        "stock": st.one_of(st.integers(0, 4).map(float), st.just("many")),
        "size": st.integers(0, 3).map(float),
        "brand": st.sampled_from(BRANDS),
        "hot": st.booleans(),
        "regions": st.lists(texts("eu", "us"), max_size=2, unique=True),
    },
)
BOOSTS = st.lists(
    st.fixed_dictionaries({"when": CONDITIONS, "by": st.sampled_from([-2.0, -0.25, 0.125, 0.7])}),
    min_size=1,
    max_size=3,
)
EXPLORATIONS = st.sampled_from(
    [
        {"kind": "epsilon_greedy", "epsilon": 0.3},
        {"kind": "softmax", "temperature": 0.5},
        {"kind": "squarecb", "gamma_scale": 5.0},
        {"kind": "greedy"},
        {"kind": "linucb", "alpha": 0.1},
    ]
)
SPECS = st.fixed_dictionaries(
    {"exploration": EXPLORATIONS},
    optional={
        "filter": st.fixed_dictionaries(
            {
                "where": CONDITIONS,
                "fields": st.just(["stock", "size", "brand", "regions", "hot", "id"]),
            },
            optional={"unknown": texts("refuse", "admit")},
        ),
        "boost": BOOSTS,
        "quota": st.fixed_dictionaries(
            {"when": OF_ITEMS, "at_least": st.just(0.2), "cap": st.just(2.0)}
        ).map(lambda quota: [quota]),
        "page": st.fixed_dictionaries(
            {"most": st.just({"brand": 1})},
            optional={
                "in_a_row": st.just({"regions": 1}),
                "diversity": st.sampled_from(
                    [
                        {"by": "regions", "weight": 0.5},
                        {"by": "shape", "weight": 0.3, "vector": True},
                    ]
                ),
            },
        ),
        "placements": st.lists(
            st.fixed_dictionaries(
                {"item": st.sampled_from(NAMES), "slot": st.integers(0, 3)},
                optional={
                    "from": texts("1970-01-01T02:00:00Z", "1970-01-01T00:00:01Z"),
                    "until": texts("1970-01-01T06:00:00Z"),
                    "when": CONDITIONS,
                },
            ),
            min_size=1,
            max_size=3,
        ),
        "exposure": st.just({"group": "brand", "floor": 0.1}),
        "holdout": st.just({"fraction": 0.4, "field": "visit"}),
        "floor": st.just(0.1),
    },
).filter(lambda fields: fields["exploration"]["kind"] != "greedy" or "floor" not in fields)
CONTEXTS = st.fixed_dictionaries(
    {"visit": st.integers(0, 99).map(float)},
    optional={
        "region": texts("eu", "us", "mars"),
        "budget": st.sampled_from([0.5, 1.0, 3.0]),
        "brand": texts("a", "b", "zzz"),
        "vip": st.booleans(),
    },
)
ACTIONS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), FEATURES)),
    min_size=1,
    max_size=8,
    unique_by=lambda each: each[0],
)
DECIDE = st.tuples(
    st.just("decide"),
    CONTEXTS,
    st.one_of(st.none(), CONDITIONS),
    st.one_of(st.none(), ACTIONS),
    st.integers(1, 4),
    st.lists(st.sampled_from(IDS), max_size=3),
)
CHANGE = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(IDS), FEATURES),
    st.tuples(st.just("delete"), st.sampled_from(IDS)),
    st.tuples(st.just("steer"), st.sampled_from([0.0, 0.25, -1.0])),
    st.tuples(st.just("wait"), st.integers(1, 30_000_000)),
)
STEPS = st.lists(st.tuples(CHANGE, DECIDE, DECIDE), min_size=2, max_size=6)


class Everything(ImmediateSource):
    """Proposes all items, the best first for whoever asks."""

    name = "new"

    def propose(self, request: SourceRequest, limit: int) -> Candidates:
        ids = tuple(each for each in NAMES if each not in request.exclude)[:limit]
        return Candidates(ids, np.linspace(1, 0, len(ids), dtype=np.float32))


def an_item(item_id: str, features: dict) -> Item:
    """An item; some have a vector, one of another length than the others."""
    size = features.get("size")
    if size is None:
        return Item(item_id, features)
    vector = [size, 1.0, 0.5] if size < 3 else [1.0]
    return Item(item_id, features, vectors={"shape": vector})


class Town:
    """A policy that decides while everything around it changes."""

    def __init__(self, spec: PolicySpec, items: list[Item]) -> None:
        self.spec, self.now, self.number = spec, 1_000, 0
        self.log, self.items = FakeLog(spec), MemoryItems()
        self.ranker = Ranker(spec, [Everything()], salt=SALT, clock=lambda: self.now / 1000)
        self.snapshot = self.log.fold().snapshot()
        self.ranker.serve("s0", self.snapshot)
        self.items.replace(items)
        self.ranker.offer(self.items.timeline.newest, self.items.timeline)

    def change(self, change: ItemChange) -> None:
        self.items.append(change)
        self.ranker.offer(self.items.timeline.newest, self.items.timeline, [change.id])

    def put(self, item_id: str, features: dict) -> None:
        self.change(put(an_item(item_id, features)))

    def delete(self, item_id: str) -> None:
        self.change(ItemChange("delete", item_id))

    def wait(self, passed_ms: int) -> None:
        self.now += passed_ms

    def steer(self, price: float) -> None:
        rules = self.spec.rules
        if rules is None or rules.quotas is None:
            return
        prices = dict.fromkeys([*rules.quotas.names, "brand=a"], price)
        entry = self.log.append(ControlRecord(prices), at=self.now)
        self.ranker.steer(Control(entry.id, prices))

    def decide(self, context, where, actions, slots: int, bought: list[str]) -> None:
        self.now += 10
        self.number += 1
        did = tuple(ProfileEvent(1, 1, at, item, "buy") for at, item in enumerate(bought))
        request = RankRequest(
            event_id=f"e{self.number}",
            user_id="u",
            context=context,
            filter=where if "filter" in json.loads(self.spec.encoded) else None,
            actions=None if actions is None else [ActionRequest(*each) for each in actions],
            slots=slots,
        )
        known = KnownUser("p", UserProfile(did, (), "v"))
        try:
            record = asyncio.run(self.ranker.rank(request, known))
        except (NoCandidatesError, InvalidFieldError):
            return  # nothing is left, or too little
        assert decode(encode(record)) == record
        np.testing.assert_allclose(record.pmfs().sum(axis=1), 1, rtol=1e-12)
        assert not set(record.shown()[len(record.chosen) :]) & set(record.action_ids)
        if actions is None:  # as those of trained sources have it
            record = msgspec.structs.replace(record, artifact="a")
        self.log.append(record, at=self.now)

    def report(self):
        past = ItemsPast(self.items)
        stored = ReferencedBlobs(self.log.blobs.get, lambda _: self.snapshot, items=past)
        return examine(self.log.entries, salts={"salt": SALT}, stored=stored)


@settings(max_examples=MANY // 5)
@given(SPECS, st.lists(st.tuples(st.sampled_from(IDS), FEATURES), min_size=6), STEPS)
def test_whatever_the_rules_are_all_derives_again_and_nothing_refused_has_a_chance(
    fields, items, steps
):
    sources = [{"kind": "fresh", "name": "new"}]
    profile = {"types": {"buy": 1}}
    try:
        spec = spec_of(
            {"name": "home", "sources": sources, "limit": 5, "profile": profile, **fields}
        )
    except SpecError as error:
        if error.target != "quota":
            raise
        reject()  # its filter admits nothing that its quota asks for
    town = Town(spec, [an_item(*each) for each in dict(items).items()])
    for step, *arguments in chain.from_iterable(steps):
        getattr(town, step)(*arguments)
    found = {finding.check: finding for finding in town.report().findings}
    for check in {"rules", "derivations", "draws"} & set(found):
        assert found[check].severity in {"ok", "nothing"}, found[check]
