"""Placements: what stands in a slot of the page without a draw."""

import asyncio
from datetime import UTC, datetime

import msgspec
import pytest
from support.fakes import FakeLog, FakeSource

from bandits.errors import InvalidFieldError, SpecError
from bandits.log.codec import decode, encode
from bandits.log.records import DecisionRecord, Placed, Unplaced
from policies.items.catalogue import Catalogue
from policies.items.timeline import ItemTimeline
from policies.profiles.known_user import KnownUser
from policies.profiles.options import ProfileOptions
from policies.ranker import Ranker
from policies.requests import ActionRequest, Item, RankRequest
from policies.rules.filters import FilterRule
from policies.rules.pages.page import Page
from policies.rules.placements import Placement
from policies.spec import Holdout, PolicySpec, decode_spec, spec_of
from policies.spec.checks import admit

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
IDS = [f"i{n}" for n in range(8)]
ITEMS = [
    *(Item(name, {"stock": float(n)}) for n, name in enumerate(IDS)),
    Item("hidden", {"stock": 9.0}, hidden=True),
]
SOURCES = [{"kind": "remote", "name": "cf", "url": "http://x"}]
"""A fake stands in for it, which proposes all but i7, in order."""


def at(hour: int) -> datetime:
    return NOW.replace(hour=hour)


def ranker_of(*placements: Placement, **fields) -> Ranker:
    spec = spec_of({"name": "home", "sources": SOURCES})
    spec = msgspec.structs.replace(spec, placements=list(placements), **fields)
    source = FakeSource("cf", {name: 1.0 - 0.1 * n for n, name in enumerate(IDS[:7])})
    ranker = Ranker(spec, (source,), salt=b"salt", clock=NOW.timestamp)
    timeline = ItemTimeline(Catalogue.put(ITEMS))
    ranker.offer(timeline.newest, timeline)
    ranker.serve("first", FakeLog(spec).fold().snapshot())
    return ranker


def ranked(ranker: Ranker, **fields) -> DecisionRecord:
    request = RankRequest(**{"event_id": "e", "user_id": "u", "slots": 3, **fields})
    record = asyncio.run(ranker.rank(request))
    assert decode(encode(record)) == record
    return record


def page_of(record: DecisionRecord) -> dict[int, str]:
    page = {each.slot: each.action_id for each in record.placed}
    drawn = [record.action_ids[at] for at in record.chosen]
    return page | dict(zip(record.page_slots(), drawn, strict=True))


def test_a_placed_item_stands_in_its_slot_and_is_neither_in_the_pmf_nor_chosen():
    record = ranked(ranker_of(Placement("i2", 1)))
    assert page_of(record)[1] == "i2"
    assert sorted(page_of(record)) == [0, 1, 2]
    assert "i2" not in record.action_ids
    assert record.pmfs().shape == (2, 6)
    assert record.rules.now_ms == int(1000 * NOW.timestamp())


def test_it_need_not_be_proposed_and_a_page_without_its_slot_is_left_alone():
    ranker = ranker_of(Placement("i7", 2))
    assert page_of(ranked(ranker))[2] == "i7"
    assert ranked(ranker, slots=2).placed == []


@pytest.mark.parametrize(
    ("begins", "until", "stands"),
    [(11, 13, True), (12, 13, True), (11, 12, False), (13, 14, False)],
)
def test_it_stands_there_from_one_moment_until_just_before_another(begins, until, stands):
    record = ranked(ranker_of(Placement("i7", 0, at(begins), at(until))))
    assert record.placed == ([Placed(0, "i7")] if stands else [])
    assert record.rules.now_ms == int(1000 * NOW.timestamp())


def test_when_says_for_whom():
    ranker = ranker_of(Placement("i7", 0, when='context.region == "eu" && item.stock > 6'))
    assert ranked(ranker, context={"region": "eu"}).placed == [Placed(0, "i7")]
    assert ranked(ranker, context={"region": "us"}).placed == []
    assert ranked(ranker).placed == []


