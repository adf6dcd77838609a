"""What a filter refuses is not chosen, has no probability, and makes room for others."""

import asyncio

import msgspec
import numpy as np
import pytest
from support.fakes import fresh_ranker

from bandits.errors import InvalidFieldError, NoCandidatesError, SpecError
from bandits.log.records import ItemChange, ItemsRecord, LogEntry
from policies.artifacts.source_artifact import Calibration, TrainedSource
from policies.items.catalogue import Catalogue, Item
from policies.items.changes import encode_item
from policies.items.timeline import ItemTimeline
from policies.profiles.known_user import KnownUser
from policies.profiles.part import ProfileEvent
from policies.profiles.user_profile import UserProfile
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.rules.columns import ItemColumns
from policies.rules.filters import FilterRule
from policies.sources import ItemOrder, LocalSource, load_model
from policies.spec import load_spec, spec_of
from policies.training.blocks import arrange

N = 2000
ITEMS = [
    Item(
        f"i{number}",
        {
            "stock": float(number % 3),
            "price": float(number % 97),
            "regions": ["eu"] if number % 2 else ["us", "eu"],
        },
    )
    for number in range(N)
]
IN_STOCK = [item.id for item in ITEMS if item.features["stock"]]


class InOrder:
    """A model to which items are the better the earlier they come."""

    needs_history = False
    floor = -np.inf

    def raw(self, indices, weights):
        return -np.arange(N, dtype=np.float32)


def ranker_of(filter_=None, **fields) -> Ranker:
    rules = {} if filter_ is None else {"filter": filter_}
    spec = spec_of({"name": "home", "sources": [{"kind": "fresh", "name": "a"}], **rules, **fields})
    order = ItemOrder(tuple(item.id for item in ITEMS))
    source = LocalSource("a", InOrder(), order, Calibration())
    return fresh_ranker(spec, [source], Catalogue.put(ITEMS))


def chosen_from(ranker: Ranker, known: KnownUser | None = None, **request) -> list[str]:
    record = asyncio.run(ranker.rank(RankRequest(**request), known))
    pmf = record.pmfs()
    assert pmf.shape[1] == len(record.action_ids)
    np.testing.assert_allclose(pmf.sum(axis=1), 1)
    return record.action_ids


def test_the_best_of_what_is_admitted_fill_the_pool():
    """Also where no source has any of it among its best: the last 20 of 2,000 items."""
    ranker = ranker_of("item.stock > 0", limit=10)
    assert chosen_from(ranker) == IN_STOCK[:10]

    numbers = [{**item.features, "number": float(at)} for at, item in enumerate(ITEMS)]
    items = [Item(item.id, each) for item, each in zip(ITEMS, numbers, strict=True)]
    ranker = ranker_of("item.number >= 1980", limit=10)
    ranker.offer(Catalogue.put(items))
    assert chosen_from(ranker) == [f"i{number}" for number in range(1980, 1990)]
    assert len(chosen_from(ranker, filter="item.number > 1995")) == 4


def test_a_request_narrows_and_never_widens():
    ranker = ranker_of({"where": "item.stock > 0", "fields": ["price"]}, limit=5)
    cheap = chosen_from(ranker, filter="item.price < 2")
    assert (
        cheap
        == [item.id for item in ITEMS if item.id in IN_STOCK and item.features["price"] < 2][:5]
    )
    assert chosen_from(ranker, filter="item.stock == 0 || true") == IN_STOCK[:5]


def test_the_context_and_the_user_are_looked_at():
    where = "context.region in item.regions && !(item.id in profile.purchase)"
    ranker = ranker_of(where, limit=3, profile={"types": {"purchase": 1}})
    assert chosen_from(ranker, context={"region": "us"}) == ["i0", "i2", "i4"]
    bought = UserProfile((ProfileEvent(1, 1, 0, "i2", "purchase"),), (), "v")
    known = KnownUser("p", bought)
    assert chosen_from(ranker, known, user_id="u", context={"region": "us"}) == ["i0", "i4", "i6"]


