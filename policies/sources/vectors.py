"""Models that make one vector of a user: an item's score is the product of its own vector with it.

``policies.training.blocks`` arranges the vectors of a catalogue that is too large to look at whole.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32
from policies.artifacts.source_artifact import TrainedSource
from policies.sources.blocks import Blocks


class UserEncoder(Protocol):
    """Makes a vector of a history. Pure."""

    def encode(self, indices: NDArray[Any], rows: Float32, weights: Float32) -> Float32:
        """Return the user's vector, float32[d].

        Args:
            indices: places of the history's items, int[h], each once, oldest first as far as it is
                known.
            rows: the items' vectors, float32[h, d].
            weights: float32[h], how strongly each speaks for its item.
        """
        ...


class VectorModel:
    """Vectors of items, each of which is scored."""

    needs_history = True
    floor = -np.inf

    def __init__(self, vectors: Float32, encoder: UserEncoder) -> None:
        self._vectors = vectors
        self._lengths = np.sqrt(np.vecdot(vectors, vectors))
        self._encoder = encoder

    def raw(self, indices: NDArray[Any], weights: Float32) -> Float32:
        """Return the product of every item's vector with the user's, float32[items].

        Args:
            indices: places of the history's items, int[h], oldest first as far as it is known.
            weights: float32[h], how strongly each speaks for its item.
        """
        user = self._encoder.encode(indices, self._vectors.take(indices, axis=0), weights)
        scores: Float32 = self._vectors @ user
        return scores

    def alike(self, item: int) -> tuple[NDArray[Any], Float32]:
        """Return every item's place, and the cosine of its vector with that of one.

        Args:
            item: the place of the one.
        """
        lengths = np.maximum(self._lengths * self._lengths[item], np.float32(1e-12))
        return np.arange(len(self._vectors)), self._vectors @ self._vectors[item] / lengths


class LargeVectorModel:
    """Vectors of so many items that only the promising ones are scored."""

    needs_history = True
    floor = -np.inf

    def __init__(self, blocks: Blocks, encoder: UserEncoder) -> None:
        self.blocks = blocks
        self._encoder = encoder

    def user(self, indices: NDArray[Any], weights: Float32) -> Float32:
        """Return the user's vector, float32[d]: an item's raw score is its product with it.

        Args:
            indices: places of the history's items, int[h], oldest first as far as it is known.
            weights: float32[h], how strongly each speaks for its item.
        """
        return self._encoder.encode(indices, self.blocks.rows(indices), weights)

    def raw(self, indices: NDArray[Any], weights: Float32) -> Float32:
        """Return the product of every item's vector with the user's, float32[items].

        Args:
            indices: places of the history's items, int[h], oldest first as far as it is known.
            weights: float32[h], how strongly each speaks for its item.
        """
        return self.blocks.all_products(self.user(indices, weights))


def load_vectors(
    source: TrainedSource, vectors: Float32, encoder: UserEncoder
) -> VectorModel | LargeVectorModel:
    """Return the model of some vectors: the large one, if the source brings blocks.

    Args:
        source: with or without the ``order`` and ``starts`` of blocks.
        vectors: float32[items, d].
        encoder: makes a user's.
    """
    if "order" not in source.arrays:
        return VectorModel(vectors, encoder)
    order = source.array("order", len(vectors))
    return LargeVectorModel(Blocks(vectors, order, source.array("starts", None)), encoder)
