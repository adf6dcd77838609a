"""The items that most people interacted with: an answer also for a user whom nobody knows."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32
from policies.artifacts.source_artifact import TrainedSource


class PopularModel:
    """Scores log(1 + summed interaction weight), float32[items].

    An item nobody interacted with is never proposed.
    """

    needs_history = False
    floor = 0.0

    def __init__(self, counts: Float32) -> None:
        self._scores: Float32 = np.log1p(counts)

    @classmethod
    def load(cls, source: TrainedSource, n_items: int) -> Self:
        """Return the model that a trained source holds: ``counts``, float32[n_items]."""
        return cls(source.array("counts", n_items))

    # It is the same for any history.
    def raw(self, indices: NDArray[Any], weights: Float32) -> Float32:  # noqa: ARG002
        """Return the log popularity of every item, float32[items]."""
        return self._scores
