"""Compaction: whatever is killed, repeated or done by two, every entry is read once, in order."""

import itertools
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs
from support.archives import archive, cut, memory, no_blob, plain
from support.faults import Calls, CountingFolder, KilledError, kill
from support.first_layout import put_layout_1
from support.strategies import raw_logs

from bandits.errors import ArchiveError
from policies.archive.archive import ArchiveReader, ArchiveWriter
from policies.archive.compaction import Compactor, Usage
from policies.archive.listing import Listing, covering
from policies.archive.range_file import hour_of
from policies.storage import Storage

HOUR = 3_600_000


def compactor(root, **changes) -> Compactor:
    return Compactor(root, "home", **({"settle_s": 0.0} | changes))


def finish(root, **changes) -> None:
    for _ in compactor(root, **changes).compact():
        pass


def remove(root, **changes) -> int:
    return sum(removed.files for removed in compactor(root, **changes).remove())


def files(root: Path) -> dict[str, bytes]:
    found = sorted((root / "home").rglob("*.parquet"))
    return {str(path.relative_to(root / "home")): path.read_bytes() for path in found}


@settings(max_examples=15)
@given(raw_logs(), st.integers(1, 4), st.integers(1, 20))
def test_what_is_read_stays_the_same_before_while_and_after(log, limit, most):
    system = memory()
    parts = archive(system, log, limit)
    reader = ArchiveReader(system, "home")
    for _ in compactor(system, max_entries=most).compact():
        assert list(reader.raw()) == log
        assert reader.end == log[-1][0]
    entries = [each.range.count for each in reader.ranges()]
    hours = [hour_of(part.first) for part in parts]
    for one, other in itertools.pairwise(reader.ranges()):
        together = one.range.count + other.range.count
        assert together > most or hour_of(one.range.first) != hour_of(other.range.first)

    remove(system)
    assert list(reader.raw()) == log
    assert [each.range.count for each in reader.ranges()] == entries
    left, covered = compactor(system).usage()
    assert (left.files, covered) == (len(entries), Usage())
    assert len(entries) >= len(set(hours))
    finish(system, max_entries=most)
    assert compactor(system).usage() == (left, Usage())


@settings(max_examples=10)
@given(log=raw_logs())
def test_files_of_an_older_layout_are_written_anew_also_one_by_one(tmp_path_factory, log):
    root = tmp_path_factory.mktemp("old")
    parts = cut(log, 1000)
    for committed, entries in parts:
        put_layout_1(root, "home", committed, entries)
    before = files(root)
    finish(root)
    reader = ArchiveReader(root, "home")
    assert list(reader.raw()) == log
    assert {name: files(root)[name] for name in before} == before
    assert len(files(root)) == 2 * len(before)
    assert remove(root) == len(before)
    assert list(reader.raw()) == log

    archive(root / "new", log, 1000)
    assert files(root) == files(root / "new")


def test_a_compacted_file_has_the_bytes_that_anybody_writes_of_its_entries(tmp_path):
    log = plain(40, start=1_700_000_000_000)
    for name, limit in (("a", 3), ("b", 7), ("c", 1000)):
        archive(tmp_path / name, log, limit)
    finish(tmp_path / "a")
    finish(tmp_path / "b")
    for name in "ab":
        remove(tmp_path / name)
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(tmp_path / "c")


