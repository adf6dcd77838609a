"""Logs as CSV, by a mapping of columns: from a plain table of numbers to decisions with their actions."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from bandits.errors import BadRowError, InvalidInputError, ReplayError
from bandits.features.hashing import UInt64, splitmix64
from bandits.log.codec import MALFORMED
from bandits.types import Float64
from bandits.values import MAX_NUMBER, FeatureMap
from policies.encoding import check_features
from policies.requests import plain_features
from simulator.logs.files import LogFile, open_bytes
from simulator.logs.left_out import BAD, LeftOut
from simulator.logs.rows import LogBatch, LoggedDecision, key_of
from simulator.logs.tables import (
    CellKind,
    Evidence,
    column_features,
    floats_of,
    missing,
    numbers_of,
    read_header,
)
from simulator.logs.text_records import PIECE_BYTES, Span, cut_into_spans, newlines

BLOCK_BYTES = 4 << 20
SEPARATOR = "|"
MAX_CELL_CHARS = 40
Column = Annotated[str, msgspec.Meta(min_length=1)]


class CsvColumns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which column is what.

    ``event_id``: without it, or where it is empty, a row is its own event. ``time``: milliseconds
    since the epoch.

    With ``action`` a row is a decision: ``actions`` is the column of all its action ids, separated
    by ``|`` (without it, the ids in ``action_ids``), and ``context`` are the columns of its
    context. ``features``: the column of the actions' features, in JSON: a list of objects in the
    order of the actions, or an object of them by action id. ``kinds``: of columns of the context,
    ``number`` or ``text``; what is not said is decided from the whole log. An empty cell of the
    context is no feature. ``delimiter``: without it, comma, semicolon or tab, whichever fits the
    header. ``decimal``: what stands in numbers for the point.
    """

    reward: Column = "reward"
    propensity: Column = "propensity"
    event_id: Column | None = None
    time: Column | None = None
    action: Column | None = None
    actions: Column | None = None
    action_ids: list[str] = []
    context: list[Column] = []
    features: Column | None = None
    kinds: dict[str, CellKind] = {}
    delimiter: Annotated[str, msgspec.Meta(min_length=1, max_length=1)] | None = None
    decimal: Literal[".", ","] = "."

    def __post_init__(self) -> None:
        """Refuse a kind of what is no column of the context."""
        for name in self.kinds:
            if name not in self.context:
                raise ReplayError(
                    f"kinds names {name!r}, which is not a column of the context", "columns"
                )

    @property
    def texts(self) -> list[str]:
        """The columns that are read as text."""
        texts = (self.event_id, self.action, self.actions, self.features, *self.context)
        return [each for each in texts if each is not None]

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


class _CsvBlock(NamedTuple):
    """Some rows of the file. ``lines``: int64[n], their numbers. ``values``: float64[n] by column.

    ``good``: bool[n].

    ``places``: by row, of each of its actions; None where two are the same; nothing, if the log has
    no actions.
    """

    cells: Any
    lines: NDArray[np.int64]
    values: dict[str, Float64]
    good: NDArray[np.bool_]
    places: Sequence[Mapping[str, int] | None]


