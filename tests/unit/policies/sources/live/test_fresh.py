"""The newest items of what a user likes, as items come, go and change."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.log.records import ItemChange, ItemsRecord, LogEntry
from policies.artifacts.histories import Profile
from policies.items.catalogue import Catalogue, Item
from policies.items.changes import encode_item
from policies.items.offering import Offering
from policies.items.timeline import ItemTimeline
from policies.sources import SourceRequest, load_sources
from policies.sources.live import newest
from policies.sources.live.fresh import FreshItems
from policies.sources.live.newest import NewestIndex
from policies.sources.places import ItemOrder
from policies.sources.source_set import SourceSet
from policies.spec import FreshSource

NOW_S = 1_800_000_000
DAY_S = 86_400
GENRES = ("drama", "comedy", "horror", "noir")


def days_ago(days: float) -> datetime:
    return datetime.fromtimestamp(NOW_S, UTC) - timedelta(days=days)


def film(item_id: str, *genres: str, days: float | None = None, **fields) -> Item:
    if days is not None:
        fields["available_from"] = days_ago(days)
    return Item(item_id, {"genre": list(genres), "price": float(len(item_id))}, **fields)


class Shop:
    """A fresh source over items that change, as of a time that a test sets."""

    def __init__(self, *items: Item, half_life: str = "7d") -> None:
        self.now_s = float(NOW_S)
        self.timeline = ItemTimeline(Catalogue.put(items))
        config = FreshSource("fresh", half_life)
        (self.loaded,) = load_sources(None, [config]).values()
        self.over(self.timeline)

    def over(self, timeline: ItemTimeline) -> None:
        self.timeline = timeline
        self.offering = Offering(timeline.newest, timeline, clock=lambda: self.now_s)
        self.source = self.loaded.over(self.offering)

    def change(self, *changes: ItemChange, at_s: float = NOW_S) -> None:
        position = f"{int(at_s * 1000)}-{len(self.timeline.version)}"
        self.timeline.apply(LogEntry(position, ItemsRecord([*changes])), {}.__getitem__)
        changed = dict.fromkeys(each.id for each in changes).keys()
        self.offering.change(self.timeline.newest, self.timeline, changed)
        self.source.update(changed)

    def put(self, *items: Item, at_s: float = NOW_S) -> None:
        self.change(*(ItemChange("put", each.id, encode_item(each)) for each in items), at_s=at_s)

    def proposed(self, *history: str, limit: int = 30, exclude: frozenset[str] = frozenset()):
        self.source.update(self.offering.pass_time())
        request = SourceRequest(history=tuple(history), exclude=exclude)
        return list(self.source.propose(request, limit).ids)


def test_whoever_has_no_history_gets_the_newest():
    shop = Shop(film("old", "drama", days=30), film("new", "noir", days=1), film("mid", days=9))
    assert shop.proposed() == ["new", "mid", "old"]
    assert shop.proposed(limit=2) == ["new", "mid"]
    assert shop.proposed(limit=0) == []


def test_of_what_a_user_likes_the_newest_first_then_the_others():
    shop = Shop(
        film("seen", "drama", days=100),
        film("drama-old", "drama", days=9),
        film("drama-new", "drama", days=2),
        film("noir-new", "noir", days=1),
        film("comedy-newer", "comedy", days=0.5),
    )
    assert shop.proposed("seen") == ["drama-new", "drama-old", "comedy-newer", "noir-new"]
    assert shop.proposed("seen", exclude=frozenset({"drama-new"}))[0] == "drama-old"
    assert shop.proposed("nobody knows it") == shop.proposed()


def test_an_item_is_proposed_as_soon_as_it_is_put_and_no_more_once_it_has_gone():
    shop = Shop(film("a", "drama", days=3), film("b", "drama", days=2), film("c", "noir", days=1))
    shop.put(film("new", "drama"))
    assert shop.proposed("a")[0] == "new"
    shop.change(ItemChange("patch", "new", b'{"hidden": true}'))
    assert "new" not in shop.proposed("a")
    shop.change(ItemChange("patch", "new", b'{"hidden": false}'), at_s=NOW_S + 60)
    assert shop.proposed("a")[0] == "new"
    shop.change(ItemChange("delete", "new", b""))
    assert "new" not in shop.proposed("a")


def test_items_begin_and_end_by_the_clock():
    shop = Shop(film("a", "drama", days=3), film("b", "noir", days=1))
    shop.put(film("soon", "drama", days=-1, available_until=days_ago(-2)))
    assert "soon" not in shop.proposed()
    shop.now_s += 1.5 * DAY_S
    assert shop.proposed()[0] == "soon"
    shop.now_s += DAY_S
    assert "soon" not in shop.proposed()


def test_an_item_without_a_date_is_as_old_as_its_entry_or_the_catalogue_it_came_with():
    """In the order in which they came; a change of its price makes no item newer."""
    shop = Shop(film("first", "drama"), film("second", "drama"), film("dated", "drama", days=5))
    assert shop.proposed() == ["dated", "second", "first"]
    shop.put(film("third", "drama"), film("fourth", "drama"), at_s=NOW_S - 4 * DAY_S)
    assert shop.proposed() == ["fourth", "third", "dated", "second", "first"]
    shop.change(ItemChange("patch", "first", b'{"features": {"price": 9.0}}'))
    shop.change(ItemChange("patch", "fourth", b'{"features": {"genre": ["noir"]}}'))
    assert shop.proposed() == ["fourth", "third", "dated", "second", "first"]


def test_scores_are_from_0_to_1_and_are_those_of_anything_that_is_offered():
    shop = Shop(
        film("seen", "drama", "noir", days=70),
        film("both", "drama", "noir", days=7),
        film("one", "drama", days=7),
        film("none", "comedy", days=0),
        film("hidden", "drama", hidden=True),
        *(film(f"other{n}", "horror", days=50) for n in range(9)),
    )
    found = shop.source.propose(SourceRequest(history=("seen",)), 3)
    assert found.ids == ("both", "one", "none")
    assert found.scores[0] == pytest.approx(0.5)
    assert 0 < found.scores[1] < 0.5
    assert found.scores[2] == 0.0
    assert found.scores.dtype == np.float32
    again = found.score_items([*found.ids, "hidden", "unknown"])
    np.testing.assert_array_equal(again[:3], found.scores)
    assert np.isnan(again[3:]).all()


def test_a_profile_and_what_is_sent_are_one_history():
    items = [film("x", "drama", days=9), film("y", "noir", days=8), film("z", "drama", days=7)]
    films = Catalogue.put([*items, film("w", "comedy", days=1)])
    offering = Offering(films, clock=lambda: NOW_S)
    source = FreshItems(FreshSource("fresh"), ItemOrder(("x", "y"))).over(offering)
    profile = Profile("u", np.array([0], np.int32), np.ones(1, np.float32))
    known = source.propose(SourceRequest(profile=profile), 9)
    sent = source.propose(SourceRequest(history=("x",)), 9)
    assert known.ids == sent.ids == ("z", "w", "y")
    assert "y" not in source.propose(SourceRequest(None, ("y",), frozenset(), profile), 9).ids


def test_before_a_catalogue_was_ever_put_there_is_nothing():
    (source,) = load_sources(None, [FreshSource("fresh")]).values()
    assert source.propose(SourceRequest(), 5).ids == ()
    sources = SourceSet.of([source]).over(Offering())
    assert sources.proposing[0].propose(SourceRequest(), 5).ids == ()
    assert sources.followers[0].known == 0


@st.composite
def films(draw: st.DrawFn) -> Item:
    return film(
        draw(st.sampled_from("abcdefgh")),
        *draw(st.lists(st.sampled_from(GENRES), max_size=2, unique=True)),
        days=draw(st.integers(0, 40)),
        hidden=draw(st.booleans()),
    )


@given(
    first=st.lists(films(), max_size=6, unique_by=lambda item: item.id),
    steps=st.lists(
        st.one_of(films(), st.sampled_from("abcdefgh").map(lambda i: ItemChange("delete", i))),
        max_size=12,
    ),
)
@settings(max_examples=60, deadline=None)
def test_after_any_changes_it_is_as_if_made_anew_of_what_is_left(first, steps):
    """But for the order of items of the same age, which is that in which they came."""
    shop = Shop(*first)
    for step in steps:
        shop.put(step) if isinstance(step, Item) else shop.change(step)
        anew = Shop()
        anew.over(shop.timeline)
        assert shop.source.known == anew.source.known
        for history in ((), ("a",), ("b", "c")):
            request = SourceRequest(history=history)
            one, two = shop.source.propose(request, 20), anew.source.propose(request, 20)
            assert set(one.ids) == set(two.ids)
            np.testing.assert_array_equal(one.scores, two.scores)
            np.testing.assert_array_equal(one.score_items(two.ids), two.scores)


@given(
    times=st.lists(st.integers(0, 20), max_size=30),
    added=st.lists(st.tuples(st.integers(0, 20), st.sets(st.integers(1, 4))), max_size=30),
    look=st.sampled_from([2, newest.LOOK]),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_the_index_finds_the_newest_of_each_trait_whatever_has_gone(times, added, look, data):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(newest, "LOOK", look)
        check_index(times, added, data)


def check_index(times, added, data):
    rng = np.random.default_rng(len(times))
    own = [set(rng.integers(1, 5, 2).tolist()) for _ in times]
    pairs = [(item, trait) for item, traits in enumerate(own) for trait in traits]
    index = NewestIndex(
        np.array(times, np.float64),
        np.array([item for item, _ in pairs], np.intp),
        np.array([trait for _, trait in pairs], np.uint32),
    )
    there = {item: (time, own[item]) for item, time in enumerate(times)}
    for time, traits in added:
        there[index.add(float(time), traits)] = time, traits
    for item in data.draw(st.lists(st.sampled_from(sorted(there)), unique=True)) if there else ():
        index.remove(item)
        del there[item]

    assert index.count == len(there)
    places, traits = index.traits_of(np.array(sorted(there), np.intp))
    assert sorted(zip(places.tolist(), traits.tolist(), strict=True)) == [
        (place, trait)
        for place, item in enumerate(sorted(there))
        for trait in sorted(there[item][1])
    ]
    barred = sorted(there)[::3]
    for trait in (None, 1, 2, 3, 4, 9):
        having = [i for i, (_, traits) in there.items() if trait is None or trait in traits]
        if trait is not None:
            assert index.counts(np.array([trait], np.uint32)).tolist() == [len(having)]
        expected = sorted(set(having) - set(barred), key=lambda i: (-there[i][0], -i))
        for limit in (1, 3, 100):
            for _ in range(2):
                assert index.newest(trait, limit, barred).tolist() == expected[:limit]
    every = index.newest_of_each([None, 1, 2, 9], 3, barred)
    assert [each.tolist() for each in every] == [
        index.newest(trait, 3, barred).tolist() for trait in (None, 1, 2, 9)
    ]