def test_the_time_is_looked_at():
    spec = spec_of({"name": "home", "filter": "time.hour >= 20 || item.id != 'night'"})
    at = [1_700_000_000.0]  # 22:13:20 UTC, a Tuesday
    ranker = Ranker(spec, [], salt=b"salt", clock=lambda: at[0])
    ranker.serve("s0", fresh_ranker(spec).serving.snapshot)
    actions = [ActionRequest("night"), ActionRequest("day")]
    assert chosen_from(ranker, actions=actions) == ["night", "day"]
    at[0] += 6 * 3600
    assert chosen_from(ranker, actions=actions) == ["day"]
    assert chosen_from(ranker, actions=actions, filter="time.weekday == 2") == ["day"]


def test_actions_that_are_sent_are_filtered_by_what_the_request_or_the_catalogue_says():
    ranker = ranker_of("item.stock > 0")
    actions = [
        ActionRequest("i0"),
        ActionRequest("i1"),
        ActionRequest("new", {"stock": 1.0}),
        ActionRequest("i2", {"stock": 0.0}),
        ActionRequest("stranger"),
    ]
    assert chosen_from(ranker, actions=actions) == ["i1", "new"]
    ids = [ActionRequest(action.id) for action in actions]
    assert chosen_from(ranker, actions=ids) == ["i1", "i2"]
    lenient = ranker_of({"where": "item.stock > 0", "unknown": "admit"})
    assert chosen_from(lenient, actions=actions) == ["i1", "new", "stranger"]


def test_a_condition_is_not_compiled_for_each_request_that_brings_actions():
    items = ranker_of("item.stock > 0").offering.ruled
    assert items is not None
    others = items.with_features(["new", "i1"], [{"stock": 1.0}, None])
    assert others.rules is items.rules
    assert len(others) == 3


def test_what_is_refused_by_what_it_is_may_not_be_offered_to_anybody():
    """So no source looks at it: neither for candidates nor for what is similar."""
    ranker = ranker_of("item.stock > 0 && context.region in item.regions")
    assert len(ranker.offering) == len(IN_STOCK)
    assert [i in ranker.offering for i in ("i0", "i1", "i2", "i3")] == [False, True, True, False]
    [source] = ranker.proposers.offered.sources.proposing
    assert source.known == len(IN_STOCK)

    timeline = ItemTimeline(Catalogue.put(ITEMS))
    ranker.offer(timeline.newest, timeline)
    change = ItemChange("patch", "i0", b'{"features": {"stock": 2.0}}')
    timeline.apply(LogEntry("1-0", ItemsRecord([change])), {}.__getitem__)
    ranker.offer(timeline.newest, timeline, ["i0"])
    assert "i0" in ranker.offering


def test_items_that_are_taken_in_at_once_are_as_those_that_come_one_by_one():
    base = [
        *ITEMS[:50],
        Item("bare"),
        Item("odd", {"stock": "none", "price": True, "regions": [], "id": 3.0}),
    ]
    timeline = ItemTimeline(Catalogue.put(base))
    puts = [
        ItemChange("put", "new", b'{"id":"new","features":{"stock":1.0,"regions":["eu","us"]}}'),
        ItemChange("patch", "i3", b'{"features": {"stock": null, "price": 7}}'),
        ItemChange("delete", "i5"),
    ]
    timeline.apply(LogEntry("1-0", ItemsRecord(puts)), {}.__getitem__)
    names = ["stock", "price", "regions", "id"]
    at_once, one_by_one = ItemColumns(names), ItemColumns(names)
    for ids, values in timeline.values(names):
        at_once.load(ids, values)
    for item_id in timeline:
        item = timeline.item(item_id)
        assert item is not None
        one_by_one.put(item_id, item.features)

    assert at_once.place.keys() == one_by_one.place.keys() == set(timeline)
    for item_id in timeline:
        assert at_once.features(item_id) == one_by_one.features(item_id)
    assert len(at_once) == len(one_by_one)


