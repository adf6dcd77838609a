"""Arrow columns of texts that repeat, of lists and of maps, made of Python objects."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

INT64_MAX = 2**63 - 1
"""The largest number that a column holds."""
CODED = pa.dictionary(pa.int32(), pa.string())
"""A text that repeats: codes into the distinct texts of a row group."""


def list_of(of: pa.DataType, *, nullable: bool = False) -> pa.DataType:
    """Return the type of lists.

    Args:
        of: the elements'.
        nullable: whether some of these may be null.
    """
    return pa.list_(pa.field("element", of, nullable=nullable))


def map_to(of: pa.DataType) -> pa.DataType:
    """Return the type of maps of texts to values of a type."""
    return pa.map_(pa.field("key", CODED, nullable=False), pa.field("value", of, nullable=False))


def flat_column(lists: Sequence[Any], of: pa.DataType) -> pa.Array:
    """Return the elements of lists, one after the other, as a column.

    Args:
        lists: None is as an empty one.
        of: the elements' type.
    """
    return pa.array(list(chain.from_iterable(each for each in lists if each)), of)


def offsets_column(lengths: Any) -> pa.Array:
    """Return where lists of such lengths begin, and the last ends."""
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.array(offsets)


def _absent(rows: Sequence[Any]) -> pa.Array | None:
    mask = [row is None for row in rows]
    return pa.array(mask, pa.bool_()) if any(mask) else None


def list_column(lists: Sequence[Any], flat: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return lists as a column.

    Args:
        lists: None makes a null.
        flat: all their elements one after the other.
        kind: the column's type.
    """
    offsets = offsets_column([0 if each is None else len(each) for each in lists])
    return pa.ListArray.from_arrays(offsets, flat, type=kind, mask=_absent(lists))


def numbers_column(parts: Sequence[bytes | None], form: str, kind: pa.DataType) -> pa.Array:
    """Return little-endian arrays as a column, bit for bit.

    Args:
        parts: None makes a null.
        form: of a number, as numpy names it.
        kind: the column's type.
    """
    width = np.dtype(form).itemsize
    offsets = offsets_column([0 if part is None else len(part) // width for part in parts])
    flat = pa.array(np.frombuffer(b"".join(part for part in parts if part), form))
    return pa.ListArray.from_arrays(offsets, flat, type=kind, mask=_absent(parts))


def map_column(
    maps: Sequence[Mapping[str, Any] | None], items: pa.Array, kind: pa.DataType
) -> pa.Array:
    """Return maps as a column.

    Args:
        maps: None makes a null.
        items: all their values one after the other.
        kind: the column's type.
    """
    offsets = offsets_column([0 if each is None else len(each) for each in maps])
    return pa.MapArray.from_arrays(
        offsets, flat_column(maps, CODED), items, type=kind, mask=_absent(maps)
    )
