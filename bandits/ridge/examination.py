"""How a ridge model learns from slots that are not always looked at.

The position-based model (Richardson, Dominowska & Ragno 2007, doi:10.1145/1242572.1242643; Craswell
et al. 2008, doi:10.1145/1341531.1341545): an action earns something only if its slot is looked at,
which happens with a probability theta that depends on the slot alone. So E r = theta w'x, where w'x
is what the action earns once it is looked at, which the model is to say. Its least squares,
sum (r - theta w'x)^2, are those of an observation r / theta with weight theta^2.
"""

from dataclasses import dataclass

import numpy as np

from bandits.kernels.compiled import Int64
from bandits.ridge.config import RidgeConfig
from bandits.types import Float64


@dataclass(frozen=True, slots=True, eq=False)
class LookedAt:
    """The probability theta that each slot is looked at, float64[S]; slots below have the last."""

    looked: Float64

    @classmethod
    def of(cls, config: RidgeConfig) -> "LookedAt | None":
        """Return what a config says; None if all slots are alike."""
        looked = np.array(config.examination or [1.0], np.float64)
        return None if (looked == 1.0).all() else cls(looked)

    def weigh(self, slots: Int64, rewards: Float64) -> tuple[Float64, Float64]:
        """Return what rows count, theta^2, and what they earn once looked at, r / theta.

        Args:
            slots: int64[R].
            rewards: float64[R], or what they are corrected by.
        """
        looked = self.looked[np.minimum(slots, len(self.looked) - 1)]
        return looked * looked, rewards / looked
