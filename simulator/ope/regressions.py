"""Regressions of rewards in [0, 1] on columns, cross-fitted: each fold's is fitted on the rows of all others.

How much a linear one is shrunk is chosen by the squared error of its predictions of the rows that
it has not seen. The grid begins with a model that predicts the mean, and ends where less shrinkage
predicts worse.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ReplayError
from bandits.types import Float64

RIDGE = (np.inf, 1e4, 1e3, 1e2, 1e1, 1.0, 0.1, 0.01)
LOGISTIC = (np.inf, 1e3, 1e2, 3e1, 1e1, 3.0, 1.0, 0.3)
"""Penalties: of the squared error in rows, of the log likelihood in inverse variances of a coefficient."""
NEWTON, CONJUGATE = 30, 50
"""Steps at most."""
CLOSE = 1e-9
"""A gradient, in shares of the rows, that is none."""
PATIENCE = 2
"""Penalties in turn that predict worse, before the search for a better one ends."""
TREES = 40
EDGE = 1e-6
"""How near to 0 or 1 the mean of rewards may be when it is made a logit."""
Fold = NDArray[np.intp]
Curves = tuple[float, Float64]
"""The squared error of predictions of unseen rows, and the coefficients, float64[folds, d + 1], the intercept last."""


def cross_fit_ridge(
    x: Float64, y: Float64, fold: Fold, folds: int, penalties: Sequence[float] = RIDGE
) -> Curves:
    """Least squares with a penalty on all but the intercept.

    ``x``: float64[n, d], ``y``: float64[n].
    """
    parts = [_products(x, y, fold == each) for each in range(folds)]
    rest = [
        np.sum([part for at, part in enumerate(parts) if at != each], axis=0)
        for each in range(folds)
    ]

    def fitted(penalty: float, _: Float64) -> Float64:
        return np.array([_solved(products, penalty) for products in rest])

    return _best(x, y, fold, folds, penalties, fitted, lambda margins: margins)


def _products(x: Float64, y: Float64, rows: NDArray[np.bool_]) -> Float64:
    """Of columns, intercept and reward, with each other."""
    wide = np.column_stack([x[rows], np.ones(rows.sum()), y[rows]])
    products: Float64 = wide.T @ wide
    return products


def _solved(products: Float64, penalty: float) -> Float64:
    """The coefficients, of centred columns, so that the intercept is free."""
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
) -> Curves:
    """The likelihood of rewards in [0, 1] (Papke & Wooldridge 1996, doi:10.1002/(SICI)1099-1255(199611)11:6<619).

    By Newton's method, each step by conjugate gradients: nothing is inverted. All folds are fitted
    at a time.
    """
    wide = np.column_stack([x, np.ones(len(y))])
    rest = fold[:, None] != np.arange(folds)
    rows = np.maximum(rest.sum(axis=0), 1)
    mean = np.clip((rest * y[:, None]).sum(axis=0) / rows, EDGE, 1.0 - EDGE)
    anchor = np.zeros((wide.shape[1], folds))
    anchor[-1] = np.log(mean / (1.0 - mean))

    def fitted(penalty: float, before: Float64) -> Float64:
        if not np.isfinite(penalty):
            return anchor.T
        weights = np.full(wide.shape[1], penalty)
        weights[-1] = EDGE
        return _newton(wide, y, rest, weights[:, None], anchor, before.T).T

    return _best(x, y, fold, folds, penalties, fitted, sigmoid)


def _newton(
    x: Float64,
    y: Float64,
    rest: NDArray[np.bool_],
    penalty: Float64,
    anchor: Float64,
    start: Float64,
) -> Float64:
    """The coefficients, float64[d, folds], that are most likely under a normal prior around ``anchor``."""
    squares = x**2

    def loss(given: Float64) -> Float64:
        margins = x @ given
        fits = np.where(rest, np.logaddexp(0.0, margins) - y[:, None] * margins, 0.0).sum(axis=0)
        total: Float64 = fits + 0.5 * (penalty * (given - anchor) ** 2).sum(axis=0)
        return total

    found, at = start.copy(), loss(start)
    for _ in range(NEWTON):
        chance = sigmoid(x @ found)
        slope = x.T @ np.where(rest, chance - y[:, None], 0.0) + penalty * (found - anchor)
        if np.abs(slope).max(initial=0.0) <= CLOSE * len(y):
            break
        curvature = np.where(rest, chance * (1.0 - chance), 0.0)
        step = _conjugate(x, curvature, penalty, slope, squares.T @ curvature + penalty)
        length = np.ones(step.shape[1])
        for _ in range(20):  # backtracking, fold by fold
            tried = found - length * step
            there = loss(tried)
            worse = there > at
            if not worse.any():
                break
            length[worse] /= 2.0
        better = there < at
        if not better.any():
            break
        found, at = np.where(better, tried, found), np.where(better, there, at)
    return found


def _conjugate(
    x: Float64, curvature: Float64, penalty: Float64, slope: Float64, scale: Float64
) -> Float64:
    """What the Hessian X'WX + penalty makes the slope, float64[d, folds], nearly.

    Preconditioned by its diagonal.
    """
    out, left = np.zeros_like(slope), slope.copy()
    ready = left / scale
    along, size = ready.copy(), (left * ready).sum(axis=0)
    enough = 1e-6 * size
    for _ in range(CONJUGATE):
        going = size > enough
        if not going.any():
            break
        moved = x.T @ (curvature * (x @ along)) + penalty * along
        bent = (along * moved).sum(axis=0)
        share = np.where(going & (bent > 0.0), size / np.where(bent > 0.0, bent, 1.0), 0.0)
        out += share * along
        left -= share * moved
        ready = left / scale
        after = (left * ready).sum(axis=0)
        along = ready + np.where(size > 0.0, after / np.where(size > 0.0, size, 1.0), 0.0) * along
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
) -> Curves:
    best, worse, tried = np.inf, 0, np.zeros((folds, x.shape[1] + 1))
    coefficients = tried
    for penalty in penalties:
        tried = fitted(penalty, tried)
        margins = np.einsum("nd,nd->n", x, tried[fold, :-1]) + tried[fold, -1]
        error = float(np.mean((np.clip(link(margins), 0.0, 1.0) - y) ** 2)) if len(y) else 0.0
        if error < best:
            best, worse, coefficients = error, 0, tried
        else:
            worse += 1
            if worse == PATIENCE:
                break
    return best, coefficients


def cross_fit_trees(x: Float64, y: Float64, fold: Fold, folds: int) -> tuple[float, list[Any]]:
    """Gradient-boosted trees of scikit-learn (Friedman 2001, doi:10.1214/aos/1013203451), by the squared error.

    Raises:
        ReplayError: scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor  # noqa: PLC0415 - an extra of its own
    except ImportError as error:
        raise ReplayError(
            "the reward model gbm needs scikit-learn: pip install 'banditloop[gbm]'", "reward_model"
        ) from error
    fits, predicted = [], np.zeros(len(y))
    for each in range(folds):
        mine = fold == each
        model = HistGradientBoostingRegressor(
            learning_rate=0.1,
            max_iter=TREES,
            max_leaf_nodes=15,
            early_stopping=False,
            random_state=0,
        )
        with _alone():
            fits.append(model.fit(x[~mine], y[~mine]) if (~mine).sum() > 1 else None)
        predicted[mine] = predict_by_trees(fits[-1], x[mine])
    return float(np.mean((predicted - y) ** 2)) if len(y) else 0.0, fits


def predict_by_trees(model: Any, x: Float64) -> Float64:
    """Predictions in [0, 1], float64[n]; 0 of none."""
    if model is None or not len(x):
        return np.zeros(len(x))
    with _alone():
        return np.clip(np.asarray(model.predict(x), np.float64), 0.0, 1.0)


def _alone() -> Any:
    """One thread: of several, sums differ in their last digits, and on a busy machine they wait for each other."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # noqa: PLC0415 - scikit-learn brings it

    return threadpool_limits(1)


def sigmoid(margins: Float64) -> Float64:
    """1 / (1 + exp(-margins))."""
    return 1.0 / (1.0 + np.exp(-np.clip(margins, -500.0, 500.0)))
