"""Logs as CSV, by a mapping of columns: tables of numbers, or decisions with their actions."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from bandits.errors import BadRowError, ReplayError
from bandits.features.hashing import UInt64, splitmix64
from bandits.types import Float64
from bandits.values import MAX_NUMBER
from simulator.logs.csv_columns import CsvColumns, features_in, places_in, places_of
from simulator.logs.files import LogFile, open_bytes
from simulator.logs.left_out import BAD, LeftOut
from simulator.logs.rows import LogBatch, LoggedDecision, key_of
from simulator.logs.tables import (
    CellKind,
    ColumnEvidence,
    column_features,
    floats_of,
    is_missing,
    numbers_of,
    read_header,
)
from simulator.logs.text_records import PIECE_BYTES, Span, count_newlines, cut_into_spans

BLOCK_BYTES = 4 << 20
MAX_CELL_CHARS = 40
"""Characters of a faulty cell that its error quotes."""
MAX_SLOT = 10_000
"""A larger number is none of a page's slots."""
FEATURES_FAULT = (
    "is no JSON list of the actions' features, an object each, nor an object of such objects by"
    " action id"
)


class _Range(io.RawIOBase):
    """The bytes of a span, to read once; it counts the lines that were read."""

    def __init__(self, span: Span) -> None:
        self._file = open_bytes(span.path)
        self._file.seek(span.start)
        self._left = None if span.stop is None else span.stop - span.start
        self._ends, self._last = 0, b"\n"

    def readable(self) -> bool:
        """Return True: this is a stream to read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read at most so many bytes, and never beyond the span."""
        if self._left is not None:
            size = self._left if size < 0 else min(size, self._left)

        data = self._file.read(size)
        if self._left is not None:
            self._left -= len(data)

        self._ends += data.count(b"\n")
        self._last = data[-1:] or self._last
        return data

    @property
    def lines(self) -> int:
        """How many lines were read so far; the last one may have no end."""
        return self._ends + (self._last != b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class _CsvBlock(NamedTuple):
    """n rows of the file.

    Attributes:
        cells: Arrow's record batch of strings.
        lines: int64[n], the rows' line numbers.
        values: float64[n] by column of numbers.
        good: bool[n], which rows can be used.
        places: By row, the place of each of its actions; None where two actions are the same.
            Empty if the log has no actions.
    """

    cells: Any
    lines: NDArray[np.int64]
    values: dict[str, Float64]
    good: NDArray[np.bool_]
    places: Sequence[Mapping[str, int] | None]


@dataclass(slots=True, eq=False)
class CsvPiece:
    """A part of a CSV file; see Piece.

    Attributes:
        first: The line it starts with, from 1, not counting the header.
        header: The names of the file's columns.
        kinds: Number or text by column of the context; ``with_column_kinds`` decides those that
            were not declared.
        column_notes: How each column of the context is read, and why.
        extra: Further columns of numbers to hand on.
    """

    span: Span
    first: int
    header: Sequence[str]
    columns: CsvColumns
    delimiter: str = ","
    kinds: Mapping[str, CellKind] = field(default_factory=dict)
    column_notes: Mapping[str, str] = field(default_factory=dict)
    extra: Sequence[str] = ()
    skip_bad: bool = False
    left_out: LeftOut = field(default_factory=LeftOut, init=False)
    _width_error: BadRowError | None = field(default=None, init=False)
    _wrong_lines: set[int] = field(default_factory=set, init=False)

    @property
    def skipped(self) -> int:
        """Bad rows left out so far."""
        return self.left_out.skipped

    def batches(self) -> Iterator[LogBatch]:
        """Yield a batch per block of the file; see Piece."""
        for block in self._blocks():
            keep = np.flatnonzero(block.good)
            if keep.size:
                yield self._batch(block, keep)

    def evidence(self) -> dict[str, ColumnEvidence]:
        """Return what the good rows say of the columns whose kind is not declared."""
        undeclared = [name for name in self.columns.context if name not in self.columns.kinds]
        evidence = {name: ColumnEvidence() for name in undeclared}

        # Bad rows are passed over here: they are refused when the log is read for its rows.
        for block in replace(self, skip_bad=True)._blocks():  # noqa: SLF001 - of the same class
            good = pa.array(block.good)
            for name, column in evidence.items():
                column.add(block.cells.column(name).filter(good), self.columns.decimal)
        return evidence

    def _blocks(self) -> Iterator[_CsvBlock]:
        """Read the file block by block, and check its rows."""
        self.left_out, self._wrong_lines = LeftOut(), set()
        numbers = list(dict.fromkeys([*self.columns.numbers, *self.extra]))
        wanted = list(dict.fromkeys([*numbers, *self.columns.texts]))
        header = 1 if self.span.start == 0 else 0
        line, data = self.first + header, _Range(self.span)

        try:
            with self._open(data, wanted, skip_rows=header) as reader:
                for cells in reader:
                    lines = self._lines(line, len(cells))
                    yield self._checked(cells, numbers, lines)
                    line = int(lines[-1]) + 1 if len(lines) else line
        except pa.ArrowInvalid as error:
            fallback = BadRowError(f"{self.span.path}, from line {self.first}: {error}", "columns")
            raise self._width_error or fallback from error

        # A cell with a line break makes fewer rows than there are lines.
        if data.lines > max([line, *(wrong + 1 for wrong in self._wrong_lines)]) - self.first:
            raise BadRowError(
                f"{self.span.path}: a cell holds a line break, which is not read here", "columns"
            )

    def _open(self, data: _Range, wanted: list[str], *, skip_rows: int) -> Any:
        """Return Arrow's reader of the wanted columns, all of them as strings."""
        return pyarrow.csv.open_csv(
            pa.PythonFile(data, mode="r"),
            pyarrow.csv.ReadOptions(
                use_threads=False,
                block_size=BLOCK_BYTES,
                column_names=self.header,
                skip_rows=skip_rows,
            ),
            pyarrow.csv.ParseOptions(
                delimiter=self.delimiter,
                ignore_empty_lines=False,
                invalid_row_handler=self._wrong_width,
            ),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()),
                include_columns=wanted,
                strings_can_be_null=False,
            ),
        )

    def _lines(self, first: int, count: int) -> NDArray[np.int64]:
        """Return int64[count]: the numbers of the lines from ``first`` on that are wide enough."""
        numbers = np.arange(first, first + count + len(self._wrong_lines))
        return numbers[~np.isin(numbers, list(self._wrong_lines))][:count]

    def _wrong_width(self, row: Any) -> str:
        """Tell Arrow what to do with a row of the wrong width."""
        line = self.first - 1 + row.number
        columns = f"{row.expected_columns} columns, not {row.actual_columns}"
        message = f"{self.span.path}, line {line}: {columns}"

        # Arrow's own error would not name the line.
        if not self.skip_bad:
            self._width_error = BadRowError(message, "columns")
            return "error"

        self.left_out.add(BAD, message)
        self._wrong_lines.add(line)
        return "skip"

    def _checked(self, cells: Any, numbers: Sequence[str], lines: NDArray[np.int64]) -> _CsvBlock:
        """Return the rows, with which of them can be used; the first bad one is named."""
        bad = np.zeros(len(cells), bool)
        values = {
            name: floats_of(numbers_of(cells.column(name), self.columns.decimal))
            for name in numbers
        }
        places, first = self._places(cells), (len(cells), "")

        # A row counts once, by the first fault that it has.
        for faulty, name, what in self._faults(cells, values, places):
            wrong = faulty & ~bad
            if not wrong.any():
                continue

            at = int(wrong.argmax())
            cell = str(cells.column(name)[at])[:MAX_CELL_CHARS]
            is_action = name == self.columns.action
            fault = f"{cell!r} {what}" if is_action else f"{name} {what}: {cell!r}"
            message = f"{self.span.path}, line {lines[at]}: {fault}"
            if not self.skip_bad:
                raise BadRowError(message, name)
            first = min(first, (at, message))
            bad |= wrong

        if bad.any():
            self.left_out.merge(LeftOut(Counter({BAD: int(bad.sum())}), first[1]))
        return _CsvBlock(cells, lines, values, ~bad, places)

    def _faults(
        self, cells: Any, values: Mapping[str, Float64], places: Sequence[Mapping[str, int] | None]
    ) -> Iterator[tuple[NDArray[np.bool_], str, str]]:
        """Yield what may be wrong with a row: in which rows it is (bool[n]), which column, what."""
        columns = self.columns

        # Needed numbers: an empty cell is a fault, too.
        point = "" if columns.decimal == "," else "; with decimal: ',' a comma is the decimal point"
        for name, column in values.items():
            wrong = np.isnan(column)
            comma = wrong.any() and "," in str(cells.column(name)[int(wrong.argmax())])
            yield wrong, name, f"is no number{point if comma else ''}"

        propensity, reward = values[columns.propensity], values[columns.reward]
        yield (
            ~((propensity > 0.0) & (propensity <= 1.0)),
            columns.propensity,
            "is no propensity, in (0, 1]",
        )
        yield (
            ~(np.abs(reward) <= MAX_NUMBER),
            columns.reward,
            f"is no reward, a number up to {MAX_NUMBER:g}",
        )

        if columns.slot is not None:
            slots = values[columns.slot]
            yield (
                ~((slots >= 0.0) & (slots <= MAX_SLOT) & (slots == np.floor(slots))),
                columns.slot,
                f"is no slot, a whole number from 0 to {MAX_SLOT:,}",
            )

        # Declared numbers of the context: an empty cell is no feature, and no fault.
        for name in (name for name, kind in columns.kinds.items() if kind == "number"):
            number = ~np.isnan(floats_of(numbers_of(cells.column(name), columns.decimal)))
            yield (
                ~(number | np.asarray(is_missing(cells.column(name)))),
                name,
                "is declared a number, and is none",
            )

        if columns.action is not None:
            chosen = zip(cells.column(columns.action).to_pylist(), places, strict=True)
            wrong = np.fromiter((cell not in (of or ()) for cell, of in chosen), bool, len(cells))
            yield wrong, columns.action, "is not one of the row's distinct actions"
        if columns.features is not None and places:
            texts = zip(cells.column(columns.features).to_pylist(), places, strict=True)
            wrong = np.fromiter(
                (features_in(text, tuple(of or ())) is None for text, of in texts), bool, len(cells)
            )
            yield wrong, columns.features, FEATURES_FAULT

    def _places(self, cells: Any) -> Sequence[Mapping[str, int] | None]:
        if self.columns.action is None:
            return ()
        if self.columns.actions is None:
            return [places_of(tuple(self.columns.action_ids))] * len(cells)
        return [places_in(text) for text in cells.column(self.columns.actions).to_pylist()]

    def _batch(self, block: _CsvBlock, keep: NDArray[np.intp]) -> LogBatch:
        names, keys = self._events(block)
        times = self.columns.time
        return LogBatch(
            keys=keys[keep],
            times_ms=(
                block.values[times][keep].astype(np.int64)
                if times
                else np.zeros(keep.size, np.int64)
            ),
            reward=block.values[self.columns.reward][keep],
            propensity=block.values[self.columns.propensity][keep],
            decisions=[] if self.columns.action is None else self._decisions(block, keep, names),
            columns={name: block.values[name][keep] for name in self.extra},
        )

    def _events(self, block: _CsvBlock) -> tuple[Sequence[str | None], UInt64]:
        """Return the rows' event ids, and their keys.

        Where a row has no event id, the id is None and the key is of the row's place in the log.
        """
        file = np.uint64(key_of(self.span.name))
        keys: UInt64 = splitmix64(block.lines.astype(np.uint64) ^ file)
        if self.columns.event_id is None:
            return [None] * len(block.lines), keys

        column = block.cells.column(self.columns.event_id)
        names: list[str | None] = pc.if_else(is_missing(column), None, column).to_pylist()
        for at, name in enumerate(names):
            if name is not None:
                keys[at] = key_of(name)
        return names, keys

    def _decisions(
        self, block: _CsvBlock, keep: NDArray[np.intp], names: Sequence[str | None]
    ) -> Sequence[LoggedDecision]:
        """Return the good rows as decisions."""
        columns, cells = self.columns, block.cells
        chosen = cells.column(columns.action).to_pylist()
        texts = None if columns.features is None else cells.column(columns.features).to_pylist()
        context = {
            name: column_features(cells.column(name), self.kinds.get(name, "text"), columns.decimal)
            for name in columns.context
        }

        # Kept rows have all their cells checked, so nothing can be missing here.
        rows: list[LoggedDecision] = []
        for at in keep.tolist():
            places = block.places[at] or {}
            ids = tuple(places)
            name = names[at]

            rows.append(
                LoggedDecision(
                    event_id=f"{self.span.name}:{block.lines[at]}" if name is None else name,
                    context={
                        name: value
                        for name, column in context.items()
                        if (value := column[at]) is not None
                    },
                    action_ids=ids,
                    chosen=places[chosen[at]],
                    propensity=float(block.values[columns.propensity][at]),
                    reward=float(block.values[columns.reward][at]),
                    features=None if texts is None else features_in(texts[at], ids),
                    slot=0 if columns.slot is None else int(block.values[columns.slot][at]),
                )
            )
        return rows


