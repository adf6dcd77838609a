"""The logs of several partitions read as one: complete, in the order of time, from anywhere."""

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import SALT, FakeLog
from support.shadowed import as_bytes, encoded, policy_of, said, served, shadow_of

from bandits.errors import MissingBlobError, SnapshotError
from bandits.features.hashing import partition_of
from bandits.log.older_decisions import Opened, opened_of
from bandits.log.positions import START, log_order, merged_position, own_position
from bandits.log.records import CheckpointRecord, DecisionRecord, LogEntry, RewardRecord, TickRecord
from policies.fold.checkpoint import decode_state
from policies.shadows.fold import ShadowFold
from policies.shadows.following import DecisionPmfs, ShadowFollower
from policies.spec import spec_of
from serve_app.workers.shadows.followed_log import MergedLogs

COUNT = 3
SPEC = spec_of(
    policy_of({"learner": {"kind": "ridge"}, "exploration": {"kind": "lints"}}, {"name": "twin"})
)


class Partition:
    """One partition's part of a log."""

    def __init__(self, log: FakeLog, number: int) -> None:
        self.log = FakeLog()
        self.log.blobs = log.blobs if number == COUNT - 1 else {}
        for entry in log.entries:
            record = entry.record
            is_event = isinstance(record, (DecisionRecord, RewardRecord))
            if number == (partition_of(record.event_id, COUNT) if is_event else 0):
                self.log.append(record, at=entry.time_ms)

    def encoded(self, after: str, through: str | None = None, *, batch: int = 1) -> list[LogEntry]:
        assert through is not None
        assert batch
        return encoded(self.log.past(after, through))

    def opened(self, after: str, through: str) -> Iterable[Opened]:
        return opened_of(self.encoded(after, through))

    def blob(self, name: str) -> bytes:
        if name not in self.log.blobs:
            raise MissingBlobError("not here", "blob")
        return self.log.blobs[name]


@pytest.fixture(scope="module")
def log() -> FakeLog:
    return served(SPEC)


@pytest.fixture
def merged(log: FakeLog) -> MergedLogs:
    return MergedLogs([Partition(log, number) for number in range(COUNT)], lambda: 10**9)


@given(st.integers(1, 3), st.integers(0, 5), st.integers(1, 3), st.integers(0, 5))
def test_a_position_in_all_logs_says_how_far_each_of_them_was_read(ms, seq, own_ms, own_seq):
    position = f"{ms}-{seq}"
    for number in range(COUNT):
        own = f"{own_ms}-{own_seq}"
        is_read = log_order(merged_position(own, number, COUNT)) <= log_order(position)
        assert is_read == (log_order(own) <= log_order(own_position(position, number, COUNT)))


def follow(merged: MergedLogs, fold: ShadowFold, stop: str | None = None) -> list[DecisionPmfs]:
    follower = ShadowFollower(shadow_of(SPEC), fold)
    entries: Iterator[LogEntry] = merged.entries(fold.position)
    part = [each for each in entries if stop is None or log_order(each.id) <= log_order(stop)]
    return list(follower.follow(part))


def fold_of(merged: MergedLogs, kept: dict[str, bytes]) -> ShadowFold:
    return ShadowFold(
        shadow_of(SPEC),
        merged.blob,
        salt=SALT,
        past=merged.past,
        on_checkpoint=lambda at, data: kept.update({at: data()}),
    )


def test_a_shadow_of_all_partitions_says_what_it_says_of_one_log(log: FakeLog, merged: MergedLogs):
    """Byte for byte but for the draws, which hang on positions; and from any checkpoint on."""
    kept: dict[str, bytes] = {}
    whole = follow(merged, fold_of(merged, kept))
    assert [each.event for each in whole] == [each.event for each in said(shadow_of(SPEC), log)]
    assert len(kept) == sum(isinstance(each.record, CheckpointRecord) for each in log.entries)
    for position, state in kept.items():
        fold = fold_of(merged, {})
        fold.resume(decode_state(state), merged.past)
        begun = [each for each in whole if log_order(each.position) <= log_order(position)]
        assert as_bytes(begun + follow(merged, fold)) == as_bytes(whole)


def test_nothing_is_read_of_a_time_that_a_server_may_still_write_in(log: FakeLog):
    parts = [Partition(log, number) for number in range(COUNT)]
    read = list(MergedLogs(parts, lambda: 12_000).entries(START))
    assert [each.id.partition("-")[0] for each in read][-1] <= "12000"
    assert len(read) == sum(each.time_ms <= 12_000 for each in log.entries)
    assert isinstance(log.entries[-1].record, TickRecord)


def test_a_blob_is_had_from_whichever_log_has_it_and_logs_that_were_cut_give_no_state(
    log: FakeLog, merged: MergedLogs
):
    assert merged.blob(SPEC.digest) == SPEC.encoded
    with pytest.raises(MissingBlobError):
        merged.blob("f" * 32)
    assert merged.root() is None
    cut = MergedLogs([Partition(log, 0)], lambda: 0, lambda: True)
    with pytest.raises(SnapshotError, match="have been cut"):
        cut.root()
