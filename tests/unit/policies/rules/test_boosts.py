"""Boosts: what is added to a score, before anything has a probability."""

import asyncio

import msgspec
import numpy as np
import pytest
from support.fakes import FakeLog

from bandits.errors import SpecError
from bandits.exploration import EpsilonGreedy, Greedy, LinTs, LinUcb, Softmax, VwExploration
from bandits.log.codec import decode, encode
from bandits.vw.config import VwConfig
from policies.decisions.holdout import FixedPolicy
from policies.features import featurise_record
from policies.items.catalogue import Catalogue
from policies.items.timeline import ItemTimeline
from policies.ranker import Ranker
from policies.requests import ActionRequest, Item, RankRequest
from policies.rules.boosts import Boost
from policies.spec import Holdout, PolicySpec
from policies.spec.checks import admit

ITEMS = [Item(f"i{n}", {"stock": float(n), "season": "new" if n == 3 else "old"}) for n in range(5)]
NEW = Boost('item.season == "new"', 0.5)
EXPLORATIONS = [EpsilonGreedy(0.1), Softmax(0.5), Greedy(), LinUcb(0.01), LinTs(draws=50)]


def spec_of(*boosts: Boost, **fields) -> PolicySpec:
    return PolicySpec("home", boost=list(boosts), **fields)


def ranker_of(spec: PolicySpec, clock=lambda: 1e9) -> Ranker:
    ranker = Ranker(spec, (), salt=b"salt", clock=clock)
    timeline = ItemTimeline(Catalogue.put(ITEMS))
    ranker.offer(timeline.newest, timeline)
    ranker.serve("first", FakeLog(spec).fold().snapshot())
    return ranker


def decided(ranker: Ranker, event_id: str = "e", **fields):
    actions = [ActionRequest(item.id) for item in ITEMS]
    return asyncio.run(ranker.rank(RankRequest(actions=actions, event_id=event_id, **fields)))


@pytest.mark.parametrize("exploration", EXPLORATIONS, ids=lambda each: type(each).__name__)
def test_a_boost_makes_an_item_likelier_and_the_record_derives_the_same_pmf(exploration):
    spec = spec_of(NEW, exploration=exploration)
    ranker = ranker_of(spec)
    record = decided(ranker)
    assert record.boosts.tolist() == [0, 0, 0, 0.5, 0]
    assert int(record.pmfs()[0].argmax()) == 3
    assert record.pmfs()[0, 3] > decided(ranker_of(spec_of(exploration=exploration))).pmfs()[0, 3]

    again = decode(encode(record))
    assert again == record
    context, actions = featurise_record(spec, ranker.offering.catalogue, again)
    assert ranker.serving.policy.pmf(context, actions).tobytes() == record.pmf


def test_boosts_add_up_and_are_capped_whatever_the_item_lacks():
    spec = spec_of(
        NEW,
        Boost("item.stock >= 3", 0.4),
        Boost("item.stock < 2", -3.0),
        Boost("item.unheard > 0", 0.9),
        boost_cap=0.75,
    )
    boosts = decided(ranker_of(spec)).boosts
    assert boosts.tolist() == pytest.approx([-0.75, -0.75, 0, 0.75, np.float32(0.4)])


def test_a_boost_looks_at_the_context_the_time_and_what_the_request_says_of_an_action():
    spec = spec_of(
        Boost("context.vip == true && item.stock > 8", 0.25),
        Boost("time.hour == 1 && item.stock == 4", 0.125),
    )
    ranker = ranker_of(spec, clock=lambda: 3_600 * 1.5)
    actions = [ActionRequest("i4"), ActionRequest("own", {"stock": 9.0})]
    request = RankRequest(actions=actions, event_id="e", context={"vip": True})
    record = asyncio.run(ranker.rank(request))
    assert record.boosts.tolist() == [0.125, 0.25]
    assert record.rules.now_ms == 5_400_000


def test_where_nothing_is_boosted_the_record_says_nothing():
    assert decided(ranker_of(spec_of(Boost("item.stock > 99", 1.0)))).rules is None


def test_what_the_holdout_is_served_is_not_boosted():
    spec = spec_of(NEW, holdout=Holdout(1.0))
    record = decided(ranker_of(spec))
    assert (record.holdout, record.rules) == (True, None)
    context, actions = featurise_record(spec, Catalogue.put(ITEMS), record)
    assert FixedPolicy("uniform").pmf(context, actions).tobytes() == record.pmf


@pytest.mark.parametrize(
    ("fields", "target", "says"),
    [
        ({"boost": [Boost("item.stock +", 1.0)]}, "boost[0].when", "no expression"),
        ({"boost": [NEW, Boost("item.stock > 'a'", 1.0)]}, "boost[1].when", "number"),
        ({"boost": []}, "boost", "nothing"),
        ({"boost_cap": 2.0}, "boost_cap", "no boosts"),
        ({"boost": [Boost("item.id in profile.purchased", -1.0)]}, "boost[0].when", "set profile"),
        (
            {"boost": [NEW], "learner": VwConfig(), "exploration": VwExploration()},
            "boost",
            "exploration.kind",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields, target, says):
    with pytest.raises(SpecError, match=says) as caught:
        admit(PolicySpec("home", **fields))
    assert caught.value.target == target


def test_a_spec_without_boosts_keeps_its_bytes():
    fields = msgspec.json.decode(PolicySpec("home").encoded)
    assert not {"boost", "boost_cap"} & set(fields)
