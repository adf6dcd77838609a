"""Tables of items and users: read whole, with the kind of each column found out."""

import re
from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from bandits.errors import DataSetError
from policies.data.items import FROM, UNTIL
from simulator.imports.columns import (
    ITEM_COLUMNS,
    USER_COLUMNS,
    GivenColumn,
    GivenColumns,
    column_named,
    recognise_columns,
)
from simulator.imports.files.chunks import failures_of, name_of, open_text, row_chunks
from simulator.imports.files.delimited import in_one_character
from simulator.imports.files.json_lines import parse_objects
from simulator.imports.files.nested import flattened
from simulator.imports.files.parsing import OpenTable
from simulator.imports.files.quotes import unclosed_at, unclosed_error
from simulator.imports.files.tables import open_table
from simulator.imports.id_columns import as_ids
from simulator.imports.item_columns import (
    Places,
    ReadItems,
    clean_column,
    note_texts,
)
from simulator.imports.item_times import times_read
from simulator.imports.raw import TableFormat
from simulator.logs.files import LogFile, open_bytes

OPTIONS = {"items": "--item-columns", "users": "--user-columns"}
"""The options that say which column is what."""
MOST_COLUMNS = 1000
"""Columns of JSON Lines beyond which those that are fields of objects are left out."""


def read_items(
    files: Sequence[LogFile],
    form: TableFormat,
    what: str = "items",
    columns: GivenColumns | None = None,
) -> ReadItems:
    """Return the items, or users, of some files: a column ``id`` and all others.

    Args:
        files: tables of the same columns.
        form: how they are read, as far as that is known.
        what: ``items`` or ``users``.
        columns: those that are known; of items the ``text``, one or several, and the ``time_unit``.

    Raises:
        DataSetError: a file cannot be read, or has no column that is the id.
    """
    is_items = what == "items"
    wanted, key = (ITEM_COLUMNS, "item") if is_items else (USER_COLUMNS, "user")
    told, option = dict(columns or {}), OPTIONS[what]
    said = told.pop("text", None) if is_items else None
    given = {kind: _one(kind, column, option) for kind, column in told.items()}
    unit = given.pop("time_unit", None)
    tables, notes, texts = [], [], set[str]()
    for file in files:
        opened_table = _opened(file, form)
        names = list(opened_table.names)
        try:
            found = recognise_columns(
                names, name_of(file), wanted=wanted, given=given, option=option
            )
        except DataSetError as error:
            raise _with_header(error, opened_table, f"{key}_id") from None
        notes.append(f"{name_of(file)}: the id is {found[key]!r}")
        for column in said if isinstance(said, list) else [said]:
            if (one := _one("text", column, option)) is not None:
                texts.add(column_named(names, one, name_of(file), f"{option} text"))
        table = _whole(opened_table, found[key])
        for role in (FROM, UNTIL):
            if role in found:
                table = times_read(table, found[role], role, name_of(file), unit, option)
        tables.append(table.rename_columns(_renamed(table.column_names, found[key])))

    places = Places.of([name_of(file) for file in files], [table.num_rows for table in tables])
    whole = _concatenated(tables, what)
    read = ReadItems(_without_parts(whole), notes=notes, places=places)
    named = zip(whole.column_names, read.table.column_names, strict=True)
    read.texts = {new for old, new in named if old in texts}
    _clean_ids(read, what)
    _note_times(read, what)
    for name in read.table.column_names:
        if name != "id":
            clean_column(read, name, what)
    note_texts(read, what)
    return read


def _one(kind: str, column: GivenColumn | Sequence[GivenColumn], option: str) -> GivenColumn:
    """Return the one column that is given as of a kind; of texts there may be several."""
    if column is None or isinstance(column, str | int):
        return column
    raise DataSetError(f"{option}: {kind} is one column, not {column!r}", f"columns.{kind}")


def _opened(file: LogFile, form: TableFormat) -> OpenTable:
    """Find out how a file is read: one without a separator has the ids alone.

    The separator that was given is that of events: it comes after the file's own.
    """
    table = open_table(file, msgspec.structs.replace(form, separator=None), lone=True)
    if form.separator and len(table.names) == 1 and form.separator in table.names[0]:
        return open_table(file, form)
    return table


def _with_header(error: DataSetError, table: OpenTable, name: str) -> DataSetError:
    """Return the error; where a file has one column, with what names it.

    Args:
        error: what is wrong with the columns.
        table: the file.
        name: a usual name of ids.
    """
    if len(table.names) > 1:
        return error
    return DataSetError(
        f"{error.message}; if the file is ids alone, write {name} above them, and if it has several"
        " columns, say what separates them with --separator",
        error.target,
    )


def _note_times(read: ReadItems, what: str) -> None:
    """Say which items can never be offered, since their time is over before it begins."""
    if not {FROM, UNTIL} <= set(read.table.column_names):
        return
    contradict = pc.fill_null(pc.less_equal(read.table[UNTIL], read.table[FROM]), fill_value=False)
    never = read.table["id"].filter(contradict)
    if len(never):
        read.notes.append(
            f"{what}: {len(never):,} are never offered, such as {never[0].as_py()!r}: their {UNTIL}"
            f" is not after their {FROM}"
        )


