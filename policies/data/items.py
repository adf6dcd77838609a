"""Tables of items and users: what kind each column is of, and items as the catalogue takes them."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

FROM, UNTIL = "available_from", "available_until"
TEXT_LENGTH = 60
"""Characters, on average, from which a column of strings is text and not a category."""
NAMES = 50
"""So many strings are names, and not categories, if more than half of them differ."""

FEATURE_KINDS = frozenset({"number", "flag", "category", "list"})
"""Columns of these kinds are features; text and vectors are for sources that use them."""


def column_kind(column: "pa.ChunkedArray") -> str | None:
    """Return the kind of a column, or None if it is none that a data set keeps.

    The kinds are number, flag, category, list (of strings), text, vector (of numbers) and time.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    found = None
    if pa.types.is_boolean(kind):
        found = "flag"
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        found = "number"
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        found = "time"
    elif _is_string(kind):
        found = "text" if _is_text(column.cast(pa.string())) else "category"
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or _is_fixed_list(kind):
        inner = kind.value_type
        if _is_string(inner):
            found = "list"
        elif pa.types.is_integer(inner) or pa.types.is_floating(inner):
            found = "vector"
    return found


def _is_text(column: "pa.ChunkedArray") -> bool:
    """Return whether strings are texts: long, or names, most of which stand for one row each."""
    lengths = pc.mean(pc.utf8_length(column)).as_py()
    filled = len(column) - column.null_count
    return lengths is not None and (
        lengths >= TEXT_LENGTH
        or (filled >= NAMES and pc.count_distinct(column).as_py() > filled / 2)
    )


def catalogue_items(table: "pa.Table", kinds: dict[str, str]) -> list[dict[str, Any]]:
    """Return items as ``{"id", "features"}``; what an item has no value of is left out.

    Args:
        table: the items, with a column ``id``.
        kinds: the kind of each other column.
    """
    items: list[dict[str, Any]] = [
        {"id": item_id, "features": {}} for item_id in table["id"].to_pylist()
    ]
    for name, kind in kinds.items():
        if kind not in FEATURE_KINDS or name in {FROM, UNTIL}:
            continue
        for item, value in zip(items, table[name].to_pylist(), strict=True):
            if value is None or (isinstance(value, float) and not math.isfinite(value)):
                continue
            item["features"][name] = (
                [text for text in value if text is not None]
                if kind == "list"
                else float(value)
                if kind == "number"
                else value
            )
    return items


def items_table(items: "list[dict[str, Any]]") -> "pa.Table":
    """Return the table of items that are given as ``{"id", "features"}``, as ``write_data_set`` is.

    A feature that is a number for some items and text for others becomes text.
    """
    names = sorted({name for item in items for name in item.get("features", {})})
    columns: dict[str, Any] = {"id": pa.array([str(item["id"]) for item in items], pa.string())}
    for name in names:
        values = [item.get("features", {}).get(name) for item in items]
        columns[name] = _array(values)
    return pa.table(columns)


def _array(values: list[Any]) -> "pa.Array":
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def only_finite(column: "pa.ChunkedArray") -> "tuple[pa.ChunkedArray, int]":
    """Return a column of numbers whose NaN and infinite values are missing, and how many were."""
    if not pa.types.is_floating(column.type):
        return column, 0
    bad = pc.fill_null(pc.invert(pc.is_finite(column)), False)
    count = int(np.sum(bad.to_numpy()))
    if count:
        column = pc.if_else(bad, pa.scalar(None, column.type), column)
    return column, count


def _is_string(kind: "pa.DataType") -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_fixed_list(kind: "pa.DataType") -> bool:
    return bool(pa.types.is_fixed_size_list(kind))
