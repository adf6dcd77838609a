"""What the calls of several slots are promised, and what only their client can send."""

import math
import re
from collections import Counter
from typing import Any

from support.personalizer import refusal_of
from support.personalizer_checks.parts import (
    CONTEXT,
    OF_SLOTS,
    Check,
    Setting,
    actions,
    asked,
    check_of_slots,
    eventually,
    named,
)

from bandits.log.records import DecisionRecord, RerankedRecord, RewardRecord


def page(*slots: str, names: str = "abcdef", **fields: Any) -> dict:
    """The body of a multi-slot rank; each slot's baseline is the action in its place."""
    made = [{"id": slot, "baselineAction": names[at]} for at, slot in enumerate(slots)]
    return {"actions": actions(*names), "contextFeatures": CONTEXT, "slots": made, **fields}


@check_of_slots
def slots_are_answered_in_their_order_each_with_another_action(s: Setting) -> None:
    event = named("p")
    said = s["home"].rank_slots(page("top", "side", "foot", eventId=event))
    assert said["eventId"] == event
    assert [each["id"] for each in said["slots"]] == ["top", "side", "foot"]
    chosen = [each["rewardActionId"] for each in said["slots"]]
    assert len(set(chosen)) == 3
    record = s.decision(event)
    assert record.shown() == chosen
    assert record.slots == 3
    assert set(said) == {"slots", "eventId"}


@check_of_slots
def an_event_of_slots_without_id_gets_one_and_a_retry_the_same_answer(s: Setting) -> None:
    said = s["home"].rank_slots(page("one", "two"))
    assert re.fullmatch(r"[0-9a-f]{32}-[0-9A-Za-z]{5}", said["eventId"])
    event = named("p")
    first = s["home"].rank_slots(page("one", "two", eventId=event))
    assert s["home"].rank_slots(page("one", "two", eventId=event)) == first
    s.decision(event)


@check_of_slots
def a_slot_gets_nothing_that_it_excludes_and_none_stays_empty(s: Setting) -> None:
    """The last slot takes only a, so no other slot does."""
    body = page("one", "two", "three", names="cba")
    body["slots"][0]["excludedActions"] = ["b"]
    body["slots"][2]["excludedActions"] = ["b", "c"]
    for _ in range(5):
        event = named("p")
        said = s["home"].rank_slots({**body, "eventId": event})
        assert [each["rewardActionId"] for each in said["slots"]] == ["c", "b", "a"]
        assert s.decision(event).pmfs()[2].tolist() == [0, 0, 1]

    wide = page("one", "two")
    wide["slots"][0]["excludedActions"] = ["b", "c", "d", "e"]
    seen = {s["home"].rank_slots(wide)["slots"][0]["rewardActionId"] for _ in range(20)}
    assert seen == {"a", "f"}


@check_of_slots
def rewards_find_their_slots_by_name(s: Setting) -> None:
    """In one call, in several, and in whatever order the slots were sent."""
    for slots in (["top", "side", "foot"], ["foot", "top", "side"]):
        event = named("p")
        s["home"].rank_slots(page(*slots, eventId=event))
        s["home"].reward_slots(event, side=0.5, top=1.0)
        s["home"].reward_slots(event, foot=-0.25)
        rewards = s.service.of_event("home", event, RewardRecord)
        places = {each.slot: each.value for each in rewards}
        assert places == {
            slots.index("side"): 0.5,
            slots.index("top"): 1.0,
            slots.index("foot"): -0.25,
        }


@check_of_slots
def rewards_of_unknown_slots_and_events_are_taken_and_join_nothing(s: Setting) -> None:
    event, before = named("p"), s.service.folded("home").join.counts
    s["home"].rank_slots(page("one", "two", eventId=event))
    s["home"].reward_slots(event, three=1.0)
    s["home"].reward_slots(named("nobody"), one=1.0)
    s["home"].activate_slots(named("nobody"))
    after = Counter(s.service.folded("home").join.counts)
    after.subtract(before)
    assert (after["joined"], after["invalid"], after["orphan"]) == (0, 1, 1)


@check_of_slots
def an_activation_is_of_all_slots(s: Setting) -> None:
    event, before = named("p"), s.service.folded("home").join.counts
    s["home"].rank_slots(page("one", "two", eventId=event, deferActivation=True))
    s["home"].reward_slots(event, one=1.0, two=0.0)
    assert s.decision(event).deferred
    s["home"].activate_slots(event)
    after = Counter(s.service.folded("home").join.counts)
    after.subtract(before)
    assert (after["joined"], after["closed"], after["not_activated"]) == (2, 1, 0)


