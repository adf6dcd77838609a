"""Archived entries come to a fold as the bytes of the stream do."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.archives import archive, memory
from support.full_logs import full_logs
from support.logs import decision
from support.strategies import tries

from bandits.log.codec import encode
from bandits.log.encoded_decisions import read_entries
from bandits.log.records import Credit, EncodedDecision, LogEntry, Placed, RewardRecord, Ruled
from policies.archive.archive import ArchiveReader
from policies.archive.parts import encoded


def said(entries: list[LogEntry]) -> list[tuple[str, type, dict]]:
    """All that a fold could ask of entries."""
    records = [(each.id, each.record) for each in entries]
    return [(at, type(record), msgspec.structs.asdict(record)) for at, record in records]


def check(log: list[tuple[str, bytes]], limit: int = 100) -> list[LogEntry]:
    system = memory()
    archive(system, log, limit)
    found = list(ArchiveReader(system, "home").encoded())
    assert said(found) == said(read_entries(log, lambda *_: None))
    return found


@tries(60)
@given(full_logs().filter(bool), st.integers(1, 9))
def test_archived_entries_say_what_their_bytes_say(log, limit):
    check(log, limit)


ROUNDED = np.array([1.0 + 5e-13, 0.0, 0.0]).tobytes()


@pytest.mark.parametrize(
    ("record", "is_encoded"),
    [
        (decision(), True),
        (decision(chosen=(2, 0)), True),
        (decision(user="u", deferred=True, holdout=True), True),
        (decision(unserved=True, holdout=True), True),
        (decision(failed={"cf": "timeout"}), True),
        (decision(rules=Ruled(placed=[Placed(0, "p")])), True),
        (decision(rules=Ruled(filter="item.new")), True),
        (decision(pmf=ROUNDED), False),
        (decision(credit=Credit(["cf"], np.ones((1, 1)).tobytes(), [0])), False),
        (decision("ü" * 40), True),
    ],
)
def test_what_a_fold_reads_itself_is_decoded_and_all_else_stays_encoded(record, is_encoded):
    """Also among entries of other kinds."""
    data = encode(record), encode(RewardRecord("e", 2.0, "r", 1, "a", "click")), b"junk"
    log = [(f"1700000000000-{number}", each) for number, each in enumerate(data, 1)]
    for part in (log, log[:1]):
        found = check(part)
        assert isinstance(found[0].record, EncodedDecision) is is_encoded


def test_a_record_that_is_too_long_to_be_scanned_is_decoded(monkeypatch):
    monkeypatch.setattr(encoded, "LONGEST", 10)
    system = memory()
    archive(system, [("1700000000000-1", encode(decision()))], 10)
    (found,) = ArchiveReader(system, "home").encoded()
    assert said([found]) == said(read_entries([("1700000000000-1", encode(decision()))], print))
