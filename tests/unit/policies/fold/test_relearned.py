"""A log learned anew under other weights is taken over at an entry: from there on it is that fold."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import SALT, FakeLog, FakePast
from support.logs import RANDOM_LOGS, RULE, WINDOW, decision

from bandits.exploration import LinUcb
from bandits.log.codec import digest
from bandits.log.records import (
    BuildRecord,
    DecisionRecord,
    LogEntry,
    RewardRecord,
    TickRecord,
    WarmStartRecord,
)
from bandits.log.versions import FOLD
from bandits.ridge.config import RidgeConfig
from policies.fold.checkpoint import decode_state
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.profiles.signals import SignalOptions
from policies.spec import PolicySpec, TrendingSource

BEFORE = {"click": 1.0, "buy": SignalOptions(10.0, aggregation="sum")}
AFTER = {"click": -5.0, "buy": SignalOptions(2.0, window="4s"), "share": 0.5}
RULES = {
    "at close": RULE,
    "as it arrives": msgspec.structs.replace(RULE, learn="as_it_arrives", late="correct"),
    "corrected": msgspec.structs.replace(RULE, late="correct", aggregation="last"),
}


def spec_of(name: str, signals) -> PolicySpec:
    return PolicySpec(
        "home",
        learner=RidgeConfig(),
        exploration=LinUcb(),
        sources=[TrendingSource("now")],
        join=RULES[name],
        signals=signals,
    )


def log_of_two(name: str, steps, at: int) -> tuple[FakeLog, PolicySpec, list[LogEntry]]:
    """A log whose weights change in the middle; some replicas decide under the old ones for ever.

    What comes after the entry numbered ``at`` is given back, and is not in it yet.
    """
    old, new = spec_of(name, BEFORE), spec_of(name, AFTER)
    log, now = FakeLog(), 1
    empty = Catalogue()
    log.blobs[empty.digest] = empty.encoded
    log.append(BuildRecord({"fold": str(FOLD)}), at=now)
    log.configure(old, at=now)
    for number, (wait, record) in enumerate([*steps, (3 * WINDOW, TickRecord())]):
        now += wait
        if number == len(steps) // 2:
            log.configure(new, at=now)
        named = record
        if isinstance(record, DecisionRecord):
            spec = new if number >= len(steps) // 2 and number % 3 else old
            named = msgspec.structs.replace(record, spec=spec.digest, catalogue=empty.digest)
        log.append(named, at=now)
    start = place_of(log, new)
    at = min(max(at, start + 1), len(log.entries))
    later, log.entries = log.entries[at:], log.entries[:at]
    return log, new, later


def place_of(log: FakeLog, spec: PolicySpec) -> int:
    records = [getattr(entry.record, "digest", "") for entry in log.entries]
    return records.index(spec.digest)


def learned_beside(log: FakeLog, spec: PolicySpec, through: int) -> tuple[str, bytes]:
    """How far a fold beside has come, and its checkpoint."""
    beside = fold_of(log).beside(spec.digest)
    beside.apply(log.entries[:through])
    return beside.position, msgspec.msgpack.encode(beside.state())


def fold_of(log: FakeLog, **options) -> Fold:
    return Fold(log.blobs.__getitem__, salt=SALT, past=FakePast(log), **options)


def take_over(log: FakeLog, position: str, state: bytes, later: list[LogEntry]) -> None:
    """Name a checkpoint in the log, and go on."""
    log.blobs[digest(state)] = state
    last = log.entries[-1].id
    ms, sequence = map(int, last.split("-"))
    log.entries.append(LogEntry(f"{ms}-{sequence + 1}", WarmStartRecord(digest(state), position)))
    log.entries += [
        LogEntry(f"{each.time_ms}-{int(each.id.split('-')[1]) + 2}", each.record) for each in later
    ]


def remembered(fold: Fold) -> tuple[object, ...]:
    return (
        fold.snapshot(),
        fold.learned,
        dict(fold.join.counts),
        fold.join.signals,
        fold.join.state(),
    )


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=40, deadline=None)
@given(
    steps=RANDOM_LOGS,
    at=st.integers(0, 60),
    through=st.integers(0, 60),
    cut=st.integers(0, 70),
    recent_bytes=st.sampled_from([1500, 1 << 26]),
)
def test_whoever_folds_the_log_goes_on_as_the_fold_beside(
    name, steps, at, through, cut, recent_bytes
):
    log, spec, later = log_of_two(name, steps, at)
    place = min(max(through, 1), len(log.entries))
    position, state = learned_beside(log, spec, max(place, place_of(log, spec) + 1))
    take_over(log, position, state, later)

    wanted, found = fold_of(log, weigh_by=spec.digest), fold_of(log)
    wanted.join.recent_bytes = found.join.recent_bytes = recent_bytes
    wanted.apply(log.entries)
    found.apply(log.entries[:cut])
    found.apply(log.entries[cut:])
    assert found.snapshot() == wanted.snapshot()
    assert remembered(found) == remembered(wanted)
    assert not found.is_mixed

    # And whoever resumes, wherever.
    resumed = fold_of(log)
    resumed.apply(log.entries[:cut])
    kept = decode_state(msgspec.msgpack.encode(resumed.state()))
    if kept.spec is not None:
        resumed = fold_of(log)
        resumed.resume(kept, FakePast(log))
        resumed.apply(log.entries[cut:])
        assert remembered(resumed) == remembered(found)
        assert resumed.state() == found.state()


def test_until_then_each_decision_is_weighed_as_its_own_spec_says():
    log, spec, _ = log_of_two(
        "at close", [(1, decision("a")), (1, RewardRecord("a", 1.0, signal="click"))], 99
    )
    fold = log.fold()
    assert fold.is_mixed
    state = decode_state(msgspec.msgpack.encode(fold.state()))
    assert state.is_mixed
    beside = fold.beside(spec.digest)
    beside.apply(log.entries)
    assert beside.snapshot().payload != fold.snapshot().payload


@pytest.mark.parametrize("how", ["another spec", "another position", "no checkpoint", "no weights"])
def test_what_was_not_learned_for_this_log_is_refused(how):
    log, spec, later = log_of_two("at close", [(1, decision("a"))] * 4, 99)
    position, state = learned_beside(log, spec, len(log.entries))
    if how == "another spec":
        log.configure(spec_of("at close", {"click": 9.0}), at=log.entries[-1].time_ms)
    elif how == "another position":
        position = "1-0"
    elif how == "no checkpoint":
        state = b"nothing"
    else:
        state = msgspec.msgpack.encode(log.fold().state())
    take_over(log, position, state, later)
    before = log.fold().learned
    fold = log.fold()
    assert fold.refused_warm_starts == 1
    assert fold.relearned is None
    assert fold.learned == before


def test_weights_that_change_later_count_for_later_decisions():
    log, spec, later = log_of_two("at close", [(1, decision("a"))], 99)
    take_over(log, *learned_beside(log, spec, len(log.entries)), later)
    third, now = spec_of("at close", {"click": 3.0}), log.entries[-1].time_ms + 1
    log.configure(third, at=now)
    for number, made in enumerate([spec, third]):
        record = decision(f"n{number}", spec=made.digest, catalogue=Catalogue().digest)
        log.append(record, at=now)
        log.append(RewardRecord(f"n{number}", 1.0, signal="click"), at=now)
    fold = log.fold()
    taught = [each.rewards for each in fold.join.apply(LogEntry(f"{now + WINDOW}-0", TickRecord()))]
    assert taught == [(-5.0,), (3.0,)]
    assert fold.is_mixed
