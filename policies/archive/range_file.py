"""A range of the log as a Parquet file: what it is called, its columns, and how it is written."""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from bandits.errors import ArchiveError, CodecError, UnknownKindError
from bandits.log.codec import decode
from bandits.log.positions import log_order, position_ms
from bandits.log.records import (
    ActivationRecord,
    CatalogueRecord,
    DecisionRecord,
    LogRecord,
    RewardRecord,
    SpecRecord,
    WarmStartRecord,
)

FORMAT = 1
METADATA = b"banditloop"
UNDECODABLE = "undecodable"
DIGEST_FIELD = re.compile(rb"\xd9\x20([0-9a-f]{32})")
"""A text of 32 hex digits, as msgpack has it."""
GROUP_ENTRIES = 2048
GROUP_BYTES = 8 << 20
"""A row group, what reader and writer hold in memory, ends with the entry that reaches either."""
HOUR_MS = 3_600_000
LAST_HOUR = int(datetime(9999, 12, 31, 23, tzinfo=UTC).timestamp()) * 1000 // HOUR_MS
INT64_MAX = 2**63 - 1

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("ms", pa.int64(), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("event_id", pa.string()),
        pa.field("record", pa.binary(), nullable=False),
        ("reward", pa.float64()),
        ("reward_id", pa.string()),
        ("slot", pa.int64()),
        ("action_id", pa.string()),
        ("propensity", pa.float64()),
        ("action", pa.string()),
        ("slots", pa.int32()),
        ("actions", pa.int32()),
        ("spec", pa.string()),
        ("snapshot_id", pa.string()),
        ("catalogue", pa.string()),
        ("user", pa.string()),
        ("deferred", pa.bool_()),
        ("holdout", pa.bool_()),
    ]
)
REPEATING = ["kind", "action_id", "action", "spec", "snapshot_id", "catalogue", "user"]


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


def scalars(record: LogRecord) -> dict[str, Any]:
    """Return the columns beside a record that spare an evaluation its decoding.

    Columns that are not named are null.
    """
    if isinstance(record, DecisionRecord):
        index = record.chosen[0]
        return {
            "event_id": record.event_id,
            "propensity": record.propensity(0),
            "action": record.action_ids[index],
            "slots": len(record.chosen),
            "actions": len(record.action_ids),
            "spec": record.spec,
            "snapshot_id": record.snapshot_id,
            "catalogue": record.catalogue,
            "user": record.user,
            "deferred": record.deferred,
            # A decision that the holdout's policy could not serve belongs to neither group.
            "holdout": None if record.unserved else record.holdout,
        }

    if isinstance(record, RewardRecord):
        return {
            "event_id": record.event_id,
            "reward": record.value,
            "reward_id": record.reward_id,
            "slot": record.slot if record.slot is None or record.slot <= INT64_MAX else None,
            "action_id": record.action_id,
        }

    if isinstance(record, ActivationRecord):
        return {"event_id": record.event_id}
    if isinstance(record, SpecRecord):
        return {"spec": record.digest}
    return {"catalogue": record.digest} if isinstance(record, CatalogueRecord) else {}


def _row(entry_id: str, data: bytes, named: set[str], perhaps: set[str]) -> dict[str, Any]:
    """Return a row, and add the digest of the blob that its entry names to ``named``.

    What may be a digest, in an entry of a kind that this build does not know, is added to
    ``perhaps``.
    """
    # Ids may be larger than a Parquet column holds; the id itself is a column too.
    milliseconds, sequence = log_order(entry_id)
    row = {
        "id": entry_id,
        "ms": min(milliseconds, INT64_MAX),
        "seq": min(sequence, INT64_MAX),
        "record": data,
    }

    try:
        record = decode(data)
    except CodecError as error:
        if isinstance(error, UnknownKindError):
            perhaps.update(digests_in(data))
        return {**row, "kind": UNDECODABLE}

    if isinstance(record, SpecRecord | CatalogueRecord | WarmStartRecord):
        named.add(record.digest)
    return {**row, "kind": str(record.__struct_config__.tag), **scalars(record)}


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
    count, first, last = 0, None, None

    # The options decide about bytes: the same entries make the same file, whoever writes it.
    with pq.ParquetWriter(
        sink,
        SCHEMA.with_metadata({METADATA: header}),
        compression="zstd",
        use_dictionary=REPEATING,
        write_statistics=[name for name in SCHEMA.names if name != "record"],
        write_page_checksum=True,
    ) as writer:
        for group in _groups(entries):
            rows = [_row(entry_id, data, named, perhaps) for entry_id, data in group]
            count, first, last = count + len(group), first or group[0][0], group[-1][0]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))

    if (first, last, count) != (committed.first, committed.last, committed.count):
        raise ArchiveError(
            f"range {committed} of {policy} was committed with {committed.count} entries, but"
            f" {count} were read ({first} to {last}): something else than banditloop removes"
            " entries from the stream",
            "archive",
        )
    return named, perhaps
