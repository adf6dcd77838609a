"""Collaborative filtering at serving time: ALS by folding the history in, and item-to-item neighbours.

A model here maps a history (item indices, int[h]; weights, float32[h]) to raw scores,
float32[items], in numpy alone; ``policies.sources.local.LocalSource`` does the rest.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArtifactError
from bandits.types import Float32
from policies.artifacts.source_artifact import TrainedSource
from policies.sources.blocks import Blocks


class FoldIn:
    """A user's factors, solved for from the history (equation 4 of Hu, Koren & Volinsky 2008), known user or new one.

    x = (YᵀY + Yᵤᵀ(Cᵤ - I)Yᵤ + λI)⁻¹ Yᵤᵀ Cᵤ 1, with Y the item factors, float32[items, d], Yᵤ the
    history's rows of them, and confidences Cᵤ = alpha · weight.
    """

    def __init__(self, item_factors: Float32, alpha: float, regularization: float) -> None:
        factors = item_factors.shape[1]
        self._alpha = np.float32(alpha)
        self._gram = item_factors.T @ item_factors + np.float32(regularization) * np.eye(
            factors, dtype=np.float32
        )

    def user(self, rows: Float32, weights: Float32) -> Float32:
        """Factors, float32[d], of who has the items with factors ``rows``, float32[h, d]."""
        confidence = self._alpha * weights
        system = self._gram + rows.T @ (rows * (confidence - np.float32(1))[:, None])
        user: Float32 = np.linalg.solve(system, confidence @ rows)
        return user


class AlsModel:
    """Implicit-feedback matrix factorisation (Hu et al. 2008, https://doi.org/10.1109/ICDM.2008.22)."""

    needs_history = True
    floor = -np.inf

    def __init__(self, item_factors: Float32, fold_in: FoldIn) -> None:
        self._items = item_factors
        self._fold_in = fold_in

    def raw(self, indices: NDArray[Any], weights: Float32) -> Float32:
        """Predicted preference of every item."""
        scores: Float32 = self._items @ self._fold_in.user(self._items[indices], weights)
        return scores


class LargeAlsModel:
    """The same for a catalogue so large that not every item is scored: it also finds the best among the rest."""

    needs_history = True
    floor = -np.inf

    def __init__(self, blocks: Blocks, fold_in: FoldIn) -> None:
        self.blocks = blocks
        self._fold_in = fold_in

    def user(self, indices: NDArray[Any], weights: Float32) -> Float32:
        """The user's factors: an item's raw score is its product with them."""
        return self._fold_in.user(self.blocks.rows(indices), weights)

    def raw(self, indices: NDArray[Any], weights: Float32) -> Float32:
        """Predicted preference of every item."""
        return self.blocks.all_products(self.user(indices, weights))


def load_als(source: TrainedSource, n_items: int) -> AlsModel | LargeAlsModel:
    """The model a trained source holds: ``item_factors``, float32[n_items, factors], and for a large one its blocks."""
    factors = source.array("item_factors", n_items, None)
    fold_in = FoldIn(factors, positive(source, "alpha"), positive(source, "regularization"))
    if "order" not in source.arrays:
        return AlsModel(factors, fold_in)
    return LargeAlsModel(
        Blocks(factors, source.array("order", n_items), source.array("starts", None)), fold_in
    )


class ItemKnnModel:
    """Item-to-item neighbours: a candidate's score is the sum of its weighted similarities to the history's items.

    Differs from Deshpande & Karypis 2004 (https://doi.org/10.1145/963770.963776): rows are not
    normalised. ``neighbours`` int32[items, K] and ``similarities`` float32[items, K]; a row with
    fewer is padded with similarity 0.
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
            raise ArtifactError(
                f"{source.kind}.neighbours must index the {n_items} items", "neighbours"
            )
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
