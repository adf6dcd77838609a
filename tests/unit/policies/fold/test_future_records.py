"""What a later build may write, met by this one: appended fields, unknown kinds and formats."""

import io

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import SALT, FakeLog, FakePast
from support.logs import decision
from support.strategies import decisions, rewards, small_records

from bandits.errors import CodecError, NewerBuildError, UnknownKindError
from bandits.exploration import LinTs
from bandits.log.codec import KINDS, VERSION, decode, digest, encode, read_entry
from bandits.log.positions import START
from bandits.log.records import (
    BuildRecord,
    CheckpointRecord,
    LogEntry,
    RewardRecord,
    TickRecord,
    UnknownRecord,
    kind_of,
)
from bandits.log.versions import FOLD
from bandits.ridge.config import RidgeConfig
from policies.archive.archive import ArchiveReader, ArchiveWriter
from policies.archive.range_file import Range, write_range
from policies.fold.fold import Fold
from policies.spec import PolicySpec

SPEC = PolicySpec("home", learner=RidgeConfig(), exploration=LinTs(draws=3))
FIELDS = st.lists(
    st.none() | st.integers(-5, 5) | st.text(max_size=5) | st.lists(st.integers(0, 3)), max_size=3
)
TAGS = st.text(min_size=1, max_size=12).filter(lambda tag: tag not in KINDS)


def future(kind: str, *fields: object, version: int = VERSION) -> bytes:
    return bytes([version]) + msgspec.msgpack.encode([kind, *fields])


@given(st.one_of(decisions(), rewards, small_records), FIELDS.filter(bool))
def test_fields_that_a_later_build_appends_are_passed_over(record, fields):
    data = encode(record)
    plain = msgspec.msgpack.decode(data[1:])
    missing = len(record.__struct_fields__) + 1 - len(plain)
    assert missing == 0
    assert decode(data[:1] + msgspec.msgpack.encode([*plain, *fields])) == record


@given(TAGS, FIELDS, st.integers(VERSION, 255))
def test_a_kind_or_a_format_that_only_a_later_build_knows_is_told_from_what_is_no_record(
    tag, fields, version
):
    with pytest.raises(UnknownKindError) as caught:
        decode(future(tag, *fields, version=version))
    assert caught.value.kind == tag
    told: list[str] = []
    entry = read_entry(
        "5-0", future(tag, *fields, version=version), lambda name, _: told.append(name)
    )
    assert entry == LogEntry("5-0", UnknownRecord(tag))
    assert told == ["5-0"]
    assert kind_of(entry.record) == tag


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"junk",
        bytes([VERSION]) + msgspec.msgpack.encode({"kind": "new"}),
        bytes([VERSION]) + msgspec.msgpack.encode([7, "new"]),
        bytes([VERSION]) + msgspec.msgpack.encode([]),
        # one that is known, and damaged
        bytes([VERSION]) + msgspec.msgpack.encode(["reward", "e"]),
        bytes([VERSION]) + msgspec.msgpack.encode(["new"]) + b"\x00",
        bytes([0]) + msgspec.msgpack.encode(["reward", "e", 1.0]),
    ],
)
def test_what_is_no_record_at_all_still_reads_as_a_tick(data):
    with pytest.raises(CodecError) as caught:
        decode(data)
    assert not isinstance(caught.value, UnknownKindError)
    assert read_entry("5-0", data, lambda *_: None) == LogEntry("5-0", TickRecord())


def begun(*, fold: str | None) -> tuple[FakeLog, Fold]:
    log = FakeLog()
    if fold is not None:
        log.append(BuildRecord({"fold": fold}), at=0)
    log.configure(SPEC, at=1)
    log.append(decision(spec=SPEC.digest), at=2)
    return log, log.fold()


@pytest.mark.parametrize("tag", ["profile", "activity", "signal", "a" * 5000, "état"])
def test_a_fold_of_this_build_stops_at_a_kind_that_it_does_not_know(tag):
    """Whoever leads or stands by: what it would publish from there on might be wrong.

    It has applied nothing of it.
    """
    log, fold = begun(fold=str(FOLD))
    before = msgspec.msgpack.encode(fold.state())
    with pytest.raises(NewerBuildError) as caught:
        fold.apply([LogEntry("10000000-0", UnknownRecord(tag))])
    assert tag[:40] in caught.value.message
    assert len(caught.value.message) < 300
    assert msgspec.msgpack.encode(fold.state()) == before
    resumed = Fold(log.blobs.__getitem__, salt=SALT)
    resumed.resume(fold.state(), FakePast(log))
    with pytest.raises(NewerBuildError):
        resumed.apply([LogEntry("10000000-0", UnknownRecord(tag))])


@pytest.mark.parametrize("builds", [[], [BuildRecord({})], [BuildRecord({"fold": "1"})]])
def test_a_log_of_earlier_builds_means_what_it_meant_they_passed_over_it(builds):
    folds = []
    for record in (UnknownRecord("profile"), TickRecord()):
        log, fold = begun(fold=None)
        for each in (*builds, record, CheckpointRecord(), RewardRecord("e", 1.0)):
            fold.apply([log.append(each, at=9)])
        folds.append(msgspec.msgpack.encode(fold.state()))
    assert folds[0] == folds[1]


def test_the_archive_keeps_what_it_does_not_understand_byte_for_byte_and_the_blobs_it_may_name(
    tmp_path,
):
    profile, gone = b"a new kind of blob", digest(b"gone")
    entries = [
        ("3600000-0", encode(TickRecord())),
        ("3600000-1", future("profile", "user", digest(profile), {"also": gone}, 7)),
        ("3600000-2", future("profile", "f" * 33, "g" * 32, version=9)),
        ("3600000-3", b"junk " + digest(b"not in a record").encode()),
    ]
    blobs = {digest(profile): profile}
    asked: list[str] = []

    def blob(name: str) -> bytes | None:
        asked.append(name)
        return blobs.get(name)

    committed = Range(START, entries[0][0], entries[-1][0], len(entries))
    assert ArchiveWriter(tmp_path, "home").write(committed, entries, blob) == []
    assert sorted(asked) == sorted([digest(profile), gone])
    reader = ArchiveReader(tmp_path, "home")
    assert list(reader.raw()) == entries
    assert reader.blob(digest(profile)) == profile
    kinds = [kind_of(entry.record) for entry in reader.entries()]
    assert kinds == ["tick", "profile", "profile", "tick"]
    sink = io.BytesIO()
    write_range(sink, "home", committed, entries)
    assert pq.read_table(sink)["kind"].to_pylist() == [
        "tick",
        "undecodable",
        "undecodable",
        "undecodable",
    ]
