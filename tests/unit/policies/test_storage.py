"""Files that appear at once: what a disk is asked to hold, and when."""

import io
import os
from pathlib import Path

from policies import storage
from policies.storage import Storage


def test_a_disk_holds_what_it_has_got_before_it_gets_more(tmp_path, monkeypatch):
    """Whoever else syncs a file then waits for one part of ours, not for all of it.

    The file and its folders, too.
    """
    synced: list[tuple[str, int]] = []
    fsync = os.fsync

    def watched(number: int) -> None:
        found = os.fstat(number)
        synced.append((str(Path(f"/proc/self/fd/{number}").readlink()), found.st_size))
        fsync(number)

    monkeypatch.setattr(storage, "PART", 1000)
    monkeypatch.setattr(os, "fsync", watched)
    data = bytes(range(250)) * 13
    Storage(tmp_path, "home").put("a/file", io.BytesIO(data))
    of_file = [size for path, size in synced if "/_tmp/" in path]
    assert of_file == [1000, 2000, 3000, 3250, 3250]
    folders = [path for path, _ in synced if "/_tmp/" not in path]
    assert folders == [str(tmp_path / "home" / "a"), str(tmp_path / "home")]
    assert (tmp_path / "home" / "a" / "file").read_bytes() == data
