"""What a fold knows of its log: the newest settings, the model, and what it counts.

It goes into a checkpoint and comes back from it; decisions that are remembered follow from the log.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Required, TypedDict

from bandits.errors import CodecError
from bandits.log.encoded_decisions import Decision, choice_of, whole_record
from bandits.log.join import Join, JoinRule
from bandits.log.older_decisions import Opened
from bandits.log.positions import START, has_reached, position_before, position_ms
from bandits.log.records import (
    ArtifactRecord,
    BuildRecord,
    CatalogueRecord,
    ControlRecord,
    LogRecord,
    PinRecord,
    RewardRecord,
    UnknownRecord,
)
from bandits.log.trends import Trends, encode_trends
from bandits.log.versions import fold_version
from bandits.types import Learner, Snapshot
from policies.blend import make_learner
from policies.fold.checkpoint import (
    ControlledState,
    FoldState,
    Past,
    PriorState,
    Refusal,
    Relearned,
    SignalledState,
    TrendingState,
    with_control,
    with_prior,
    with_signals,
    with_trends,
)
from policies.fold.known_prior import KnownPrior
from policies.fold.named_blobs import NamedBlobs
from policies.fold.read_behind import ReadBehind, inherited_records
from policies.fold.relearning import weighed_by
from policies.fold.teaching import Lessons
from policies.items.catalogue import Catalogue
from policies.items.past import ItemsPast
from policies.rules.quotas.measure import ShareMeter, Shares
from policies.rules.quotas.quota import Control
from policies.spec import PolicySpec

RewardListener = Callable[[Decision, int, int, RewardRecord], None]
"""Is told the decision, the slot and the time of a reward that counts, and the reward."""


class FoldArguments(TypedDict, total=False):
    """The arguments that every kind of fold has: see ``FoldMemory``."""

    salt: Required[bytes]
    past: Past | None
    items: ItemsPast | None
    on_checkpoint: Callable[[str, Callable[[], bytes]], None] | None
    on_refused: Callable[[Refusal], None]
    weigh_by: str | None


class FoldMemory:
    """All that a fold knows as of ``position``.

    ``spec`` (named ``spec_id``), ``catalogue``, ``artifact`` and ``build`` are the newest of the
    log; ``builds`` are all of them. ``pinned`` is the snapshot to serve if it is not the newest. A
    new spec keeps the learned model unless a part changed that the model depends on. ``changes``
    counts how often the model changed since this object was made. ``join.counts`` counts refused
    entries by kind, as ``refused_decision``. ``trends`` has a table of counts for each half-life of
    the spec's sources. ``prior`` is the newest of the log, and what became of it; None if the log
    has none. ``control`` is the newest state of the quotas' controller; None if the log has none.

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
        self.control: Control | None = None
        self._specs_named = set[str]()
        self.refused_rollbacks = 0
        self.refused_warm_starts = 0

        self._learner: Learner | None = None
        self._alone: dict[str, bool] = {}
        self._lessons = Lessons(self._blobs.catalogue_alike)
        behind = None if past is None else ReadBehind(past, self._teaches_alone)
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
        self.join.behind = ReadBehind(past, self._teaches_alone)
        if state.spec is not None:
            self.spec, self.spec_id = self._policy(state.spec), state.spec
            self.join.rule = self.spec.rule
            self.learner = make_learner(self.spec, salt=self._salt, checkpoint=state.learner)

        # What is remembered of decisions is not in a checkpoint: it follows from the log.
        join = state.join
        opened: Iterable[Opened] = ()
        if join.oldest is not None and has_reached(state.position, join.oldest):
            opened = past.opened(position_before(join.oldest), state.position)
        self.control = state.control if isinstance(state, ControlledState) else None
        signalled = state if isinstance(state, SignalledState) else None
        if signalled is not None:
            self.relearned, self.is_mixed = signalled.relearned, signalled.is_mixed
            self._specs_named.update(signalled.relearned.specs if signalled.relearned else ())
        self.join.restore(join, opened, inherited_records(state, past))
        if signalled is not None:
            self.join.signals = dict(signalled.signals or {})

    def spec_of(self, name: str) -> PolicySpec:
        """Return the spec of a digest that an entry names.

        Raises:
            RefusedError, MissingBlobError: see ``NamedBlobs.spec``.
        """
        return self._blobs.spec(name)

    def measured(self, meter: ShareMeter, decision: Decision) -> Shares:
        """Return what a decision was given a chance by, of each group of a policy's quotas.

        Args:
            meter: measures it.
            decision: one of this log.

        Raises:
            RefusedError, MissingBlobError: its catalogue is none, or is not stored.
        """
        record, version = whole_record(decision), decision.catalogue
        items = self._blobs.items
        return meter.measure(
            record, self._blobs.catalogue(version), lambda item_id: items.item(version, item_id)
        )

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
        self._learner, self._alone = learner, {}

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

        # What came later is beside it, so that a log without it has the bytes it always had.
        state = state if self.prior is None else with_prior(state, self.prior)
        state = with_trends(state, self.trends) if self.trends else state
        relearned = self.relearned
        if self._weigh_by is not None:
            relearned = self._relearned_by(self._weigh_by)
        state = with_signals(state, self.join.signals, relearned, is_mixed=self.is_mixed)
        return state if self.control is None else with_control(state, self.control)

    def _relearned_by(self, spec: str) -> Relearned:
        return Relearned(spec, sorted(self._specs_named - {spec}))

    def _refuse(self, position: str, kind: str, reason: str) -> None:
        if kind == "rollback":
            self.refused_rollbacks += 1
        elif kind == "warm_start":
            self.refused_warm_starts += 1
        else:
            self.join.counts[f"refused_{kind}"] += 1
        self._on_refused(Refusal(position, kind, reason))

    def _take_note(self, record: LogRecord | UnknownRecord) -> None:
        """Take note of what an entry says that changes no model."""
        if isinstance(record, CatalogueRecord):
            self.catalogue = self._blobs.catalogue(record.digest)
        elif isinstance(record, ArtifactRecord):
            self.artifact = record.version
        elif isinstance(record, BuildRecord):
            self.build = record.build
            self.builds += [] if record.build in self.builds else [record.build]
        elif isinstance(record, PinRecord):
            self.pinned = record.snapshot_id
        elif isinstance(record, ControlRecord):
            self.control = Control(self.position, record.prices)

    def _needed_versions(self) -> set[str]:
        """Return the versions of the items that open decisions name."""
        # What waits to be learned is learned first: its decisions are not open any more.
        if self._learner is not None:
            self._lessons.teach(self._learner)
        return self.join.catalogues()

    def _rule_of(self, digest: str) -> JoinRule:
        spec, by = self._blobs.spec(digest), self._weigh_by
        if by is None and self.relearned is not None and digest in self.relearned.specs:
            by = self.relearned.by
        return spec.rule if by is None or by == digest else weighed_by(spec, self._blobs.spec(by))

    def _waits(self, digest: str) -> bool:
        learner = self._policy(digest).learner
        return learner.learns and not learner.corrects

    def _teaches_alone(self, name: str) -> bool:
        """Return whether what decisions of a spec chose is all that this model learns of them.

        That is without the propensity of it.
        """
        alone = self._alone.get(name)
        if alone is None:
            learner = self._learner
            alone = learner is not None and not learner.weighs and self._teaches_rows(name)
            self._alone[name] = alone
        return alone

    def _teaches_rows(self, name: str) -> bool:
        """Return whether decisions of a spec teach by the features of what they chose alone."""
        # What a learner is not to see is left out one decision after the other.
        made, policy = self._blobs.spec(name), self._policy(name)
        by_row = self._learner is not None and self._learner.by_row and not policy.imitates
        return by_row and made.kind == policy.kind == "blend" and not made.unseen

    def _policy(self, name: str) -> PolicySpec:
        """Return the policy whose model this fold teaches, under a spec of the log, by digest."""
        return self._blobs.spec(name)

    def _shape(self, name: str) -> str:
        """Return the digest of what that policy's model depends on."""
        return self._blobs.model_digest(name)

    def tell_rewards(self, listener: RewardListener) -> None:
        """Tell of each reward that joins an activated decision in time, when it does."""
        self._listener = listener
        self._follow(self.trends)

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
        if self.trends and worth > 0 and slot >= 0:
            ids, chosen = choice_of(decision)
            for trends in self.trends:
                trends.add(ids[chosen[slot]], now_ms)
            self.changes += 1
