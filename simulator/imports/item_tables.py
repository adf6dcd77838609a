"""Tables of items and users: read whole, with the kind of each column found out."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from bandits.errors import DataSetError
from policies.data.items import FROM, UNTIL, column_kind, only_finite
from simulator.imports.columns import (
    ITEM_COLUMNS,
    USER_COLUMNS,
    GivenColumn,
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
from simulator.imports.raw import TableFormat
from simulator.imports.times import read_times, recognise_times, time_reading
from simulator.logs.files import LogFile, open_bytes

OPTIONS = {"items": "--item-columns", "users": "--user-columns"}
"""The options that say which column is what."""
BLANK = ["", "nan", "null", "none"]
MOST_COLUMNS = 1000
"""Columns of JSON Lines beyond which those that are fields of objects are left out."""
BAR = "|"
BARRED = 0.1
"""A column of text is lists where so large a share of its values has a bar in it."""
ROW_NUMBERS = re.compile(r"\s*|Unnamed: \d+")
"""Names of columns that programs write in front of a table, to number its rows."""
_DECIMAL_COMMA = r"^\s*-?\d+(\.\d{3})*,\d+\s*$"
_JSON_LIST = re.compile(r"^\s*\[.*\]\s*$", re.DOTALL)


@dataclass(slots=True)
class ReadItems:
    """A table of items or users.

    ``left_out``: how many rows or values were left out, by reason. ``notes``: what was found out.
    """

    table: "pa.Table"
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_items(
    files: Sequence[LogFile],
    form: TableFormat,
    what: str = "items",
    columns: Mapping[str, GivenColumn] | None = None,
) -> ReadItems:
    """Return the items, or users, of some files: a column ``id`` and all others.

    Args:
        files: tables of the same columns.
        form: how they are read, as far as that is known.
        what: ``items`` or ``users``.
        columns: those that are known, and the ``time_unit`` of times.

    Raises:
        DataSetError: a file cannot be read, or has no column that is the id.
    """
    is_items = what == "items"
    wanted, key = (ITEM_COLUMNS, "item") if is_items else (USER_COLUMNS, "user")
    given, option = dict(columns or {}), OPTIONS[what]
    unit = given.pop("time_unit", None)
    tables, notes = [], []
    for file in files:
        opened_table = open_table(file, form)
        names = list(opened_table.names)
        found = recognise_columns(names, name_of(file), wanted=wanted, given=given, option=option)
        notes.append(f"{name_of(file)}: the id is {found[key]!r}")
        table = _whole(opened_table, found[key])
        for role in (FROM, UNTIL):
            if role in found:
                table = _with_times(table, found[role], role, file, unit)
        tables.append(table.rename_columns(_renamed(table.column_names, found[key])))

    read = ReadItems(_without_parts(_concatenated(tables, what)), notes=notes)
    _clean_ids(read, what)
    _note_times(read, what)
    for name in read.table.column_names:
        if name != "id":
            _clean_column(read, name, what)
    return read


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


def _with_times(
    table: "pa.Table", column: str, role: str, file: LogFile, unit: GivenColumn
) -> "pa.Table":
    values = table[column].combine_chunks()
    texts = values.cast(pa.string()).drop_null()
    blank = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(texts)), pa.array(BLANK))
    said = texts.filter(pc.invert(blank))

    # Most items may be offered at all times, and maybe all of them.
    if not len(said):
        return table.drop_columns([column])
    if unit is not None:
        reading = time_reading(str(unit))
    else:
        try:
            reading = recognise_times(said.slice(0, 1000), column, name_of(file))
        except DataSetError as error:
            # What it says to write is of events.
            own = error.message.replace("{time: null}", f"{{{role}: null}}")
            raise DataSetError(own.replace("--columns", OPTIONS["items"]), error.target) from None
    at = table.column_names.index(column)
    return table.set_column(at, role, read_times(values, reading.unit))


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
    if not read.table.num_rows:
        raise DataSetError(f"the table of {what} has no row with an id", what)


def _clean_column(read: ReadItems, name: str, what: str) -> None:
    """Turn one column into what a data set keeps, or leave it out, and say so."""
    at, column = read.table.column_names.index(name), read.table[name]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        # An empty cell is no category of its own.
        column = column.cast(pa.string())
        is_blank = pc.equal(pc.utf8_trim_whitespace(column), "")
        column = pc.if_else(is_blank, pa.scalar(None, pa.string()), column)
    if column.null_count == len(column) or ROW_NUMBERS.fullmatch(name):
        why = "is empty" if column.null_count == len(column) else "has no name of its own"
        read.table = read.table.remove_column(at)
        read.notes.append(f"{what}: column {name!r} {why}, and left out")
        return

    if pa.types.is_string(column.type):
        if pc.all(pc.match_substring_regex(column, _DECIMAL_COMMA)).as_py():
            read.notes.append(
                f"{what}: column {name!r} is text: numbers have a point, as in 4.50, not a comma"
            )
        column, note = _lists(column)
        if note:
            read.notes.append(f"{what}: column {name!r}: {note}")
    if column_kind(column) is None:
        read.table = read.table.remove_column(at)
        read.notes.append(f"{what}: column {name!r} is {column.type}, and left out")
        return

    column, lost = only_finite(column)
    if lost:
        read.left_out[f"{what}: values of {name} that are NaN or infinite"] = lost
    read.table = read.table.set_column(at, name, column)
    if column_kind(column) == "vector":
        _note_lengths(read, name, what)


def _note_lengths(read: ReadItems, name: str, what: str) -> None:
    """Say which vectors cannot be compared with most, since they have another length."""
    lengths = pc.list_value_length(read.table[name])
    counts = {
        each["values"].as_py(): each["counts"].as_py()
        for each in pc.value_counts(lengths)
        if each["values"].as_py()
    }
    if len(counts) < 2:
        return
    usual = min(counts, key=lambda length: (-counts[length], length))
    others = pc.and_(pc.not_equal(lengths, usual), pc.greater(lengths, 0))
    such = read.table["id"].filter(others)
    read.notes.append(
        f"{what}: column {name!r}: {counts[usual]:,} vectors have {usual} numbers;"
        f" {len(such):,} have another length, such as that of {such[0].as_py()!r}, and are compared"
        " with nothing"
    )


def _lists(column: "pa.ChunkedArray") -> "tuple[pa.ChunkedArray, str | None]":
    """Return a column of texts as lists, if that is what they are, and what says so."""
    filled = column.drop_null()
    if not len(filled):
        return column, None

    # Where others have a list, an empty cell is none.
    said = filled.filter(pc.not_equal(pc.utf8_trim_whitespace(filled), ""))
    looks = pc.match_substring_regex(said, r"^\s*\[[\s\S]*\]\s*$")
    if len(said) and pc.all(looks).as_py():
        lists = []
        for text in column.to_pylist():
            try:
                lists.append(msgspec.json.decode(text) if text and text.strip() else None)
            except msgspec.DecodeError:
                return column, None
        try:
            return pa.chunked_array([pa.array(lists)]), "lists, as JSON"
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return column, None

    barred = pc.mean(pc.match_substring(filled, BAR).cast(pa.float64())).as_py()
    if barred >= BARRED:
        parts = pc.split_pattern(column, BAR)
        return parts, f"lists, split at {BAR}"
    return column, None
