"""Measuring: the mass of a decision's PMFs, by what its items were in the catalogue that it names."""

import numpy as np
import pytest
from support.logs import decision

from bandits.log.records import ItemChange, ItemsRecord, LogEntry
from policies.items.catalogue import Catalogue
from policies.items.changes import encode_item
from policies.items.timeline import ItemTimeline
from policies.requests import Item
from policies.rules.quotas.compiled import Quotas
from policies.rules.quotas.measure import ShareMeter, Shares
from policies.rules.quotas.quota import Exposure, Quota

ACME, DEAR = Quota('item.provider == "acme"', at_least=0.2), Quota("item.price > 9", at_most=0.1)
QUOTAS = Quotas([ACME, DEAR], Exposure("provider", 0.1))
ITEMS = [
    Item("a", {"provider": "acme", "price": 1.0}),
    Item("b", {"provider": "best", "price": 2.0}),
    Item("c", {"provider": "best", "price": 3.0}),
]
PMF = np.array([0.2, 0.3, 0.5])


def made(**fields):
    return decision("e", pmf=PMF.tobytes(), **fields)


def test_the_mass_of_each_group_that_was_there():
    timeline = ItemTimeline(Catalogue.put(ITEMS))
    found = ShareMeter(QUOTAS).measure(made(), timeline.newest, timeline.item)
    assert found.slots == 1
    assert found.quotas == pytest.approx({ACME.name: 0.2})  # nothing is dear: it could not be shown
    assert found.groups == pytest.approx({"acme": 0.2, "best": 0.8})


def test_an_item_counts_as_what_it_was():
    timeline, meter = ItemTimeline(Catalogue.put(ITEMS)), ShareMeter(QUOTAS)
    before = timeline.newest
    meter.measure(made(), before, timeline.item)
    dear = Item("b", {"provider": "acme", "price": 20.0})
    timeline.apply(
        LogEntry("5-0", ItemsRecord([ItemChange("put", "b", encode_item(dear))])), lambda _: b""
    )
    found = meter.measure(made(), timeline.newest, timeline.item)
    assert found.quotas == pytest.approx({ACME.name: 0.5, DEAR.name: 0.3})
    assert meter.measure(made(), before, timeline.item).quotas == pytest.approx({ACME.name: 0.2})


def test_what_a_request_says_of_an_action_counts_and_what_nobody_knows_is_of_no_group():
    catalogue = Catalogue.put(ITEMS[1:])
    timeline = ItemTimeline(catalogue)
    record = made(features=[None, {"provider": "acme"}, None])
    found = ShareMeter(QUOTAS).measure(record, timeline.newest, timeline.item)
    assert found.quotas == pytest.approx({ACME.name: 0.3})
    assert found.groups == pytest.approx({"acme": 0.3, "best": 0.5})


def test_shares_of_several_decisions_add_up():
    total = Shares()
    total.add(Shares(1, {"x": 0.5}, {"a": 0.25}))
    total.add(Shares(2, {"x": 1.0, "y": 0.5}))
    assert total == Shares(3, {"x": 1.5, "y": 0.5}, {"a": 0.25})