def test_no_file_is_changed_and_other_readers_count_no_entry_twice(tmp_path):
    log = plain(48, step=HOUR // 10)
    archive(tmp_path, log, 3)
    before = files(tmp_path)
    finish(tmp_path)
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before
    assert all("/_compacted/" in name for name in after.keys() - before.keys())
    count = ds.dataset(tmp_path / "home", partitioning="hive").count_rows
    assert count() == 48
    assert remove(tmp_path) == len(before)
    assert count() == 48
    assert len(files(tmp_path)) == 5


def test_a_file_is_no_larger_than_the_limit_and_the_cut_is_the_same_whenever(tmp_path):
    """Two that see a different part of an hour never write files that overlap by half."""
    parts = cut(plain(50), 4)
    writer = ArchiveWriter(tmp_path, "home")
    names = set()
    for committed, entries in parts:
        writer.write(committed, entries, no_blob)
        finish(tmp_path, max_entries=10)
        ranges = [each.range for each in ArchiveReader(tmp_path, "home").ranges()]
        assert all(each.count <= 10 for each in ranges)
        names |= {str(each) for each in ranges}
        remove(tmp_path)
    assert [each.range.count for each in ArchiveReader(tmp_path, "home").ranges()] == [8] * 5 + [10]


@pytest.mark.parametrize(
    "after", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["before", "after"]
)
@pytest.mark.parametrize("removing", [False, True], ids=["compact", "remove"])
def test_killed_at_any_call_nothing_is_lost_and_the_next_run_finishes(tmp_path, removing, after):
    log = plain(4, start=HOUR * 472_222, step=HOUR // 2)
    archive(tmp_path / "begun", log, 1)
    if removing:
        finish(tmp_path / "begun")
    for at in itertools.count(1):
        root = tmp_path / "copy"
        shutil.copytree(tmp_path / "begun", root)
        calls = Calls(at, kill, after=after)
        folder = fs.PyFileSystem(CountingFolder(root, calls))
        try:
            work = compactor(folder)
            list(work.remove() if removing else work.compact())
        except KilledError:
            pass
        assert list(ArchiveReader(root, "home").raw()) == log
        finish(root)
        remove(root)
        assert list(ArchiveReader(root, "home").raw()) == log
        assert len(files(root)) == 2
        shutil.rmtree(root)
        if calls.left > 0:
            break
    assert at > 10


def test_readers_go_on_where_the_file_they_read_is_taken_away(tmp_path):
    """Also in an object store, where an open file is gone with its name."""
    log = plain(40)
    archive(tmp_path, log, 4)
    reader = ArchiveReader(tmp_path, "home")
    rows = reader.raw()
    read = list(itertools.islice(rows, 6))
    finish(tmp_path)
    remove(tmp_path)
    assert read + list(rows) == log
    assert reader.ranges()[0].range.count == 40


@pytest.mark.slow
def test_two_compact_two_remove_readers_read_and_an_archiver_writes(tmp_path):
    """All at once, in threads; at the end one more run leaves one file an hour."""
    parts = cut(plain(120, step=HOUR // 40), 2)
    writer = ArchiveWriter(tmp_path, "home")
    writer.write(*parts[0], no_blob)
    ended = threading.Event()
    errors: list[BaseException] = []

    def write() -> None:
        for committed, entries in parts[1:]:
            writer.write(committed, entries, no_blob)

    def until_ended(work) -> None:
        while not ended.is_set():
            work()

    def read() -> None:
        end = ArchiveReader(tmp_path, "home").end
        rows = list(ArchiveReader(tmp_path, "home").raw("0-0", end))
        assert rows == LOG[: len(rows)]
        assert rows[-1][0] == end

    LOG = [entry for _, entries in parts for entry in entries]  # noqa: N806

    def guarded(work) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)
            ended.set()

    loops = (
        [lambda: finish(tmp_path)] * 2 + [lambda: remove(tmp_path, settle_s=0.2)] * 2 + [read] * 2
    )
    threads = [
        threading.Thread(target=guarded, args=(lambda w=work: until_ended(w),)) for work in loops
    ]
    for thread in threads:
        thread.start()
    guarded(write)
    ended.set()
    for thread in threads:
        thread.join()
    assert not errors
    finish(tmp_path)
    remove(tmp_path)
    assert list(ArchiveReader(tmp_path, "home").raw()) == LOG
    assert len(files(tmp_path)) == len({hour_of(entry[0]) for entry in LOG})


def test_what_was_not_found_in_the_larger_file_is_never_removed(tmp_path):
    log = plain(9)
    parts = archive(tmp_path, log, 3)
    finish(tmp_path)
    other = [*log[:4], (log[4][0], log[3][1]), *log[5:]]
    shutil.rmtree(tmp_path / "home" / parts[0].path.rpartition("/")[0] / "_compacted")
    (tmp_path / "home").rename(tmp_path / "kept")
    archive(tmp_path, other, 3)
    finish(tmp_path)
    for part in parts:
        shutil.copy(tmp_path / "kept" / part.path, tmp_path / "home" / part.path)
    before = files(tmp_path)
    with pytest.raises(ArchiveError, match=f"does not hold entry {log[4][0]}") as refused:
        remove(tmp_path)
    assert str(parts[1]) in refused.value.message
    assert files(tmp_path) == before


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: b"junk" * 100])
def test_a_damaged_compacted_file_says_that_what_it_was_made_of_is_there(tmp_path, damage):
    archive(tmp_path, plain(9), 3)
    finish(tmp_path)
    (path,) = (tmp_path / "home").rglob("_compacted/*.parquet")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArchiveError, match="what it was made of is beside it") as refused:
        list(ArchiveReader(tmp_path, "home").raw())
    assert str(path) in refused.value.message
    with pytest.raises(ArchiveError):
        remove(tmp_path)
    path.unlink()
    assert list(ArchiveReader(tmp_path, "home").raw()) == plain(9)


def test_a_gap_is_not_compacted_over(tmp_path):
    parts = archive(tmp_path, plain(40), 10)
    (tmp_path / "home" / parts[1].path).unlink()
    with pytest.raises(ArchiveError, match="gap"):
        finish(tmp_path)


def test_an_archive_of_many_hours_is_listed_folder_by_folder_and_once(tmp_path, monkeypatch):
    archive(tmp_path, plain(60, step=HOUR // 2), 1)
    listed: list[str] = []
    real = Storage.list
    monkeypatch.setattr(
        Storage, "list", lambda self, folder="": listed.append(folder) or real(self, folder)
    )
    assert sum(1 for _ in ArchiveReader(tmp_path, "home").raw()) == 60
    assert len(listed) == len(set(listed))
    listing = Listing(Storage(tmp_path, "home"))
    found: Iterator = (
        file for hour in listing.hours() for file, _ in covering(listing.of_hour(hour))
    )
    assert sum(1 for _ in found) == 60