@pytest.mark.parametrize(
    ("item", "fields", "asked", "reason"),
    [
        ("hidden", {}, {}, "unavailable"),
        ("unheard", {}, {}, "unavailable"),
        ("i1", {"filter": FilterRule("item.stock > 1")}, {}, "filtered"),
        ("i1", {"filter": FilterRule(fields=["stock"])}, {"filter": "item.stock != 1"}, "filtered"),
        ("i1", {}, {"exclude": ["i1"]}, "excluded"),
        ("i1", {}, {"actions": [ActionRequest(name) for name in ("i2", "i3", "i4")]}, "not_sent"),
    ],
)
def test_what_cannot_be_shown_is_not_placed_and_the_record_says_why(item, fields, asked, reason):
    record = ranked(ranker_of(Placement(item, 0), **fields), **asked)
    assert record.placed == []
    assert record.rules.unplaced == [Unplaced(0, item, reason)]
    assert len(record.chosen) == 3


def test_what_is_held_back_from_a_user_is_not_placed():
    ranker = ranker_of(Placement("i1", 0), profile=ProfileOptions(types={"buy": 5}))
    known = KnownUser("p", visit=frozenset(["i1"]))
    record = asyncio.run(ranker.rank(RankRequest(user_id="u", slots=3), known))
    assert (record.placed, record.rules.unplaced) == ([], [Unplaced(0, "i1", "excluded")])
    assert "i1" not in record.action_ids


def test_the_first_that_can_stand_in_a_slot_does_and_no_item_stands_twice():
    record = ranked(
        ranker_of(
            Placement("hidden", 0),
            Placement("i3", 0),
            Placement("i4", 0),
            Placement("i3", 2),
            Placement("i5", 2),
        )
    )
    assert record.placed == [Placed(0, "i3"), Placed(2, "i5")]
    assert record.rules.unplaced == [
        Unplaced(0, "hidden", "unavailable"),
        Unplaced(0, "i4", "taken"),
        Unplaced(2, "i3", "twice"),
    ]


def test_a_second_placement_for_a_slot_is_named_only_where_it_could_have_stood_there():
    """Who is not in force, or not for this request, is not named; nor is the same item twice."""
    record = ranked(
        ranker_of(
            Placement("i3", 0),
            Placement("i3", 0, when="true"),
            Placement("i4", 0, at(1), at(2)),
            Placement("i5", 0, when='context.region == "eu"'),
            Placement("i6", 0, when='context.region != "eu"'),
        ),
        context={"region": "us"},
    )
    assert record.placed == [Placed(0, "i3")]
    assert record.rules.unplaced == [Unplaced(0, "i6", "taken")]


def test_actions_of_a_request_are_placed_as_it_describes_them():
    actions = [ActionRequest("own", {"stock": 5.0}), ActionRequest("i1"), ActionRequest("i2")]
    ranker = ranker_of(Placement("own", 1, when="item.stock == 5"))
    record = ranked(ranker, actions=actions, slots=2)
    assert record.placed == [Placed(1, "own")]
    assert record.action_ids == ["i1", "i2"]

    with pytest.raises(InvalidFieldError, match="4 slots, 1 of them by placements, but only 2"):
        ranked(ranker, actions=actions, slots=4)


@pytest.mark.parametrize("actions", [None, [ActionRequest("i1"), ActionRequest("i2")]])
def test_a_page_on_which_all_is_placed_is_logged_and_draws_nothing(actions):
    ranker = ranker_of(Placement("i2", 0), filter=FilterRule("item.stock == 2"))
    record = ranked(ranker, slots=1, actions=actions)
    assert (record.placed, record.chosen, record.action_ids) == ([Placed(0, "i2")], [], [])
    assert record.pmfs().shape == (0, 0)


