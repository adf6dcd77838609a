"""An archive's settled decisions as batches of rows."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from banditloop_client.schemas import Item
from bandits.errors import ArtifactError, BanditloopError, MissingBlobError
from bandits.log.join import JoinedDecision
from bandits.log.records import DecisionRecord
from policies.archive.archive import ArchiveReader
from policies.archive.row_groups import RowGroup
from policies.items.catalogue import Catalogue
from policies.items.past import ItemsPast
from simulator.logs.archive.decided import Decided, DecisionReader, Stretch
from simulator.logs.archive.entries import Bools, offsets_of
from simulator.logs.archive.features import coded
from simulator.logs.archive.item_history import ItemHistory
from simulator.logs.archive.joined import ArchiveJoin
from simulator.logs.archive.light import PieceBounds
from simulator.logs.archive.rows import decision_rows
from simulator.logs.archive.settled import Settled, SettledRows
from simulator.logs.rows import LazyDecisions, LogBatch, LoggedDecision

COLUMN_ENTRIES = 1 << 14
"""Entries that become a batch, where rows are columns, or a row group more."""
COLUMN_CELLS = 1 << 20
"""Probabilities in a batch, or a few more."""


def settled_batches(
    reader: ArchiveReader, piece: PieceBounds, join: ArchiveJoin, catalogues: "Catalogues"
) -> Iterator[LogBatch]:
    """Yield the rows of a piece, in the order of its decisions and their slots.

    Args:
        reader: The archive.
        piece: Which part of it.
        join: The join of that piece.
        catalogues: Those that its decisions name.
    """
    decisions = DecisionReader(reader, piece.after, piece.through, piece.columns)
    for parts, settled in settled_stretches(decisions, join.spans()):
        kept = [catalogues.known(part, decisions, join.refuse) for part in parts]
        if not all(map(np.all, kept)):
            settled = settled.take(np.concatenate(kept))  # noqa: PLW2901 - the rest of it
        known = [
            part._replace(places=part.places[mine]) for part, mine in zip(parts, kept, strict=True)
        ]
        known = [part for part in known if len(part.places)]
        if known:
            yield _batch_of(Decided(decisions, known, settled), catalogues)


def settled_stretches(
    decisions: DecisionReader, spans: Iterator[Settled]
) -> Iterator[tuple[list[Stretch], Settled]]:
    """Yield the settled decisions of a piece, some at a time, in their order.

    Args:
        decisions: What reads the piece.
        spans: What the join of that piece yields.
    """
    settled = SettledRows(spans)
    groups: list[tuple[str, RowGroup]] = []
    start, stop, cells = 0, 0, 0

    for after, group in decisions.groups():
        groups.append((after, group))
        stop += len(group.batch)
        cells += _cells_of(group.batch)
        if stop - start >= COLUMN_ENTRIES or cells >= COLUMN_CELLS:
            yield _stretches(groups, start, settled.until(stop))
            groups, start, cells = [], stop, 0

    if groups:
        yield _stretches(groups, start, settled.until(stop))


def _stretches(
    groups: Sequence[tuple[str, RowGroup]], start: int, settled: Settled
) -> tuple[list[Stretch], Settled]:
    """Return where the settled decisions of row groups are, the first of entry ``start``."""
    begins = start + offsets_of(np.array([len(group.batch) for _, group in groups]))
    bounds = np.searchsorted(settled.sequence, begins)
    parts = [
        Stretch(after, group, settled.sequence[bounds[at] : bounds[at + 1]] - begins[at])
        for at, (after, group) in enumerate(groups)
    ]
    return parts, settled


class Catalogues:
    """The catalogues that decisions name, by version.

    Args:
        reader: The archive of the decisions.
        items: That of the log of their policy's items, which may be empty.
    """

    def __init__(self, reader: ArchiveReader, items: ArchiveReader) -> None:
        self._reader = reader
        self._past = ItemsPast(items)
        self._history = ItemHistory(items, reader.blob)
        self._known = {Catalogue().digest: Catalogue()}

    def __getitem__(self, version: str) -> Catalogue:
        """Return a catalogue.

        Raises:
            ArtifactError: The blob of that name is none.
            ArchiveError: There is no such blob, or it is damaged.
            MissingBlobError: The log of items has no such version.
        """
        if version not in self._known:
            self._known[version] = self._past.catalogue(version, self._reader.blob)
        return self._known[version]

    def item(self, version: str, item_id: str) -> Item | None:
        """Return an item as a version has it, None where there is none.

        Args:
            version: As a decision names it.
            item_id: The item.

        Raises:
            MissingBlobError: The items of that version are not kept any more.
        """
        at = self._history.at(version)
        if at is None:
            raise MissingBlobError(f"the items of version {version} are not kept", "catalogue")
        return at(item_id)

    def known(
        self, part: Stretch, reader: DecisionReader, refuse: Callable[[str, BanditloopError], None]
    ) -> Bools:
        """Return which decisions of a part name a catalogue, bool[m].

        Args:
            part: Of the archive.
            reader: What has read it.
            refuse: Told of each other decision, and what is wrong.
        """
        named = coded(part.group.batch["catalogue"])
        names = named.dictionary.to_pylist()
        kept = np.ones(len(part.places), np.bool_)
        if self._known.keys() >= set(names):
            return kept

        codes = named.indices.take(pa.array(part.places)).to_numpy()
        errors: dict[int, ArtifactError] = {}
        for code in np.unique(codes).tolist():
            try:
                self[names[code]]
            except ArtifactError as error:
                errors[code] = error
        if not errors:
            return kept

        kept = ~np.isin(codes, list(errors))
        ((ids, _),) = reader.column(part, "id")
        for at in np.flatnonzero(~kept).tolist():
            refuse(ids[int(part.places[at])].as_py(), errors[int(codes[at])])
        return kept


def _cells_of(batch: pa.RecordBatch) -> int:
    """Return how many probabilities, or actions, the decisions of a stretch have."""
    if "pmf" in batch.schema.names:
        return len(batch["pmf"].values)
    return int(pc.sum(batch["actions"]).as_py() or 0)


def _batch_of(decided: Decided, catalogues: Catalogues) -> LogBatch:
    settled = decided.settled
    # A learner of chosen actions looks at no other.
    actions = decided.actions if "pmf" in decided.reader.at_once else None
    made = _MadeRows(decided, catalogues)
    return LogBatch(
        keys=settled.key[decided.decisions],
        times_ms=settled.ms[decided.decisions],
        reward=settled.rewards,
        propensity=decided.propensities(from_pmf=actions is not None),
        decisions=LazyDecisions(made.rows, np.arange(len(settled.rewards))),
        actions=actions,
        records=decided.records(catalogues.__getitem__),
    )


class _MadeRows:
    """The rows of a batch as objects.

    The records are decoded when rows are first looked at; of a single row, only its own.
    """

    def __init__(self, decided: Decided, catalogues: Catalogues) -> None:
        self._decided, self._catalogues = decided, catalogues
        self._records: dict[int, list[DecisionRecord]] = {}
        sizes = [len(part.places) for part in decided.parts]
        self._begins = np.concatenate([[0], np.cumsum(sizes)])

    def rows(self, numbers: NDArray[np.intp]) -> list[LoggedDecision]:
        """Return some of the rows, in the order given."""
        decided, settled = self._decided, self._decided.settled
        out: list[LoggedDecision] = []
        latest, rows = -1, list[LoggedDecision]()
        for number, decision in zip(
            numbers.tolist(), decided.decisions[numbers].tolist(), strict=True
        ):
            if decision != latest:
                first, stop = settled.begins[decision : decision + 2].tolist()
                rewards = tuple(settled.rewards[first:stop].tolist())
                record = self._record(decision, alone=len(numbers) == 1)
                joined = JoinedDecision(
                    f"{settled.ms[decision]}-0", record, tuple(range(len(rewards))), rewards
                )
                version = record.catalogue
                item = partial(self._catalogues.item, version)
                rows = list(decision_rows(joined, self._catalogues[version], item))
                latest = decision
            out.append(rows[number - first])
        return out

    def _record(self, decision: int, *, alone: bool) -> DecisionRecord:
        at = int(np.searchsorted(self._begins, decision, side="right")) - 1
        part, place = self._decided.parts[at], decision - int(self._begins[at])
        if at not in self._records and alone:
            return self._decided.reader.record(part, int(part.places[place]))
        if at not in self._records:
            self._records[at] = self._decided.reader.records(part)
        return self._records[at][place]
