"""Plain logs, and archives of them in ranges as small as a test wants."""

import datetime as dt
import itertools
from pathlib import Path

from pyarrow import fs

from bandits.log.codec import encode
from bandits.log.records import RewardRecord
from policies.archive.archive import ArchiveWriter
from policies.archive.range_file import Range, hour_of

Log = list[tuple[str, bytes]]


def cut(log: Log, limit: int) -> list[tuple[Range, Log]]:
    """A log in ranges of at most ``limit`` entries, none across an hour."""
    out, previous = [], "0-0"
    for _, hour in itertools.groupby(log, key=lambda entry: hour_of(entry[0])):
        entries = list(hour)
        for start in range(0, len(entries), limit):
            part = entries[start : start + limit]
            out.append((Range(previous, part[0][0], part[-1][0], len(part)), part))
            previous = part[-1][0]
    return out


def no_blob(_: str) -> None:
    return None


def archive(root: str | Path | fs.FileSystem, log: Log, limit: int) -> list[Range]:
    """Archive a log of policy home, in ranges of at most ``limit`` entries."""
    writer = ArchiveWriter(root, "home")
    parts = cut(log, limit)
    for committed, entries in parts:
        writer.write(committed, entries, no_blob)
    return [committed for committed, _ in parts]


def plain(count: int, *, start: int = 1_700_000_000_000, step: int = 1) -> Log:
    """A log of rewards, one every ``step`` ms."""
    return [
        (f"{start + i * step}-0", encode(RewardRecord(f"e{i}", float(i)))) for i in range(count)
    ]


def memory() -> fs.FileSystem:
    """A file system that lasts as long as the test, of another kind than the local one."""
    return fs._MockFileSystem(dt.datetime.now(dt.UTC))
