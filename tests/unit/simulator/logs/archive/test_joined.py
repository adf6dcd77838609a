"""The compiled join gives the rows of the learner's join, whatever the log and however it is read."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.logs import decision

from bandits.errors import SpecError
from bandits.log.codec import digest
from bandits.log.join import Join, JoinRule
from bandits.log.positions import has_reached, is_after, position_ms
from bandits.log.records import (
    ActivationRecord,
    BuildRecord,
    DecisionRecord,
    LogEntry,
    LogRecord,
    Placed,
    RewardRecord,
    Ruled,
    SpecRecord,
    TickRecord,
    WarmStartRecord,
)
from policies.archive.columns import columns_of
from policies.archive.row_groups import RowGroup
from policies.profiles.signals import SignalOptions
from policies.spec import PolicySpec, decode_spec
from simulator.logs.archive import joined, light
from simulator.logs.archive.joined import ArchiveJoin
from simulator.logs.archive.pieces import ArchivePiece, weigh_rewards
from simulator.logs.archive.rules import evaluation_rule, spec_in_force
from simulator.logs.archive.settled import Settled, SettledRows, keys_of, numbered_texts
from simulator.logs.rows import Waiting, key_of

RULES = [
    JoinRule(window_s=0.2, default_reward=-1.0, aggregation="sum"),
    JoinRule(window_s=1.0, aggregation="first"),
    JoinRule(window_s=2.5, default_reward=0.5, aggregation="last", late="correct"),
    JoinRule(window_s=1.0, aggregation="max", learn="as_it_arrives"),
    JoinRule(window_s=0.0001),
    JoinRule(window_s=2.0, aggregation="average", learn="as_it_arrives"),
    JoinRule(window_s=2.0, aggregation="median"),
    JoinRule(window_s=2.0, aggregation="min"),
]
SIGNALS = {
    "click": SignalOptions(0.7, aggregation="median"),
    "hide": SignalOptions(-2.0, window="3s", aggregation="sum"),
    "buy": SignalOptions(10.0, window="1s", aggregation="average"),
}
SPECS = [
    *(PolicySpec("p", join=rule) for rule in RULES),
    *(PolicySpec("p", join=rule, signals=SIGNALS) for rule in RULES[:2]),
    PolicySpec("p", join=RULES[0], signals={"hide": 1.0}),
]
# One that is no spec, and one of which only the learner sees that it cannot work.
NO_SPEC = b"{"
REFUSED = (
    b'{"name":"p","join":{"window_s":0.7},'
    b'"learner":{"kind":"vw","args":"--cb_explore_adf --cb_type nonsense"}}'
)
BLOBS = {spec.digest: spec.encoded for spec in SPECS} | {
    digest(data): data for data in (NO_SPEC, REFUSED)
}
DIGESTS = list(BLOBS)


@lru_cache
def in_force(digest: str) -> PolicySpec | None:
    return spec_in_force(EntriesInMemory([], 1), digest)


@pytest.fixture(autouse=True, scope="module")
def specs_are_tried_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(light, "spec_in_force", lambda _, digest: in_force(digest))
        yield


class EntriesInMemory:
    """An archive whose row groups have ``size`` entries, or a few less."""

    def __init__(self, log: Sequence[LogEntry], size: int) -> None:
        self.log, self.size = log, size

    def blob(self, name: str) -> bytes:
        return BLOBS[name]

    def entries(self, after: str, through: str | None, **_: Any) -> Iterator[LogEntry]:
        for e in self.log:
            if is_after(e.id, after) and (through is None or has_reached(through, e.id)):
                yield e

    def columns(
        self, names: Sequence[str], after: str = "0-0", through: str | None = None
    ) -> Iterator[RowGroup]:
        for start in range(0, len(self.log), self.size):
            entries = [
                entry
                for entry in self.log[start : start + self.size]
                if is_after(entry.id, after) and (through is None or has_reached(through, entry.id))
            ]
            if entries:
                records: list[Any] = [entry.record for entry in entries]
                batch = columns_of([entry.id for entry in entries], records, names)
                yield RowGroup(batch, "memory", start // self.size, entries[-1].id)


def rows_of_the_join(log: Sequence[LogEntry], piece: ArchivePiece) -> tuple[Any, Any, Any]:
    """The rows by the learner's join, in the order of decisions; what waits; what is refused."""
    rules, refused = {}, []

    def rule_of(digest: str) -> JoinRule:
        if digest not in rules:
            rules[digest] = evaluation_rule(decode_spec(BLOBS[digest]).rule, piece.window_s)
        return rules[digest]

    def owns(position: str) -> bool:
        return is_after(position, piece.after) and (
            piece.through is None or has_reached(piece.through, position)
        )

    join, rows = Join(rule_of, rule=piece.rule, fold=piece.fold), []
    for read in log:
        entry = read
        if not is_after(entry.id, piece.start):
            continue
        if isinstance(entry.record, DecisionRecord):
            try:
                rule_of(entry.record.spec)
            except SpecError:
                refused += [entry.id] if owns(entry.id) else []
                entry = LogEntry(entry.id, TickRecord())
        rows += [each for each in join.apply(entry) if owns(each.position)]
        if isinstance(entry.record, SpecRecord):
            spec = in_force(entry.record.digest)
            if spec is not None:
                join.rule = evaluation_rule(spec.rule, piece.window_s)

    number = {entry.id: at for at, entry in enumerate(e for e in log if owns(e.id))}
    closing = [at for position, at in join.open_windows() if owns(position)]
    found = sorted(
        (
            number[each.position],
            position_ms(each.position),
            key_of(each.record.event_id),
            each.rewards,
        )
        for each in rows
    )
    assert all(each.slots == tuple(range(len(each.rewards))) for each in rows)
    return found, Waiting(len(closing), min(closing, default=0), max(closing, default=0)), refused


