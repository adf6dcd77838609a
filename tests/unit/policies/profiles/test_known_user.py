"""What is known of a user speaks to sources as a history sent does, and holds back what it should."""

import asyncio
import dataclasses

import msgspec
import numpy as np
import pytest
from support.events import coded_events
from support.fakes import SALT, FakeLog, fresh_ranker

from bandits.errors import NoCandidatesError, SpecError
from bandits.types import Float32
from policies.artifacts.histories import Profile
from policies.artifacts.profile_file import open_profiles, write_profiles
from policies.artifacts.source_artifact import Artifact, Calibration
from policies.profiles.known_user import (
    NOTHING,
    Before,
    KnownUser,
    LiveHistory,
    RepeatRules,
    live_history,
)
from policies.profiles.options import ProfileOptions, Times
from policies.profiles.part import ProfileEvent
from policies.profiles.showings import Showing
from policies.profiles.user_profile import UNKNOWN_USER, UserProfile
from policies.pseudonyms import pseudonym
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.sources.base import SourceRequest
from policies.sources.local import LocalSource
from policies.sources.places import ItemOrder
from policies.spec import PolicySpec
from policies.spec.activities import types_looked_at
from policies.training.histories import histories_of

DAY = 86_400_000
NOW = 100 * DAY
TYPES = {"view": 1.0, "purchase": 3.0, "rate": 0.0, "hide": -1.0}
OPTIONS = ProfileOptions(items=3, types=TYPES, fade=0)


def profile(*done: tuple[str, str], shown: tuple[tuple[int, str], ...] = ()) -> UserProfile:
    """Of what was done, newest first, a day apart; and of what was shown at a time."""
    events = [
        ProfileEvent(NOW - n * DAY, NOW - n * DAY, 0, item, kind)
        for n, (item, kind) in enumerate(done)
    ]
    return UserProfile(tuple(events), tuple(Showing(ms, 0, item) for ms, item in shown), "v1")


def weights(*done: tuple[str, str]) -> list[tuple[str, float]]:
    found = live_history(profile(*done).events, OPTIONS)
    return [] if found is None else list(found.weights.items())


def test_the_strongest_of_what_was_done_with_an_item_speaks_for_it():
    assert weights(("b", "view"), ("a", "view"), ("b", "purchase")) == [("a", 1.0), ("b", 3.0)]
    assert weights(("a", "rate"), ("b", "other")) == []
    assert weights(("a", "reward")) == [("a", 1.0)]  # of a policy without signals
    assert live_history(UNKNOWN_USER.events, OPTIONS) is None


def test_what_speaks_against_an_item_undoes_what_came_before_and_not_what_comes_after():
    assert weights(("a", "hide"), ("a", "purchase"), ("b", "view")) == [("b", 1.0)]
    assert weights(("a", "view"), ("a", "hide"), ("a", "purchase")) == [("a", 1.0)]


def test_sources_are_told_of_as_many_items_as_the_spec_says_oldest_first():
    assert weights(*((item, "view") for item in "edcba")) == [("c", 1.0), ("d", 1.0), ("e", 1.0)]


def test_older_items_speak_less_and_a_file_as_the_rest_of_their_row_would():
    options = ProfileOptions(items=3, types=TYPES, fade=2)
    found = live_history(profile(("b", "purchase"), ("a", "view")).events, options)

    # After two newer items an item speaks half as strongly.
    assert found is not None
    assert found.weights == pytest.approx({"a": 0.5**0.5, "b": 3.0})
    assert found.earlier == pytest.approx(sum(0.5 ** (age / 2) for age in range(2, 200)))

    # What a file says of many items counts in all as the rest; of few it counts as it is.
    order = ItemOrder(tuple("abcdefgh"))
    many = Profile("file", np.arange(1, 8, dtype=np.int32), np.ones(7, np.float32))
    joined = order.profile(many, found)
    assert joined.indices.tolist() == [2, 3, 4, 5, 6, 7, 0, 1]
    assert joined.weights[-2] == np.float32(found.weights["a"])
    assert joined.weights[:6].sum() == pytest.approx(found.earlier * 6 / 7, abs=1e-5)
    one = Profile("file", np.array([2], np.int32), np.ones(1, np.float32))
    assert ItemOrder(order.ids).profile(one, found).weights[0] == 1.0


def test_what_is_known_may_be_proposed_again_where_repeat_says_what_may_not():
    known = SourceRequest(history=("a",), exclude=frozenset("b"))
    assert known.barred("cd") == frozenset("abcd")
    assert dataclasses.replace(known, repeats=True).barred("cd") == frozenset("ab")


