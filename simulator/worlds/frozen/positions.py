"""``positions``: a list of many slots, of which the lower ones are seldom looked at."""

import numpy as np

from bandits.types import Float64
from simulator.worlds.frozen.chance import Chance
from simulator.worlds.frozen.parameters import PositionsParameters
from simulator.worlds.frozen.parts import Indexes
from simulator.worlds.frozen.tastes import TasteWorld


class PositionsWorld(TasteWorld):
    """Tastes, and a click only on what is looked at, by slot alone: the position-based model.

    Craswell et al. 2008, doi:10.1145/1341531.1341545. ``examination`` is the truth about slots;
    ``means`` is what an item earns once it is looked at. The logging policy puts some items high
    out of habit, so clicks per showing mislead.

    Args:
        parameters: The world's parameters.
        seed: Seed of all that is drawn.
    """

    name = "positions"

    def __init__(self, parameters: PositionsParameters, seed: int) -> None:
        super().__init__(parameters, seed)
        habits = Chance(seed, "habits").normals(parameters.items)
        self._habits: Float64 = np.exp(parameters.habit * habits)

    def log_weights(self, items: Indexes) -> Float64:
        """Return the habits of the logging policy."""
        weights: Float64 = self._habits[items]
        return weights
