"""Rules of a page: what may stand beside what, and what an item loses by being like another."""

import asyncio
from itertools import groupby

import msgspec
import numpy as np
import pytest
from support.fakes import FakeLog

from bandits.decide import left_after
from bandits.errors import SpecError
from bandits.exploration import EpsilonGreedy, Softmax, VwExploration
from bandits.log.codec import decode, encode
from bandits.vw.config import VwConfig
from policies.decisions.holdout import FixedPolicy
from policies.features import featurise_record
from policies.items.catalogue import Catalogue
from policies.items.timeline import ItemTimeline
from policies.ranker import Ranker
from policies.requests import ActionRequest, Item, RankRequest
from policies.rules.columns import ItemColumns
from policies.rules.pages.page import Diversity, Page
from policies.rules.pages.ruled_page import RuledPage
from policies.rules.placements import Placement
from policies.spec import Holdout, PolicySpec, RemoteSource
from policies.spec.checks import admit

MIXED = [RemoteSource("a", "http://x"), RemoteSource("b", "http://x")]
ITEMS = [
    Item(
        f"i{n}",
        {"brand": "abc"[n % 3], "genres": [f"g{n % 2}", f"g{n % 5}"], "year": 1990.0 + n // 4},
        vectors={"image": [float(n < 6), float(n >= 6), 0.1 * n]} if n else msgspec.UNSET,
    )
    for n in range(12)
]


def spec_of(page: Page, **fields) -> PolicySpec:
    return PolicySpec("home", page=page, **fields)


def ranker_of(spec: PolicySpec, items=ITEMS) -> Ranker:
    ranker = Ranker(spec, (), salt=b"salt", clock=lambda: 1e9)
    timeline = ItemTimeline(Catalogue.put(items))
    ranker.offer(timeline.newest, timeline)
    ranker.serve("first", FakeLog(spec).fold().snapshot())
    return ranker


def decided(ranker: Ranker, event_id: str = "e", slots: int = 12, **fields):
    fields.setdefault("actions", [ActionRequest(item.id) for item in ITEMS])
    return asyncio.run(ranker.rank(RankRequest(event_id=event_id, slots=slots, **fields)))


def brands(record):
    known = {item.id: item.features["brand"] for item in ITEMS}
    return [known[item_id] for item_id in record.shown()]


def derived(ranker: Ranker, record):
    """The PMFs of a record, made again of its bytes."""
    record = decode(encode(record))
    context, actions = featurise_record(ranker.spec, ranker.offering.catalogue, record)
    policy = ranker.serving.policy
    if record.holdout:
        policy = FixedPolicy(ranker.spec.holdout.policy)
    pmfs = np.zeros((len(record.chosen), len(actions)))
    for slot in range(len(record.chosen)):
        remaining, left = left_after(actions, record.chosen[:slot], record.page)
        pmfs[slot, remaining] = policy.pmf(context, left)
    return pmfs


def test_a_page_holds_no_more_of_one_value_than_it_may():
    ranker = ranker_of(spec_of(Page(most={"brand": 2})))
    for event in range(20):
        record = decided(ranker, f"e{event}")
        assert sorted(brands(record)) == list("aabbcc")
        assert record.rules.short == (
            "none of the 6 actions that are left may follow, by page.most.brand"
        )
        assert derived(ranker, record).tobytes() == record.pmf


def test_not_too_many_of_one_value_stand_side_by_side():
    ranker = ranker_of(spec_of(Page(in_a_row={"brand": 1})))
    alone = ranker_of(spec_of(Page(in_a_row={"brand": 12})))
    runs = []
    for event in range(20):
        record = decided(ranker, f"e{event}", slots=6)
        assert max(len(list(run)) for _, run in groupby(brands(record))) == 1
        assert derived(ranker, record).tobytes() == record.pmf
        assert len(record.chosen) == 6
        runs += [len(list(run)) for _, run in groupby(brands(decided(alone, f"e{event}")))]
    assert max(runs) > 1


def test_fifty_slots_from_ten_actions_are_ten_and_the_answer_says_why():
    actions = [ActionRequest(item.id) for item in ITEMS[:10]]
    spec = spec_of(Page(diversity=Diversity("genres", 0.1)))
    record = decided(ranker_of(spec), slots=50, actions=actions)
    assert len(record.chosen) == 10
    assert record.rules.short == "there are 10 actions for 50 slots"


def test_one_slot_has_no_page_and_a_page_that_bars_nothing_is_not_in_the_record():
    ranker = ranker_of(spec_of(Page(most={"brand": 2})))
    assert decided(ranker, slots=1).rules is None
    assert decided(ranker, slots=2).rules is None
    assert decided(ranker_of(spec_of(Page(most={"unheard": 1})))).rules is None


@pytest.mark.parametrize(
    "diversity", [Diversity("genres", 0.5), Diversity("image", 0.5, vector=True)]
)
def test_an_item_loses_by_the_one_on_the_page_that_it_is_most_like(diversity):
    spec = spec_of(Page(diversity=diversity), exploration=Softmax(0.1))
    ranker = ranker_of(spec)
    record = decided(ranker)
    assert derived(ranker, record).tobytes() == record.pmf

    def likeness(one: Item, other: Item) -> float:
        if not diversity.vector:
            a, b = set(one.features["genres"]), set(other.features["genres"])
            return len(a & b) / len(a | b)
        if msgspec.UNSET in (one.vectors, other.vectors):
            return 0.0
        a, b = np.array(one.vectors["image"]), np.array(other.vectors["image"])
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    for slot in range(1, len(record.chosen)):
        page = [ITEMS[k] for k in record.chosen[:slot]]
        expected = [-0.5 * max(likeness(item, each) for each in page) for item in ITEMS]
        said = record.page.after(record.chosen[:slot])
        np.testing.assert_allclose(said, expected, atol=5e-4)  # 11 bits
    assert record.page.after([]) is None


def test_a_diverse_page_has_more_of_what_is_rare():
    def genres(spec):
        ranker, counts = ranker_of(spec), []
        for event in range(100):
            record = decided(ranker, f"e{event}", slots=3)
            counts.append(len({g for k in record.chosen for g in ITEMS[k].features["genres"]}))
        return np.mean(counts)

    exploration = Softmax(0.1)
    diverse = Page(diversity=Diversity("genres", 0.5))
    alike = Page(most={"unheard": 1})
    more = genres(spec_of(diverse, exploration=exploration))
    assert more > genres(spec_of(alike, exploration=exploration)) + 0.25


def test_the_holdout_obeys_what_bars_and_not_what_is_only_preferred():
    page = Page(most={"brand": 2}, diversity=Diversity("genres", 0.5))
    ranker = ranker_of(spec_of(page, holdout=Holdout(1.0, "uniform")))
    record = decided(ranker)
    assert record.holdout
    assert sorted(brands(record)) == list("aabbcc")
    said = [record.page.after(record.chosen[:slot]) for slot in range(1, 6)]
    assert all(offsets is None or set(offsets[~np.isnan(offsets)]) == {0.0} for offsets in said)
    assert derived(ranker, record).tobytes() == record.pmf


def test_actions_are_what_the_request_says_that_they_are():
    ranker = ranker_of(spec_of(Page(most={"brand": 1})))
    actions = [ActionRequest(item.id, {"brand": f"own{n}"}) for n, item in enumerate(ITEMS)]
    assert len(decided(ranker, actions=actions).chosen) == 12
    actions = [ActionRequest("i0"), ActionRequest("new"), ActionRequest("x", {"brand": "a"})]
    assert len(decided(ranker, slots=3, actions=actions).chosen) == 2  # nobody knows the new one's


def test_a_changed_item_is_compared_as_it_is_now():
    spec = spec_of(Page(diversity=Diversity("image", 1.0, vector=True)))
    ranker = ranker_of(spec)
    before = decided(ranker, slots=2)
    first = before.chosen[0]
    other = ITEMS[(first + 1) % 12]
    changed = [
        msgspec.structs.replace(item, vectors=ITEMS[first].vectors) if item is other else item
        for item in ITEMS
    ]
    timeline = ItemTimeline(Catalogue.put(changed))
    ranker.offering.change(timeline.newest, timeline, [other.id])
    after = decided(ranker, slots=2)
    assert after.chosen[0] == first
    said = after.page.after([first])
    assert said[(first + 1) % 12] == -1.0
    assert before.page.after([first])[(first + 1) % 12] > -1.0


def test_what_is_placed_counts_and_may_leave_room_for_nothing():
    placed = [Placement("i0", 1), Placement("i3", 2)]  # both of brand a
    page = Page(most={"brand": 2})
    ranker = ranker_of(spec_of(page, placements=placed))
    record = decided(ranker)
    assert sorted(brands(record)) == list("aabbcc")
    assert derived(ranker, record).tobytes() == record.pmf
    assert np.isnan(record.page.after(())).tolist() == [
        item.features["brand"] == "a" for item in ITEMS if item.id in record.action_ids
    ]

    same = [ActionRequest(f"i{n}") for n in (0, 3, 6, 9)]
    record = decided(ranker, slots=4, actions=same)
    assert (record.chosen, record.action_ids, record.pmf) == ([], [], b"")
    assert record.shown() == ["i0", "i3"]
    assert record.rules.short == (
        "none of the 2 actions may stand beside what is placed, by page.most.brand"
    )
    assert decode(encode(record)) == record


def test_a_mixture_credits_the_sources_of_what_could_follow():
    spec = spec_of(Page(most={"brand": 1}), kind="mixture", sources=MIXED, floor=0.0)
    ranker = ranker_of(spec)
    actions = [
        ActionRequest(item.id, scores={"a" if n % 2 else "b": float(n)})
        for n, item in enumerate(ITEMS)
    ]
    for event in range(20):
        record = decided(ranker, f"e{event}", slots=4, actions=actions)
        assert sorted(brands(record)) == list("abc")
        assert derived(ranker, record).tobytes() == record.pmf
        scores = record.source_scores()
        for index, credited in zip(record.chosen, record.credit.credited, strict=True):
            assert not np.isnan(scores[record.credit.sources[credited]][index])


@pytest.mark.parametrize(
    ("page", "target"),
    [
        ({"most": {}}, "most"),
        ({"most": {"brand": 0}}, "most"),
        ({"most": {"brand": 1.5}}, "most"),
        ({"diversity": {"weight": 1}}, "by"),
        ({"diversity": {"by": "a"}}, "weight"),
        ({"diversity": {"weight": -1, "by": "a"}}, "weight"),
        ({"diversity": {"weight": 20_000, "by": "a"}}, "weight"),
        ({"mostly": {"brand": 1}}, "mostly"),
    ],
)
def test_a_page_that_says_nothing_clear_is_refused(page, target):
    with pytest.raises((SpecError, msgspec.ValidationError)) as refused:
        msgspec.convert({"name": "home", "page": page}, PolicySpec)
    assert target in f"{getattr(refused.value, 'target', '')} {refused.value}"


def test_a_page_without_rules_is_idle():
    with pytest.raises(SpecError, match="leave it out") as refused:
        admit(spec_of(Page()))
    assert refused.value.target == "page"


def test_what_has_no_score_takes_no_diversity_but_limits():
    diverse, limited = Page(diversity=Diversity("brand", 0.1)), Page(most={"brand": 1})
    for fields in (
        {"kind": "mixture", "sources": MIXED},
        {"learner": VwConfig("--cb_explore_adf"), "exploration": VwExploration()},
    ):
        with pytest.raises(SpecError) as refused:
            spec_of(diverse, **fields)
        assert refused.value.target == "page.diversity"
        assert spec_of(limited, **fields).rules.page == limited
    assert spec_of(diverse, exploration=EpsilonGreedy(0.1)).rules.page == diverse


def test_every_page_is_as_counted_one_by_one():
    """Random items, placed ones among them, against the rules read out loud."""
    rng = np.random.default_rng(7)
    for _ in range(200):
        page = Page(most={"brand": int(rng.integers(1, 4))}, in_a_row={"tags": 1})
        actions, placed_at = 8, sorted(rng.choice(6, rng.integers(0, 3), replace=False).tolist())
        items = [
            Item(
                f"i{n}",
                {
                    "brand": [None, 1.0, True, "a", "b", ["a", "c"]][rng.integers(6)] or "z",
                    "tags": list(rng.choice(["x", "y", "z"], rng.integers(0, 3))),
                },
            )
            for n in range(actions + len(placed_at))
        ]
        columns = ItemColumns(["brand", "tags"], items)
        ruled = RuledPage(page, columns, columns.rows([item.id for item in items]), placed_at)

        chosen = rng.permutation(actions)[: rng.integers(0, 5)].tolist()
        slots = {slot: items[actions + at] for at, slot in enumerate(placed_at)}
        free = iter(slot for slot in range(20) if slot not in placed_at)
        slots |= {next(free): items[k] for k in chosen}
        following = next(free)

        said = ruled.after(chosen)
        barred = np.zeros(actions, bool) if said is None else np.isnan(said)
        for k in range(actions):
            if k not in chosen:
                assert barred[k] == bars(page, slots, following, items[k]), (k, slots, following)


def bars(page: Page, slots: dict[int, Item], following: int, item: Item) -> bool:
    def values(one: Item, name: str) -> set:
        value = one.features[name]
        own = value if isinstance(value, list) else [value]
        return {(type(each), each) for each in own}

    for value in values(item, "brand"):
        if sum(value in values(each, "brand") for each in slots.values()) >= page.most["brand"]:
            return True
    slots = {**slots, following: item}
    for value in values(item, "tags"):
        run, at = 0, following
        while at in slots and value in values(slots[at], "tags"):
            at -= 1
        at += 1
        while at in slots and value in values(slots[at], "tags"):
            run, at = run + 1, at + 1
        if run > page.in_a_row["tags"]:
            return True
    return False
