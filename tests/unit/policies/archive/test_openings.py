"""What a resume reads of an archive is what the records say."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.logs import RANDOM_LOGS, RULE, archived, decision, stream

from bandits.exploration import EpsilonGreedy
from bandits.log.older_decisions import Opening, opened_of
from bandits.log.positions import START
from bandits.log.records import (
    ActivationRecord,
    BuildRecord,
    CheckpointRecord,
    LogEntry,
    RewardRecord,
    TickRecord,
)
from bandits.ridge.config import RidgeConfig
from policies.archive.archive import ArchiveReader
from policies.archive.openings import openings
from policies.spec import PolicySpec

SPEC = PolicySpec("p", learner=RidgeConfig(), exploration=EpsilonGreedy(), join=RULE)
WANTED = (Opening, RewardRecord, ActivationRecord, BuildRecord)


def wanted(entries: list[LogEntry]) -> list[tuple[str, object]]:
    return [
        (at, record if isinstance(record, WANTED) else TickRecord())
        for at, record in opened_of(entries)
    ]


@settings(max_examples=12, deadline=None)
@given(RANDOM_LOGS, st.integers(1, 4), st.data())
def test_of_any_part_of_a_log(tmp_path_factory, steps, files, data):
    entries = list(stream([(1, TickRecord()), *steps]))
    root = archived(tmp_path_factory.mktemp("archive"), entries, SPEC, min(files, len(entries)))
    reader = ArchiveReader(root, "p")
    assert list(openings(reader, START)) == wanted(entries)
    first, last = sorted(data.draw(st.tuples(*2 * [st.integers(0, len(entries) - 1)])))
    part = list(openings(reader, entries[first].id, entries[last].id))
    assert part == wanted(entries[first + 1 : last + 1])


@pytest.mark.parametrize("catalogue", ["none", "other"])
def test_of_every_kind_of_entry(tmp_path, catalogue):
    records = [
        BuildRecord({"fold": "1"}),
        msgspec.structs.replace(decision("é", chosen=(2, 0), deferred=True), catalogue=catalogue),
        RewardRecord("é", -0.0, "r", 2**63 - 1, "ü"),
        RewardRecord("x", 1.5),
        CheckpointRecord(),
        ActivationRecord("é"),
        BuildRecord({"fold": "2"}),
        decision("last", ids=("é", "b")),
        TickRecord(),
    ]
    entries = [LogEntry(f"1700000000000-{at}", record) for at, record in enumerate(records)]
    reader = ArchiveReader(archived(tmp_path, entries, SPEC, 2), "p")
    assert list(openings(reader, START)) == wanted(entries)
