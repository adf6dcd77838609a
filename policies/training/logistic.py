"""Probabilities of scores: logistic regression on one input, and how far off it is. No torch."""

from typing import Final

import numpy as np

from bandits.types import Float64

NEWTON_STEPS: Final = 30
RIDGE: Final = 1e-6
PRECISION: Final = 1e-12
LIMIT: Final = 30.0
"""Logits beyond it are cut where probabilities are computed."""


def probability(logits: Float64) -> Float64:
    """Return 1 / (1 + exp(-logit)) of each, float64[n], within what a log can be taken of."""
    chance: Float64 = 1.0 / (1.0 + np.exp(-np.clip(logits, -LIMIT, LIMIT)))
    return chance


def log_loss(chance: Float64, labels: Float64, weights: Float64) -> float:
    """Return the weighted mean log loss in nats.

    Args:
        chance: float64[n], within 0 and 1.
        labels: float64[n], 0 or 1.
        weights: float64[n].
    """
    chance = np.clip(chance, 1e-12, 1 - 1e-12)
    losses = -(labels * np.log(chance) + (1 - labels) * np.log1p(-chance))
    return float((losses * weights).sum() / weights.sum())


def fit_logistic(logits: Float64, labels: Float64, weights: Float64) -> tuple[float, float]:
    """Return slope and intercept of a weighted logistic regression on one input: Platt's scaling.

    Platt 1999, "Probabilistic Outputs for Support Vector Machines". Where the input does not tell
    classes apart in its own direction, the slope stays 1 and the intercept alone is fitted.

    Args:
        logits: float64[n].
        labels: float64[n], 0 or 1.
        weights: float64[n].
    """
    mean = float((weights * logits).sum() / weights.sum())
    spread = float(np.sqrt((weights * (logits - mean) ** 2).sum() / weights.sum())) or 1.0
    inputs = (logits - mean) / spread
    share = float(np.clip((weights * labels).sum() / weights.sum(), 1e-9, 1 - 1e-9))
    solved = np.array([0.0, np.log(share / (1 - share))])
    solved = _newton(solved, inputs, labels, weights)
    slope = solved[0] / spread
    if slope <= 0:
        kept = _newton(np.zeros(2), logits, labels, weights, slope=1.0)
        return 1.0, float(kept[1])
    return float(slope), float(solved[1] - slope * mean)


def _newton(
    solved: Float64,
    inputs: Float64,
    labels: Float64,
    weights: Float64,
    slope: float | None = None,
) -> Float64:
    """Return slope and intercept with the least loss; the slope stays if it is given.

    Args:
        solved: where it begins.
        inputs: float64[n].
        labels: float64[n], 0 or 1.
        weights: float64[n].
        slope: the one that stays.
    """
    solved = solved.copy() if slope is None else np.array([slope, solved[1]])
    design = np.column_stack([inputs, np.ones(len(inputs))])
    free = np.array([slope is None, True])

    def cost(at: Float64) -> float:
        chance = probability(design @ at)
        total = float(weights.sum())
        return log_loss(chance, labels, weights) * total + RIDGE * float(at @ at)

    least = cost(solved)
    for _ in range(NEWTON_STEPS):
        chance = probability(design @ solved)
        gradient = design.T @ (weights * (labels - chance)) - 2 * RIDGE * solved
        curve = (design * (weights * chance * (1 - chance))[:, None]).T @ design
        curve += 2 * RIDGE * np.eye(2)
        step = np.zeros(2)
        step[free] = np.linalg.solve(curve[np.ix_(free, free)], gradient[free])

        # A step that goes too far is halved until it gains anything.
        while (reached := cost(solved + step)) > least and np.abs(step).max() > PRECISION:
            step /= 2
        if reached > least or least - reached < PRECISION * (1 + abs(least)):
            break
        solved, least = solved + step, reached
    return solved
