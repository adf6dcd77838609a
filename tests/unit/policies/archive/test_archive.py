"""The archive's files are read as they were written, to the byte, and errors name what is damaged."""

import contextlib
import io
import itertools
import os

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs
from support.archives import archive, cut, memory, no_blob, plain
from support.strategies import raw_logs, tries

from bandits.errors import ArchiveError
from bandits.log.codec import digest, encode
from bandits.log.positions import has_reached, is_after
from bandits.log.records import (
    CatalogueRecord,
    RewardRecord,
    SpecRecord,
    TickRecord,
)
from policies.archive import range_file as ranges
from policies.archive.archive import ArchiveReader, ArchiveWriter
from policies.archive.range_file import Range, write_range


@tries(60)
@given(raw_logs(), st.integers(1, 12), st.data())
def test_what_is_read_is_what_was_written_however_the_log_was_cut(log, limit, data):
    system = memory()
    archive(system, log, limit)
    reader = ArchiveReader(system, "home")
    assert list(reader.raw()) == log
    assert reader.end == log[-1][0]
    ids = [entry_id for entry_id, _ in log]
    after, through = (
        data.draw(st.sampled_from(["0-0", *ids])),
        data.draw(st.sampled_from([*ids, None])),
    )
    expected = [
        entry
        for entry in log
        if is_after(entry[0], after) and (through is None or has_reached(through, entry[0]))
    ]
    assert list(reader.raw(after, through)) == expected


@settings(max_examples=30)
@given(raw_logs())
def test_two_writers_of_one_range_write_the_same_bytes(log):
    for committed, entries in cut(log, 1000):
        files = [io.BytesIO(), io.BytesIO()]
        write_range(files[0], "home", committed, entries)
        write_range(files[1], "home", committed, iter(list(entries)))
        assert files[0].getvalue() == files[1].getvalue()


def test_a_range_of_several_row_groups(tmp_path, monkeypatch):
    """Groups end by count or by size, and the reader takes one at a time."""
    monkeypatch.setattr(ranges, "GROUP_ENTRIES", 7)
    monkeypatch.setattr(ranges, "GROUP_BYTES", 400)
    log = [*plain(50), ("1700000000900-0", b"x" * 1000), ("1700000000900-1", b"")]
    (committed,) = archive(tmp_path, log, 1000)
    file = pq.ParquetFile(tmp_path / "home" / committed.path)
    assert file.num_row_groups > 8
    assert list(ArchiveReader(tmp_path, "home").raw()) == log


def test_a_file_is_found_where_its_hour_says(tmp_path):
    archive(tmp_path, plain(3, start=1_700_000_000_000, step=3_600_000), 10)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet"))
    assert found == [
        "home/date=2023-11-14/hour=22/1700000000000-0_1700000000000-0.parquet",
        "home/date=2023-11-14/hour=23/1700003600000-0_1700003600000-0.parquet",
        "home/date=2023-11-15/hour=00/1700007200000-0_1700007200000-0.parquet",
    ]


def test_an_id_made_by_hand_beyond_every_calendar_does_not_stop_the_archive(tmp_path):
    log = [("1-18446744073709551615", b"junk"), ("18446744073709551615-0", b"junk")]
    archive(tmp_path, log, 10)
    reader = ArchiveReader(tmp_path, "home")
    assert list(reader.raw()) == log
    assert reader.end == log[-1][0]


def test_entries_are_decoded_and_junk_reads_as_a_tick(tmp_path):
    archive(tmp_path, [*plain(1), ("1700000000001-0", b"\x01junk")], 10)
    entries = list(ArchiveReader(tmp_path, "home").entries())
    assert [entry.record for entry in entries] == [RewardRecord("e0", 0.0), TickRecord()]


@pytest.mark.parametrize(
    "make",
    [
        str,
        lambda path: f"file://{path}",
        lambda path: fs.SubTreeFileSystem(str(path), fs.LocalFileSystem()),
    ],
)
def test_the_root_is_a_path_a_uri_or_a_file_system(tmp_path, make):
    archive(make(tmp_path), plain(20), 8)
    assert list(ArchiveReader(make(tmp_path), "home").raw()) == plain(20)
    assert [each.range.count for each in ArchiveReader(tmp_path, "home").ranges()] == [8, 8, 4]
    assert list((tmp_path / "home" / "_tmp").iterdir()) == []


