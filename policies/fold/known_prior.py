"""The prior of a log as its fold knows it, in checkpoints and counts."""

import msgspec

from bandits.log.records import PriorRecord

LEARNED_BEFORE = "the model had learned before"
SPEC_WANTS_NONE = "the spec says prior: none"
ROLLED_BACK = "the model was rolled back to before it"
WARM_STARTED = "a warm start has replaced the model"
EXPECTED = frozenset({LEARNED_BEFORE, SPEC_WANTS_NONE, ROLLED_BACK, WARM_STARTED})
"""Why a model was not taught a prior that is as it should be."""


class TaughtPrior(msgspec.Struct, frozen=True, array_like=True):
    """The prior that a model was taught.

    ``rows`` of them were taught and ``skipped`` were not; ``counted``: the interactions that they
    are worth, as the learner counts them.
    """

    digest: str
    strength: float
    rows: int
    skipped: int
    counted: int


class StoredPrior(msgspec.Struct, frozen=True, array_like=True):
    """A KnownPrior as checkpoints hold one whose entry names no catalogue."""

    digest: str
    strength: float
    taught: TaughtPrior | None = None
    reason: str = ""


class KnownPrior(StoredPrior, frozen=True, array_like=True):
    """The newest prior of a log, and the one that the model in force was taught.

    ``reason``: why the model in force was not taught the newest; empty if it was. ``catalogue``:
    the version of the items that its rows are of; empty where its entry names none.
    """

    catalogue: str = ""

    @classmethod
    def restored(cls, stored: StoredPrior) -> "KnownPrior":
        """Return it from a checkpoint."""
        return cls(**msgspec.structs.asdict(stored))

    @property
    def stored(self) -> StoredPrior:
        """Return it for a checkpoint, which is what it ever was where no catalogue is named."""
        if self.catalogue:
            return self
        return StoredPrior(self.digest, self.strength, self.taught, self.reason)

    @property
    def counted(self) -> int:
        """The interactions that the model's prior is worth."""
        return 0 if self.taught is None else self.taught.counted

    @property
    def said(self) -> str:
        """The outcome of teaching it, in words."""
        taught, reason = self.taught, f"not the newest, because {self.reason}"
        if taught is None:
            return f"the model was taught no prior; {reason}"
        rows = (
            f"the model was taught {taught.rows:,} rows, each worth {taught.strength:g}"
            f" interactions ({taught.skipped:,} more name items that it could not be offered)"
        )
        return f"{rows}; {reason}" if self.reason else rows

    def is_of(self, record: PriorRecord) -> bool:
        """Return whether an entry says what the log says already."""
        return (record.digest, record.strength) == (self.digest, self.strength)

    def without(self, reason: str) -> "KnownPrior":
        """Return it beside a model that was taught none, and why it was not."""
        return KnownPrior(self.digest, self.strength, None, reason, self.catalogue)
