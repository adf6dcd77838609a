"""Records of text files, cut into byte ranges.

A file may be plain, gzip (``.gz``) or Zstandard (``.zst``).
"""

import io
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import msgspec
import numpy as np

from bandits.errors import BadRowError, InvalidFieldError, ReplayError
from bandits.types import Float64
from bandits.values import MAX_FEATURE
from simulator.logs.files import LogFile, open_decompressed
from simulator.logs.left_out import BAD, LeftOut
from simulator.logs.rows import BATCH_ROWS, LogBatch, LoggedDecision, batch_of, check_row

PIECE_BYTES = 64 << 20
MAX_RECORD_BYTES = 16 << 20
"""Size of a record or line; what is larger is not a log, and would fill the memory."""
WEIGHT = "weight"
"""The column of a batch that says how many decisions of the service each row stands for."""
_BOM = b"\xef\xbb\xbf"
_CHUNK_BYTES = 1 << 20
_LINE = re.compile(rb"\r*[^\r\n][^\n]*\n?")
"""A line that is not empty."""
_BLOCK = re.compile(rb"(?:\r*[^\r\n][^\n]*\n?)+")
"""Several such lines in a row."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes [``start``, ``stop``) of a file, from the start of a record to the end of one.

    A compressed file is one span: its bytes are counted as they are when decompressed.

    Attributes:
        stop: End of the span, or None for all the rest.
        blocks: Whether records are separated by empty lines; otherwise each line is one.
        called: What rows without a name of their own are named after, if not after the file.
    """

    path: LogFile
    start: int = 0
    stop: int | None = None
    blocks: bool = False
    called: str = ""

    @property
    def name(self) -> str:
        """The file's name, among the files of the log."""
        return self.called or self.path.name


class TextRecord(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The lines of one record, without their ends, none of them empty.

    Attributes:
        offset: Offset of its first byte in the file.
        first: Number of its first line, from 1; 0 until ``numbered`` has counted.
    """

    path: LogFile
    offset: int
    lines: list[bytes]
    first: int = 0
    called: str = ""

    @property
    def event_id(self) -> str:
        """Id of a record that names none, the same however the file is cut and wherever it lies."""
        return f"{self.called or self.path.name}@{self.offset}"

    def where(self, line: int = 0) -> str:
        """Return file and line, for an error. ``line`` counts the record's lines, from 0."""
        return f"{self.path}, line {self.first + line}"

    def numbered(self) -> "TextRecord":
        """Return the same record with its line number.

        That takes reading the file up to here, so it is done for errors only.
        """
        return msgspec.structs.replace(self, first=count_newlines(self.path, 0, self.offset) + 1)


Row = tuple[LoggedDecision, float]
"""A row and how many decisions of the service it stands for (1, where nothing was dropped)."""
Parsed = Row | list[Row] | str | None
"""A row, or those of a page's slots.

Or why the record is no decision, in words that a count can stand before; or None, if it is nothing
to count.
"""


@dataclass(slots=True, eq=False)
class RecordPiece:
    """A piece of a log whose rows are records of lines; see Piece.

    Attributes:
        parse: A function of a module, so that the piece can be pickled; it raises BadRowError with
            ``TextRecord.where``.
        keep_lines: Whether rows bring the lines that they were read from.
        column_notes: How the columns of a table were read.
        left_out: What so far was no row.
    """

    span: Span
    parse: Callable[[TextRecord], Parsed]
    skip_bad: bool = False
    keep_lines: bool = False
    column_notes: Mapping[str, str] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut, init=False)

    @property
    def skipped(self) -> int:
        """Bad rows and lines that are no records, so far."""
        return self.left_out.skipped

    def batches(self) -> Iterator[LogBatch]:
        """Yield the rows, in the file's order.

        Each call reads from the start, with nothing left out yet.

        Raises:
            BadRowError: A record is malformed, and bad rows are not to be skipped. Names file and
                line.
            ReplayError: The file cannot be read, or a record is too large.
        """
        self.left_out = LeftOut()
        rows: list[LoggedDecision] = []
        weights: list[float] = []

        for record in records(self.span):
            parsed = self._parsed(record)
            if isinstance(parsed, str):
                self.left_out.add(parsed)
            if parsed is None or isinstance(parsed, str):
                continue

            for row, weight in parsed if isinstance(parsed, list) else [parsed]:
                rows.append(replace(row, lines=record.lines) if self.keep_lines else row)
                weights.append(weight)
            if len(rows) >= BATCH_ROWS:
                yield _batch(rows, weights)
                rows, weights = [], []

        if rows:
            yield _batch(rows, weights)

    def _parsed(self, record: TextRecord) -> Parsed:
        try:
            return self.parse(record)
        except BadRowError as error:
            if self.skip_bad:
                first_bad = self.left_out.first_bad
                self.left_out.add(BAD, first_bad or describe_bad_record(self.parse, record, error))
                return None

        # Parsing it again raises again, and names the line.
        return self.parse(record.numbered())


def describe_bad_record(
    parse: Callable[[TextRecord], object], record: TextRecord, error: BadRowError
) -> str:
    """Return what is wrong with a record, and its line.

    Args:
        parse: The function that has raised the error.
        record: The record.
        error: What it has raised.
    """
    numbered = record.numbered()
    try:
        parse(numbered)
    except BadRowError as again:
        return again.message
    return f"{numbered.where()}: {error.message}"


