"""The Python objects that columns hold, one per row."""

from itertools import pairwise
from typing import Any, cast

import numpy as np
import pyarrow as pa

from policies.archive.parts.shapes import bounds_of, elements_of


def texts_of(column: pa.Array) -> list[Any]:
    """Return a column of coded texts as one text per row, None where it is null."""
    words, codes = column.dictionary.to_pylist(), column.indices
    if codes.null_count:
        codes = codes.fill_null(len(words))
        words.append(None)
    return [words[code] for code in codes.to_numpy().tolist()]


def plain_values(column: pa.Array) -> list[Any]:
    """Return a column of plain values as one per row, None where it is null."""
    if pa.types.is_dictionary(column.type):
        return texts_of(column)
    # One after the other, Arrow makes a scalar of each first.
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        return cast(list[Any], column.to_numpy(zero_copy_only=False).tolist())
    if column.null_count == len(column):
        return [None] * len(column)
    if column.null_count or not pa.types.is_primitive(column.type):
        return cast(list[Any], column.to_pylist())
    return cast(list[Any], column.to_numpy(zero_copy_only=False).tolist())


def truths_of(column: pa.Array) -> list[bool]:
    """Return a column of truths as one per row, False where it is null."""
    filled = column.fill_null(False) if column.null_count else column
    return cast(list[bool], filled.to_numpy(zero_copy_only=False).tolist())


def lists_of(column: pa.Array, make: Any) -> list[Any]:
    """Return a list column as one list per row, None where it is null.

    Args:
        column: the lists.
        make: makes an object of each element of a column of them.
    """
    if column.null_count == len(column):
        return [None] * len(column)
    flat = make(elements_of(column, column.values))
    spans = pairwise(bounds_of(column).tolist())
    return nulled(column, [flat[first:last] for first, last in spans])


def nulled(column: pa.Array, values: list[Any]) -> list[Any]:
    """Return the objects of a column, None where it is null.

    Args:
        column: of n rows.
        values: their objects, [n], which are changed.
    """
    if column.null_count:
        for row in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
            values[row] = None
    return values


def byte_parts(column: pa.Array) -> list[bytes]:
    """Return a column of lists of numbers as their little-endian bytes, one part per row."""
    flat = elements_of(column, column.values).to_numpy()
    data, width = flat.tobytes(), flat.itemsize
    spans = pairwise((width * bounds_of(column)).tolist())
    return [data[first:last] for first, last in spans]


def maps_of(column: pa.Array, make: Any) -> list[Any]:
    """Return a column of maps as one dict per row, None where it is null.

    Args:
        column: the maps.
        make: makes an object of each element of a column of their values.
    """
    if column.null_count == len(column):
        return [None] * len(column)
    keys = texts_of(elements_of(column, column.keys))
    items = make(elements_of(column, column.items))
    maps: list[Any] = [
        dict(zip(keys[first:last], items[first:last], strict=True)) if last > first else {}
        for first, last in pairwise(bounds_of(column).tolist())
    ]
    return nulled(column, maps)