def described(*slots: str, **fields: Any) -> dict:
    """The body of a multi-slot rank whose slots have features: their size is their name."""
    body = page(*slots, **fields)
    for slot in body["slots"]:
        slot["features"] = [{"size": slot["id"], "place": {"x": 2}}]
    return body


@check_of_slots
def a_slot_with_features_is_a_decision_of_its_own_that_sees_them(s: Setting) -> None:
    """Among the actions that those above it have left; what is shared is of all."""
    event = named("p")
    body = described("top", "side", "foot", names="cba", eventId=event)
    body["slots"][0]["excludedActions"] = ["b"]
    body["slots"][2]["excludedActions"] = ["b", "c"]
    said = s["home"].rank_slots(body)
    assert [each["rewardActionId"] for each in said["slots"]] == ["c", "b", "a"]
    assert s["home"].rank_slots(body) == said
    for name, left in (("top", ["c"]), ("side", ["b"]), ("foot", ["a"])):
        record = s.decision(f"{event}/slots/{name}")
        assert record.action_ids == left
        assert record.context.get("slot.size") == name
        assert record.context.get("slot.place.x") == 2.0
        assert record.context.get("user.plan") == "free"
    assert s.service.of_event("home", event, DecisionRecord) == []


@check_of_slots
def rewards_and_activations_find_slots_that_are_decisions_of_their_own(s: Setting) -> None:
    event, before = named("p"), s.service.folded("home").join.counts
    s["home"].rank_slots(described("one", "two", eventId=event, deferActivation=True))
    s["home"].reward_slots(event, two=0.5, one=1.0, three=1.0)
    s["home"].activate_slots(event)
    for name, value in (("one", 1.0), ("two", 0.5)):
        rewards = s.service.of_event("home", f"{event}/slots/{name}", RewardRecord)
        assert [each.value for each in rewards] == [value]
    after = Counter(s.service.folded("home").join.counts)
    after.subtract(before)
    assert (after["joined"], after["closed"], after["not_activated"]) == (2, 2, 0)


@check_of_slots
def an_id_that_has_answered_a_page_goes_on_as_that(s: Setting) -> None:
    """Whether or not the slots of another request have features; both are decided anew."""
    for first, then, places in (
        (page, described, [""]),
        (described, page, ["/slots/one", "/slots/two"]),
    ):
        event = named("p")
        s["home"].rank_slots(first("one", "two", eventId=event))
        said = s["home"].rank_slots(then("one", "two", names="ghijkl", eventId=event))
        assert {each["rewardActionId"] for each in said["slots"]} <= {*"ghijkl"}
        for place in places:
            s.decision(f"{event}{place}")
            assert len(s.service.of_event("home", f"{event}{place}", RerankedRecord)) == 1


@check_of_slots
def what_is_best_depends_on_the_slot(s: Setting) -> None:
    """An action is learned to be good in one slot, and another one in the other."""
    best = {"one": "i", "two": "j"}  # what other checks know of a and b stays as it is

    def likes(first: str, second: str) -> bool:
        """Whether the slot that is chosen first likes its best, after some lessons."""
        body = described(first, second, names="ijkl")
        for _ in range(20):
            said = s["quick"].rank_slots(body)
            shown = {each["id"]: each["rewardActionId"] for each in said["slots"]}
            rewards = {name: float(best[name] == shown[name]) for name in best}
            s["quick"].reward_slots(said["eventId"], **rewards)
        event = named("p")
        s["quick"].rank_slots({**body, "eventId": event})
        record = s.decision(f"{event}/slots/{first}", "quick")
        return record.pmfs()[0][record.action_ids.index(best[first])] > 0.5

    if not getattr(s.service, "slots_taught", False):  # once for all clients
        eventually(lambda: likes("one", "two") & likes("two", "one"), "each slot has its own best")
        s.service.slots_taught = True


@check_of_slots
def an_apprentices_slots_with_features_have_their_baselines(s: Setting) -> None:
    event = named("p")
    body = described("one", "two", names="abcd", eventId=event)
    body["slots"][0]["baselineAction"], body["slots"][1]["baselineAction"] = "c", "a"
    said = s["novice"].rank_slots(body)
    assert [each["rewardActionId"] for each in said["slots"]] == ["c", "a"]
    for name in ("one", "two"):
        assert s.decision(f"{event}/slots/{name}", "novice").apprentice is not None


