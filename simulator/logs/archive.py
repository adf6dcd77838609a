"""The project's own archive as rows to evaluate: decisions joined with rewards as their spec says.

A row is a slot of a decision that was acted upon and whose window has closed. A window is closed as
the learner closes it, and what came late is left out, whether or not the learner was corrected by
it.
"""

import contextlib
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import msgspec
import numpy as np

from bandits.errors import ArtifactError, BadRowError, BanditloopError, ReplayError, SpecError
from bandits.log.encoded_decisions import whole_record
from bandits.log.join import Join, JoinedDecision, JoinRule
from bandits.log.positions import START, has_reached, log_order, position_at, position_ms
from bandits.log.records import DecisionRecord, LogEntry, SpecRecord, TickRecord
from bandits.log.versions import fold_version
from policies.archive.archive import ArchiveReader, archive_folders
from policies.blend import make_learner
from policies.catalogue import Catalogue
from policies.spec import PolicySpec, decode_spec
from simulator.logs.rows import (
    BATCH_ROWS,
    NO_WAITING,
    LogBatch,
    LoggedDecision,
    Piece,
    Waiting,
    batch_of,
    caution_of,
    waiting_of,
)

WINDOWS_READ_BEFORE = 2
"""Windows after which a join has forgotten a decision: a piece starts to read so much earlier."""

CAUTION = (
    "only rewards within {:g} s of a decision are counted, where the policy waits {:g} s: values"
    " are of early rewards,"
    " mostly too low, and unfair to actions whose rewards come late; look again when the windows"
    " have closed"
)


@dataclass(slots=True)
class ArchivePiece:
    """The decisions of one policy's archive past ``after``, up to and including ``through``.

    It reads from ``start``, two windows earlier, so that duplicates and rewards that came early are
    known, and on until the last window is closed.

    Attributes:
        through: Last position of the piece, or None for the end of the archive.
        rule: The join of the spec in force at ``start``, with no window above ``window_s``.
        fold: The version of the fold in force at ``start``.
        waiting: The decisions whose windows the log does not close.
        caution: The warning that belongs to every number computed from the piece, mostly none.
    """

    root: str
    policy: str
    after: str = START
    through: str | None = None
    start: str = START
    rule: JoinRule = field(default_factory=JoinRule)
    skip_bad: bool = False
    window_s: float | None = None
    caution: str = ""
    skipped: int = 0
    waiting: Waiting = NO_WAITING
    fold: int = 1

    def batches(self) -> Iterator[LogBatch]:
        """Yield the rows; see Piece.

        The learner passed over an entry that does not decode, and over a decision that names no
        spec or catalogue. Whoever evaluates has to know of them: here they are bad rows.
        """
        rows: list[LoggedDecision] = []
        self.skipped, self.waiting = 0, NO_WAITING
        reader = ArchiveReader(self.root, self.policy)
        catalogues = {Catalogue().digest: Catalogue()}

        for joined in self._joined(reader):
            name = joined.record.catalogue
            if name not in catalogues:
                data = reader.blob(name)
                try:
                    catalogues[name] = Catalogue.decode(data)
                except ArtifactError as error:
                    self._refuse(joined.position, error)
                    continue

            rows.extend(decision_rows(joined, catalogues[name]))
            if len(rows) >= BATCH_ROWS:
                yield batch_of(rows)
                rows = []

        if rows:
            yield batch_of(rows)

    def _refuse(self, entry_id: str, error: BanditloopError) -> None:
        """Count a bad entry, or raise unless bad rows are skipped; entries of other pieces pass."""
        if not self._owns(entry_id):
            return
        if not self.skip_bad:
            raise BadRowError(
                f"{self.root}/{self.policy}, entry {entry_id}: {error.message}", "record"
            ) from error
        self.skipped += 1

    def _owns(self, position: str) -> bool:
        at = log_order(position)
        return log_order(self.after) < at and (
            self.through is None or at <= log_order(self.through)
        )

    def _joined(self, reader: ArchiveReader) -> Iterator[JoinedDecision]:
        """Yield the piece's decisions whose windows close; then say which still wait."""
        rules: dict[str, JoinRule] = {}

        def rule_of(digest: str) -> JoinRule:
            if digest not in rules:
                spec = decode_spec(reader.blob(digest))
                rules[digest] = evaluation_rule(spec.join, self.window_s)
            return rules[digest]

        join = Join(rule_of, rule=self.rule, fold=self.fold)
        through = None if self.through is None else log_order(self.through)
        for read in reader.entries(self.start, on_undecodable=self._refuse):
            entry = self._applicable(read, rule_of)
            for joined in join.apply(entry):
                if self._owns(joined.position):
                    yield joined

            # A spec that the learner refused changes nothing: the one before stays in force.
            if isinstance(entry.record, SpecRecord):
                spec = spec_in_force(reader, entry.record.digest)
                if spec is not None:
                    join.rule = evaluation_rule(spec.join, self.window_s)

            # Past the piece's end, entries are read only to close the windows of its decisions.
            if through is not None and log_order(entry.id) > through:
                oldest = join.oldest_open()
                if oldest is None or log_order(oldest) > through:
                    return

        closing = [at for position, at in join.open_windows() if self._owns(position)]
        self.waiting = Waiting(len(closing), min(closing, default=0), max(closing, default=0))

    def _applicable(self, entry: LogEntry, rule_of: Callable[[str], JoinRule]) -> LogEntry:
        """Return an entry as it is folded.

        A decision that names no valid spec says only that time has passed.
        """
        if isinstance(entry.record, DecisionRecord):
            try:
                rule_of(entry.record.spec)
            except SpecError as error:
                self._refuse(entry.id, error)
                return LogEntry(entry.id, TickRecord())
        return entry


