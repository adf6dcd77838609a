"""The fold of a log into another model than the policy's: what a shadow has learned.

It joins decisions with rewards as the log's specs say. What it teaches, it teaches a model of its
own, of which nothing is ever served: what was done to the policy's model (a rollback, a warm start)
is not done to it.
"""

from collections.abc import Callable
from typing import Unpack

import msgspec

from bandits.log.positions import START
from bandits.log.records import LogRecord, RollbackRecord, UnknownRecord, WarmStartRecord
from policies.blend import make_learner
from policies.fold.checkpoint import FoldState, Past
from policies.fold.fold import Fold
from policies.fold.memory import FoldArguments
from policies.items.catalogue import Catalogue
from policies.items.past import ItemsPast
from policies.spec import PolicySpec


class ShadowFold(Fold):
    """Folds one policy's log into the learner of a shadow.

    Args:
        shadow: the policy's spec with the shadow's model.
        blob: see ``Fold``.
        network: the model that was trained apart, where it learns nothing from the log; else empty.
        given: see ``Fold``.
    """

    def __init__(
        self,
        shadow: PolicySpec,
        blob: Callable[[str], bytes],
        *,
        network: bytes = b"",
        **given: Unpack[FoldArguments],
    ) -> None:
        super().__init__(blob, **given)
        self._shadow, self._network = shadow, network
        self._policies: dict[str, PolicySpec] = {}
        self._shadow_shape = shadow.model_digest

    def resume(self, state: FoldState, past: Past) -> None:
        """Start from a checkpoint instead of from nothing; see ``Fold``."""
        super().resume(state, past)
        self._keep_network()

    def begin_at(self, state: FoldState, past: Past) -> None:
        """Begin with nothing learned where a log begins that has been cut.

        Args:
            state: the checkpoint at the log's root, of the policy's own fold.
            past: the log behind it.
        """
        self.resume(msgspec.structs.replace(state, learner=None, learned=0), past)
        if self.learner is not None and self.spec is not None:
            self._teach_prior(self.learner, self.spec)

    def catalogue_of(self, version: str) -> Catalogue:
        """Return the items that a decision names.

        Args:
            version: the decision's.

        Raises:
            RefusedError, MissingBlobError: see ``NamedBlobs.catalogue``.
        """
        return self._blobs.catalogue(version)

    def beside(self, spec: str) -> "ShadowFold":
        """Return an empty fold of its kind, which weighs all rewards as one spec does.

        Args:
            spec: the digest of the spec.
        """
        return ShadowFold(
            self._shadow,
            self._blobs.fetch,
            network=self._network,
            salt=self._salt,
            past=self._past,
            items=ItemsPast(self._blobs.items.log),
            weigh_by=spec,
        )

    def _policy(self, name: str) -> PolicySpec:
        """Return the shadow, paid as a spec of the log says."""
        if name not in self._policies:
            spec = self._blobs.spec(name)
            self._policies[name] = msgspec.structs.replace(
                self._shadow, join=spec.join, signals=spec.signals
            )
        return self._policies[name]

    def _shape(self, name: str) -> str:  # noqa: ARG002 - every decision teaches the shadow's model
        return self._shadow_shape

    def _configure(self, record: LogRecord | UnknownRecord) -> None:
        # A model that was trained elsewhere, or goes back, is the policy's alone.
        if isinstance(record, RollbackRecord):
            return
        if isinstance(record, WarmStartRecord) and record.through is None:
            return
        super()._configure(record)
        self._keep_network()

    def _keep_network(self) -> None:
        """Choose by the network that was trained apart, if there is one, whatever the log says."""
        learner = self._learner
        if self._network and learner is not None and learner.checkpoint() != self._network:
            self.learner = make_learner(self._shadow, salt=self._salt, checkpoint=self._network)

    def _resumed_beside(self, state: FoldState, past: Past) -> Fold:  # noqa: ARG002 - the policy's
        """Return this fold as it would be had it weighed all rewards as the newest spec does."""
        then = self.beside(self.spec_id or "")
        then.apply(past.entries(START, self.position))
        return then
