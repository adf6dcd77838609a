"""Regressions of rewards in [0, 1] on columns, cross-fitted: each fold's is fitted on the others.

How much a linear one is shrunk is chosen by the squared error of its predictions of the rows that
it has not seen. The grid begins with a model that predicts the mean, and ends where less shrinkage
predicts worse.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ReplayError
from bandits.types import Float64
from simulator.ope.kernels import sparse_times, sparse_transposed_times

RIDGE = (np.inf, 1e4, 1e3, 1e2, 1e1, 1.0, 0.1, 0.01)
"""Penalties of the squared error, in rows."""
LOGISTIC = (np.inf, 1e3, 1e2, 3e1, 1e1, 3.0, 1.0, 0.3)
"""Penalties of the log likelihood, in inverse variances of a coefficient."""
NEWTON_STEPS, CONJUGATE_STEPS, HALVINGS = 30, 50, 20
"""How many there are at most."""
CLOSE = 1e-9
"""A gradient, as a share of the rows, that is none."""
PATIENCE = 2
"""Penalties in turn that predict worse, before the search for a better one ends."""
TREES = 40
EDGE = 1e-6
"""How near to 0 or 1 the mean of rewards may be when it is made a logit."""
Fold = NDArray[np.intp]
"""int[n]: the fold of each row."""
Fit = tuple[float, Float64]
"""The squared error of predictions of unseen rows, and the coefficients of each fold.

