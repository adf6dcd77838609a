"""The linear model of transitions with a closed form: the next item from those before it.

Choi, Kim, Lee, Shim & Lee 2021, "Session-aware Linear Item-Item Models for Session-based
Recommendation", https://arxiv.org/abs/2103.16104: their SLIT.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]
from numpy.typing import NDArray
from scipy.linalg import lapack

from bandits.errors import ArtifactError
from bandits.types import Float32
from policies.artifacts.fitted_with import Count, Positive, Size
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.training.cf import Step
from policies.training.neighbours import largest_of_rows
from policies.training.sequence.order import Ordered, in_order


@dataclass(frozen=True, slots=True)
class SlitConfig:
    """``half_life``: so many newer events later an event counts half.

    ``length``: the events that are looked at, the newest. ``regularization``: λ, in
    transitions of mean squared weight. ``neighbours``: the largest weights that are kept
    of each item. ``max_items``: with more, the source is not fitted: the fit takes 8 · items²
    bytes, and time that grows with items³. The defaults were chosen on validation parts of
    MovieLens 100K and of the frozen shop (docs/benchmarks/sources.md).
    """

    half_life: Positive = 10.0
    length: Size = 50
    regularization: Positive = 3000.0
    neighbours: Count = 400
    max_items: Count = 15_000

    @property
    def fade(self) -> float:
        """How much is left of an event's strength when one more has come."""
        return float(0.5 ** (1 / self.half_life))


def fit_slit(histories: Histories, config: SlitConfig, *, step: Step) -> TrainedSource:
    """Find the item weights B of least ‖T - SB‖² + λ‖B‖²: B = (SᵀS + λI)⁻¹ SᵀT.

    A row of S holds what a user had done at one moment, halved with every ``half_life`` newer
    events, and the row of T what the user did next. Differs from the paper: T holds the next item
    alone, not all that follow; events count by their weights; and there is no part for consistency
    within a session (their SLIS), which did not measure better beside it.

    Args:
        histories: who interacted with what, and when.
        config: see SlitConfig.
        step: told after each of four steps.

    Raises:
        ArtifactError: the matrix cannot be inverted, for numbers that are too large.
    """
    events, items = in_order(histories), len(histories.items)
    squares = events.weights.astype(np.float64) ** 2
    ridge = config.regularization * (squares.mean() if squares.size else 1.0)

    def together(lag: int, later: NDArray[Any]) -> NDArray[Any]:
        # Two events meet in each row from the later of them on. Both fade from row to row.
        rows = np.minimum(events.after[later], config.length - lag)
        sums: NDArray[Any] = (
            config.fade**lag * (1 - config.fade ** (2.0 * rows)) / (1 - config.fade**2)
        )
        return sums

    def onwards(lag: int, later: NDArray[Any]) -> NDArray[Any]:
        # Two events meet in the one row whose next item is the later.
        return np.full(later.size, config.fade ** (lag - 1))

    # Of a symmetric matrix the upper half is enough.
    gram = _sum_of_pairs(events, items, range(config.length), together, upper=True)
    gram[np.diag_indices(items)] += np.float32(ridge)
    step(1, 4)

    weights = _sum_of_pairs(events, items, range(1, config.length + 1), onwards)
    step(2, 4)

    # With one thread its sums have one order.
    with threadpoolctl.threadpool_limits(1, "blas"):
        factor, failed = lapack.spotrf(gram, lower=0, overwrite_a=1)
        if not failed:
            weights, failed = lapack.spotrs(factor, weights, lower=0, overwrite_b=1)
    if failed or not np.isfinite(weights).all():
        raise ArtifactError("slit: the weights are too large or too uneven to be fitted", "slit")
    step(3, 4)

    # A history is never proposed.
    np.fill_diagonal(weights, 0)
    arrays = largest_of_rows(weights, config.neighbours)
    step(4, 4)
    return TrainedSource("slit", arrays, asdict(config))


def _sum_of_pairs(
    events: Ordered,
    items: int,
    lags: Iterable[int],
    amount: Callable[[int, NDArray[Any]], NDArray[Any]],
    *,
    upper: bool = False,
) -> Float32:
    """Return what all pairs of a user's events add up to, float32[items, items], by columns.

    Args:
        events: whose pairs.
        items: how many there are.
        lags: how far apart the events of a pair are.
        amount: what each pair of a lag adds, times the product of its events' weights, to the row
            of the earlier item and the column of the later; given the places of the later events.
        upper: whether it is added above the diagonal, whichever item is the earlier.
    """
    sums = np.zeros(items * items, np.float32)
    for lag in lags:
        earlier, later = events.pairs(lag)
        both = events.weights[earlier].astype(np.float64) * events.weights[later]
        row, column = events.items[earlier], events.items[later]
        if upper:
            row, column = np.minimum(row, column), np.maximum(row, column)
        np.add.at(sums, column * items + row, (amount(lag, later) * both).astype(np.float32))
    return sums.reshape(items, items, order="F")
