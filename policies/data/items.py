"""Tables of items and users: what kind each column is of, and items as the catalogue takes them."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bandits.values import MAX_FEATURE
from policies.items.changes import MAX_FLOAT32, MAX_TEXT_BYTES, MAX_VECTOR

FROM, UNTIL = "available_from", "available_until"
TEXT_LENGTH = 60
"""Characters, on average, from which a column of strings is text and not a category."""
HALF = 0.5
NAMES = 50
"""So many strings are names, and not categories, if more than half of them differ."""
TEXT_NAMES = frozenset(
    (
        *("title", "name", "headline", "caption", "subtitle", "description", "desc", "summary"),
        *("text", "abstract", "overview", "plot", "synopsis", "body", "blurb"),
    )
)
"""Columns of such names are text however few the rows are, where most differ and have a blank."""
_BEFORE = frozenset(
    (
        *("item", "product", "article", "news", "movie", "film", "book", "song", "track", "game"),
        *("course", "recipe", "offer", "listing", "short", "long", "full", "display", "original"),
    )
)
"""What may stand before such a name."""


def column_kind(column: "pa.ChunkedArray", name: str = "") -> str | None:
    """Return the kind of a column, or None if it is none that a data set keeps.

    The kinds are number, flag, category, list (of strings), text, vector (of numbers) and time.

    Args:
        column: its values.
        name: what it is called: a title is text.
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
        found = "text" if _is_text(column.cast(pa.string()), name) else "category"
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or _is_fixed_list(kind):
        inner = kind.value_type
        if _is_string(inner):
            found = "list"
        elif pa.types.is_integer(inner) or pa.types.is_floating(inner):
            found = "vector"
    return found


def _is_text(column: "pa.ChunkedArray", name: str) -> bool:
    """Return whether strings are texts: long, or names, most of which stand for one row each."""
    lengths = pc.mean(pc.utf8_length(column)).as_py()
    filled = len(column) - column.null_count
    if lengths is None or lengths >= TEXT_LENGTH:
        return lengths is not None
    if filled < NAMES and not (_names_texts(name) and _words_share(column) > HALF):
        return False
    return bool(pc.count_distinct(column).as_py() > HALF * filled)


def _names_texts(name: str) -> bool:
    words = {word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", name)}
    return bool(words & TEXT_NAMES) and words <= TEXT_NAMES | _BEFORE


def _words_share(column: "pa.ChunkedArray") -> float:
    """Return the share of strings that are several words."""
    several = pc.match_substring_regex(column, r"\S\s+\S")
    return float(pc.mean(several.cast(pa.float64())).as_py())


def catalogue_items(table: "pa.Table", kinds: dict[str, str]) -> list[dict[str, Any]]:
    """Return items as a catalogue takes them; what an item has no value of is left out.

    Texts are metadata, vectors are ``vectors``, and the times from and until which an item is
    available are its own; all else that is of use is features. What no item may have is left out,
    too: a vector with a number that is not finite, a feature beyond MAX_FEATURE, or text beyond
    what metadata may hold, which is cut.

    Args:
        table: the items, with a column ``id``.
        kinds: the kind of each other column.
    """
    items: list[dict[str, Any]] = [
        {"id": item_id, "features": {}} for item_id in table["id"].to_pylist()
    ]
    for name in {FROM, UNTIL} & kinds.keys():
        if kinds[name] == "time":
            _put_times(items, name, table[name])

    for name, kind in kinds.items():
        if name in {FROM, UNTIL} or kind not in _FIELDS:
            continue
        field, read = _FIELDS[kind]
        for item, value in zip(items, table[name].to_pylist(), strict=True):
            if value is not None and (found := read(value)) is not None:
                item.setdefault(field, {})[name] = found

    for item in items:
        if "metadata" in item:
            item["metadata"] = _cut(item["metadata"])
    return items


def _number(value: float) -> float | None:
    return float(value) if abs(value) <= MAX_FEATURE else None


def _texts(values: list[str | None]) -> list[str]:
    return [text for text in values if text]


def _vector(values: list[float | None]) -> list[float] | None:
    """Return a vector, None where it is none that an item may have."""
    vector = [math.nan if number is None else float(number) for number in values]
    fits = 0 < len(vector) <= MAX_VECTOR and all(abs(each) <= MAX_FLOAT32 for each in vector)
    return vector if fits else None


_FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "number": ("features", _number),
    "flag": ("features", bool),
    "category": ("features", str),
    "list": ("features", _texts),
    "text": ("metadata", lambda text: text or None),
    "vector": ("vectors", _vector),
}
"""By the kind of a column, the field of an item that its values are put into, and how."""


def _cut(metadata: dict[str, str]) -> dict[str, str]:
    """Return metadata without what is beyond the bytes that an item may have."""
    left, kept = MAX_TEXT_BYTES, dict[str, str]()
    for name, text in metadata.items():
        data = text.encode()
        if data and left:
            kept[name] = data[:left].decode(errors="ignore")
        left = max(0, left - len(data))
    return kept


def _put_times(items: list[dict[str, Any]], name: str, column: "pa.ChunkedArray") -> None:
    """Put times into items, as ISO 8601: those that are there, and that a calendar has."""
    times = column.cast(pa.timestamp("ms")).to_numpy()
    texts = np.datetime_as_string(times, "ms").tolist()
    years = times.astype("datetime64[Y]").astype(np.int64) + 1970
    known = ~np.isnat(times) & (years >= 1) & (years <= 9999)
    for at in np.flatnonzero(known).tolist():
        items[at][name] = f"{texts[at]}Z"


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


def _is_string(kind: "pa.DataType") -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_fixed_list(kind: "pa.DataType") -> bool:
    return bool(pa.types.is_fixed_size_list(kind))
