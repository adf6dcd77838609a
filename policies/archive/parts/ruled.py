"""The columns of what decisions' rules depended on, and the records' part that comes out of them.

A decision without rules has none of them; nor has a part of what they depended on that is empty.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from bandits.log.records import NO_RULES, Placed, Removed, Ruled, Unplaced
from policies.archive.arrays import (
    CODED,
    flat_column,
    list_column,
    list_of,
    map_column,
    map_to,
    numbers_column,
)
from policies.archive.parts.objects import byte_parts, lists_of, maps_of, plain_values, texts_of

REMOVED = pa.struct([pa.field("ids", list_of(CODED)), pa.field("count", pa.int64())])
PLACED = pa.struct([("slot", pa.int32()), ("action", CODED)])
UNPLACED = pa.struct([("slot", pa.int32()), ("action", CODED), ("reason", CODED)])
RULED = pa.schema(
    [
        ("filter", CODED),
        ("now_ms", pa.int64()),
        ("did", map_to(list_of(CODED))),
        ("removed", map_to(REMOVED)),
        ("boosts", list_of(pa.float32())),
        ("control", CODED),
        ("placed", list_of(PLACED)),
        ("short", CODED),
        ("unplaced", list_of(UNPLACED)),
        ("page", pa.binary()),
    ]
)
"""By name, as in Ruled."""

_EMPTY_AS_WELL = ("filter", "now_ms", "did", "control", "short")
"""What is not the same empty as not there."""
_tuple = msgspec.structs.astuple


def fits(rules: Ruled | None) -> bool:
    """Return whether the columns hold all that a decision's rules depended on."""
    return rules is None or rules != NO_RULES


def ruled_column(name: str, rules: Sequence[Ruled | None]) -> pa.Array:
    """Return the column of a name.

    Args:
        name: of RULED.
        rules: what the rules of each entry depended on, [n].
    """
    kind = RULED.field(name).type
    if not any(rules):
        return pa.nulls(len(rules), kind)
    values = [None if row is None else getattr(row, name) for row in rules]
    if name not in _EMPTY_AS_WELL:
        values = [each or None for each in values]
    if not any(each is not None for each in values):
        return pa.nulls(len(values), kind)

    if name == "boosts":
        return numbers_column(values, "<f4", kind)
    if name == "did":
        lists = [items for each in values if each for items in each.values()]
        return map_column(values, _texts(lists, kind.item_type), kind)
    if name == "removed":
        removed = [of for each in values if each for of in each.values()]
        ids = _texts([of.ids for of in removed], REMOVED.field("ids").type)
        counts = pa.array([of.count for of in removed], pa.int64())
        items = pa.StructArray.from_arrays([ids, counts], fields=list(REMOVED))
        return map_column(values, items, kind)
    if name in ("placed", "unplaced"):
        values = [each and list(map(_tuple, each)) for each in values]
    return pa.array(values, kind)


def _texts(lists: Sequence[list[str]], kind: pa.DataType) -> pa.Array:
    return list_column(lists, flat_column(lists, CODED), kind)


def rules_of(batch: pa.RecordBatch) -> list[Ruled | None]:
    """Return what the rules of each row depended on.

    Args:
        batch: the columns of RULED, among others.
    """
    columns = {name: batch[name] for name in RULED.names}
    said = {
        name: _OBJECTS[name](column)
        for name, column in columns.items()
        if column.null_count < len(batch)
    }
    if not said:
        return [None] * len(batch)
    rules = (
        {name: values[row] for name, values in said.items() if values[row] is not None}
        for row in range(len(batch))
    )
    return [Ruled(**given) if given else None for given in rules]


def _removed(column: pa.Array) -> list[Removed]:
    ids, counts = lists_of(column.field("ids"), texts_of), plain_values(column.field("count"))
    return list(map(Removed, ids, counts))


def placements_of(column: pa.Array) -> list[Placed]:
    """Return the objects of a column of PLACED."""
    return list(map(Placed, *_fields(column)))


def _unplaced(column: pa.Array) -> list[Unplaced]:
    return list(map(Unplaced, *_fields(column)))


def _fields(column: pa.Array) -> Iterator[list[Any]]:
    return (plain_values(column.field(field.name)) for field in column.type)


def _boosts(column: pa.Array) -> list[bytes | None]:
    return [each or None for each in byte_parts(column)]


_OBJECTS: dict[str, Any] = {
    "filter": texts_of,
    "now_ms": plain_values,
    "did": lambda column: maps_of(column, lambda items: lists_of(items, texts_of)),
    "removed": lambda column: maps_of(column, _removed),
    "boosts": _boosts,
    "control": texts_of,
    "placed": lambda column: lists_of(column, placements_of),
    "short": texts_of,
    "unplaced": lambda column: lists_of(column, _unplaced),
    "page": plain_values,
}
"""By column, what makes an object of each row, None where it is null."""
