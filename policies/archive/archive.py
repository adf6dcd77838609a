"""The archive: the log as Parquet files, one per committed range, that can be read without Redis.

    <root>/<policy>/date=YYYY-MM-DD/hour=HH/<first id>_<last id>.parquet
    <root>/<policy>/_blobs/<digest>
    <root>/<policy>/partition=<number>/...           the same, by partition, where there are several

policies/archive/listing.py says which of the files are read.

A range is what its file's name says: the entries from its first id to its last. It never spans an
hour of log time (UTC). Each file names the end of the range before it, so the files form a chain
from "0-0", and one that is missing is noticed. The same entries make the same bytes, whoever writes
them.
"""

import io
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from bandits.errors import ArchiveError, CodecError
from bandits.log.codec import decode, digest, read_entry
from bandits.log.positions import START, has_reached, is_after, log_order
from bandits.log.records import BuildRecord, LogEntry
from policies.archive.chain import ID_AND_RECORD, OpenFile, RangeChain
from policies.archive.range_file import SCHEMA, Range, write_range
from policies.storage import Storage

BLOBS = "_blobs"
DIGEST = re.compile(r"[0-9a-f]{32}")

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
        self.chain = RangeChain(self._files, policy)

    @property
    def end(self) -> str:
        """Id of the last archived entry, "0-0" if there is none; the newest file's name has it."""
        return self.chain.listing.end

    def ranges(self) -> list[StoredRange]:
        """Return every range, in order, from the oldest that is kept."""
        return list(self.each_range())

    def each_range(self) -> Iterator[StoredRange]:
        """Yield every range, in order, from the oldest that is kept."""
        for file in self.chain.past(None):
            column = SCHEMA.names.index("record")
            metadata = file.parquet.metadata
            groups = [metadata.row_group(i).column(column) for i in range(metadata.num_row_groups)]
            yield StoredRange(
                file.range, file.listed.size, sum(group.total_uncompressed_size for group in groups)
            )

    def raw(self, after: str = START, through: str | None = None) -> Iterator[tuple[str, bytes]]:
        """Yield the id and record bytes of archived entries, exactly as in the stream.

        Args:
            after: entries past this one.
            through: up to this one; None for all.
        """
        for group in self.chain.resumed(lambda position: self._raw(position, through), after):
            yield from group

    def _raw(self, after: str, through: str | None) -> Iterator[tuple[str, list[Entry]]]:
        """Yield the entries by row group, each group with the position that it reaches."""
        low, high = log_order(after), None if through is None else log_order(through)
        for file in self.chain.past(after, through):
            for group in self.records(file):
                first, last = log_order(group[0][0]), log_order(group[-1][0])
                if first <= low or (high is not None and last > high):
                    yield group[-1][0], [
                        entry
                        for entry in group
                        if low < log_order(entry[0])
                        and (high is None or log_order(entry[0]) <= high)
                    ]
                else:
                    yield group[-1][0], group

    def records(self, file: OpenFile) -> Iterator[list[Entry]]:
        """Yield the id and record bytes of a file's entries, by row group."""
        count, last = 0, START
        for i in range(file.parquet.num_row_groups):
            with self.chain.reading(file.listed, i):
                group = file.parquet.read_row_group(i, columns=ID_AND_RECORD, use_threads=False)
                ids, records = group["id"].to_pylist(), group["record"].to_pylist()
            yield list(zip(ids, records, strict=True))
            count, last = count + len(ids), ids[-1]

        # A file that was cut after it was written is not the range of its name.
        if (count, last) != (file.range.count, file.range.last):
            raise self.chain.damaged(
                file.listed, f"it holds {count} entries up to {last}, not {file.range.count}"
            )

    def specs(self) -> list[tuple[str, str]]:
        """Return the position and digest of every spec of the log, in order. Decodes no record."""
        return [spec for specs in self.chain.resumed(self._specs, None) for spec in specs]

    def _specs(self, after: str | None) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        for file in self.chain.past(after):
            with self.chain.reading(file.listed):
                table = file.parquet.read(columns=["id", "kind", "spec"], use_threads=False)
                named = table.filter(pc.equal(table["kind"], "spec"))
                found = zip(named["id"].to_pylist(), named["spec"].to_pylist(), strict=True)
            yield file.range.last, list(found)

    def builds(self) -> list[tuple[str, dict[str, str]]]:
        """Return the position and build of every BuildRecord, in order.

        No other record is decoded.
        """
        return [build for builds in self.chain.resumed(self._builds, None) for build in builds]

    def _builds(self, after: str | None) -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
        for file in self.chain.past(after):
            builds = []
            with self.chain.reading(file.listed):
                kinds = file.parquet.read(columns=["kind"], use_threads=False)["kind"]
                is_build = pc.equal(kinds, "build")
                # The records of a file without one are not read.
                if pc.any(is_build).as_py():
                    table = file.parquet.read(columns=ID_AND_RECORD, use_threads=False)
                    named = table.filter(is_build)
                    for entry_id, data in zip(
                        named["id"].to_pylist(), named["record"].to_pylist(), strict=True
                    ):
                        record = decode(data)
                        if isinstance(record, BuildRecord):
                            builds.append((entry_id, record.build))
            yield file.range.last, builds

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
            raise ArchiveError(
                f"{self._files.full(path)}: damaged (its bytes do not match the digest that is its"
                " name): restore it from a copy",
                "archive",
            )
        return data