def test_a_record_says_the_version_or_that_not_all_could_be_read():
    assert KnownUser("p", profile()).version == "v1"
    assert KnownUser("p", UNKNOWN_USER).version == NOTHING
    assert KnownUser("p", None, whole=False).version == ""
    assert KnownUser("p", profile(), whole=False).version == ""
    assert KnownUser(visit=frozenset("a")).version is None


@pytest.mark.parametrize(
    ("repeat", "held"),
    [
        ({"purchased": "never"}, {"a", "c"}),
        ({"purchase": Times(1, "2d")}, {"a"}),
        ({"view": "never", "hide": "never"}, {"b", "d"}),
        ({"shown": "never"}, {"x", "y"}),
        ({"shown": Times(2, "7d")}, {"x"}),
        ({"shown": Times(2, "30d")}, {"x", "y"}),
        ({"shown": Times(3, "7d")}, set()),
        ({}, set()),
    ],
)
def test_what_is_held_back(repeat, held):
    shown = ((NOW, "x"), (NOW - DAY, "x"), (NOW - 2 * DAY, "y"), (NOW - 20 * DAY, "y"))
    known = profile(("a", "purchase"), ("b", "view"), ("c", "purchase"), ("d", "hide"), shown=shown)
    rules = RepeatRules(repeat)
    assert rules.held_back(KnownUser("p", known), NOW) == held
    assert rules.held_back(KnownUser("p", known, frozenset("v")), NOW) == held | {"v"}
    assert rules.held_back(KnownUser("p", None, frozenset("v"), whole=False), NOW) == {"v"}
    # What a clock that is ahead has brought is no more than what was just done.
    assert rules.held_back(KnownUser("p", profile(("e", "rate"))), NOW - 2 * DAY) == set()


def test_a_profile_has_one_event_of_each_item_and_type():
    with pytest.raises(SpecError) as caught:
        PolicySpec("home", profile=OPTIONS, repeat={"purchase": Times(2, "1d")})
    assert caught.value.target == "repeat.purchase.times"


class Sum:
    """A model that proposes the items beside those of the history, by their weights."""

    needs_history, floor = True, 0.0

    def raw(self, indices: np.ndarray, weights: Float32) -> Float32:
        raw = np.zeros(9, np.float32)
        np.add.at(raw, np.minimum(indices + 1, 8), weights)
        return raw


def test_a_live_history_is_as_good_as_one_in_the_request():
    items = ItemOrder(tuple("abcdefghi"))
    source = LocalSource("cf", Sum(), items, Calibration(0.0, 1.0))
    sent = source.propose(SourceRequest("u", ("a", "d", "new")), 5)
    live = LiveHistory("v1", {"d": 1.0, "new": 1.0, "a": 1.0})
    known = source.propose(SourceRequest("u", live=live), 5)
    assert (known.ids, known.scores.tolist()) == (sent.ids, sent.scores.tolist())
    assert known.ids == ("b", "e")

    # What was sent is not proposed; what is known may be, but for what is held back.
    chain = LiveHistory("v2", {"a": 1.0, "b": 2.0, "d": 1.0})
    again = SourceRequest("u", ("d",), frozenset("c"), live=chain, repeats=True)
    assert source.propose(again, 5).ids == ("b", "e")
    assert source.propose(dataclasses.replace(again, repeats=False), 5).ids == ("e",)

    # What the request adds is added; what both say counts once.
    both = source.propose(SourceRequest("u", ("f", "a"), live=live), 5)
    assert set(both.ids) == {"b", "e", "g"}


def test_of_what_the_file_and_the_log_say_the_stronger_counts():
    items = ItemOrder(tuple("abcdefghi"))
    filed = Profile("u", np.array([0, 3], np.int32), np.array([2.0, 0.5], np.float32))
    live = LiveHistory("v1", {"d": 1.0, "new": 4.0, "a": 1.0, "e": 3.0})
    joined = items.profile(filed, live)
    assert joined.indices.tolist() == [3, 0, 4]
    assert joined.weights.tolist() == [1.0, 2.0, 3.0]
    assert joined.key != items.profile(filed, live._replace(key="v2")).key
    assert items.profile(filed, None) is filed
    assert items.profile(None, None).indices.size == 0

    # Live sources know items that the artifact does not, the newest last.
    request = SourceRequest("u", ("d", "z"), profile=filed, live=live)
    told = items.item_weights(request).by_id
    assert told == {"d": 1.0, "new": 4.0, "a": 2.0, "e": 3.0, "z": 1.0}
    assert list(told) == ["new", "a", "e", "d", "z"]


