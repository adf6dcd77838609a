"""A stretch of a log, by the number of its rows: to learn on one and to evaluate on another that came later."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from simulator.logs.left_out import LeftOut, left_out_of
from simulator.logs.rows import (
    LogBatch,
    Piece,
    Waiting,
    caution_of,
    columns_of,
    kinds_of,
    waiting_of,
)


@dataclass(slots=True)
class RowRange:
    """Rows ``start`` to ``stop`` (excluded) of a piece."""

    piece: Piece
    start: int
    stop: int

    @property
    def skipped(self) -> int:
        """See Piece."""
        return self.piece.skipped

    @property
    def left_out(self) -> LeftOut:
        """What of the piece was no row."""
        return left_out_of([self.piece])

    @property
    def waiting(self) -> Waiting:
        """Of the piece, if this is its end."""
        return waiting_of([self.piece])

    @property
    def caution(self) -> str:
        """Of the piece."""
        return caution_of([self.piece])

    @property
    def kinds(self) -> dict[str, str]:
        """What the columns are."""
        return kinds_of([self.piece])

    @property
    def said(self) -> dict[str, str]:
        """How the columns were read."""
        return columns_of([self.piece])

    def batches(self) -> Iterator[LogBatch]:
        """See Piece."""
        at = 0
        for batch in self.piece.batches():
            first, last = max(self.start - at, 0), min(self.stop - at, len(batch))
            if first < last:
                yield (
                    batch
                    if (first, last) == (0, len(batch))
                    else slice_batch(batch, slice(first, last))
                )
            at += len(batch)
            if at >= self.stop:
                return


def slice_batch(batch: LogBatch, rows: slice) -> LogBatch:
    """Some rows of a batch."""
    return replace(
        batch,
        keys=batch.keys[rows],
        times_ms=batch.times_ms[rows],
        reward=batch.reward[rows],
        propensity=batch.propensity[rows],
        decisions=batch.decisions[rows],
        columns={name: column[rows] for name, column in batch.columns.items()},
    )


def count_rows(piece: Piece) -> int:
    """How many rows a piece has: it is read once."""
    return sum(map(len, piece.batches()))


def row_range(pieces: Sequence[Piece], counts: Sequence[int], start: int, stop: int) -> list[Piece]:
    """Rows ``start`` to ``stop`` (excluded) of a log whose pieces have ``counts`` rows."""
    out: list[Piece] = []
    at = 0
    for piece, rows in zip(pieces, counts, strict=True):
        first, last = max(start - at, 0), min(stop - at, rows)
        if (first, last) == (0, rows):
            out.append(piece)
        elif first < last:
            out.append(RowRange(piece, first, last))
        at += rows
    return out
