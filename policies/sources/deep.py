"""The autoencoder at serving time: a history in, a score for every item out. Without torch."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArtifactError
from bandits.types import Float32
from policies.artifacts.source_artifact import TrainedSource


class AutoencoderModel:
    """Multinomial autoencoder: tanh layers, then log-softmax.

    Liang et al. 2018, https://arxiv.org/abs/1802.05814. ``weight_0`` float32[items, h₁],
    ``weight_1`` [h₁, h₂], …, the last [hₙ, items]; ``bias_i`` one vector per weight. The input is
    the history's weight vector scaled to unit length. Differs from the paper: the log of the
    history's total weight is added to the log-probability, which says which item but not how
    active the user is. Within a request that changes nothing; across requests it is what makes
    scores comparable (docs/explanation/sources.md).
    """

    needs_history = True
    floor = -np.inf

    def __init__(self, weights: list[Float32], biases: list[Float32]) -> None:
        self._weights = weights
        self._biases = biases

    @classmethod
    def load(cls, source: TrainedSource, n_items: int) -> Self:
        """Return the model that a trained source holds.

        Args:
            source: its layers.
            n_items: how many items the artifact has.

        Raises:
            ArtifactError: layers are missing or do not fit together.
        """
        layers = sum(name.startswith("weight_") for name in source.arrays)
        if layers < 2:
            raise ArtifactError(
                f"{source.kind}: an autoencoder has at least two layers, not {layers}", "weight_1"
            )

        # The width of what a layer takes is that of what the one before it gives.
        weights, biases, width = [], [], n_items
        for i in range(layers):
            weights.append(source.array(f"weight_{i}", width, n_items if i == layers - 1 else None))
            width = weights[-1].shape[1]
            biases.append(source.array(f"bias_{i}", width))
        return cls(weights, biases)

    def raw(self, indices: NDArray[Any], weights: Float32) -> Float32:
        """Return the log of every item's expected weight, float32[items].

        It is the item's log-probability plus the log of the history's total weight.

        Args:
            indices: places of the history's items, int[h].
            weights: float32[h], how strongly each speaks for its item; their sum is above 0.
        """
        length = np.sqrt(weights @ weights)
        # Only the history's rows of the first layer matter: the rest of the input is 0.
        hidden: Float32 = (weights / max(length, np.float32(1e-12))) @ self._weights[0][
            indices
        ] + self._biases[0]
        for weight, bias in zip(self._weights[1:], self._biases[1:], strict=True):
            hidden = np.tanh(hidden) @ weight + bias
        hidden -= hidden.max()
        hidden += np.log(weights.sum() / np.exp(hidden).sum())
        return hidden
