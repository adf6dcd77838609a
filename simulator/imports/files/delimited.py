"""Delimited text: its separator and header found out, its rows read by pyarrow, chunk by chunk."""

import csv
import io
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
import pyarrow as pa
import pyarrow.csv as pacsv

from bandits.errors import DataSetError, plain
from simulator.imports.columns import looks_like_header
from simulator.imports.files.chunks import SAMPLE, failures_of, name_of, open_text, row_chunks
from simulator.imports.files.parsing import (
    PARSERS,
    SAMPLE_ROWS,
    OpenTable,
    ahead,
    numbered_rows,
)
from simulator.imports.files.quotes import unclosed_at, unclosed_error
from simulator.imports.files.whole_ids import WHOLE_ID, are_plain
from simulator.imports.raw import RawRows, TableFormat, Unreadable
from simulator.logs.files import LogFile

Text = TypeVar("Text", bytes, bytearray)

DOUBLE = "::"
"""The one separator of two characters that published tables have."""
_STAND_IN = "\x1f"
MOST_OF_ROWS = 0.9
"""Share of rows of another width than the first from which the first is what is wrong."""
SEPARATORS = (",", "\t", ";", "|", DOUBLE)


def open_delimited(
    file: LogFile, form: TableFormat, text: bytes, *, lone: bool = False
) -> OpenTable:
    """Find out how delimited text is read.

    Args:
        file: the file.
        form: what is known of it.
        text: its first bytes.
        lone: whether it may have one column alone.

    Raises:
        DataSetError: there is no separator, or no row, or another number of columns than named.
    """
    name = name_of(file)
    with failures_of(file):
        # The sample may end within a character, and within a row.
        lines = text[: text.rfind(b"\n") + 1] or text
        decoded = lines.decode("utf-8")

    if text.startswith((b"sep=", b'"sep=')):
        raise DataSetError(
            f"{name} begins with {_first_line(decoded)!r}: remove that line", "events"
        )
    separator = form.separator or _separator_of(decoded, form, file, lone=lone)
    rows = _parsed(decoded, separator, form.quote)[:SAMPLE_ROWS]
    header = looks_like_header(rows) if form.header is None else form.header
    width = _width_of(rows, header=header)
    body = [row for row in rows[1 if header else 0 :] if len(row) == width]
    if not body or len(text) < SAMPLE // 2:
        _demand_closed(lines, separator, form.quote or "", name, header=header)
    if not body:
        raise _no_rows(rows, name)

    named = tuple(f"column_{i}" for i in range(1, width + 1))
    names = form.names or (tuple(rows[0]) + named[len(rows[0]) :] if header else named)
    if len(names) != width:
        raise DataSetError(
            f"{name} has {width} columns, not the {len(names)} that were named", "events"
        )
    sample = pa.table(
        [pa.array([row[i] for row in body], pa.string()) for i in range(width)],
        names=[*names],
    )
    settled = msgspec.structs.replace(
        form, kind="delimited", separator=separator, header=header, names=names
    )
    return OpenTable(file, settled, names, sample)


def _first_line(text: str) -> str:
    return text.splitlines()[0][:80]


def _width_of(rows: Sequence[Sequence[str]], *, header: bool) -> int:
    """Return how many cells rows have: as many as the first, or one more that is empty in all.

    0: most have another number than the first.
    """
    first = len(rows[0])
    widths = Counter(len(row) for row in rows[1:])
    usual, count = widths.most_common(1)[0] if widths else (first, 0)
    if first in widths and count < MOST_OF_ROWS * widths.total():
        return first

    # Each row ends with a separator, and the header does not.
    if header and usual == first + 1 and not any(row[-1] for row in rows[1:] if len(row) == usual):
        return usual
    return first if usual == first else 0


def _demand_closed(lines: bytes, separator: str, quote: str, name: str, *, header: bool) -> None:
    """Raise DataSetError if a quotation mark in a file's first lines takes up all after it."""
    at = unclosed_at(lines, separator[-1:].encode(), quote.encode())
    if at is not None and (after := lines.rstrip().count(b"\n", at)):
        row = lines.count(b"\n", 0, at) + int(not header)
        raise DataSetError(unclosed_error(name, row, after), "quote")


def _no_rows(rows: Sequence[Sequence[str]], name: str) -> DataSetError:
    """Return the error for a file in which no row has as many cells as the first line."""
    first = len(rows[0])
    if len(rows) == 1:
        return DataSetError(f"{name} has no rows, only a header", "events")

    usual = Counter(len(row) for row in rows[1:]).most_common(1)[0][0]
    begins = ", ".join(repr(cell[:40]) for cell in rows[0][:6])
    return DataSetError(
        f"{name}: the first line has {first} {'cell' if first == 1 else 'cells'} ({begins}), and"
        f" most after it have {usual}: give each column a name there, or remove what stands above"
        " the table",
        "events",
    )


