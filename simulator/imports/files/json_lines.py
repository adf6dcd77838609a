"""JSON Lines: read by pyarrow, and object by object where a chunk's lines are not alike."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pyarrow as pa
import pyarrow.json as pajson

from bandits.errors import DataSetError
from simulator.imports.files.chunks import name_of, open_text, row_chunks
from simulator.imports.files.nested import Row, flat_row, flattened
from simulator.imports.files.parsing import (
    PARSERS,
    SAMPLE_ROWS,
    OpenTable,
    ahead,
    numbered_rows,
)
from simulator.imports.raw import RawRows, TableFormat, Unreadable
from simulator.logs.files import LogFile


def open_json(file: LogFile, form: TableFormat, text: bytes) -> OpenTable:
    """Find out what JSON Lines hold.

    Args:
        file: the file.
        form: what is known of it.
        text: its first bytes.

    Raises:
        DataSetError: no line is a JSON object.
    """
    rows: list[Row] = []
    names: dict[str, None] = {}
    lines = text[: text.rfind(b"\n") + 1] or text
    for line in lines.splitlines()[:SAMPLE_ROWS]:
        if (row := _object(line)) is not None:
            rows.append(flat_row(row))
            names.update(dict.fromkeys(rows[-1]))
    if not rows:
        raise DataSetError(
            f"{name_of(file)} is not JSON Lines: its first lines are no JSON objects", "events"
        )
    sample = pa.table({name: _texts([row.get(name) for row in rows]) for name in names})
    return OpenTable(file, msgspec.structs.replace(form, kind="json"), tuple(names), sample)


def _object(line: bytes | bytearray) -> Row | None:
    try:
        row = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    return row if isinstance(row, dict) else None


def _texts(values: Iterable[object]) -> "pa.Array":
    return pa.array(
        [
            value
            if value is None or isinstance(value, str)
            else msgspec.json.encode(value).decode()
            for value in values
        ],
        pa.string(),
    )


def read_json(
    table: OpenTable,
    columns: Sequence[str],
    types: Mapping[str, "pa.DataType"],
    unreadable: Unreadable,
) -> Iterator[RawRows]:
    """Yield the rows of JSON Lines; arguments as in ``rows_of_table``."""
    name, row = name_of(table.file), 1
    with open_text(table.file, table.form.encoding) as text, ThreadPoolExecutor(PARSERS) as pool:
        chunks = row_chunks(text)
        jobs = (pool.submit(_parse_json, chunk, columns, types) for chunk in chunks)
        for parsed, bad in ahead(jobs, 2 * PARSERS):
            for number, said in bad:
                unreadable(name, row + number - 1, said)
            yield from numbered_rows(name, row, parsed, [number for number, _ in bad])
            row += parsed.num_rows + len(bad)


def _parse_json(
    chunk: bytearray, columns: Sequence[str], types: Mapping[str, "pa.DataType"]
) -> "tuple[pa.Table, list[tuple[int, str]]]":
    """Return some lines as a table; one by one where they are not alike."""
    try:
        parsed = pajson.read_json(
            pa.BufferReader(chunk),
            pajson.ReadOptions(use_threads=False, block_size=len(chunk) + 1),
            pajson.ParseOptions(newlines_in_values=False),
        )
        if not set(columns) <= set(parsed.column_names):
            parsed = flattened(parsed)
        parsed = parsed.select(columns)
        # Text that looks like a time is one for pyarrow, also if it is an id.
        if not any(
            pa.types.is_nested(field.type)
            or (pa.types.is_timestamp(field.type) and field.name not in types)
            for field in parsed.schema
        ):
            return parsed, []
    except (pa.ArrowInvalid, KeyError):
        pass

    rows, bad = parse_objects(chunk)
    return pa.table({name: _texts(row.get(name) for row in rows) for name in columns}), bad


def parse_objects(chunk: bytearray) -> tuple[list[Row], list[tuple[int, str]]]:
    """Return the JSON objects of some lines, and the number and text of each line that is none.

    The fields of objects in them are their own, as in ``flat_row``.
    """
    rows, bad, number = [], [], 0
    for line in chunk.split(b"\n"):
        if not line.strip():
            continue
        number += 1
        row = _object(line)
        if row is None:
            bad.append((number, line[:200].decode("utf-8", "replace")))
        else:
            rows.append(flat_row(row))
    return rows, bad
