"""The memory of a join between two entries, as a checkpoint holds it.

The open windows are not in it: whoever resumes folds the log from the oldest decision on that is
remembered, without teaching anything, and arrives at them. A checkpoint holds what those entries do
not say. Fields are only ever appended.
"""

from typing import Literal

import msgspec

from bandits.log.positions import log_order, position_after
from bandits.log.records import RewardRecord

Identity = int | str | tuple[int, str]
"""A reward's name within its decision: its id, or its slot, or its slot and its signal."""


class OpenState(msgspec.Struct, frozen=True, array_like=True):
    """A remembered decision of an earlier build's checkpoint; its record is at ``position``.

    ``number``: what orders deadlines of one moment, of decisions as their positions do.
    ``waiting``: rewards that count once it is activated.
    """

    event_id: str
    position: str
    number: int
    activated: bool
    values: dict[int, float]
    seen: list[Identity]
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


class Inherited(msgspec.Struct, frozen=True, array_like=True):
    """Decisions up to ``through`` that are remembered since an earlier build's checkpoint there.

    ``correctable``: closed, but still to be corrected.
    """

    through: str
    open: list[OpenState]
    correctable: list[OpenState]
    closed: list[ClosedState]

    def needed(self) -> str | None:
        """Return the oldest position whose record a resume has to read."""
        positions = [each.position for each in (*self.open, *self.correctable)]
        return min(positions, key=log_order, default=None)


class Attached(msgspec.Struct, frozen=True, array_like=True):
    """Events that came before the decision at ``position``, and were joined when it came."""

    position: str
    activated: bool
    rewards: list[RewardRecord]


class Reset(msgspec.Struct, frozen=True, array_like=True):
    """The entry at ``position`` replaced the model by one that was taught up to ``through``.

    ``taught``: by position, what that model holds of a decision where this is not what the model
    before held of it (up to ``through``), or nothing (later).
    """

    position: str
    through: str
    taught: dict[str, dict[int, float]]


class JoinState(msgspec.Struct, frozen=True, array_like=True):
    """The memory of a join, without what the log says from ``oldest`` on.

    Attributes:
        layout: no earlier build takes this for its own.
        counts: by outcome.
        remembered: how many decisions are open, and how many closed ones are remembered.
        oldest: the position of the oldest of them; None if there is none.
        fold: the version that is in force before ``oldest``.
        skipped: the positions from there on of decisions that opened no window.
        attached: of those that did, what came before them.
        resets: where the model was replaced.
        early: rewards that wait for their decision.
        activations: and activations.
        inherited: what an earlier build's checkpoint remembered, until it is forgotten.
    """

    layout: Literal["log"]
    counts: dict[str, int]
    remembered: tuple[int, int]
    oldest: str | None
    fold: int
    skipped: list[str]
    attached: list[Attached]
    resets: list[Reset]
    early: list[EarlyState]
    activations: list[EarlyActivation]
    inherited: Inherited | None = None


class EarlierJoinState(msgspec.Struct, frozen=True, array_like=True):
    """The join in an earlier build's checkpoint, which holds every decision it remembers."""

    sequence: int
    counts: dict[str, int]
    open: list[OpenState]
    correctable: list[OpenState]
    closed: list[ClosedState]
    early: list[EarlyState]
    activations: list[EarlyActivation] = []

    def inherited(self, position: str, fold: int) -> JoinState:
        """Return the same as a state of this build.

        Args:
            position: that of the checkpoint.
            fold: the version in force there.
        """
        left = Inherited(position, self.open, self.correctable, self.closed)
        return JoinState(
            "log",
            self.counts,
            (len(self.open), len(self.correctable) + len(self.closed)),
            position_after(position),
            fold,
            [],
            [],
            [],
            self.early,
            self.activations,
            left,
        )
