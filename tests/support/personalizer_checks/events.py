"""What becomes of rewards and activations, and what is chosen by what was learned."""

import math
from collections import Counter

from support.personalizer import refusal_of
from support.personalizer_checks.parts import EPSILON, Setting, asked, check, eventually, ids, named

from bandits.log.records import ActivationRecord, RewardRecord


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
    for event in ("events", "reward", "activate", "multislot", ".."):
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
