"""A quota reaches its share also of a group that no source would propose."""

import asyncio

import numpy as np
import pytest
from support.fakes import fresh_ranker

from bandits.exploration import Softmax
from bandits.log.records import ItemChange, ItemsRecord, LogEntry
from policies.artifacts.source_artifact import Calibration, TrainedSource
from policies.items.catalogue import Catalogue, Item
from policies.items.changes import encode_item
from policies.items.timeline import ItemTimeline
from policies.ranker import Ranker
from policies.requests import RankRequest
from policies.rules.boosts import Boost
from policies.rules.quotas.controller import Controller
from policies.rules.quotas.measure import ShareMeter
from policies.rules.quotas.quota import Control, Exposure, Quota
from policies.sources import Candidates, ItemOrder, LocalSource, SourceRequest, load_model
from policies.spec import FreshSource, Holdout, PolicySpec
from policies.training.blocks import arrange

N, LIMIT = 1000, 20
LATE = [f"i{number}" for number in range(N - 50, N)]
"""The items that the source likes least; every second of them is in stock."""
MAKERS = ["a", "b", "c", "d", "e", "f", "g", "h"]
"""All but the first have only late items."""
ITEMS = [
    Item(
        f"i{number}",
        {
            "season": "new" if number >= N - 50 else "old",
            "stock": float(number % 2),
            "maker": "a" if number < N - 50 else MAKERS[1 + number % 7],
        },
    )
    for number in range(N)
]
FIRST = [f"i{number}" for number in range(N - 50)]
ALS = {"alpha": 5.0, "regularization": 30.0}
NEW = Quota("item.season == 'new'", at_least=0.2)


class InOrder:
    """A model to which items are the better the earlier they come."""

    needs_history = False
    floor = -np.inf

    def raw(self, indices, weights):
        return -np.arange(N, dtype=np.float32)


def ranker_of(source=None, **fields) -> Ranker:
    spec = PolicySpec("home", sources=[FreshSource("a", half_life="7d")], limit=LIMIT, **fields)
    order = ItemOrder(tuple(item.id for item in ITEMS))
    source = source or LocalSource("a", InOrder(), order, Calibration())
    return fresh_ranker(spec, [source], Catalogue.put(ITEMS))


def proposed(ranker: Ranker, **request) -> list[str]:
    return list(asyncio.run(ranker.rank(RankRequest(**request))).action_ids)


def test_the_best_of_a_group_that_is_to_have_a_share_are_in_the_pool():
    """As many of them as the share of a pool, the best of the group, and scored by the source."""
    first = [f"i{number}" for number in range(LIMIT)]
    assert proposed(ranker_of()) == first
    record = asyncio.run(ranker_of(quota=[NEW]).rank(RankRequest()))
    assert record.action_ids == [*first, *LATE[:4]]
    assert record.source_scores()["a"].tolist() == [*range(0, -LIMIT, -1), *range(-950, -954, -1)]


class Elsewhere:
    """A source that has to be waited for: first old items, then those of the group."""

    name = "a"

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def candidates(self, request: SourceRequest, limit: int) -> Candidates:
        self.asked.append(limit)
        there = [item for item in (*FIRST[: 2 * LIMIT], *LATE) if item not in request.exclude]
        scores = -np.arange(limit, dtype=np.float32)
        return Candidates(tuple(there[:limit]), scores[: len(there)])


@pytest.mark.parametrize(
    ("quota", "filter_", "asked", "more"),
    [
        (NEW, None, 4 * LIMIT, LATE[:4]),
        (NEW, "item.stock > 0", 4 * LIMIT, LATE[1:8:2]),
        (Quota(NEW.when, at_most=0.2), None, LIMIT, []),
    ],
)
def test_who_has_to_be_waited_for_is_asked_once_and_for_more(quota, filter_, asked, more):
    """What it proposes beyond the usual is for the group alone."""
    source, fields = Elsewhere(), {} if filter_ is None else {"filter": filter_}
    ranker = ranker_of(source, quota=[quota], **fields)
    usual = [item for item in FIRST if filter_ is None or int(item[1:]) % 2][:LIMIT]
    assert proposed(ranker) == [*usual, *more]
    assert source.asked == [asked]


def test_what_filters_refuse_and_a_request_excludes_is_not_in_the_pool_for_a_quota():
    ranker = ranker_of(quota=[NEW], filter="item.stock > 0 && context.vip")
    record = proposed(ranker, context={"vip": True}, exclude=[LATE[1]])
    assert record[LIMIT:] == [LATE[3], LATE[5], LATE[7], LATE[9]]


