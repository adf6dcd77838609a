"""The project's own archive as rows to evaluate: decisions joined with their rewards under the spec that made them.

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
    NONE_WAIT,
    LogBatch,
    LoggedDecision,
    Piece,
    Waiting,
    batch_of,
    caution_of,
    waiting_of,
)

REMEMBERED = 2
"""Windows after which a join has forgotten a decision: a piece starts to read so much earlier."""

CAUTION = (
    "only rewards within {:g} s of a decision are counted, where the policy waits {:g} s: values"
    " are of early rewards,"
    " mostly too low, and unfair to actions whose rewards come late; look again when the windows"
    " have closed"
)


@dataclass(slots=True)
class ArchivePiece:
    """The decisions past ``after``, up to and including ``through`` (None: the end), of one policy's archive.

    It reads from ``start``, two windows earlier, so that duplicates and rewards that came early are
    known, and on until the last window is closed. ``rule`` is the join of the spec in force at
    ``start``, with no window above ``window_s``, and ``fold`` the version of the fold. ``waiting``:
    of the decisions, those whose windows the log does not close. ``caution``: what has to be said
    of whatever is found.
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
    waiting: Waiting = NONE_WAIT
    fold: int = 1

    def batches(self) -> Iterator[LogBatch]:
        """See Piece.

        An entry that does not decode was none to the learner, and of a decision that names what is
        no spec or catalogue it learned nothing, but whoever evaluates has to know of it.
        """
        rows: list[LoggedDecision] = []
        self.skipped, self.waiting = 0, NONE_WAIT
        reader = ArchiveReader(self.root, self.policy)
        catalogues = {Catalogue().digest: Catalogue()}
        for joined in self._joined(reader):
            name = joined.record.catalogue
            if name not in catalogues:
                data = reader.blob(name)
                try:
                    catalogues[name] = Catalogue.decode(data)
                except ArtifactError as error:
                    self._bad(joined.position, error)
                    continue
            rows.extend(decision_rows(joined, catalogues[name]))
            if len(rows) >= BATCH_ROWS:
                yield batch_of(rows)
                rows = []
        if rows:
            yield batch_of(rows)

    def _bad(self, entry_id: str, error: BanditloopError) -> None:
        if not self._owns(entry_id):
            return  # another piece's
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
        rules: dict[str, JoinRule] = {}

        def rule_of(digest: str) -> JoinRule:
            if digest not in rules:
                rules[digest] = evaluation_rule(
                    decode_spec(reader.blob(digest)).join, self.window_s
                )
            return rules[digest]

        join = Join(rule_of, rule=self.rule, fold=self.fold)
        through = None if self.through is None else log_order(self.through)
        for read in reader.entries(self.start, on_undecodable=self._bad):
            entry = self._applicable(read, rule_of)
            for joined in join.apply(entry):
                if self._owns(joined.position):
                    yield joined
            spec = (
                spec_in_force(reader, entry.record.digest)
                if isinstance(entry.record, SpecRecord)
                else None
            )
            if spec is not None:
                join.rule = evaluation_rule(spec.join, self.window_s)
            if through is not None and log_order(entry.id) > through:
                oldest = join.oldest_open()
                if oldest is None or log_order(oldest) > through:
                    return
        closing = [at for position, at in join.open_windows() if self._owns(position)]
        self.waiting = Waiting(len(closing), min(closing, default=0), max(closing, default=0))

    def _applicable(self, entry: LogEntry, rule_of: Callable[[str], JoinRule]) -> LogEntry:
        """An entry as it is folded: a decision of what is no spec says only that time has passed."""
        if isinstance(entry.record, DecisionRecord):
            try:
                rule_of(entry.record.spec)
            except SpecError as error:
                self._bad(entry.id, error)
                return LogEntry(entry.id, TickRecord())
        return entry


def archive_pieces(
    root: str, policy: str, count: int, *, skip_bad: bool = False, window_s: float | None = None
) -> Sequence[ArchivePiece]:
    """At most ``count`` pieces of about the same number of entries, cut between the archive's files.

    ``window_s``: to look before windows have closed: none is longer than so many seconds.

    Raises:
        ReplayError: there is no such archive.
        ArchiveError: it is damaged.
    """
    reader = ArchiveReader(root, policy)
    ranges = reader.ranges()
    if not ranges:
        raise ReplayError(f"no range of {policy!r} is archived in {root}", "log")
    builds, known_specs = (
        reader.builds(),
        {digest: spec_in_force(reader, digest) for _, digest in reader.specs()},
    )
    specs = [each for each in reader.specs() if known_specs[each[1]] is not None]
    rules = {
        name: evaluation_rule(spec.join, window_s)
        for name, spec in known_specs.items()
        if spec is not None
    }
    longest = max(
        (spec.join.window_s for spec in known_specs.values() if spec is not None), default=0.0
    )
    caution = "" if window_s is None or window_s >= longest else CAUTION.format(window_s, longest)
    reach_ms = REMEMBERED * max((rule.window_ms for rule in rules.values()), default=0)
    total = sum(each.range.count for each in ranges)
    cuts, seen = [START], 0
    for each in ranges[:-1]:
        seen += each.range.count
        if seen * count >= total * len(cuts) and len(cuts) < count:
            cuts.append(each.range.last)
    pieces = []
    for number, cut in enumerate(cuts):
        start = START if cut == START else position_at(position_ms(cut) - reach_ms)
        known = [digest for position, digest in specs if has_reached(start, position)]
        rule = rules[known[-1]] if known else JoinRule()
        through = cuts[number + 1] if number + 1 < len(cuts) else None
        folded = [build for position, build in builds if has_reached(start, position)]
        fold = fold_version(folded[-1] if folded else {})
        piece = ArchivePiece(
            root, policy, cut, through, start, rule, skip_bad, window_s, caution, fold=fold
        )
        pieces.append(piece)
    return pieces


