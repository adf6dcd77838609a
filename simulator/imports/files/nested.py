"""Columns as they are taken: fields of objects are columns of their own, named ``user.id``."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

Row = dict[str, object]

MOST_DEEP = 8
"""Objects within objects beyond which nobody looks."""


def flat_row(row: Row) -> Row:
    """Return a JSON object with the fields of the objects in it as its own."""
    for _ in range(MOST_DEEP):
        if not any(isinstance(value, dict) for value in row.values()):
            break
        row = dict(_unfolded(row))
    return row


def _unfolded(row: Row) -> Iterator[tuple[str, object]]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", each) for inner, each in value.items())
        else:
            yield name, value


def flat_names(schema: "pa.Schema") -> list[str]:
    """Return the names of the columns of a table that is ``flattened``."""
    return list(flattened(schema.empty_table()).column_names)


def flattened(table: "pa.Table") -> "pa.Table":
    """Return a table with the fields of its structs as columns, and texts that are no views."""
    for _ in range(MOST_DEEP):
        if not any(pa.types.is_struct(field.type) for field in table.schema):
            break
        table = table.flatten()

    for at, field in enumerate(table.schema):
        if pa.types.is_string_view(field.type):
            table = table.set_column(at, field.name, table.column(at).cast(pa.string()))
    return table


def picked(batch: "pa.RecordBatch", columns: Sequence[str]) -> "pa.RecordBatch":
    """Return columns of a batch, in which they may be fields of structs.

    Args:
        batch: some rows.
        columns: names as ``flat_names`` has them.
    """
    names = {field.name for field in batch.schema if not pa.types.is_string_view(field.type)}
    if names.issuperset(columns):
        return batch
    (found,) = flattened(pa.Table.from_batches([batch])).select(columns).to_batches()
    return found
