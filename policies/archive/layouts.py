"""The columns that files of each layout hold, and how an opened file shows its layout."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from policies.archive.arrays import CODED, list_of
from policies.archive.columns import COLUMNS
from policies.archive.parts.ruled import PLACED, RULED

FORMAT = 5
"""The layout that is written."""
METADATA = b"banditloop"
"""The key of a file's header."""
RECORD_BYTES = b"banditloop.record_bytes"
"""The key under which a file says how many bytes its records have in the stream; from layout 2."""
GROUPS = b"banditloop.groups"
"""The key under which a file says what its row groups hold, see RowGroups; from layout 5."""

RECORD = pa.field("record", pa.binary(), nullable=False)
CHECKSUM = pa.field("checksum", pa.uint32(), nullable=False)
_SINCE_3 = frozenset({"profile"})
_SINCE_4 = frozenset(RULED.names)
_SINCE_5 = frozenset({"apprentice"})
_KEPT_UNTIL_3 = [
    pa.field("removed", list_of(CODED)),
    pa.field("placed", list_of(PLACED)),
    pa.field("controller", pa.binary()),
]
"""What layouts 2 and 3 kept a place for; always null."""
FIRST_COLUMNS = [
    *("id", "ms", "seq", "kind", "event_id", "reward", "reward_id", "slot", "action_id"),
    *("propensity", "action", "slots", "actions", "spec", "snapshot_id", "catalogue", "user"),
    *("deferred", "holdout"),
]


def _without(names: frozenset[str]) -> list[pa.Field]:
    return [field for field in COLUMNS if field.name not in names]


SCHEMAS = {
    1: pa.schema([*(COLUMNS.field(name) for name in FIRST_COLUMNS), RECORD]),
    2: pa.schema([*_without(_SINCE_3 | _SINCE_4 | _SINCE_5), *_KEPT_UNTIL_3, RECORD, CHECKSUM]),
    3: pa.schema([*_without(_SINCE_4 | _SINCE_5), *_KEPT_UNTIL_3, RECORD, CHECKSUM]),
    4: pa.schema([*_without(_SINCE_5), RECORD, CHECKSUM]),
    5: pa.schema([*COLUMNS, RECORD, CHECKSUM]),
}
"""By format, what a file holds. ``record`` is the whole in layout 1, and from layout 2 on what the
columns leave of it (see parts/rest.py); ``checksum`` is the CRC-32 of the whole."""
SCHEMA = SCHEMAS[FORMAT]
NEVER_SAID = {
    1: _SINCE_3 | _SINCE_4 | _SINCE_5 | {"signal"},
    2: _SINCE_3 | _SINCE_4 | _SINCE_5,
    3: _SINCE_4 | _SINCE_5,
    4: _SINCE_5,
    5: frozenset[str](),
}
"""By format, the columns of which nothing was known when such files were written."""


