"""The archive: the log as Parquet files, one per committed range, that can be read without Redis.

    <root>/<policy>/date=YYYY-MM-DD/hour=HH/<first id>_<last id>.parquet
    <root>/<policy>/_blobs/<digest>
    <root>/<policy>/partition=<number>/...           the same, of each partition, where there are several

A range is what its file's name says: the entries from its first id to its last. It never spans an
hour of log time (UTC). Each file names the end of the range before it, so the files form a chain
from "0-0", and one that is missing is noticed. The same entries make the same bytes, whoever writes
them.
"""

import contextlib
import io
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from bandits.errors import ArchiveError, CodecError
from bandits.log.codec import decode, digest, read_entry
from bandits.log.positions import START, has_reached, is_after, log_order
from bandits.log.records import BuildRecord, LogEntry
from policies.archive.range_file import (
    FORMAT,
    METADATA,
    SCHEMA,
    Range,
    RangeHeader,
    folder_of,
    hour_of,
    write_range,
)
from policies.storage import Storage

BLOBS = "_blobs"
READ = ["id", "record"]
DIGEST = re.compile(r"[0-9a-f]{32}")
NAME = re.compile(r"(\d+-\d+)_(\d+-\d+)\.parquet")


@dataclass(frozen=True, slots=True)
class StoredRange:
    """A range with its file's size, and the size of its records before they were compressed, in bytes."""

    range: Range
    size: int
    record_bytes: int


def archive_folder(policy: str, partition: int, partitions: int) -> str:
    """What to call the archive of one partition: the policy, or, of several, a folder of its own in the policy's."""
    return policy if partitions == 1 else f"{policy}/partition={partition}"


def archive_folders(root: "str | Path | fs.FileSystem", policy: str) -> list[str]:
    """The archives of a policy: one, or one of each partition, in their order."""
    names = [str(info.base_name) for info in Storage(root, policy).list()]
    count = sum(name.startswith("partition=") for name in names)
    return [archive_folder(policy, partition, max(1, count)) for partition in range(max(1, count))]


