"""What a rank of one slot is promised to answer."""

import math
import re

import numpy as np
from support.personalizer import refusal_of
from support.personalizer_checks.parts import (
    CHECKS,
    Check,
    Setting,
    actions,
    asked,
    check,
    ids,
    named,
    probabilities,
)

from bandits.log.records import ActivationRecord, DecisionRecord, RerankedRecord, RewardRecord


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
def a_feature_that_is_a_text_here_and_a_number_there_is_two_texts(s: Setting) -> None:
    event = named()
    s["home"].rank(asked(eventId=event, contextFeatures=[{"x": "one"}, {"x": 2}, {"x": True}]))
    assert s.decision(event).context == {"x": ["one", "2", "true"]}


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
