"""Compaction: the small files of an hour become one, beside them; later they are removed.

1. A larger file is written to ``hour=HH/_compacted``. It holds consecutive ranges, byte for byte
   what anybody writes from the same entries. Readers prefer it from then on.
2. Its entries are compared with those of every file that it covers. Then it moves to the hour's
   folder.
3. The files that it covers are removed, ``SETTLE_S`` later: whoever was listing the folder by then
   has seen one or the other.

Each step may be killed, done again, or done by two at once, while others read and an archiver
writes: no entry is ever without a file, and a file that exists is never changed.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

from pyarrow import fs

from bandits.errors import ArchiveError
from bandits.log.positions import has_reached
from policies.archive.archive import ArchiveReader, Entry
from policies.archive.chain import LookAgainError, SaidRange
from policies.archive.layouts import FORMAT
from policies.archive.listing import COMPACTED, ListedFile, covering
from policies.archive.range_file import Range, hour_of, write_range
from policies.storage import Storage

MAX_ENTRIES = 500_000
"""Entries of a compacted file: evaluations share a log out by files, and a footer stays small."""
SETTLE_S = 10.0
REMOVED_AT_ONCE = 100_000
"""Files after which removal waits for the folders to settle; no more names are in memory."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Files and their bytes."""

    files: int = 0
    bytes: int = 0

    def plus(self, other: "Usage") -> "Usage":
        """Return both together."""
        return Usage(self.files + other.files, self.bytes + other.bytes)

    @classmethod
    def of(cls, files: list[ListedFile]) -> "Usage":
        """Return what some files use."""
        return cls(len(files), sum(file.size for file in files))


@dataclass(frozen=True, slots=True)
class Group:
    """Consecutive files of one hour that become one, or one that is written anew."""

    files: list[ListedFile]
    range: Range
    is_due: bool

    @property
    def path(self) -> str:
        """Where the file that it becomes is written."""
        folder, _, name = self.range.path.rpartition("/")
        return f"{folder}/{COMPACTED}/{name}"


def _group(files: list[SaidRange]) -> Group:
    first, last = files[0], files[-1]
    return Group(
        [file.listed for file in files],
        Range(
            first.range.previous,
            first.range.first,
            last.range.last,
            sum(file.range.count for file in files),
        ),
        is_due=len(files) > 1 or first.header.format != FORMAT,
    )


@dataclass(frozen=True, slots=True)
class _Covered:
    """The files that one file covers, once all their entries were found in it."""

    by: str
    paths: list[str]


