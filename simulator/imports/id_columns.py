"""Columns that are ids, of whatever type a file has them: as texts or whole numbers."""

import uuid

import pyarrow as pa
import pyarrow.compute as pc

from bandits.errors import DataSetError

TEXTS = pa.string()


def as_ids(values: "pa.Array", column: str, file: str) -> "pa.Array":
    """Return a column as strings or whole numbers.

    Args:
        values: of any type.
        column: its name, for errors.
        file: the file, for errors.

    Raises:
        DataSetError: the column is of a type that no id is of, or holds what is none.
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type

    if pa.types.is_string(kind) or pa.types.is_integer(kind):
        return values
    if isinstance(kind, pa.UuidType):
        return _uuids(values)
    try:
        if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return _whole(values)
        if _is_text(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
            return values.cast(TEXTS)
    except pa.ArrowInvalid:
        raise DataSetError(
            f"{file}: column {column!r} ({kind}) has {_FAULTS[_is_text(kind)]}, which are no ids:"
            " name another",
            "columns",
        ) from None

    raise DataSetError(
        f"{file}: column {column!r} is {kind}, which is no id: name a column of texts or whole"
        " numbers",
        "columns",
    )


_FAULTS = {False: "fractions", True: "bytes that are no text"}


def _is_text(kind: "pa.DataType") -> bool:
    return bool(
        pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _whole(values: "pa.Array") -> "pa.Array":
    """Return numbers as whole ones: pandas makes 12.0 of 12 as soon as a value is missing.

    Databases export whole numbers as decimals of up to 38 digits.
    """
    if pa.types.is_floating(values.type):
        # NaN is how a program without nulls writes that there is none.
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        return values.cast(pa.int64())
    return values.cast(pa.decimal128(38, 0)).cast(TEXTS)


def _uuids(values: "pa.Array") -> "pa.Array":
    stored = values.storage.to_pylist()
    return pa.array([None if b is None else str(uuid.UUID(bytes=b)) for b in stored], TEXTS)