def test_an_item_that_changes_is_judged_anew():
    ranker = ranker_of("item.stock > 0", limit=3)
    assert chosen_from(ranker) == ["i1", "i2", "i4"]
    timeline = ItemTimeline(Catalogue.put(ITEMS))
    ranker.offer(timeline.newest, timeline)

    changed = [
        Item("i0", {"stock": 5.0}),
        Item("i1", {"stock": 0.0}),
        Item("newest", {"stock": 1.0}),
    ]
    left = [item for item in ITEMS[2:] if item.id != "i4"]
    later = Catalogue.put([*changed, *left])
    timeline = ItemTimeline(later)
    ranker.offer(timeline.newest, timeline, [item.id for item in changed] + ["i4"])
    assert chosen_from(ranker) == ["i0", "i2", "i5"]
    assert ranker.offering.ruled is not None
    assert ranker.offering.ruled.rows(["i4"]).tolist() == [0]


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"filter": "item.price >"}, InvalidFieldError, "line 1, column 12"),
        (
            {"filter": "item.colour == 'red'"},
            InvalidFieldError,
            "hand: name it in the policy's filter.fields",
        ),
        (
            {"filter": "item.stok > 1.0"},
            InvalidFieldError,
            "hand: did you mean stock[?] if not, name it in the policy's filter.fields",
        ),
        (
            {"filter": "true || " * 300 + "true"},
            InvalidFieldError,
            "at most 2,000 characters, this one",
        ),
        ({"filter": "false"}, NoCandidatesError, "none of the 2,000 items is admitted"),
        ({"filter": "item.stock > 'x'"}, InvalidFieldError, "a number has to stand"),
        ({"filter": "size(profile.purchase) < 9"}, InvalidFieldError, "keeps no profiles"),
        (
            {"context": {"region": 1.0}, "filter": "context.region == 'eu'"},
            NoCandidatesError,
            "none of",
        ),
        (
            {"actions": [ActionRequest("i0")]},
            NoCandidatesError,
            "none of the 1 actions is admitted",
        ),
    ],
)
def test_errors_say_what_to_do(request_, error, message):
    with pytest.raises(error, match=message) as caught:
        chosen_from(ranker_of("item.stock > 0"), **request_)
    assert caught.value.target == "filter"


def test_a_slate_that_the_filter_leaves_too_short_says_so():
    with pytest.raises(
        InvalidFieldError, match="30 actions to fill them, without what the filters"
    ):
        chosen_from(ranker_of("item.stock > 0"), slots=40)


def test_without_items_a_filter_says_that_it_knows_nothing():
    spec = spec_of({"name": "home", "sources": [{"kind": "fresh", "name": "a"}], "filter": "true"})
    source = LocalSource("a", InOrder(), ItemOrder(tuple(map(str, range(N)))), Calibration())
    ranker = fresh_ranker(spec, [source], Catalogue())
    assert chosen_from(ranker)[:2] == ["0", "1"]
    with pytest.raises(NoCandidatesError, match="no items were ever put") as caught:
        chosen_from(ranker, filter="false")
    assert caught.value.target == "filter"
    with pytest.raises(NoCandidatesError, match="not excluded"):
        chosen_from(ranker, exclude=list(map(str, range(N))))


def test_a_policy_without_a_filter_says_that_it_takes_none():
    with pytest.raises(InvalidFieldError, match="takes no filters: give its spec a filter"):
        chosen_from(ranker_of(), filter="true")


@pytest.mark.parametrize(
    ("filter_", "target"),
    [
        ("item.stock >", "filter.where"),
        ({"where": "item.n + 1"}, "filter.where"),
        ({"wher": "x"}, "filter"),
        ("", "filter"),
        ("!(item.id in profile.purchase)", "filter.where"),
    ],
)
def test_a_spec_with_what_is_no_filter_is_refused(filter_, target):
    with pytest.raises(SpecError) as caught:
        spec_of({"name": "home", "filter": filter_})
    assert caught.value.target == target


