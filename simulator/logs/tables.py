"""Tables as text, as pandas, Excel and others write them: their columns, and what a cell is.

The column says what a cell is: its kind is declared, or decided from all of the column's cells,
never from one of them. So two texts never become one number behind the reader's back: ``02139`` and
``2139`` stay two things.
"""

import codecs
import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from bandits.errors import ReplayError
from bandits.types import Float64
from simulator.logs.files import LogFile, open_bytes

CellKind = Literal["number", "text"]
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
"""Matches the cells that are read as a number where one is asked for."""
PLAIN = r"^\s*-?((0|[1-9]\d{0,14})(\.\d+)?|\d(\.\d+)?[eE](-\d{1,3}|\+\d{1,2}))\s*$"
"""Matches a number as programs write it.

It has no zeros or plus in front, no more digits than a float64 tells apart, and an exponent with
its sign (``1e5`` is more often an id).
"""
MISSING = ("", "nan", "NaN", "NA", "N/A", "#N/A", "<NA>", "null", "NULL", "None")
"""The cells that stand for no value where a number or an id is asked for."""
DELIMITERS = (",", ";", "\t")
_MARKS = {
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    b"\x1f\x8b": "compressed",
    b"PK\x03\x04": "a workbook",
}
_MAX_CELL_CHARS = 40


class TableHeader(NamedTuple):
    """A table's columns, and what separates its cells."""

    names: list[str]
    delimiter: str


def read_header(
    path: LogFile, wanted: Iterable[str], *, delimiter: str | None = None, target: str = "log"
) -> TableHeader:
    """Read the first line of a table.

    Args:
        path: The file.
        wanted: Columns that the table must have.
        delimiter: What separates cells; None: the one of DELIMITERS under which the most of the
            wanted columns are there.
        target: The option that names the file, for errors.

    Raises:
        ReplayError: The file cannot be read, lacks a column, or has two of one name.
    """
    try:
        with _open_text(path) as file:
            line = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise ReplayError(f"{path} is no readable CSV file, in UTF-8: {error}", target) from error

    wanted = list(wanted)
    candidates = DELIMITERS if delimiter is None else (delimiter,)
    headers = [
        TableHeader(next(csv.reader([line], delimiter=mark), []), mark) for mark in candidates
    ]
    header = max(headers, key=lambda header: len(set(wanted).intersection(header.names)))

    for name in wanted:
        if name not in header.names:
            listed = ", ".join(header.names) or "nothing"
            raise ReplayError(f"{path}: the header has no column {name!r}, but {listed}", "columns")
    twice = [name for name, count in Counter(header.names).items() if name and count > 1]
    if twice:
        raise ReplayError(f"{path} has two columns called {twice[0]!r}: rename one", "columns")
    return header


@contextmanager
def _open_text(path: LogFile) -> Iterator[TextIO]:
    with open_bytes(path) as opened:
        start = opened.read(4)
        for mark, what in _MARKS.items():
            if start.startswith(mark):
                raise ReplayError(
                    f"{path} is {what}, and a CSV is read as plain UTF-8: save it so", "log"
                )

        opened.seek(0)
        with io.TextIOWrapper(opened, "utf-8-sig", newline="") as file:
            yield file


def read_rows(
    path: LogFile, wanted: Iterable[str], target: str
) -> tuple[TableHeader, list[tuple[int, list[str]]]]:
    """Read a small table whole: its header, and each row's line number and cells.

    Empty lines are no rows.

    Args:
        path: The file.
        wanted: Columns that the table must have.
        target: The option that names the file, for errors.

    Raises:
        ReplayError: See ``read_header``; or a row is not as wide as the header.
    """
    header = read_header(path, wanted, target=target)
    rows = []
    try:
        with _open_text(path) as file:
            reader = csv.reader(file, delimiter=header.delimiter, strict=True)
            next(reader)
            for cells in reader:
                if cells and len(cells) != len(header.names):
                    where = f"{path}:{reader.line_num}"
                    raise ReplayError(
                        f"{where}: {len(header.names)} cells, not {len(cells)}", target
                    )
                if cells:
                    rows.append((reader.line_num, cells))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReplayError(f"{path} is no readable CSV file, in UTF-8: {error}", target) from error
    return header, rows


def number_of(text: str) -> float:
    """Return a cell as a number where one is asked for; NaN if it is none."""
    try:
        value = math.nan if "_" in text else float(text)  # Python's 1_000 is no number elsewhere
    except ValueError:
        value = math.nan
    return value if math.isfinite(value) else math.nan


