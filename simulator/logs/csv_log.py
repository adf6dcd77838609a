"""Logs as CSV, by a mapping of columns: from a plain table of numbers to decisions with their actions."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from bandits.errors import BadRowError, ReplayError
from bandits.types import Float64
from bandits.values import MAX_NUMBER, Value
from simulator.logs.base import LogBatch, LoggedDecision, key_of, splitmix64
from simulator.logs.files import LogFile, open_bytes
from simulator.logs.lines import PIECE_BYTES, Span, cut, newlines

NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
BLOCK_BYTES = 4 << 20
SEPARATOR = "|"
Column = Annotated[str, msgspec.Meta(min_length=1)]


class CsvColumns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which column is what. ``event_id``: without it, a row is its own event. ``time``: milliseconds since the epoch.

    With ``action`` a row is a decision: ``actions`` is the column of all its action ids, separated by ``|`` (without
    it, the ids in ``action_ids``), and ``context`` are the columns of its context.
    """

    reward: Column = "reward"
    propensity: Column = "propensity"
    event_id: Column | None = None
    time: Column | None = None
    action: Column | None = None
    actions: Column | None = None
    action_ids: list[str] = []
    context: list[Column] = []

    @property
    def texts(self) -> list[str]:
        """The columns that are no numbers."""
        return [each for each in (self.event_id, self.action, self.actions, *self.context) if each is not None]

    @property
    def numbers(self) -> list[str]:
        """The columns that are."""
        return [each for each in (self.reward, self.propensity, self.time) if each is not None]