def test_rules_of_the_page_look_at_what_was_placed():
    ranker = ranker_of(Placement("i7", 1), page=Page(most={"odd": 1}))
    odd = [Item(name, {"odd": str(n % 2)}) for n, name in enumerate(IDS)]
    timeline = ItemTimeline(Catalogue.put(odd))
    ranker.offer(timeline.newest, timeline)
    record = ranked(ranker)
    (drawn,) = record.chosen
    assert record.action_ids[drawn] in {"i0", "i2", "i4", "i6"}
    assert page_of(record) == {0: record.action_ids[drawn], 1: "i7"}
    assert "page.most.odd" in record.rules.short

    actions = [ActionRequest("a", {"odd": "1"}), ActionRequest("b", {"odd": "0"})]
    record = ranked(ranker, actions=[*actions, ActionRequest("i7", {"odd": "0"})])
    assert page_of(record) == {0: "a", 1: "i7"}


def test_what_the_holdout_is_served_has_the_same_placements():
    record = ranked(ranker_of(Placement("i7", 0), holdout=Holdout(1.0, "cf")))
    assert (record.holdout, record.unserved) == (True, False)
    assert page_of(record) == {0: "i7", 1: "i0", 2: "i1"}


def test_a_spec_says_it_in_yaml_and_is_the_same_from_the_log():
    spec = decode_spec(
        spec_of(
            {
                "name": "home",
                "placements": [
                    {"item": "i1", "slot": 0, "from": "2026-12-01T00:00:00Z", "when": "true"},
                    {"item": "i2", "slot": 3, "until": "2026-12-01T01:00:00+01:00"},
                ],
            }
        ).encoded
    )
    first, second = spec.placements
    assert (first.begins, first.until) == (datetime(2026, 12, 1, tzinfo=UTC), msgspec.UNSET)
    assert second.until == first.begins
    assert decode_spec(spec.encoded) == spec


@pytest.mark.parametrize("begins", ["2026-12-01T00:00:00", "soon", 5])
def test_a_moment_has_a_zone(begins):
    with pytest.raises(SpecError, match="no moment with its zone") as caught:
        spec_of({"name": "home", "placements": [{"item": "i1", "slot": 0, "from": begins}]})
    assert caught.value.target == "placements[0].from"


@pytest.mark.parametrize(
    ("placements", "target", "says"),
    [
        ([], "placements", "nothing"),
        ([Placement("i1", 0, at(3), at(3))], "placements[0].until", "no later"),
        ([Placement("i1", 0, when="item.stock >")], "placements[0].when", "no expression"),
        (
            [Placement("i1", 0, when="item.id in profile.purchase")],
            "placements[0].when",
            "set profile",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(placements, target, says):
    with pytest.raises(SpecError, match=says) as caught:
        admit(PolicySpec("home", placements=placements))
    assert caught.value.target == target


def test_a_page_with_rules_may_be_all_that_is_placed():
    ranker = ranker_of(Placement("i2", 0), page=Page(most={"stock": 1}))
    record = ranked(ranker, actions=[ActionRequest("i2")])
    assert (record.placed, record.chosen) == ([Placed(0, "i2")], [])
    assert record.rules.short == "there are 0 actions for 2 slots"


def test_where_all_that_there_is_is_placed_the_page_is_shorter_if_pages_have_rules():
    """Also where sources propose, which have nothing left."""
    spec = spec_of({"name": "home", "sources": SOURCES})
    spec = msgspec.structs.replace(
        spec, placements=[Placement("only", 0)], page=Page(most={"brand": 1})
    )
    ranker = Ranker(spec, (FakeSource("cf", {"only": 1.0}),), salt=b"salt", clock=NOW.timestamp)
    timeline = ItemTimeline(Catalogue.put([Item("only")]))
    ranker.offer(timeline.newest, timeline)
    ranker.serve("first", FakeLog(spec).fold().snapshot())
    record = ranked(ranker)
    assert page_of(record) == {0: "only"}
    assert record.rules.short
