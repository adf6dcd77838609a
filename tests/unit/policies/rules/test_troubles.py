"""A rule that asks of items what none of them can answer is told of, by its field and the feature."""

import asyncio

import pytest
from support.fakes import FakeSource, fresh_ranker
from support.items import MemoryItems, patch

from bandits.errors import NoCandidatesError
from policies.items.catalogue import Item
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.spec import spec_of

ITEMS = [
    Item(f"i{n}", {"stock": float(n), "regions": ["eu"], "brand": "ab"[n % 2]}) for n in range(6)
]
SCORES = {item.id: 1.0 for item in ITEMS}


def ranker_of(items=ITEMS, **rules) -> tuple[Ranker, MemoryItems]:
    named = [{"kind": "fresh", "name": "cf"}]
    ranker = fresh_ranker(
        spec_of({"name": "home", "sources": named, **rules}), [FakeSource("cf", SCORES)]
    )
    log = MemoryItems()
    log.replace(items)
    ranker.offer(log.timeline.newest, log.timeline)
    return ranker, log


@pytest.mark.parametrize(
    ("rule", "request_", "message"),
    [
        ("item.stok > 0", {}, "filter.where: no item has item.stok: did you mean stock?"),
        ("item.colour == 'red'", {}, "filter.where: no item has item.colour$"),
        (
            "item.regions == 'eu'",
            {},
            "filter.where: item.regions is a list wherever an item has it, and a text has to stand",
        ),
        (
            "context.region in item.regions",
            {"context": {"country": "eu"}},
            "filter.where: the request has no context.region",
        ),
        (
            "item.stock >= 0",
            {"filter": "item.stock == 'much'"},
            "; filter: item.stock is a number wherever an item has it, and a text has to stand",
        ),
        (
            "item.a > 0 && item.b > 0 && item.c > 0 && item.d > 0",
            {},
            "no item has item.a; .*item.b; .*item.c$",
        ),
        (
            "item.stok > 0",
            {"actions": [ActionRequest("x", {"stock": 1.0})]},
            "none of the 1 actions is admitted .*; filter.where: no item has item.stok",
        ),
    ],
)
def test_where_nothing_is_admitted_the_answer_says_what_was_asked_in_vain(rule, request_, message):
    ranker, _ = ranker_of(filter=rule)
    with pytest.raises(NoCandidatesError, match=message) as caught:
        asyncio.run(ranker.rank(RankRequest(**request_)))
    assert caught.value.target == "filter"


RULES = {
    "filter": {"where": "item.stok > 0", "unknown": "admit", "fields": ["price"]},
    "boost": [{"when": "item.brand == 'a'", "by": 0.1}, {"when": "item.season == 'n'", "by": 0.1}],
    "quota": [{"when": "item.sponsored == true", "at_most": 0.5}],
    "exposure": {"group": "provider", "floor": 0.01},
    "page": {"most": {"category": 1}, "in_a_row": {"brand": 1}},
    "placements": [{"item": "i1", "slot": 0, "when": "item.stock == 'much'"}],
}


def test_each_rule_that_says_nothing_is_named_until_an_item_answers():
    ranker, log = ranker_of(**RULES)
    assert ranker.offering.rule_troubles() == {
        "filter.where": "no item has item.stok: did you mean stock?",
        "boost[1].when": "no item has item.season",
        "quota[0].when": "no item has item.sponsored",
        "exposure.group": "no item has item.provider",
        "page": "no item has item.category",
        "placements[0].when": (
            "item.stock is a number wherever an item has it, and a text has to stand there"
        ),
        "filter.fields": "no item has item.price",
    }

    log.append(patch("i1", features={"season": "n", "provider": "x", "category": "c"}))
    log.append(patch("i2", features={"stock": "much", "stok": 1.0, "price": 2.0}))
    ranker.offer(log.timeline.newest, log.timeline, ["i1", "i2"])
    assert [*ranker.offering.rule_troubles()] == ["quota[0].when"]


@pytest.mark.parametrize(
    ("items", "rules"),
    [
        (ITEMS, {}),
        (ITEMS, {"filter": "!has(item.recalled) && item.stock >= 0"}),
        (ITEMS, {"filter": "!has(item.price) || item.price < 9"}),
        (ITEMS, {"filter": {"where": "item.id != 'x'", "fields": ["id", "brand"]}}),
        ([], {"filter": "item.stok > 0"}),
    ],
    ids=["no rules", "may be missing", "asked only where it is", "the id", "no items yet"],
)
def test_what_may_be_so_is_no_trouble(items, rules):
    ranker, _ = ranker_of(items, **rules)
    assert ranker.offering.rule_troubles() == {}