@pytest.mark.parametrize(
    "root", ["nope://bucket/x", "s3://key:secret@bucket/?nope=1", "file://relative"]
)
def test_an_address_that_cannot_be_opened_is_refused_without_repeating_it(root):
    with pytest.raises(ArchiveError) as refused:
        ArchiveReader(root, "home")
    assert root.partition("://")[0] in refused.value.message
    assert "secret" not in refused.value.message


def test_an_empty_archive_ends_at_the_start(tmp_path):
    reader = ArchiveReader(tmp_path, "home")
    assert (reader.end, reader.ranges(), list(reader.raw())) == ("0-0", [], [])


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_missing_file_is_a_gap_that_names_both_sides(tmp_path, gone):
    parts = archive(tmp_path, plain(40), 10)
    (tmp_path / "home" / parts[gone].path).unlink()
    with pytest.raises(ArchiveError) as refused:
        list(ArchiveReader(tmp_path, "home").raw())
    assert "gap" in refused.value.message
    assert str(parts[gone + 1]) in refused.value.message
    assert (str(parts[gone - 1]) if gone else "position 0-0") in refused.value.message


def test_a_gap_is_refused_only_by_who_needs_what_is_missing(tmp_path):
    """An operator may delete the oldest files; then the log can be read from there on."""
    log = plain(40)
    parts = archive(tmp_path, log, 10)
    (tmp_path / "home" / parts[0].path).unlink()
    reader = ArchiveReader(tmp_path, "home")
    assert list(reader.raw(parts[0].last)) == log[10:]
    assert [each.range for each in reader.ranges()] == parts[1:]
    with pytest.raises(ArchiveError, match="gap"):
        list(reader.raw(log[3][0], log[5][0]))


def test_ranges_that_overlap_are_refused(tmp_path):
    log = plain(20)
    archive(tmp_path, log, 10)
    ArchiveWriter(tmp_path, "home").write(
        Range("0-0", log[3][0], log[12][0], 10), log[3:13], no_blob
    )
    with pytest.raises(ArchiveError, match="overlap"):
        list(ArchiveReader(tmp_path, "home").raw())


def test_no_flipped_byte_is_read_as_something_else(tmp_path):
    """Wherever a byte of a file changes, the reader either says so or gives the same records."""
    log = plain(5)
    (committed,) = archive(tmp_path, log, 10)
    path = tmp_path / "home" / committed.path
    good = path.read_bytes()
    outcomes = set()
    for at in range(0, len(good), 37):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x05]) + good[at + 1 :])
        with contextlib.suppress(ArchiveError):
            assert list(ArchiveReader(tmp_path, "home").raw()) == log
            outcomes.add("read")
            continue
        outcomes.add("refused")
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"junk" * 100]
)
def test_a_damaged_file_names_itself_and_what_to_do(tmp_path, damage):
    parts = archive(tmp_path, plain(20), 10)
    path = tmp_path / "home" / parts[1].path
    path.write_bytes(damage(path.read_bytes()))
    rows = ArchiveReader(tmp_path, "home").raw()
    assert len(list(itertools.islice(rows, 10))) == 10
    with pytest.raises(ArchiveError, match=r"restore it from a copy") as refused:
        next(rows)
    assert path.name in refused.value.message


def test_a_file_of_another_policy_or_name_is_refused(tmp_path):
    (committed,) = archive(tmp_path, plain(3), 10)
    (tmp_path / "home").rename(tmp_path / "other")
    with pytest.raises(ArchiveError, match="home"):
        list(ArchiveReader(tmp_path, "other").raw())
    path = tmp_path / "other" / committed.path
    path.rename(path.with_name("1700000000000-0_1700000000009-0.parquet"))
    with pytest.raises(ArchiveError, match="it says it is"):
        list(ArchiveReader(tmp_path, "other").raw())


