"""The join: every outcome of a reward, every way a window closes."""

from statistics import mean, median

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.logs import RANDOM_LOGS, RULE, WINDOW, decision, stream

from bandits.log.join import Join, JoinedDecision, JoinRule
from bandits.log.records import (
    ActivationRecord,
    DecisionRecord,
    LogEntry,
    LogRecord,
    RewardRecord,
    TickRecord,
)

OUTCOMES = ("joined", "duplicate", "late", "orphan", "invalid", "unactivated", "early")


class Log:
    """Feeds a join; ``at`` applies one record and returns what it closed."""

    def __init__(self, rule: JoinRule = RULE, **rules: JoinRule) -> None:
        self.join = Join(lambda spec: rules.get(spec, rule), rule)
        self._count = 0

    def at(self, ms: int, record: LogRecord) -> list[JoinedDecision]:
        self._count += 1
        return list(self.join.apply(LogEntry(f"{ms}-{self._count}", record)))

    @property
    def counts(self) -> dict[str, int]:
        return {outcome: count for outcome, count in self.join.counts.items() if count}


def joined_of(entries: list[LogEntry]) -> list[JoinedDecision]:
    state = Join(lambda _: RULE, RULE)
    return [joined for entry in entries for joined in state.apply(entry)]


def rewards_of(joined: list[JoinedDecision]) -> list[tuple[float, ...]]:
    return [each.rewards for each in joined]


def test_a_window_closes_before_the_first_entry_at_its_deadline_is_applied():
    """A reward at the deadline itself is late: the decision was already closed when it was read."""
    log = Log()
    log.at(0, decision())
    assert log.at(WINDOW - 1, TickRecord()) == []
    closed = log.at(WINDOW, RewardRecord("e", 1.0))
    assert rewards_of(closed) == [(-1.0,)]
    assert log.counts == {"decisions": 1, "closed": 1, "late": 1}


def test_a_reward_inside_the_window_is_joined():
    log = Log()
    log.at(0, decision())
    log.at(WINDOW - 1, RewardRecord("e", 1.0))
    closed = log.at(WINDOW, TickRecord())
    assert rewards_of(closed) == [(1.0,)]


def test_an_entry_far_in_the_future_closes_every_window_in_the_order_of_the_deadlines():
    log = Log()
    log.at(0, decision("first"))
    log.at(5, decision("second"))
    closed = log.at(10 * WINDOW, TickRecord())
    assert [each.record.event_id for each in closed] == ["first", "second"]


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("first", 2.0),
        ("last", 1.0),
        ("sum", 16.0),
        ("max", 8.0),
        ("min", 1.0),
        ("average", 4.0),
        ("median", 3.5),
    ],
)
def test_rewards_of_one_slot_are_aggregated(aggregation, expected):
    log = Log(msgspec.structs.replace(RULE, aggregation=aggregation))
    log.at(0, decision())
    for n, value in enumerate((2.0, 5.0, 8.0, 1.0)):
        log.at(1 + n, RewardRecord("e", value, f"r{n}"))
    assert rewards_of(log.at(WINDOW, TickRecord())) == [(expected,)]
    assert log.counts["joined"] == 4


@settings(max_examples=60)
@given(st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=1, max_size=9))
def test_an_aggregate_is_what_statistics_says_of_all_rewards(values):
    """Learned as it arrives, each reward in turn corrects the model to the aggregate so far."""
    exact = {"average": mean, "median": median, "min": min, "max": max, "sum": sum}
    for aggregation, expected in exact.items():
        rule = msgspec.structs.replace(RULE, aggregation=aggregation, learn="as_it_arrives")
        log, held = Log(rule), 0.0
        held += log.at(0, decision())[0].rewards[0]
        for n, value in enumerate(values):
            told = log.at(1 + n, RewardRecord("e", value, f"r{n}"))
            held += sum(each.rewards[0] for each in told)
            assert held == pytest.approx(expected(values[: n + 1]), abs=1e-12)


