"""The archive: the log as Parquet files, one per committed range, that can be read without Redis.

    <root>/<policy>/date=YYYY-MM-DD/hour=HH/<first id>_<last id>.parquet
    <root>/<policy>/_blobs/<digest>
    <root>/<policy>/partition=<number>/...           the same, by partition, where there are several

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
ID_AND_RECORD = ["id", "record"]
DIGEST = re.compile(r"[0-9a-f]{32}")
NAME = re.compile(r"(\d+-\d+)_(\d+-\d+)\.parquet")


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
    """Return the policies that have an archive there."""
    return [
        str(info.base_name)
        for info in Storage(root, "").list()
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
        self._policy = policy

    @property
    def end(self) -> str:
        """Id of the last archived entry, "0-0" if there is none; the newest file's name has it."""
        for date in reversed(self._folders("", "date=")):
            for hour in reversed(self._folders(date, "hour=")):
                names = self._names(f"{date}/{hour}")
                if names:
                    return names[-1][1]
        return START

    def ranges(self) -> list[StoredRange]:
        """Return every range, in order, from the oldest that is kept."""
        ranges = []
        for stored, size, parquet in self._chain(None, None):
            column = SCHEMA.names.index("record")
            groups = [
                parquet.metadata.row_group(i).column(column) for i in range(parquet.num_row_groups)
            ]
            ranges.append(
                StoredRange(stored, size, sum(group.total_uncompressed_size for group in groups))
            )
        return ranges

    def raw(self, after: str = START, through: str | None = None) -> Iterator[tuple[str, bytes]]:
        """Yield the id and record bytes of archived entries, exactly as in the stream.

        Args:
            after: entries past this one.
            through: up to this one; None for all.
        """
        low, high = log_order(after), None if through is None else log_order(through)
        for stored, _, parquet in self._chain(after, through):
            count, last = 0, START

            for i in range(parquet.num_row_groups):
                with self._damage(stored.path):
                    group = parquet.read_row_group(i, columns=ID_AND_RECORD, use_threads=False)
                    ids, records = group["id"].to_pylist(), group["record"].to_pylist()
                for entry_id, data in zip(ids, records, strict=True):
                    at = log_order(entry_id)
                    if high is not None and at > high:
                        return
                    if at > low:
                        yield entry_id, data
                count, last = count + len(ids), ids[-1]

            # A file that was cut after it was written is not the range of its name.
            if (count, last) != (stored.count, stored.last):
                raise self._damaged(
                    stored.path, f"it holds {count} entries up to {last}, not {stored.count}"
                )

    def specs(self) -> list[tuple[str, str]]:
        """Return the position and digest of every spec of the log, in order. Decodes no record."""
        specs: list[tuple[str, str]] = []
        for stored, _, parquet in self._chain(None, None):
            with self._damage(stored.path):
                table = parquet.read(columns=["id", "kind", "spec"], use_threads=False)
                named = table.filter(pc.equal(table["kind"], "spec"))
                specs += zip(named["id"].to_pylist(), named["spec"].to_pylist(), strict=True)
        return specs

    def builds(self) -> list[tuple[str, dict[str, str]]]:
        """Return the position and build of every BuildRecord, in order.

        No other record is decoded.
        """
        builds: list[tuple[str, dict[str, str]]] = []
        for stored, _, parquet in self._chain(None, None):
            with self._damage(stored.path):
                kinds = parquet.read(columns=["kind"], use_threads=False)["kind"]
                is_build = pc.equal(kinds, "build")
                # The records of a file without one are not read.
                if not pc.any(is_build).as_py():
                    continue

                table = parquet.read(columns=ID_AND_RECORD, use_threads=False).filter(is_build)
                for entry_id, data in zip(
                    table["id"].to_pylist(), table["record"].to_pylist(), strict=True
                ):
                    record = decode(data)
                    if isinstance(record, BuildRecord):
                        builds.append((entry_id, record.build))
        return builds

    def entries(
        self,
        after: str = START,
        through: str | None = None,
        *,
        on_undecodable: Callable[[str, CodecError], None] = lambda _entry_id, _error: None,
    ) -> Iterator[LogEntry]:
        """Yield archived entries, decoded as in the live log.

        Args:
            after: entries past this one.
            through: up to this one; None for all.
            on_undecodable: told of each entry that cannot be decoded, with the reason.
        """
        for entry_id, data in self.raw(after, through):
            yield read_entry(entry_id, data, on_undecodable)

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
            raise self._damaged(path, "its bytes do not match the digest that is its name")
        return data

    def _chain(self, after: str | None, through: str | None) -> Iterator[tuple[Range, int, Any]]:
        """Yield range, size and open file of each range past ``after``, in order, without a gap."""
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
                        # The missing file may have come while folders were listed: they are listed
                        # once more.
                        if listed_again:
                            raise self._break(before, position, stored)
                        listed_again = True
                        break

                    if through is not None and is_after(stored.first, through):
                        return
                    yield stored, size, parquet
                    position, before, listed_again = stored.last, stored, False
            else:
                return

    def _paths(self, after: str | None) -> Iterator[tuple[str, int]]:
        """Yield path and size of the files that go past ``after``, in order, hour by hour."""
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
        names = [
            str(info.base_name)
            for info in self._files.list(folder)
            if info.type == fs.FileType.Directory
        ]
        return [name for name in names if name.startswith(prefix)]

    def _names(self, folder: str) -> list[tuple[str, str, int]]:
        names = []
        for info in self._files.list(folder):
            match = NAME.fullmatch(info.base_name)
            if match:
                names.append((match[1], match[2], int(info.size)))
        return sorted(names, key=lambda name: log_order(name[0]))

    @contextlib.contextmanager
    def _open(self, path: str) -> Iterator[tuple[Range, Any]]:
        with self._files.open(path) as source:
            with self._damage(path):
                parquet = pq.ParquetFile(source, page_checksum_verification=True)
                header = msgspec.json.decode(parquet.metadata.metadata[METADATA], type=RangeHeader)
                typed = all(
                    parquet.schema_arrow.field(name).type == SCHEMA.field(name).type
                    for name in ID_AND_RECORD
                )

            # What the file says of itself must be what it is.
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
        """Raise ArchiveError, which names the file, for what cannot be decoded."""
        try:
            yield
        except (pa.ArrowException, msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(path, str(error)) from error
        except OSError as error:
            # What the file system itself reports has a number, and is no damage.
            if error.errno is not None:
                raise
            raise self._damaged(path, str(error)) from error

    def _damaged(self, path: str, detail: str) -> ArchiveError:
        return ArchiveError(
            f"{self._files.full(path)}: damaged ({detail}): restore it from a copy; the newest file"
            " of an archive can also be deleted, it is written again when the service restarts, if"
            " Redis still holds its entries",
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
            f" which continues from {after.previous}: {fix}, under {self._files.full('')}",
            "archive",
        )
