"""The join and the fold: every outcome of a reward, every way a window closes."""

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from fakes import FakeLog
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.exploration import EpsilonGreedy, LinTs, LinUcb
from bandits.join import Join, JoinedDecision, JoinRule, join
from bandits.records import (
    ActivationRecord,
    CatalogueRecord,
    CheckpointRecord,
    DecisionRecord,
    LogEntry,
    LogRecord,
    RewardRecord,
    TickRecord,
)
from bandits.ridge import RidgeConfig
from bandits.types import Interaction
from policies.blend import load_policy
from policies.catalogue import Catalogue, Item
from policies.spec import PolicySpec, VwConfig

WINDOW = 10_000
RULE = JoinRule(window_s=WINDOW / 1000, default_reward=-1.0)
OUTCOMES = ("joined", "duplicate", "late", "orphan", "invalid", "early")


def decision(event_id: str = "e", *, ids: tuple[str, ...] = ("a", "b", "c"), chosen=(0,), **changes) -> DecisionRecord:
    """A decision of uniform PMFs."""
    pmfs = np.zeros((len(chosen), len(ids)))
    for slot in range(len(chosen)):
        left = [k for k in range(len(ids)) if k not in chosen[:slot]]
        pmfs[slot, left] = 1 / len(left)
    record = DecisionRecord(
        event_id=event_id,
        policy="home",
        spec="spec",
        snapshot_id="s0",
        catalogue="none",
        context={"hour": 3.0},
        action_ids=list(ids),
        features=None,
        scores={},
        pmf=pmfs.tobytes(),
        chosen=list(chosen),
    )
    return msgspec.structs.replace(record, **changes)


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


def rewards_of(joined: list[JoinedDecision]) -> list[tuple[float, ...]]:
    return [each.rewards for each in joined]


def test_a_window_closes_before_the_first_entry_at_its_deadline_is_applied():
    """A reward at the deadline itself is late: the decision was already closed when it was read."""
    log = Log()
    log.at(0, decision())
    assert log.at(WINDOW - 1, TickRecord()) == []
    closed = log.at(WINDOW, RewardRecord("e", 1.0))
    assert rewards_of(closed) == [(-1.0,)]
    assert not closed[0].rewarded
    assert log.counts == {"decisions": 1, "closed": 1, "late": 1}


def test_a_reward_inside_the_window_is_joined():
    log = Log()
    log.at(0, decision())
    log.at(WINDOW - 1, RewardRecord("e", 1.0))
    closed = log.at(WINDOW, TickRecord())
    assert rewards_of(closed) == [(1.0,)]
    assert closed[0].rewarded


def test_an_entry_far_in_the_future_closes_every_window_in_the_order_of_the_deadlines():
    log = Log()
    log.at(0, decision("first"))
    log.at(5, decision("second"))
    closed = log.at(10 * WINDOW, TickRecord())
    assert [each.record.event_id for each in closed] == ["first", "second"]


@pytest.mark.parametrize(("aggregation", "expected"), [("first", 2.0), ("last", 1.0), ("sum", 8.0), ("max", 5.0)])
def test_rewards_of_one_slot_are_aggregated(aggregation, expected):
    log = Log(msgspec.structs.replace(RULE, aggregation=aggregation))
    log.at(0, decision())
    for n, value in enumerate((2.0, 5.0, 1.0)):
        log.at(1 + n, RewardRecord("e", value, f"r{n}"))
    assert rewards_of(log.at(WINDOW, TickRecord())) == [(expected,)]
    assert log.counts["joined"] == 3


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
    assert log.counts == {"decisions": 3, "closed": 1, "not_activated": 2, "joined": 1, "orphan_activation": 1}


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
    assert not closed[0].rewarded


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
    log = Log(RULE, old=JoinRule(window_s=1, default_reward=7.0), new=JoinRule(window_s=20, default_reward=9.0))
    log.at(0, decision("new", spec="new"))
    log.at(0, decision("old", spec="old"))
    log.join.rule = JoinRule(window_s=100)
    assert [(c.record.event_id, c.rewards) for c in log.at(1000, TickRecord())] == [("old", (7.0,))]
    assert [(c.record.event_id, c.rewards) for c in log.at(20_000, TickRecord())] == [("new", (9.0,))]


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


# A random log: a few event ids, times that go forward, all kinds of entries

