"""The doctor asks the rules of each decision again, and finds whoever applies them otherwise."""

import asyncio
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from support.fakes import SALT, FakeLog
from support.items import MemoryItems, patch

from bandits.log.records import ControlRecord, Placed, Removed, Ruled, Unplaced
from policies.items.past import ItemsPast
from policies.profiles.known_user import KnownUser
from policies.profiles.part import ProfileEvent
from policies.profiles.user_profile import UserProfile
from policies.ranker import Ranker
from policies.requests import ActionRequest, Item, RankRequest
from policies.rules.pages.ruled_page import RuledPage
from policies.rules.placements import OnPage, Placements
from policies.rules.quotas.quota import Control
from policies.rules.ruled_items import RuledItems
from policies.rules.ruling import Admission, Ruling
from policies.sources.base import Candidates, ImmediateSource, SourceRequest
from policies.spec import spec_of
from simulator.doctor.checks.references import ReferencedBlobs
from simulator.doctor.checks.rules import RuledDecisions
from simulator.doctor.examine import examine

ITEMS = [
    Item(
        f"i{n}",
        {"stock": float(n % 3), "price": float(n), "brand": "abc"[n % 3], "size": "lms"[n % 2]},
    )
    for n in range(24)
]
SPEC = {
    "name": "home",
    "sources": [{"kind": "fresh", "name": "new"}],
    "limit": 6,
    "filter": {"where": "item.stock > 0 && time.hour < 24", "fields": ["price"]},
    "boost": [
        {"when": 'item.brand == "b" && context.vip == true', "by": 0.3},
        {"when": "!(item.id in profile.purchase)", "by": 0.1},
    ],
    "page": {"most": {"brand": 1}, "diversity": {"by": "size", "weight": 0.5}},
    "quota": [{"when": 'item.brand == "c"', "at_least": 0.2}],
    "profile": {"types": {"purchase": 1}},
    "holdout": {"fraction": 0.25, "field": "visit"},
}


QUOTA = 'at_least item.brand == "c"'


class AnyOrder(ImmediateSource):
    """Proposes items in an order that the user has, whatever there is of each."""

    name = "new"

    def propose(self, request: SourceRequest, limit: int) -> Candidates:
        order = np.random.default_rng(len(request.user_id or "")).permutation(len(ITEMS))[:limit]
        scores = -np.arange(len(order), dtype=np.float32)
        return Candidates(tuple(ITEMS[at].id for at in order), scores)


class Shop:
    """A policy with its log and its items, whose stock changes while decisions are made."""

    def __init__(self, spec=SPEC) -> None:
        self.spec = spec_of(spec)
        self.log, self.items, self.now = FakeLog(self.spec), MemoryItems(), 1_000
        self.ranker = Ranker(self.spec, [AnyOrder()], salt=SALT, clock=lambda: self.now / 1000)
        self.snapshot = self.log.fold().snapshot()
        self.ranker.serve("s0", self.snapshot)
        self.items.replace(ITEMS)
        self.ranker.offer(self.items.timeline.newest, self.items.timeline)

    def put(self, item_id: str, **features) -> None:
        self.items.append(patch(item_id, features=features))
        self.ranker.offer(self.items.timeline.newest, self.items.timeline, [item_id])

    def steer(self, price: float) -> None:
        self.now += 1
        entry = self.log.append(ControlRecord({QUOTA: price}), at=self.now)
        self.ranker.steer(Control(entry.id, {QUOTA: price}))

    def decide(self, number: int, slots: int = 1, **fields):
        self.now += 10
        bought = UserProfile((ProfileEvent(1, 1, 0, f"i{number % 9}", "purchase"),), (), "v")
        request = RankRequest(
            event_id=f"e{number}",
            user_id="u" * (1 + number % 7),
            context={"vip": number % 2 == 0, "visit": number},
            slots=slots,
            **fields,
        )
        known = KnownUser(f"p{number % 7}", bought)
        record = asyncio.run(self.ranker.rank(request, known))
        self.log.append(record, at=self.now)
        return record

    def trade(self) -> None:
        """Decide of proposals and of actions that are sent, while items are sold and come."""
        actions = [ActionRequest(item.id) for item in ITEMS[:12]]
        own = [ActionRequest("own", {"stock": 2.0}), ActionRequest("none", {"stock": 0.0})]
        for number in range(0, 40, 4):
            self.put(f"i{number % 24}", stock=float(number % 8 > 0))
            self.steer(number / 64)
            self.decide(number, slots=2)
            self.decide(number + 1, filter="item.price < 16")
            self.decide(number + 2, actions=actions, filter="item.price > 2 || item.stock > 1")
            self.decide(number + 3, actions=[*actions, *own])

    def states_of(self, entry) -> bool:
        ruled = getattr(entry.record, "rules", None)
        return ruled is not None and ruled.control is not None

    def finding(self, records=None):
        check = RuledDecisions(self.stored, limit=1000)
        for entry in self.log.entries if records is None else records:
            check.add(entry)
        (finding,) = check.findings()
        return finding

    @property
    def stored(self) -> ReferencedBlobs:
        past = ItemsPast(self.items)
        return ReferencedBlobs(self.log.blobs.get, lambda _: self.snapshot, items=past)