class Compactor:
    """Compacts the archive of one log.

    Any number may run. ``max_entries``: the most entries of a compacted file. ``settle_s``: seconds
    between the last larger file and the removal of those that it covers, by default ``SETTLE_S``.
    """

    def __init__(
        self,
        root: "str | Path | fs.FileSystem",
        policy: str,
        *,
        max_entries: int = MAX_ENTRIES,
        settle_s: float | None = None,
    ) -> None:
        self._reader = ArchiveReader(root, policy)
        self._files = Storage(root, policy)
        self._chain = self._reader.chain
        self._policy = policy
        self._max_entries = max_entries
        self._settle_s = SETTLE_S if settle_s is None else settle_s

    def usage(self) -> tuple[Usage, Usage]:
        """Return the files that are read, and those that they cover. Opens none."""
        read, covered = Usage(), Usage()
        for hour in self._chain.listing.hours():
            for file, others in covering(self._chain.listing.of_hour(hour)):
                read, covered = read.plus(Usage.of([file])), covered.plus(Usage.of(others))
        return read, covered

    def groups(self) -> Iterator[Group]:
        """Yield the archive's files, in order, by what they become."""
        return self._chain.resumed(
            lambda after: ((group.range.last, group) for group in self._groups(after)), None
        )

    def _groups(self, after: str | None) -> Iterator[Group]:
        """Yield the groups past one.

        Where a group ends depends only on the entries before it: groups that were found earlier
        lie within those that are found later, and never across two of them.
        """
        files: list[SaidRange] = []
        entries = 0
        for file in self._chain.headers(after):
            ends = files and (
                hour_of(file.range.first) != hour_of(files[0].range.first)
                or entries + file.range.count > self._max_entries
            )
            if ends:
                yield _group(files)
                files, entries = [], 0
            files.append(file)
            entries += file.range.count
        if files:
            yield _group(files)

    def compact(self) -> Iterator[Group]:
        """Write what is due, beside the files that it is made of, and yield every group then.

        Raises:
            ArchiveError: a file is damaged or missing; what was written before stays.
        """
        return self._chain.resumed(self._compacted, None)

    def _compacted(self, after: str | None) -> Iterator[tuple[str, Group]]:
        for group in self._groups(after):
            if group.is_due:
                with tempfile.TemporaryFile() as spool:
                    entries = (entry for file in group.files for entry in self._entries(file))
                    write_range(spool, self._policy, group.range, entries)
                    spool.seek(0)
                    self._files.put(group.path, spool)
            yield group.range.last, group

    def remove(self) -> Iterator[Usage]:
        """Remove the files whose entries a larger one holds.

        Yields those of an hour once they were found there; all of them are gone when it ends.

        Raises:
            ArchiveError: an entry is not in the larger file as it is in the smaller: both are
                named, and neither is removed.
        """
        due: list[_Covered] = []
        for hour in self._chain.listing.hours():
            found = Usage()
            for large, covered in self._verified(hour):
                # One of the same name was replaced.
                gone = [file.path for file in covered if file.path != large.final_path]
                due.append(_Covered(large.final_path, gone))
                found = found.plus(Usage.of(covered))

            yield found
            if sum(len(each.paths) for each in due) >= REMOVED_AT_ONCE:
                self._remove(due)
                due = []
        self._remove(due)

    def _verified(self, hour: str) -> list[tuple[ListedFile, list[ListedFile]]]:
        """Return the files of an hour that cover others, each compared with them and at its place.

        Where files go meanwhile, because they are removed by another, the hour is looked at again.
        """
        waits = chain(self._files.waits(), repeat(0.2, 20))
        while True:
            try:
                verified = []
                for large, covered in covering(self._chain.listing.of_hour(hour)):
                    if not covered and not large.is_compacted:
                        continue
                    self._compare(large, covered)
                    if large.is_compacted:
                        self._files.move(large.path, large.final_path)
                    verified.append((large, covered))

            except (LookAgainError, FileNotFoundError):
                wait_s = next(waits, None)
                if wait_s is None:
                    raise ArchiveError(
                        f"{self._files.full(hour)}: files were listed and are gone: compact again",
                        "archive",
                    ) from None
                time.sleep(wait_s)
            else:
                return verified

    def _compare(self, large: ListedFile, covered: list[ListedFile]) -> None:
        """Compare the bytes of every record of ``covered`` with those in ``large``."""
        found, reached = self._entries(large), None
        for small in covered:
            # Compacted files that a still larger one covers lie over the files they were made of.
            if reached is not None and has_reached(reached, small.first):
                found = self._entries(large)
            reached = small.last

            for entry_id, data in self._entries(small):
                same = next((each for each in found if each[0] == entry_id), None)
                if same is None or same[1] != data:
                    raise ArchiveError(
                        f"{self._files.full(large.path)} does not hold entry {entry_id} as"
                        f" {self._files.full(small.path)} does: nothing of them was removed: look"
                        " which of the two is damaged (banditloop doctor), delete it, and compact"
                        " again",
                        "archive",
                    )
        # A file is read to its end, so that all of it was seen to be whole.
        for _ in found:
            pass

    def _entries(self, listed: ListedFile) -> Iterator[Entry]:
        with self._chain.open(listed) as file:
            for group in self._reader.records(file):
                yield from group

    def _remove(self, due: list[_Covered]) -> None:
        if not any(each.paths for each in due):
            return
        time.sleep(self._settle_s)
        for each in due:
            if self._files.exists(each.by):
                for path in each.paths:
                    self._files.remove(path)
