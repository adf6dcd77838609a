"""The model of a fold: what it is taught, and what goes on from it or replaces it."""

from collections.abc import Iterator

import msgspec

from bandits.errors import InvalidInputError, RefusedError, SnapshotError, SpecError
from bandits.log.join import JoinedDecision
from bandits.log.positions import position_ms
from bandits.log.records import EncodedDecision, PriorRecord, SpecRecord, WarmStartRecord
from bandits.log.trends import Trends
from bandits.types import ChosenRow, Interaction, Learner
from policies.artifacts.learner_model import decode_trained
from policies.blend import make_learner
from policies.fold.known_prior import LEARNED_BEFORE, ROLLED_BACK, WARM_STARTED, KnownPrior
from policies.fold.memory import FoldMemory
from policies.fold.prior import begin_with, demand_prior
from policies.fold.teaching import imitation_of, taught_interactions, taught_rows
from policies.spec import PolicySpec


class FoldedModel(FoldMemory):
    """The model that a fold's decisions teach, and that its entries change."""

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
        if record.spec != self.spec_id and self._shape(record.spec) != self._shape(self.spec_id):
            return
        # A model that was trained elsewhere is changed by a warm start alone.
        if not self.spec.learner.learns:
            return
        if self._policy(record.spec).imitates:
            found = imitation_of(joined)
            if found is None:
                return
            joined, record = found, found.record

        self.changes += 1
        try:
            if isinstance(record, EncodedDecision) and self._teaches_rows(record.spec):
                self._put_by(learner, joined, record)
            else:
                self._lessons.teach(learner)
                self._teach(learner, joined)
        except InvalidInputError as error:
            raise RefusedError(error.message, error.target) from error

    def _put_by(self, learner: Learner, joined: JoinedDecision, record: EncodedDecision) -> None:
        """Have a joined decision taught later, together with others; no learner refuses it."""
        self._lessons.teach(learner)
        spec, catalogue = self._policy(record.spec), self._blobs.catalogue(record.catalogue)
        self._lessons.begin(joined, record, spec, catalogue)
        if not joined.correction:
            self.learned += len(joined.slots)

    def _teach(self, learner: Learner, joined: JoinedDecision) -> None:
        """Teach all of it or, where an interaction is refused, nothing."""
        if joined.correction:
            for row in self._rows(joined):
                learner.correct_row(row)
        elif learner.by_row and self._policy(joined.record.spec).kind == "blend":
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
        spec, catalogue = self._policy(record.spec), self._blobs.catalogue(record.catalogue)
        return taught_interactions(joined, spec, catalogue)

    def _rows(self, joined: JoinedDecision) -> list[ChosenRow]:
        record = joined.record
        spec, catalogue = self._policy(record.spec), self._blobs.catalogue(record.catalogue)
        return taught_rows(joined, spec, catalogue)

    def _respec(self, record: SpecRecord) -> None:
        """Go on under another spec; what was learned is kept if the model is the same."""
        # A learner of the new spec goes on from the old one's checkpoint, as whoever resumes does.
        spec = self._policy(record.digest)
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

    def _warm_start(self, record: WarmStartRecord) -> None:
        """Go on from a trained model, which replaces what was learned."""
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

    def _prior_as_of(self, then: FoldMemory | None) -> None:
        """Take note that the model is an earlier one; the prior of models to come stays."""
        if self.prior is not None:
            known = None if then is None else then.prior
            taught = None if known is None else known.taught
            why = "" if taught is not None else ROLLED_BACK
            self.prior = msgspec.structs.replace(self.prior, taught=taught, reason=why)