@dataclass(slots=True, eq=False)
class CsvPiece:
    """A part of a CSV file; see Piece.

    ``first``: the line it starts with, from 1, and that of the header does not count. ``header``:
    the file's columns. ``kinds``: of the context's columns, those not declared as ``with_column_kinds`` has
    decided. ``extra``: further columns of numbers to hand on.
    """

    span: Span
    first: int
    header: Sequence[str]
    columns: CsvColumns
    delimiter: str = ","
    kinds: Mapping[str, CellKind] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)
    extra: Sequence[str] = ()
    skip_bad: bool = False
    left_out: LeftOut = field(default_factory=LeftOut, init=False)
    _wrong: BadRowError | None = field(default=None, init=False)
    _wrong_lines: set[int] = field(default_factory=set, init=False)

    @property
    def skipped(self) -> int:
        """See Piece."""
        return self.left_out.skipped

    def batches(self) -> Iterator[LogBatch]:
        """See Piece. A batch is a block of the file."""
        for block in self._blocks():
            keep = np.flatnonzero(block.good)
            if keep.size:
                yield self._batch(block, keep)

    def evidence(self) -> dict[str, Evidence]:
        """What the good rows say of the columns whose kind is not declared."""
        found = {
            name: Evidence() for name in self.columns.context if name not in self.columns.kinds
        }
        for block in replace(self, skip_bad=True)._blocks():  # noqa: SLF001 - it is complained of when it is read
            good = pa.array(block.good)
            for name, each in found.items():
                each.add(block.cells.column(name).filter(good), self.columns.decimal)
        return found

    def _blocks(self) -> Iterator[_CsvBlock]:
        self.left_out, self._wrong_lines = LeftOut(), set()
        numbers = list(dict.fromkeys([*self.columns.numbers, *self.extra]))
        wanted = list(dict.fromkeys([*numbers, *self.columns.texts]))
        header = 1 if self.span.start == 0 else 0
        line, data = self.first + header, _Range(self.span)
        try:
            with pyarrow.csv.open_csv(
                pa.PythonFile(data, mode="r"),
                pyarrow.csv.ReadOptions(
                    use_threads=False,
                    block_size=BLOCK_BYTES,
                    column_names=self.header,
                    skip_rows=header,
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
            ) as reader:
                for cells in reader:
                    lines = self._lines(line, len(cells))
                    yield self._checked(cells, numbers, lines)
                    line = int(lines[-1]) + 1 if len(lines) else line
        except pa.ArrowInvalid as error:
            fallback = BadRowError(f"{self.span.path}, from line {self.first}: {error}", "columns")
            raise self._wrong or fallback from error
        if data.lines > max([line, *(wrong + 1 for wrong in self._wrong_lines)]) - self.first:
            raise BadRowError(
                f"{self.span.path}: a cell holds a line break, which is not read here", "columns"
            )

    def _lines(self, first: int, count: int) -> NDArray[np.int64]:
        """The numbers of so many lines from this one that have the right width."""
        numbers = np.arange(first, first + count + len(self._wrong_lines))
        return numbers[~np.isin(numbers, list(self._wrong_lines))][:count]

    def _wrong_width(self, row: Any) -> str:
        line = self.first - 1 + row.number
        message = f"{self.span.path}, line {line}: {row.expected_columns} columns, not {row.actual_columns}"
        if not self.skip_bad:
            self._wrong = BadRowError(message, "columns")
            return "error"
        self.left_out.add(BAD, message)
        self._wrong_lines.add(line)
        return "skip"

    def _checked(self, cells: Any, numbers: Sequence[str], lines: NDArray[np.int64]) -> _CsvBlock:
        """Which rows can be used; of the others the first is complained of."""
        bad = np.zeros(len(cells), bool)
        values = {
            name: floats_of(numbers_of(cells.column(name), self.columns.decimal))
            for name in numbers
        }
        places, first = self._places(cells), (len(cells), "")
        for faulty, name, what in self._faults(cells, values, places):
            wrong = faulty & ~bad
            if not wrong.any():
                continue
            at = int(wrong.argmax())
            cell = str(cells.column(name)[at])[:MAX_CELL_CHARS]
            said = f"{cell!r} {what}" if name == self.columns.action else f"{name} {what}: {cell!r}"
            message = f"{self.span.path}, line {lines[at]}: {said}"
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
        """What may be wrong with a row: in which rows it is, with which column, and what."""
        columns = self.columns
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
        for name in (name for name, kind in columns.kinds.items() if kind == "number"):
            known = ~np.isnan(floats_of(numbers_of(cells.column(name), columns.decimal)))
            yield (
                ~(known | np.asarray(missing(cells.column(name)))),
                name,
                "is declared a number, and is none",
            )
        if columns.action is not None:
            chosen = zip(cells.column(columns.action).to_pylist(), places, strict=True)
            wrong = np.fromiter((each not in (of or ()) for each, of in chosen), bool, len(cells))
            yield wrong, columns.action, "is not one of the row's distinct actions"
        if columns.features is not None and places:
            given = zip(cells.column(columns.features).to_pylist(), places, strict=True)
            wrong = np.fromiter(
                (_features(text, tuple(of or ())) is None for text, of in given), bool, len(cells)
            )
            yield wrong, columns.features, FEATURES_ARE

    def _places(self, cells: Any) -> Sequence[Mapping[str, int] | None]:
        if self.columns.action is None:
            return ()
        if self.columns.actions is None:
            return [_places(tuple(self.columns.action_ids))] * len(cells)
        return [_places_in(text) for text in cells.column(self.columns.actions).to_pylist()]

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
        """Names of the rows' events, None where a row has none, and their keys: then, of its place in the log."""
        file = np.uint64(key_of(self.span.name))
        keys: UInt64 = splitmix64(block.lines.astype(np.uint64) ^ file)
        if self.columns.event_id is None:
            return [None] * len(block.lines), keys
        column = block.cells.column(self.columns.event_id)
        names: list[str | None] = pc.if_else(missing(column), None, column).to_pylist()
        for at, name in enumerate(names):
            if name is not None:
                keys[at] = key_of(name)
        return names, keys

    def _decisions(
        self, block: _CsvBlock, keep: NDArray[np.intp], names: Sequence[str | None]
    ) -> Sequence[LoggedDecision]:
        columns, cells = self.columns, block.cells
        chosen = cells.column(columns.action).to_pylist()
        texts = None if columns.features is None else cells.column(columns.features).to_pylist()
        context = {
            name: column_features(cells.column(name), self.kinds.get(name, "text"), columns.decimal)
            for name in columns.context
        }
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
                    features=None if texts is None else _features(texts[at], ids),
                )
            )
        return rows