def test_what_follows_the_rules_is_well_however_items_change_between():
    shop = Shop()
    shop.trade()
    report = examine(shop.log.entries, salts={"salt": SALT}, stored=shop.stored)
    found = {finding.check: finding for finding in report.findings}
    figures = found["rules"].figures
    assert (found["rules"].severity, figures["checked"], figures["faulty"]) == ("ok", 40, 0)
    assert figures["removed"] > 100
    assert figures["boosted"] >= 20
    assert figures["under_quotas"] >= 20
    assert figures["without_state"] == 0
    assert figures["under_page_rules"] >= 10
    assert (found["derivations"].severity, found["draws"].severity) == ("ok", "ok")
    assert report.trusted


PLACEMENTS = [
    {"item": "i7", "slot": 1, "when": "context.vip == true"},
    {"item": "i4", "slot": 0},
    {"item": "i3", "slot": 0},
    {"item": "i8", "slot": 0, "when": "context.vip == false"},
    {"item": "i9", "slot": 2, "until": "1970-01-01T00:00:00Z"},
]


def test_pages_with_placed_items_are_well_also_where_all_is_placed():
    shop = Shop({**SPEC, "placements": PLACEMENTS})
    for number in range(24):
        shop.put("i4", stock=float(number % 3))
        shop.decide(number, slots=1 + number % 3)
    report = examine(shop.log.entries, salts={"salt": SALT}, stored=shop.stored)
    found = {finding.check: finding for finding in report.findings}
    assert (found["rules"].severity, found["rules"].figures["checked"]) == ("ok", 24)
    assert (found["derivations"].severity, found["draws"].severity) == ("ok", "ok")
    assert not [finding for finding in report.findings if finding.severity == "failure"]
    records = [entry.record for entry in shop.log.entries if hasattr(entry.record, "placed")]
    assert {len(record.chosen) for record in records} >= {0, 1}
    assert {each.reason for record in records for each in record.rules.unplaced} == {
        "filtered",
        "taken",
    }


def test_a_page_of_a_build_that_did_not_name_what_found_its_slot_taken_is_well():
    shop = Shop({**SPEC, "placements": PLACEMENTS[1:3]})
    for item in ("i4", "i3"):
        shop.put(item, stock=2.0)
    record = shop.decide(1, slots=2)
    assert record.rules.unplaced == [Unplaced(0, "i3", "taken")]
    rules = msgspec.structs.replace(record.rules, unplaced=[])
    (entry,) = [each for each in shop.log.entries if each.record is record]
    before = msgspec.structs.replace(entry, record=msgspec.structs.replace(record, rules=rules))
    assert shop.finding([before]).severity == "ok"


@pytest.mark.parametrize(
    "said",
    [
        {"placed": []},
        {"placed": [Placed(0, "i5")]},
        {"unplaced": []},
        {"unplaced": [Unplaced(0, "i4", "unavailable")]},
    ],
)
def test_a_page_that_says_otherwise_what_was_placed_is_found(said):
    shop = Shop({**SPEC, "placements": PLACEMENTS[1:3]})
    shop.put("i4", stock=0.0)
    shop.put("i3", stock=1.0)
    record = shop.decide(1, slots=2)
    assert (record.placed, record.rules.unplaced) == (
        [Placed(0, "i3")],
        [Unplaced(0, "i4", "filtered")],
    )
    rules = msgspec.structs.replace(record.rules, **said, short=None)
    other = msgspec.structs.replace(record, rules=rules)
    (entry,) = [each for each in shop.log.entries if each.record is record]
    finding = shop.finding([msgspec.structs.replace(entry, record=other)])
    assert (finding.severity, finding.figures["placed"]) == ("failure", 1)


