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
        """Return the model that a trained source holds.

        Args:
            source: its ``counts``, float32[n_items], are the summed interaction weights.
            n_items: how many items the artifact has.

        Raises:
            ArtifactError: ``counts`` is missing, or has another shape.
        """
        return cls(source.array("counts", n_items))

    # It is the same for any history.
    def raw(self, indices: NDArray[Any], weights: Float32) -> Float32:  # noqa: ARG002
        """Return the log popularity of every item, float32[items].

        Args:
            indices: places of the history's items, int[h]; they change nothing.
            weights: float32[h], one per item of the history; they change nothing.
        """
        return self._scores
