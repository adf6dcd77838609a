"""The estimators as formulas: functions of the means of one to three columns, computed row by row.

w is the importance weight of a row, r its reward, q the reward model's prediction for the chosen
action and e the model's mean under the target policy. In the symbols of papers: w = pi(a|x) /
mu(a|x), q = q^(x, a), e = q^(x, pi).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bandits.errors import ReplayError
from bandits.types import Float64
from simulator.ope.batch import OpeBatch

RewardRange = tuple[float, float]
"""The least and the largest reward."""
GRID = (math.inf, 500.0, 200.0, 100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0)
"""Weights from which clipping or switching may begin, the least biased first."""


@dataclass(frozen=True, slots=True)
class Formula:
    """One column w r, and its mean; the others vary this.

    ``k`` is the number of columns. ``weighted``: it uses rewards by their weights. ``modelled``: it
    uses the reward model. ``tuned`` names the parameter that limits its weights, and ``grid`` has
    the values to choose from.
    """

    k: ClassVar[int] = 1
    weighted: ClassVar[bool] = True
    modelled: ClassVar[bool] = False
    tuned: ClassVar[str | None] = None
    grid: ClassVar[tuple[float, ...]] = GRID

    def weight(self, weight: Float64) -> Float64:
        """Return the weight that is used in place of the importance weight; never a larger one."""
        return weight

    def largest(self, weight: float) -> float:
        """Return the largest weight used when importance weights are at most ``weight``."""
        return weight

    def columns(self, weight: Float64, batch: OpeBatch) -> Float64:
        """Compute the columns, float64[k, n].

        Args:
            weight: float64[n], the weights that are used.
            batch: the n rows.

        Raises:
            ReplayError: the batch has no predictions, and the formula needs them.
        """
        return np.stack([weight * batch.reward])

    def value(self, means: Float64) -> Float64:
        """Return the estimate, float64[...], from means, float64[..., k]."""
        mean: Float64 = means[..., 0]
        return mean

    def gradient(self, means: Float64) -> Float64:
        """Return the gradient of the value, float64[k], at ``means``, float64[k]."""
        return np.ones_like(means)

    def span(self, max_weight: float, rewards: RewardRange) -> tuple[Float64, Float64]:
        """Return the range of each column: its ends, float64[k] each.

        Args:
            max_weight: of the importance weights.
            rewards: the range of rewards; predictions are taken to be in it.
        """
        # Columns are linear in each of w, r, q and e: their extremes are where each is at an end.
        ends = np.meshgrid([0.0, self.largest(max_weight)], rewards, rewards, rewards)
        weight, reward, predicted, expected = (end.ravel() for end in ends)
        keys, ones = np.zeros(len(weight), np.uint64), np.ones(len(weight))
        columns = self.columns(weight, OpeBatch(keys, reward, ones, ones, predicted, expected))
        return columns.min(axis=1), columns.max(axis=1)


class IPS(Formula):
    """Inverse propensity scoring: mean(w r).

    Horvitz & Thompson 1952; Strehl et al. 2010, arXiv:1003.0120.
    """


@dataclass(frozen=True, slots=True)
class ClippedIPS(Formula):
    """IPS with min(w, clip) (Ionides 2008; Bottou et al. 2013, arXiv:1209.2355)."""

    tuned: ClassVar[str | None] = "clip"
    clip: float = 10.0

    def weight(self, weight: Float64) -> Float64:
        """Return at most ``clip``."""
        return np.minimum(weight, self.clip)

    def largest(self, weight: float) -> float:
        """Return at most ``clip``."""
        return min(weight, self.clip)


class SNIPS(Formula):
    """Self-normalised IPS (Swaminathan & Joachims 2015, NIPS 28): mean(w r) / mean(w)."""

    k = 2

    def columns(self, weight: Float64, batch: OpeBatch) -> Float64:
        """Compute the products w r, and w: float64[2, n].

        Args:
            weight: float64[n], the weights that are used.
            batch: the n rows.
        """
        return np.stack([weight * batch.reward, weight])

    def value(self, means: Float64) -> Float64:
        """Return the ratio of their means."""
        return ratio_of_means(means[..., 0], means[..., 1])

    def gradient(self, means: Float64) -> Float64:
        """Return the gradient of a / b: 1 / b and -a / b^2."""
        return np.array([1.0 / means[1], -means[0] / means[1] ** 2])


class DM(Formula):
    """Direct method: mean(e). Only as good as the reward model; no weight corrects it."""

    weighted, modelled = False, True

    def columns(self, weight: Float64, batch: OpeBatch) -> Float64:  # noqa: ARG002 - no weights
        """Compute the model's mean alone, float64[1, n].

        Args:
            weight: left aside, as nothing is weighted.
            batch: the n rows, with predictions.

        Raises:
            ReplayError: the batch has no predictions.
        """
        return np.stack([_model(batch)[1]])


class DR(Formula):
    """Doubly robust (Dudik, Langford & Li 2011, arXiv:1103.4601): mean(e + w (r - q))."""

    modelled = True

    def columns(self, weight: Float64, batch: OpeBatch) -> Float64:
        """Compute the model's mean, corrected by the weighted residual: float64[1, n].

        Args:
            weight: float64[n], the weights that are used.
            batch: the n rows, with predictions.

        Raises:
            ReplayError: the batch has no predictions.
        """
        predicted, expected = _model(batch)
        return np.stack([expected + weight * (batch.reward - predicted)])


class SNDR(Formula):
    """Self-normalised DR: mean(e) + mean(w (r - q)) / mean(w).

    The weighted DR of Thomas & Brunskill 2016, arXiv:1604.00923, with a horizon of one step.
    """

    k, modelled = 3, True

    def columns(self, weight: Float64, batch: OpeBatch) -> Float64:
        """Compute the model's mean, the weighted residual, and w: float64[3, n].

        Args:
            weight: float64[n], the weights that are used.
            batch: the n rows, with predictions.

        Raises:
            ReplayError: the batch has no predictions.
        """
        predicted, expected = _model(batch)
        return np.stack([expected, weight * (batch.reward - predicted), weight])

    def value(self, means: Float64) -> Float64:
        """Return the mean of the first plus the ratio of the others."""
        value: Float64 = means[..., 0] + ratio_of_means(means[..., 1], means[..., 2])
        return value

    def gradient(self, means: Float64) -> Float64:
        """Return the gradient of e + a / b: 1, 1 / b and -a / b^2."""
        return np.array([1.0, 1.0 / means[2], -means[1] / means[2] ** 2])


@dataclass(frozen=True, slots=True)
class SwitchDR(DR):
    """DR where w <= tau, the model alone elsewhere.

    Wang, Agarwal & Dudik 2017, arXiv:1612.01205.
    """

    tuned: ClassVar[str | None] = "tau"
    tau: float = 10.0

    def weight(self, weight: Float64) -> Float64:
        """Return zero above ``tau``."""
        return np.where(weight <= self.tau, weight, 0.0)

    def largest(self, weight: float) -> float:
        """Return at most ``tau``."""
        return min(weight, self.tau)


@dataclass(frozen=True, slots=True)
class DRos(DR):
    """DR with optimistic shrinkage, w' = lambda w / (w^2 + lambda).

    Su et al. 2020, arXiv:1907.09623. A weight of sqrt(lambda) is halved, and none is larger than
    that afterwards.
    """

    tuned: ClassVar[str | None] = "lambda_"
    grid: ClassVar[tuple[float, ...]] = tuple(weight**2 for weight in GRID)
    lambda_: float = 100.0

    def weight(self, weight: Float64) -> Float64:
        """Return the weight, shrunk the more the larger it is."""
        if self.lambda_ <= 0.0:
            return np.zeros_like(weight)
        shrunk: Float64 = weight / (1.0 + weight**2 / self.lambda_)
        return shrunk

    def largest(self, weight: float) -> float:
        """Return the largest shrunk weight: the maximum is at sqrt(lambda)."""
        return float(self.weight(np.array(min(weight, math.sqrt(self.lambda_)))))


FORMULAS: Mapping[str, type[Formula]] = {
    "ips": IPS,
    "clipped_ips": ClippedIPS,
    "snips": SNIPS,
    "dm": DM,
    "dr": DR,
    "sndr": SNDR,
    "switch_dr": SwitchDR,
    "dros": DRos,
}


def _model(batch: OpeBatch) -> tuple[Float64, Float64]:
    """Return q and e."""
    if batch.predicted is None or batch.expected is None:
        raise ReplayError(
            "DM and the DR family need a reward model's predictions; give one, or use snips",
            "predicted",
        )
    return batch.predicted, batch.expected


def ratio_of_means(above: Float64, below: Float64) -> Float64:
    """Return ``above / below``; NaN or infinite where no row has target mass.

    Args:
        above: float64[...], a mean.
        below: float64[...], the mean of the weights.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Float64 = above / below
    return ratio
