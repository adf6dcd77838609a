"""Neural collaborative filtering, as ``policies.training.towers.ncf`` has fitted it."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32
from policies.artifacts.source_artifact import TrainedSource
from policies.sources.loops import newest_that_speak
from policies.sources.towers.loops import add_last_layer, halves_of_user, rectified

CHUNK = 4096
"""Items that go through the layers at a time, which bounds the memory of a request."""


class NcfModel:
    """A product of a user's vector with each item's, plus what two layers make of both.

    A user is the mean of the ``known`` vectors of the last ``most`` items: the first numbers are
    for the product, the others for the layers. The item's part of the first layer is computed once,
    by training: ``first``, float32[items, h].
    """

    needs_history = True
    floor = -np.inf

    def __init__(self, source: TrainedSource, n_items: int) -> None:
        self._products = source.floats("products", n_items, None)
        self._bias = source.floats("bias", n_items)
        first = source.floats("first", n_items, None)
        self._width = width = int(self._products.shape[1])

        self._known = source.floats("known", n_items, None)
        self._user = source.floats("user", self._known.shape[1] - width, first.shape[1])
        second = source.floats("second", first.shape[1], None)
        self._second_bias = source.floats("second_bias", second.shape[1])
        self._last = source.floats("last", second.shape[1])

        # Items stand side by side, so that loops over them need no sums.
        self._second = np.ascontiguousarray(second.T)
        self._first = [
            np.ascontiguousarray(first[at : at + CHUNK].T) for at in range(0, n_items, CHUNK)
        ]
        self._most = source.whole("most")

    @classmethod
    def load(cls, source: TrainedSource, n_items: int) -> Self:
        """Return the model that a trained source holds.

        Args:
            source: of kind ``ncf``.
            n_items: how many items the artifact has.

        Raises:
            ArtifactError: an array is missing, or has another shape.
        """
        return cls(source, n_items)

    def raw(self, indices: NDArray[Any], weights: Float32) -> Float32:
        """Return the logit of every item, float32[items].

        Args:
            indices: places of the history's items, int[h], oldest first as far as it is known.
            weights: float32[h], how strongly each speaks for its item.
        """
        weights = np.ascontiguousarray(weights, np.float32)
        newest = newest_that_speak(weights, self._most)
        if not newest.size:
            return self._bias.copy()
        if newest.size < weights.size:
            indices, weights = indices[newest], weights[newest]
        places = indices.astype(np.int64, copy=False)
        user, told = halves_of_user(self._known, places, weights, self._width, self._user)

        scores: Float32 = self._products @ user
        scores += self._bias
        if not self._last.size:
            return scores
        for number, first in enumerate(self._first):
            second = self._second @ rectified(first, told)
            part = scores[number * CHUNK : (number + 1) * CHUNK]
            add_last_layer(part, second, self._second_bias, self._last)
        return scores
