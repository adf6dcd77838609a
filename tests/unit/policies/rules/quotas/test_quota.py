"""Quotas: what a spec may say of them, and what their prices do to a decision."""

import asyncio

import msgspec
import numpy as np
import pytest
from support.fakes import FakeLog

from bandits.errors import SpecError
from bandits.exploration import Softmax, VwExploration
from bandits.vw.config import VwConfig
from policies.features import featurise_record
from policies.items.catalogue import Catalogue
from policies.items.timeline import ItemTimeline
from policies.ranker import Ranker
from policies.requests import ActionRequest, Item, RankRequest
from policies.rules.boosts import Boost
from policies.rules.quotas.quota import Control, Exposure, Quota
from policies.spec import Holdout, PolicySpec
from policies.spec.checks import admit

ITEMS = [
    Item(f"i{n}", {"stock": float(n), "provider": "acme" if n < 2 else "other"}) for n in range(5)
]
ACME = 'item.provider == "acme"'
FEW = Quota("item.stock > 3", at_most=0.1)
CONTROL = Control("7-0", {f"at_least {ACME}": 0.5, "at_most item.stock > 3": -0.25})


def ranker_of(control: Control | None = CONTROL, **fields) -> Ranker:
    spec = PolicySpec("home", exploration=Softmax(0.5), **fields)
    ranker = Ranker(spec, (), salt=b"salt")
    timeline = ItemTimeline(Catalogue.put(ITEMS))
    ranker.offer(timeline.newest, timeline)
    ranker.serve("first", FakeLog(spec).fold().snapshot())
    ranker.steer(control)
    return ranker


def decided(ranker: Ranker, *actions: ActionRequest):
    asked = list(actions) or [ActionRequest(item.id) for item in ITEMS]
    return asyncio.run(ranker.rank(RankRequest(actions=asked, event_id="e")))


def test_a_decision_is_made_under_a_state_of_the_controller_and_names_it():
    quotas = [Quota(ACME, at_least=0.5), FEW]
    ranker = ranker_of(quota=quotas)
    record = decided(ranker)
    assert record.boosts.tolist() == [0.5, 0.5, 0, 0, -0.25]
    assert record.rules.control == "7-0"

    context, actions = featurise_record(ranker.spec, ranker.offering.catalogue, record)
    assert ranker.serving.policy.pmf(context, actions).tobytes() == record.pmf
    assert record.pmfs()[0, 0] > decided(ranker_of(None, quota=quotas)).pmfs()[0, 0]


def test_before_there_is_a_state_nothing_is_added_and_none_is_named():
    assert decided(ranker_of(None, quota=[FEW])).rules is None


def test_prices_add_to_boosts_also_of_what_the_request_says_of_an_action():
    ranker = ranker_of(quota=[Quota(ACME, at_least=0.5)], boost=[Boost("item.stock == 1", 0.25)])
    own = ActionRequest("own", {"provider": "acme", "stock": 1.0})
    assert decided(ranker, ActionRequest("i1"), own, ActionRequest("i2")).boosts.tolist() == [
        0.75,
        0.75,
        0,
    ]


def test_each_value_of_a_feature_has_a_price_of_its_own():
    control = Control("8-0", {"provider=acme": 0.5, "provider=nobody": 0.75, "other": 9.0})
    ranker = ranker_of(control, exposure=Exposure("provider", 0.1))
    assert decided(ranker).boosts.tolist() == [0.5, 0.5, 0, 0, 0]
    no_text = ActionRequest("n", {"provider": 3.0})
    assert decided(ranker, ActionRequest("i0"), no_text).boosts.tolist() == [0.5, 0]

    ranker.steer(Control("9-0", {"provider=other": 0.25}))
    record = decided(ranker)
    assert (record.boosts.tolist(), record.rules.control) == ([0, 0, 0.25, 0.25, 0.25], "9-0")
    ranker.serve("second", ranker.serving.snapshot)
    assert decided(ranker).rules.control == "9-0"


def test_an_item_that_changes_changes_its_group():
    ranker = ranker_of(quota=[Quota(ACME, at_least=0.5)])
    items = [Item("i2", {"provider": "acme"}) if item.id == "i2" else item for item in ITEMS]
    timeline = ItemTimeline(Catalogue.put(items))
    ranker.offer(timeline.newest, timeline, ["i2"])
    assert decided(ranker).boosts.tolist() == [0.5, 0.5, 0.5, 0, 0]


def test_what_the_holdout_is_served_no_quota_changes():
    record = decided(ranker_of(quota=[FEW], holdout=Holdout(1.0)))
    assert (record.holdout, record.rules) == (True, None)
    assert np.allclose(record.pmfs(), 0.2)


@pytest.mark.parametrize(
    ("fields", "target", "says"),
    [
        ({"quota": [Quota("item.stock >", at_most=0.1)]}, "quota[0].when", "no expression"),
        ({"quota": [FEW, Quota("item.stock > 1")]}, "quota[1]", "either"),
        ({"quota": [Quota(ACME, at_least=0.1, at_most=0.2)]}, "quota[0]", "either"),
        ({"quota": [FEW, FEW]}, "quota[1]", "twice"),
        ({"quota": [Quota("context.vip == true", at_least=0.1)]}, "quota[0].when", "item alone"),
        ({"quota": [Quota(ACME, at_least=0.1, within="1")]}, "quota[0].within", "duration"),
        ({"quota": [Quota(ACME, at_least=0.1, within="5s")]}, "quota[0].within", "1m"),
        ({"exposure": Exposure("provider", 0.1, within="90d")}, "exposure.within", "30d"),
        ({"quota": []}, "quota", "nothing"),
        (
            {"quota": [FEW], "learner": VwConfig(), "exploration": VwExploration()},
            "quota",
            "exploration.kind",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields, target, says):
    with pytest.raises(SpecError, match=says) as caught:
        admit(PolicySpec("home", **fields))
    assert caught.value.target == target


def test_a_spec_without_quotas_keeps_its_bytes():
    fields = msgspec.json.decode(PolicySpec("home").encoded)
    assert not {"quota", "exposure"} & set(fields)
