"""The files of presets as rows of texts; and whole tables of items and users."""

import csv
import io
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from bandits.errors import DataSetError, plain
from policies.storage import shown
from simulator.imports.raw import ColumnMapping, RawRows, TableFormat
from simulator.imports.times import read_times
from simulator.logs.files import LogFile, open_decompressed

BLOCK = 8 << 20
"""Bytes that are read at once; no line may be longer."""


def read_texts(file: LogFile, form: TableFormat) -> Iterator[RawRows]:
    """Yield the rows of a delimited file, every cell as text; an empty one is null.

    Args:
        file: Local or by a URI, perhaps compressed.
        form: Of delimited text, with its separator and whether it has a header.

    Raises:
        DataSetError: The file cannot be read, or a row has too many or too few cells.
    """
    row, where = 1, shown(str(file))
    try:
        with open_decompressed(file) as stream:
            names, skipped = form.names, 0
            if names is None:
                head = io.TextIOWrapper(stream, encoding=form.encoding, newline="")
                names = next(_cells(head, form), None)
                if names is None:
                    raise DataSetError(f"{where} is empty", "preset")
                head.detach()
                stream.seek(0)
                skipped = 1
            reader = arrow_csv.open_csv(
                stream,
                read_options=arrow_csv.ReadOptions(
                    column_names=list(names),
                    skip_rows=skipped,
                    block_size=BLOCK,
                    encoding="utf8" if form.encoding == "utf-8" else form.encoding,
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=form.separator, quote_char=form.quote or False
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                ),
            )
            for batch in reader:
                yield RawRows(where, row, batch)
                row += batch.num_rows
    except (OSError, EOFError, UnicodeError, pa.ArrowException) as error:
        if row == 1 and "Empty CSV file" in str(error):
            raise DataSetError(f"{where} is empty", "preset") from None
        raise DataSetError(
            f"{where} cannot be read after row {row - 1:,}: {plain(error)}", "preset"
        ) from None


def _cells(lines: io.TextIOWrapper, form: TableFormat) -> "Iterator[tuple[str, ...]]":
    """Yield the cells of lines, as the header is read."""
    reader = csv.reader(
        lines,
        delimiter=form.separator or ",",
        quotechar=form.quote or '"',
        quoting=csv.QUOTE_NONE if form.quote is None else csv.QUOTE_MINIMAL,
    )
    for cells in reader:
        yield tuple(cell.strip("\ufeff") for cell in cells)


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