SPEC = PolicySpec("home", profile=OPTIONS, repeat={"purchased": "never"})
THREE = [ActionRequest(each) for each in "abc"]


def test_what_is_held_back_has_no_probability():
    ranker = fresh_ranker(SPEC, [])
    bought = KnownUser("pseudonym", profile(("a", "purchase"), ("b", "view")))
    record = asyncio.run(ranker.rank(RankRequest("e", "u", actions=THREE), bought))
    assert record.action_ids == ["b", "c"]
    assert (record.user, record.profile) == ("pseudonym", "v1")

    # Who cannot be looked up is not logged under a name that anybody could find again.
    unknown = KnownUser(whole=False)
    record = asyncio.run(ranker.rank(RankRequest("e", "u", actions=THREE), unknown))
    assert (record.user, record.profile) == (None, "")
    assert record.action_ids == ["a", "b", "c"]

    all_bought = KnownUser("p", profile(*((each, "purchase") for each in "abc")))
    with pytest.raises(NoCandidatesError, match="repeat"):
        asyncio.run(ranker.rank(RankRequest("e", "u", actions=THREE), all_bought))


def test_what_was_bought_before_the_log_began_does_not_come_again(tmp_path):
    """Nor passes a filter about it; what a record names depends on what a file said."""
    spec = msgspec.structs.replace(SPEC, filter="!(item.id in profile.purchase)")
    done = [
        ("u", "a", 3.0, "purchase", NOW - 9 * DAY),
        ("u", "a", 1.0, "view", NOW),
        ("u", "b", 1.0, "view", NOW),
    ]
    histories = histories_of(coded_events(done))
    write_profiles(tmp_path / "p", histories, salt=SALT)
    trained = Artifact((), ("b",), {})
    profiles, _ = open_profiles(str(tmp_path / "p"), trained, SALT, types_looked_at(spec))
    ranker = Ranker(spec, [], salt=SALT, profiles=profiles)
    ranker.serve("s0", FakeLog(spec).fold().snapshot())
    live = KnownUser("p", profile(("c", "purchase")))

    record = asyncio.run(ranker.rank(RankRequest("e", "u", actions=THREE), live))
    assert record.action_ids == ["b"]
    assert record.rules is not None
    assert record.rules.did == {"purchase": ["c", "a"]}
    assert record.profile not in {"", "v1"}

    # Of who was erased the file is not asked; nor of somebody whom it does not have.
    for user, known in (("u", msgspec.structs.replace(live, filed=False)), ("w", live)):
        record = asyncio.run(ranker.rank(RankRequest("e", user, actions=THREE), known))
        assert (record.action_ids, record.profile) == (["a", "b"], "v1")


def test_in_a_span_counts_what_was_done_in_it_before_the_log_began_too():
    def before(*times: int) -> Before:
        return Before(
            "d", tuple(ProfileEvent(ms, ms, 0, f"i{n}", "purchase") for n, ms in enumerate(times))
        )

    rules = RepeatRules({"purchase": Times(1, "2d")})
    known = KnownUser("p", profile(("a", "purchase")), before=before(NOW - DAY, NOW - 3 * DAY, -1))
    assert rules.held_back(known, NOW) == {"a", "i0"}
    assert RepeatRules({"purchase": "never"}).held_back(known, NOW) == {"a", "i0", "i1", "i2"}
    unread = KnownUser("p", None, frozenset("v"), whole=False, before=known.before)
    assert rules.held_back(unread, NOW) == {"v", "i0"}
    assert unread.version == ""


def test_a_policy_without_profiles_is_as_ever():
    ranker = fresh_ranker(
        msgspec.structs.replace(SPEC, profile=msgspec.UNSET, repeat=msgspec.UNSET), []
    )
    record = asyncio.run(ranker.rank(RankRequest("e", "u", actions=THREE)))
    assert (record.user, record.profile) == (pseudonym(SALT, "u"), None)


def test_scores_are_kept_as_long_as_a_user_does_nothing_new():
    """Sources keep them by this key; the profile's version is another with every showing."""
    done = (("b", "view"), ("a", "purchase"))
    before, after = profile(*done), profile(*done, shown=((NOW, "x"),))
    after = msgspec.structs.replace(after, version="v2")
    assert live_history(before.events, OPTIONS) == live_history(after.events, OPTIONS)
    assert (
        live_history(before.events, OPTIONS).key
        != live_history(profile(*done[::-1]).events, OPTIONS).key
    )
    fading = msgspec.structs.replace(OPTIONS, fade=3.0)
    assert live_history(before.events, fading).key != live_history(before.events, OPTIONS).key
