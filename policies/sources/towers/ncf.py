"""Neural collaborative filtering, as ``policies.training.towers.ncf`` has fitted it."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32
from policies.artifacts.source_artifact import TrainedSource

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
        self._products = source.array("products", n_items, None)
        self._bias = source.array("bias", n_items)
        self._first = source.array("first", n_items, None)
        width = self._products.shape[1]

        self._known = source.array("known", n_items, None)
        self._user = source.array("user", self._known.shape[1] - width, self._first.shape[1])
        self._second = source.array("second", self._first.shape[1], None)
        self._second_bias = source.array("second_bias", self._second.shape[1])
        self._last = source.array("last", self._second.shape[1])
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
        speaks = np.flatnonzero(weights > 0)[-self._most :]
        if not speaks.size:
            return self._bias.copy()
        shares = weights[speaks] / weights[speaks].sum()
        user = shares @ self._known[indices[speaks]]

        width = self._products.shape[1]
        scores: Float32 = self._products @ user[:width] + self._bias
        if not self._last.size:
            return scores
        told = user[width:] @ self._user
        for start in range(0, len(scores), CHUNK):
            part = slice(start, start + CHUNK)
            first = self._first[part] + told
            second = np.maximum(first, 0, out=first) @ self._second
            second += self._second_bias
            scores[part] += np.maximum(second, 0, out=second) @ self._last
        return scores