def test_a_maximum_is_of_the_rewards_and_not_of_the_default():
    log = Log(JoinRule(window_s=WINDOW / 1000, default_reward=0.0, aggregation="max"))
    log.at(0, decision())
    log.at(1, RewardRecord("e", -3.0))
    assert rewards_of(log.at(WINDOW, TickRecord())) == [(-3.0,)]


def test_a_deferred_decision_is_learned_only_if_it_was_activated_before_it_closed():
    log = Log()
    log.at(0, decision("activated", deferred=True))
    log.at(0, decision("never", deferred=True))
    log.at(0, decision("too late", deferred=True))
    log.at(5, ActivationRecord("activated"))
    log.at(5, RewardRecord("never", 1.0))
    closed = log.at(WINDOW, ActivationRecord("too late"))
    assert [each.record.event_id for each in closed] == ["activated"]
    assert log.counts == {
        "decisions": 3,
        "closed": 1,
        "not_activated": 2,
        "joined": 1,
        "orphan_activation": 1,
    }


def test_the_window_of_a_deferred_decision_runs_from_the_decision():
    log = Log()
    log.at(0, decision(deferred=True))
    log.at(WINDOW - 1, ActivationRecord("e"))
    assert len(log.at(WINDOW, TickRecord())) == 1


def test_an_early_reward_waits_for_its_decision():
    log = Log()
    log.at(0, RewardRecord("e", 1.0))
    assert log.counts == {"early": 1}
    log.at(5, decision())
    assert log.counts == {"decisions": 1, "joined": 1}
    assert rewards_of(log.at(5 + WINDOW, TickRecord())) == [(1.0,)]


def test_an_early_reward_whose_decision_never_comes_is_an_orphan_after_the_window():
    log = Log()
    log.at(0, RewardRecord("e", 1.0))
    log.at(WINDOW - 1, TickRecord())
    assert log.counts == {"early": 1}
    log.at(WINDOW, TickRecord())
    assert log.counts == {"orphan": 1}


def test_each_early_reward_waits_a_whole_window_of_its_own():
    log = Log()
    log.at(0, RewardRecord("e", 1.0, "r0"))
    log.at(WINDOW - 1, RewardRecord("e", 2.0, "r1"))
    log.at(WINDOW + 1, decision())
    assert log.counts == {"decisions": 1, "orphan": 1, "joined": 1}
    assert rewards_of(log.at(WINDOW + 1 + WINDOW, TickRecord())) == [(2.0,)]


def test_an_early_reward_of_an_event_id_used_again_is_not_an_orphan_before_its_time():
    log = Log(RULE, short=JoinRule(window_s=1))
    log.at(0, RewardRecord("e", 1.0))
    log.at(10, decision(spec="short"))
    log.at(5000, RewardRecord("e", 2.0))  # the decision is closed and forgotten
    log.at(WINDOW, TickRecord())
    assert log.counts == {"decisions": 1, "closed": 1, "joined": 1, "early": 1}
    log.at(5000 + WINDOW, TickRecord())
    assert log.counts == {"decisions": 1, "closed": 1, "joined": 1, "orphan": 1}


def test_early_rewards_are_joined_in_the_order_they_came():
    log = Log()
    log.at(0, RewardRecord("e", 1.0))
    log.at(1, RewardRecord("e", 2.0))
    log.at(2, RewardRecord("e", 3.0, action_id="not chosen"))
    log.at(3, decision())
    assert log.counts == {"decisions": 1, "joined": 1, "duplicate": 1, "invalid": 1}
    assert rewards_of(log.at(3 + WINDOW, TickRecord())) == [(1.0,)]


