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
    column_notes_of,
    waiting_of,
)

UNSCORED = (
    "rows without a score of a source that is judged: it failed there, or proposed none of the"
    " actions"
)


@dataclass(slots=True)
class ScoredRows:
    """A piece without the rows in which one of ``sources`` has no score.

    Nobody knows what the source would have earned there; and to compare policies, all are judged
    by the same rows.

    Attributes:
        unscored: How many rows were left out for that reason.
        known: The sources that the log has scores of.
    """

    piece: Piece
    sources: Sequence[str]
    unscored: int = 0
    known: set[str] = field(default_factory=set)

    @property
    def skipped(self) -> int:
        """Bad rows left out so far."""
        return self.piece.skipped

    @property
    def left_out(self) -> LeftOut:
        """The records that are no rows, and why."""
        total = left_out_of([self.piece])
        if self.unscored:
            total.merge(LeftOut(Counter({UNSCORED: self.unscored})))
        return total

    @property
    def waiting(self) -> Waiting:
        """Decisions that are no rows yet."""
        return waiting_of([self.piece])

    @property
    def column_notes(self) -> dict[str, str]:
        """How the columns were read."""
        return column_notes_of([self.piece])

    @property
    def caution(self) -> str:
        """The warning that belongs to every number computed from the piece, mostly none."""
        return caution_of([self.piece])

    def batches(self) -> Iterator[LogBatch]:
        """Yield the rows that have all scores; see Piece."""
        self.unscored = 0
        for batch in self.piece.batches():
            kept = [row for row in batch.decisions if self._has_scores(row)]
            self.unscored += len(batch.decisions) - len(kept)
            if len(kept) == len(batch.decisions):
                yield batch
            elif kept:
                yield batch_of(kept)

    def _has_scores(self, row: LoggedDecision) -> bool:
        self.known.update(row.scores)
        return all(
            name in row.scores and not np.isnan(row.scores[name]).all() for name in self.sources
        )


def check_scored(pieces: Sequence[Piece]) -> None:
    """Refuse a log that has no rows only because none has a score of the sources.

    Raises:
        ReplayError: It is such a log. Names the sources that the log has scores of.
    """
    limited = [piece for piece in pieces if isinstance(piece, ScoredRows) and piece.unscored]
    if not limited:
        return

    known = sorted(set[str]().union(*(piece.known for piece in limited)))
    asked = " and ".join(map(repr, limited[0].sources))
    raise ReplayError(f"the log has scores of {known}, and none of {asked}", "policy")
