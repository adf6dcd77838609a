"""Learning as a fold over the log: state depends on the sequence of entries and on nothing else.

Every entry has one of three outcomes:

- It is applied.
- It is refused: counted, with its reason, and what it says is not done. The reason follows from its
  own bytes and those of the blobs that it names alone, so whoever folds the log refuses it alike.
- Whatever else goes wrong (a blob is missing or damaged, memory, numerics), the fold stops:
  StalledError names the entry, and another fold, from a checkpoint on, may get past it when the
  cause is gone.
"""

from collections.abc import Iterable
from itertools import islice

import msgspec

from bandits.errors import (
    BanditloopError,
    CodecError,
    NewerBuildError,
    RefusedError,
    SnapshotError,
    StalledError,
)
from bandits.log.encoded_decisions import DECISIONS
from bandits.log.join import JoinedDecision
from bandits.log.plain_runs import RunStoppedError
from bandits.log.positions import has_reached, position_ms
from bandits.log.records import (
    ActivationRecord,
    CheckpointRecord,
    LogEntry,
    LogRecord,
    PriorRecord,
    RewardRecord,
    RollbackRecord,
    SpecRecord,
    TickRecord,
    UnknownRecord,
    WarmStartRecord,
    kind_of,
)
from policies.blend import make_learner
from policies.fold.checkpoint import FoldState, Past
from policies.fold.model import FoldedModel
from policies.fold.read_behind import ReadBehind
from policies.fold.relearning import state_beside
from policies.items.past import ItemsPast

EVENTS = (*DECISIONS, RewardRecord)
REWARDING = (RewardRecord, ActivationRecord)
READ_AHEAD = 1000
"""How many entries are looked through for records to read again, before they are applied."""


