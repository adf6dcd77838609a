"""The model behind DR of sessions: what the rest of a session earns under a target policy, from sums that add up.

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
from bandits.types import Float64
from simulator.logs.rows import LoggedDecision
from simulator.ope.hashed_features import FeatureScales, hash_in_parts, hashed_design
from simulator.ope.reward_model import fold_of

L2 = 1.0
"""Of features in units of their standard deviations: what it means does not depend on theirs."""


def mean_features(
    rows: Sequence[LoggedDecision], pmfs: Sequence[Float64], bits: int, scales: FeatureScales
) -> Float64:
    """Of each row the mean of its actions' hashed features under a PMF, float64[n, 2^bits + 1], an intercept last.

    ``pmfs``: float64[K] each; of the choice itself, all mass on it. ``scales``: the units of the
    features.
    """
    size = 1 << bits
    out = np.ones((len(rows), size + 1))
    for part, features in hash_in_parts(rows):
        laid = hashed_design(features, scales)
        count, actions, _ = laid.values.shape
        mass = np.zeros((count, actions))
        for number, pmf in enumerate(pmfs[part]):
            mass[number, : len(pmf)] = pmf
        at = size * np.arange(count)[:, None, None] + laid.columns % size
        flat: Any = np.bincount(at.ravel(), (laid.values * mass[:, :, None]).ravel(), count * size)
        out[part, :-1] = flat.reshape(count, size)
    return out


class SessionModel:
    """Sums over sessions, by fold."""

    def __init__(self, *, bits: int = 8, folds: int = 5) -> None:
        size = (1 << bits) + 1
        self.bits, self._folds = bits, folds
        self._squares, self._onward = np.zeros((folds, size, size)), np.zeros((folds, size, size))
        self._rewards = np.zeros((folds, size))

    def update(self, chosen: Float64, expected: Float64, rewards: Float64, key: int) -> None:
        """Add a session of T decisions.

        ``chosen``: float64[T, d], features of its choices; ``expected``: float64[T, d], of its
        decisions, their mean under the target policy; ``rewards``: float64[T]; ``key``: of the
        session.

        Raises:
            ReplayError: a number is not finite.
        """
        onward = np.zeros_like(expected)
        onward[:-1] = expected[1:]
        fold = int(fold_of(np.array([key], np.uint64), self._folds)[0])
        sums = chosen.T @ chosen, chosen.T @ onward, chosen.T @ rewards
        if not all(np.isfinite(each).all() for each in sums):
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
        """For each fold, of the others: the value of 1 to ``horizon`` decisions ahead."""
        out = []
        for fold in range(self._folds):
            squares, onward, rewards = (
                np.delete(each, fold, axis=0).sum(axis=0)
                for each in (self._squares, self._onward, self._rewards)
            )
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
    """``coefficients``: float64[folds, H, d], by decisions ahead.

    Those of a fold were fitted without it.
    """

    coefficients: Float64

    def values(self, features: Float64, keys: UInt64, ahead: NDArray[np.integer]) -> Float64:
        """float64[n]: of decisions, each with its session's key and 1 to H decisions ahead.

        ``features``: [n, d].
        """
        coefficients = self.coefficients[fold_of(keys, len(self.coefficients)), ahead - 1]
        values: Float64 = np.einsum("nd,nd->n", features, coefficients)
        return values
