"""What Personalizer's clients are promised, as checks of one client each: a check fails by an assertion."""

import math
import re
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from support.personalizer import Adapted, Newer, Older, refusal_of

from bandits.log.records import (
    ActivationRecord,
    DecisionRecord,
    RerankedRecord,
    RewardRecord,
)

PATIENCE_S = 20.0
EPSILON = 0.2
CONTEXT = [{"user": {"age": 30, "plan": "free"}}, {"hour": 8}]
_numbers = count()


class Setting:
    """One client of the service, for each of its policies.

    ``home`` never learns within a test; ``quick`` learns within a second; ``novice`` imitates and
    ``watched`` learns the rewards of what its caller shows.
    """

    def __init__(self, service: Adapted, kind: type[Older | Newer]) -> None:
        self.service, self.kind = service, kind
        self._clients: dict[str, Older | Newer] = {}

    def __getitem__(self, policy: str) -> Any:
        if policy not in self._clients:
            self._clients[policy] = self.kind(f"{self.service.url}/policies/{policy}")
        return self._clients[policy]

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()

    def decision(self, event_id: str, policy: str = "home") -> DecisionRecord:
        """The one decision of an event."""
        (found,) = self.service.of_event(policy, event_id, DecisionRecord)
        return found


Check = Callable[[Setting], None]
CHECKS: dict[str, Check] = {}
OF_SLOTS: dict[str, Check] = {}


def check(function: Check) -> Check:
    """A check of either client."""
    CHECKS[function.__name__] = function
    return function


def check_of_slots(function: Check) -> Check:
    """A check of the client that knows multi-slot calls."""
    OF_SLOTS[function.__name__] = function
    return function


def named(prefix: str = "e") -> str:
    """An event id that nobody has."""
    return f"{prefix}-{next(_numbers)}"


def actions(*names: str, **features: Any) -> list[dict]:
    """Actions of these ids."""
    return [{"id": name, "features": [{"topic": name, **features}]} for name in names]


def asked(*names: str, **fields: Any) -> dict:
    """The body of a rank."""
    return {"actions": actions(*(names or "abc")), "contextFeatures": CONTEXT, **fields}


def probabilities(said: dict) -> list[float]:
    """Those of an answer, in its order."""
    return [each["probability"] for each in said["ranking"]]