def test_of_a_policy_without_rules_nothing_is_said():
    shop = Shop({"name": "home"})
    shop.decide(0, actions=[ActionRequest("a")])
    check = RuledDecisions(shop.stored, limit=10)
    for entry in shop.log.entries:
        check.add(entry)
    assert list(check.findings()) == []


def test_where_the_items_are_gone_nothing_was_checked():
    shop = Shop()
    shop.decide(0)
    shop.items.blobs.clear()
    assert shop.finding().severity == "nothing"


# Mutants, each of which is found


async def admits_all(self, ids, rows=None):
    """Filter after the draw: what is drawn from has all."""
    return np.arange(len(ids))


def boosts_unsaid(self, boosts, *others):
    """Boost in the draw only."""
    return RECORD(self, None, *others)


def sold_out_unheard(self, item_id, item):
    """Stale stock."""


async def filtered_twice(self, ids, rows=None):
    """The pool is filtered again, by something else."""
    kept = await SIFT(self, ids, rows)
    self.removed.update(dict.fromkeys(ids[at] for at in kept[2::3]))
    return np.delete(kept, np.s_[2::3])


def other_state(self, ids, features, control=None):
    """Quota of another state."""
    if control is not None:
        control = msgspec.structs.replace(control, prices={QUOTA: 0.0625})
    return BOOSTS(self, ids, features, control)


def all_alike(self, item):
    """Diversity by something else."""
    return np.ones(self._actions)


def nothing_placed(self, *asked):
    """What the spec places is left out."""
    return OnPage([], [])


RECORD, SIFT, BOOSTS = Ruling.record, Admission.sift, Ruling.boosts


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ([(Admission, "sift", admits_all)], "not_admitted"),
        ([(Ruling, "record", boosts_unsaid)], "boosts"),
        ([(RuledItems, "change", sold_out_unheard)], "not_admitted"),
        ([(Admission, "sift", filtered_twice)], "not_refused"),
        ([(Ruling, "boosts", other_state)], "boosts"),
        ([(RuledPage, "_likeness", all_alike)], "page"),
        ([(Placements, "on_page", nothing_placed)], "placed"),
    ],
    ids=[
        "filter after the draw",
        "boost in the draw only",
        "stale stock",
        "pool filtered twice",
        "quota of another state",
        "diversity of other items",
        "placements that are not there",
    ],
)
def test_whoever_applies_rules_otherwise_is_found(changed, kind, monkeypatch):
    for place, name, instead in changed:
        monkeypatch.setattr(place, name, instead)
    shop = Shop({**SPEC, "placements": PLACEMENTS} if kind == "placed" else SPEC)
    shop.trade()
    monkeypatch.undo()
    finding = shop.finding()
    assert finding.severity == "failure"
    assert finding.figures[kind] > 0
    assert finding.cause
    assert finding.figures["first"] in finding.message


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ({"removed": {"filter.where": Removed(["i3"], 2)}}, "not_refused", "which removed 2"),
        ({"removed": {"filter.where": Removed(["i1"], 1)}}, "not_refused", "could be chosen"),
        ({"removed": {"quota": Removed(["i3"], 1)}}, "not_refused", "of which it has none"),
        (
            {"removed": {"filter.where": Removed(["i3", "i3"], 2)}},
            "not_refused",
            "was removed twice",
        ),
        (
            {"removed": {"filter": Removed(["i3"], 1)}, "filter": "item.price < 3"},
            "not_refused",
            "by the policy's filter already",
        ),
        ({"filter": "item.price +"}, "not_admitted", "its filter is none"),
        ({"filter": "item.price > 9"}, "not_admitted", "filter refuses 'i1'"),
        ({"now_ms": None}, "unsaid", "looks at the time"),
        ({"now_ms": 99_000}, "unsaid", "its moment is 99000"),
        ({"did": None}, "unsaid", "looks at profile.purchase"),
        ({"boosts": np.ones(2, "<f4").tobytes()}, "boosts", "1 was added to 'i1'"),
        ({"page": np.ones(2, "<f2").tobytes()}, "page", "4 bytes say what its page's rules"),
        ({"short": "no more"}, "page", "let another item follow"),
        ({"boosts": np.ones(3, "<f4").tobytes()}, "boosts", "3 boosts of 2 actions"),
    ],
)
def test_a_record_that_says_something_else_is_found(said, kind, message):
    shop = Shop()
    actions = [ActionRequest("i1"), ActionRequest("i2")]
    record = shop.decide(1, actions=actions)
    assert record.holdout is False
    ruled = msgspec.structs.replace(record.rules, **said)
    entry = shop.log.entries[-1]
    assert shop.finding([entry]).severity == "ok"
    changed = msgspec.structs.replace(record, rules=ruled)
    finding = shop.finding([msgspec.structs.replace(entry, record=changed)])
    assert finding.figures[kind] == 1
    assert message in finding.message


