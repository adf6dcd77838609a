"""Self-attention over a history at serving time, without torch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArtifactError
from bandits.types import Float32
from policies.artifacts.source_artifact import TrainedSource
from policies.sources.loops import LEAST_VARIANCE, newest_attended
from policies.sources.sequence.kept import KeptUsers
from policies.sources.vectors import LargeVectorModel, VectorModel, load_vectors


class SasRecEncoder:
    """Blocks of causal self-attention over the vectors of a history's items.

    Kang & McAuley 2018, https://arxiv.org/abs/1808.09781. A user's vector is what the newest event
    has become: of the last block nothing else is computed.
    """

    def __init__(self, source: TrainedSource, factors: int) -> None:
        blocks, heads = source.whole("blocks"), source.whole("heads")
        if factors % heads:
            raise ArtifactError(f"{source.kind}: {heads} heads do not divide {factors}", "heads")
        self.length = source.whole("length")
        self._heads = heads
        self._scale = np.float32(np.sqrt(factors))
        self._places = source.array("places", self.length, factors)

        def layers(name: str, *shape: int) -> list[tuple[Float32, Float32]]:
            weights = source.array(f"{name}_weight", blocks, *shape)
            return list(zip(weights, source.array(f"{name}_bias", blocks, shape[0]), strict=True))

        *self._blocks, last = zip(
            layers("norm_attention", factors),
            layers("ask", 3 * factors, factors),
            layers("answer", factors, factors),
            layers("norm_layers", factors),
            layers("inner", factors, factors),
            layers("outer", factors, factors),
            strict=True,
        )
        self._newest = _of_newest(last, source.array("norm", 2, factors))

    def encode(self, _indices: NDArray[Any], rows: Float32, _weights: Float32) -> Float32:
        """Return the user's vector, float32[d].

        Args:
            rows: the vectors of the history's items, float32[h, d], oldest first, h at least 1.
        """
        events = rows * self._scale + self._places[self.length - len(rows) :]
        for block in self._blocks:
            events = self._attended(events, block)
        return newest_attended(events, *self._newest, self._heads)

    def _attended(self, events: Float32, block: tuple[Any, ...]) -> Float32:
        """Return what a block makes of each event, float32[h, d]."""
        norm_attention, ask, answer, norm_layers, inner, outer = block
        h, factors = events.shape
        each = factors // self._heads
        asked = _linear(_normalised(events, norm_attention), ask)
        query, key, value = asked.reshape(h, 3, self._heads, each).transpose(1, 2, 0, 3)

        logits = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(each))
        logits[:, *np.triu_indices(h, 1)] = -np.inf
        shares = np.exp(logits - logits.max(axis=2, keepdims=True))
        shares /= shares.sum(axis=2, keepdims=True)
        found = (shares @ value).transpose(1, 0, 2).reshape(h, factors)
        events = events + _linear(found, answer)

        hidden = np.maximum(_linear(_normalised(events, norm_layers), inner), 0)
        become: Float32 = events + _linear(hidden, outer)
        return become


def _of_newest(block: tuple[Any, ...], norm: Float32) -> tuple[Float32, Float32, Float32]:
    """Return the last block as ``newest_attended`` takes it: layers, biases and norms.

    Args:
        block: its layers, each a weight and a bias.
        norm: float32[2, d], weight and bias of what ends the network.
    """
    norm_attention, (ask, ask_bias), answer, norm_layers, inner, outer = block
    query, key, value = np.split(ask, 3)
    query_bias, _, value_bias = np.split(ask_bias, 3)
    return (
        np.stack([query.T, key, value.T, answer[0].T, inner[0].T, outer[0].T]),
        np.stack([query_bias, value_bias, answer[1], inner[1], outer[1]]),
        np.stack([*norm_attention, *norm_layers, *norm]),
    )


def load_sasrec(source: TrainedSource, n_items: int) -> VectorModel | LargeVectorModel:
    """Return the model that a trained source holds.

    Args:
        source: its ``vectors``, float32[n_items, d], and the layers.
        n_items: how many items the artifact has.

    Raises:
        ArtifactError: layers or numbers are missing, or do not fit together.
    """
    vectors = source.array("vectors", n_items, None)
    encoder = SasRecEncoder(source, vectors.shape[1])
    return load_vectors(source, vectors, KeptUsers(encoder, encoder.length))


def _linear(rows: Float32, layer: tuple[Float32, Float32]) -> Float32:
    weight, bias = layer
    made: Float32 = rows @ weight.T + bias
    return made


def _normalised(rows: Float32, layer: tuple[Float32, Float32]) -> Float32:
    weight, bias = layer
    centred = rows - rows.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred * centred).mean(axis=1, keepdims=True) + np.float32(LEAST_VARIANCE))
    made: Float32 = centred / spread * weight + bias
    return made