def ids(said: dict) -> list[str]:
    """The actions of an answer, in its order."""
    return [each["id"] for each in said["ranking"]]


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition to hold; return what it gave."""
    deadline = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"it never happened: {what}"
        time.sleep(0.02)
    return result


# Rank


@check
def an_answer_has_every_action_the_choice_and_the_event(s: Setting) -> None:
    """The choice stands first, and the probabilities are those of the log."""
    event = named()
    said = s["home"].rank(asked(eventId=event))
    assert said["eventId"] == event
    assert sorted(ids(said)) == ["a", "b", "c"]
    assert ids(said)[0] == said["rewardActionId"]
    assert abs(sum(probabilities(said)) - 1) < 1e-12
    record = s.decision(event)
    logged = dict(zip(record.action_ids, record.pmfs()[0], strict=True))
    assert {each["id"]: each["probability"] for each in said["ranking"]} == logged
    assert record.shown() == [said["rewardActionId"]]


@check
def before_anything_is_learned_all_are_alike(s: Setting) -> None:
    """Also among those that are left."""
    assert np.allclose(probabilities(s["home"].rank(asked())), 1 / 3)
    said = s["home"].rank(asked(*"abcde", excludedActions=["b"]))
    assert sorted(probabilities(said)) == [0, 0.25, 0.25, 0.25, 0.25]


@check
def a_single_action_is_certain(s: Setting) -> None:
    assert probabilities(s["home"].rank(asked("only"))) == [1.0]


@check
def what_is_excluded_stays_in_its_place_at_nought(s: Setting) -> None:
    """Also first, where it stands before the choice."""
    for out in ("b", "a", "d"):
        for _ in range(6):
            said = s["home"].rank(asked(*"abcd", excludedActions=[out]))
            place = "abcd".index(out)
            assert said["ranking"][place] == {"id": out, "probability": 0.0}
            assert sorted(ids(said)) == [*"abcd"]
            others = [name for name in ids(said) if name != out]
            assert others[0] == said["rewardActionId"] != out


@check
def an_excluded_id_that_is_no_action_changes_nothing(s: Setting) -> None:
    said = s["home"].rank(asked(excludedActions=["z"]))
    assert np.allclose(probabilities(said), 1 / 3)


@check
def an_event_without_id_gets_one(s: Setting) -> None:
    """Of the form that the service had, each its own, and good for a reward."""
    found = {s["home"].rank(asked(**each))["eventId"] for each in ({}, {"eventId": None}, {})}
    assert len(found) == 3
    for event in found:
        assert re.fullmatch(r"[0-9a-f]{32}-[0-9A-Za-z]{5}", event), event
        s["home"].reward(event, 1.0)
        s.decision(event)
        assert len(s.service.of_event("home", event, RewardRecord)) == 1


@check
def the_same_request_again_has_the_same_answer(s: Setting) -> None:
    """It is decided once."""
    event = named()
    first = s["home"].rank(asked(*"abcdef", eventId=event))
    for _ in range(3):
        assert s["home"].rank(asked(*"abcdef", eventId=event)) == first
    s.decision(event)
    assert s.service.of_event("home", event, RerankedRecord) == []


@check
def another_request_under_an_id_is_decided_too_and_not_learned(s: Setting) -> None:
    """At the same uniform; the log has the first as the decision."""
    event = named()
    first = s["home"].rank(asked(*"abcdef", eventId=event))
    again = s["home"].rank(asked(*"ghijkl", eventId=event))
    assert again["eventId"] == event
    assert ord(again["rewardActionId"]) - ord(first["rewardActionId"]) == 6
    assert s.decision(event).shown() == [first["rewardActionId"]]
    (logged,) = s.service.of_event("home", event, RerankedRecord)
    assert logged.event_id == event
    fold = s.service.folded("home")
    assert fold.join.counts["reranked"] >= 1
    assert fold.join.counts["duplicate_decision"] == 0


@check
def a_context_may_be_missing_null_or_empty(s: Setting) -> None:
    for context in (None, []):
        event = named()
        s["home"].rank(asked(eventId=event, contextFeatures=context))
        assert s.decision(event).context == {}
    body, event = asked(eventId=named()), None
    del body["contextFeatures"]
    event = body["eventId"]
    s["home"].rank(body)
    assert s.decision(event).context == {}


@check
def features_are_logged_by_their_path(s: Setting) -> None:
    """Texts, numbers, booleans, arrays of numbers; what begins with an underscore, and null, is not there."""
    event = named()
    sent = {
        "user": {"age": 30, "plan": "free", "_secret": 1, "none": None, "taste": [0.5, 2]},
        "_hidden": {"x": 1},
        "vip": True,
        "old": False,
    }
    body = asked(eventId=event, contextFeatures=[sent, {"hour": 8.5}])
    body["actions"][0]["features"] = [{"x": 1, "deep": {"y": {"z": "w"}}}, {"x": 2}]
    s["home"].rank(body)
    record = s.decision(event)
    assert record.context == {
        "user.age": 30.0,
        "user.plan": "free",
        "user.taste.0": 0.5,
        "user.taste.1": 2.0,
        "vip": True,
        "old": False,
        "hour": 8.5,
    }
    assert record.features[0] == {"x": 3.0, "deep.y.z": "w"}


@check
def fifty_actions_of_a_hundred_nested_features_are_ranked(s: Setting) -> None:
    nested = {f"n{i}": {f"f{j}": float(j) for j in range(10)} for i in range(10)}
    body = {"actions": actions(*map(str, range(50)), **nested), "contextFeatures": [nested]}
    said = s["home"].rank(body)
    assert len(said["ranking"]) == 50
    assert math.isclose(sum(probabilities(said)), 1)


@check
def odd_ids_are_the_same_event_in_every_call(s: Setting) -> None:
    """Slashes, dots, signs, letters of any script, 256 of them."""
    for odd in ("a/b", "a%2Fb", "a#b?c&d", "x/../y", " ", "é世界", "世" * 250, "x" * 250, "a+b;c"):
        event = f"{odd}{named('')}"
        said = s["home"].rank(asked(eventId=event, deferActivation=True))
        assert said["eventId"] == event
        s["home"].reward(event, 0.5)
        s["home"].activate(event)
        records = s.service.records("home")[-3:]
        assert [type(each) for each in records] == [DecisionRecord, RewardRecord, ActivationRecord]
        assert len({each.event_id for each in records}) == 1


@check
def a_deferred_event_is_logged_as_one(s: Setting) -> None:
    for defer in (True, False):
        event = named()
        s["home"].rank(asked(eventId=event, deferActivation=defer))
        assert s.decision(event).deferred is defer


BAD = {
    "no actions": {"actions": []},
    "51 actions": {"actions": actions(*map(str, range(51)))},
    "an empty id": {"actions": [{"id": "", "features": [{"x": 1}]}]},
    "two of an id": {"actions": actions("a", "a")},
    "no features": {"actions": [{"id": "a", "features": []}]},
    "features that are null": {"actions": [{"id": "a", "features": [None]}]},
    "features that are no objects": {"actions": [{"id": "a", "features": ["x"]}]},
    "NaN": {"actions": [{"id": "a", "features": [{"x": math.nan}]}]},
    "an infinite number": {"contextFeatures": [{"x": math.inf}]},
    "a name that is empty": {"contextFeatures": [{"": 1}]},
    "a nested name that is empty": {"actions": [{"id": "a", "features": [{"n": {"": 1}}]}]},
    "an array of texts": {"contextFeatures": [{"x": ["a"]}]},
    "null in the context": {"contextFeatures": [{"x": 1}, None]},
    "an empty event id": {"eventId": ""},
    "everything excluded": {"excludedActions": ["a", "b", "c"]},
    "too many features": {"contextFeatures": [{f"f{i}": 1 for i in range(300)}]},
}


def _bad_rank(changes: dict) -> Check:
    def refused(s: Setting) -> None:
        before = len(s.service.records("home"))
        status, code = refusal_of(lambda: s["home"].rank({**asked(), **changes}))
        assert (status, code) == (400, "InvalidRankRequest")
        assert len(s.service.records("home")) == before

    return refused


for _name, _changes in BAD.items():
    CHECKS[f"a rank with {_name} is refused"] = _bad_rank(_changes)


@check
def another_key_and_another_policy_are_refused(s: Setting) -> None:
    stranger = s.kind(f"{s.service.url}/policies/home", key="bl_tester_wrong")
    assert refusal_of(lambda: stranger.rank(asked())) == (401, "401")
    assert refusal_of(lambda: stranger.reward("e", 1))[0] == 401
    stranger.close()
    lost = s.kind(f"{s.service.url}/policies/none")
    assert refusal_of(lambda: lost.rank(asked())) == (404, "ResourceNotFound")
    lost.close()
    vague = s.kind(s.service.url)
    assert refusal_of(lambda: vague.rank(asked())) == (404, "ResourceNotFound")
    vague.close()


# What comes of it


@check
def rewards_and_activations_of_any_event_are_taken(s: Setting) -> None:
    """Unknown, twice, early."""
    event = named("unknown")
    for value in (1, 0.25, -1):
        s["home"].reward(event, value)
    s["home"].activate(event)
    s["home"].activate(event)
    s["home"].rank(asked(eventId=event))
    rewards = s.service.of_event("home", event, RewardRecord)
    assert [each.value for each in rewards] == [1.0, 0.25, -1.0]
    assert len({each.reward_id for each in rewards}) == 3
    assert len(s.service.of_event("home", event, ActivationRecord)) == 2


@check
def an_event_may_be_called_as_a_part_of_its_path(s: Setting) -> None:
    for event in ("events", "reward", "activate", "multislot"):
        before = len(s.service.of_event("home", event, RewardRecord))
        s["home"].reward(event, 0.5)
        s["home"].activate(event)
        assert len(s.service.of_event("home", event, RewardRecord)) == before + 1


@check
def rewards_that_are_no_numbers_are_refused(s: Setting) -> None:
    event = named()
    for value in (math.nan, math.inf, -math.inf):
        status, code = refusal_of(lambda value=value: s["home"].reward(event, value))
        assert (status, code or "InvalidRewardRequest") == (400, "InvalidRewardRequest")
    assert s.service.of_event("home", event, RewardRecord) == []


@check
def events_without_id_are_refused(s: Setting) -> None:
    assert refusal_of(lambda: s["home"].reward("", 1.0))[0] == 400
    assert refusal_of(lambda: s["home"].activate(""))[0] == 400


@check
def only_activated_events_are_learned_rewarded_or_not(s: Setting) -> None:
    """In whichever order the activation and the reward come."""
    never, late, early, default = (named() for _ in range(4))
    before = s.service.folded("home").join.counts
    s["home"].activate(early)
    for event in (never, late, early, default):
        s["home"].rank(asked(eventId=event, deferActivation=True))
    for event in (never, late, early):
        s["home"].reward(event, 1.0)
    s["home"].activate(late)
    s["home"].activate(default)
    after = Counter(s.service.folded("home").join.counts)
    after.subtract(before)
    assert (after["closed"], after["not_activated"]) == (3, 1)
    assert (after["joined"], after["unactivated"]) == (2, 1)


def _taught(s: Setting) -> None:
    """Teach ``quick`` that b is best, once for all clients."""
    if getattr(s.service, "taught", False):
        return
    for _ in range(150):
        said = s["quick"].rank(asked())
        if said["rewardActionId"] == "b":
            s["quick"].reward(said["eventId"], 1.0)
    eventually(lambda: _of(s["quick"].rank(asked()), "b") > 0.5, "b is liked best")
    s.service.taught = True


def _of(said: dict, name: str) -> float:
    return next(each["probability"] for each in said["ranking"] if each["id"] == name)


@check
def what_was_rewarded_is_chosen_by_epsilon_greedy(s: Setting) -> None:
    """The best has 1 - e + e/n, each other e/n, n without what is excluded."""
    _taught(s)
    said = s["quick"].rank(asked(*"abcd", excludedActions=["c"]))
    assert math.isclose(_of(said, "b"), 1 - EPSILON + EPSILON / 3, abs_tol=1e-9)
    assert math.isclose(_of(said, "a"), EPSILON / 3, abs_tol=1e-9)
    assert math.isclose(_of(said, "d"), EPSILON / 3, abs_tol=1e-9)
    assert _of(said, "c") == 0


@check
def an_explored_choice_changes_places_with_the_best(s: Setting) -> None:
    _taught(s)
    for _ in range(300):
        said = s["quick"].rank(asked(*"acdb"))
        if said["rewardActionId"] == "d":
            assert ids(said) == ["d", "a", "c", "b"]
            assert _of(said, "b") > 0.5
            return
        if said["rewardActionId"] == "b":
            assert ids(said) == ["b", "a", "c", "d"]
    raise AssertionError("d is never explored")


# Learning modes


@check
def an_apprentice_serves_the_first_that_is_not_excluded(s: Setting) -> None:
    """In the order that was sent, and what it would have chosen is in the log."""
    for policy in ("novice", "watched"):
        for out, first in (([], "a"), (["a"], "b"), (["a", "b"], "c")):
            event = named()
            said = s[policy].rank(asked(*"abcd", eventId=event, excludedActions=out))
            assert said["rewardActionId"] == first
            assert ids(said) == [*"abcd"]
            assert _of(said, first) == 1.0
            record = s.decision(event, policy)
            assert record.apprentice is not None
            assert record.apprentice.served in {"first", "request"}
            assert record.propensity(0) == 1.0


@check
def an_imitating_apprentice_learns_whatever_is_rewarded(s: Setting) -> None:
    """It comes to choose what is served."""

    def imitates() -> bool:
        event = named()
        s["novice"].reward(s["novice"].rank(asked(eventId=event))["eventId"], -1.0)
        own = s.decision(event, "novice").own()
        return own.pmfs()[0][0] > 0.5

    eventually(imitates, "the first is liked best")


# Several slots


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


@check_of_slots
def features_of_slots_are_of_the_context(s: Setting) -> None:
    body = page("top", eventId=named("p"))
    body["slots"][0]["features"] = [{"size": "large", "place": {"x": 2}}]
    s["home"].rank_slots(body)
    context = s.decision(body["eventId"]).context
    assert context.get("slots.top.size") == "large"
    assert context.get("slots.top.place.x") == 2.0


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
