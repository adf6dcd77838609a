"""The PMFs of a shadow as a policy to evaluate: known of the decisions that it has followed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from bandits.errors import ReplayError
from bandits.types import Float64, Pmf
from policies.shadows.following import DecisionPmfs
from simulator.logs.actions.from_rows import with_actions
from simulator.logs.row_ranges import PartOfPiece
from simulator.logs.rows import LogBatch, LoggedDecision, key_of
from simulator.ope.targets import RowTarget, demand_actions


class KnownPmfs:
    """What a shadow has said, by decision and slot."""

    def __init__(self, decisions: Iterable[DecisionPmfs]) -> None:
        self._pmfs: dict[tuple[int, int], Pmf] = {}
        for each in decisions:
            for slot, pmf in enumerate(each.pmfs):
                self._pmfs[each.event, slot] = pmf

    def __len__(self) -> int:
        return len(self._pmfs)

    def of(self, event: int, slot: int, count: int) -> Pmf | None:
        """Return the probabilities of a slot's actions; None where it has said nothing of them.

        Args:
            event: 64 bits of the hash of the decision's event_id.
            slot: which of its draws.
            count: how many actions the slot has.
        """
        found = self._pmfs.get((event, slot))
        return found if found is not None and len(found) == count else None

    def of_batch(self, batch: LogBatch) -> list[Pmf | None]:
        """Return the same of each row of a batch."""
        counts = demand_actions(batch, "a shadow").counts.tolist()
        slots = [0] * len(batch) if batch.records is None else batch.records.slots.tolist()
        rows = zip(batch.keys.tolist(), slots, counts, strict=True)
        return [self.of(*row) for row in rows]


class ShadowTarget(RowTarget):
    """A shadow as a policy to evaluate, on rows that it has said something of."""

    def __init__(self, name: str, known: KnownPmfs) -> None:
        super().__init__(name)
        self._known = known

    def pmf(self, row: LoggedDecision) -> Pmf:
        """Return the probabilities of a row's actions; see Target."""
        found = self._known.of(key_of(row.event_id), row.slot, len(row.action_ids))
        if found is None:
            raise ReplayError(
                f"shadow {self.name} has said nothing of event {row.event_id}", "policy"
            )
        return found

    def flat_pmfs(self, batch: LogBatch) -> Float64:
        """Return the probabilities of all rows' actions; see Target."""
        known = self._known.of_batch(batch)
        found = [each for each in known if each is not None]
        if len(found) < len(known):
            raise ReplayError(f"shadow {self.name} has not followed all of these rows", "policy")
        return np.concatenate(found, dtype=np.float64)


@dataclass(slots=True)
class KnownRows(PartOfPiece):
    """A piece of a log without the rows that a shadow says nothing of.

    ``rows``: how many were left.
    """

    known: KnownPmfs
    rows: int = 0

    def batches(self) -> Iterator[LogBatch]:
        """Yield the rows that the shadow says something of; see Piece."""
        self.rows = 0
        for read in self.piece.batches():
            batch = with_actions(read)
            kept = np.array([each is not None for each in self.known.of_batch(batch)], np.bool_)
            self.rows += int(kept.sum())
            if kept.any():
                yield batch if kept.all() else batch.take(np.flatnonzero(kept))
