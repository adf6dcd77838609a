"""What the catalogue lacks is no candidate, whoever proposes it, however a decision is asked for."""

import asyncio
import threading
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import SALT, FakeLog, FakeSource, fresh_ranker
from support.small_artifact import HISTORIES, ITEMS, NAMES, make_artifact

from bandits.errors import (
    IncomparableError,
    InvalidFieldError,
    NoCandidatesError,
    SourceError,
    UnknownItemError,
    UnknownUserError,
)
from bandits.exploration import EpsilonGreedy
from bandits.log.records import ItemChange, ItemsRecord, LogEntry
from policies import similar as alike
from policies.artifacts.profiles import Profiles
from policies.decisions.holdout import FixedPolicy
from policies.features import featurise_record
from policies.items.catalogue import Catalogue, Item
from policies.items.changes import encode_item
from policies.items.timeline import ItemTimeline
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.rules.filters import FilterRule
from policies.rules.turns import in_turns
from policies.sources import Candidates, load_sources
from policies.sources.live.fresh import FreshItems
from policies.sources.local import EMPTY
from policies.sources.places import ItemOrder
from policies.sources.source_set import SourceSet
from policies.spec import ArtifactSource, FreshSource, Holdout, PolicySpec

ARTIFACT = make_artifact()
BLEND = PolicySpec("p", sources=[ArtifactSource(name) for name in NAMES], artifact="a", limit=4)
WAYS = {
    "blend": BLEND,
    "mixture": msgspec.structs.replace(BLEND, kind="mixture", exploration=EpsilonGreedy(0.2)),
    "held out, a source": msgspec.structs.replace(BLEND, holdout=Holdout(1.0, "als")),
    "held out, uniform": msgspec.structs.replace(BLEND, holdout=Holdout(1.0)),
}


def serving(spec: PolicySpec, catalogue: Catalogue) -> Ranker:
    sources = list(load_sources(ARTIFACT, spec.sources).values())
    ranker = Ranker(spec, sources, salt=SALT, profiles=Profiles.of(HISTORIES, SALT))
    ranker.serve("s0", FakeLog(spec).fold().snapshot())
    ranker.offer(catalogue)
    return ranker


def holding(*ids: str) -> Catalogue:
    return Catalogue.put([Item(each) for each in ids])


@pytest.mark.parametrize("way", WAYS)
@given(
    held=st.sets(st.sampled_from(ITEMS[2:]), min_size=1),
    slots=st.integers(1, 3),
    exclude=st.sets(st.sampled_from(ITEMS)),
)
@settings(max_examples=25, deadline=None)
async def test_of_any_catalogue_every_source_fills_its_part_of_the_pool(way, held, slots, exclude):
    spec, ranker, left = WAYS[way], serving(WAYS[way], holding(*held)), held - exclude
    request = RankRequest(
        user_id="known", slots=min(slots, max(1, len(left))), exclude=sorted(exclude)
    )
    if not left:
        with pytest.raises((NoCandidatesError, UnknownUserError)):
            await ranker.rank(request)
        return
    record = await ranker.rank(request)
    assert set(record.action_ids) <= left
    assert len(record.action_ids) >= min(spec.limit, len(left))
    scores = record.source_scores()
    assert set(scores) == set(NAMES)
    # in a mixture, what it proposed; in a blend each scores all that any has proposed
    for name in NAMES:
        assert np.count_nonzero(~np.isnan(scores[name])) >= min(spec.limit, len(left)), name
    assert not record.unserved
    assert record.failed is None
    if record.holdout and spec.holdout is not None and not (record.chosen[1:]):
        context, actions = featurise_record(spec, ranker.offering.catalogue, record)
        np.testing.assert_array_equal(
            FixedPolicy(spec.holdout.policy).pmf(context, actions), record.pmfs()[0]
        )


async def test_before_the_first_item_is_put_no_user_is_said_to_be_unknown():
    source = FreshSource(name="new", half_life="7d")
    ranker = fresh_ranker(PolicySpec("home", sources=[source]), [FreshItems(source, ItemOrder(()))])
    with pytest.raises(NoCandidatesError, match="the catalogue has no items: put some") as caught:
        await ranker.rank(RankRequest(user_id="ann"))
    assert caught.value.target == "actions"


