"""The state of a fold in a checkpoint, and what a fold asks of the log behind it."""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from bandits.errors import CodecError
from bandits.log.codec import MALFORMED
from bandits.log.join import JoinState
from bandits.log.records import LogEntry, MergeInput


class Past(Protocol):
    """The log behind a fold, which only a resume and a rollback ask."""

    def entries(self, after: str, through: str) -> Iterable[LogEntry]:
        """Yield some of the log's entries, in its order.

        Args:
            after: entries past this position; "0-0" is before the first.
            through: up to this one, included.
        """
        ...

    def checkpoint(self, position: str) -> "FoldState | None":
        """Return the newest checkpoint at or before a position; None: fold from the start."""
        ...


class FoldState(msgspec.Struct, frozen=True, array_like=True):
    """A checkpoint: the state of a fold, without the records of its open decisions."""

    position: str
    learned: int
    spec: str | None
    salt_id: str | None
    catalogue: str
    artifact: str | None
    build: dict[str, str]
    builds: list[dict[str, str]]
    pinned: str | None
    learner: bytes | None
    join: JoinState
    refused_rollbacks: int = 0
    refused_warm_starts: int = 0

    @property
    def needed(self) -> str:
        """A resume reads the log from here, this entry included; what is older is in this state."""
        return self.join.needed() or self.position


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """An entry that was refused, and why; a decision is refused when it would be learned."""

    position: str
    kind: str
    reason: str


class Cut(msgspec.Struct, frozen=True, array_like=True):
    """A partition's gift to merge ``number``: the bytes of its model at ``position``."""

    number: int
    position: str
    learned: int
    model: bytes


class Merging(msgspec.Struct, frozen=True, array_like=True):
    """Where a partition of several stands; see ``PartitionFold``."""

    number: int
    inputs: list[MergeInput | None]
    base: bytes | None
    cut: Cut | None
    rollback: str | None


class PartitionState(FoldState, frozen=True, array_like=True):
    """A checkpoint of a policy that has several partitions."""

    merging: Merging | None = None


def decode_state(data: bytes) -> PartitionState:
    """Return the state in a checkpoint's blob.

    Raises:
        CodecError: it is not one.
    """
    try:
        return msgspec.msgpack.decode(data, type=PartitionState)
    except MALFORMED as error:
        raise CodecError(f"not a checkpoint: {error}", "checkpoint") from error
