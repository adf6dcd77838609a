"""A bias of each slot of a page: what stands lower earns less, or more, whatever it is.

The additive model of position bias: E r = w'x + c of the slot, where c of the first one is 0. A
score, w'x, is what the action earns in the first slot. The slots' columns come right behind the
intercept's, so they are there, in one order, before anything is learned.
"""

from dataclasses import dataclass

import numpy as np

from bandits.errors import SnapshotError
from bandits.features.columns import INTERCEPT
from bandits.features.hashing import hash_feature
from bandits.kernels.compiled import Int64
from bandits.ridge.config import RidgeConfig
from bandits.ridge.payloads import RidgeState
from bandits.types import Float64


def untaught_state(config: RidgeConfig) -> RidgeState:
    """Return the state of a learner that has learned nothing."""
    hashes = _hashes(config)
    d = len(hashes)
    return RidgeState(hashes=hashes, a=bytes(8 * d * d), b=bytes(8 * d))


def check_slot_columns(config: RidgeConfig, state: RidgeState) -> None:
    """Make sure that a learner's columns begin with those of its slots.

    Args:
        config: the learner's.
        state: its checkpoint.

    Raises:
        SnapshotError: the checkpoint is of a learner with other slots.
    """
    hashes = _hashes(config)
    if state.hashes[: len(hashes)] != hashes:
        raise SnapshotError("it is of a learner with other slot_biases", "payload")


def _hashes(config: RidgeConfig) -> list[int]:
    count = config.slot_biases or 0
    return [INTERCEPT, *(hash_feature("slot", str(slot)) for slot in range(1, 1 + count))]


@dataclass(frozen=True, slots=True)
class SlotBiases:
    """The columns 1 up to ``count`` of a model: those of the slots below the first one."""

    count: int

    @classmethod
    def of(cls, config: RidgeConfig) -> "SlotBiases | None":
        """Return what a config says; None if all slots are alike."""
        return cls(config.slot_biases) if config.slot_biases else None

    def join(
        self, features: tuple[Int64, Int64, Float64], slots: Int64
    ) -> tuple[Int64, Int64, Float64]:
        """Return rows with the feature of their slot; those of the first slot have none.

        Args:
            features: where each of R rows begins, its columns and their values.
            slots: int64[R].
        """
        begins, columns, values = features
        own = np.minimum(slots, self.count)
        lower = own > 0
        at = begins[1:][lower]
        counted: Int64 = begins + np.append(0, np.cumsum(lower))
        return counted, np.insert(columns, at, own[lower]), np.insert(values, at, 1.0)