@pytest.mark.parametrize("way", WAYS)
async def test_an_emptied_catalogue_leaves_no_candidate_and_says_so(way):
    ranker = serving(WAYS[way], Catalogue.put([]))
    for request in (
        RankRequest(user_id="known"),
        RankRequest(user_id="nobody"),
        RankRequest(history=["i01", "i02"]),
    ):
        with pytest.raises(NoCandidatesError, match="the catalogue has no items") as caught:
            await ranker.rank(request)
        assert caught.value.target == "actions"


async def test_a_known_user_who_knows_every_item_is_no_unknown_one():
    """Nor is a source for everybody missing: there is nothing new for them."""
    known = [HISTORIES.items[place] for place in HISTORIES.profile("known").indices]
    ranker = serving(BLEND, holding(*known))
    with pytest.raises(NoCandidatesError, match=f"does not know already .{len(known)} items") as no:
        await ranker.rank(RankRequest(user_id="known"))
    assert no.value.target == "user_id"
    assert (await ranker.rank(RankRequest(user_id="nobody"))).action_ids


async def test_explicit_actions_are_the_callers_affair():
    for catalogue in (Catalogue.put([]), holding("other")):
        record = await serving(BLEND, catalogue).rank(
            RankRequest(actions=[ActionRequest("i05"), ActionRequest("i06")])
        )
        assert record.action_ids == ["i05", "i06"]


async def test_while_no_catalogue_was_ever_put_nobody_said_what_there_is():
    """With a remote source alone, say, only the source knows its items."""
    spec = PolicySpec("home", limit=2)
    source = FakeSource("cf", {"a": 3.0, "b": 2.0, "c": 1.0})
    ranker = fresh_ranker(spec, [source])
    assert (await ranker.rank(RankRequest())).action_ids == ["a", "b"]
    ranker.offer(holding("b", "c"))
    assert (await ranker.rank(RankRequest())).action_ids == ["b", "c"]
    ranker.offer(Catalogue.put([]))
    with pytest.raises(NoCandidatesError):
        await ranker.rank(RankRequest())
    ranker.offer(holding("a"))
    assert (await ranker.rank(RankRequest())).action_ids == ["a"]


# --- items that change while the sources are asked
# ------------------------------------------------------------


class Meanwhile(FakeSource):
    """Something happens once while it is asked."""

    def __init__(self, scores, happens):
        super().__init__("cf", scores)
        self.happens = [happens]

    async def candidates(self, request, limit):
        found = await super().candidates(request, limit)
        while self.happens:
            self.happens.pop()()
        return found


def put(item_id: str, **fields) -> ItemChange:
    return ItemChange("put", item_id, encode_item(Item(item_id, **fields)))


class Shop:
    """A ranker whose items change, entry by entry, and a clock that a test sets."""

    def __init__(self, sources, *items: Item, spec: PolicySpec | None = None) -> None:
        self.now_s = 1_800_000_000.0
        self.timeline = ItemTimeline(Catalogue.put(items))
        spec = spec or PolicySpec("home")
        self.ranker = Ranker(spec, sources, salt=SALT, clock=lambda: self.now_s)
        self.ranker.serve("s0", FakeLog(spec).fold().snapshot())
        self.ranker.offer(self.timeline.newest, self.timeline)
        self._entries = 0

    def change(self, *changes: ItemChange) -> None:
        self._entries += 1
        self.timeline.apply(LogEntry(f"{self._entries}-0", ItemsRecord([*changes])), {}.__getitem__)
        self.ranker.offer(self.timeline.newest, self.timeline, {each.id for each in changes})

    def time(self, after_s: float) -> datetime:
        return datetime.fromtimestamp(self.now_s + after_s, UTC)


async def test_what_goes_while_sources_are_asked_is_no_candidate_and_the_record_names_that_version():
    source = Meanwhile(
        {"a": 3.0, "b": 2.0, "c": 1.0},
        lambda: shop.change(ItemChange("delete", "a", b""), put("c", features={"x": 2.0})),
    )
    shop = Shop([source], *map(Item, "abc"))
    before = shop.timeline.version
    record = await shop.ranker.rank(RankRequest())
    assert record.action_ids == ["b", "c"]
    assert record.source_scores()["cf"].tolist() == [2.0, 1.0]
    assert record.catalogue == shop.timeline.version != before
    _, actions = featurise_record(shop.ranker.spec, shop.timeline.newest, record)
    assert actions.namespaces[1].values.tolist() == [[0.0], [2.0]]
    again = await shop.ranker.rank(RankRequest())
    assert again.action_ids == record.action_ids