def rows_of(settled: Settled) -> list[tuple[Any, ...]]:
    return [
        (sequence, ms, key, tuple(settled.rewards[first:stop].tolist()))
        for sequence, ms, key, first, stop in zip(
            settled.sequence.tolist(),
            settled.ms.tolist(),
            settled.key.tolist(),
            settled.begins[:-1].tolist(),
            settled.begins[1:].tolist(),
            strict=True,
        )
    ]


def rows_by_columns(
    log: Sequence[LogEntry], piece: ArchivePiece, size: int, steps: Sequence[int]
) -> tuple[Any, Any, Any]:
    refused: list[str] = []
    join = ArchiveJoin(EntriesInMemory(log, size), piece, lambda at, _: refused.append(at))
    owned = [
        entry.id
        for entry in log
        if is_after(entry.id, piece.after)
        and (piece.through is None or has_reached(piece.through, entry.id))
    ]
    settled = SettledRows(join.spans())
    found = []
    for stop in sorted({*(step % (len(owned) + 1) for step in steps), len(owned)}):
        rows = rows_of(settled.until(stop))
        assert all(row[0] < stop for row in rows)
        found += rows
    # all of a log is read, so that all that waits is known
    list(settled.spans)
    return found, join.waiting, [at for at in refused if at in set(owned)]


def random_log(rng: np.random.Generator, count: int, names: int, pace: int) -> list[LogEntry]:
    log, now = [], 1
    ids = ["a", "b", "c", "d"]
    for number in range(count):
        now += int(rng.integers(pace)) if rng.random() < 0.7 else 0
        name, kind = f"e{rng.integers(names)}", rng.random()
        record: LogRecord
        if kind < 0.4:
            chosen = tuple(rng.permutation(4)[: 1 + int(rng.integers(3))].tolist())
            slots = sorted(rng.choice(6, int(rng.integers(3)), replace=False).tolist())
            placed = [Placed(slot, "xy"[at]) for at, slot in enumerate(slots)]
            record = decision(
                name,
                ids=tuple(ids),
                chosen=chosen,
                deferred=bool(rng.random() < 0.3),
                rules=Ruled(placed=placed) if placed else None,
                spec=DIGESTS[0 if rng.random() < 0.5 else int(rng.integers(len(DIGESTS)))],
            )
            if placed and rng.random() < 0.2:  # on its page all is placed
                record = replace(record, action_ids=[], chosen=[], pmf=b"")
        elif kind < 0.8:
            record = RewardRecord(
                name,
                float(rng.integers(-3, 4)) / 3,
                None if rng.random() < 0.5 else f"r{rng.integers(3)}",
                None if rng.random() < 0.5 else int(rng.choice([0, 1, 2, 5, 2**40])),
                None if rng.random() < 0.6 else str(rng.choice([*ids, "x", "z"])),
                None if rng.random() < 0.4 else str(rng.choice([*SIGNALS, "?"])),
            )
        elif kind < 0.95:
            record = ActivationRecord(name)
        elif kind < 0.97:
            record = SpecRecord(DIGESTS[int(rng.integers(len(DIGESTS)))], "s")
        elif kind < 0.98:
            record = BuildRecord({"fold": str(rng.choice([1, 2, 5]))})
        else:
            record = TickRecord()
        log.append(LogEntry(f"{now}-{number}", record))
    return log


def piece_of(
    rng: np.random.Generator, log: Sequence[LogEntry], window_s: float | None = None
) -> ArchivePiece:
    """All of a log, or a part that begins to be read a little before."""
    after, start, through = "0-0", "0-0", None
    if rng.random() < 0.7 and log:
        begin, first, last = sorted(rng.integers(len(log), size=3).tolist())
        start, after = log[begin].id, log[first].id
        through = log[last].id if rng.random() < 0.8 else None
    rule = evaluation_rule(SPECS[int(rng.integers(len(SPECS)))].rule, window_s)
    fold = int(rng.choice([1, 2, 5]))
    return ArchivePiece("root", "p", after, through, start, rule, window_s=window_s, fold=fold)


