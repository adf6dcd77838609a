"""The declaration of a leader in its log, before all else: what it was deployed with."""

from dataclasses import dataclass

from bandits.errors import SpecError
from bandits.log.codec import digest
from bandits.log.records import (
    ArtifactRecord,
    BuildRecord,
    LogRecord,
    PriorRecord,
    SpecRecord,
)
from policies.blend import make_learner
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.spec import PRIOR_STRENGTH, PolicySpec, decode_spec
from serve_app.host.build import this_build
from serve_app.store.event_log import RedisLog
from serve_app.store.spaces import moved


@dataclass(frozen=True)
class Declaration:
    """The spec, catalogue, artifact and prior that this process was deployed with.

    ``artifact`` is the version that the spec begins with; ``catalogue``, for a log of items that
    has not begun, and ``prior``, the bytes of its rows, came with it.

    Raises:
        SpecError: the spec cannot be learned. It is refused before the log names it.
    """

    spec: PolicySpec
    salt: bytes
    artifact: str | None = None
    catalogue: Catalogue | None = None
    prior: bytes | None = None

    def __post_init__(self) -> None:
        make_learner(self.spec, salt=self.salt)

    def changes(self, fold: Fold, items: str = "") -> list[LogRecord]:
        """Return the entries that say where this deployment differs from what the log says.

        Args:
            fold: of the log.
            items: a version of the log of items, which has the features of the prior's rows.

        Raises:
            SpecError: the log is in another number of partitions, or of another space; neither can
                change.
        """
        if fold.spec is not None and fold.spec.partitions != self.spec.partitions:
            count = fold.spec.partitions
            raise SpecError(
                f"the log of {self.spec.name} is in {count} partitions and stays so: set partitions"
                f" to {count}, or begin a policy of another name",
                "partitions",
            )

        # What is in the log names versions of that space's items.
        if fold.spec is not None and fold.spec.shares != self.spec.shares:
            raise moved(self.spec, fold.spec.shares)

        records: list[LogRecord] = []
        if fold.build != this_build():
            records.append(BuildRecord(this_build()))
        salt_id = digest(self.salt)
        if (fold.spec_id, fold.salt_id) != (self.spec.digest, salt_id):
            records.append(SpecRecord(self.spec.digest, salt_id))

        artifact = fold.artifact
        if self.artifact is not None and self._names_another(fold):
            artifact = self.artifact
            records.append(ArtifactRecord(self.artifact))

        # The log keeps the newest prior for models to come; one that has learned stays as it is.
        # That of an artifact which does not serve says nothing.
        prior = self._prior_record(items) if artifact == self.artifact else None
        known = fold.prior
        if prior is not None and (known is None or not known.is_of(prior)):
            records.append(prior)
        return records

    def _names_another(self, fold: Fold) -> bool:
        """Return whether this deployment says that another artifact serves than the log.

        The log decides, whatever is current in the spec's folder meanwhile, and on this node. The
        first deployment says what it begins with; one whose spec names another folder than the
        spec before it, or another version by name, says what follows.
        """
        if fold.artifact is None or fold.spec is None:
            return True
        before, named = fold.spec.artifact, decode_spec(self.spec.encoded).artifact
        if before == named or fold.artifact == self.artifact:
            return False
        # The folder of the version that serves, in the place of its name, is no other.
        return named == self.artifact or before != fold.artifact

    def _prior_record(self, items: str) -> PriorRecord | None:
        """Return the entry of the prior; None if there is none, or the spec wants none."""
        strength = self.spec.prior_strength
        if self.prior is None or strength == 0.0:
            return None
        strength = PRIOR_STRENGTH if strength is None else strength
        return PriorRecord(digest(self.prior), strength, items)

    def put_blobs(self, reader: RedisLog) -> None:
        """Store the blobs that the log names and this process can give."""
        reader.put_blob(self.spec.digest, self.spec.encoded)
        if self.prior is not None:
            reader.put_blob(digest(self.prior), self.prior)