@pytest.mark.parametrize("how", ["deleted", "hidden", "over", "replaced"])
async def test_when_all_go_while_sources_are_asked_the_error_says_so(how):
    def happens() -> None:
        if how == "deleted":
            shop.change(ItemChange("delete", "a", b""))
        elif how == "hidden":
            shop.change(ItemChange("patch", "a", b'{"hidden": true}'))
        elif how == "over":
            shop.now_s += 60
        else:
            shop.ranker.offer(holding("c"))

    shop = Shop([Meanwhile({"a": 3.0}, happens)], Item("b"))
    shop.change(put("a", available_until=shop.time(60)))
    with pytest.raises(NoCandidatesError, match=r"none of the 1 items .* any more") as caught:
        await shop.ranker.rank(RankRequest(user_id="u"))
    assert caught.value.target == "actions"


async def test_what_a_source_of_ones_own_proposes_is_held_to_the_items_all_the_same():
    """It need not know what may be offered: its answer is shorter then."""

    class Own:
        name = "own"

        async def candidates(self, request, limit):
            return Candidates(("a", "b", "c")[:limit], np.ones(3, np.float32)[:limit])

    shop = Shop([Own()], *map(Item, "bcd"))
    assert (await shop.ranker.rank(RankRequest())).action_ids == ["b", "c"]
    shop.change(ItemChange("delete", "c"))
    assert (await shop.ranker.rank(RankRequest())).action_ids == ["b"]


async def test_a_decision_names_the_artifact_whose_sources_were_asked():
    """Also if others are swapped in meanwhile; and none where none was asked."""
    swapped = []

    class Slow(FakeSource):
        async def candidates(self, request, limit):
            found = await super().candidates(request, limit)
            if not swapped:
                swapped.append(1)
                ranker.equip(SourceSet.of([FakeSource("cf", {"b": 1.0})], None, "v2"))
            return found

    ranker = fresh_ranker(PolicySpec("home"))
    ranker.equip(SourceSet.of([Slow("cf", {"a": 1.0})], None, "v1"))
    first, second = await ranker.rank(RankRequest()), await ranker.rank(RankRequest())
    assert (first.artifact, first.action_ids) == ("v1", ["a"])
    assert (second.artifact, second.action_ids) == ("v2", ["b"])

    explicit = await ranker.rank(RankRequest(actions=[ActionRequest("x")]))
    assert explicit.artifact is None


async def test_an_item_is_offered_from_its_time_until_just_before_it_is_over():
    spec = msgspec.structs.replace(BLEND, limit=len(ITEMS))
    sources = list(load_sources(ARTIFACT, spec.sources).values())
    shop = Shop(sources, *map(Item, ITEMS[2:]), spec=spec)
    began_s = shop.now_s
    shop.change(put(ITEMS[3], available_from=shop.time(10), available_until=shop.time(20)))
    for at, offered in ((0, False), (9.9, False), (10, True), (19.9, True), (20, False)):
        shop.now_s = began_s + at
        record = await shop.ranker.rank(RankRequest(history=["i01"]))
        assert (ITEMS[3] in record.action_ids) is offered
        assert ITEMS[4] in record.action_ids
    shop.change(put(ITEMS[3], hidden=True))
    assert ITEMS[3] not in (await shop.ranker.rank(RankRequest(history=["i01"]))).action_ids
    shop.change(put(ITEMS[3]))
    assert ITEMS[3] in (await shop.ranker.rank(RankRequest(history=["i01"]))).action_ids


async def test_why_there_is_no_candidate_is_said():
    """Nothing may be offered, nothing that a source knows, nothing that this user may be shown."""
    sources = list(load_sources(ARTIFACT, BLEND.sources).values())
    for items, request, why in (
        (
            [Item("i04", hidden=True)],
            RankRequest(user_id="known"),
            r"none of the catalogue's 1 items",
        ),
        ([Item("x"), Item("y")], RankRequest(user_id="known"), r"no source knows any of the 2"),
        (
            [Item("i04")],
            RankRequest(user_id="known", exclude=["i04"]),
            "each of the 1 items that may be offered is excluded",
        ),
        (
            [Item("i04"), Item("i05", hidden=True)],
            RankRequest(user_id="nobody", exclude=["i04", "gone", "i05"]),
            "each of the 1 items that may be offered is excluded",
        ),
    ):
        with pytest.raises(NoCandidatesError, match=why):
            await Shop(sources, *items, spec=BLEND).ranker.rank(request)


