"""The reward model of DM and DR: ridge regression on hashed features, cross-fitted, from sums that add up.

Cross-fitting (Chernozhukov et al. 2018, arXiv:1608.00060, definition 3.2): a row is predicted by the model of the other
folds, so that no prediction has seen its own reward. A row's fold follows from its key: all slots of a decision share
it, however the log is cut.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ReplayError
from bandits.types import Float64
from simulator.logs.base import UInt64, splitmix64

BITS = 8
FOLDS = 5
CELLS = 1 << 20
"""Numbers of a dense matrix, or of gathered coefficients, held at once."""
Columns = NDArray[np.integer[Any]]


class RewardModel:
    """What is to be fitted: per fold the sums of products of 2^bits columns, an intercept and the reward.

    A feature's column is its hash modulo 2^bits; features that collide share a coefficient. ``l2``: the penalty, on the
    intercept as well, so that the solution exists for any rows, even for none (then every prediction is 0).
    """

    def __init__(self, *, bits: int = BITS, folds: int = FOLDS, l2: float = 1.0) -> None:
        self._size, self._folds, self._l2 = 1 << bits, folds, l2
        self._products = np.zeros((folds, self._size + 2, self._size + 2))

    def update(self, columns: Columns, values: Float64, reward: Float64, keys: UInt64) -> None:
        """Add rows. ``columns``, ``values``: the chosen action's features, int[n, F], float64[n, F]; 0 is padding.

        Raises:
            ReplayError: a feature or a reward is not finite.
        """
        products = np.zeros_like(self._products)
        folds = fold_of(keys, self._folds)
        for part in _parts(len(reward), self._size + 2):
            rows = self._dense(columns[part], values[part], reward[part])
            for fold in range(self._folds):
                mine = rows[folds[part] == fold]
                products[fold] += mine.T @ mine
        if not np.isfinite(products).all():
            raise ReplayError("a feature or a reward is infinite, NaN or too large; leave such rows out", "features")
        self._products += products

    def merge(self, other: "RewardModel") -> None:
        """Add the rows of another.

        Raises:
            ReplayError: it has other bits or folds.
        """
        if other._products.shape != self._products.shape:  # noqa: SLF001
            raise ReplayError("cannot merge reward models of different bits or folds", "reward_model")
        self._products += other._products  # noqa: SLF001

    def fit(self) -> "FittedRewardModel":
        """Solve, for each fold, the normal equations of the others."""
        coefficients = []
        for fold in range(self._folds):
            rest = np.delete(self._products, fold, axis=0).sum(axis=0)
            precision = rest[:-1, :-1] + self._l2 * np.eye(len(rest) - 1)
            coefficients.append(np.linalg.solve(precision, rest[:-1, -1]))
        return FittedRewardModel(np.array(coefficients))

    def _dense(self, columns: Columns, values: Float64, reward: Float64) -> Float64:
        """Rows with the intercept and the reward as last columns: float64[n, 2^bits + 2]."""
        width = self._size + 2
        at = np.arange(len(reward))[:, None] * width + columns % self._size
        flat = np.bincount(at.ravel(), values.ravel(), len(reward) * width).astype(np.float64, copy=False)
        dense: Float64 = flat.reshape(len(reward), width)
        dense[:, -2], dense[:, -1] = 1.0, reward
        return dense


@dataclass(frozen=True, slots=True, eq=False)
class FittedRewardModel:
    """``coefficients``: float64[folds, 2^bits + 1], the intercept last; those of a fold were fitted without it."""

    coefficients: Float64

    def predict(self, columns: Columns, values: Float64, keys: UInt64) -> Float64:
        """Rewards, float64[n] from [n, F], or of every action float64[n, K] from [n, K, F]. ``keys``: uint64[n]."""
        folds, size = len(self.coefficients), self.coefficients.shape[1] - 1
        fold = fold_of(keys, folds).reshape(-1, *[1] * (columns.ndim - 1))
        out = np.empty(columns.shape[:-1])
        for part in _parts(len(columns), max(1, columns[:1].size)):
            gathered = self.coefficients[fold[part], columns[part] % size]
            out[part] = np.einsum("...f,...f->...", gathered, values[part])
        out += self.coefficients[fold[..., 0], -1]
        return out


def fold_of(keys: UInt64, folds: int) -> NDArray[np.intp]:
    """int[n]: a fold for each key."""
    return (splitmix64(keys) % np.uint64(folds)).astype(np.intp)


def _parts(rows: int, width: int) -> Iterator[slice]:
    """Rows in parts of at most CELLS numbers."""
    step = max(1, CELLS // width)
    return (slice(start, start + step) for start in range(0, rows, step))
