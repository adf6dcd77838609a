"""Learning as a fold over the log: state depends on the sequence of entries and on nothing else.

Every entry has one of three outcomes:

- It is applied.
- It is refused: counted, with its reason, and what it says is not done. The reason follows from its
  own bytes and those of the blobs that it names alone, so whoever folds the log refuses it alike.
- Whatever else goes wrong (a blob is missing or damaged, memory, numerics), the fold stops:
  StalledError names the entry, and another fold, from a checkpoint on, may get past it when the
  cause is gone.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice

import msgspec

from bandits.errors import (
    BanditloopError,
    CodecError,
    InvalidInputError,
    NewerBuildError,
    RefusedError,
    SnapshotError,
    SpecError,
    StalledError,
)
from bandits.log.encoded_decisions import DECISIONS, Decision, choice_of
from bandits.log.join import Join, JoinedDecision, JoinRule
from bandits.log.older_decisions import Opened
from bandits.log.positions import START, has_reached, position_before, position_ms
from bandits.log.records import (
    ActivationRecord,
    ArtifactRecord,
    BuildRecord,
    CatalogueRecord,
    CheckpointRecord,
    EncodedDecision,
    LogEntry,
    LogRecord,
    PinRecord,
    PriorRecord,
    RewardRecord,
    RollbackRecord,
    SpecRecord,
    TickRecord,
    UnknownRecord,
    WarmStartRecord,
    kind_of,
)
from bandits.log.trends import Trends, encode_trends
from bandits.log.versions import fold_version
from bandits.types import ChosenRow, Interaction, Learner, Snapshot
from policies.artifacts.learner_model import decode_trained
from policies.blend import make_learner
from policies.fold.checkpoint import (
    FoldState,
    Past,
    PriorState,
    Refusal,
    Relearned,
    SignalledState,
    TrendingState,
    with_prior,
    with_signals,
    with_trends,
)
from policies.fold.known_prior import LEARNED_BEFORE, ROLLED_BACK, WARM_STARTED, KnownPrior
from policies.fold.named_blobs import NamedBlobs
from policies.fold.prior import begin_with, demand_prior
from policies.fold.read_behind import ReadBehind, inherited_records
from policies.fold.relearning import state_beside, weighed_by
from policies.fold.teaching import Lessons, taught_interactions, taught_rows
from policies.items.catalogue import Catalogue
from policies.items.past import ItemsPast
from policies.spec import PolicySpec

EVENTS = (*DECISIONS, RewardRecord)
REWARDING = (RewardRecord, ActivationRecord)
READ_AHEAD = 1000
"""How many entries are looked through for records to read again, before they are applied."""


RewardListener = Callable[[Decision, int, int, RewardRecord], None]
"""Is told the decision, the slot and the time of a reward that counts, and the reward."""


class Fold:
    """Folds one policy's log into its learner.

    ``spec`` (named ``spec_id``), ``catalogue``, ``artifact`` and ``build`` are the newest of the
    log; ``builds`` are all of them. ``pinned`` is the snapshot to serve if it is not the newest. A
    new spec keeps the learned model unless a part changed that the model depends on. ``changes``
    counts how often the model changed since this object was made. ``join.counts`` counts refused
    entries by kind, as ``refused_decision``. ``trends`` has a table of counts for each half-life of
    the spec's sources. ``prior`` is the newest of the log, and what became of
    it; None if the log has none.

    Args:
        blob: fetches the bytes that an entry names by digest.
        salt: the secret.
        past: the log behind the fold, for rollbacks, and for the records of decisions that are open
            for long; None: all of these are kept in memory.
        items: the versions of the items that decisions name; None: only whole catalogues are named.
        on_checkpoint: is told the position of each checkpoint, and is given what makes its bytes,
            to call at once.
        on_refused: is told of each entry that is refused.
        weigh_by: a spec, by digest, whose signals count for all decisions: a fold beside; see
            relearning.py. None: those of each decision's own.
    """

    def __init__(
        self,
        blob: Callable[[str], bytes],
        *,
        salt: bytes,
        past: Past | None = None,
        items: ItemsPast | None = None,
        on_checkpoint: Callable[[str, Callable[[], bytes]], None] | None = None,
        on_refused: Callable[[Refusal], None] = lambda _: None,
        weigh_by: str | None = None,
    ) -> None:
        self._blobs = NamedBlobs(blob, items)
        self._blobs.items.asked_by(self._needed_versions)
        self._salt = salt
        self._past = past
        self._on_checkpoint = on_checkpoint
        self._on_refused = on_refused
        self._weigh_by = weigh_by

        self.spec: PolicySpec | None = None
        self.spec_id: str | None = None
        self.salt_id: str | None = None
        self.catalogue = Catalogue()
        self.artifact: str | None = None
        self.build: dict[str, str] = {}
        self.builds: list[dict[str, str]] = []
        self.pinned: str | None = None
        self.prior: KnownPrior | None = None
        self.relearned: Relearned | None = None
        self.is_mixed = False
        self._specs_named = set[str]()
        self.refused_rollbacks = 0
        self.refused_warm_starts = 0

        self._learner: Learner | None = None
        self._lessons = Lessons(self._blobs.catalogue_alike)
        behind = None if past is None else ReadBehind(past)
        self.join = Join(self._rule_of, waits=self._waits, behind=behind)
        self.trends = list[Trends]()
        self._listener: RewardListener | None = None
        self.position = START
        self.learned = 0
        self.changes = 0

    def resume(self, state: FoldState, past: Past) -> None:
        """Start from a checkpoint instead of from nothing.

        Args:
            state: the checkpoint's.
            past: the log behind it, which has the decisions that are remembered.

        Raises:
            CodecError: the log no longer holds all of them.
            SnapshotError: the model in it is corrupt.
            NewerBuildError: a later build folds this log.
        """
        self.join.fold = fold_version(state.build)
        self.position, self.learned = state.position, state.learned
        self.salt_id, self.artifact = state.salt_id, state.artifact
        self.build, self.builds, self.pinned = state.build, list(state.builds), state.pinned
        self.refused_rollbacks, self.refused_warm_starts = (
            state.refused_rollbacks,
            state.refused_warm_starts,
        )

        known = state.prior if isinstance(state, PriorState) else None
        self.prior = None if known is None else KnownPrior.restored(known)
        trends = state.trends if isinstance(state, TrendingState) else None
        self._follow([Trends(each.half_life_ms, each.items) for each in trends or ()])

        self.catalogue = self._blobs.catalogue(state.catalogue)
        self.join.behind = ReadBehind(past)
        if state.spec is not None:
            self.spec, self.spec_id = self._blobs.spec(state.spec), state.spec
            self.join.rule = self.spec.rule
            self.learner = make_learner(self.spec, salt=self._salt, checkpoint=state.learner)

        # What is remembered of decisions is not in a checkpoint: it follows from the log.
        join = state.join
        opened: Iterable[Opened] = ()
        if join.oldest is not None and has_reached(state.position, join.oldest):
            opened = past.opened(position_before(join.oldest), state.position)
        signalled = state if isinstance(state, SignalledState) else None
        if signalled is not None:
            self.relearned, self.is_mixed = signalled.relearned, signalled.is_mixed
            self._specs_named.update(signalled.relearned.specs if signalled.relearned else ())
        self.join.restore(join, opened, inherited_records(state, past))
        if signalled is not None:
            self.join.signals = dict(signalled.signals or {})

    def tell_rewards(self, listener: RewardListener) -> None:
        """Tell of each reward that joins an activated decision in time, when it does."""
        self._listener = listener
        self._follow(self.trends)

    def spec_of(self, name: str) -> PolicySpec:
        """Return the spec of a digest that an entry names.

        Raises:
            RefusedError, MissingBlobError: see ``NamedBlobs.spec``.
        """
        return self._blobs.spec(name)

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

    def _needed_versions(self) -> set[str]:
        """Return the versions of the items that open decisions name."""
        # What waits to be learned is learned first: its decisions are not open any more.
        if self._learner is not None:
            self._lessons.teach(self._learner)
        return self.join.catalogues()

    def _read_ahead(self, entries: list[LogEntry]) -> None:
        """Read the records that rewards in these entries will ask for."""
        behind = self.join.behind
        if isinstance(behind, ReadBehind) and self.join.has_older:
            records = [entry.record for entry in entries]
            rewarded = {each.event_id for each in records if isinstance(each, REWARDING)}
            behind.fetch(self.join.read_again(rewarded))

    def _apply_run(self, entries: list[LogEntry], first: int) -> int:
        """Apply entries from ``first`` on as long as they are plain; return where they end."""
        joined: list[JoinedDecision] = []
        causes: list[int] = []
        end = self.join.apply_run(entries, first, self._blobs.holds_spec, joined, causes)

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

    def _refuse(self, position: str, kind: str, reason: str) -> None:
        if kind == "rollback":
            self.refused_rollbacks += 1
        elif kind == "warm_start":
            self.refused_warm_starts += 1
        else:
            self.join.counts[f"refused_{kind}"] += 1
        self._on_refused(Refusal(position, kind, reason))

    @property
    def learner(self) -> Learner | None:
        """The learner, which has been taught all that was learned."""
        if self._learner is not None:
            self._lessons.teach(self._learner)
        return self._learner

    @learner.setter
    def learner(self, learner: Learner | None) -> None:
        # What waits was learned by the one before.
        if self._learner is not None:
            self._lessons.teach(self._learner)
        self._learner = learner

    @property
    def version(self) -> int:
        """The version of the fold that the newest build of the log says; see FOLD."""
        return self.join.fold

    def snapshot(self) -> Snapshot:
        """Return the learned model as of ``position``."""
        if self.learner is None:
            raise CodecError("the log has no spec yet", "spec")
        trends = encode_trends(self.trends, position_ms(self.position)) if self.trends else None
        return replace(self.learner.snapshot(self.position), fold=self.version, trends=trends)

    def state(self) -> FoldState:
        """Return what a checkpoint as of ``position`` holds."""
        return self._state(None if self.learner is None else self.learner.checkpoint())

    def _state(self, model: bytes | None) -> FoldState:
        state = FoldState(
            self.position,
            self.learned,
            self.spec_id,
            self.salt_id,
            self.catalogue.digest,
            self.artifact,
            self.build,
            self.builds,
            self.pinned,
            model,
            self.join.state(),
            self.refused_rollbacks,
            self.refused_warm_starts,
        )
        state = state if self.prior is None else with_prior(state, self.prior)
        state = with_trends(state, self.trends) if self.trends else state
        relearned = self.relearned
        if self._weigh_by is not None:
            relearned = self._relearned_by(self._weigh_by)
        return with_signals(state, self.join.signals, relearned, is_mixed=self.is_mixed)

    def _learn_or_refuse(self, joined: JoinedDecision) -> None:
        try:
            if not self._learn_alike([joined], 0):
                self._learn(joined)
        except RefusedError as error:
            self._refuse(joined.position, "decision", error.message)

    def _learn_alike(self, joined: list[JoinedDecision], first: int) -> int:
        """Teach the next of some decisions, from ``first`` on, as far as they need no other look.

        The usual case: what has been found of those that wait holds of them, too.
        """
        added, learned = self._lessons.add_alike(joined, first)
        self.changes += added
        self.learned += learned
        return added

    def _learn(self, joined: JoinedDecision) -> None:
        """Teach a joined decision, unless it cannot teach this model."""
        record = joined.record
        learner = self._learner
        if record.holdout or learner is None or self.spec is None or self.spec_id is None:
            return

        # A decision made by a model of another shape teaches this one nothing.
        shape = self._blobs.model_digest
        if record.spec != self.spec_id and shape(record.spec) != shape(self.spec_id):
            return
        # A model that was trained elsewhere is changed by a warm start alone.
        if not self.spec.learner.learns:
            return

        self.changes += 1
        try:
            if (
                learner.by_row
                and isinstance(record, EncodedDecision)
                and self._blobs.spec(record.spec).kind == "blend"
            ):
                self._put_by(learner, joined, record)
            else:
                self._lessons.teach(learner)
                self._teach(learner, joined)
        except InvalidInputError as error:
            raise RefusedError(error.message, error.target) from error

    def _put_by(self, learner: Learner, joined: JoinedDecision, record: EncodedDecision) -> None:
        """Have a joined decision taught later, together with others; no learner refuses it."""
        self._lessons.teach(learner)
        spec, catalogue = self._blobs.spec(record.spec), self._blobs.catalogue(record.catalogue)
        self._lessons.begin(joined, record, spec, catalogue)
        if not joined.correction:
            self.learned += len(joined.slots)

    def _teach(self, learner: Learner, joined: JoinedDecision) -> None:
        """Teach all of it or, where an interaction is refused, nothing."""
        if joined.correction:
            for row in self._rows(joined):
                learner.correct_row(row)
        elif learner.by_row and self._blobs.spec(joined.record.spec).kind == "blend":
            for row in self._rows(joined):
                learner.learn_row(row)
                self.learned += 1
        else:
            interactions = list(self.interactions(joined))
            learner.learn(interactions)
            self.learned += len(interactions)

    def interactions(self, joined: JoinedDecision) -> Iterator[Interaction]:
        """Yield what a joined decision teaches; see ``taught_interactions``."""
        record = joined.record
        spec, catalogue = self._blobs.spec(record.spec), self._blobs.catalogue(record.catalogue)
        return taught_interactions(joined, spec, catalogue)

    def _rows(self, joined: JoinedDecision) -> list[ChosenRow]:
        record = joined.record
        spec, catalogue = self._blobs.spec(record.spec), self._blobs.catalogue(record.catalogue)
        return taught_rows(joined, spec, catalogue)

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
        elif isinstance(record, CatalogueRecord):
            self.catalogue = self._blobs.catalogue(record.digest)
        elif isinstance(record, ArtifactRecord):
            self.artifact = record.version
        elif isinstance(record, BuildRecord):
            self.build = record.build
            self.builds += [] if record.build in self.builds else [record.build]
        elif isinstance(record, CheckpointRecord):
            self._checkpoint()
        elif isinstance(record, PinRecord):
            self.pinned = record.snapshot_id
        elif isinstance(record, RollbackRecord):
            self._roll_back(record)
        elif isinstance(record, WarmStartRecord):
            self._warm_start(record)
        elif isinstance(record, PriorRecord):
            self._take_prior(record)

    def _respec(self, record: SpecRecord) -> None:
        """Go on under another spec; what was learned is kept if the model is the same."""
        # A learner of the new spec goes on from the old one's checkpoint, as whoever resumes does.
        spec = self._blobs.spec(record.digest)
        keeps = (
            self.learner is not None
            and self.spec is not None
            and self.spec.model_digest == spec.model_digest
            and not (self.prior is not None and self._knows_nothing())
        )
        kept = self.learner.checkpoint() if keeps and self.learner is not None else None
        try:
            learner = make_learner(spec, salt=self._salt, checkpoint=kept)
        except SpecError as error:
            raise RefusedError(error.message, error.target) from error

        self.learner = learner
        if not keeps:
            self.join.forget_taught(self.position)
            self._teach_prior(learner, spec)
        if self.spec_id != record.digest:
            self.pinned = None
        weighs_otherwise = self.spec is not None and self.spec.signals != spec.signals
        self.is_mixed = keeps and self._weigh_by is None and (self.is_mixed or weighs_otherwise)
        self._specs_named.add(record.digest)
        self.spec, self.spec_id, self.salt_id = spec, record.digest, record.salt_id
        self.join.rule = spec.rule

        known = {trends.half_life_ms: trends for trends in self.trends}
        self._follow([known.get(each) or Trends(each) for each in spec.half_lives_ms])

    def _follow(self, trends: list[Trends]) -> None:
        """Count the rewards of items from here on, as the spec wants it."""
        self.trends = trends
        self.join.tells_all = self._listener is not None
        listens = bool(trends) or self._listener is not None
        self.join.on_reward = self._rewarded if listens else None

    def _rewarded(
        self, decision: Decision, slot: int, now_ms: int, reward: RewardRecord, worth: float
    ) -> None:
        if self._listener is not None:
            self._listener(decision, slot, now_ms, reward)
        if self.trends and worth > 0:
            ids, chosen = choice_of(decision)
            for trends in self.trends:
                trends.add(ids[chosen[slot]], now_ms)
            self.changes += 1

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

    def _relearned_by(self, spec: str) -> Relearned:
        return Relearned(spec, sorted(self._specs_named - {spec}))

    def _relearn(self, record: WarmStartRecord) -> None:
        """Go on as the fold beside of which the entry names a checkpoint; see relearning.py."""
        if self._past is None:
            raise CodecError("to go on from another fold needs the log behind it", "past")
        data, through = self._blobs.data(record.digest), record.through or ""
        state = state_beside(data, through, self.spec_id, self.position)

        # What came since is folded once more, by whoever folds this log.
        then = self.beside(self.spec_id or "")
        then.resume(state, self._past)
        then.apply(self._past.entries(then.position, self.position))
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

    def _warm_start(self, record: WarmStartRecord) -> None:
        """Go on from a trained model, which replaces what was learned."""
        if record.through is not None:
            # A fold beside has weighed all of it from the start.
            if self._weigh_by is None:
                self._relearn(record)
            return
        data = self._blobs.data(record.digest)
        try:
            trained = decode_trained(data)
            if self.spec is None or trained.spec().model_digest != self.spec.model_digest:
                raise RefusedError(
                    "it was trained for a spec of another kind, use or learner", "spec"
                )
            learner = make_learner(self.spec, salt=self._salt, checkpoint=trained.checkpoint)
        except (SnapshotError, SpecError) as error:
            raise RefusedError(error.message, error.target) from error

        # Fold 1 took no model that was taught in another way than a fresh one would be.
        if self.version == 1 and make_learner(self.spec, salt=self._salt).by_row != learner.by_row:
            raise RefusedError(
                "the checkpoint is of a learner that was taught in another way", "by_row"
            )

        self.learner = learner
        self.pinned = None
        self.learned = trained.learned
        self.changes += 1
        if self.prior is not None:
            self.prior = self.prior.without(WARM_STARTED)
        self.join.forget_taught(self.position)

    def _take_prior(self, record: PriorRecord) -> None:
        """Remember a prior for models to come, and teach it to one that knows nothing else."""
        demand_prior(self._blobs.data(record.digest))
        knows_nothing = self._knows_nothing()
        taught = None if self.prior is None else self.prior.taught
        self.prior = KnownPrior(record.digest, record.strength, taught, catalogue=record.catalogue)

        if self.spec is None:
            return
        if not knows_nothing:
            self.prior = msgspec.structs.replace(self.prior, reason=LEARNED_BEFORE)
            return

        learner = make_learner(self.spec, salt=self._salt)
        if self._teach_prior(learner, self.spec):
            self.prior = msgspec.structs.replace(self.prior, taught=taught)
            raise RefusedError(self.prior.reason, "prior")
        self.learner = learner

    def _knows_nothing(self) -> bool:
        """Return whether the model has learned nothing, or nothing but a prior."""
        learner = self.learner
        counted = 0 if self.prior is None else self.prior.counted
        return learner is None or learner.learned == counted

    def _teach_prior(self, learner: Learner, spec: PolicySpec) -> bool:
        """Teach a fresh learner the log's prior, if there is one; return whether that failed."""
        if self.prior is None:
            return False
        self.changes += 1
        named = self.prior.catalogue
        try:
            catalogue = self._blobs.catalogue(named) if named else self.catalogue
        except RefusedError as error:
            self.prior = self.prior.without(error.message)
            return True
        now_ms = position_ms(self.position)
        self.prior, refused = begin_with(
            self.prior, learner, spec, catalogue, self._blobs.data, now_ms
        )
        return refused

    def _prior_as_of(self, then: "Fold | None") -> None:
        """Take note that the model is an earlier one; the prior of models to come stays."""
        if self.prior is not None:
            known = None if then is None else then.prior
            taught = None if known is None else known.taught
            why = "" if taught is not None else ROLLED_BACK
            self.prior = msgspec.structs.replace(self.prior, taught=taught, reason=why)

    def _rule_of(self, digest: str) -> JoinRule:
        spec, by = self._blobs.spec(digest), self._weigh_by
        if by is None and self.relearned is not None and digest in self.relearned.specs:
            by = self.relearned.by
        return spec.rule if by is None or by == digest else weighed_by(spec, self._blobs.spec(by))

    def _waits(self, digest: str) -> bool:
        learner = self._blobs.spec(digest).learner
        return learner.learns and not learner.corrects


def _stalled(entry: LogEntry, error: Exception) -> StalledError:
    reason = (
        error.message if isinstance(error, BanditloopError) else f"{type(error).__name__}: {error}"
    )
    return StalledError(entry.id, kind_of(entry.record), reason)