async def test_other_sources_are_made_ready_beside_and_miss_no_change():
    """Items change between the moment that they are made ready and the one they are swapped in."""
    spec = msgspec.structs.replace(BLEND, limit=len(ITEMS))

    def loaded() -> SourceSet:
        return SourceSet.of(list(load_sources(make_artifact(), spec.sources).values()))

    shop = Shop(loaded().all, *map(Item, ITEMS), spec=spec)
    before = shop.ranker.proposers.offered.sources
    shop.ranker.equip(loaded())
    shop.change(ItemChange("delete", "i05", b""), put("i06", available_from=shop.time(5)))
    request = RankRequest(history=["i01"])
    record = await shop.ranker.rank(request)
    assert shop.ranker.proposers.offered.sources is not before
    assert set(record.action_ids) == {*ITEMS} - {"i01", "i05", "i06"}
    shop.now_s += 5
    assert "i06" in (await shop.ranker.rank(request)).action_ids

    other = loaded()
    shop.ranker.equip(other)
    shop.ranker.offer(holding("i07"))
    assert (await shop.ranker.rank(request)).action_ids == ["i07"]
    assert [each._items for each in shop.ranker.proposers.offered.sources.proposing] == [
        each._items for each in other.proposing
    ]


async def test_while_a_whole_catalogue_is_taken_over_the_sources_that_are_there_answer():
    """Also those that were made ready and had not been swapped in before."""
    begun, go_on = threading.Event(), threading.Event()

    class Large(FakeSource):
        def over(self, offering):
            if "b" in offering and offering.limits:
                begun.set()
                assert go_on.wait(30)
            return super().over(offering)

    ranker = fresh_ranker(PolicySpec("home"))
    ranker.equip(SourceSet.of([Large("cf", {"a": 1.0, "b": 2.0})], None, "v1"))
    taking = asyncio.create_task(asyncio.to_thread(ranker.offer, holding("b")))
    await asyncio.to_thread(begun.wait, 30)
    try:
        record = await ranker.rank(RankRequest())
        assert (record.artifact, set(record.action_ids)) == ("v1", {"a", "b"})
    finally:
        go_on.set()
    await taking
    assert (await ranker.rank(RankRequest())).action_ids == ["b"]


def test_a_snapshot_leaves_the_items_as_they_are():
    ranker = serving(BLEND, holding("i04", "i05"))
    before = ranker.proposers.offered
    ranker.serve("s1", ranker.serving.snapshot)
    assert ranker.proposers.offered is before


def test_an_emptied_catalogue_is_another_than_none_and_comes_back_from_its_bytes():
    none, emptied = Catalogue(), Catalogue.put([])
    assert none.digest != emptied.digest
    assert (none.limits, emptied.limits, holding("a").limits) == (False, True, True)
    for catalogue in (none, emptied, holding("a")):
        again = Catalogue.decode(catalogue.encoded)
        assert (again.digest, again.ids, again.limits) == (
            catalogue.digest,
            catalogue.ids,
            catalogue.limits,
        )
    assert len(emptied) == 0
    assert emptied.namespace(["a"]).values.shape == (1, 0)


# --- sources that fail, and what is held out while they do
# ------------------------------------------------------------


def failing(name: str) -> FakeSource:
    source = FakeSource(name, {"x": 1.0})
    source.failing = True
    return source


@pytest.mark.parametrize(
    ("policy", "source", "slots", "unserved"),
    [
        ("cf", FakeSource("cf", {"a": 2.0, "b": 1.0}), 1, False),
        ("cf", FakeSource("cf", {"a": 2.0, "b": 1.0}), 2, False),
        ("cf", FakeSource("cf", {"a": 2.0}), 2, True),  # the second slot is nobody's
        ("cf", FakeSource("cf", {}), 1, True),  # it knows nothing of this user
        ("cf", failing("cf"), 1, True),
        ("cf", FakeSource("cf", {"a": float("nan")}), 1, True),
        ("uniform", failing("cf"), 1, False),
    ],
)
@pytest.mark.parametrize("kind", ["blend", "mixture"])
async def test_a_held_out_decision_that_its_policy_did_not_make_says_so(
    kind, policy, source, slots, unserved
):
    spec = PolicySpec(
        "home",
        kind=kind,
        sources=[ArtifactSource("cf"), ArtifactSource("deep")],
        artifact="a",
        exploration=EpsilonGreedy(0.1),
        holdout=Holdout(1.0, policy),
    )
    deep = FakeSource("deep", {"b": 1.0, "c": 0.5, "d": 0.1})
    record = await fresh_ranker(spec, [source, deep]).rank(RankRequest(slots=slots))
    assert (record.holdout, record.unserved, record.control) == (True, unserved, not unserved)