def test_what_the_holdout_is_served_is_filtered_and_not_boosted():
    shop = Shop()
    shop.trade()
    held = [entry for entry in shop.log.entries if getattr(entry.record, "holdout", False)]
    assert held
    assert shop.finding(held).severity == "ok"
    pushed = [
        msgspec.structs.replace(
            entry,
            record=msgspec.structs.replace(
                entry.record,
                rules=msgspec.structs.replace(
                    entry.record.rules,
                    boosts=np.full(len(entry.record.action_ids), 0.1, "<f4").tobytes(),
                ),
            ),
        )
        for entry in held
    ]
    assert shop.finding(pushed).figures["boosts"] == len(held)


def test_a_state_of_the_quotas_that_was_never_said_is_found():
    shop = Shop()
    shop.trade()
    entry = next(each for each in reversed(shop.log.entries) if shop.states_of(each))
    assert shop.finding([entry]).figures["without_state"] == 1  # of another partition's log

    elsewhere = msgspec.structs.replace(entry.record.rules, control="1005-7")
    changed = msgspec.structs.replace(entry.record, rules=elsewhere)
    wrong = msgspec.structs.replace(entry, record=changed)
    finding = shop.finding([*shop.log.entries, wrong])
    assert finding.figures["boosts"] == 1
    assert "names state 1005-7" in finding.message


def test_what_is_not_offered_is_not_proposed():
    shop = Shop()
    later = datetime.fromtimestamp(90_000, UTC)
    shop.items.replace([Item("i1", {"stock": 1.0}, hidden=True), *ITEMS[2:]])
    shop.ranker.offer(shop.items.timeline.newest, shop.items.timeline)
    shop.items.append(patch("i2", available_from=later.isoformat()))
    version = shop.items.timeline.version
    for item_id, severity in (("i1", "failure"), ("i2", "failure"), ("i4", "ok"), ("x", "failure")):
        record = shop.decide(1, actions=[ActionRequest(item_id, {"stock": 1.0})])
        sent = msgspec.structs.replace(record, catalogue=version)
        entry = msgspec.structs.replace(shop.log.entries[-1], record=sent)
        assert shop.finding([entry]).severity == "ok"  # a request may send what it likes
        proposed = msgspec.structs.replace(sent, artifact="a")
        finding = shop.finding([msgspec.structs.replace(entry, record=proposed)])
        assert finding.severity == severity, item_id


def test_what_is_private_cannot_be_asked_again():
    shop = Shop(
        {
            "name": "home",
            "filter": "item.price > context.age",
            "boost": [{"when": "context.age > 3", "by": 0.5}],
            "context_private": ["age"],
        }
    )
    request = RankRequest(
        actions=[ActionRequest("i3"), ActionRequest("i9")], context={"age": 5.0}, event_id="e"
    )
    record = asyncio.run(shop.ranker.rank(request))
    assert record.action_ids == ["i9"]
    assert record.context == {}
    shop.log.append(record, at=shop.now)
    finding = shop.finding()
    assert (finding.severity, finding.figures["private"]) == ("ok", 1)
    assert "private" in finding.message


def test_late_faults_of_a_long_log_are_found():
    shop = Shop()
    record = shop.decide(1, actions=[ActionRequest("i1"), ActionRequest("i3")])
    wrong = msgspec.structs.replace(record, action_ids=["i3"], pmf=record.pmf[:8])
    entry = shop.log.entries[-1]
    check = RuledDecisions(shop.stored, limit=10)
    for number in range(1000):
        said = wrong if number > 500 else record
        check.add(msgspec.structs.replace(entry, record=said))
    (finding,) = check.findings()
    assert 10 < finding.figures["checked"] < 100
    assert 0 < finding.figures["not_admitted"] < 20


def test_rules_of_a_spec_that_has_none_are_a_failure():
    shop = Shop({"name": "home"})
    record = shop.decide(0, actions=[ActionRequest("a")])
    ruled = Ruled(boosts=np.ones(1, "<f4").tobytes())
    changed = msgspec.structs.replace(record, rules=ruled)
    assert shop.finding([msgspec.structs.replace(shop.log.entries[-1], record=changed)]).figures[
        "faulty"
    ]
