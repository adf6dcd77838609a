"""Collaborative filtering at serving time: ALS with the history folded in, and neighbours of items.

A model here maps a history (item indices, int[h]; weights, float32[h]) to raw scores,
float32[items], in numpy alone; ``policies.sources.local.LocalSource`` does the rest.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArtifactError
from bandits.types import Float32
from policies.artifacts.source_artifact import TrainedSource
from policies.sources.loops import sum_similarities
from policies.sources.vectors import LargeVectorModel, VectorModel, load_vectors


class FoldIn:
    """Solves for a user's factors from the history: equation 4 of Hu, Koren & Volinsky 2008.

    It does so for known users and new ones alike: x = (YᵀY + Yᵤᵀ(Cᵤ - I)Yᵤ + λI)⁻¹ Yᵤᵀ Cᵤ 1, with
    Y the item factors, float32[items, d], Yᵤ the history's rows of them, and confidences
    Cᵤ = alpha · weight. Hu et al. 2008, doi:10.1109/ICDM.2008.22.
    """

    def __init__(self, item_factors: Float32, alpha: float, regularization: float) -> None:
        factors = item_factors.shape[1]
        self._alpha = np.float32(alpha)
        self._gram = item_factors.T @ item_factors + np.float32(regularization) * np.eye(
            factors, dtype=np.float32
        )

    def encode(self, _indices: NDArray[Any], rows: Float32, weights: Float32) -> Float32:
        """Return a user's factors, float32[d].

        Args:
            rows: factors of the history's items, float32[h, d].
            weights: float32[h], how strongly each speaks for its item.
        """
        confidence = self._alpha * weights
        system = self._gram + rows.T @ (rows * (confidence - np.float32(1))[:, None])
        user: Float32 = np.linalg.solve(system, confidence @ rows)
        return user


def load_als(source: TrainedSource, n_items: int) -> VectorModel | LargeVectorModel:
    """Return the model that a trained source holds: matrix factorisation of implicit feedback.

    Args:
        source: ``item_factors``, float32[n_items, factors], and for a large one its blocks.
        n_items: how many items the artifact has.
    """
    factors = source.array("item_factors", n_items, None)
    fold_in = FoldIn(factors, positive(source, "alpha"), positive(source, "regularization"))
    return load_vectors(source, factors, fold_in)


class NeighboursModel:
    """Neighbours of items: a score sums the weighted similarities to the history's items.

    Kinds ``item_knn``, ``rp3beta`` and ``ease`` differ in how a similarity is found, which is
    training's part; that of ``ease`` may be negative. Differs from Deshpande & Karypis 2004
    (https://doi.org/10.1145/963770.963776): rows are not normalised. ``neighbours`` int32[items, K]
    and ``similarities`` float32[items, K]; a row with fewer is padded with similarity 0. An item
    whose sum is not above 0 is never proposed.
    """

    needs_history = True
    floor = 0.0

    def __init__(self, neighbours: NDArray[np.int32], similarities: Float32) -> None:
        self._neighbours = np.ascontiguousarray(neighbours, np.int32)
        self._similarities = np.ascontiguousarray(similarities, np.float32)

    @classmethod
    def load(cls, source: TrainedSource, n_items: int) -> Self:
        """Return the model that a trained source holds.

        Args:
            source: its ``neighbours``, int[n_items, K], and ``similarities``, float32[n_items, K].
            n_items: how many items the artifact has.

        Raises:
            ArtifactError: an array is missing or has another shape, or a neighbour is no item.
        """
        neighbours = source.array("neighbours", n_items, None)
        if neighbours.dtype.kind != "i" or not np.all((neighbours >= 0) & (neighbours < n_items)):
            raise ArtifactError(
                f"{source.kind}.neighbours must index the {n_items} items", "neighbours"
            )
        return cls(neighbours, source.array("similarities", *neighbours.shape))

    def raw(self, indices: NDArray[Any], weights: Float32) -> Float32:
        """Return every item's summed similarity to the history, float32[items]; 0 if it has none.

        Args:
            indices: places of the history's items, int[h].
            weights: float32[h], what the similarities to each item are multiplied by.
        """
        return sum_similarities(
            self._neighbours,
            self._similarities,
            np.ascontiguousarray(indices, np.int64),
            np.ascontiguousarray(weights, np.float32),
        )

    def alike(self, item: int) -> tuple[NDArray[Any], Float32]:
        """Return the places of an item's neighbours, and its similarities to them, above 0.

        Args:
            item: its place.
        """
        kept = self._similarities[item] > 0
        return self._neighbours[item][kept], self._similarities[item][kept]


def positive(source: TrainedSource, name: str) -> float:
    """Return a number above 0 from a source's config.

    Args:
        source: whose config is read.
        name: of the config's field; an error names it too.

    Raises:
        ArtifactError: it is not there, or not a positive number.
    """
    value = source.config.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
        raise ArtifactError(f"{source.kind}: {name} must be a positive number, not {value!r}", name)
    return float(value)