def numbers_of(cells: Any, decimal: str = ".") -> Any:
    """Return cells as numbers, Arrow's float64[n], null where a cell is no finite number.

    Args:
        cells: Arrow's string[n]; True and False are 1 and 0.
        decimal: The decimal point.
    """
    if decimal != ".":
        point = pc.match_substring(cells, ".")
        cells = pc.if_else(point, "", pc.replace_substring(cells, decimal, "."))

    # Most columns have numbers only. Where one does not, look for truth values; the rest is null.
    matches = pc.match_substring_regex(cells, NUMBER)
    if not pc.all(matches).as_py():
        for word, number in ("true", "1"), ("false", "0"):
            cells = pc.if_else(
                pc.match_substring_regex(cells, rf"^\s*{word}\s*$", ignore_case=True), number, cells
            )
        cells = pc.if_else(pc.match_substring_regex(cells, NUMBER), cells, None)

    values = pc.cast(pc.utf8_trim_whitespace(cells), pa.float64())
    finite = pc.is_finite(values)
    return values if pc.all(finite, skip_nulls=False).as_py() else pc.if_else(finite, values, None)


def is_missing(cells: Any) -> Any:
    """Return bool[n]: which cells stand for no value."""
    return pc.is_in(pc.utf8_trim_whitespace(cells), pa.array(MISSING))


@dataclass(slots=True)
class ColumnEvidence:
    """The evidence of a column's cells for its kind.

    A monoid: the answer does not depend on how the column was cut.

    A column is of numbers if every cell that has a value is PLAIN and no two texts that differ are
    the same number. That follows from how many decimals they have: the fewest of any cell are at
    least the most of any that ends in a zero, as in 1.50 and 2.25, in 1 and 2.25, in 1.0 and 2.25,
    but not in 1.1 and 1.10.

    Attributes:
        numbers: How many different plain numbers were looked at.
        fewest: The fewest decimals of any number.
        zeros: The most decimals of any number that ends in a zero.
        other: A cell that is no plain number.
        ends_in_zero: The number whose decimals are ``zeros``.
    """

    numbers: int = 0
    fewest: int = 1 << 30
    zeros: int = 0
    other: str | None = None
    ends_in_zero: str | None = None

    def add(self, cells: Any, decimal: str = ".") -> None:
        """Look at some cells.

        Args:
            cells: Arrow's string[n].
            decimal: The decimal point.
        """
        cells = pc.unique(cells)
        cells = cells.filter(pc.invert(is_missing(cells)))

        # With a decimal comma, a cell with a point in it is no number.
        if decimal != ".":
            point = pc.match_substring(cells, ".")
            cells = pc.if_else(point, cells, pc.replace_substring(cells, decimal, "."))
            plain = pc.and_not(pc.match_substring_regex(cells, PLAIN), point)
        else:
            plain = pc.match_substring_regex(cells, PLAIN)

        other = cells.filter(pc.invert(plain))
        if len(other) and self.other is None:
            self.other = other[0].as_py()
        cells = cells.filter(plain)
        if not len(cells):
            return

        self.numbers += len(cells)
        mantissas = pc.replace_substring_regex(pc.utf8_trim_whitespace(cells), r"[eE].*$", "")
        decimals = pc.utf8_length(pc.replace_substring_regex(mantissas, r"^[^.]*\.?", ""))
        self.fewest = min(self.fewest, pc.min(decimals).as_py())

        zero = pc.match_substring_regex(mantissas, r"\.\d*0$")
        most = pc.max(decimals.filter(zero)).as_py() or 0
        if most > self.zeros:
            at = pc.index(pc.and_(zero, pc.equal(decimals, most)), True).as_py()
            self.zeros, self.ends_in_zero = most, cells[at].as_py()

    def merge(self, other: "ColumnEvidence") -> None:
        """Add what cells further on say."""
        self.numbers += other.numbers
        self.fewest = min(self.fewest, other.fewest)
        if other.zeros > self.zeros:
            self.zeros, self.ends_in_zero = other.zeros, other.ends_in_zero
        self.other = self.other if self.other is not None else other.other

    @property
    def kind(self) -> CellKind:
        """The kind of the whole column."""
        distinct = self.fewest >= self.zeros
        return "number" if self.numbers and self.other is None and distinct else "text"

    @property
    def note(self) -> str:
        """The kind, and why a column that holds numbers is none of numbers."""
        if self.kind == "number" or not self.numbers:
            return self.kind
        if self.other is not None:
            return f"text, since it holds {self.other[:_MAX_CELL_CHARS]!r}"
        shown = (self.ends_in_zero or "")[:_MAX_CELL_CHARS]
        return f"text, since it holds {shown!r} beside numbers of fewer decimals"


def column_features(cells: Any, kind: CellKind, decimal: str = ".") -> list[float | str | None]:
    """Return a column's cells as features; None where there is no value.

    Args:
        cells: Arrow's string[n].
        kind: The kind of the column.
        decimal: The decimal point.
    """
    values = (
        numbers_of(cells, decimal)
        if kind == "number"
        else pc.if_else(pc.equal(cells, ""), None, cells)
    )
    features: list[float | str | None] = values.to_pylist()
    return features


def floats_of(values: Any) -> Float64:
    """Return Arrow's float64[n] as NumPy's, NaN for null."""
    array: Float64 = values.to_numpy(zero_copy_only=False)
    return array
