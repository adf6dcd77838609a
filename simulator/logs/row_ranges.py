"""A part of a log, counted in rows: to learn from one and evaluate on another that came later."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from simulator.logs.left_out import LeftOut, left_out_of
from simulator.logs.rows import (
    LogBatch,
    Piece,
    Waiting,
    caution_of,
    column_kinds_of,
    column_notes_of,
    waiting_of,
)


@dataclass(slots=True)
class PartOfPiece:
    """Some rows of a piece, itself a piece: what is said of the whole is said of it."""

    piece: Piece

    @property
    def skipped(self) -> int:
        """Bad rows of the whole piece left out so far."""
        return self.piece.skipped

    @property
    def left_out(self) -> LeftOut:
        """The records of the whole piece that were no rows, and why."""
        return left_out_of([self.piece])

    @property
    def waiting(self) -> Waiting:
        """The piece's decisions that are no rows yet, known once its end is read."""
        return waiting_of([self.piece])

    @property
    def caution(self) -> str:
        """The warning that belongs to every number computed from the piece, mostly none."""
        return caution_of([self.piece])


@dataclass(slots=True)
class RowRange(PartOfPiece):
    """Rows ``start`` to ``stop`` (excluded) of a piece."""

    start: int
    stop: int

    @property
    def kinds(self) -> dict[str, str]:
        """Number or text, by column of the context."""
        return column_kinds_of([self.piece])

    @property
    def column_notes(self) -> dict[str, str]:
        """How the columns were read."""
        return column_notes_of([self.piece])

    def batches(self) -> Iterator[LogBatch]:
        """Yield the rows of the range; see Piece."""
        at = 0
        for batch in self.piece.batches():
            first, last = max(self.start - at, 0), min(self.stop - at, len(batch))
            if first < last:
                whole = (first, last) == (0, len(batch))
                yield batch if whole else batch.take(slice(first, last))

            at += len(batch)
            if at >= self.stop:
                return


def count_rows(piece: Piece) -> int:
    """Read a piece once and return its number of rows."""
    return sum(map(len, piece.batches()))


def row_range(pieces: Sequence[Piece], counts: Sequence[int], start: int, stop: int) -> list[Piece]:
    """Return rows ``start`` to ``stop`` (excluded) of a log, as pieces.

    Args:
        pieces: The pieces of the log.
        counts: The number of rows of each piece.
        start: First row of the range, from 0.
        stop: First row after the range.
    """
    parts: list[Piece] = []
    at = 0
    for piece, rows in zip(pieces, counts, strict=True):
        first, last = max(start - at, 0), min(stop - at, rows)
        if (first, last) == (0, rows):
            parts.append(piece)
        elif first < last:
            parts.append(RowRange(piece, first, last))
        at += rows
    return parts
