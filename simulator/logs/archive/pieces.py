"""The project's own archive as rows to evaluate: decisions joined with rewards as their spec says.

A row is a slot of a decision that was acted upon and whose window has closed. A window is closed as
the learner closes it, and what came late is left out, whether or not the learner was corrected by
it.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from pyarrow.fs import FileSystem

from bandits.errors import BadRowError, BanditloopError, ReplayError
from bandits.features.namespaces import CONTEXT, FEATURES, SCORES
from bandits.log.join import JoinRule
from bandits.log.positions import START, has_reached, is_after, log_order, position_at, position_ms
from bandits.log.versions import fold_version
from policies.archive.archive import ArchiveReader, archive_folders
from policies.archive.shared import archived_items
from policies.spec import PolicySpec
from policies.storage import shown
from simulator.logs.archive.batches import Catalogues, settled_batches
from simulator.logs.archive.decided import EVALUATED, LEARNED
from simulator.logs.archive.joined import ArchiveJoin
from simulator.logs.archive.rules import evaluation_rule, spec_in_force
from simulator.logs.rows import NO_WAITING, LogBatch, Piece, Waiting

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
        columns: What is read of each decision from the start; the rest, when it is asked for.
        weigh_by: The spec whose signals count for all rewards; None: as the log was learned last.
    """

    root: "str | FileSystem"
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
    columns: Sequence[str] = EVALUATED
    weigh_by: PolicySpec | None = None

    def batches(self) -> Iterator[LogBatch]:
        """Yield the rows, in the order of their decisions and slots; see Piece.

        The learner passed over an entry that does not decode, and over a decision that names no
        spec or catalogue. Whoever evaluates has to know of them: here they are bad rows.
        """
        self.skipped, self.waiting = 0, NO_WAITING
        reader = ArchiveReader(self.root, self.policy)
        join = ArchiveJoin(reader, self, self._refuse)
        items = archived_items(self.root, self.policy)
        yield from settled_batches(reader, self, join, Catalogues(reader, items))
        self.waiting = join.waiting

    def _refuse(self, entry_id: str, error: BanditloopError) -> None:
        """Count a bad entry, or raise unless bad rows are skipped; entries of other pieces pass."""
        at = log_order(entry_id)
        owned = log_order(self.after) < at and (
            self.through is None or at <= log_order(self.through)
        )
        if not owned:
            return
        if not self.skip_bad:
            raise BadRowError(
                f"{shown(self.root)}/{self.policy}, entry {entry_id}: {error.message}", "record"
            ) from error
        self.skipped += 1


def read_for_learning(pieces: Iterable[Piece], use: Collection[str]) -> None:
    """Have archives read what a learner of chosen actions asks for, and nothing else.

    Args:
        pieces: Those of archives are changed; others may be wrapped around them.
        use: The namespaces that the learner sees.
    """
    features = [name for name in (CONTEXT, FEATURES, SCORES) if name in use]
    for piece in pieces_of_archives(pieces):
        piece.columns = (*LEARNED, *features)


def weigh_rewards(pieces: Iterable[Piece], spec: PolicySpec) -> None:
    """Have archives join rewards under the signals of a spec, if it weighs any.

    Args:
        pieces: Those of archives are changed; others may be wrapped around them.
        spec: The spec of a policy that is to learn from them.
    """
    if spec.signals is not msgspec.UNSET:
        for piece in pieces_of_archives(pieces):
            piece.weigh_by = spec


def pieces_of_archives(pieces: Iterable[Piece]) -> Iterator[ArchivePiece]:
    """Yield the pieces of archives among some, or inside of what is wrapped around them."""
    for piece in pieces:
        inner: Any = piece
        while hasattr(inner, "piece"):
            inner = inner.piece
        if isinstance(inner, ArchivePiece):
            yield inner