def test_a_reward_id_counts_once():
    log = Log(msgspec.structs.replace(RULE, aggregation="sum"))
    log.at(0, decision())
    for reward_id in ("x", "x", "y", "x"):
        log.at(1, RewardRecord("e", 1.0, reward_id))
    assert log.counts == {"decisions": 1, "joined": 2, "duplicate": 2}
    assert rewards_of(log.at(WINDOW, TickRecord())) == [(2.0,)]


def test_without_a_reward_id_a_slot_takes_one_reward():
    log = Log(msgspec.structs.replace(RULE, aggregation="sum"))
    log.at(0, decision(chosen=(0, 2)))
    log.at(1, RewardRecord("e", 1.0))
    log.at(2, RewardRecord("e", 7.0, slot=0))
    log.at(3, RewardRecord("e", 5.0, slot=1))
    log.at(4, RewardRecord("e", 3.0, action_id="c"))
    assert log.counts == {"decisions": 1, "joined": 2, "duplicate": 2}
    assert rewards_of(log.at(WINDOW, TickRecord())) == [(1.0, 5.0)]


def test_a_reward_id_that_looks_like_a_slot_is_not_one():
    log = Log()
    log.at(0, decision())
    log.at(1, RewardRecord("e", 1.0))
    log.at(2, RewardRecord("e", 1.0, "0"))
    assert log.counts["joined"] == 2


def test_a_reward_is_late_for_one_more_window_and_then_early_for_a_stranger():
    log = Log()
    log.at(0, decision())
    log.at(2 * WINDOW - 1, RewardRecord("e", 1.0))
    assert log.counts["late"] == 1
    log.at(2 * WINDOW, RewardRecord("e", 1.0))
    assert log.counts["early"] == 1


@pytest.mark.parametrize(
    "reward",
    [
        RewardRecord("e", 1.0, slot=2),
        RewardRecord("e", 1.0, slot=10**9),
        RewardRecord("e", 1.0, action_id="b"),
        RewardRecord("e", 1.0, action_id="nothing"),
        RewardRecord("e", 1.0, slot=1, action_id="a"),
    ],
)
def test_a_reward_for_what_was_not_chosen_is_invalid(reward):
    log = Log()
    log.at(0, decision(chosen=(0, 2)))
    log.at(1, reward)
    assert log.counts == {"decisions": 1, "invalid": 1}
    closed = log.at(WINDOW, TickRecord())
    assert rewards_of(closed) == [(-1.0, -1.0)]


def test_an_invalid_reward_does_not_use_up_its_reward_id():
    log = Log()
    log.at(0, decision())
    log.at(1, RewardRecord("e", 1.0, "r", slot=5))
    log.at(2, RewardRecord("e", 1.0, "r", slot=0))
    assert log.counts == {"decisions": 1, "invalid": 1, "joined": 1}


def test_an_action_id_finds_its_slot_in_a_slate():
    log = Log()
    log.at(0, decision(chosen=(2, 0)))
    log.at(1, RewardRecord("e", 5.0, action_id="a"))
    assert rewards_of(log.at(WINDOW, TickRecord())) == [(-1.0, 5.0)]


def test_of_two_decisions_with_one_id_the_first_counts():
    log = Log()
    log.at(0, decision(chosen=(0,)))
    log.at(1, decision(chosen=(1,)))
    closed = log.at(WINDOW, decision(chosen=(2,)))
    assert [each.record.chosen for each in closed] == [[0]]
    assert log.at(WINDOW + 1, TickRecord()) == []
    assert log.counts == {"decisions": 1, "closed": 1, "duplicate_decision": 2}


def test_a_decision_is_joined_under_the_spec_it_was_logged_with():
    log = Log(
        RULE,
        old=JoinRule(window_s=1, default_reward=7.0),
        new=JoinRule(window_s=20, default_reward=9.0),
    )
    log.at(0, decision("new", spec="new"))
    log.at(0, decision("old", spec="old"))
    log.join.rule = JoinRule(window_s=100)
    assert [(c.record.event_id, c.rewards) for c in log.at(1000, TickRecord())] == [("old", (7.0,))]
    assert [(c.record.event_id, c.rewards) for c in log.at(20_000, TickRecord())] == [
        ("new", (9.0,))
    ]