These are float64[folds, d + 1], the intercept last.
"""


def cross_fit_ridge(
    x: Float64, y: Float64, fold: Fold, folds: int, penalties: Sequence[float] = RIDGE
) -> Fit:
    """Fit least squares with a penalty on all coefficients but the intercept.

    Args:
        x: float64[n, d], columns.
        y: float64[n], rewards.
        fold: int[n], of each row.
        folds: how many there are.
        penalties: to choose from, the largest first.
    """
    # Products add up, so that no fold's rows are multiplied twice.
    parts = [_products(x, y, fold == number) for number in range(folds)]
    others = [
        np.sum([part for at, part in enumerate(parts) if at != number], axis=0)
        for number in range(folds)
    ]

    def fitted(penalty: float, _: Float64) -> Float64:
        return np.array([_solved(products, penalty) for products in others])

    return _best(x, y, fold, folds, penalties, fitted, lambda margins: margins)


def _products(x: Float64, y: Float64, rows: NDArray[np.bool_]) -> Float64:
    """Return products of columns, intercept and reward with each other, float64[d + 2, d + 2]."""
    wide = np.column_stack([x[rows], np.ones(rows.sum()), y[rows]])
    products: Float64 = wide.T @ wide
    return products


def _solved(products: Float64, penalty: float) -> Float64:
    """Return the coefficients, float64[d + 1]; columns are centred, so the intercept is free."""
    d, n = len(products) - 2, products[-2, -2]
    out = np.zeros(d + 1)
    if n < 0.5:
        return out

    mean, reward = products[:d, -2] / n, products[-1, -2] / n
    if np.isfinite(penalty) and d:
        squares = products[:d, :d] - n * np.outer(mean, mean)
        out[:d] = np.linalg.solve(
            squares + penalty * np.eye(d), products[:d, -1] - n * mean * reward
        )
    out[d] = reward - mean @ out[:d]
    return out


def cross_fit_logistic(
    x: Float64, y: Float64, fold: Fold, folds: int, penalties: Sequence[float] = LOGISTIC
) -> Fit:
    """Fit the likelihood of rewards in [0, 1].

    Papke & Wooldridge 1996, doi:10.1002/(SICI)1099-1255(199611)11:6<619. By Newton's method, each
    step by conjugate gradients: nothing is inverted. All folds are fitted at a time.

    Args:
        x: float64[n, d], columns.
        y: float64[n], rewards.
        fold: int[n], of each row.
        folds: how many there are.
        penalties: to choose from, the largest first.
    """
    wide = _Sparse.of(np.column_stack([x, np.ones(len(y))]))
    others = fold[:, None] != np.arange(folds)

    # Coefficients are drawn to those of a model that predicts the mean.
    rows = np.maximum(others.sum(axis=0), 1)
    mean = np.clip((others * y[:, None]).sum(axis=0) / rows, EDGE, 1.0 - EDGE)
    anchor = np.zeros((wide.width, folds))
    anchor[-1] = np.log(mean / (1.0 - mean))

    def fitted(penalty: float, before: Float64) -> Float64:
        if not np.isfinite(penalty):
            return anchor.T
        weights = np.full(wide.width, penalty)
        weights[-1] = EDGE
        return _newton(wide, y, others, weights[:, None], anchor, before.T).T

    return _best(x, y, fold, folds, penalties, fitted, sigmoid)


@dataclass(frozen=True, slots=True)
class _Sparse:
    """A matrix, float64[n, width], that is mostly zeros; see ``sparse_times``."""

    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: Float64
    width: int

    @classmethod
    def of(cls, x: Float64) -> "_Sparse":
        """Return a dense matrix as a sparse one."""
        rows, columns = np.nonzero(x)
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(x)))])
        return cls(starts.astype(np.int64), columns.astype(np.int32), x[rows, columns], x.shape[1])

    def squares(self) -> "_Sparse":
        """Return the matrix of its squared elements."""
        return replace(self, values=self.values**2)

    def times(self, matrix: Float64) -> Float64:
        """Return the product with float64[width, F]."""
        matrix = np.ascontiguousarray(matrix)
        return sparse_times(self.starts, self.columns, self.values, matrix)

    def transposed_times(self, matrix: Float64) -> Float64:
        """Return the product of the transpose with float64[n, F]."""
        matrix = np.ascontiguousarray(matrix)
        return sparse_transposed_times(self.starts, self.columns, self.values, matrix, self.width)


def _newton(
    x: _Sparse,
    y: Float64,
    others: NDArray[np.bool_],
    penalty: Float64,
    anchor: Float64,
    start: Float64,
) -> Float64:
    """Return the coefficients that are most likely under a normal prior around ``anchor``.

    Args:
        x: [n, d], columns with the intercept.
        y: float64[n], rewards.
        others: bool[n, folds], the rows that each fold's model is fitted on.
        penalty: float64[d, 1], inverse variances of the prior.
        anchor: float64[d, folds], the prior's mean.
        start: float64[d, folds], where to begin.

    Returns:
        float64[d, folds].
    """
    squares = x.squares()

    def loss(coefficients: Float64) -> Float64:
        margins = x.times(coefficients)
        fits = np.where(others, np.logaddexp(0.0, margins) - y[:, None] * margins, 0.0).sum(axis=0)
        total: Float64 = fits + 0.5 * (penalty * (coefficients - anchor) ** 2).sum(axis=0)
        return total

    best, best_loss = start.copy(), loss(start)
    for _ in range(NEWTON_STEPS):
        chance = sigmoid(x.times(best))
        missed = np.where(others, chance - y[:, None], 0.0)
        slope = x.transposed_times(missed) + penalty * (best - anchor)
        if np.abs(slope).max(initial=0.0) <= CLOSE * len(y):
            break

        curvature = np.where(others, chance * (1.0 - chance), 0.0)
        scale = squares.transposed_times(curvature) + penalty
        step = _conjugate(x, curvature, penalty, slope, scale)

        # A step that is too long is halved, fold by fold.
        length = np.ones(step.shape[1])
        for _ in range(HALVINGS):
            tried = best - length * step
            tried_loss = loss(tried)
            worse = tried_loss > best_loss
            if not worse.any():
                break
            length[worse] /= 2.0

        better = tried_loss < best_loss
        if not better.any():
            break
        best = np.where(better, tried, best)
        best_loss = np.where(better, tried_loss, best_loss)
    return best


def _conjugate(
    x: _Sparse, curvature: Float64, penalty: Float64, slope: Float64, scale: Float64
) -> Float64:
    """Solve (X'WX + penalty) step = slope, nearly, by conjugate gradients.

    Args:
        x: [n, d].
        curvature: float64[n, folds], the diagonal of W.
        penalty: float64[d, 1].
        slope: float64[d, folds].
        scale: float64[d, folds], the matrix's diagonal, which preconditions it.

    Returns:
        The step, float64[d, folds].
    """
    out, residual = np.zeros_like(slope), slope.copy()
    scaled = residual / scale
    direction, size = scaled.copy(), (residual * scaled).sum(axis=0)
    enough = 1e-6 * size

    for _ in range(CONJUGATE_STEPS):
        going = size > enough
        if not going.any():
            break

        # Folds that are done take steps of 0.
        moved = x.transposed_times(curvature * x.times(direction)) + penalty * direction
        bent = (direction * moved).sum(axis=0)
        share = np.where(going & (bent > 0.0), size / np.where(bent > 0.0, bent, 1.0), 0.0)
        out += share * direction
        residual -= share * moved

        scaled = residual / scale
        after = (residual * scaled).sum(axis=0)
        kept = np.where(size > 0.0, after / np.where(size > 0.0, size, 1.0), 0.0)
        direction = scaled + kept * direction
        size = np.where(going, after, size)
    return out


def _best(
    x: Float64,
    y: Float64,
    fold: Fold,
    folds: int,
    penalties: Sequence[float],
    fitted: Callable[[float, Float64], Float64],
    link: Callable[[Float64], Float64],
) -> Fit:
    """Fit with each penalty in turn, and return the fit that predicts unseen rows best.

    Args:
        x: float64[n, d].
        y: float64[n].
        fold: int[n].
        folds: how many there are.
        penalties: the largest first.
        fitted: gives coefficients for a penalty, from those for the penalty before.
        link: from margins to predictions.
    """
    best, worse, tried = np.inf, 0, np.zeros((folds, x.shape[1] + 1))
    coefficients, rows = tried, np.arange(len(y))
    for penalty in penalties:
        tried = fitted(penalty, tried)
        margins = (x @ tried[:, :-1].T)[rows, fold] + tried[fold, -1]
        error = float(np.mean((np.clip(link(margins), 0.0, 1.0) - y) ** 2)) if len(y) else 0.0

        # Errors rarely fall again once they rise.
        if error < best:
            best, worse, coefficients = error, 0, tried
        else:
            worse += 1
            if worse == PATIENCE:
                break
    return best, coefficients


def cross_fit_trees(x: Float64, y: Float64, fold: Fold, folds: int) -> tuple[float, list[Any]]:
    """Fit gradient-boosted trees of scikit-learn (Friedman 2001, doi:10.1214/aos/1013203451).

    Args:
        x: float64[n, d], columns.
        y: float64[n], rewards.
        fold: int[n], of each row.
        folds: how many there are.

    Returns:
        The squared error of predictions of unseen rows, and a model for each fold.

    Raises:
        ReplayError: scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import (  # noqa: PLC0415 - an extra of its own
            HistGradientBoostingRegressor,
        )
    except ImportError as error:
        raise ReplayError(
            "the reward model gbm needs scikit-learn: pip install 'banditloop[gbm]'", "reward_model"
        ) from error

    fits, predicted = [], np.zeros(len(y))
    for number in range(folds):
        mine = fold == number
        model = HistGradientBoostingRegressor(
            learning_rate=0.1,
            max_iter=TREES,
            max_leaf_nodes=15,
            early_stopping=False,
            random_state=0,
        )

        # One row, or none, has nothing to split.
        with _one_thread():
            fits.append(model.fit(x[~mine], y[~mine]) if (~mine).sum() > 1 else None)
        predicted[mine] = predict_by_trees(fits[-1], x[mine])
    return float(np.mean((predicted - y) ** 2)) if len(y) else 0.0, fits


def predict_by_trees(model: Any, x: Float64) -> Float64:
    """Predict rewards in [0, 1], float64[n].

    Args:
        model: a fold's; None predicts 0.
        x: float64[n, d].
    """
    if model is None or not len(x):
        return np.zeros(len(x))
    with _one_thread():
        return np.clip(np.asarray(model.predict(x), np.float64), 0.0, 1.0)


def _one_thread() -> Any:
    """Limit libraries to one thread.

    With several, sums differ in their last digits, and on a busy machine threads wait for each
    other.
    """
    from threadpoolctl import (  # type: ignore[import-untyped] # noqa: PLC0415 - of scikit-learn
        threadpool_limits,
    )

    return threadpool_limits(1)


def sigmoid(margins: Float64) -> Float64:
    """Return 1 / (1 + exp(-margins))."""
    return 1.0 / (1.0 + np.exp(-np.clip(margins, -500.0, 500.0)))
