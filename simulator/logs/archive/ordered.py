"""The pieces of an archive of several partitions, in the order of time."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice

from simulator.logs.archive.pieces import ArchivePiece
from simulator.logs.rows import (
    BATCH_ROWS,
    LogBatch,
    LoggedDecision,
    Piece,
    Waiting,
    batch_of,
    caution_of,
    waiting_of,
)


class TimeOrdered:
    """Pieces of several partitions as one piece, its rows in the order of time.

    A learner that learns as it goes needs that order.
    """

    def __init__(self, partitions: Sequence[Sequence[Piece]]) -> None:
        self._partitions = partitions

    @property
    def policy(self) -> str:
        """The policy whose archive it is."""
        names = (getattr(piece, "policy", "") for pieces in self._partitions for piece in pieces)
        return next(names, "").partition("/")[0]

    @property
    def skipped(self) -> int:
        """Bad rows left out so far, of all partitions."""
        return sum(piece.skipped for pieces in self._partitions for piece in pieces)

    @property
    def waiting(self) -> Waiting:
        """Decisions that are no rows yet, of all partitions."""
        return waiting_of(piece for pieces in self._partitions for piece in pieces)

    @property
    def caution(self) -> str:
        """The warning that belongs to every number computed from the rows, mostly none."""
        return caution_of(piece for pieces in self._partitions for piece in pieces)

    def batches(self) -> Iterator[LogBatch]:
        """Yield the rows; see Piece."""
        rows = heapq.merge(
            *(_rows(pieces) for pieces in self._partitions), key=lambda row: row.time_ms
        )
        while batch := list(islice(rows, BATCH_ROWS)):
            yield batch_of(batch)


def in_time_order(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """Return the pieces of a log in an order in which a learner may go through them."""
    partitions: dict[str, list[Piece]] = {}
    for piece in pieces:
        policy = piece.policy if isinstance(piece, ArchivePiece) else ""
        partitions.setdefault(policy, []).append(piece)
    return [TimeOrdered(list(partitions.values()))] if len(partitions) > 1 else pieces


def _rows(pieces: Sequence[Piece]) -> Iterator[LoggedDecision]:
    for piece in pieces:
        for batch in piece.batches():
            yield from batch.decisions