def test_the_oldest_open_decision_and_the_next_deadline_are_known():
    log = Log()
    assert log.join.oldest_open() is None
    assert log.join.next_deadline_ms() is None
    log.at(3, decision("first"))
    log.at(4, decision("second"))
    assert log.join.oldest_open() == "3-1"
    assert log.join.next_deadline_ms() == 3 + WINDOW
    log.at(3 + WINDOW, TickRecord())
    assert log.join.oldest_open() == "4-2"


def test_after_all_windows_nothing_is_remembered():
    log = Log()
    log.at(0, RewardRecord("x", 1.0))
    log.at(0, RewardRecord("e", 1.0))
    log.at(0, decision())
    log.at(WINDOW, TickRecord())
    log.at(2 * WINDOW, TickRecord())
    assert not any((log.join._open, log.join._closed, log.join._early, log.join._deadlines))


@settings(max_examples=100)
@given(RANDOM_LOGS)
def test_every_reward_has_one_outcome_at_every_moment(steps):
    state, given_so_far = Join(lambda _: RULE, RULE), 0
    for entry in stream(steps):
        list(state.apply(entry))
        given_so_far += isinstance(entry.record, RewardRecord)
        assert sum(state.counts[outcome] for outcome in OUTCOMES) == given_so_far
        assert min(state.counts.values(), default=0) >= 0
    assert state.counts["early"] == sum(len(parked) for parked in state._early.values())


@settings(max_examples=100)
@given(RANDOM_LOGS)
def test_a_decision_closes_at_most_once_and_in_the_order_of_the_log(steps):
    entries = [*stream(steps), LogEntry("10000000-0", TickRecord())]
    positions = [joined.position for joined in joined_of(entries)]
    numbers = [int(position.partition("-")[2]) for position in positions]
    assert numbers == sorted(set(numbers))
    accepted = {e.id for e in entries if isinstance(e.record, DecisionRecord)}
    assert accepted.issuperset(positions)


@settings(max_examples=100)
@given(RANDOM_LOGS)
def test_the_join_agrees_with_a_plain_reading_of_its_rule(steps):
    """The same as from a quadratic search over the log (aggregation first)."""
    entries = [*stream(steps), LogEntry("10000000-0", TickRecord())]
    expected = []
    alive: dict[str, int] = {}  # until when an event_id is remembered
    for at, entry in enumerate(entries):
        record = entry.record
        if not isinstance(record, DecisionRecord) or alive.get(record.event_id, -1) > entry.time_ms:
            continue
        start, end = entry.time_ms, entry.time_ms + WINDOW
        earlier = alive.get(record.event_id, -1)
        alive[record.event_id] = end + WINDOW
        own = [
            e.record
            for n, e in enumerate(entries)
            if getattr(e.record, "event_id", None) == record.event_id
            and (
                (n > at and e.time_ms < end)
                or (n < at and e.time_ms + WINDOW > start and e.time_ms >= earlier)
            )
        ]
        after = [e.record for e in entries[at + 1 :] if e.time_ms < end]
        if record.deferred and ActivationRecord(record.event_id) not in after:
            continue
        values: dict[int, float] = {}
        for reward in own:
            if not isinstance(reward, RewardRecord):
                continue
            slots = {record.action_ids[k]: slot for slot, k in enumerate(record.chosen)}
            slot = slots.get(reward.action_id, -1) if reward.action_id else (reward.slot or 0)
            if 0 <= slot < len(slots) and reward.slot in (None, slot):
                values.setdefault(slot, reward.value)
        expected.append(
            (entry.id, tuple(values.get(slot, -1.0) for slot in range(len(record.chosen))))
        )
    assert [(j.position, j.rewards) for j in joined_of(entries)] == expected
