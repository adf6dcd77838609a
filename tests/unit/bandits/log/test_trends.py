"""Counts that halve with every half-life, whenever they are looked at."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits.errors import SnapshotError
from bandits.log import trends as module
from bandits.log.trends import Trends, decode_trends, encode_trends

HOUR_MS = 3_600_000
REWARDS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 10 * HOUR_MS)), max_size=40)


def counted(rewards) -> Trends:
    trends, now = Trends(HOUR_MS), 0
    for item, later in rewards:
        now += later
        trends.add(item, now)
    return trends


@given(REWARDS)
def test_a_count_is_the_sum_of_what_each_reward_is_worth_now(rewards):
    trends, now, times = counted(rewards), 0, {}
    for item, later in rewards:
        now += later
        times.setdefault(item, []).append(now)

    found = trends.published(now)
    expected = {
        item: sum(2.0 ** (-(now - each) / HOUR_MS) for each in mine) for item, mine in times.items()
    }
    assert dict(zip(found.ids, found.counts, strict=True)) == pytest.approx(expected)
    assert found.counts == sorted(found.counts, reverse=True)


@given(REWARDS, st.integers(0, 40))
def test_who_goes_on_from_a_state_has_the_same_bytes(rewards, cut):
    now = sum(later for _, later in rewards)
    first = counted(rewards[:cut])
    resumed = Trends(
        HOUR_MS,
        msgspec.msgpack.decode(msgspec.msgpack.encode(first.state), type=module.TrendState).items,
    )
    at = sum(later for _, later in rewards[:cut])
    for item, later in rewards[cut:]:
        at += later
        resumed.add(item, at)
    assert encode_trends([resumed], now) == encode_trends([counted(rewards)], now)


def test_at_a_checkpoint_only_the_most_wanted_are_kept(monkeypatch):
    monkeypatch.setattr(module, "MOST_KEPT", 2)
    trends = counted([("a", 0), ("b", HOUR_MS), ("c", HOUR_MS), ("a", 0)])
    trends.prune(2 * HOUR_MS)
    assert [item.id for item in trends.state.items] == ["a", "c"]


def test_a_snapshot_brings_no_more_than_so_many(monkeypatch):
    monkeypatch.setattr(module, "MOST_PUBLISHED", 1)
    published = decode_trends(encode_trends([counted([("a", 0), ("b", 0), ("b", 0)])], HOUR_MS))
    assert published[HOUR_MS].ids == ["b"]
    assert published[HOUR_MS].counts == [1.0]


def test_other_bytes_are_no_trends():
    with pytest.raises(SnapshotError, match="trends"):
        decode_trends(b"something")
