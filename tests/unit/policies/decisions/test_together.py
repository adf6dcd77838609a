"""Decisions that are made together are those that are made one by one, byte for byte."""

import msgspec
import numpy as np
import pytest
from support.fakes import SALT, FakeSource, fresh_ranker

from bandits.exploration import (
    EpsilonGreedy,
    Greedy,
    LinTs,
    LinUcb,
    Softmax,
    SquareCB,
    VwExploration,
)
from bandits.log.codec import encode
from bandits.ridge.config import RidgeConfig
from bandits.types import Interaction
from bandits.vw.config import VwConfig
from policies.blend import make_learner
from policies.candidate_pool import explicit_pool
from policies.features import featurise
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.requests import ActionRequest, BareRequest, Item, RankRequest, SlateRequest
from policies.spec import Holdout, PolicySpec, RemoteSource

ITEMS = 30


def spec_of(args: str, *use: str, **fields) -> PolicySpec:
    learner = VwConfig(args=f"--cb_explore_adf --cb_type mtr {args}")
    return PolicySpec("home", use=list(use), learner=learner, **fields)


SPECS = {
    "one pair": spec_of("-q cf", "context", "features", exploration=EpsilonGreedy()),
    "the item, too": spec_of(
        "-q cf -q ic", "context", "item", "features", exploration=EpsilonGreedy(), floor=0.0
    ),
    "no context": spec_of("-q cf", "features", exploration=EpsilonGreedy()),
    "mirrored": spec_of("-q fc -q ci", "context", "item", "features", exploration=EpsilonGreedy()),
    "no pair": spec_of("--noconstant", "context", "features", exploration=EpsilonGreedy()),
}
EXPLORATIONS = (EpsilonGreedy(0.2), Greedy(), Softmax(0.3), SquareCB())


def numbers(rng: np.random.Generator, prefix: str, count: int) -> dict[str, float]:
    return {f"{prefix}{at}": round(float(rng.normal()), 3) for at in range(count)}


def taught(spec: PolicySpec, rng: np.random.Generator) -> Ranker:
    """A ranker over items with the same features, whose model has learned from some decisions."""
    catalogue = Catalogue([Item(f"item{at}", numbers(rng, "f", 3)) for at in range(ITEMS)])
    learner = make_learner(spec, salt=SALT)
    for _ in range(60):
        pool = explicit_pool([ActionRequest(f"item{at}") for at in rng.permutation(ITEMS)[:5]])
        seen = featurise(spec, catalogue, numbers(rng, "c", 2), pool.ids, None, {})
        learner.learn([Interaction("e", 0, *seen, int(rng.integers(5)), 0.2, float(rng.random()))])
    ranker = Ranker(spec, [], salt=SALT)
    ranker.serve("s1", learner.snapshot("1-0"))
    ranker.offer(catalogue)
    return ranker


def contexts(rng: np.random.Generator) -> list[dict[str, object]]:
    return [
        numbers(rng, "c", 2),
        {"c0": "a text", "c1": 0.5, "flag": True, "set": ["x", "y"]},
        {},
        numbers(rng, "other", 4),
    ]


def requests(rng: np.random.Generator, count: int, *, alike: bool) -> list[RankRequest]:
    """Some of the actions are unknown items; most decisions have names of their own."""
    found = []
    for number in range(count):
        ids = [f"item{at}" for at in rng.permutation(ITEMS + 2)[: rng.integers(1, 12)]]
        given = contexts(rng)
        found.append(
            RankRequest(
                event_id=f"event-{number}",
                user_id=None if number % 3 else f"user-{number}",
                context=given[0 if alike else int(rng.integers(len(given)))],
                actions=[ActionRequest(each) for each in ids],
                defer_activation=number % 4 == 0,
            )
        )
    return found


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("name", SPECS)
async def test_records_are_the_same_bytes_as_one_by_one(name, alike):
    rng = np.random.default_rng(7)
    for exploration in EXPLORATIONS:
        spec = msgspec.structs.replace(SPECS[name], exploration=exploration)
        ranker = taught(spec, rng)
        asked = requests(rng, 12, alike=alike)
        together = ranker.rank_together(asked, [None] * len(asked))
        one_by_one = [await ranker.rank(request) for request in asked]
        assert [None if each is None else encode(each) for each in together] == [
            encode(each) for each in one_by_one
        ]


@pytest.mark.parametrize("name", SPECS)
async def test_ids_that_are_found_in_the_text_of_a_request_give_the_same_bytes(name):
    rng = np.random.default_rng(8)
    ranker = taught(SPECS[name], rng)
    asked = requests(rng, 12, alike=False)
    sent = [bare(request) for request in asked]
    assert ranker.rank_together(sent, [None] * len(sent)) == ranker.rank_together(
        asked, [None] * len(asked)
    )
    for of_bare, request in zip(map(ranker.rank_bare, sent), asked, strict=True):
        assert encode(of_bare) == encode(await ranker.rank(request))
    ranker.offer(
        Catalogue([Item("item3", numbers(rng, "f", 3)), Item("new", numbers(rng, "f", 3))])
    )
    for made in (ranker.rank_together(sent, [None] * 12), map(ranker.rank_bare, sent)):
        for of_bare, request in zip(made, asked, strict=True):
            assert encode(of_bare) == encode(await ranker.rank(request))


def test_a_decision_by_itself_gets_a_name_of_its_own():
    ranker = taught(SPECS["one pair"], np.random.default_rng(1))
    names = {ranker.rank_bare(bare(RankRequest(actions=TWO))).event_id for _ in range(3)}
    assert len(names) == 3