def _leaves(name: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """Yield the columns that Parquet makes of one, by path."""
    if pa.types.is_map(kind):
        yield from _leaves(f"{name}.key_value.key", kind.key_type)
        yield from _leaves(f"{name}.key_value.value", kind.item_type)
    elif pa.types.is_list(kind):
        yield from _leaves(f"{name}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{name}.{field.name}", field.type)
    else:
        yield name, kind


def _coded(schema: pa.Schema) -> frozenset[str]:
    """Return which of them are texts that repeat."""
    leaves = (leaf for field in schema for leaf in _leaves(field.name, field.type))
    return frozenset(path for path, kind in leaves if kind == CODED)


CODED_LEAVES = _coded(SCHEMA)
"""The columns of repeating texts in a file of the newest layout, by path."""
_CODED_EVER = CODED_LEAVES.union(*map(_coded, SCHEMAS.values()))
NUMBERED = frozenset({"slot", "slots", "actions", "chosen"})
"""The columns of numbers that repeat; they are written as codes, as texts that repeat are."""
ALREADY_SMALL = frozenset({"ms", "kind", "spec", "catalogue", "signal", "deferred"}) | NUMBERED
"""The columns that their encoding makes small: compression would cost more than it saves."""
IN_STEPS = "DELTA_BINARY_PACKED"
"""The encoding of times, which grow."""
STATISTICS = ["id", "ms", "seq", "kind", "reward", "spec", "snapshot_id", "catalogue", "user"]


class RowGroups(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file says of its row groups, so that nobody has to read it in them.

    Attributes:
        ends: the position of the last entry of each.
        absent: the columns that are null in all rows of all of them.
    """

    ends: list[str]
    absent: frozenset[str]


def write_options(noise: frozenset[str]) -> dict[str, Any]:
    """Return how the newest layout is written. The options decide about bytes.

    Args:
        noise: columns of numbers that do not get smaller by compression.
    """
    paths = {path: field.name for field in SCHEMA for path, _ in _leaves(field.name, field.type)}
    numbered = {path for path, name in paths.items() if name in NUMBERED}
    return {
        "compression": {
            path: "none" if name in ALREADY_SMALL | noise else "zstd"
            for path, name in paths.items()
        },
        "use_dictionary": sorted(CODED_LEAVES | numbered),
        "column_encoding": {"ms": IN_STEPS},
        "write_statistics": STATISTICS,
        "write_page_checksum": True,
        "store_schema": False,
    }


def said_groups(parquet: Any, last: str) -> RowGroups | None:
    """Return what an open file says of its row groups, None where it says nothing.

    Args:
        parquet: the open file.
        last: the position of its last entry.

    Raises:
        ValueError: that is not true of any such file.
    """
    said = parquet.metadata.metadata.get(GROUPS)
    if said is None:
        return None
    groups = msgspec.json.decode(said, type=RowGroups)
    if len(groups.ends) != parquet.num_row_groups or groups.ends[-1:] != [last]:
        raise ValueError("what it says of its row groups is of another file")
    if not groups.absent <= set(COLUMNS.names):
        raise ValueError("what it says of its row groups names no column")
    return groups


def open_parquet(source: Any, metadata: Any = None) -> Any:
    """Open a file so that repeating texts are read as codes.

    Args:
        source: its bytes, at any offset.
        metadata: what its footer says; None: it is read.
    """
    if metadata is None:
        metadata = pq.read_metadata(source)
    paths = {metadata.schema.column(i).path for i in range(len(metadata.schema))}
    return pq.ParquetFile(
        source,
        metadata=metadata,
        read_dictionary=sorted(paths & _CODED_EVER),
        page_checksum_verification=True,
    )


def layout_fault(parquet: Any, layout: int, count: int) -> str | None:
    """Return what a file lacks of what it says it is, None if it lacks nothing.

    Args:
        parquet: the open file.
        layout: its layout, as it says.
        count: its entries, as it says.
    """
    if layout not in SCHEMAS:
        return f"it has format {layout}; this version reads 1 to {FORMAT}"

    found = parquet.schema_arrow
    for field in SCHEMAS[layout]:
        at = found.get_field_index(field.name)
        if at < 0:
            return f"it has no column {field.name!r}"
        if found.field(at).type != field.type:
            return f"its column {field.name!r} is {found.field(at).type}, not {field.type}"

    rows, groups = parquet.metadata.num_rows, parquet.metadata.num_row_groups
    if rows != count:
        return f"it holds {rows} entries in {groups} row groups, not the {count} that it says"
    return None


def record_bytes(metadata: Any) -> int:
    """Return how many bytes the records of a file have in the stream.

    Args:
        metadata: the file's.
    """
    said = metadata.metadata.get(RECORD_BYTES)
    if said is not None:
        return int(said)
    column = metadata.schema.names.index("record")
    groups = [metadata.row_group(i).column(column) for i in range(metadata.num_row_groups)]
    return sum(group.total_uncompressed_size for group in groups)
