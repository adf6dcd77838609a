"""A model trained on a log outside the service: a learner's warm start, or a policy to evaluate."""

import msgspec
from msgspec import UNSET, UnsetType

from bandits.errors import SnapshotError
from bandits.log.codec import MALFORMED
from policies.artifacts.trained_on import LearnedRows
from policies.spec import PolicySpec, decode_spec

FORMAT = "banditloop trained model 1"


class TrainedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A learner that has learned.

    ``spec_bytes``: the spec whose learner it is; ``learned``: how many interactions it has learned
    from; ``checkpoint``: what it resumes from. ``rows``: those of a log that it learned from;
    unset by earlier builds, None for one that learned in a world. ``columns``: whether each column
    of the context was number or text, in a table that it learned from.
    """

    format: str = FORMAT
    spec_bytes: bytes
    learned: int
    checkpoint: bytes
    rows: LearnedRows | UnsetType | None = UNSET
    columns: dict[str, str] | UnsetType = UNSET

    def spec(self) -> PolicySpec:
        """The spec it was trained for.

        Raises:
            SpecError: it is none.
        """
        return decode_spec(self.spec_bytes)

    @property
    def encoded(self) -> bytes:
        """The bytes of a file, or of a blob that the log names."""
        return msgspec.msgpack.encode(self)


def decode_trained(data: bytes) -> TrainedModel:
    """Return the model in ``data``; its checkpoint is checked when a learner is made of it.

    Raises:
        SnapshotError: it is none.
    """
    try:
        model = msgspec.msgpack.decode(data, type=TrainedModel)
    except MALFORMED as error:
        raise SnapshotError(f"not a trained model: {error}", "model") from error
    if model.format != FORMAT:
        raise SnapshotError(f"not a {FORMAT!r}, but a {model.format!r}", "model")
    return model