NAMES = st.sampled_from("abcd")
RANDOM_RECORDS = st.one_of(
    st.builds(
        lambda name, deferred, holdout, chosen: decision(name, deferred=deferred, holdout=holdout, chosen=chosen),
        NAMES,
        st.booleans(),
        st.booleans(),
        st.sampled_from([(0,), (2,), (1, 0), (2, 1, 0)]),
    ),
    st.builds(
        RewardRecord,
        NAMES,
        st.sampled_from([0.0, 1.0, -2.0]),
        st.none() | st.sampled_from(["r1", "r2"]),
        st.none() | st.integers(0, 3),
        st.none() | st.sampled_from(["a", "b", "z"]),
    ),
    st.builds(ActivationRecord, NAMES),
    st.just(TickRecord()),
)
RANDOM_LOGS = st.lists(st.tuples(st.integers(0, 6000), RANDOM_RECORDS), max_size=60)


def stream(steps: list[tuple[int, LogRecord]]) -> Iterator[LogEntry]:
    now = 0
    for number, (wait, record) in enumerate(steps):
        now += wait
        yield LogEntry(f"{now}-{number}", record)


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
    positions = [joined.position for joined in join(entries, lambda _: RULE, RULE)]
    numbers = [int(position.partition("-")[2]) for position in positions]
    assert numbers == sorted(set(numbers))
    accepted = {e.id for e in entries if isinstance(e.record, DecisionRecord)}
    assert accepted.issuperset(positions)


@settings(max_examples=100)
@given(RANDOM_LOGS)
def test_the_join_agrees_with_a_plain_reading_of_its_rule(steps):
    """The same decisions with the same rewards as from a quadratic search over the log (aggregation first)."""
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
            and ((n > at and e.time_ms < end) or (n < at and e.time_ms + WINDOW > start and e.time_ms >= earlier))
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
        expected.append((entry.id, tuple(values.get(slot, -1.0) for slot in range(len(record.chosen)))))
    assert [(j.position, j.rewards) for j in join(entries, lambda _: RULE, RULE)] == expected


# The fold

SPEC = PolicySpec("home", learner=RidgeConfig(l2=2.0), exploration=LinTs(draws=5), join=RULE)
VW_SPEC = msgspec.structs.replace(
    SPEC, learner=VwConfig("--cb_explore_adf --cb_type mtr -b 8 -q ci"), exploration=EpsilonGreedy()
)


def log_of(steps: list[tuple[int, LogRecord]], *specs: PolicySpec) -> FakeLog:
    """The steps as a log that begins with the first spec; its decisions name the spec in force."""
    log, spec, now = FakeLog(specs[0]), specs[0], 1
    empty = Catalogue()
    log.blobs[empty.digest] = empty.encoded
    for number, (wait, record) in enumerate(steps):
        now += wait
        if number == len(steps) // 2:
            for changed in specs[1:]:
                log.configure(changed, at=now)
                spec = changed
        named = record
        if isinstance(record, DecisionRecord):
            named = msgspec.structs.replace(record, spec=spec.digest, catalogue=empty.digest)
        log.append(named, at=now)
    log.append(TickRecord(), at=now + 3 * WINDOW)
    return log


@settings(max_examples=30)
@given(RANDOM_LOGS, st.lists(st.integers(0, 60), max_size=5))
def test_any_batching_of_the_log_gives_the_same_bytes(steps, cuts):
    log = log_of(steps, SPEC, msgspec.structs.replace(SPEC, floor=0.5))
    whole, parts = log.fold(), log.fold(min(cut, len(log.entries)) for cut in cuts)
    assert whole.snapshot() == parts.snapshot()
    assert whole.learner.checkpoint() == parts.learner.checkpoint()
    assert whole.join.counts == parts.join.counts
    assert whole.position == parts.position == log.entries[-1].id


@settings(max_examples=10)
@given(RANDOM_LOGS, st.lists(st.integers(0, 60), max_size=3))
def test_any_batching_of_the_log_gives_the_same_bytes_with_vw(steps, cuts):
    log = log_of(steps, VW_SPEC)
    whole, parts = log.fold(), log.fold(min(cut, len(log.entries)) for cut in cuts)
    assert whole.snapshot() == parts.snapshot()
    assert whole.learner.checkpoint() == parts.learner.checkpoint()


def test_making_snapshots_on_the_way_changes_nothing():
    log = log_of([(1000, decision(f"e{i}", holdout=False)) for i in range(30)], SPEC)
    watched = log.fold([0])
    fold = type(watched)(log.blobs.__getitem__, salt=b"test salt")
    for entry in log.entries:
        fold.apply([entry])
        fold.snapshot()
    assert fold.snapshot() == watched.snapshot()


