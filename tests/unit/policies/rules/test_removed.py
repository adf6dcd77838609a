"""What the filters took away is in the record, under the rule that took it, as far as is known."""

import asyncio

import numpy as np
from support.fakes import fresh_ranker

from bandits.log.codec import decode, encode
from bandits.log.records import MAX_REMOVED, Removed
from policies.items.catalogue import Catalogue, Item
from policies.items.timeline import ItemTimeline
from policies.requests import ActionRequest, RankRequest
from policies.sources.base import Candidates, ImmediateSource, SourceRequest
from policies.spec import spec_of

ITEMS = [Item(f"i{n}", {"stock": float(n % 3), "price": float(n)}) for n in range(2000)]
FILTER = {"where": "item.stock > 0", "fields": ["price"]}


class InOrder(ImmediateSource):
    """Proposes the items in their order, whatever is asked."""

    def __init__(self, name="a"):
        self.name = name

    def propose(self, request: SourceRequest, limit: int) -> Candidates:
        ids = tuple(item.id for item in ITEMS[:limit])
        return Candidates(ids, -np.arange(len(ids), dtype=np.float32))


def ranker_of(*sources, limit=4):
    named = [{"kind": "fresh", "name": source.name} for source in sources]
    spec = spec_of({"name": "home", "sources": named, "limit": limit, "filter": FILTER})
    return fresh_ranker(spec, sources, Catalogue.put(ITEMS))


def ruled(ranker, **request):
    record = asyncio.run(ranker.rank(RankRequest(**request)))
    assert decode(encode(record)) == record
    return record


def test_of_actions_that_are_sent_all_are_known_each_under_the_first_rule_that_refuses_it():
    actions = [ActionRequest(f"i{n}") for n in range(6)]
    actions.append(ActionRequest("own", {"stock": 0.0, "price": 1.0}))
    record = ruled(ranker_of(InOrder()), actions=actions, filter="item.price < 3.5")
    assert record.action_ids == ["i1", "i2"]
    assert record.rules.removed == {
        "filter.where": Removed(["i0", "i3", "own"], 3),
        "filter": Removed(["i4", "i5"], 2),
    }


def test_of_proposals_those_are_known_that_a_source_made_and_each_counts_once():
    record = ruled(ranker_of(InOrder("a"), InOrder("b")))
    assert record.action_ids == ["i1", "i2", "i4", "i5"]
    removed = record.rules.removed["filter.where"]
    assert (removed.count, removed.ids) == (6, ["i0", "i3", "i6", "i9", "i12", "i15"])


def test_of_many_the_first_are_named_and_all_are_counted():
    record = ruled(ranker_of(InOrder(), limit=500), filter="item.price >= 1500")
    removed = record.rules.removed
    assert [len(each.ids) for each in removed.values()] == [MAX_REMOVED, MAX_REMOVED]
    assert sum(each.count for each in removed.values()) == 2000 - len(record.action_ids)
    assert removed["filter"].ids[:2] == ["i1", "i2"]


def test_where_nothing_is_taken_the_record_says_nothing():
    actions = [ActionRequest("i1"), ActionRequest("i2")]
    assert ruled(ranker_of(InOrder()), actions=actions).rules is None


def test_what_is_admitted_by_the_time_of_the_choice_was_not_removed_by_a_rule():
    class Slow:
        """While it answers, the shop gets i0 again, and sells the last i1."""

        name = "a"

        async def candidates(self, request: SourceRequest, limit: int):
            found = InOrder().propose(request, 4)
            await request.admission.sift(found.ids)
            now = [Item("i0", {"stock": 1.0}), Item("i1", {"stock": 0.0}), *ITEMS[2:]]
            timeline = ItemTimeline(Catalogue.put(now))
            ranker.offer(timeline.newest, timeline, ["i0", "i1"])
            return found

    ranker = ranker_of(Slow())
    timeline = ItemTimeline(Catalogue.put(ITEMS))
    ranker.offer(timeline.newest, timeline)
    record = ruled(ranker)
    assert record.rules.removed == {"filter.where": Removed(["i3", "i1"], 2)}
    assert "i1" not in record.action_ids
