"""Collaborative filtering, fitted by implicit (https://github.com/benfred/implicit)."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import bm25_weight, tfidf_weight
from scipy.sparse import coo_matrix, csr_matrix

from policies.artifacts.fitted_with import Count, NotNegative, Size
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.training.blocks import blocks_of
from policies.training.neighbours import most_similar

BM25_K1, BM25_B = 1.2, 0.75  # implicit's defaults

Step = Callable[[int, int], None]
"""Told (done, total) after each step of a fit."""


@dataclass(frozen=True, slots=True)
class AlsConfig:
    """The parameters of ``implicit``'s ALS.

    The defaults were chosen on a validation part of MovieLens 100K (docs/benchmarks/sources.md).
    """

    factors: Size = 32
    regularization: NotNegative = 30.0
    alpha: NotNegative = 5.0
    iterations: Count = 15


@dataclass(frozen=True, slots=True)
class KnnConfig:
    """``neighbours`` kept per item, and how interactions are weighted before items are compared."""

    neighbours: Count = 100
    weighting: Literal["cosine", "tfidf", "bm25"] = "tfidf"


def user_items(histories: Histories) -> csr_matrix:
    """Return the interaction weights, float32[users, items], without those of 0."""
    shape = len(histories.users), len(histories.items)
    matrix = csr_matrix(
        (histories.weights, histories.indices, histories.starts), shape=shape, copy=True
    )
    matrix.eliminate_zeros()
    return matrix


def fit_als(histories: Histories, config: AlsConfig, *, seed: int, step: Step) -> TrainedSource:
    """Fit item factors by alternating least squares.

    The bytes are the same for the same seed, whatever the number of threads.

    Args:
        histories: who interacted with what.
        config: see AlsConfig.
        seed: of the first factors.
        step: told after each iteration.
    """
    # Each row is solved by one thread, so implicit's own threads change nothing. BLAS' would.
    with threadpoolctl.threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(**asdict(config), random_state=seed)
        model.fit(
            user_items(histories),
            show_progress=False,
            callback=lambda iteration, _seconds, _loss: step(iteration + 1, config.iterations),
        )

        blocks = blocks_of(model.item_factors, seed=seed)
    return TrainedSource("als", {"item_factors": model.item_factors, **blocks}, asdict(config))


def fit_item_knn(histories: Histories, config: KnnConfig, *, step: Step) -> TrainedSource:
    """Find each item's nearest items.

    The item itself is left out, since a history is never proposed.

    Args:
        histories: who interacted with what.
        config: see KnnConfig.
        step: told when it is done.
    """
    item_users = user_items(histories).T
    if config.weighting == "bm25":
        weighted = bm25_weight(item_users, BM25_K1, BM25_B)
    else:
        weighted = _unit_rows(
            tfidf_weight(item_users) if config.weighting == "tfidf" else item_users
        )

    arrays = most_similar(weighted.T.tocsr(), config.neighbours)
    step(1, 1)
    return TrainedSource("item_knn", arrays, asdict(config))


def _unit_rows(matrix: coo_matrix) -> coo_matrix:
    """Return the matrix with rows of length 1; a row without weight stays without."""
    unit = coo_matrix(matrix)
    lengths = np.sqrt(np.bincount(unit.row, unit.data**2, minlength=unit.shape[0]))
    lengths[lengths == 0] = 1
    unit.data = unit.data / lengths[unit.row]
    return unit
