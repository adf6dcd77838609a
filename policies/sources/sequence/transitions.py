"""Transitions between items: a score sums what each event of a history says of the next one."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32
from policies.artifacts.source_artifact import TrainedSource
from policies.sources.cf import NeighboursModel, positive
from policies.sources.loops import newest_that_speak


class TransitionsModel:
    """Neighbours of items, of which those of newer events count for more.

    The newest ``length`` events of a history are looked at; each is halved with every ``half_life``
    newer ones. Events without weight are none.
    """

    needs_history = True
    floor = NeighboursModel.floor

    def __init__(self, neighbours: NeighboursModel, length: int, half_life: float) -> None:
        self._neighbours = neighbours
        age = np.arange(length - 1, -1, -1)
        self._fading = np.exp2(-age / half_life).astype(np.float32)

    @classmethod
    def load(cls, source: TrainedSource, n_items: int) -> Self:
        """Return the model that a trained source holds.

        Args:
            source: as of NeighboursModel; its config says ``length`` and ``half_life``.
            n_items: how many items the artifact has.

        Raises:
            ArtifactError: an array or a number is missing, or is something else.
        """
        neighbours = NeighboursModel.load(source, n_items)
        return cls(neighbours, source.whole("length"), positive(source, "half_life"))

    def raw(self, indices: NDArray[Any], weights: Float32) -> Float32:
        """Return every item's score, float32[items]; 0 if nothing speaks for it.

        Args:
            indices: places of the history's items, int[h], oldest first as far as it is known.
            weights: float32[h], how strongly each speaks for its item.
        """
        weights = np.ascontiguousarray(weights, np.float32)
        newest = newest_that_speak(weights, self._fading.size)
        if newest.size < weights.size:
            indices, weights = indices[newest], weights[newest]
        fading = self._fading[self._fading.size - newest.size :]
        return self._neighbours.raw(indices, weights * fading)

    def alike(self, item: int) -> tuple[NDArray[Any], Float32]:
        """Return the places of the items that follow one, and how strongly, above 0.

        Args:
            item: its place.
        """
        return self._neighbours.alike(item)