def in_one_character(text: Text, separator: str) -> tuple[Text, str]:
    """Return text whose cells one character separates, and that character.

    Args:
        text: rows.
        separator: a character, or ``::``.
    """
    if separator != DOUBLE:
        return text, separator
    return text.replace(DOUBLE.encode(), _STAND_IN.encode()), _STAND_IN


def _parsed(text: str, separator: str, quote: str | None) -> list[list[str]]:
    if separator == DOUBLE:
        text, separator = text.replace(DOUBLE, _STAND_IN), _STAND_IN
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        quotechar=quote or '"',
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
    )
    rows = []
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    try:
        for row in reader:
            if row:
                rows.append(row)
            if len(rows) > SAMPLE_ROWS:
                break
    except csv.Error:
        pass
    return rows or [[""]]


def _separator_of(text: str, form: TableFormat, file: LogFile, *, lone: bool) -> str:
    """Return the separator by which most rows have as many cells as the first: two or more.

    ``lone``: where there is none, one that stands in no text, so that the file has one column.
    """
    best, found = 0.0, None
    for separator in SEPARATORS:
        widths = [len(row) for row in _parsed(text, separator, form.quote)]
        share = widths.count(widths[0]) / len(widths)
        if widths[0] > 1 and share > best:
            best, found = share, separator

    if found is None:
        # What stands above a table has none of its separators.
        for separator in SEPARATORS:
            rows = _parsed(text, separator, form.quote)
            counts = Counter(len(row) for row in rows[1:])
            most = max(counts, default=0)
            if most > 1 and counts[most] >= MOST_OF_ROWS * counts.total():
                raise _no_rows(rows, name_of(file))

        if lone:
            return _STAND_IN
        raise DataSetError(
            f"{name_of(file)}: no separator is found, the first line is {_first_line(text)!r}: say"
            " it with --separator",
            "separator",
        )
    return found


def read_delimited(
    table: OpenTable,
    columns: Sequence[str],
    types: Mapping[str, "pa.DataType"],
    unreadable: Unreadable,
) -> Iterator[RawRows]:
    """Yield the rows of delimited text; arguments as in ``rows_of_table``."""
    form, name = table.form, name_of(table.file)
    quote = (form.quote or "").encode()

    spare: deque[bytearray] = deque()

    def parse(read: bytearray, skipped: int) -> "tuple[pa.Table, list[tuple[int, str]], int]":
        bad: list[tuple[int, str]] = []
        chunk, delimiter = in_one_character(read, form.separator or ",")
        marks = quote if quote and quote in chunk else b""

        def refuse(row: "pacsv.InvalidRow") -> str:
            said = row.text.replace(delimiter, DOUBLE) if delimiter == _STAND_IN else row.text
            bad.append((row.number - skipped, said))
            return "skip"

        def attempt(kinds: Mapping[str, "pa.DataType"]) -> "pa.Table":
            bad.clear()
            return pacsv.read_csv(
                pa.py_buffer(chunk),
                pacsv.ReadOptions(
                    use_threads=False,
                    block_size=len(chunk) + 1,
                    column_names=list(table.names),
                    skip_rows=skipped,
                ),
                pacsv.ParseOptions(
                    delimiter=delimiter,
                    quote_char=form.quote if marks else False,
                    newlines_in_values=False,
                    invalid_row_handler=refuse,
                ),
                pacsv.ConvertOptions(
                    check_utf8=not chunk.isascii(),
                    include_columns=list(columns),
                    null_values=[""],  # NaN is a value, and one that is counted
                    column_types={column: kinds.get(column, pa.string()) for column in columns},
                ),
            )

        kinds = types
        if WHOLE_ID in types.values() and not are_plain(chunk, delimiter, marks):
            kinds = {column: kind for column, kind in types.items() if kind != WHOLE_ID}
        open_at = unclosed_at(chunk, delimiter.encode(), marks)
        swallowed = 0 if open_at is None else chunk.rstrip().count(b"\n", open_at)
        try:
            parsed = attempt(kinds)
        except pa.ArrowInvalid as error:
            if "UTF8" in str(error):
                raise UnicodeDecodeError("UTF-8", b"", 0, 1, plain(error)) from None
            parsed = attempt({})

        # A table has its own memory.
        spare.append(read)
        return parsed, bad, swallowed

    with open_text(table.file, form.encoding) as text, ThreadPoolExecutor(PARSERS) as pool:
        delimiter = (form.separator or ",")[-1:].encode()
        chunks = row_chunks(text, quote=quote, delimiter=delimiter, spare=spare)
        row = 1
        jobs = (
            (pool.submit(parse, chunk, int(i == 0 and form.header is True)))
            for i, chunk in enumerate(chunks)
        )
        for parsed, bad, swallowed in ahead(jobs, 2 * PARSERS):
            if swallowed:
                last = row + parsed.num_rows + len(bad) - 1
                raise DataSetError(unclosed_error(name, last, swallowed), "quote")
            for number, said in bad:
                unreadable(name, row + number - 1, said)
            # A row after an unreadable one has its number, too.
            yield from numbered_rows(name, row, parsed, [number for number, _ in bad])
            row += parsed.num_rows + len(bad)
