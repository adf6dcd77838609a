"""The progress of a learner: how far it has folded, and where it stands still."""

from collections.abc import Sequence

import msgspec

from policies.fold.checkpoint import Refusal

KEPT_REFUSALS = 100


class Stall(msgspec.Struct, frozen=True):
    """Where learning stands still: an entry's position and kind, the reason, and since when."""

    position: str
    kind: str
    reason: str
    since_ms: int
    attempts: int = 1


class Progress(msgspec.Struct, frozen=True):
    """The leader's word of each second: how far it has folded, and where it stands still."""

    position: str
    at_ms: int
    stall: Stall | None = None


class LearningHealth(msgspec.Struct, frozen=True):
    """How a policy's learning is: ``ok``, ``stalled``, or ``unknown`` if Redis does not answer."""

    state: str = "unknown"
    stall: Stall | None = None
    partition: int = 0
    refused: list[Refusal] = []


def decode_progress(raw: bytes | None) -> Progress | None:
    """Decode what the leader wrote last; None if no learner has led yet."""
    return None if raw is None else msgspec.msgpack.decode(raw, type=Progress)


def decode_refusals(raw: Sequence[bytes]) -> list[Refusal]:
    """Decode the entries that were refused last, newest first, as Redis keeps them."""
    return [msgspec.msgpack.decode(refusal, type=Refusal) for refusal in raw]
