"""The linear autoencoder with a closed form: each item predicted from all others.

Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", https://arxiv.org/abs/1905.03375.
"""

from dataclasses import asdict, dataclass

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]
from scipy.linalg import lapack

from bandits.errors import ArtifactError
from bandits.types import Float32
from policies.artifacts.fitted_with import Count, NotNegative
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.training.cf import Step, user_items
from policies.training.neighbours import largest_of_rows

ROWS_AT_ONCE = 256
"""Rows of the Gram matrix that are computed at once, which bounds the memory."""


@dataclass(frozen=True, slots=True)
class EaseConfig:
    """``regularization``: λ, in interactions of mean squared weight.

    ``neighbours``: the largest weights that are kept of each item. ``max_items``: with more, the
    source is not fitted: the fit takes 4 · items² bytes, and time that grows with items³. The
    defaults were chosen on a validation part of MovieLens 100K (docs/benchmarks/sources.md).
    """

    regularization: NotNegative = 200.0
    neighbours: Count = 400
    max_items: Count = 20_000


def fit_ease(histories: Histories, config: EaseConfig, *, step: Step) -> TrainedSource:
    """Find the item weights B of least ‖X - XB‖² + λ‖B‖², with a diagonal of 0.

    B = I - P · diag(P)⁻¹, with P = (XᵀX + λI)⁻¹ (their equation 8).

    Args:
        histories: who interacted with what, X.
        config: see EaseConfig.
        step: told after each of three steps.

    Raises:
        ArtifactError: the matrix cannot be inverted, for numbers that are too large.
    """
    interactions = user_items(histories)
    squares = interactions.data.astype(np.float64) ** 2
    ridge = config.regularization * (squares.mean() if squares.size else 1.0)

    # The sum of products of two items' columns, some rows at a time.
    items = len(histories.items)
    columns = interactions.T.tocsr()
    gram = np.empty((items, items), np.float32, order="F")
    for i in range(0, items, ROWS_AT_ONCE):
        gram[i : i + ROWS_AT_ONCE] = (columns[i : i + ROWS_AT_ONCE] @ interactions).toarray()
    gram[np.diag_indices(items)] += np.float32(ridge)
    step(1, 3)

    weights = _item_weights(gram)
    step(2, 3)

    arrays = largest_of_rows(weights, config.neighbours)
    step(3, 3)
    return TrainedSource("ease", arrays, asdict(config))


def _item_weights(gram: Float32) -> Float32:
    """Return I - P · diag(P)⁻¹ of the inverse P of a Gram matrix, which is overwritten."""
    # With one thread its sums have one order.
    with threadpoolctl.threadpool_limits(1, "blas"):
        factor, failed = lapack.spotrf(gram, lower=1, overwrite_a=1)
        if not failed:
            inverse, failed = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise ArtifactError("ease: the weights are too large or too uneven to be fitted", "ease")

    # Only the lower half was computed.
    for i in range(1, len(inverse)):
        inverse[:i, i] = inverse[i, :i]
    weights: Float32 = inverse
    weights /= -weights.diagonal().copy()
    np.fill_diagonal(weights, 0)
    return weights
