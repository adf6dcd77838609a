"""The archive: the log as Parquet files, one per committed range, that can be read without Redis.

    <root>/<policy>/date=YYYY-MM-DD/hour=HH/<first id>_<last id>.parquet
    <root>/<policy>/_blobs/<digest>
    <root>/<policy>/partition=<number>/...           the same, by partition, where there are several

policies/archive/shared.py says where the logs are that policies share, policies/archive/listing.py
which of the files are read.

A range is what its file's name says: the entries from its first id to its last. It never spans an
hour of log time (UTC). Each file names the end of the range before it, so the files form a chain
from "0-0", and one that is missing is noticed. The same entries make the same bytes, whoever writes
them.
"""

import io
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from bandits.errors import ArchiveError, CodecError
from bandits.log.codec import digest
from bandits.log.positions import START, has_reached
from bandits.log.records import BuildRecord, ItemsBaseRecord, LogEntry
from policies.archive.chain import OpenFile, RangeChain
from policies.archive.columns import COLUMNS
from policies.archive.parts.rebuild import StoredEntries
from policies.archive.range_file import Range, write_range
from policies.archive.row_groups import RangeRows, RowGroup
from policies.storage import Storage

BLOBS = "_blobs"
DIGEST = re.compile(r"[0-9a-f]{32}")
ITEMS_BASE = str(ItemsBaseRecord.__struct_config__.tag)

Entry = tuple[str, bytes]
"""The id and the record bytes of an entry."""


@dataclass(frozen=True, slots=True)
class StoredRange:
    """A range, with the size of its file and of its records uncompressed, in bytes."""

    range: Range
    size: int
    record_bytes: int


def archive_folder(policy: str, partition: int, partitions: int) -> str:
    """Return the archive's folder of one partition: the policy's, or one within it.

    Args:
        policy: its name.
        partition: which.
        partitions: how many the policy has.
    """
    return policy if partitions == 1 else f"{policy}/partition={partition}"


def archive_folders(root: "str | Path | fs.FileSystem", policy: str) -> list[str]:
    """Return the folders of a policy's archives: one, or one by partition, in order.

    Args:
        root: see Storage.
        policy: its name.
    """
    names = [str(info.base_name) for info in Storage(root, policy).list()]
    count = sum(name.startswith("partition=") for name in names)
    return [archive_folder(policy, partition, max(1, count)) for partition in range(max(1, count))]


def archived(root: "str | Path | fs.FileSystem") -> list[str]:
    """Return the policies that have an archive there.

    What a space shares, no policy may be named after: then its folder has no log of decisions.
    """
    return [
        str(info.base_name)
        for info in Storage(root, "").list()
        if info.type == fs.FileType.Directory
        and not str(info.base_name).startswith(("_", "."))
        and _is_policys(Storage(root, str(info.base_name)))
    ]


def _is_policys(files: Storage) -> bool:
    names = [str(info.base_name) for info in files.list()]
    return not names or any(not name.startswith("_") or name == BLOBS for name in names)


class ArchiveWriter:
    """Writes the files of one policy. ``root``: see Storage."""

    def __init__(self, root: "str | Path | fs.FileSystem", policy: str) -> None:
        self._files = Storage(root, policy)
        self._policy = policy

    def write(
        self,
        committed: Range,
        entries: Iterable[tuple[str, bytes]],
        blob: Callable[[str], bytes | None],
    ) -> list[str]:
        """Store a range, after the blobs that its entries name.

        Args:
            committed: the range.
            entries: (id, record bytes) of it, in order.
            blob: gives the blob of a digest, None if there is none.

        Returns:
            The digests of blobs that are named and do not exist. What may be a digest, in an entry
            that only a newer build understands, is looked for too, and is not among them.

        Raises:
            ArchiveError: they are not the entries of the range; nothing was stored.
        """
        missing = []
        with tempfile.TemporaryFile() as spool:
            named, perhaps = write_range(spool, self._policy, committed, entries)

            for name in sorted(named | perhaps):
                # No path is made of what an entry says unless it is a digest.
                if not DIGEST.fullmatch(name):
                    missing.append(name)
                    continue
                if self._files.exists(f"{BLOBS}/{name}"):
                    continue
                data = blob(name)
                if data is None or digest(data) != name:
                    missing += [name] if name in named else []
                else:
                    self._files.put(f"{BLOBS}/{name}", io.BytesIO(data))

            spool.seek(0)
            self._files.put(committed.path, spool)

        # Most of the time nothing is written, and pyarrow would keep the memory.
        pa.default_memory_pool().release_unused()
        return missing

    def clean(self) -> None:
        """Remove what dead writers left behind."""
        self._files.clean()