async def test_a_held_out_decision_among_actions_without_its_sources_scores_is_no_control():
    spec = PolicySpec(
        "home", sources=[ArtifactSource("cf")], artifact="a", holdout=Holdout(1.0, "cf")
    )
    ranker = fresh_ranker(spec, [FakeSource("cf", {})])
    scored = [ActionRequest("a", scores={"cf": 1.0}), ActionRequest("b")]
    assert (await ranker.rank(RankRequest(actions=scored))).control
    assert (await ranker.rank(RankRequest(actions=scored, slots=2))).unserved
    assert (
        await ranker.rank(RankRequest(actions=[ActionRequest("a"), ActionRequest("b")]))
    ).unserved


async def test_what_is_wrong_with_a_source_is_kept_counted_and_in_the_record(caplog):
    spec = PolicySpec("home", sources=[ArtifactSource("cf"), ArtifactSource("deep")], artifact="a")
    cf, deep = failing("cf"), FakeSource("deep", {"b": 1.0})
    ranker = fresh_ranker(spec, [cf, deep])
    for _ in range(50):
        record = await ranker.rank(RankRequest())
        assert record.failed == {"cf": "cf is down"}
        assert record.holdout is record.unserved is False
    assert ranker.proposers.answers.failures == {"cf": 50}
    assert ranker.proposers.answers.troubles["cf"].reason == "cf is down"
    assert len([each for each in caplog.records if "cf is down" in each.getMessage()]) == 1, (
        "not fifty times"
    )
    cf.failing = False
    assert (await ranker.rank(RankRequest())).failed is None
    deep.failing = cf.failing = True
    with pytest.raises(SourceError, match=r"cf is down; deep is down"):
        await ranker.rank(RankRequest())


# --- what is similar
# ------------------------------------------------------------


async def test_what_is_similar_is_asked_of_a_source_or_of_the_first_that_knows_the_item():
    sources = list(load_sources(ARTIFACT, BLEND.sources).values())
    shop = Shop(sources, *map(Item, (*ITEMS, "new")), spec=BLEND)
    name, found = shop.ranker.similar("i05", None, 3)
    assert (name, found.ids) == ("als", shop.ranker.similar("i05", "als", 3)[1].ids)
    assert shop.ranker.similar("i05", "item_knn", 3)[0] == "item_knn"

    first = found.ids[0]
    shop.change(ItemChange("patch", first, b'{"hidden": true}'))
    assert first not in shop.ranker.similar("i05", "als", 30)[1].ids
    assert shop.ranker.similar("i05", "als", 2)[1].ids == found.ids[1:]
    assert shop.ranker.similar(first, "als", 3)[1].ids, "also of an item that is not offered now"

    assert shop.ranker.similar("new", None, 3) == ("als", EMPTY)
    shop.change(ItemChange("delete", "i05", b""))
    for unknown in ("i05", "nothing"):
        with pytest.raises(UnknownItemError, match=unknown):
            shop.ranker.similar(unknown, None, 3)


