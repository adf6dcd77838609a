"""Learning as a fold over the log: state depends on the sequence of entries and on nothing else."""

from collections.abc import Callable, Iterator, Sequence

from bandits.errors import CodecError
from bandits.join import Join, JoinedDecision, JoinRule
from bandits.records import ArtifactRecord, BuildRecord, CatalogueRecord, LogEntry, SpecRecord
from bandits.ridge import RidgeConfig
from bandits.types import Interaction, Learner, Snapshot
from policies.blend import make_learner
from policies.catalogue import Catalogue
from policies.features import featurise_record
from policies.mixture import source_actions
from policies.spec import PolicySpec, decode_spec

START = "0-0"


class Fold:
    """Folds one policy's log into its learner. ``blob`` fetches what an entry names by digest; ``salt`` is the secret.

    ``spec``, ``catalogue``, ``artifact`` and ``build`` are the newest of the log. A new spec keeps the learned model
    unless a part changed that the model depends on.
    """

    def __init__(self, blob: Callable[[str], bytes], *, salt: bytes) -> None:
        self._blob = blob
        self._salt = salt
        self._specs: dict[str, PolicySpec] = {}
        self._catalogues: dict[str, Catalogue] = {Catalogue().digest: Catalogue()}
        self.spec: PolicySpec | None = None
        self.salt_id: str | None = None
        self.catalogue = Catalogue()
        self.artifact: str | None = None
        self.build: dict[str, str] = {}
        self.learner: Learner | None = None
        self.join = Join(self._rule_of)
        self.position = START
        self.learned = 0

    def apply(self, entries: Sequence[LogEntry]) -> None:
        """Apply entries in order. Any split of the log into calls leaves the same state."""
        for entry in entries:
            for joined in self.join.apply(entry):
                self._learn(joined)
            self._configure(entry)
            self.position = entry.id

    def snapshot(self) -> Snapshot:
        """The learned model as of ``position``."""
        if self.learner is None:
            raise CodecError("the log has no spec yet", "spec")
        return self.learner.snapshot(self.position)

    def _learn(self, joined: JoinedDecision) -> None:
        record = joined.record
        if record.holdout or self.learner is None or self.spec is None:
            return
        if self._spec_of(record.spec).model_digest != self.spec.model_digest:
            return  # made by a model of another shape
        interactions = list(self.interactions(joined))
        self.learner.learn(interactions)
        self.learned += len(interactions)

    def interactions(self, joined: JoinedDecision) -> Iterator[Interaction]:
        """What a joined decision teaches: one interaction per slot. Ridge needs no action but the chosen one."""
        record = joined.record
        spec, catalogue = self._spec_of(record.spec), self._catalogue_of(record.catalogue)
        pmfs = record.pmfs()
        if spec.kind == "blend" and isinstance(spec.learner, RidgeConfig):
            context, chosen_actions = featurise_record(spec, catalogue, record, record.chosen)
            for slot, index in enumerate(record.chosen):
                action, propensity = chosen_actions.take([slot]), float(pmfs[slot, index])
                yield Interaction(record.event_id, slot, context, action, 0, propensity, joined.rewards[slot])
            return
        context, actions = featurise_record(spec, catalogue, record)
        for slot, index in enumerate(record.chosen):
            earlier = record.chosen[:slot]
            remaining = [k for k in range(len(actions)) if k not in earlier]
            available = actions if not earlier else actions.take(remaining)
            chosen, propensity = remaining.index(index), float(pmfs[slot, index])
            if spec.kind == "mixture":
                if record.credit is None:
                    return
                name = record.credit.sources[record.credit.credited[slot]]
                propensity = float(record.credit.pmfs()[slot, record.credit.credited[slot]])
                available = source_actions(available)
                chosen = available.ids.index(name)
            yield Interaction(record.event_id, slot, context, available, chosen, propensity, joined.rewards[slot])

    def _configure(self, entry: LogEntry) -> None:
        record = entry.record
        if isinstance(record, SpecRecord):
            spec = self._spec_of(record.digest)
            kept = None
            if self.learner is not None and self.spec is not None and self.spec.model_digest == spec.model_digest:
                kept = self.learner.checkpoint()
            self.learner = make_learner(spec, salt=self._salt, checkpoint=kept)
            self.spec, self.salt_id = spec, record.salt_id
            self.join.rule = spec.join
        elif isinstance(record, CatalogueRecord):
            self.catalogue = self._catalogue_of(record.digest)
        elif isinstance(record, ArtifactRecord):
            self.artifact = record.version
        elif isinstance(record, BuildRecord):
            self.build = record.build

    def _rule_of(self, digest: str) -> JoinRule:
        return self._spec_of(digest).join

    def _spec_of(self, digest: str) -> PolicySpec:
        if digest not in self._specs:
            self._specs[digest] = decode_spec(self._blob(digest))
        return self._specs[digest]

    def _catalogue_of(self, digest: str) -> Catalogue:
        if digest not in self._catalogues:
            self._catalogues[digest] = Catalogue.decode(self._blob(digest))
        return self._catalogues[digest]