FEATURES_ARE = "is no JSON list of the actions' features, an object each, nor an object of such objects by action id"


@lru_cache(maxsize=4096)
def _places_in(text: str) -> Mapping[str, int] | None:
    """Of each of the actions in a cell; None if two are the same."""
    return _places(tuple(text.split(SEPARATOR)))


def _places(ids: tuple[str, ...]) -> Mapping[str, int] | None:
    places = {action_id: at for at, action_id in enumerate(ids)}
    return places if len(places) == len(ids) else None


@lru_cache(maxsize=1024)
def _features(text: str, ids: tuple[str, ...]) -> Sequence[FeatureMap | None] | None:
    """A cell of the actions' features; an action that its object does not name has none.

    None: it is no such cell.
    """
    if not text.strip():
        return [None] * len(ids)
    try:
        given = msgspec.json.decode(text)
    except MALFORMED:
        return None
    if isinstance(given, dict):
        given = [given.get(action_id) for action_id in ids] if given.keys() <= set(ids) else None
    if not (isinstance(given, list) and len(given) == len(ids)):
        return None
    if not all(each is None or isinstance(each, dict) for each in given):
        return None
    try:
        found = [None if each is None else plain_features(each, "features") for each in given]
        for features in found:
            check_features(features or {}, "features")
    except InvalidInputError:
        return None
    return found


def csv_pieces(
    path: LogFile,
    columns: CsvColumns,
    *,
    extra: Sequence[str] = (),
    piece_bytes: int = PIECE_BYTES,
    skip_bad: bool = False,
) -> list[CsvPiece]:
    """A CSV file with a header. Cells hold no line breaks.

    ``with_column_kinds`` decides of the pieces what is not declared.

    Raises:
        ReplayError: the file cannot be read, or lacks a column, or has two of one name.
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
        line += 0 if span.stop is None else newlines(path, span.start, span.stop)
    return pieces


def with_column_kinds(pieces: Sequence[CsvPiece]) -> list[CsvPiece]:
    """The pieces of a log with the kind of every column of the context, which is of the whole log.

    The log is read once for it, if there is a column whose kind is not declared.

    Raises:
        BadRowError: the log cannot be read.
    """
    columns = pieces[0].columns if pieces else CsvColumns()
    declared: dict[str, CellKind] = dict(columns.kinds)
    said = {name: f"{kind}, as declared" for name, kind in declared.items()}
    found = {name: Evidence() for name in columns.context if name not in declared}
    for piece in pieces if found else ():
        for name, each in piece.evidence().items():
            found[name].merge(each)
    kinds = declared | {name: each.kind for name, each in found.items()}
    said |= {name: each.said for name, each in found.items()}
    return [replace(piece, kinds=kinds, said=said) for piece in pieces]