def archive_pieces(
    root: "str | FileSystem",
    policy: str,
    count: int,
    *,
    skip_bad: bool = False,
    window_s: float | None = None,
    after: str = START,
    through: str | None = None,
) -> Sequence[ArchivePiece]:
    """Return pieces of about the same number of entries, cut between the archive's files.

    Args:
        root: The archive's folder or URI, or a file system.
        policy: The policy, or one partition of it.
        count: The most pieces to return.
        skip_bad: Whether bad rows are counted and left out, rather than an error.
        window_s: Longest window in seconds, to look before windows have closed; None: as specified.
        after: Only decisions past this position.
        through: Only decisions up to this one; None: to the end.

    Raises:
        ReplayError: There is no such archive.
        ArchiveError: It is damaged.
    """
    reader = ArchiveReader(root, policy)
    if reader.end == START:
        raise ReplayError(f"no range of {policy!r} is archived in {shown(root)}", "log")
    # From the beginning on, nothing is in force that a reader would not come by.
    if count == 1 and window_s is None and after == START and through is None:
        return [ArchivePiece(root, policy, skip_bad=skip_bad)]

    # Specs that the learner refused were never in force.
    entered = reader.specs()
    decoded = {digest: spec_in_force(reader, digest) for digest in {each for _, each in entered}}
    valid = {digest: spec for digest, spec in decoded.items() if spec is not None}
    specs = [(position, digest) for position, digest in entered if digest in valid]
    rules = {digest: evaluation_rule(spec.rule, window_s) for digest, spec in valid.items()}
    builds = reader.builds()

    longest = max((spec.rule.window_s for spec in valid.values()), default=0.0)
    caution = "" if window_s is None or window_s >= longest else CAUTION.format(window_s, longest)

    # A piece ends with a file, once the pieces so far have their share of all entries.
    ranges = [
        file
        for file in reader.each_range()
        if is_after(file.range.last, after)
        and (through is None or not is_after(file.range.first, through))
    ]
    total = sum(file.range.count for file in ranges)
    cuts, seen = [after], 0
    for file in ranges[:-1]:
        seen += file.range.count
        if seen * count >= total * len(cuts) and len(cuts) < count:
            cuts.append(file.range.last)

    pieces = []
    reach_ms = WINDOWS_READ_BEFORE * max((rule.window_ms for rule in rules.values()), default=0)
    for number, cut in enumerate(cuts):
        start = START if cut == START else position_at(position_ms(cut) - reach_ms)
        end = cuts[number + 1] if number + 1 < len(cuts) else through

        digests = [digest for position, digest in specs if has_reached(start, position)]
        rule = rules[digests[-1]] if digests else JoinRule()

        folded = [build for position, build in builds if has_reached(start, position)]
        fold = fold_version(folded[-1] if folded else {})

        pieces.append(
            ArchivePiece(
                root, policy, cut, end, start, rule, skip_bad, window_s, caution, fold=fold
            )
        )
    return pieces


def policy_pieces(
    root: "str | FileSystem",
    policy: str,
    count: int,
    *,
    skip_bad: bool = False,
    window_s: float | None = None,
    after: str = START,
    through: str | None = None,
) -> list[ArchivePiece]:
    """Return the pieces of a policy's archive, of all its partitions.

    A decision and its rewards are in one partition, so each is a log by itself.

    Args:
        root: The archive's folder or URI, or a file system.
        policy: The policy's name, without a partition.
        count: The most pieces to return; there are never fewer than one per partition.
        skip_bad: Whether bad rows are counted and left out, rather than an error.
        window_s: Longest window in seconds, to look before windows have closed; None: as specified.
        after: Only decisions past this position.
        through: Only decisions up to this one; None: to the end.

    Raises:
        ReplayError: A partition has no archive.
        ArchiveError: An archive is damaged.
    """
    folders = archive_folders(root, policy)
    share = max(1, count // len(folders))
    return [
        piece
        for folder in folders
        for piece in archive_pieces(
            root,
            folder,
            share,
            skip_bad=skip_bad,
            window_s=window_s,
            after=after,
            through=through,
        )
    ]