def archived(root: "str | Path | fs.FileSystem") -> list[str]:
    """The policies that have an archive there."""
    found = Storage(root, "").list()
    return [
        str(info.base_name)
        for info in found
        if info.type == fs.FileType.Directory and not str(info.base_name).startswith(("_", "."))
    ]


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

        Returns the digests of blobs that there are not.

        Of entries that only a newer build understands, whatever may name a blob is looked for.

        Raises:
            ArchiveError: they are not the entries of the range; nothing was stored.
        """
        missing = []
        with tempfile.TemporaryFile() as spool:
            named, perhaps = write_range(spool, self._policy, committed, entries)
            for name in sorted(named | perhaps):
                if not DIGEST.fullmatch(name):
                    missing.append(name)  # a path must not be made of whatever an entry says
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
        pa.default_memory_pool().release_unused()  # most of the time nothing is written
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
        self._policy = policy

    @property
    def end(self) -> str:
        """Id of the last archived entry, "0-0" when there is none.

        Read off the newest file's name.
        """
        for date in reversed(self._folders("", "date=")):
            for hour in reversed(self._folders(date, "hour=")):
                names = self._names(f"{date}/{hour}")
                if names:
                    return names[-1][1]
        return START

    def ranges(self) -> list[StoredRange]:
        """Every range, in order, from the oldest that is kept."""
        found = []
        for stored, size, parquet in self._chain(None, None):
            column = SCHEMA.names.index("record")
            groups = [
                parquet.metadata.row_group(i).column(column) for i in range(parquet.num_row_groups)
            ]
            found.append(
                StoredRange(stored, size, sum(group.total_uncompressed_size for group in groups))
            )
        return found

    def raw(self, after: str = START, through: str | None = None) -> Iterator[tuple[str, bytes]]:
        """Id and record bytes, exactly as in the stream, of the archived entries past ``after`` up to ``through``."""
        low, high = log_order(after), None if through is None else log_order(through)
        for stored, _, parquet in self._chain(after, through):
            count, last = 0, START
            for i in range(parquet.num_row_groups):
                with self._damage(stored.path):
                    group = parquet.read_row_group(i, columns=READ, use_threads=False)
                    ids, records = group["id"].to_pylist(), group["record"].to_pylist()
                for entry_id, data in zip(ids, records, strict=True):
                    at = log_order(entry_id)
                    if high is not None and at > high:
                        return
                    if at > low:
                        yield entry_id, data
                count, last = count + len(ids), ids[-1]
            if (count, last) != (stored.count, stored.last):
                raise self._damaged(
                    stored.path, f"it holds {count} entries up to {last}, not {stored.count}"
                )

    def specs(self) -> list[tuple[str, str]]:
        """Position and digest of every spec the log was put under, in order. Decodes no record."""
        found: list[tuple[str, str]] = []
        for stored, _, parquet in self._chain(None, None):
            with self._damage(stored.path):
                table = parquet.read(columns=["id", "kind", "spec"], use_threads=False)
                named = table.filter(pc.equal(table["kind"], "spec"))
                found += zip(named["id"].to_pylist(), named["spec"].to_pylist(), strict=True)
        return found

    def builds(self) -> list[tuple[str, dict[str, str]]]:
        """Position and build of every BuildRecord, in order.

        Decodes no other record, nor reads files without one.
        """
        found: list[tuple[str, dict[str, str]]] = []
        for stored, _, parquet in self._chain(None, None):
            with self._damage(stored.path):
                kinds = parquet.read(columns=["kind"], use_threads=False)["kind"]
                if not pc.any(pc.equal(kinds, "build")).as_py():
                    continue
                table = parquet.read(columns=READ, use_threads=False).filter(
                    pc.equal(kinds, "build")
                )
                for entry_id, data in zip(
                    table["id"].to_pylist(), table["record"].to_pylist(), strict=True
                ):
                    record = decode(data)
                    if isinstance(record, BuildRecord):
                        found.append((entry_id, record.build))
        return found

    def entries(
        self,
        after: str = START,
        through: str | None = None,
        *,
        on_undecodable: Callable[[str, CodecError], None] = lambda _entry_id, _error: None,
    ) -> Iterator[LogEntry]:
        """The same, decoded as in the live log: see ``codec.read``."""
        for entry_id, data in self.raw(after, through):
            yield read_entry(entry_id, data, on_undecodable)

    def has_blob(self, name: str) -> bool:
        """Whether there is a blob of a digest."""
        return bool(DIGEST.fullmatch(name)) and self._files.exists(f"{BLOBS}/{name}")

    def blob(self, name: str) -> bytes:
        """The blob of a digest."""
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
            raise self._damaged(path, "its bytes do not match the digest that is its name")
        return data

    def _chain(self, after: str | None, through: str | None) -> Iterator[tuple[Range, int, Any]]:
        """Range, size and open file of each range past ``after``, in order, each following the one before it."""
        position, before, listed_again = after, None, False
        while True:
            for path, size in self._paths(position):
                if position is not None and through is not None and has_reached(position, through):
                    return
                with self._open(path) as (stored, parquet):
                    follows = before is None or stored.previous == before.last
                    if not follows or (
                        position is not None and is_after(stored.previous, position)
                    ):
                        if listed_again:
                            raise self._break(before, position, stored)
                        # perhaps the file came between two folders being listed
                        listed_again = True
                        break
                    if through is not None and is_after(stored.first, through):
                        return
                    yield stored, size, parquet
                    position, before, listed_again = stored.last, stored, False
            else:
                return

    def _paths(self, after: str | None) -> Iterator[tuple[str, int]]:
        """Path and size of the files that go past ``after``, in order, an hour's folder at a time."""
        start = "" if after is None else folder_of(hour_of(after))
        for date in self._folders("", "date="):
            if date < start.partition("/")[0]:
                continue
            for hour in self._folders(date, "hour="):
                if f"{date}/{hour}" < start:
                    continue
                for first, last, size in self._names(f"{date}/{hour}"):
                    if after is None or is_after(last, after):
                        yield f"{date}/{hour}/{first}_{last}.parquet", size

    def _folders(self, folder: str, prefix: str) -> list[str]:
        found = [
            str(info.base_name)
            for info in self._files.list(folder)
            if info.type == fs.FileType.Directory
        ]
        return [name for name in found if name.startswith(prefix)]

    def _names(self, folder: str) -> list[tuple[str, str, int]]:
        found = []
        for info in self._files.list(folder):
            match = NAME.fullmatch(info.base_name)
            if match:
                found.append((match[1], match[2], int(info.size)))
        return sorted(found, key=lambda name: log_order(name[0]))

    @contextlib.contextmanager
    def _open(self, path: str) -> Iterator[tuple[Range, Any]]:
        with self._files.open(path) as source:
            with self._damage(path):
                parquet = pq.ParquetFile(source, page_checksum_verification=True)
                header = msgspec.json.decode(parquet.metadata.metadata[METADATA], type=RangeHeader)
                typed = all(
                    parquet.schema_arrow.field(name).type == SCHEMA.field(name).type
                    for name in READ
                )
            stored = header.range
            if header.format != FORMAT:
                raise self._damaged(
                    path, f"it has format {header.format}; this version reads {FORMAT}"
                )
            if not typed or (header.policy, stored.path, stored.count) != (
                self._policy,
                path,
                parquet.metadata.num_rows,
            ):
                raise self._damaged(
                    path, f"it says it is {stored.count} entries of {header.policy}, {stored.path}"
                )
            yield stored, parquet

    @contextlib.contextmanager
    def _damage(self, path: str) -> Iterator[None]:
        """Name the file that cannot be decoded.

        What the file system itself reports has a number, and is no damage.
        """
        try:
            yield
        except (pa.ArrowException, msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(path, str(error)) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise self._damaged(path, str(error)) from error

    def _damaged(self, path: str, detail: str) -> ArchiveError:
        return ArchiveError(
            f"{self._files.full(path)}: damaged ({detail}): restore it from a copy; the newest"
            " file of an archive"
            " can also be deleted, it is written again when the service restarts, if Redis still"
            " holds its entries",
            "archive",
        )

    def _break(self, before: Range | None, position: str | None, after: Range) -> ArchiveError:
        reached = f"range {before}" if before is not None else f"position {position}"
        gap = position is None or is_after(after.previous, position)
        kind, fix = (
            ("a gap", "restore the files between them")
            if gap
            else ("an overlap", "remove the one that is wrong")
        )
        return ArchiveError(
            f"the archive of {self._policy} has {kind}: {reached} is followed by range {after},"
            " which continues from"
            f" {after.previous}: {fix}, under {self._files.full('')}",
            "archive",
        )