async def test_each_decision_that_was_not_asked_for_by_name_gets_one_of_its_own():
    ranker = taught(SPECS["one pair"], np.random.default_rng(1))
    request = RankRequest(actions=[ActionRequest("item1"), ActionRequest("item2")])
    made = ranker.rank_together([request] * 3, [None] * 3)
    names = [each.event_id for each in made if each is not None]
    assert len(set(names)) == 3
    for record in made:
        again = await ranker.rank(msgspec.structs.replace(request, event_id=record.event_id))
        assert encode(record) == encode(again)


def bare(request: RankRequest) -> BareRequest:
    return msgspec.json.decode(msgspec.json.encode(request), type=BareRequest)


TWO = [ActionRequest("item1"), ActionRequest("item2")]
PLAIN = RankRequest(event_id="e", actions=TWO)
BY_ITSELF = {
    "is wrong: an item twice": {"actions": [*TWO, TWO[0]]},
    "is wrong: an unknown item twice": {"actions": [*TWO, *[ActionRequest("new")] * 2]},
    "is wrong: an item without a name": {"actions": [ActionRequest("")]},
    "is wrong: no item": {"actions": []},
    "is wrong: an event without a name": {"event_id": ""},
    "brings features": {"actions": [*TWO, ActionRequest("new", {"f0": 1.0})]},
    "brings empty features": {"actions": [ActionRequest("item1", {}), ActionRequest("item2", {})]},
    "brings scores": {"actions": [ActionRequest("item1", scores={"cf": 1.0})]},
    "wants two": {"slots": 2},
    "wants one and not the other": {"exclude": ["item1"]},
    "wants a filter": {"filter": "true"},
    "asks the sources": {"actions": None},
}


@pytest.mark.parametrize("what", BY_ITSELF)
def test_what_needs_more_is_left_and_the_others_are_decided_all_the_same(what):
    ranker = taught(SPECS["one pair"], np.random.default_rng(1))
    other = msgspec.structs.replace(PLAIN, **BY_ITSELF[what])
    made = ranker.rank_together([PLAIN, other, PLAIN], [None] * 3)
    assert made[1] is None
    assert ranker.rank_bare(bare(other)) is None
    assert made[0] is not None
    assert encode(made[0]) == encode(made[2])


def test_a_context_that_cannot_be_is_said_to_be_wrong_one_by_one():
    ranker = taught(SPECS["one pair"], np.random.default_rng(1))
    wrong = msgspec.structs.replace(PLAIN, context={"x": 1e30})
    assert ranker.rank_together([PLAIN, wrong], [None] * 2) == [None, None]
    assert ranker.rank_bare(bare(wrong)) is None


def test_a_page_with_bars_and_whoever_is_looked_up_are_decided_one_by_one():
    ranker = taught(SPECS["one pair"], np.random.default_rng(1))
    page = SlateRequest(event_id="e", actions=TWO, barred=[["item1"]])
    assert ranker.rank_together([page, PLAIN, PLAIN], [None, object(), None])[:2] == [None, None]


@pytest.mark.parametrize(
    "changed",
    [
        {"holdout": Holdout(0.5)},
        {"context_private": ["c0"]},
        {"protected": {"c0": "report"}},
        {"mode": "apprentice"},
        {"use": ["context"]},
        {"filter": "true"},
    ],
    ids=str,
)
def test_a_policy_of_which_a_decision_depends_on_more_decides_one_by_one(changed):
    spec = msgspec.structs.replace(SPECS["one pair"], exploration=EpsilonGreedy(), **changed)
    ranker = taught(spec, np.random.default_rng(1))
    assert ranker.rank_together([PLAIN] * 2, [None] * 2) == [None, None]
    assert ranker.rank_bare(bare(PLAIN)) is None


@pytest.mark.parametrize(
    ("learner", "exploration"),
    [
        (VwConfig(args="--cb_explore_adf -q ff"), EpsilonGreedy()),
        (VwConfig(args="--cb_explore_adf --epsilon 0.3"), VwExploration()),
        (RidgeConfig(interactions=[("context", "features")]), LinTs(draws=20)),
        (RidgeConfig(), LinUcb()),
    ],
    ids=str,
)
async def test_a_model_of_another_kind_decides_one_by_one_and_finds_ids_all_the_same(
    learner, exploration
):
    rng = np.random.default_rng(3)
    spec = msgspec.structs.replace(SPECS["one pair"], learner=learner, exploration=exploration)
    ranker = taught(spec, rng)
    assert ranker.rank_together([PLAIN] * 2, [None] * 2) == [None, None]
    for request in requests(rng, 6, alike=False):
        assert encode(ranker.rank_bare(bare(request))) == encode(await ranker.rank(request))


def test_without_items_that_are_alike_or_a_model_decisions_are_made_one_by_one():
    spec = msgspec.structs.replace(SPECS["one pair"], exploration=EpsilonGreedy())
    assert Ranker(spec, [], salt=SALT).rank_together([PLAIN], [None]) == [None]
    assert Ranker(spec, [], salt=SALT).rank_bare(bare(PLAIN)) is None
    ranker = fresh_ranker(spec)
    assert ranker.rank_together([PLAIN], [None]) == [None]
    ranker.offer(Catalogue([Item("item1", {"a": 1.0}), Item("item2", {"b": 1.0})]))
    assert ranker.rank_together([PLAIN], [None]) == [None]
    with_sources = msgspec.structs.replace(spec, sources=[RemoteSource("cf", "http://x")])
    sources = [FakeSource("cf", {"item1": 1.0})]
    ranker = fresh_ranker(with_sources, sources, Catalogue([Item("item1", {"a": 1.0})]))
    (record,) = ranker.rank_together(
        [msgspec.structs.replace(PLAIN, actions=[ActionRequest("item1")])], [None]
    )
    assert record is not None
    assert record.scores == {}