class ArchiveReader:
    """Reads one policy's archive. ``root``: see Storage.

    Reads need no Redis, and go on while it is written.

    Every method raises ArchiveError for a file that is damaged or missing, and OSError for an
    unreachable file system.
    """

    def __init__(self, root: "str | Path | fs.FileSystem", policy: str) -> None:
        self._files = Storage(root, policy)
        self.chain = RangeChain(self._files, policy)

    @property
    def local(self) -> str | None:
        """The archive's folder, where it is on this machine's disk."""
        return self._files.local

    @property
    def files(self) -> Storage:
        """What is beside the ranges."""
        return self._files

    @property
    def end(self) -> str:
        """Id of the last archived entry, "0-0" if there is none; the newest file's name has it."""
        return self.chain.listing.end

    @property
    def beginning(self) -> str:
        """The position before the oldest entry that is kept: older files may have been removed."""
        oldest = next(self.each_range(), None)
        return START if oldest is None else oldest.range.previous

    def end_with(self, expected: str) -> str:
        """Return ``end``. If it is before ``expected``, that was listed again, for some seconds."""
        end = self.end
        for wait_s in self._files.waits():
            if has_reached(end, expected):
                break
            time.sleep(wait_s)
            end = self.end
        return end

    def has(self, committed: Range) -> bool:
        """Return whether a range has the file that it was written as, listed or not."""
        return self._files.exists(committed.path)

    def ranges(self) -> list[StoredRange]:
        """Return every range, in order, from the oldest that is kept."""
        return list(self.each_range())

    def each_range(self) -> Iterator[StoredRange]:
        """Yield every range, in order, from the oldest that is kept."""

        def read(position: str | None) -> Iterator[tuple[str, StoredRange]]:
            for file in self.chain.headers(position):
                stored = StoredRange(file.range, file.listed.size, file.record_bytes)
                yield file.range.last, stored

        return self.chain.resumed(read, None)

    def columns(
        self,
        names: Sequence[str],
        after: str = START,
        through: str | None = None,
        *,
        kinds: Collection[str] | None = None,
        check: Callable[[RangeRows, RowGroup], None] | None = None,
    ) -> Iterator[RowGroup]:
        """Yield columns of archived entries, row group by row group, in order.

        Of a file that holds them nothing else is read, and no record is decoded.

        Args:
            names: the columns, of ``policies.archive.columns.COLUMNS``.
            after: entries past this one.
            through: up to this one; None for all.
            kinds: only entries of these kinds; None for all.
            check: looks at each row group, such as ``policies.archive.audit.RowSample.check``.

        Raises:
            ArchiveError: a file is damaged or missing, or the lists of a decision do not fit its
                slots and actions; it names the file and the row group.
        """
        unknown = [name for name in names if name not in COLUMNS.names]
        if unknown:
            raise ArchiveError(
                f"the archive has no column {unknown[0]!r}; it has {', '.join(COLUMNS.names)}",
                "names",
            )

        return self._columns(names, after, through, kinds, check)

    def _columns(
        self,
        names: Sequence[str],
        after: str | None,
        through: str | None,
        kinds: Collection[str] | None,
        check: Callable[[RangeRows, RowGroup], None] | None = None,
    ) -> Iterator[RowGroup]:
        def read(position: str | None) -> Iterator[tuple[str, RowGroup]]:
            for file in self.chain.past(position, through):
                rows = RangeRows(self.chain, file, position, through)
                for group in rows.columns(names, kinds):
                    if check is not None:
                        check(rows, group)
                    yield group.last, group

        return self.chain.resumed(read, after)

    def raw(self, after: str = START, through: str | None = None) -> Iterator[tuple[str, bytes]]:
        """Yield the id and record bytes of archived entries, exactly as in the stream.

        Args:
            after: entries past this one.
            through: up to this one; None for all.
        """
        for entries in self._stored(after, through, None):
            yield from zip(entries.ids, entries.data, strict=True)

    def records(self, file: OpenFile) -> Iterator[list[Entry]]:
        """Yield the id and record bytes of a file's entries, some at a time."""
        for entries in self._of_file(file, None, None, None):
            yield list(zip(entries.ids, entries.data, strict=True))

    def specs(self) -> list[tuple[str, str]]:
        """Return the position and digest of every spec of the log, in order. Decodes no record."""
        specs: list[tuple[str, str]] = []
        for group in self._columns(["id", "spec"], None, None, ["spec"]):
            ids, digests = (group.batch[name].to_pylist() for name in ("id", "spec"))
            specs += zip(ids, digests, strict=True)
        return specs

    def builds(self) -> list[tuple[str, dict[str, str]]]:
        """Return the position and build of every BuildRecord, in order.

        No other record is decoded.
        """
        parts = self._stored(None, None, ["build"])
        found = [entry for part in parts for entry in part.decoded(lambda *_: None)]
        return [(e.id, e.record.build) for e in found if isinstance(e.record, BuildRecord)]

    def entries(
        self,
        after: str = START,
        through: str | None = None,
        *,
        kinds: Collection[str] | None = None,
        on_undecodable: Callable[[str, CodecError], None] = lambda _entry_id, _error: None,
    ) -> Iterator[LogEntry]:
        """Yield archived entries, decoded as in the live log.

        Args:
            after: entries past this one.
            through: up to this one; None for all.
            kinds: only entries of these kinds; None for all.
            on_undecodable: told of each entry that cannot be decoded, with the reason.
        """
        for entries in self._stored(after, through, kinds):
            yield from entries.decoded(on_undecodable)

    def _stored(
        self, after: str | None, through: str | None, kinds: Collection[str] | None
    ) -> Iterator[StoredEntries]:
        def read(position: str | None) -> Iterator[tuple[str, StoredEntries]]:
            for file in self.chain.past(position, through):
                for entries in self._of_file(file, position, through, kinds):
                    yield entries.ids[-1], entries

        return self.chain.resumed(read, after)

    def _of_file(
        self,
        file: OpenFile,
        after: str | None,
        through: str | None,
        kinds: Collection[str] | None,
    ) -> Iterator[StoredEntries]:
        last = START
        for entries in RangeRows(self.chain, file, after, through).entries(kinds):
            yield entries
            last = entries.ids[-1]

        # A file that was changed after it was written is not the range of its name.
        to_its_end = through is None or has_reached(through, file.range.last)
        if to_its_end and kinds is None and last != file.range.last:
            raise self.chain.damaged(file.listed, f"it ends with entry {last}")

    def bases(self, through: str | None = None) -> Iterator[LogEntry]:
        """Yield the entries that say what all items are, newest first; no other is decoded.

        Args:
            through: up to this one; None for all.
        """
        yield from reversed(list(self.entries(START, through, kinds=[ITEMS_BASE])))

    def encoded(self, after: str = START, through: str | None = None) -> Iterator[LogEntry]:
        """Yield archived entries as a fold takes them, with decisions encoded.

        Args:
            after: entries past this one.
            through: up to this one; None for all.
        """
        for entries in self._stored(after, through, None):
            yield from entries.encoded()

    def has_blob(self, name: str) -> bool:
        """Return whether there is a blob of a digest."""
        return bool(DIGEST.fullmatch(name)) and self._files.exists(f"{BLOBS}/{name}")

    def blob(self, name: str) -> bytes:
        """Return the blob of a digest."""
        path = f"{BLOBS}/{name}"
        if not DIGEST.fullmatch(name):
            raise ArchiveError(f"a digest is 32 hex digits, not {name[:40]!r}", "digest")

        try:
            with self._files.open(path) as file:
                data = bytes(file.read())
        except FileNotFoundError as error:
            raise ArchiveError(
                f"{self._files.full(path)}: no such blob in the archive", "digest"
            ) from error

        if digest(data) != name:
            raise ArchiveError(
                f"{self._files.full(path)}: damaged (its bytes do not match the digest that is its"
                " name): restore it from a copy",
                "archive",
            )
        return data
