"""A log without the rows that a candidate source alone could not have served."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ReplayError
from bandits.kernels.slates import are_scored
from simulator.logs.actions.columns import ActionColumns
from simulator.logs.actions.from_rows import with_actions
from simulator.logs.left_out import LeftOut, left_out_of
from simulator.logs.rows import (
    LogBatch,
    Piece,
    Waiting,
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
        for read in self.piece.batches():
            batch = with_actions(read)
            kept = (
                np.ones(len(batch), np.bool_)
                if batch.actions is None
                else self._kept(batch.actions)
            )
            self.unscored += len(batch) - int(kept.sum())
            if kept.all():
                yield batch
            elif kept.any():
                yield batch.take(np.flatnonzero(kept))

    def _kept(self, actions: ActionColumns) -> NDArray[np.bool_]:
        """Return which rows have a score of each of the sources, bool[n]."""
        scores = actions.scores
        self.known.update(
            name for name, of in scores.items() if of.answered is None or of.answered.any()
        )
        kept = np.ones(len(actions), np.bool_)
        for source in self.sources:
            if source not in scores:
                return np.zeros(len(actions), np.bool_)
            kept &= are_scored(actions.offsets, scores[source].values)
        return kept


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