def test_entries_that_are_not_those_of_the_range_are_never_stored(tmp_path):
    log = plain(10)
    for committed in (
        Range("0-0", log[0][0], log[-1][0], 11),
        Range("0-0", log[0][0], log[-2][0], 10),
        Range("0-0", log[1][0], log[-1][0], 10),
    ):
        with pytest.raises(ArchiveError, match="was committed with"):
            ArchiveWriter(tmp_path, "home").write(committed, log, no_blob)
    assert not list(tmp_path.rglob("*.parquet"))


def test_blobs_are_stored_once_before_the_range_that_names_them(tmp_path):
    data = b"a spec"
    gone = digest(b"gone")
    log = [
        ("5-0", encode(SpecRecord(digest(data), "salt"))),
        ("6-0", encode(CatalogueRecord(gone))),
    ]
    asked = []

    def blob(name: str) -> bytes | None:
        assert not list(tmp_path.rglob("*.parquet"))
        asked.append(name)
        return data if name == digest(data) else None

    writer = ArchiveWriter(tmp_path, "home")
    assert writer.write(Range("0-0", "5-0", "6-0", 2), log, blob) == [gone]
    assert sorted(asked) == sorted([digest(data), gone])
    follows = Range("6-0", "7-0", "7-0", 1)
    assert writer.write(follows, [("7-0", log[0][1])], None) == []  # type: ignore[arg-type]
    assert ArchiveReader(tmp_path, "home").blob(digest(data)) == data


def test_a_blob_that_is_not_what_its_digest_says_is_neither_stored_nor_read(tmp_path):
    name = digest(b"right")
    log = [("5-0", encode(CatalogueRecord(name)))]
    assert ArchiveWriter(tmp_path, "home").write(
        Range("0-0", "5-0", "5-0", 1), log, lambda _: b"wrong"
    ) == [name]
    reader = ArchiveReader(tmp_path, "home")
    with pytest.raises(ArchiveError, match="no such blob"):
        reader.blob(name)
    path = tmp_path / "home" / "_blobs" / name
    path.parent.mkdir()
    path.write_bytes(b"wrong")
    with pytest.raises(ArchiveError, match="do not match the digest"):
        reader.blob(name)


@pytest.mark.parametrize(
    "name", ["../../secret", "/etc/passwd", "", "a" * 31, "A" * 32, "\x00", "a" * 32 + "\n"]
)
def test_no_path_is_made_of_what_is_no_digest(tmp_path, name):
    (tmp_path / "secret").write_bytes(b"secret")
    log = [("5-0", encode(CatalogueRecord(name)))]
    assert ArchiveWriter(tmp_path, "home").write(
        Range("0-0", "5-0", "5-0", 1), log, lambda _: b"x"
    ) == [name]
    with pytest.raises(ArchiveError, match="32 hex digits"):
        ArchiveReader(tmp_path, "home").blob(name)


def test_what_a_dead_writer_left_is_never_read_and_is_cleaned_after_an_hour(tmp_path):
    archive(tmp_path, plain(3), 10)
    old, young = tmp_path / "home" / "_tmp" / "old", tmp_path / "home" / "_tmp" / "young"
    for path in (old, young):
        path.write_bytes(b"half a file")
    os.utime(old, (1, 1))
    ArchiveWriter(tmp_path, "home").clean()
    assert (old.exists(), young.exists()) == (False, True)
    assert list(ArchiveReader(tmp_path, "home").raw()) == plain(3)


def test_pyarrow_reads_it_as_one_partitioned_data_set(tmp_path):
    """Without this project, in one line; blobs and leftovers are no part of it."""
    data = b"a spec"
    log = [
        ("1700000000000-0", encode(SpecRecord(digest(data), "s"))),
        *plain(20, start=1_700_000_000_001, step=600_000),
    ]
    writer = ArchiveWriter(tmp_path, "home")
    for committed, entries in cut(log, 5):
        writer.write(committed, entries, lambda _: data)
    (tmp_path / "home" / "_tmp" / "left").write_bytes(b"half a file")
    table = ds.dataset(tmp_path / "home", partitioning="hive").to_table(
        columns=["reward", "hour", "date"]
    )
    assert table.num_rows == 21
    assert sum(value or 0.0 for value in table["reward"].to_pylist()) == sum(range(20))
    assert set(table["date"].to_pylist()) == {"2023-11-14", "2023-11-15"}
