"""A run of plain entries leaves what applying each of them does."""

from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.logs import WINDOW, decision

from bandits.log.codec import encode
from bandits.log.encoded_decisions import DECISIONS, read_entries
from bandits.log.join import Join, JoinedDecision, JoinRule
from bandits.log.records import (
    ActivationRecord,
    CheckpointRecord,
    EncodedDecision,
    LogEntry,
    LogRecord,
    RewardRecord,
    TickRecord,
)
from bandits.log.versions import FOLD
from policies.profiles.signals import SignalOptions, signalled_rule

RULES = {
    "usual": JoinRule(window_s=WINDOW / 1000, default_reward=-1.0),
    "same window": JoinRule(window_s=WINDOW / 1000, aggregation="average"),
    "shorter": JoinRule(window_s=WINDOW / 2000),
    "corrects": JoinRule(window_s=WINDOW / 1000, late="correct"),
    "pages": JoinRule(window_s=WINDOW / 1000, default_reward=-1.0, page_reward="sum"),
    "arrives": JoinRule(window_s=WINDOW / 1000, learn="as_it_arrives"),
    "signals": signalled_rule(JoinRule(window_s=WINDOW / 1000), {"click": 1.0, "hide": -2.0}),
    "own windows": signalled_rule(
        JoinRule(window_s=WINDOW / 2000, late="correct"),
        {"click": 3.0, "hide": SignalOptions(-2.0, window=f"{WINDOW // 1000}s", aggregation="sum")},
    ),
}


class Behind:
    """The records of a log, by position."""

    def __init__(self, entries: list[LogEntry]) -> None:
        self.of = {e.id: e.record for e in entries if isinstance(e.record, DECISIONS)}

    def put_by(self, _decisions, _records):
        return None

    def at_hand(self, positions: list[str], _window_ms: int, _spec: str):
        # All are, or none, or the first ones, or all but the first.
        way = int(positions[0].partition("-")[2]) % 4
        if way == 1:
            return None
        found = {0: positions, 2: positions[: 1 + len(positions) // 2], 3: []}[way]
        return [self.of[each] for each in found]

    def closing(self, position: str, _window_ms: int, _spec: str):
        return self.of[position]

    def at(self, position: str):
        return self.of[position]


def encoded(entries: list[LogEntry]) -> list[LogEntry]:
    return read_entries([(e.id, encode(e.record)) for e in entries], lambda *_: None)


def said(joined: JoinedDecision) -> tuple[object, ...]:
    return joined.position, joined.record, joined.slots, joined.rewards, joined.correction


def remembered(join: Join) -> tuple[object, ...]:
    """All that a join holds."""
    kept = {
        name: {key: msgspec.structs.astuple(each) for key, each in of.items()}
        for name, of in (("open", join._open), ("closed", join._closed))
    }
    order = list(join._open), list(join._closed)
    due = sorted(each for queue in join._deadlines._queues.values() for each in queue)
    older = join._older.rows(), join._older.next_ms
    parked = join._early, join._activations, join._sequence, join._taken_bytes
    return kept, order, due, list(older[0]), older[1], parked, dict(join.counts), join.state()


def run(join: Join, entries: list[LogEntry]) -> tuple[list[tuple[int, object]], int]:
    """Apply entries as a fold does; return what each taught, and how many were in runs."""
    taught, place, plain = [], 0, 0
    while True:
        out: list[JoinedDecision] = []
        causes: list[int] = []
        end = join.apply_run(entries, place, lambda spec: spec != "shorter", out, causes)
        taught += zip(causes, map(said, out), strict=True)
        plain += end - place
        if end == len(entries):
            return taught, plain
        taught += [(end, said(joined)) for joined in join.apply(entries[end])]
        place = end + 1


def long_log(random: Random, specs: list[str]) -> list[LogEntry]:
    """Nearly all of it decisions and rewards, of a few events; about seven windows are open."""
    now, log = 0, []
    for number in range(150):
        now += random.randrange(2 * WINDOW // 7)
        name, kind = f"e{random.randrange(20)}", random.random()
        record: LogRecord
        if kind < 0.6:
            record = decision(
                name,
                spec=specs[number * len(specs) // 150],
                chosen=random.choice([(0,), (0,), (2, 1)]),
                deferred=random.random() < 0.1,
            )
        elif kind < 0.9:
            reward_id = random.choice([None, "r1", "r2"])
            action = random.choice([None, None, "a", "z"])
            signal = random.choice([None, None, "click", "hide", "?"])
            slot = random.choice([None, 0, 1])
            record = RewardRecord(name, 1.0, reward_id, slot, action, signal)
        else:
            record = random.choice([ActivationRecord(name), TickRecord(), CheckpointRecord()])
        log.append(LogEntry(f"{now}-{number}", record))
    return log


@settings(max_examples=100)
@given(
    st.integers(0, 1 << 32),
    st.lists(st.sampled_from(list(RULES)), min_size=1, max_size=5),
    st.sampled_from([1500, 1 << 20, None]),
    st.sets(st.integers(0, 150)),
)
def test_any_split_into_runs_leaves_and_teaches_the_same(seed, specs, recent_bytes, cuts):
    """Specs change, records find no room, windows of two lengths are open."""
    entries = encoded(long_log(Random(seed), specs))
    behind = None if recent_bytes is None else Behind(entries)
    options = {"behind": behind, "recent_bytes": recent_bytes or 0, "fold": FOLD}
    one_by_one, in_runs = (Join(RULES.__getitem__, RULES["usual"], **options) for _ in range(2))

    for first, end in pairwise(sorted({0, len(entries), *cuts})):
        part = entries[first:end]
        expected = [
            (place, said(joined))
            for place, entry in enumerate(part)
            for joined in one_by_one.apply(entry)
        ]
        assert run(in_runs, part)[0] == expected
        assert remembered(in_runs) == remembered(one_by_one)


@pytest.mark.parametrize("signal", [None, "click"])
@pytest.mark.parametrize("window", [500, 100_000])
def test_a_usual_log_is_one_run(window, signal):
    rule = JoinRule(window_s=window / 1000)
    rule = rule if signal is None else signalled_rule(rule, {signal: 1.0})
    log = []
    for number in range(50):
        log.append(LogEntry(f"{1000 * number}-0", decision(f"e{number}")))
        log.append(
            LogEntry(f"{1000 * number + 600}-0", RewardRecord(f"e{number}", 1.0, signal=signal))
        )
    entries = encoded([*log, LogEntry("1000000-0", TickRecord())])
    assert sum(isinstance(entry.record, EncodedDecision) for entry in entries) == 50

    join = Join(lambda _: rule, rule, fold=FOLD)
    taught, plain = run(join, entries)
    assert plain == len(entries)
    assert [lesson[3] for _, lesson in taught] == [(1.0 if window > 600 else 0.0,)] * 50