class Fold(FoldedModel):
    """Folds one policy's log into its learner: entries, in order, and the log once more."""

    def apply(self, entries: Iterable[LogEntry]) -> None:
        """Apply entries in order; any split of the log into calls leaves the same state.

        Raises:
            NewerBuildError: a later build wrote an entry, which was not applied: see ``version``.
            StalledError: one cannot be applied here; this fold is of no further use.
        """
        # What is read again at random places of the log is read for many entries at once.
        iterator = iter(entries)
        while batch := list(islice(iterator, READ_AHEAD)):
            self._read_ahead(batch)
            place = 0
            while (place := self._apply_run(batch, place)) < len(batch):
                try:
                    self._apply(batch[place])
                except NewerBuildError:
                    raise
                except Exception as error:
                    raise _stalled(batch[place], error) from error
                place += 1
            self._blobs.items.tidy()

    def _read_ahead(self, entries: list[LogEntry]) -> None:
        """Read the records that rewards in these entries will ask for."""
        behind = self.join.behind
        if isinstance(behind, ReadBehind):
            if not self.join.reads_again:
                behind.fetch(())
                return
            records = [entry.record for entry in entries]
            rewarded = {each.event_id for each in records if isinstance(each, REWARDING)}
            behind.fetch(self.join.read_again(rewarded))

    def _apply_run(self, entries: list[LogEntry], first: int) -> int:
        """Apply entries from ``first`` on as long as they are plain; return where they end."""
        joined: list[JoinedDecision] = []
        causes: list[int] = []
        try:
            end = self.join.apply_run(entries, first, self._blobs.holds_spec, joined, causes)
        except RunStoppedError as stopped:
            cause = stopped.__cause__
            assert isinstance(cause, Exception)  # noqa: S101 - it has one
            raise _stalled(entries[stopped.place], cause) from cause

        taught = 0
        while (taught := taught + self._learn_alike(joined, taught)) < len(joined):
            try:
                self._learn_or_refuse(joined[taught])
            except Exception as error:
                raise _stalled(entries[causes[taught]], error) from error
            taught += 1
        if end > first:
            self.position = entries[end - 1].id
        return end

    def _apply(self, entry: LogEntry) -> None:
        record = entry.record

        # A decision whose spec is none is refused, but time passes.
        if isinstance(record, DECISIONS):
            if not self._blobs.holds_spec(record.spec):
                try:
                    self._blobs.spec(record.spec)
                except RefusedError as error:
                    self._refuse(entry.id, "decision", error.message)
                    self.join.skip(entry.id)
                    entry = LogEntry(entry.id, TickRecord())
        elif isinstance(record, UnknownRecord):
            self._demand_known(entry.id, record)

        for joined in self.join.apply(entry):
            self._learn_or_refuse(joined)
        self.position = entry.id

        if not isinstance(record, EVENTS):
            try:
                self._configure(record)
            except RefusedError as error:
                self._refuse(entry.id, kind_of(record), error.message)

    def _demand_known(self, position: str, record: UnknownRecord) -> None:
        """Refuse to go on past what a newer build has written; builds of fold 1 passed over it."""
        if self.version > 1:
            raise NewerBuildError(
                f"the entry {position} is of kind {record.kind[:40]!r}, which this build does not"
                " know: use the newer build that has written it; if none has, remove the entry",
                "kind",
            )

    def _configure(self, record: LogRecord | UnknownRecord) -> None:
        """Apply an entry that is no event: what changes what the fold depends on."""
        if isinstance(record, SpecRecord):
            self._respec(record)
        elif isinstance(record, CheckpointRecord):
            self._checkpoint()
        elif isinstance(record, RollbackRecord):
            self._roll_back(record)
        elif isinstance(record, WarmStartRecord):
            self._warm_start(record)
        elif isinstance(record, PriorRecord):
            self._take_prior(record)
        else:
            self._take_note(record)

    def _checkpoint(self) -> None:
        """Serialise the model and go on from those bytes, as whoever resumes does."""
        model = None if self.learner is None else self.learner.checkpoint()
        if self.spec is not None:
            self.learner = make_learner(self.spec, salt=self._salt, checkpoint=model)
        for trends in self.trends:
            trends.prune(position_ms(self.position))
        if self._on_checkpoint is not None:
            self._on_checkpoint(self.position, lambda: msgspec.msgpack.encode(self._state(model)))

    def _roll_back(self, record: RollbackRecord) -> None:
        """Fold to the snapshot's position once more, and take the model from there.

        Open windows carry on.
        """
        if self._past is None:
            raise CodecError("a rollback needs the log behind it", "past")

        # A rollback unpins, also one that is refused.
        self.pinned = None
        then = self._as_of(record.position, self._past)
        if self.spec is None or then.spec is None or then.learner is None:
            raise RefusedError(f"no spec was in force at {record.position}", "position")
        if then.spec.model_digest != self.spec.model_digest:
            raise RefusedError(
                f"the model at {record.position} is of another kind, use or learner than the spec"
                " in force",
                "position",
            )

        self.learner = make_learner(
            self.spec, salt=self._salt, checkpoint=then.learner.checkpoint()
        )
        self.learned = then.learned
        self.artifact = record.artifact or self.artifact
        self.changes += 1
        self._prior_as_of(then)
        self.join.adopt_taught(then.join, self.position, then.position)

    def _as_of(self, position: str, past: Past, *, models: bool = True) -> "Fold":
        """Return the fold of this log as of a position; an empty one if that is not earlier."""
        then = self._empty(models=models)
        if has_reached(position, self.position):
            return then

        # A fold beside has none: those that are stored were weighed otherwise.
        stored = past.checkpoint(position) if self._weigh_by is None else None
        if stored is not None:
            try:
                then.resume(stored, past)
            except (CodecError, SnapshotError, RefusedError):
                # All that a checkpoint spares is reading the log from its start.
                then = self._empty(models=models)

        then.apply(past.entries(then.position, position))
        return then

    def _empty(self, *, models: bool = True) -> "Fold":  # noqa: ARG002 - of several partitions
        """Return another fold of the same log, with nothing in it."""
        items = ItemsPast(self._blobs.items.log)
        return Fold(
            self._blobs.fetch,
            salt=self._salt,
            past=self._past,
            items=items,
            weigh_by=self._weigh_by,
        )

    def beside(self, spec: str) -> "Fold":
        """Return an empty fold of the same log, which weighs all rewards as one spec does.

        Args:
            spec: the digest of the spec.
        """
        items = ItemsPast(self._blobs.items.log)
        return Fold(self._blobs.fetch, salt=self._salt, past=self._past, items=items, weigh_by=spec)

    def _resumed_beside(self, state: FoldState, past: Past) -> "Fold":
        """Return the fold beside, as of here, which goes on from a checkpoint of its own."""
        then = self.beside(self.spec_id or "")
        then.resume(state, past)
        then.apply(past.entries(then.position, self.position))
        return then

    def _warm_start(self, record: WarmStartRecord) -> None:
        """Go on from a trained model, or as a fold beside."""
        if record.through is None:
            super()._warm_start(record)
        # A fold beside has weighed all of it from the start.
        elif self._weigh_by is None:
            self._relearn(record)

    def _relearn(self, record: WarmStartRecord) -> None:
        """Go on as the fold beside of which the entry names a checkpoint; see relearning.py."""
        if self._past is None:
            raise CodecError("to go on from another fold needs the log behind it", "past")
        data, through = self._blobs.data(record.digest), record.through or ""
        state = state_beside(data, through, self.spec_id, self.position)

        # What came since is folded once more, by whoever folds this log.
        then = self._resumed_beside(state, self._past)
        if self.spec is None or then.spec_id != self.spec_id or then.learner is None:
            raise RefusedError("another spec was in force where it was learned", "spec")

        checkpoint = then.learner.checkpoint()
        self.learner = make_learner(self.spec, salt=self._salt, checkpoint=checkpoint)
        self.learned, self.prior = then.learned, then.prior
        self.changes += 1
        self.join.become(then.join)
        self._follow(then.trends)
        self._specs_named |= then._specs_named  # noqa: SLF001 - a fold of the same log
        self.relearned, self.is_mixed = self._relearned_by(then.spec_id or ""), False


def _stalled(entry: LogEntry, error: Exception) -> StalledError:
    reason = (
        error.message if isinstance(error, BanditloopError) else f"{type(error).__name__}: {error}"
    )
    return StalledError(entry.id, kind_of(entry.record), reason)
