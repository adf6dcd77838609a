"""The model behind DR of sessions: what the rest of a session earns under a target policy.

Fitted Q evaluation (Le, Voloshin & Yue 2019, arXiv:1903.08738) with a ridge regression on hashed
features. With X the features of the choices, N the mean features of the decisions after them under
the target policy (0 after the last) and r the rewards, the value of h decisions ahead has the
coefficients

    c_h = (X'X + l2 I)^-1 (X'r + gamma X'N c_h-1),  c_0 = 0

so X'X, X'N and X'r are all there is to know of the log: they merge by addition. Cross-fitted by
session.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ReplayError
from bandits.features.hashing import UInt64
from bandits.sums import sum_products
from bandits.types import Float64
from simulator.logs.rows import LoggedDecision, batch_of
from simulator.ope.feature_design import FeatureScales, hashed_design
from simulator.ope.hashed_features import hash_in_parts
from simulator.ope.reward_model import fold_of

L2 = 1.0
"""Penalty of coefficients; features are in units of their standard deviations."""


def mean_features(
    rows: Sequence[LoggedDecision], pmfs: Sequence[Float64], bits: int, scales: FeatureScales
) -> Float64:
    """Return the mean of each row's actions' features under a PMF, and an intercept last.

    Args:
        rows: n of them.
        pmfs: float64[K] each; all mass on the choice gives the features of the choice.
        bits: a feature's column is its hash modulo 2^bits.
        scales: the units of the features.

    Returns:
        float64[n, 2^bits + 1].
    """
    size = 1 << bits
    out = np.ones((len(rows), size + 1))
    for part, features in hash_in_parts(batch_of(rows)):
        laid = hashed_design(features, scales)
        count, actions, _ = laid.values.shape
        mass = np.zeros((count, actions))
        for number, pmf in enumerate(pmfs[part]):
            mass[number, : len(pmf)] = pmf

        # One bincount adds the features of all rows, those that collide included.
        at = size * np.arange(count)[:, None, None] + laid.columns % size
        flat: Any = np.bincount(at.ravel(), (laid.values * mass[:, :, None]).ravel(), count * size)
        out[part, :-1] = flat.reshape(count, size)
    return out


class SessionModel:
    """Sums over sessions, by fold: X'X, X'N and X'r."""

    def __init__(self, *, bits: int = 8, folds: int = 5) -> None:
        size = (1 << bits) + 1
        self.bits, self._folds = bits, folds
        self._squares, self._onward = np.zeros((folds, size, size)), np.zeros((folds, size, size))
        self._rewards = np.zeros((folds, size))

    def update(self, chosen: Float64, expected: Float64, rewards: Float64, key: int) -> None:
        """Add a session of T decisions.

        Args:
            chosen: float64[T, d], the features of its choices.
            expected: float64[T, d], the mean features of its decisions under the target policy.
            rewards: float64[T].
            key: of the session.

        Raises:
            ReplayError: a number is not finite.
        """
        # After the last decision nothing is earned.
        onward = np.zeros_like(expected)
        onward[:-1] = expected[1:]
        fold = int(fold_of(np.array([key], np.uint64), self._folds)[0])
        sums = chosen.T @ chosen, chosen.T @ onward, chosen.T @ rewards
        if not all(np.isfinite(total).all() for total in sums):
            raise ReplayError(
                "a feature or a reward is infinite, NaN or too large; leave such rows out",
                "features",
            )

        self._squares[fold] += sums[0]
        self._onward[fold] += sums[1]
        self._rewards[fold] += sums[2]

    def merge(self, other: "SessionModel") -> None:
        """Add the sessions of another.

        Raises:
            ReplayError: it has other bits or folds.
        """
        if other._squares.shape != self._squares.shape:  # noqa: SLF001
            raise ReplayError("cannot merge models of different bits or folds", "bits")
        self._squares += other._squares  # noqa: SLF001
        self._onward += other._onward  # noqa: SLF001
        self._rewards += other._rewards  # noqa: SLF001

    def fit(self, horizon: int, gamma: float) -> "FittedSessionModel":
        """Fit, for each fold on the others, the value of 1 to ``horizon`` decisions ahead.

        Args:
            horizon: 1 or more.
            gamma: what a reward counts one decision later.

        Raises:
            ReplayError: the values grow without bound.
        """
        out = []
        for fold in range(self._folds):
            squares, onward, rewards = (
                np.delete(sums, fold, axis=0).sum(axis=0)
                for sums in (self._squares, self._onward, self._rewards)
            )

            # The recursion takes one solution: c_h = first + step c_h-1.
            ridge = squares + L2 * np.eye(len(squares))
            solved = np.linalg.solve(ridge, np.column_stack([onward, rewards]))
            step, first = gamma * solved[:, :-1], solved[:, -1]
            ahead = [first]
            while len(ahead) < horizon:
                ahead.append(first + step @ ahead[-1])
            out.append(np.array(ahead))

        coefficients = np.array(out)
        if not np.isfinite(coefficients).all():
            raise ReplayError(
                "the model of dr does not converge so far ahead: choose a shorter horizon",
                "horizon",
            )
        return FittedSessionModel(coefficients)


@dataclass(frozen=True, slots=True, eq=False)
class FittedSessionModel:
    """Predicts what the rest of a session earns.

    ``coefficients`` are float64[folds, H, d], by decisions ahead; those of a fold were fitted
    without it.
    """

    coefficients: Float64

    def values(self, features: Float64, keys: UInt64, ahead: NDArray[np.integer]) -> Float64:
        """Return the values of decisions, float64[n].

        Args:
            features: float64[n, d].
            keys: uint64[n], their sessions'.
            ahead: int[n], how many decisions ahead, from 1 to H.
        """
        coefficients = self.coefficients[fold_of(keys, len(self.coefficients)), ahead - 1]
        return sum_products("nd,nd->n", features, coefficients)