def slate_interactions(spec: PolicySpec) -> tuple[Interaction, Interaction]:
    log = log_of([(1, decision(chosen=(2, 0))), (1, RewardRecord("e", 5.0, slot=1))], spec)
    fold = log.fold()
    first, second = fold.interactions(JoinedDecision("1-0", log.entries[1].record, (0.0, 5.0), rewarded=True))
    assert fold.learned == fold.snapshot().learned == 2
    assert (first.propensity, first.reward) == (1 / 3, 0.0)
    assert (second.propensity, second.reward) == (1 / 2, 5.0)
    return first, second


def test_a_slate_teaches_vw_one_interaction_per_slot_among_the_actions_that_were_left():
    vw = msgspec.structs.replace(SPEC, learner=VwConfig(), exploration=EpsilonGreedy(0.1))
    first, second = slate_interactions(vw)
    assert (first.actions.ids, first.chosen) == (("a", "b", "c"), 2)
    assert (second.actions.ids, second.chosen) == (("a", "b"), 0)


def test_a_slate_teaches_ridge_the_chosen_action_of_each_slot():
    first, second = slate_interactions(SPEC)
    assert (first.actions.ids, first.chosen) == (("c",), 0)
    assert (second.actions.ids, second.chosen) == (("a",), 0)


def test_a_holdout_decision_is_joined_and_not_learned():
    fold = log_of([(1, decision(holdout=True)), (1, RewardRecord("e", 1.0))], SPEC).fold()
    assert fold.join.counts["closed"] == fold.join.counts["joined"] == 1
    assert fold.learned == 0


def test_a_reward_no_decision_was_rewarded_with_changes_no_byte():
    """Early, late, duplicate, orphan and invalid rewards leave the model as it was."""
    steps = [(1, decision()), (1, RewardRecord("e", 1.0, "r"))]
    useless = [
        (0, RewardRecord("e", 5.0, "r")),
        (0, RewardRecord("e", 5.0, "r2", slot=4)),
        (0, RewardRecord("other", 5.0)),
    ]
    late = [(WINDOW, RewardRecord("e", 5.0))]
    assert (
        log_of(steps, SPEC).fold().learner.checkpoint()
        == log_of(steps + useless + late, SPEC).fold().learner.checkpoint()
    )


def test_a_new_spec_with_the_same_model_keeps_what_was_learned():
    steps = [(1000, decision(f"e{i}")) for i in range(30)]
    changed = msgspec.structs.replace(SPEC, floor=0.3, exploration=LinUcb())
    fold = log_of(steps, SPEC, changed).fold()
    assert fold.learned == fold.snapshot().learned == 30
    assert fold.learner.checkpoint() == log_of(steps, SPEC).fold().learner.checkpoint()
    load_policy(changed, fold.snapshot())  # the snapshot holds what the new exploration needs


def test_a_new_spec_with_another_model_starts_afresh_and_skips_what_the_old_one_chose():
    steps = [(1000, decision(f"e{i}")) for i in range(30)]
    changed = msgspec.structs.replace(SPEC, learner=RidgeConfig(l2=7.0))
    fold = log_of(steps, SPEC, changed).fold()
    assert 0 < fold.snapshot().learned == 15 < fold.learned


def test_an_entry_that_is_no_event_only_lets_time_pass():
    log = log_of([(1, decision())], SPEC)
    other = log_of([(1, decision())], SPEC)
    other.entries[-1] = LogEntry(other.entries[-1].id, CheckpointRecord("d"))
    assert log.fold().snapshot() == other.fold().snapshot()


def test_a_catalogue_that_the_log_names_is_used_from_there_on():
    first, second = Catalogue([Item("a", {"x": 1.0})]), Catalogue([Item("a", {"x": 2.0})])
    log = FakeLog(SPEC)
    for catalogue in (first, second):
        log.blobs[catalogue.digest] = catalogue.encoded
        log.append(CatalogueRecord(catalogue.digest), at=2)
    log.append(decision(spec=SPEC.digest, catalogue=first.digest), at=3)
    log.append(TickRecord(), at=3 + WINDOW)
    fold = log.fold()
    assert fold.catalogue.digest == second.digest
    (interaction,) = fold.interactions(JoinedDecision("3-0", log.entries[3].record, (1.0,), rewarded=True))
    values = {ns.name: ns.values for ns in interaction.actions.namespaces}["features"]
    assert values[0, 0] == 1.0  # the catalogue it was decided with, not the newest
