"""Tables as files hold them: delimited text, JSON Lines or Parquet, read in batches."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from bandits.errors import DataSetError
from simulator.imports.files.chunks import (
    PARQUET,
    SAMPLES,
    failures_of,
    name_of,
    sample_of,
    stored_as,
)
from simulator.imports.files.delimited import open_delimited, read_delimited
from simulator.imports.files.foreign import HEAD, refuse_foreign
from simulator.imports.files.json_lines import open_json, read_json
from simulator.imports.files.nested import flat_names, flattened, picked
from simulator.imports.files.parsing import SAMPLE_ROWS, OpenTable
from simulator.imports.raw import RawRows, TableFormat, Unreadable
from simulator.logs.files import LogFile, open_bytes

BATCH_ROWS = 1 << 18
NULLS = 0.01
"""Share of bytes that are 0 beyond which a file is no text; a stray one is part of a cell."""


def open_table(file: LogFile, form: TableFormat, *, lone: bool = False) -> OpenTable:
    """Find out how a file is read.

    Args:
        file: the file.
        form: what is known of it.
        lone: whether delimited text may have one column alone, and so no separator.

    Raises:
        DataSetError: it is empty, cannot be read, or is no table.
    """
    kind = form.kind or _kind_of(file)
    if kind == "parquet":
        return _open_parquet(file, form)

    name = name_of(file)
    text, is_whole = sample_of(file, form.encoding)
    if not text.strip():
        raise DataSetError(f"{name} is empty", "events")
    if text[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        raise DataSetError(f"{name} is UTF-16: say --encoding utf-16", "encoding")
    refuse_foreign(file, text[:HEAD])
    if text.count(b"\0") > NULLS * len(text):
        raise DataSetError(
            f"{name} is no text: it has bytes that are 0; say its encoding, as in --encoding"
            " utf-16-le, or write it as CSV, JSON Lines or Parquet",
            "encoding",
        )

    if kind is None:
        kind = "json" if text.lstrip()[:1] == b"{" else "delimited"
    if text.lstrip()[:1] == b"[" and stored_as(file).endswith((".json", ".jsonl")):
        raise DataSetError(
            f"{name} is one JSON list: write one object a line (jq -c '.[]' FILE)", "events"
        )

    # The first rows may be longer than the sample: what it does not tell, a longer one may.
    for size in SAMPLES[1:]:
        if is_whole:
            break
        with contextlib.suppress(DataSetError):
            if b"\n" in text:
                return _opened(file, form, kind, text, lone=lone)
        text, is_whole = sample_of(file, form.encoding, size)
    return _opened(file, form, kind, text, lone=lone)


def _opened(file: LogFile, form: TableFormat, kind: str, text: bytes, *, lone: bool) -> OpenTable:
    if kind == "json":
        return open_json(file, form, text)
    return open_delimited(file, form, text, lone=lone)


def rows_of_table(
    table: OpenTable,
    columns: Sequence[str],
    types: Mapping[str, "pa.DataType"],
    unreadable: Unreadable,
) -> Iterator[RawRows]:
    """Yield the rows of a table, in order.

    Args:
        table: the file.
        columns: those to read.
        types: how a column of delimited text is read if all of a batch is so; else it is text.
        unreadable: told of each row that is none.

    Raises:
        DataSetError: the file cannot be read.
    """
    readers = {"delimited": read_delimited, "json": read_json, "parquet": _read_parquet}
    reader = readers[table.form.kind or "delimited"]
    with failures_of(table.file):
        yield from reader(table, columns, types, unreadable)


def _kind_of(file: LogFile) -> str | None:
    with failures_of(file), open_bytes(file) as raw:
        head = raw.read(HEAD)
    if head.startswith(PARQUET):
        return "parquet"
    # What is compressed as a whole is looked at when it is unpacked.
    refuse_foreign(file, head)
    stem = stored_as(file)
    if stem.endswith((".jsonl", ".ndjson")):
        return "json"
    if stem.endswith(".parquet"):
        raise DataSetError(f"{name_of(file)} is not Parquet: it does not begin with PAR1", "events")
    return "delimited" if stem.endswith((".csv", ".tsv", ".tab", ".psv")) else None


def _open_parquet(file: LogFile, form: TableFormat) -> OpenTable:
    with failures_of(file), open_bytes(file) as raw, pq.ParquetFile(raw) as parquet:
        if not parquet.metadata.num_rows:
            raise DataSetError(f"{name_of(file)} has no rows", "events")
        first = next(parquet.iter_batches(batch_size=SAMPLE_ROWS))
        sample = flattened(pa.Table.from_batches([first]))
        names = tuple(flat_names(parquet.schema_arrow))
    return OpenTable(file, msgspec.structs.replace(form, kind="parquet"), names, sample)


def _read_parquet(
    table: OpenTable,
    columns: Sequence[str],
    types: Mapping[str, "pa.DataType"],  # noqa: ARG001 - Parquet says what is a number
    unreadable: Unreadable,  # noqa: ARG001 - a row of Parquet is one
) -> Iterator[RawRows]:
    name, row = name_of(table.file), 1
    with open_bytes(table.file) as raw, pq.ParquetFile(raw) as parquet:
        for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
            # Nobody else has looked whether texts are UTF-8.
            batch.validate(full=True)
            yield RawRows(name, row, picked(batch, columns))
            row += batch.num_rows