def assert_same(log: Sequence[LogEntry], piece: ArchivePiece, size: int, steps: Sequence[int]):
    expected, found = rows_of_the_join(log, piece), rows_by_columns(log, piece, size, steps)
    assert found[0] == expected[0]
    assert found[1] == expected[1]
    assert found[2] == expected[2]
    return len(expected[0])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**63), st.integers(0, 40), st.integers(1, 6), st.integers(2, 900), st.data())
def test_rows_are_those_of_the_join(seed, count, names, pace, data):
    rng = np.random.default_rng(seed)
    log = random_log(rng, count, names, pace)
    piece = piece_of(rng, log, data.draw(st.sampled_from([None, None, 0.3, 1.7])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joined, "READ_ENTRIES", data.draw(st.sampled_from([1, 4, 1000])))
        patch.setattr(joined, "SPAN_ENTRIES", data.draw(st.sampled_from([1, 2, 5, 1000])))
        steps = data.draw(st.lists(st.integers(0, 40), max_size=3))
        assert_same(log, piece, data.draw(st.sampled_from([1, 3, 1000])), steps)


@pytest.mark.slow
@pytest.mark.parametrize("span", [1, 300, 1 << 17])
@pytest.mark.parametrize("pace", [3, 30])
def test_of_thousands_of_entries_too(span, pace, monkeypatch):
    monkeypatch.setattr(joined, "SPAN_ENTRIES", span)
    monkeypatch.setattr(joined, "READ_ENTRIES", min(span, 200))
    rng = np.random.default_rng([span, pace])
    log = random_log(rng, 4000, 60, pace)
    counts = [
        assert_same(log, piece_of(rng, log, window_s), 64, rng.integers(4000, size=9).tolist())
        for window_s in (None, None, 0.3, None)
    ]
    assert sum(counts) > 100


def test_keys_are_those_of_the_ids():
    rng = np.random.default_rng(1)
    ids = [
        "".join(rng.choice([*"abc", "é", "日", "😀"], size=n)) for n in range(70) for _ in range(3)
    ]
    for first in (0, 5):
        texts = pa.array(ids, pa.string())[first:]
        assert keys_of(texts).tolist() == [key_of(each) for each in ids[first:]]
    assert keys_of(pa.array([], pa.string())).tolist() == []


def test_an_open_decision_takes_at_most_a_hundred_bytes(monkeypatch):
    monkeypatch.setattr(joined, "READ_ENTRIES", 100)
    monkeypatch.setattr(joined, "SPAN_ENTRIES", 100)
    log = [
        LogEntry(f"{1000 + n}-0", decision(f"{n:08d}-0000-4000-8000-{n:012d}", spec=DIGESTS[2]))
        for n in range(2000)
    ]
    join = ArchiveJoin(EntriesInMemory(log, 100), ArchivePiece("root", "p"), lambda *_: None)
    spans = join.spans()
    for settled in spans:
        carried = join._carried
        if carried is None or len(carried) < 1000:
            continue
        held = [getattr(carried, name) for name in carried.__dataclass_fields__]
        assert sum(column.nbytes for column in held) <= 100 * len(carried)
        assert settled.frontier == 0
        return
    raise AssertionError("no window was as long")


def test_decisions_of_before_are_weighed_as_the_log_was_learned_anew():
    """An evaluation measures all of a log in one unit, as its model does."""
    old, new = SPECS[len(RULES)], SPECS[-1]
    log = [
        LogEntry("1-0", BuildRecord({"fold": "5"})),
        LogEntry("1-1", SpecRecord(old.digest, "s")),
        LogEntry("2-0", decision("a", spec=old.digest)),
        LogEntry("3-0", RewardRecord("a", 1.0, signal="hide")),
        LogEntry("4-0", SpecRecord(new.digest, "s")),
        LogEntry("99999-0", TickRecord()),
    ]
    piece = ArchivePiece("root", "p", rule=evaluation_rule(old.rule))
    assert rows_by_columns(log, piece, 10, [])[0][0][3] == (-2.0,)
    log.insert(5, LogEntry("5-0", WarmStartRecord("digest", "4-0")))
    assert rows_by_columns(log, piece, 10, [])[0][0][3] == (1.0,)

    # Whoever learns from the log may weigh it otherwise.
    weigh_rewards([piece], PolicySpec("q", signals={"hide": 7.0}))
    assert rows_by_columns(log, piece, 10, [])[0][0][3] == (7.0,)
    weigh_rewards([piece], PolicySpec("q"))
    assert rows_by_columns(log, piece, 10, [])[0][0][3] == (7.0,)


@pytest.mark.parametrize("alike", [False, True], ids=["by their keys", "all keys alike"])
def test_texts_are_numbered_as_they_first_appear(alike):
    """Those whose keys are the same by chance are told apart."""
    ids = ["b", "a", "", "b", "ab", "a" * 40, "ü", "ab", "", "a" * 41, "ü"]
    texts = pa.array(["before", *ids], pa.string()).slice(1)
    keys = np.full(len(ids), 7, np.uint64) if alike else keys_of(texts)
    numbers, count = numbered_texts(texts, keys)
    coded = texts.dictionary_encode()
    assert numbers.tolist() == coded.indices.to_pylist()
    assert count == len(coded.dictionary)