def test_a_filter_says_which_similar_items_are_wanted_however_far_down_they_are():
    """It looks at items and the time, and names what the policy has at hand."""
    spec = msgspec.structs.replace(BLEND, filter=FilterRule("item.price >= 0.0", fields=["stock"]))
    price = {each: float(number % 10) for number, each in enumerate(ITEMS)}
    items = [Item(each, {"price": price[each], "stock": 1.0}) for each in ITEMS]
    sources = list(load_sources(ARTIFACT, spec.sources).values())
    similar = Shop(sources, *items, spec=spec).ranker.similar
    for name in ("als", "item_knn"):
        every = similar("i05", name, len(ITEMS))[1]
        score = dict(zip(every.ids, every.scores.tolist(), strict=True))
        for limit in (1, 2, 50):
            found = similar("i05", name, limit, "item.price == 9.0 && time.now > 0.0")[1]
            assert found.ids == tuple(each for each in every.ids if price[each] == 9.0)[:limit]
            assert found.scores.tolist() == [score[each] for each in found.ids]
    assert similar("i05", "als", 3, "item.price < 0.0")[1].ids == ()

    for wrong, said in (
        ("item.price <", "no expression"),
        ("item.colour == 'red'", "filter.fields"),
        ("context.region == 'eu'", "nobody asks"),
        ("!(item.id in profile.view)", "nobody asks|not at hand"),
        ("item.price > 1.0 && " * 200 + "true", "at most 2,000"),
    ):
        with pytest.raises(InvalidFieldError, match=said) as caught:
            similar("i05", "als", 3, wrong)
        assert caught.value.target == "filter"
    plain = Shop(sources, *items, spec=BLEND).ranker
    with pytest.raises(InvalidFieldError, match="takes no filters"):
        plain.similar("i05", "als", 3, "item.price > 1.0")


async def test_a_long_filter_of_similar_items_is_asked_of_all_of_them_in_turns(monkeypatch):
    price = {each: float(number % 10) for number, each in enumerate(ITEMS)}
    items = [Item(each, {"price": price[each], "stock": 1.0}) for each in ITEMS]
    filter_ = {"where": "item.stock > 0.0", "fields": ["price"]}
    spec = msgspec.structs.replace(BLEND, filter=FilterRule(**filter_))
    shop = Shop(list(load_sources(ARTIFACT, spec.sources).values()), *items, spec=spec)
    ranker = shop.ranker

    async def is_found(expected: tuple[str, Candidates], where: str | None) -> None:
        name, found = await ranker.similar_in_turns("i05", "als", 5, where)
        assert (name, found.ids) == (expected[0], expected[1].ids)
        assert np.array_equal(found.scores, expected[1].scores)

    for where in ("item.price == 9.0 && time.now > 0.0", "item.price < 0.0", None):
        expected = ranker.similar("i05", "als", 5, where)
        monkeypatch.setattr(alike, "AT_ONCE", 0)
        await is_found(expected, where)
        monkeypatch.setattr(alike, "AT_ONCE", 10**9)
        await is_found(expected, where)
    with pytest.raises(InvalidFieldError, match="no expression"):
        await ranker.similar_in_turns("i05", "als", 5, "item.price <")


async def test_similar_items_that_change_while_a_long_filter_is_asked_are_judged_anew(monkeypatch):
    price = {each: float(number % 10) for number, each in enumerate(ITEMS)}
    items = [Item(each, {"price": price[each]}) for each in ITEMS]
    spec = msgspec.structs.replace(BLEND, filter=FilterRule("true", fields=["price"]))
    shop = Shop(list(load_sources(ARTIFACT, spec.sources).values()), *items, spec=spec)
    asked = "i05", "als", 5, "item.price == 9.0"
    name, expected = shop.ranker.similar(*asked)
    first, *others = expected.ids
    monkeypatch.setattr(alike, "AT_ONCE", 0)
    happens = [
        lambda: shop.ranker.offer(Catalogue.put(items)),
        lambda: shop.change(put(first, features={"price": 1.0})),
    ]

    async def meanwhile(*given) -> np.ndarray:
        found = await in_turns(*given)
        happens.pop(0)()
        return found

    monkeypatch.setattr(alike, "in_turns", meanwhile)
    found = await shop.ranker.similar_in_turns(*asked)
    assert not happens, "of other items it is asked again"
    assert (found[0], found[1].ids) == (name, tuple(others))


def test_a_source_that_cannot_say_what_is_similar_names_those_that_can():
    sources = list(load_sources(ARTIFACT, BLEND.sources).values())
    ranker = Shop(sources, *map(Item, ITEMS), spec=BLEND).ranker
    for source in ("popular", "nobody"):
        with pytest.raises(IncomparableError, match="these can: als, item_knn") as caught:
            ranker.similar("i05", source, 3)
        assert caught.value.target == "source"
    alone = Shop([FakeSource("cf", {"a": 1.0})], Item("a")).ranker
    with pytest.raises(IncomparableError, match="no source of policy home"):
        alone.similar("a", None, 3)
    with pytest.raises(IncomparableError, match="none of this policy's"):
        alone.similar("a", "cf", 3)