def test_what_is_of_a_group_by_now_is_looked_for():
    """Where its items are is kept, and follows each change of an item."""
    ranker, timeline = ranker_of(quota=[NEW]), ItemTimeline(Catalogue.put(ITEMS))
    ranker.offer(timeline.newest, timeline)
    assert proposed(ranker)[LIMIT:] == LATE[:4]
    changes = [
        ItemChange("put", "i300", encode_item(Item("i300", {"season": "new"}))),
        ItemChange("put", LATE[1], encode_item(Item(LATE[1], {"season": "old"}))),
        ItemChange("delete", LATE[2]),
    ]
    timeline.apply(LogEntry("9-0", ItemsRecord(changes)), lambda _: b"")
    ranker.offer(timeline.newest, timeline, [each.id for each in changes])
    assert proposed(ranker)[LIMIT:] == ["i300", LATE[0], LATE[3], LATE[4]]


def test_of_very_many_items_the_best_of_a_group_are_found_in_their_blocks():
    vectors = np.random.default_rng(0).standard_normal((N, 4)).astype(np.float32)
    trained = TrainedSource("als", {"item_factors": vectors, **arrange(vectors, seed=0)}, ALS)
    model = load_model(trained, N)
    order = ItemOrder(tuple(item.id for item in ITEMS))
    spec = PolicySpec("home", sources=[FreshSource("a", half_life="7d")], limit=LIMIT, quota=[NEW])
    ranker = fresh_ranker(
        spec, [LocalSource("a", model, order, Calibration())], Catalogue.put(ITEMS)
    )
    history = ["i7", LATE[0]]
    found = proposed(ranker, history=history)
    _, stored, weights = order.history(SourceRequest(history=tuple(history)))
    late = [int(item[1:]) for item in LATE[1:]]
    worth = vectors[late] @ model.user(stored, weights)
    best = [f"i{late[at]}" for at in np.argsort(-worth)]
    held = [item for item in found[:LIMIT] if item in LATE]
    assert found[LIMIT:] == [item for item in best[:4] if item not in held]


@pytest.mark.parametrize(
    "quota",
    [Quota("item.season == 'new'", at_most=0.2), Quota("item.season == 'old'", at_least=0.5)],
)
def test_nothing_is_added_where_a_quota_has_enough_or_only_an_upper_bound(quota):
    assert proposed(ranker_of(quota=[quota])) == [f"i{number}" for number in range(LIMIT)]


def test_groups_with_a_floor_come_in_turns():
    """Four at a time, so that each is in the pool of some decisions, however many there are."""
    ranker = ranker_of(exposure=Exposure("maker", 0.05))
    maker = {item.id: item.features["maker"] for item in ITEMS}
    came = [{maker[item] for item in proposed(ranker)[LIMIT:]} for _ in range(8)]
    assert all(len(groups) == 4 and "a" not in groups for groups in came)
    assert set.union(*came) == set(MAKERS[1:])


def test_the_holdout_chooses_from_what_sources_propose_of_themselves():
    ranker = ranker_of(quota=[NEW], holdout=Holdout(0.5, "uniform"))
    seen = {True: set[int](), False: set[int]()}
    for number in range(30):
        record = asyncio.run(ranker.rank(RankRequest(event_id=f"e{number}")))
        seen[record.holdout].add(len(record.action_ids))
    assert seen == {True: {LIMIT}, False: {LIMIT + 4}}


def test_a_group_that_no_source_proposes_gets_its_share():
    """Some minutes of decisions, whose model thinks little of the group."""
    against = [Boost(NEW.when, -0.3)]
    ranker = ranker_of(quota=[NEW], boost=against, exploration=Softmax(0.1), floor=0.0)
    rules = ranker.spec.rules
    assert rules is not None
    assert rules.quotas is not None
    controller, meter = Controller(rules.quotas), ShareMeter(rules.quotas)
    timeline = ItemTimeline(Catalogue.put(ITEMS))
    late, shares = set(LATE), list[float]()
    for second in range(600):
        ranker.steer(Control(f"{second}-0", controller.prices))
        record = asyncio.run(ranker.rank(RankRequest(event_id=f"e{second}")))
        controller.measured(1000 * second, meter.measure(record, timeline.newest, timeline.item))
        shares.append(float(record.pmfs()[0] @ [item in late for item in record.action_ids]))
    assert shares[0] < 0.02
    assert np.mean(shares[300:]) == pytest.approx(0.2, abs=0.02)
