"""A range of the log as a Parquet file: what it is called, its columns, and how it is written."""

import contextlib
import re
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from bandits.errors import ArchiveError, CodecError, UnknownKindError
from bandits.log.codec import decode
from bandits.log.positions import position_ms
from bandits.log.records import (
    CatalogueRecord,
    ItemsBaseRecord,
    PriorRecord,
    RootRecord,
    SpecRecord,
    WarmStartRecord,
)
from policies.archive.columns import COLUMNS, UNDECODABLE, EntryRows
from policies.archive.layouts import (
    FORMAT,
    GROUPS,
    METADATA,
    RECORD_BYTES,
    SCHEMA,
    RowGroups,
    write_options,
)
from policies.archive.parts.shapes import elements_of
from policies.archive.parts.shredded import rows_of

NAMING = (
    SpecRecord,
    CatalogueRecord,
    WarmStartRecord,
    PriorRecord,
    ItemsBaseRecord,
    RootRecord,
)
"""Records whose ``digest`` is that of a blob."""
DIGEST_FIELD = re.compile(rb"\xd9\x20([0-9a-f]{32})")
"""A text of 32 hex digits, as msgpack has it."""
GROUP_ENTRIES = 16384
GROUP_BYTES = 16 << 20
"""A row group, what reader and writer hold in memory, ends with the entry that reaches either."""
SAMPLE_BYTES, NOISE = 1 << 20, 0.8
"""Of a column's numbers so many bytes are compressed to see whether that takes a fifth of them: as
many as a page has, since scores that look like noise may come again with their user."""
HOUR_MS = 3_600_000
LAST_HOUR = int(datetime(9999, 12, 31, 23, tzinfo=UTC).timestamp()) * 1000 // HOUR_MS


def hour_of(entry_id: str) -> int:
    """Return the hours from the epoch to the hour an entry belongs to.

    An id beyond the year 9999 belongs to its last hour.
    """
    return min(position_ms(entry_id) // HOUR_MS, LAST_HOUR)


EntryId = Annotated[str, msgspec.Meta(pattern=r"^\d+-\d+$(?!\n)")]


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A committed range of the log: the ``count`` entries ``first`` to ``last``.

    Nothing lies between ``previous`` and ``first``.
    """

    previous: EntryId
    first: EntryId
    last: EntryId
    count: int

    @property
    def path(self) -> str:
        """Its file, below the policy's folder."""
        return f"{folder_of(hour_of(self.first))}/{self}.parquet"

    def __str__(self) -> str:
        return f"{self.first}_{self.last}"


class RangeHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The header of a file, in its metadata."""

    format: int
    policy: str
    range: Range


def folder_of(hour: int) -> str:
    """Return the folder of an hour, below the policy's."""
    return datetime.fromtimestamp(hour * HOUR_MS // 1000, UTC).strftime("date=%Y-%m-%d/hour=%H")


def _stored(rows: EntryRows, data: list[bytes]) -> pa.RecordBatch:
    """Return a row group as it is stored; see SCHEMAS."""
    columns = rows.columns(COLUMNS.names).columns
    checksums = pa.array(map(zlib.crc32, data), pa.uint32())
    return pa.RecordBatch.from_arrays(
        [*columns, pa.array(rows.rest(data), pa.binary()), checksums], schema=SCHEMA
    )


def _noise(batch: pa.RecordBatch) -> frozenset[str]:
    """Return the columns whose numbers do not get smaller by compression, by the first of them."""
    numbers = {
        "pmf": elements_of(batch["pmf"], batch["pmf"].values),
        "scores": elements_of(batch["scores"], batch["scores"].items).flatten(),
    }
    samples = {
        name: values.to_numpy(zero_copy_only=False).tobytes()[:SAMPLE_BYTES]
        for name, values in numbers.items()
    }
    return frozenset(
        name
        for name, data in samples.items()
        if len(pa.compress(data, codec="zstd", asbytes=True)) > NOISE * len(data)
    )


def _perhaps_named(data: bytes) -> set[str]:
    """Return what may be digests in an entry that does not decode: if a newer build wrote it."""
    try:
        decode(data)
    except UnknownKindError:
        return digests_in(data)
    except CodecError:
        pass
    return set()


def _groups(entries: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Yield the entries by row group; where one ends depends on the entries alone."""
    group: list[tuple[str, bytes]] = []
    size = 0
    for entry in entries:
        group.append(entry)
        size += len(entry[1])
        if len(group) >= GROUP_ENTRIES or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def digests_in(data: bytes) -> set[str]:
    """Return all that may be a blob's digest in a record's bytes."""
    return {name.decode() for name in DIGEST_FIELD.findall(data)}


def write_range(
    sink: BinaryIO, policy: str, committed: Range, entries: Iterable[tuple[str, bytes]]
) -> tuple[set[str], set[str]]:
    """Write a range as Parquet.

    Args:
        sink: the file.
        policy: its name, which the file says.
        committed: the range.
        entries: (id, record bytes) of it, in order.

    Returns:
        The digests of the blobs that its entries name, and what may be digests in entries of kinds
        that only a newer build knows.

    Raises:
        ArchiveError: they are not the entries of the range.
    """
    header = msgspec.json.encode(RangeHeader(FORMAT, policy, committed))
    named: set[str] = set()
    perhaps: set[str] = set()
    count, size, first, ends = 0, 0, None, list[str]()
    absent = frozenset(COLUMNS.names)

    # The same entries make the same file, whoever writes it.
    with contextlib.ExitStack() as stack:
        writer = None
        for group in _groups(entries):
            ids, data = [entry_id for entry_id, _ in group], [whole for _, whole in group]
            rows = rows_of(ids, data)
            stored = _stored(rows, data)
            if writer is None:
                options = write_options(_noise(stored))
                writer = stack.enter_context(pq.ParquetWriter(sink, SCHEMA, **options))
            writer.write_batch(stored)

            for kind, record, whole in zip(rows.kinds, rows.records, data, strict=True):
                if kind == UNDECODABLE:
                    perhaps |= _perhaps_named(whole)
                elif isinstance(record, NAMING):
                    named.add(record.digest)
            count, size = count + len(ids), size + sum(map(len, data))
            first, ends = first or ids[0], [*ends, ids[-1]]
            absent = frozenset(name for name in absent if stored[name].null_count == len(stored))

        if writer is not None:
            groups = msgspec.json.encode(RowGroups(ends, absent), order="sorted")
            said = {METADATA: header, RECORD_BYTES: str(size), GROUPS: groups}
            writer.add_key_value_metadata(said)

    last = ends[-1] if ends else None
    if (first, last, count) != (committed.first, committed.last, committed.count):
        raise ArchiveError(
            f"range {committed} of {policy} was committed with {committed.count} entries, but"
            f" {count} were read ({first} to {last}): something else than banditloop removes"
            " entries from the stream",
            "archive",
        )
    return named, perhaps
