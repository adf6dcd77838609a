"""The files of presets as rows of texts; and whole tables of items and users."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bandits.errors import DataSetError
from simulator.imports.files.tables import open_table, rows_of_table
from simulator.imports.raw import ColumnMapping, RawRows, TableFormat, Unreadable
from simulator.imports.times import read_times
from simulator.logs.files import LogFile


def read_texts(file: LogFile, form: TableFormat, unreadable: Unreadable) -> Iterator[RawRows]:
    """Yield the rows of a delimited file, every cell as text; an empty one is null.

    Args:
        file: Local or by a URI, perhaps compressed.
        form: Of delimited text.
        unreadable: Told of each row that has too many or too few cells.

    Raises:
        DataSetError: The file cannot be read.
    """
    table = open_table(file, form)
    for part in rows_of_table(table, table.names, {}, unreadable):
        cells = part.batch.columns
        filled = [pc.if_else(pc.equal(column, ""), _NOTHING, column) for column in cells]
        yield with_columns(part, dict(zip(table.names, filled, strict=True)))


_NOTHING = pa.scalar(None, pa.string())


def whole_table(rows: Iterator[RawRows]) -> pa.Table:
    """Return rows as one table with an ``id`` in each; of several with one id, the last."""
    batches = [pa.Table.from_batches([part.batch]) for part in rows]
    table = pa.concat_tables(batches, promote_options="permissive").combine_chunks()
    ids = table["id"].cast(pa.string())
    table = table.set_column(table.column_names.index("id"), "id", ids)

    _, first = np.unique(np.asarray(ids.fill_null("").to_pylist(), object)[::-1], return_index=True)
    last = np.sort(table.num_rows - 1 - first)
    kept = table.take(pa.array(last))
    return kept.filter(pc.greater(pc.utf8_length(kept["id"].fill_null("")), 0))


def check_values(part: RawRows, mapping: ColumnMapping, start: str) -> None:
    """Raise DataSetError if the first rows of a file have no ids, or no times where they should.

    A wrong order of columns shows in the times: few other numbers are between 1980 and 2100.

    Args:
        part: The first rows.
        mapping: Which column is what.
        start: What the error begins with.
    """
    if not part.batch.num_rows:
        return
    for column in (mapping.user, mapping.item):
        if part.batch.column(column).null_count == part.batch.num_rows:
            raise DataSetError(
                f"{start} {column!r} is empty in row {part.number(0):,} and all after it", "preset"
            )
    if mapping.time is None or mapping.time_unit is None:
        return
    texts = part.batch.column(mapping.time)
    years = pc.year(read_times(texts, mapping.time_unit))
    if not pc.any(pc.and_(pc.greater_equal(years, 1980), pc.less(years, 2100))).as_py():
        raise DataSetError(
            f"{start} {mapping.time!r} should hold times, and row {part.number(0):,} has"
            f" {texts[0].as_py()!r}",
            "preset",
        )


def with_columns(
    part: RawRows, columns: Mapping[str, pa.Array], rows: "NDArray[np.int64] | None" = None
) -> RawRows:
    """Return rows with other columns.

    Args:
        part: The rows that they are made of.
        columns: The columns.
        rows: Which of those rows each is made of; None: one of each.
    """
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    numbers = part.numbers
    if rows is not None:
        numbers = part.first_row + rows if numbers is None else numbers[rows]
    return RawRows(part.file, part.first_row, batch, numbers)