def check_logged(row: LoggedDecision, where: str) -> LoggedDecision:
    """Return the row, unless no learner could take a number among its features.

    Args:
        row: A row as it was read.
        where: Its file and line, for the error.

    Raises:
        BadRowError: A feature is too large, or see ``check_row``.
    """
    for features in (row.context, *(row.features or ())):
        for name, value in (features or {}).items():
            if isinstance(value, float) and not abs(value) <= MAX_FEATURE:
                raise BadRowError(
                    f"{where}: feature {name} is a number up to {MAX_FEATURE:g}, not {value}", name
                )
    return check_row(row, where)


def _batch(rows: list[LoggedDecision], weights: list[float]) -> LogBatch:
    return replace(batch_of(rows), columns={WEIGHT: np.array(weights, np.float64)})


def counts_of(batch: LogBatch) -> Float64:
    """Return float64[n]: how many decisions of the service each row stands for."""
    return np.asarray(batch.columns.get(WEIGHT, np.ones(len(batch))), np.float64)


def cut_into_spans(
    path: LogFile, *, piece_bytes: int = PIECE_BYTES, blocks: bool = False
) -> list[Span]:
    """Return the spans of a file that hold its records in their order.

    It reads the file only at the cuts.

    Args:
        path: The file.
        piece_bytes: Size of a span, about.
        blocks: Whether records are separated by empty lines; otherwise each line is one.

    Raises:
        ReplayError: The file cannot be read, or a record is too large.
        InvalidFieldError: ``piece_bytes`` is not positive.
    """
    if piece_bytes < 1:
        raise InvalidFieldError(f"a piece has at least one byte, not {piece_bytes}", "piece_bytes")

    starts = [0]
    with _opened(path) as file:
        if _is_compressed(path):
            return [Span(path, blocks=blocks)]

        size = file.seek(0, io.SEEK_END)
        while (target := starts[-1] + piece_bytes) < size:
            # A record may start right at the target, so look from the byte before.
            start = _next_start(file, path, target - 1, blocks=blocks)
            if start >= size:
                break
            starts.append(start)

    return [
        Span(path, start, stop, blocks)
        for start, stop in zip(starts, [*starts[1:], None], strict=True)
    ]


def _next_start(file: BinaryIO, path: LogFile, offset: int, *, blocks: bool) -> int:
    """Return where the first record begins that begins after ``offset``."""
    file.seek(offset)
    line = _read_line(file, path)
    if blocks:
        while line := _read_line(file, path):
            if not line.rstrip(b"\r\n"):
                break
    return file.tell()


def count_newlines(path: LogFile, start: int, stop: int) -> int:
    """Return the number of line ends in a stretch of a file.

    Args:
        path: The file; of a compressed one, the decompressed bytes count.
        start: The stretch's first byte, from 0.
        stop: The first byte after it; past the end of the file, what is there is counted.

    Raises:
        ReplayError: The file cannot be read.
    """
    left, count = stop - start, 0
    with _opened(path) as file:
        if start:
            file.seek(start)
        while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
            left -= len(chunk)
            count += chunk.count(b"\n")
    return count


def records(span: Span) -> Iterator[TextRecord]:
    """Yield the records of a span, in order.

    Empty lines are no records, byte-order marks are not part of a line.

    Raises:
        ReplayError: The file cannot be read, or a record is too large.
    """
    shape = _BLOCK if span.blocks else _LINE
    for offset, data in _whole_records(span):
        first = len(_BOM) if offset == 0 and data.startswith(_BOM) else 0
        for match in shape.finditer(data, first):
            start = offset + (match.start() if match.start() > first else 0)
            text = match[0].removesuffix(b"\n")
            if len(text) > MAX_RECORD_BYTES:
                raise _too_large(span.path)

            lines = text.split(b"\n")
            if b"\r" in text:
                lines = [line.rstrip(b"\r") for line in lines]
            # A mark may stand in the middle, too, where files were joined.
            if _BOM in text:
                lines = [line.removeprefix(_BOM) for line in lines]

            yield TextRecord(span.path, start, lines, 0, span.called)


def _whole_records(span: Span) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes of a span in parts that hold whole records, each with its offset.

    A part has about _CHUNK_BYTES.
    """
    ends = (b"\n\n", b"\n\r\n") if span.blocks else (b"\n",)
    offset, held = span.start, b""
    left = None if span.stop is None else span.stop - span.start

    with _opened(span.path) as file:
        if offset:
            file.seek(offset)
        while chunk := file.read(_CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES)):
            left = None if left is None else left - len(chunk)
            held += chunk

            # What stands after the last end of a record waits for the next chunk.
            if stop := max(held.rfind(end) + 1 for end in ends):
                yield offset, held[:stop]
                offset, held = offset + stop, held[stop:]
            elif len(held) > MAX_RECORD_BYTES:
                raise _too_large(span.path)

        if held:
            yield offset, held


def _read_line(file: BinaryIO, path: LogFile) -> bytes:
    line = file.readline(MAX_RECORD_BYTES + 1)
    if len(line) > MAX_RECORD_BYTES:
        raise _too_large(path)
    return line


def _too_large(path: LogFile) -> ReplayError:
    return ReplayError(
        f"{path} has a record of more than {MAX_RECORD_BYTES:,} bytes: is it such a log?", "path"
    )


def _is_compressed(path: LogFile) -> bool:
    return path.suffix in {".gz", ".zst"}


@contextmanager
def _opened(path: LogFile) -> Iterator[BinaryIO]:
    """Open a file's bytes, decompressed; a failure to read them is a ReplayError."""
    try:
        with open_decompressed(path) as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise ReplayError(f"{path} cannot be read: {error}", "path") from error
