"""Files of the archive's layout 1, as builds wrote them until columns held the parts of a record.

Their writer, as it was: what it wrote has to be read for ever.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from bandits.errors import CodecError
from bandits.log.codec import decode
from bandits.log.positions import log_order
from bandits.log.records import (
    ActivationRecord,
    CatalogueRecord,
    DecisionRecord,
    LogRecord,
    RewardRecord,
    SpecRecord,
)
from policies.archive.range_file import Range, RangeHeader

INT64_MAX = 2**63 - 1
SCHEMA_1 = pa.schema(
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


def write_layout_1(
    sink: BinaryIO,
    policy: str,
    committed: Range,
    entries: Iterable[tuple[str, bytes]],
    *,
    group_entries: int = 2048,
) -> None:
    """A range of policy ``policy`` as a file of layout 1."""
    header = msgspec.json.encode(RangeHeader(1, policy, committed))
    with pq.ParquetWriter(
        sink,
        SCHEMA_1.with_metadata({b"banditloop": header}),
        compression="zstd",
        use_dictionary=REPEATING,
        write_statistics=[name for name in SCHEMA_1.names if name != "record"],
        write_page_checksum=True,
    ) as writer:
        for group in _groups(entries, group_entries):
            rows = [_row(entry_id, data) for entry_id, data in group]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA_1))


def put_layout_1(root: Path, policy: str, committed: Range, entries, **options) -> Path:
    """The same, in its place below ``root``."""
    path = root / policy / committed.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as sink:
        write_layout_1(sink, policy, committed, entries, **options)
    return path


def _groups(entries: Iterable, most: int) -> Iterator[list[tuple[str, bytes]]]:
    group: list[tuple[str, bytes]] = []
    size = 0
    for entry in entries:
        group.append(entry)
        size += len(entry[1])
        if len(group) >= most or size >= 8 << 20:
            yield group
            group, size = [], 0
    if group:
        yield group


def _row(entry_id: str, data: bytes) -> dict:
    milliseconds, sequence = log_order(entry_id)
    row = {
        "id": entry_id,
        "ms": min(milliseconds, INT64_MAX),
        "seq": min(sequence, INT64_MAX),
        "record": data,
    }
    try:
        record = decode(data)
    except CodecError:
        return {**row, "kind": "undecodable"}
    return {**row, "kind": str(record.__struct_config__.tag), **_scalars(record)}


def _scalars(record: LogRecord) -> dict:
    if isinstance(record, DecisionRecord):
        return {
            "event_id": record.event_id,
            "propensity": record.propensity(0),
            "action": record.action_ids[record.chosen[0]],
            "slots": len(record.chosen),
            "actions": len(record.action_ids),
            "spec": record.spec,
            "snapshot_id": record.snapshot_id,
            "catalogue": record.catalogue,
            "user": record.user,
            "deferred": record.deferred,
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
