"""Parts of profiles: any order, any repetition, any split over batches gives the same bytes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits.errors import CodecError
from policies.profiles import part as parts
from policies.profiles.part import (
    EMPTY,
    ERASED,
    CutRule,
    Part,
    ProfileEvent,
    decode_part,
    encode_part,
    join_parts,
)
from policies.profiles.showings import Showing, Showings
from policies.profiles.user_profile import UNKNOWN_USER, read_profile

TIMES = st.integers(0, 12)
SEQS = st.integers(0, 2)
ITEMS = st.sampled_from("abcdef")
EVENTS = st.builds(
    ProfileEvent, TIMES, TIMES, SEQS, ITEMS, st.sampled_from(("view", "purchase", "hide"))
)
SHOWN = st.builds(Showing, TIMES, SEQS, ITEMS)
SETS = st.tuples(st.lists(EVENTS, max_size=14), st.lists(SHOWN, max_size=14))
RULES = st.builds(
    CutRule, st.integers(1, 4), st.sampled_from([(), ("purchase",), ("hide", "view")])
)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(parts, "MOST_KEPT", 2)
    monkeypatch.setattr(parts, "MOST_SHOWN", 5)


def uncut(events, shown) -> Part:
    return Part(tuple(events), tuple(shown))


def split(data, values) -> list[list]:
    batches: list[list] = [[]]
    for value in values:
        if data.draw(st.booleans()):
            batches.append([])
        batches[-1].append(value)
    return batches


@given(SETS, RULES, st.data())
def test_any_order_repetition_and_split_gives_the_same_bytes(entries, rule, data):
    events, shown = entries
    at_once = join_parts([uncut(events, shown)], rule)

    again = data.draw(
        st.permutations(events + data.draw(st.lists(st.sampled_from(events))) if events else [])
    )
    shown_again = data.draw(st.permutations(shown * 2))
    part = EMPTY
    for batch in split(data, again):
        part = join_parts([part, uncut(batch, ())], rule)
        part = decode_part(encode_part(part))
    for batch in split(data, shown_again):
        part = join_parts([uncut((), batch), part], rule)
    assert encode_part(part) == encode_part(at_once)


@given(SETS, SETS, SETS, RULES)
def test_a_join_is_associative_commutative_and_idempotent(first, second, third, rule):
    a, b, c = (join_parts([uncut(*entries)], rule) for entries in (first, second, third))
    ab = join_parts([a, b], rule)
    assert ab == join_parts([b, a], rule)
    assert join_parts([ab, c], rule) == join_parts([a, join_parts([b, c], rule)], rule)
    assert join_parts([ab, a], rule) == ab


@given(SETS, RULES)
def test_the_newest_of_each_item_and_type_are_kept(entries, rule):
    events, shown = entries
    part = join_parts([uncut(events, shown)], rule)
    newest: dict = {}
    for event in sorted(events):
        newest[event.item, event.type] = event
    ordered = sorted(newest.values(), reverse=True)
    asked = [
        event for kind in rule.kept for event in [each for each in ordered if each.type == kind][:2]
    ]
    assert set(part.events) == {*ordered[: rule.items], *asked}
    assert list(part.events) == sorted(part.events, reverse=True)
    assert list(part.shown) == sorted(set(shown), reverse=True)[:5]


@given(SETS, RULES)
def test_nothing_comes_after_an_erasure(entries, rule):
    part = uncut(*entries)
    assert join_parts([ERASED, part], rule) == ERASED
    assert join_parts([part, ERASED, part], rule) == ERASED
    assert decode_part(encode_part(ERASED)) == ERASED


@given(SETS, RULES)
def test_a_part_is_read_as_it_was_written(entries, rule):
    part = join_parts([uncut(*entries)], rule)
    assert decode_part(encode_part(part)) == part


@given(SETS, st.integers(1, 3), TIMES)
def test_what_was_shown_often_is_found_without_the_names_of_the_rest(entries, times, since_ms):
    part = join_parts([uncut(*entries)], CutRule(4))
    counts = Counter(each.item for each in part.shown if each.entry_ms >= since_ms)
    read = decode_part(encode_part(part))
    assert isinstance(read.shown, Showings)
    found = read.shown.often(times, since_ms)
    assert sorted(found) == sorted(item for item, shown in counts.items() if shown >= times)


@given(st.lists(SETS, min_size=1, max_size=3), RULES, st.data())
def test_a_profile_is_the_same_whoever_joins_its_parts(written, rule, data):
    stored = {
        b"home.%d" % number: encode_part(join_parts([uncut(*entries)], rule))
        for number, entries in enumerate(written)
    }
    read = read_profile([stored], rule)
    names = data.draw(st.permutations(sorted(stored)))
    assert read_profile([{name: stored[name] for name in names}], rule) == read

    everything = [
        (event.time_ms, event.entry_ms, number, event.seq, event.item, event.type)
        for number, (events, _) in enumerate(written)
        for event in events
    ]
    newest: dict = {}
    for each in sorted(everything):
        newest[each[4:]] = each
    ordered = [each[4:] for each in sorted(newest.values(), reverse=True)]
    asked = [key for kind in rule.kept for key in [each for each in ordered if each[1] == kind][:2]]
    said = [(event.item, event.type) for event in read.events]
    assert said == [key for key in ordered if key in ordered[: rule.items] or key in asked]


def test_the_profiles_of_two_pseudonyms_of_one_person_are_one():
    rule = CutRule(3)
    one = {b"activity": encode_part(uncut([ProfileEvent(5, 5, 0, "a", "view")], ()))}
    other = {b"activity": encode_part(uncut([ProfileEvent(7, 7, 0, "b", "view")], ()))}
    erased = {**other, b"home.0": encode_part(ERASED)}
    assert [event.item for event in read_profile([one, other], rule).events] == ["b", "a"]
    assert [event.item for event in read_profile([one, erased], rule).events] == ["a"]
    assert read_profile([erased], rule) == UNKNOWN_USER == read_profile([], rule)


def test_what_is_asked_of_a_profile():
    events = [ProfileEvent(5, 5, 0, "a", "purchase"), ProfileEvent(4, 4, 0, "b", "view")]
    shown = [Showing(9, 0, "a"), Showing(8, 0, "b"), Showing(7, 0, "a")]
    profile = read_profile([{b"activity": encode_part(uncut(events, shown))}], CutRule(50))
    assert profile.done({"purchase"}) == {"a"}
    assert set(profile.shown_often(1, 8)) == {"a", "b"}
    assert profile.shown_often(2, 8) == []
    assert profile.shown_often(2, 7) == ["a"]
    assert len(profile.version) == 16


def test_bytes_of_something_else_are_refused():
    for data in (b"", b"\x01", encode_part(EMPTY)[:-1], b"\x9a" + b"\x90" * 2 + b"\x91\x00" * 8):
        with pytest.raises(CodecError):
            decode_part(data)


def test_a_users_fifty_events_are_small():
    events = [
        ProfileEvent(
            1_700_000_000_000 + 3_600_000 * n,
            1_700_000_000_000 + 3_600_000 * n,
            0,
            f"i{n * 1999 % 100_000}",
            "view",
        )
        for n in range(50)
    ]
    assert len(encode_part(join_parts([uncut(events, ())], CutRule(50)))) < 750


def test_a_rules_name_says_all_that_it_keeps():
    names = {CutRule(50).digest, CutRule(51).digest, CutRule(50, ("purchase",)).digest}
    assert len(names) == 3
    assert CutRule(5, ("a", "b")).digest == CutRule(5, ("b", "a", "b")).digest


@pytest.mark.slow
def test_a_user_of_a_million_events_has_no_larger_a_part(monkeypatch):
    """A program that does something every second has a part of the size that anybody's may have."""
    monkeypatch.setattr(parts, "MOST_KEPT", 1000)
    rule, part = CutRule(50, ("purchase",)), EMPTY
    for first in range(0, 1_000_000, 10_000):
        done = [
            ProfileEvent(at, at, 0, f"i{at * 7919 % 30_000}", ("view", "purchase")[at % 2])
            for at in range(first, first + 10_000)
        ]
        part = join_parts([part, uncut(done, ())], rule)
    assert len(part.events) <= 1000 + 50
    assert part.events[0].time_ms == 999_999
    assert len(encode_part(part)) < 20_000