def spec_in_force(reader: ArchiveReader, digest: str) -> PolicySpec | None:
    """The spec that an entry names; None where whoever folds the log refuses it, and the one before stays in force."""
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
    """The pieces of a policy's archive, of each of its partitions where there are several.

    See ``archive_pieces``.

    A decision and its rewards are in one partition, so each is a log by itself.
    """
    folders = archive_folders(root, policy)
    share = max(1, count // len(folders))
    return [
        each
        for folder in folders
        for each in archive_pieces(root, folder, share, skip_bad=skip_bad, window_s=window_s)
    ]


class TimeOrdered:
    """Pieces of several partitions as one, their rows in the order of time: for whoever learns on the way."""

    def __init__(self, partitions: Sequence[Sequence[Piece]]) -> None:
        self._partitions = partitions

    @property
    def policy(self) -> str:
        """Whose archive it is."""
        names = (getattr(piece, "policy", "") for pieces in self._partitions for piece in pieces)
        return next(names, "").partition("/")[0]

    @property
    def skipped(self) -> int:
        """See Piece."""
        return sum(piece.skipped for pieces in self._partitions for piece in pieces)

    @property
    def waiting(self) -> Waiting:
        """Of all."""
        return waiting_of(piece for pieces in self._partitions for piece in pieces)

    @property
    def caution(self) -> str:
        """Of any."""
        return caution_of(piece for pieces in self._partitions for piece in pieces)

    def batches(self) -> Iterator[LogBatch]:
        """See Piece."""
        rows = heapq.merge(
            *(_rows(pieces) for pieces in self._partitions), key=lambda row: row.time_ms
        )
        while batch := list(islice(rows, BATCH_ROWS)):
            yield batch_of(batch)


def in_time_order(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """The pieces of a log in an order in which a learner may go through them."""
    partitions: dict[str, list[Piece]] = {}
    for piece in pieces:
        partitions.setdefault(piece.policy if isinstance(piece, ArchivePiece) else "", []).append(
            piece
        )
    return [TimeOrdered(list(partitions.values()))] if len(partitions) > 1 else pieces


def _rows(pieces: Sequence[Piece]) -> Iterator[LoggedDecision]:
    for piece in pieces:
        for batch in piece.batches():
            yield from batch.decisions


def evaluation_rule(rule: JoinRule, window_s: float | None = None) -> JoinRule:
    """A rule that teaches once, when the window closes, which is no longer than ``window_s``."""
    shorter = rule.window_s if window_s is None else min(window_s, rule.window_s)
    return msgspec.structs.replace(rule, learn="at_close", late="ignore", window_s=shorter)


def decision_rows(
    joined: JoinedDecision, catalogue: Catalogue | None = None
) -> Iterator[LoggedDecision]:
    """A row per slot; in a slate, each among the actions that were left."""
    record = joined.record
    pmfs, scores = record.pmfs(), record.source_scores()
    for slot, reward in zip(joined.slots, joined.rewards, strict=True):
        ids, chosen, pmf, features = (
            record.action_ids,
            record.chosen[slot],
            pmfs[slot],
            record.features,
        )
        left_scores = scores
        if slot:
            left = [k for k in range(len(ids)) if k not in record.chosen[:slot]]
            ids, chosen, pmf = (
                [ids[k] for k in left],
                left.index(chosen),
                np.ascontiguousarray(pmf[left]),
            )
            features = None if features is None else [features[k] for k in left]
            left_scores = {source: given[left] for source, given in scores.items()}
        yield LoggedDecision(
            event_id=record.event_id,
            context=record.context,
            action_ids=ids,
            chosen=chosen,
            propensity=float(pmf[chosen]),
            reward=reward,
            features=features,
            scores=left_scores,
            pmf=pmf,
            slot=slot,
            time_ms=position_ms(joined.position),
            record=record,
            catalogue=catalogue,
        )
