"""A log without the rows that a candidate source alone could not have served."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from bandits.errors import ReplayError
from simulator.logs.left_out import LeftOut, left_out_of
from simulator.logs.rows import (
    LogBatch,
    LoggedDecision,
    Piece,
    Waiting,
    batch_of,
    caution_of,
    columns_of,
    waiting_of,
)

UNSCORED = "rows without a score of a source that is judged: it failed there, or proposed none of the actions"


@dataclass(slots=True)
class ScoredRows:
    """``piece``, without the rows in which one of ``sources`` has no score.

    What it would have earned there nobody knows; and to compare policies, all are judged by the
    same rows. ``unscored`` counts those rows, ``known`` are the sources that the log has scores of.
    """

    piece: Piece
    sources: Sequence[str]
    unscored: int = 0
    known: set[str] = field(default_factory=set)

    @property
    def skipped(self) -> int:
        """See Piece."""
        return self.piece.skipped

    @property
    def left_out(self) -> LeftOut:
        """What is no row, and why."""
        total = left_out_of([self.piece])
        if self.unscored:
            total.merge(LeftOut(Counter({UNSCORED: self.unscored})))
        return total

    @property
    def waiting(self) -> Waiting:
        """Its decisions that are no rows yet."""
        return waiting_of([self.piece])

    @property
    def said(self) -> dict[str, str]:
        """How its columns were read."""
        return columns_of([self.piece])

    @property
    def caution(self) -> str:
        """What has to be said of every number that comes of it."""
        return caution_of([self.piece])

    def batches(self) -> Iterator[LogBatch]:
        """See Piece."""
        self.unscored = 0
        for batch in self.piece.batches():
            kept = [row for row in batch.decisions if self._serves(row)]
            self.unscored += len(batch.decisions) - len(kept)
            if len(kept) == len(batch.decisions):
                yield batch
            elif kept:
                yield batch_of(kept)

    def _serves(self, row: LoggedDecision) -> bool:
        self.known.update(row.scores)
        return all(
            name in row.scores and not np.isnan(row.scores[name]).all() for name in self.sources
        )


def check_scored(pieces: Sequence[Piece]) -> None:
    """Of a log without rows, say so if it is only that no row has a score of the sources.

    Raises:
        ReplayError: it is.
    """
    limited = [piece for piece in pieces if isinstance(piece, ScoredRows) and piece.unscored]
    if limited:
        known, asked = (
            sorted(set[str]().union(*(piece.known for piece in limited))),
            limited[0].sources,
        )
        raise ReplayError(
            f"the log has scores of {known}, and none of {' and '.join(map(repr, asked))}", "policy"
        )