class _Range(io.RawIOBase):
    """Some bytes of a file, to read once. ``lines``: how many were read so far."""

    def __init__(self, span: Span) -> None:
        self._file = open_bytes(span.path)
        self._file.seek(span.start)
        self._left = None if span.stop is None else span.stop - span.start
        self._ends, self._last = 0, b"\n"

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes."""
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
        """The last one may have no end."""
        return self._ends + (self._last != b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


@dataclass(slots=True, eq=False)
class CsvPiece:
    """A part of a CSV file; see Piece.

    ``first``: the line it starts with, from 1, and that of the header does not count. ``header``: the file's columns.
    ``extra``: further columns of numbers to hand on.
    """

    span: Span
    first: int
    header: Sequence[str]
    columns: CsvColumns
    extra: Sequence[str] = ()
    skip_bad: bool = False
    skipped: int = field(default=0, init=False)
    _wrong: BadRowError | None = field(default=None, init=False)
    _wrong_lines: set[int] = field(default_factory=set, init=False)

    def batches(self) -> Iterator[LogBatch]:
        """See Piece. A batch is a block of the file."""
        self.skipped, self._wrong_lines = 0, set()
        numbers = list(dict.fromkeys([*self.columns.numbers, *self.extra]))
        wanted = list(dict.fromkeys([*numbers, *self.columns.texts]))
        header = 1 if self.span.start == 0 else 0
        line, data = self.first + header, _Range(self.span)
        try:
            with pyarrow.csv.open_csv(
                pa.PythonFile(data, mode="r"),
                pyarrow.csv.ReadOptions(
                    use_threads=False, block_size=BLOCK_BYTES, column_names=self.header, skip_rows=header
                ),
                pyarrow.csv.ParseOptions(ignore_empty_lines=False, invalid_row_handler=self._wrong_width),
                pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(wanted, pa.string()), include_columns=wanted, strings_can_be_null=False
                ),
            ) as reader:
                for block in reader:
                    lines = self._lines(line, len(block))
                    yield from self._batch(block, numbers, lines)
                    line = int(lines[-1]) + 1 if len(lines) else line
        except pa.ArrowInvalid as error:
            fallback = BadRowError(f"{self.span.path}, from line {self.first}: {error}", "columns")
            raise self._wrong or fallback from error
        if data.lines > max([line, *(wrong + 1 for wrong in self._wrong_lines)]) - self.first:
            raise BadRowError(f"{self.span.path}: a cell holds a line break, which is not read here", "columns")

    def _lines(self, first: int, count: int) -> NDArray[np.int64]:
        """The numbers of so many lines from this one that have the right width."""
        numbers = np.arange(first, first + count + len(self._wrong_lines))
        return numbers[~np.isin(numbers, list(self._wrong_lines))][:count]

    def _wrong_width(self, row: Any) -> str:
        line = self.first - 1 + row.number
        if not self.skip_bad:
            what = f"{row.expected_columns} columns, not {row.actual_columns}"
            self._wrong = BadRowError(f"{self.span.path}, line {line}: {what}", "columns")
            return "error"
        self.skipped += 1
        self._wrong_lines.add(line)
        return "skip"

    def _batch(self, block: Any, numbers: Sequence[str], lines: NDArray[np.int64]) -> Iterator[LogBatch]:
        bad = np.zeros(len(block), bool)
        values: dict[str, Float64] = {}
        for name in numbers:
            column = block.column(name)
            wrong = ~np.asarray(pc.match_substring_regex(column, NUMBER))
            if wrong.any():
                self._refuse(wrong, block, lines, name, "is no number")
                column = pc.if_else(pa.array(wrong), "nan", column)
                bad |= wrong
            values[name] = np.asarray(pc.cast(pc.utf8_trim_whitespace(column), pa.float64()))
        propensity, reward = values[self.columns.propensity], values[self.columns.reward]
        for name, wrong, what in (
            (self.columns.propensity, ~((propensity > 0.0) & (propensity <= 1.0)), "is no propensity, in (0, 1]"),
            (self.columns.reward, ~(np.abs(reward) <= MAX_NUMBER), f"is no reward, a number up to {MAX_NUMBER:g}"),
        ):
            self._refuse(wrong & ~bad, block, lines, name, what)
            bad |= wrong
        keep = np.flatnonzero(~bad)
        rows = self._decisions(block, values, keep, lines)
        keep = keep[[row is not None for row in rows]] if rows else keep
        self.skipped += len(block) - len(keep)
        if not keep.size:
            return
        texts = block.column(self.columns.event_id).to_pylist() if self.columns.event_id else None
        file = np.uint64(key_of(self.span.path.name))
        yield LogBatch(
            keys=(
                splitmix64(lines[keep].astype(np.uint64) ^ file)
                if texts is None
                else np.fromiter((key_of(texts[at]) for at in keep), np.uint64, keep.size)
            ),
            times_ms=(
                values[self.columns.time][keep].astype(np.int64) if self.columns.time else np.zeros(keep.size, np.int64)
            ),
            reward=reward[keep],
            propensity=propensity[keep],
            decisions=[row for row in rows if row is not None],
            columns={name: values[name][keep] for name in self.extra},
        )

    def _decisions(
        self, block: Any, values: dict[str, Float64], keep: Any, lines: NDArray[np.int64]
    ) -> Sequence[LoggedDecision | None]:
        """The rows to keep, None where one turns out to be bad; nothing, if the log has no actions."""
        columns = self.columns
        if columns.action is None:
            return ()
        chosen = block.column(columns.action).to_pylist()
        events = block.column(columns.event_id).to_pylist() if columns.event_id else None
        sets = block.column(columns.actions).to_pylist() if columns.actions else None
        context = {name: block.column(name).to_pylist() for name in columns.context}
        rows: list[LoggedDecision | None] = []
        for at in keep.tolist():
            ids = columns.action_ids if sets is None else sets[at].split(SEPARATOR)
            if chosen[at] not in ids or len(set(ids)) != len(ids):
                self._refuse_row(lines[at], f"{chosen[at]!r} is not one of the row's distinct actions", columns.action)
                rows.append(None)
                continue
            rows.append(
                LoggedDecision(
                    event_id=f"{self.span.path.name}:{lines[at]}" if events is None else events[at],
                    context={name: number_or_text(cells[at]) for name, cells in context.items()},
                    action_ids=ids,
                    chosen=ids.index(chosen[at]),
                    propensity=float(values[columns.propensity][at]),
                    reward=float(values[columns.reward][at]),
                )
            )
        return rows

    def _refuse(self, wrong: Any, block: Any, lines: NDArray[np.int64], name: str, what: str) -> None:
        if wrong.any():
            at = int(wrong.argmax())
            self._refuse_row(lines[at], f"{name} {what}: {str(block.column(name)[at])[:40]!r}", name)

    def _refuse_row(self, line: np.int64, what: str, name: str) -> None:
        if not self.skip_bad:
            raise BadRowError(f"{self.span.path}, line {line}: {what}", name)


def csv_pieces(
    path: LogFile,
    columns: CsvColumns,
    *,
    extra: Sequence[str] = (),
    piece_bytes: int = PIECE_BYTES,
    skip_bad: bool = False,
) -> list[CsvPiece]:
    """A CSV file with a header. Cells hold no line breaks.

    Raises:
        ReplayError: the file cannot be read, or lacks a column.
    """
    if columns.action is not None and columns.actions is None and not columns.action_ids:
        raise ReplayError("name the column of all actions, or list their ids: a choice is one among others", "columns")
    try:
        with io.TextIOWrapper(open_bytes(path), "utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReplayError(f"{path} is no readable CSV file: {error}", "log") from error
    for name in (*columns.numbers, *columns.texts, *extra):
        if name not in header:
            raise ReplayError(f"{path} has no column {name!r}, but {', '.join(header) or 'nothing'}", "columns")
    pieces, line = [], 1
    for span in cut(path, piece_bytes=piece_bytes):
        pieces.append(CsvPiece(span, line, header, columns, extra, skip_bad))
        line += 0 if span.stop is None else newlines(path, span.start, span.stop)
    return pieces


def number_or_text(text: str) -> Value:
    """A cell as a feature's value."""
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text
