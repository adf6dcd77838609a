"""The fold of one of several partitions: it gives its model to merges, and goes on from them.

    cut n      the model as of here is what this partition gives to merge n
    merge n    what P partitions gave is merged, and served; this one goes on from it

A cut has the number after that of the merge adopted last: what a partition gives was learned on top
of that merge. Where models are sums (ridge), a partition gives all of them and merges add them up:
what it learns depends on its own log alone. Where they are gains (Vowpal Wabbit), it gives what it
learned on top of the last merge, and then carries onto the merged model what the merge lacks: what
it learned since its cut, or since the last merge if this one came without its cut.

A prior is taught in partition 0 alone: it gives it to the next merge as if it had learned it, so
all partitions together know it once.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Unpack

import msgspec

from bandits.errors import CodecError, RefusedError
from bandits.log.join import JoinedDecision
from bandits.log.records import (
    CutRecord,
    LogRecord,
    MergeInput,
    MergeRecord,
    PriorRecord,
    RollbackRecord,
    SpecRecord,
    UnknownRecord,
    WarmStartRecord,
)
from bandits.log.versions import RELEARNED_SINCE
from bandits.types import Learner, Snapshot
from policies.blend import make_learner
from policies.fold.checkpoint import (
    Cut,
    FoldState,
    Merging,
    PartitionState,
    Past,
    PriorState,
)
from policies.fold.fold import Fold
from policies.fold.memory import FoldArguments
from policies.items.past import ItemsPast
from policies.spec import PolicySpec


def merge_models(
    spec: PolicySpec, salt: bytes, base: bytes | None, given: "list[tuple[MergeInput, bytes]]"
) -> bytes:
    """Return the model of a merge.

    Where checkpoints are sums, all that is given is added up. Where they are gains on ``base``, an
    input that was given to an earlier merge is in the base already, and is left out by the caller.

    Args:
        spec: the one in force.
        salt: the secret.
        base: the model merged before; None if there was none.
        given: what the partitions gave, in their order, without those that gave nothing.
    """
    start = base if base is not None else make_learner(spec, salt=salt).checkpoint()
    return spec.learner.merge(start, [model for _, model in given])


class PartitionFold(Fold):
    """Folds the log of one partition.

    ``number`` and ``inputs``: those of the newest merge that was adopted. ``base``: its model,
    where models are gains. ``cut``: what is given to the next one. ``uncut``: how many decisions
    have taught since the last cut. ``rollback``: the position, in the log of partition 0, of a
    merge to go back to, until the next merge.

    Args:
        blob: fetches the bytes that an entry names by digest.
        partition: the number of this partition.
        merged: returns the model of a merge, by its entry.
        on_merge: is told of each merge when it was adopted.
        models: without, nothing is learned, and what is left is the join.
        given: see ``Fold``; only a rollback asks the past.
    """

    def __init__(
        self,
        blob: Callable[[str], bytes],
        *,
        partition: int,
        merged: Callable[[MergeRecord], bytes],
        on_merge: Callable[[MergeRecord], None] = lambda _: None,
        models: bool = True,
        **given: Unpack[FoldArguments],
    ) -> None:
        super().__init__(blob, **given)
        self.partition = partition
        self.number = 0
        self.inputs: list[MergeInput | None] = []
        self.base: bytes | None = None
        self.cut: Cut | None = None
        self.rollback: str | None = None
        self.uncut = 0

        self._merged = merged
        self._on_merge = on_merge
        self._learns = models
        self._newest: tuple[str, MergeRecord] | None = None
        # Where this log asks for the rollback that waits.
        self._asked_back = ""

    def resume(self, state: FoldState, past: Past) -> None:
        """Start from a checkpoint instead of from nothing.

        Args:
            state: the checkpoint's; where it says nothing of merges, none has been adopted.
            past: the log behind it, which has the records of the decisions that were open.

        Raises:
            CodecError: the log no longer holds a decision that was open.
            SnapshotError: the model in it is corrupt.
            NewerBuildError: a later build folds this log.
        """
        super().resume(state, past)
        merging = state.merging if isinstance(state, PartitionState) else None
        if merging is not None:
            self.number, self.inputs = merging.number, merging.inputs
            self.base, self.cut, self.rollback = merging.base, merging.cut, merging.rollback
        self.uncut = 1  # not known; to give once more changes nothing

    def begin_behind(self, record: MergeRecord) -> None:
        """Know the merge behind which the log begins, for whoever asks what was served there."""
        self._newest = self.position, record

    def snapshot(self) -> Snapshot:
        """Return the model of the newest merge that was adopted, as of its entry."""
        if self._newest is None or self.spec is None:
            raise CodecError("the log has no merge yet", "merge")

        position, record = self._newest
        learner = make_learner(self.spec, salt=self._salt, checkpoint=self._merged(record))
        return replace(learner.snapshot(position), fold=self.version)

    def _state(self, model: bytes | None) -> FoldState:
        alone = super()._state(model)
        merging = Merging(self.number, self.inputs, self.base, self.cut, self.rollback)
        if isinstance(alone, PriorState):
            return msgspec.structs.replace(alone, merging=merging)
        return PartitionState(**msgspec.structs.asdict(alone), merging=merging)

    def _learn_alike(self, joined: list[JoinedDecision], first: int) -> int:
        added = super()._learn_alike(joined, first) if self._learns else 0
        self.uncut += added
        return added

    def _learn(self, joined: JoinedDecision) -> None:
        self.uncut += 1
        if self._learns:
            super()._learn(joined)

    def _configure(self, record: LogRecord | UnknownRecord) -> None:
        if isinstance(record, CutRecord):
            self._take_cut(record)
        elif isinstance(record, MergeRecord):
            self._adopt(record)
        elif isinstance(record, RollbackRecord):
            self.rollback, self._asked_back = record.position, self.position
            # Partition 0 alone has this entry, and says what is served.
            self.artifact = record.artifact or self.artifact
        elif isinstance(record, WarmStartRecord):
            if record.through is None or self.version < RELEARNED_SINCE:
                raise RefusedError(
                    "a policy in several partitions goes on from no whole model", "partitions"
                )
            self._warm_start(record)
        elif isinstance(record, PriorRecord) and self.partition:
            raise RefusedError("what partition 0 is taught, merges give to the others", "partition")
        else:
            super()._configure(record)

    def _relearn(self, record: WarmStartRecord) -> None:
        """Go on as the fold beside of this log; what it gives to the next merge is learned anew."""
        if self.spec is None or self.spec.learner.merges != "sums":
            raise RefusedError("what it has learned rests on what others have", "partitions")
        super()._relearn(record)
        self.uncut += 1

    def _respec(self, record: SpecRecord) -> None:
        """Go on under another spec; merges of models of another shape are forgotten."""
        before = None if self.spec is None else self.spec.model_digest
        super()._respec(record)
        if self.spec is not None and before != self.spec.model_digest:
            self.inputs, self.base, self.cut = [], None, None

    @property
    def owes_prior(self) -> bool:
        """Whether the newest merge lacks the prior that this partition was taught."""
        given = self.inputs[self.partition] if self.partition < len(self.inputs) else None
        return given is None and self.prior is not None and self.prior.taught is not None

    def _knows_nothing(self) -> bool:
        """Return whether no partition has learned anything, as far as this one knows.

        A prior that was given to a merge cannot be taken back.
        """
        if any(given is not None and given.learned for given in self.inputs):
            return False
        given_away = self.cut is not None or self.base is not None or any(self.inputs)
        untaught = self.learner is None or self.learner.learned == 0
        return untaught or (super()._knows_nothing() and not given_away)

    def _teach_prior(self, learner: Learner, spec: PolicySpec) -> bool:
        """Teach a fresh learner the log's prior, which is then given to the next merge."""
        if self.prior is not None:
            self.uncut += 1
        return super()._teach_prior(learner, spec)

    def _take_cut(self, record: CutRecord) -> None:
        """Serialise here, and go on from those bytes."""
        # A second cut of one number, by another leader, is none.
        if (
            record.number != self.number + 1
            or self.cut is not None
            or self.spec is None
            or self.learner is None
        ):
            return

        model = self.learner.checkpoint()
        self.learner = make_learner(self.spec, salt=self._salt, checkpoint=model)
        self.cut = Cut(record.number, self.position, self.learned, model)
        self.uncut = 0

    def _adopt(self, record: MergeRecord) -> None:
        """Go on from a merge, once; an older one, or of another model, is passed over."""
        spec = self.spec
        if (
            spec is None
            or self.learner is None
            or record.number <= self.number
            or record.model != spec.model_digest
        ):
            return

        # The cut counts only if the merge took it.
        own = record.inputs[self.partition] if self.partition < len(record.inputs) else None
        cut = self.cut
        if cut is not None and (own is None or own.position != cut.position):
            cut = None

        if record.restores:
            self._restore(spec, record, own)
        elif self._learns and spec.learner.merges == "gains":
            merged = self._merged(record)
            since = cut.model if cut is not None else self.base
            if since is None:
                since = make_learner(spec, salt=self._salt).checkpoint()
            carried = spec.learner.carry(merged, since, self.learner.checkpoint())
            self.learner = make_learner(spec, salt=self._salt, checkpoint=carried)
            self.base = merged

        # What was given and not taken is given again.
        if self.cut is not None and cut is None:
            self.uncut += 1
        # A rollback is answered by a merge that restores; by any other it is refused.
        if self.rollback is not None and not record.restores:
            why = f"{self.rollback} is no merge of a model of the spec in force"
            self._refuse(self._asked_back or self.position, "rollback", why)

        self.number, self.inputs, self.cut, self.rollback = record.number, record.inputs, None, None
        self._newest = (self.position, record)
        self.changes += 1
        self._on_merge(record)

    def _restore(self, spec: PolicySpec, record: MergeRecord, own: MergeInput | None) -> None:
        """Be as when this partition gave ``own``; open windows carry on.

        Args:
            spec: the one in force.
            record: the merge that restores an earlier one.
            own: what this partition gave to that one; None if it gave nothing.
        """
        # A model of sums is made again from this log alone; one of gains is the merged model.
        sums = spec.learner.merges == "sums"
        then = None if own is None else self._refolded(own.position, models=sums)
        model = None
        if sums and then is not None and then.learner is not None:
            model = then.learner.checkpoint()
        if not sums and self._learns:
            model = self.base = self._merged(record)

        self.learner = make_learner(spec, salt=self._salt, checkpoint=model)
        self.learned = 0 if own is None else own.learned
        self.pinned = None
        self.uncut = 1
        self._prior_as_of(then)
        if then is None:
            self.join.forget_taught(self.position)
        else:
            self.join.adopt_taught(then.join, self.position, then.position)

    def _refolded(self, position: str, *, models: bool) -> "Fold":
        """Return the fold of the same log as of an earlier position."""
        if self._past is None:
            raise CodecError("a rollback needs the log behind it", "past")
        return self._as_of(position, self._past, models=models)

    def _empty(self, *, models: bool = True) -> "PartitionFold":
        """Return another fold of the same log, with nothing in it."""
        return self._another(models=models, weigh_by=self._weigh_by)

    def beside(self, spec: str) -> "PartitionFold":
        """Return an empty fold of the same log, which weighs all rewards as one spec does.

        Args:
            spec: the digest of the spec.
        """
        return self._another(models=True, weigh_by=spec)

    def _another(self, *, models: bool, weigh_by: str | None) -> "PartitionFold":
        return PartitionFold(
            self._blobs.fetch,
            salt=self._salt,
            partition=self.partition,
            merged=self._merged,
            past=self._past,
            items=ItemsPast(self._blobs.items.log),
            models=models,
            weigh_by=weigh_by,
        )
