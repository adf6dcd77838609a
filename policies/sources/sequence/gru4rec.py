"""A recurrent network over a history at serving time, without torch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32
from policies.artifacts.source_artifact import TrainedSource
from policies.sources.loops import recurrent_state
from policies.sources.sequence.kept import KeptUsers
from policies.sources.vectors import LargeVectorModel, VectorModel, load_vectors


class Gru4RecEncoder:
    """Gated recurrent units over the vectors of a history's items: reset, update, and new state.

    Hidasi et al. 2016, https://arxiv.org/abs/1511.06939. The state after the newest event makes the
    user's vector, by one layer.
    """

    def __init__(self, source: TrainedSource, factors: int) -> None:
        self._item_weight = source.array("item_weight", 3 * factors, factors)
        state_weight = source.array("state_weight", 3 * factors, factors)
        self._state_weight = np.ascontiguousarray(state_weight.T, np.float32)
        self._answer_weight = source.array("answer_weight", factors, factors)
        self._answer_bias = source.array("answer_bias", factors)

        # Of the reset and the update both biases are added; the new state resets its own.
        state_bias = source.array("state_bias", 3 * factors)
        self._bias = source.array("item_bias", 3 * factors).copy()
        self._bias[: 2 * factors] += state_bias[: 2 * factors]
        self._new_bias = np.ascontiguousarray(state_bias[2 * factors :], np.float32)

    def encode(self, _indices: NDArray[Any], rows: Float32, _weights: Float32) -> Float32:
        """Return the user's vector, float32[d].

        Args:
            rows: the vectors of the history's items, float32[h, d], oldest first.
        """
        events = rows @ self._item_weight.T + self._bias
        state = recurrent_state(events, self._state_weight, self._new_bias)
        user: Float32 = self._answer_weight @ state + self._answer_bias
        return user


def load_gru4rec(source: TrainedSource, n_items: int) -> VectorModel | LargeVectorModel:
    """Return the model that a trained source holds.

    Args:
        source: its ``vectors``, float32[n_items, d], and the layers.
        n_items: how many items the artifact has.

    Raises:
        ArtifactError: layers or numbers are missing, or do not fit together.
    """
    vectors = source.array("vectors", n_items, None)
    encoder = Gru4RecEncoder(source, vectors.shape[1])
    return load_vectors(source, vectors, KeptUsers(encoder, source.whole("length")))