def csv_pieces(
    path: LogFile,
    columns: CsvColumns,
    *,
    extra: Sequence[str] = (),
    piece_bytes: int = PIECE_BYTES,
    skip_bad: bool = False,
) -> list[CsvPiece]:
    """Return the pieces of a CSV file with a header, whose cells hold no line breaks.

    ``with_column_kinds`` then decides the kinds of columns that are not declared.

    Args:
        path: The file.
        columns: Which column is what.
        extra: Further columns of numbers to hand on.
        piece_bytes: Size of a piece, about.
        skip_bad: Whether bad rows are counted and left out, rather than an error.

    Raises:
        ReplayError: The file cannot be read, lacks a column, or has two of one name.
    """
    if columns.action is not None and columns.actions is None and not columns.action_ids:
        raise ReplayError(
            "name the column of all actions, or list their ids: a choice is one among others",
            "columns",
        )

    wanted = (*columns.numbers, *columns.texts, *extra)
    header, delimiter = read_header(path, wanted, delimiter=columns.delimiter)

    pieces, line = [], 1
    for span in cut_into_spans(path, piece_bytes=piece_bytes):
        pieces.append(
            CsvPiece(span, line, header, columns, delimiter, columns.kinds, {}, extra, skip_bad)
        )
        line += 0 if span.stop is None else count_newlines(path, span.start, span.stop)
    return pieces


def with_column_kinds(pieces: Sequence[CsvPiece]) -> list[CsvPiece]:
    """Return the pieces of a log with the kind of every column of the context.

    A kind is of the whole log, which is read once if there is a column whose kind is not declared.

    Raises:
        BadRowError: The log cannot be read.
    """
    columns = pieces[0].columns if pieces else CsvColumns()
    declared: dict[str, CellKind] = dict(columns.kinds)
    evidence = {name: ColumnEvidence() for name in columns.context if name not in declared}
    for piece in pieces if evidence else ():
        for name, part in piece.evidence().items():
            evidence[name].merge(part)

    kinds = declared | {name: column.kind for name, column in evidence.items()}
    notes = {name: f"{kind}, as declared" for name, kind in declared.items()}
    notes |= {name: column.note for name, column in evidence.items()}
    return [replace(piece, kinds=kinds, column_notes=notes) for piece in pieces]
