"""Parts that are encoded many at a time have the bytes of those that are encoded one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.profiles import part as parts
from policies.profiles.changes import PartChanges
from policies.profiles.part import CutRule, ProfileEvent, encode_part, join_parts

USERS = st.sampled_from(("u", "v", "a user with ümlauts"))
# Of one beginning, of one that ends within a character, of sizes that msgpack writes otherwise.
ITEMS = st.sampled_from(
    ("", "a", "ab", "日本", "日曜", "é", "è", "x" * 31, "x" * 300, "x" * 70_000)
)
NUMBERS = st.one_of(
    st.integers(0, 4),
    st.sampled_from((127, 128, 255, 256, 65_535, 65_536, 2**31, 2**32 - 1, 2**32, 2**62)),
)
TYPES = st.sampled_from(("view", "purchase", "Ansehen"))
EVENTS = st.tuples(USERS, st.builds(ProfileEvent, NUMBERS, NUMBERS, NUMBERS, ITEMS, TYPES))
SHOWN = st.tuples(USERS, NUMBERS, NUMBERS, st.lists(ITEMS, max_size=4))
RULES = st.builds(
    CutRule, st.integers(1, 5), st.sampled_from([(), ("purchase",), ("hide", "view")])
)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(parts, "MOST_KEPT", 2)
    monkeypatch.setattr(parts, "MOST_SHOWN", 5)


def changes_of(done, seen, erased) -> PartChanges:
    changes = PartChanges()
    for user, event in done:
        changes.happened(user, event)
    for user, ms, seq, items in seen:
        changes.shown(user, f"{ms}-{seq}", items)
    for user in erased:
        changes.erased(user)
    return changes


def one_by_one(changes: PartChanges, rule: CutRule) -> dict[str, bytes]:
    return {user: encode_part(join_parts([part], rule)) for user, part in changes.parts()}


@given(
    st.lists(EVENTS, max_size=30),
    st.lists(SHOWN, max_size=12),
    st.lists(st.one_of(USERS, st.just("nobody")), max_size=2),
    RULES,
)
def test_many_at_a_time_have_the_same_bytes(done, seen, erased, rule):
    changes = changes_of(done, seen, erased)
    found = list(changes.encoded(rule))
    assert len(found) == len(dict(found))
    assert dict(found) == one_by_one(changes, rule)


def test_a_number_of_more_than_64_bits_is_encoded_one_by_one():
    large = ProfileEvent(2**63, 2**63 + 5, 0, "a", "view")
    changes = changes_of([("u", large), ("v", ProfileEvent(1, 1, 0, "b", "view"))], [], ["w"])
    rule = CutRule(3)
    assert dict(changes.encoded(rule)) == one_by_one(changes, rule)


@given(st.lists(EVENTS, max_size=20), st.lists(SHOWN, max_size=8), RULES, st.integers(1, 5))
def test_groups_of_users_say_what_all_of_them_say_and_so_does_what_is_cut(done, seen, rule, count):
    changes, again = changes_of(done, seen, ["gone"]), PartChanges()
    for _, data in changes.encode_groups(count):
        again.take(PartChanges.decoded(data))
    assert len(again) == len(changes)
    assert one_by_one(again, rule) == one_by_one(changes, rule)
    assert one_by_one(changes.cut(rule), rule) == one_by_one(changes, rule)
