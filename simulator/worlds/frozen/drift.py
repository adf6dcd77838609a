"""``drift``: the truth moves, by as much as ``strength`` says."""

import numpy as np

from bandits.types import Float64
from simulator.worlds.frozen.chance import Chance
from simulator.worlds.frozen.parameters import DriftParameters
from simulator.worlds.frozen.parts import DAY_MS, Indexes, start_ms
from simulator.worlds.frozen.tastes import TasteWorld


class DriftWorld(TasteWorld):
    """Tastes, and items that turn from one vector to another that has nothing to do with it.

    Args:
        parameters: The world's parameters.
        seed: Seed of all that is drawn.
    """

    name = "drift"

    def __init__(self, parameters: DriftParameters, seed: int) -> None:
        super().__init__(parameters, seed)
        self._ends = Chance(seed, "ends").normals(*self._vectors.shape) / np.sqrt(parameters.rank)
        passed = (self.people.times - start_ms(parameters)) / (parameters.days * DAY_MS)
        if parameters.jumps:
            passed = np.floor(passed * (parameters.jumps + 1)) / parameters.jumps

        # A full turn is a quarter of a circle: the variance stays, the correlation goes to 0.
        self.angles: Float64 = parameters.strength * np.pi / 2.0 * passed

    def vectors(self, visits: Indexes, items: Indexes) -> Float64:
        """Return float64[n, rank]: what items are like at visits.

        Args:
            visits: Numbers of visits.
            items: Indexes of items; the two broadcast.
        """
        angles = self.angles[visits][..., None]
        turned: Float64 = np.cos(angles) * self._vectors[items] + np.sin(angles) * self._ends[items]
        return turned