def _renamed(names: Sequence[str], id_column: str) -> list[str]:
    """Return the names of columns where one is the id; another one of that name has another."""
    others = {"id": "id of the row"}
    return ["id" if name == id_column else others.get(name, name) for name in names]


def _whole(table: OpenTable, id_column: str) -> "pa.Table":
    name = name_of(table.file)
    with failures_of(table.file):
        if table.form.kind == "parquet":
            with open_bytes(table.file) as raw:
                return flattened(pq.read_table(raw))
        with open_text(table.file, table.form.encoding) as text:
            if table.form.kind == "json":
                return _objects([*row_chunks(text)], name, id_column)
            data = b"".join(row_chunks(text))
        data, delimiter = in_one_character(data, table.form.separator or ",")
        _demand_closed(data, delimiter.encode(), (table.form.quote or "").encode(), name)

        bad: list[int] = []

        def refuse(row: "pacsv.InvalidRow") -> str:
            bad.append(row.number)
            return "skip"

        read = pacsv.read_csv(
            pa.py_buffer(data),
            pacsv.ReadOptions(
                use_threads=False,
                block_size=len(data) + 1,
                column_names=list(table.names),
                skip_rows=int(table.form.header is True),
            ),
            pacsv.ParseOptions(
                delimiter=delimiter,
                quote_char=table.form.quote or False,
                newlines_in_values=True,
                invalid_row_handler=refuse,
            ),
            pacsv.ConvertOptions(column_types={id_column: pa.string()}, timestamp_parsers=[]),
        )
    if bad:
        raise DataSetError(
            f"{name}: row {bad[0]:,} has another number of cells than the {len(table.names)}"
            " columns: mend it",
            "items",
        )
    return read


def _demand_closed(data: bytes, delimiter: bytes, quote: bytes, name: str) -> None:
    """Raise DataSetError if a quotation mark takes up all the rows that follow."""
    at = unclosed_at(data, delimiter, quote)
    if at is not None and (lines := data.rstrip().count(b"\n", at)):
        raise DataSetError(unclosed_error(name, data.count(b"\n", 0, at), lines), "quote")


def _objects(chunks: Sequence[bytearray], name: str, id_column: str) -> "pa.Table":
    rows, at = [], 0
    for chunk in chunks:
        parsed, bad = parse_objects(chunk)
        if bad:
            raise DataSetError(
                f"{name}: line {at + bad[0][0]:,} is no JSON object: mend it", "items"
            )
        rows += parsed
        at += len(parsed)
    names = [*dict.fromkeys(name for row in rows for name in row)]
    if len(names) > MOST_COLUMNS:
        # Objects whose fields are different in each row would be a column for each field.
        names = [name for name in names if "." not in name or name == id_column]
    return pa.table({column: _values([row.get(column) for row in rows]) for column in names})


def _values(values: list[object]) -> "pa.Array":
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array(
            [
                value
                if value is None or isinstance(value, str)
                else msgspec.json.encode(value).decode()
                for value in values
            ],
            pa.string(),
        )


def _concatenated(tables: "Sequence[pa.Table]", what: str) -> "pa.Table":
    try:
        return pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataSetError(
            f"the files of {what} have columns of one name and several types ({error})", what
        ) from None


def _without_parts(table: "pa.Table") -> "pa.Table":
    """Return items with the names of their features alone, where they are in our own form.

    An item of the service has them in an object ``features``, beside ``metadata`` and ``vectors``.
    """
    names = table.column_names
    plain = [re.sub(r"^(features|metadata|vectors)\.", "", name) for name in names]
    twice = {name for name, count in Counter(plain).items() if count > 1}
    return table.rename_columns(
        [own if short in twice else short for own, short in zip(names, plain, strict=True)]
    )


def _clean_ids(read: ReadItems, what: str) -> None:
    ids = as_ids(read.table["id"].combine_chunks(), "id", f"the table of {what}").cast(pa.string())
    table = read.table.set_column(read.table.column_names.index("id"), "id", ids)

    has_id = np.asarray(pc.fill_null(pc.not_equal(ids, ""), False))
    codes = np.asarray(pc.fill_null(ids, "").dictionary_encode().indices)
    first = np.zeros(len(codes), np.bool_)
    first[np.unique(codes, return_index=True)[1]] = True
    for kept, reason in ((has_id, "without an id"), (first | ~has_id, "of an id that was there")):
        if not kept.all():
            read.left_out[f"{what}: rows {reason}"] = int((~kept).sum())
    read.table = table.filter(pa.array(has_id & first))
    if read.places is not None:
        read.places = read.places.kept(has_id & first)
    if not read.table.num_rows:
        raise DataSetError(f"the table of {what} has no row with an id", what)
