"""The memory of a join between two entries, as a checkpoint holds it.

Fields are only ever appended.
"""

import msgspec

from bandits.log.positions import log_order
from bandits.log.records import RewardRecord


class OpenState(msgspec.Struct, frozen=True, array_like=True):
    """An open decision in a checkpoint; its record is read from the log again, at ``position``.

    ``waiting``: rewards that count once it is activated.
    """

    event_id: str
    position: str
    number: int
    activated: bool
    values: dict[int, float]
    seen: list[int | str]
    taught: dict[int, float]
    forgotten_ms: int = 0
    waiting: int = 0


class ClosedState(msgspec.Struct, frozen=True, array_like=True):
    """A closed decision that can only make later rewards late."""

    event_id: str
    number: int
    forgotten_ms: int


class EarlyState(msgspec.Struct, frozen=True, array_like=True):
    """A reward that waits for its decision until ``orphan_ms``."""

    number: int
    orphan_ms: int
    reward: RewardRecord


class EarlyActivation(msgspec.Struct, frozen=True, array_like=True):
    """An activation that waits for its decision until ``orphan_ms``."""

    number: int
    orphan_ms: int
    event_id: str


class JoinState(msgspec.Struct, frozen=True, array_like=True):
    """Everything a join remembers but the records of decisions.

    ``correctable``: closed, but still to be corrected.
    """

    sequence: int
    counts: dict[str, int]
    open: list[OpenState]
    correctable: list[OpenState]
    closed: list[ClosedState]
    early: list[EarlyState]
    activations: list[EarlyActivation] = []

    def needed(self) -> str | None:
        """Return the oldest position whose record a resume has to read."""
        positions = [each.position for each in (*self.open, *self.correctable)]
        return min(positions, key=log_order, default=None)
