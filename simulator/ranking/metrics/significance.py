"""Intervals over users, and paired tests: the same users see every source."""

from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64

REPLICATES: Final = 1_000
FLIPS: Final = 10_000
AT_ONCE: Final = 1 << 23
"""Random numbers that are drawn at a time, which bounds the memory."""
TAILS: Final = (0.025, 0.975)


def bootstrap(values: Float64, *, seed: int, replicates: int = REPLICATES) -> Float64:
    """Return means of columns over resampled users, float64[replicates, columns].

    A user counts Poisson(1) times, the same times in every column, so differences of columns are
    paired (Chamandy et al. 2012, https://research.google/pubs/pub43157/). NaN is no value.

    Args:
        values: float64[users, columns].
        seed: of the resampling.
        replicates: how many.
    """
    rng = np.random.default_rng([seed, 0])
    there = np.isfinite(values)
    filled = np.where(there, values, 0.0)
    partial = not there.all()

    means = np.empty((replicates, values.shape[1]))
    step = max(1, AT_ONCE // max(1, len(values)))
    for start in range(0, replicates, step):
        weights = rng.poisson(1.0, (min(step, replicates - start), len(values))).astype(np.float64)
        totals = weights @ there if partial else weights.sum(axis=1, keepdims=True)
        means[start : start + step] = np.divide(
            weights @ filled,
            totals,
            out=np.full((len(weights), values.shape[1]), np.nan),
            where=totals > 0,
        )
    return means


def intervals(means: Float64) -> Float64:
    """Return the 2.5% and 97.5% quantiles of each column of replicates, float64[columns, 2]."""
    ends = np.full((means.shape[1], 2), np.nan)
    for column in range(means.shape[1]):
        finite = means[np.isfinite(means[:, column]), column]
        if finite.size:
            ends[column] = np.quantile(finite, TAILS)
    return ends


def paired_p_values(values: Float64, *, seed: int, flips: int = FLIPS) -> Float64:
    """Return the p-value of each two columns' difference, in the order of ``combinations``.

    Fisher's randomisation test: were there no difference, each user's could as well have had the
    other sign (Smucker, Allan & Carterette 2007, https://doi.org/10.1145/1321440.1321528).
    Two-sided; the observed signs count as one of the flips, so none is below 1 / (flips + 1).

    Args:
        values: of the same users, float64[users, columns].
        seed: of the signs.
        flips: how many sets of signs.
    """
    rng = np.random.default_rng([seed, 1])
    pairs = list(combinations(range(values.shape[1]), 2))
    apart = np.stack([values[:, i] - values[:, j] for i, j in pairs], axis=1)
    observed = np.abs(apart.sum(axis=0))

    # Sums in another order differ in their last bits: those are ties.
    observed -= 1e-9 * np.abs(apart).sum(axis=0)
    beyond = np.ones(len(pairs))
    step = max(1, AT_ONCE // max(1, len(values)))
    for start in range(0, flips, step):
        count = min(step, flips - start)
        signs = rng.integers(0, 2, (count, len(values)), np.int8) * np.float64(2) - 1
        beyond += (np.abs(signs @ apart) >= observed).sum(axis=0)
    return beyond / (flips + 1)


def holm(p_values: NDArray[np.float64]) -> Float64:
    """Return p-values adjusted for their number, step down: Holm 1979."""
    order = np.argsort(p_values, kind="stable")
    raised = np.minimum(1.0, p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(raised)
    return adjusted
