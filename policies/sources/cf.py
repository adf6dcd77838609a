"""Collaborative filtering at serving time: ALS by folding the history in, and item-to-item neighbours.

A model here maps a history (item indices, int[h]; weights, float32[h]) to raw scores, float32[items], in numpy alone;
``policies.sources.local.LocalSource`` does the rest.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArtifactError
from bandits.types import Float32
from policies.artifact import TrainedSource


class AlsModel:
    """Implicit-feedback matrix factorisation (Hu, Koren & Volinsky 2008, https://doi.org/10.1109/ICDM.2008.22).

    The user's factors are solved for from the history (their equation 4), for a known user as for a new one:
    x = (YᵀY + Yᵤᵀ(Cᵤ - I)Yᵤ + λI)⁻¹ Yᵤᵀ Cᵤ 1, with Yᵤ the history's rows of Y and confidences Cᵤ = alpha · weight.
    """

    needs_history = True
    floor = -np.inf

    def __init__(self, item_factors: Float32, alpha: float, regularization: float) -> None:
        factors = item_factors.shape[1]
        self._items = item_factors
        self._alpha = np.float32(alpha)
        self._gram = item_factors.T @ item_factors + np.float32(regularization) * np.eye(factors, dtype=np.float32)

    @classmethod
    def load(cls, source: TrainedSource, n_items: int) -> Self:
        """The model a trained source holds: ``item_factors``, float32[n_items, factors]."""
        factors = source.array("item_factors", n_items, None)
        return cls(factors, positive(source, "alpha"), positive(source, "regularization"))

    def raw(self, indices: NDArray[Any], weights: Float32) -> Float32:
        """Predicted preference of every item."""
        rows = self._items[indices]
        confidence = self._alpha * weights
        system = self._gram + rows.T @ (rows * (confidence - np.float32(1))[:, None])
        user = np.linalg.solve(system, confidence @ rows)
        scores: Float32 = self._items @ user
        return scores


class ItemKnnModel:
    """Item-to-item neighbours: a candidate's score is the sum of its weighted similarities to the history's items.

    Differs from Deshpande & Karypis 2004 (https://doi.org/10.1145/963770.963776): rows are not normalised.
    ``neighbours`` int32[items, K] and ``similarities`` float32[items, K]; a row with fewer is padded with similarity 0.
    """

    needs_history = True
    floor = 0.0

    def __init__(self, neighbours: NDArray[np.int32], similarities: Float32) -> None:
        self._neighbours = neighbours
        self._similarities = similarities

    @classmethod
    def load(cls, source: TrainedSource, n_items: int) -> Self:
        """The model a trained source holds."""
        neighbours = source.array("neighbours", n_items, None)
        if neighbours.dtype.kind != "i" or not np.all((neighbours >= 0) & (neighbours < n_items)):
            raise ArtifactError(f"{source.kind}.neighbours must index the {n_items} items", "neighbours")
        return cls(neighbours, source.array("similarities", *neighbours.shape))

    def raw(self, indices: NDArray[Any], weights: Float32) -> Float32:
        """Summed similarity of every item to the history; 0 where no neighbour is in it."""
        to = self._neighbours[indices].ravel()
        by = (self._similarities[indices] * weights[:, None]).ravel()
        return np.bincount(to, by, minlength=len(self._neighbours)).astype(np.float32)


def positive(source: TrainedSource, name: str) -> float:
    """The number ``name`` of a source's config, which must be above 0.

    Raises:
        ArtifactError: it is not there, or not a positive number.
    """
    value = source.config.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
        raise ArtifactError(f"{source.kind}: {name} must be a positive number, not {value!r}", name)
    return float(value)