def test_a_filter_asks_of_users_what_they_can_have_done():
    """A type that nobody writes would admit everything, in silence."""
    fields = {"name": "home", "profile": {"types": {"view": 1}}, "signals": {"sale": 1}}
    for done in ("view", "sale"):
        spec_of({**fields, "filter": f"!(item.id in profile.{done})"})
    with pytest.raises(SpecError, match="nobody does 'sold': one of view, reward, sale"):
        spec_of({**fields, "filter": "!(item.id in profile.sold)"})


def test_a_filter_is_part_of_the_spec_that_is_logged(tmp_path):
    (tmp_path / "home.yaml").write_text("name: home\nfilter: item.stock > 0\n")
    spec = load_spec(tmp_path / "home.yaml")
    assert spec.filter_rule == FilterRule("item.stock > 0")
    assert msgspec.json.decode(spec.encoded)["filter"] == "item.stock > 0"
    plain = spec_of({"name": "home"})
    assert plain.filter_rule is None
    assert b"filter" not in plain.encoded


@pytest.mark.parametrize("large", [False, True])
def test_a_trained_source_is_asked_once_however_narrow_the_filter(large):
    """It knows what is admitted, so what it proposes first is all that can be proposed."""
    factors = np.random.default_rng(3).normal(size=(N, 8)).astype(np.float32)
    blocks = arrange(factors, seed=0) if large else {}
    trained = TrainedSource(
        "als", {"item_factors": factors, **blocks}, {"alpha": 5.0, "regularization": 1.0}
    )
    order = ItemOrder(tuple(item.id for item in ITEMS))
    source = LocalSource("a", load_model(trained, N), order, Calibration())
    spec = spec_of(
        {
            "name": "home",
            "sources": [{"kind": "fresh", "name": "a"}],
            "filter": "item.price == 96 && context.region in item.regions",
            "limit": 5,
        }
    )
    ranker = fresh_ranker(spec, [source], Catalogue.put(ITEMS))
    over = ranker.proposers.offered.sources.proposing[0]
    asked, propose = [], over.propose

    def counted(request, limit):
        asked.append(limit)
        return propose(request, limit)

    over.propose = counted
    found = chosen_from(ranker, history=["i0", "i1"], context={"region": "us"})
    by_id = {item.id: item.features for item in ITEMS}
    admitted = [i for i in by_id if by_id[i]["price"] == 96 and "us" in by_id[i]["regions"]]
    assert asked == [5]
    assert len(found) == 5
    assert set(found) <= set(admitted)
    scores = load_model(trained, N).raw(np.array([0, 1]), np.ones(2, np.float32))
    best = sorted(admitted, key=lambda item: -scores[int(item[1:])])[:5]
    assert found == best


def test_few_that_are_admitted_are_the_same_few_however_items_come_and_go():
    """One in forty of what the filter is asked of; a new item may have the row of one that went."""
    rng, where = np.random.default_rng(4), "item.number % 40.0 == context.rest"
    ranker = ranker_of({"where": where, "fields": ["price"]}, limit=100)
    named = {item.id: {"number": float(at)} for at, item in enumerate(ITEMS)}
    timeline = ItemTimeline(Catalogue.put([Item(*each) for each in named.items()]))
    ranker.offer(timeline.newest, timeline)

    def admitted(rest: int) -> list[str]:
        wanted = {item for item, own in named.items() if own["number"] % 40 == rest}
        return [item.id for item in ITEMS if item.id in wanted]

    for step in range(12):
        changed = [f"i{number}" for number in rng.choice(N, 40, replace=False)]
        changes = []
        for at, item in enumerate(changed):
            if item in named and at % 2:
                changes.append(ItemChange("delete", item))
                del named[item]
            else:
                named[item] = {"number": float(rng.integers(40))}
                changes.append(ItemChange("put", item, encode_item(Item(item, named[item]))))
        timeline.apply(LogEntry(f"{step + 1}-0", ItemsRecord(changes)), {}.__getitem__)
        ranker.offer(timeline.newest, timeline, changed)
        assert chosen_from(ranker, context={"rest": 7.0}) == admitted(7)
    assert len(admitted(7)) > 20
