"""Files laid over an archive: both are read as one, and neither is written."""

import pytest
from pyarrow import fs
from support.archives import archive, memory, plain

from bandits.errors import ArchiveError
from policies import storage
from policies.archive.archive import ArchiveReader
from policies.archive.overlay import OverlaidFiles
from policies.storage import Storage


def overlaid(upper, lower, hidden=lambda _: False):
    return fs.PyFileSystem(OverlaidFiles((upper, ""), (lower, ""), hidden))


def test_a_log_in_two_folders_is_one_log():
    log, lower, upper = plain(30, step=400_000), memory(), memory()
    ranges = archive(lower, log, 4)
    # The newest files are moved to the other folder, as if they were not archived yet.
    for committed in ranges[4:]:
        name = f"home/{committed.path}"
        upper.create_dir(name.rpartition("/")[0])
        with upper.open_output_stream(name) as sink:
            sink.write(lower.open_input_file(name).read())
        lower.delete_file(name)

    reader = ArchiveReader(overlaid(upper, lower), "home")
    assert reader.end == log[-1][0]
    assert list(reader.raw()) == log
    assert [each.range for each in reader.ranges()] == ranges
    with pytest.raises(ArchiveError):
        reader.blob("0" * 32)


def test_what_is_hidden_is_not_there():
    log, lower = plain(30, step=400_000), memory()
    ranges = archive(lower, log, 4)
    hidden = overlaid(memory(), lower, lambda path: path.endswith(f"{ranges[-1]}.parquet"))
    assert ArchiveReader(hidden, "home").end == ranges[-2].last


def test_nothing_can_be_written():
    files = overlaid(memory(), memory())
    for change in (
        lambda: files.create_dir("a"),
        lambda: files.open_output_stream("a"),
        lambda: files.delete_file("a"),
        lambda: files.move("a", "b"),
    ):
        with pytest.raises(OSError, match="only read"):
            change()


def test_over_an_object_store_it_is_read_as_one(monkeypatch):
    files = overlaid(fs.LocalFileSystem(), memory())
    assert not Storage(files, "home").is_remote
    monkeypatch.setattr(storage, "OBJECT_STORES", frozenset(["mock"]))
    assert Storage(files, "home").is_remote