@check_of_slots
def an_apprentices_slots_have_their_baselines(s: Setting) -> None:
    event = named("p")
    body = page("one", "two", names="abcd", eventId=event)
    body["slots"][0]["baselineAction"], body["slots"][1]["baselineAction"] = "c", "a"
    said = s["novice"].rank_slots(body)
    assert [each["rewardActionId"] for each in said["slots"]] == ["c", "a"]
    assert s.decision(event, "novice").apprentice is not None


def _slot(**changes: Any) -> dict:
    return {"id": "one", "baselineAction": "a", **changes}


BAD_PAGES = {
    "no slots": {"slots": []},
    "slots that are null": {"slots": None},
    "more slots than actions": {
        "slots": [_slot(id="1"), _slot(id="2", baselineAction="b")],
        "actions": actions("a"),
    },
    "two slots of an id": {"slots": [_slot(), _slot(baselineAction="b")]},
    "a slot whose id is empty": {"slots": [_slot(id="")]},
    "a slot whose id is long": {"slots": [_slot(id="x" * 257)]},
    "no baseline": {"slots": [{"id": "one"}]},
    "a baseline that is no action": {"slots": [_slot(baselineAction="z")]},
    "a baseline that is excluded": {"slots": [_slot(excludedActions=["a"])]},
    "a baseline of two slots": {"slots": [_slot(), _slot(id="two")]},
    "an excluded id that is no action": {"slots": [_slot(excludedActions=["z"])]},
    "51 slots": {
        "slots": [_slot(id=str(i), baselineAction=str(i)) for i in range(51)],
        "actions": actions(*map(str, range(50))),
    },
    "no actions": {"actions": []},
}


def _bad_page(changes: dict) -> Check:
    def refused(s: Setting) -> None:
        refusal = refusal_of(lambda: s["home"].rank_slots({**page("one"), **changes}))
        assert refusal == (400, "InvalidRankRequest")

    return refused


for _name, _changes in BAD_PAGES.items():
    OF_SLOTS[f"a page with {_name} is refused"] = _bad_page(_changes)


@check_of_slots
def fields_that_are_not_known_are_left(s: Setting) -> None:
    """Older examples send some of them."""
    event = named()
    body = asked(eventId=event, learningEnabled=True, positionFeatures=[])
    body["actions"][0]["rank"] = 1
    s["home"].rank(body)
    s.decision(event)
    s["home"].rank_slots(page("one", eventId=named("p"), learningEnabled=False))


@check_of_slots
def ids_of_more_than_256_characters_are_refused(s: Setting) -> None:
    """The other client does not send them."""
    long = "x" * 257
    for body in (asked(eventId=long), asked(long), {"actions": [{"id": None, "features": [{}]}]}):
        assert refusal_of(lambda body=body: s["home"].rank(body)) == (400, "InvalidRankRequest")
    refusal = refusal_of(lambda: s["home"].reward(long, 1.0))
    assert refusal == (400, "InvalidRewardRequest")
    refusal = refusal_of(lambda: s["home"].activate(long))
    assert refusal == (400, "InvalidEventIdToActivate")


@check_of_slots
def rewards_without_a_value_are_refused(s: Setting) -> None:
    for body in ({}, {"value": None}, {"value": "1"}, []):
        refusal = refusal_of(lambda body=body: s["home"]._do("reward", "e", body))
        assert refusal == (400, "InvalidRewardRequest")
    for body in ({}, {"reward": None}, {"reward": [{"slotId": "one"}]}):
        refusal = refusal_of(lambda body=body: s["home"]._do("reward_multi_slot", "e", body))
        assert refusal == (400, "InvalidRewardRequest")


@check_of_slots
def rewards_of_slots_that_are_none_are_refused_all_or_none(s: Setting) -> None:
    event = named("p")
    s["home"].rank_slots(page("one", "two", eventId=event))
    status, code = refusal_of(lambda: s["home"].reward_slots(event, one=1.0, two=math.nan))
    assert (status, code) == (400, "InvalidRewardRequest")
    status, code = refusal_of(lambda: s["home"].reward_slots(event, **{"one": 1.0, "": 1.0}))
    assert (status, code) == (400, "InvalidRewardRequest")
    assert s.service.of_event("home", event, RewardRecord) == []