def archive_pieces(
    root: str, policy: str, count: int, *, skip_bad: bool = False, window_s: float | None = None
) -> Sequence[ArchivePiece]:
    """Return pieces of about the same number of entries, cut between the archive's files.

    Args:
        root: The archive's folder or URI.
        policy: The policy, or one partition of it.
        count: The most pieces to return.
        skip_bad: Whether bad rows are counted and left out, rather than an error.
        window_s: Longest window in seconds, to look before windows have closed; None: as specified.

    Raises:
        ReplayError: There is no such archive.
        ArchiveError: It is damaged.
    """
    reader = ArchiveReader(root, policy)
    ranges = reader.ranges()
    if not ranges:
        raise ReplayError(f"no range of {policy!r} is archived in {root}", "log")

    # Specs that the learner refused were never in force.
    decoded = {digest: spec_in_force(reader, digest) for _, digest in reader.specs()}
    valid = {digest: spec for digest, spec in decoded.items() if spec is not None}
    specs = [(position, digest) for position, digest in reader.specs() if digest in valid]
    rules = {digest: evaluation_rule(spec.join, window_s) for digest, spec in valid.items()}
    builds = reader.builds()

    longest = max((spec.join.window_s for spec in valid.values()), default=0.0)
    caution = "" if window_s is None or window_s >= longest else CAUTION.format(window_s, longest)

    # A piece ends with a file, once the pieces so far have their share of all entries.
    total = sum(file.range.count for file in ranges)
    cuts, seen = [START], 0
    for file in ranges[:-1]:
        seen += file.range.count
        if seen * count >= total * len(cuts) and len(cuts) < count:
            cuts.append(file.range.last)

    pieces = []
    reach_ms = WINDOWS_READ_BEFORE * max((rule.window_ms for rule in rules.values()), default=0)
    for number, cut in enumerate(cuts):
        start = START if cut == START else position_at(position_ms(cut) - reach_ms)
        through = cuts[number + 1] if number + 1 < len(cuts) else None

        digests = [digest for position, digest in specs if has_reached(start, position)]
        rule = rules[digests[-1]] if digests else JoinRule()

        folded = [build for position, build in builds if has_reached(start, position)]
        fold = fold_version(folded[-1] if folded else {})

        pieces.append(
            ArchivePiece(
                root, policy, cut, through, start, rule, skip_bad, window_s, caution, fold=fold
            )
        )
    return pieces


def spec_in_force(reader: ArchiveReader, digest: str) -> PolicySpec | None:
    """Return the spec that an entry names; None if the learner refuses it.

    The spec before then stays in force.

    Args:
        reader: The archive that holds the spec as a blob.
        digest: The spec's, as the entry has it: 32 hex digits.

    Raises:
        ArchiveError: There is no such blob, or it is damaged.
    """
    data = reader.blob(digest)
    try:
        spec = decode_spec(data)
        with contextlib.suppress(MemoryError):
            make_learner(spec, salt=b"")
    except SpecError:
        return None
    return spec


def policy_pieces(
    root: str, policy: str, count: int, *, skip_bad: bool = False, window_s: float | None = None
) -> list[ArchivePiece]:
    """Return the pieces of a policy's archive, of all its partitions.

    A decision and its rewards are in one partition, so each is a log by itself.

    Args:
        root: The archive's folder or URI.
        policy: The policy's name, without a partition.
        count: The most pieces to return; there are never fewer than one per partition.
        skip_bad: Whether bad rows are counted and left out, rather than an error.
        window_s: Longest window in seconds, to look before windows have closed; None: as specified.

    Raises:
        ReplayError: A partition has no archive.
        ArchiveError: An archive is damaged.
    """
    folders = archive_folders(root, policy)
    share = max(1, count // len(folders))
    return [
        piece
        for folder in folders
        for piece in archive_pieces(root, folder, share, skip_bad=skip_bad, window_s=window_s)
    ]


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


def evaluation_rule(rule: JoinRule, window_s: float | None = None) -> JoinRule:
    """Return the rule by which an evaluation joins: once, when the window closes.

    Args:
        rule: The rule of the policy's spec.
        window_s: Longest window in seconds; None: the rule's own.
    """
    shorter = rule.window_s if window_s is None else min(window_s, rule.window_s)
    return msgspec.structs.replace(rule, learn="at_close", late="ignore", window_s=shorter)


def decision_rows(
    joined: JoinedDecision, catalogue: Catalogue | None = None
) -> Iterator[LoggedDecision]:
    """Yield a row per slot; in a slate, each among the actions that earlier slots have left.

    Args:
        joined: A decision with the rewards of its slots.
        catalogue: The catalogue that the decision names.
    """
    record = whole_record(joined.record)
    pmfs, scores = record.pmfs(), record.source_scores()
    for slot, reward in zip(joined.slots, joined.rewards, strict=True):
        ids, chosen, pmf = record.action_ids, record.chosen[slot], pmfs[slot]
        features, slot_scores = record.features, scores

        # A later slot chooses among what the slots before it have left.
        if slot:
            left = [k for k in range(len(ids)) if k not in record.chosen[:slot]]
            ids, chosen = [ids[k] for k in left], left.index(chosen)
            pmf = np.ascontiguousarray(pmf[left])
            features = None if features is None else [features[k] for k in left]
            slot_scores = {source: values[left] for source, values in scores.items()}

        yield LoggedDecision(
            event_id=record.event_id,
            context=record.context,
            action_ids=ids,
            chosen=chosen,
            propensity=float(pmf[chosen]),
            reward=reward,
            features=features,
            scores=slot_scores,
            pmf=pmf,
            slot=slot,
            time_ms=position_ms(joined.position),
            record=record,
            catalogue=catalogue,
        )
