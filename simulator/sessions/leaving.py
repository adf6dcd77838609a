"""When users leave a session, and whether they come back: fitted to what a data set says."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64

PAUSE_S = 1800
"""A pause above so many seconds ends a session of the data."""
SURE = 10.0
"""The intercept of what always happens in the data, and, negative, of what never does."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """Coefficients of two logistic regressions on the data's sessions.

    Attributes:
        leaves: float64[3], of 1, liked and log(1 + place), for an event to be its session's last.
        returns: float64[2], of 1 and the share of what was liked, for another session to follow.
    """

    leaves: Float64
    returns: Float64


@dataclass(slots=True)
class Stay:
    """How far a user has come in a session: ``place`` of the next decision, and what was liked."""

    leaving: Leaving
    place: int = 0
    liked: float = 0.0

    @property
    def share(self) -> float:
        """The share of the decisions that was liked."""
        return self.liked / max(self.place, 1)

    def goes_on(self, reward: float, rng: np.random.Generator) -> bool:
        """Count a decision; return whether the user makes another one, perhaps in a later session.

        Args:
            reward: what the decision earned.
            rng: chance, of which two numbers are drawn.
        """
        chances = rng.random(2)
        leaves = chances[0] < _sigmoid(self.leaving.leaves @ [1.0, reward, np.log1p(self.place)])
        self.place, self.liked = self.place + 1, self.liked + reward
        if not leaves:
            return True

        # Who leaves a session may begin another one, from its first place.
        again = bool(chances[1] < _sigmoid(self.leaving.returns @ [1.0, self.liked / self.place]))
        self.place, self.liked = 0, 0.0
        return again


def leaving_of(user: NDArray[np.int64], seconds: Float64, liked: NDArray[np.bool_]) -> Leaving:
    """Fit when users leave and return.

    What is the same in all events says nothing, and has a coefficient of 0: where every event is
    liked, nobody can tell whether users leave for what they do not like.

    Args:
        user: of each event, int64[n]; those of one user stand together, in time order.
        seconds: the time of each.
        liked: whether it speaks for its item.
    """
    # A session starts with a user, and after a pause.
    same = user[1:] == user[:-1]
    first = np.concatenate([[True], ~same | (np.diff(seconds) > PAUSE_S)])
    starts = np.flatnonzero(first)
    lengths = np.diff(np.concatenate([starts, [len(user)]]))

    # Whether an event was its session's last.
    place = np.arange(len(user)) - np.repeat(starts, lengths)
    worth = liked.astype(np.float64)
    last = np.concatenate([first[1:], [True]]).astype(np.float64)
    leaves = _fitted(np.stack([np.ones(len(user)), worth, np.log1p(place)], axis=1), last)

    # Whether another session of the user followed.
    share = np.add.reduceat(worth, starts) / lengths
    owner = user[starts]
    followed = np.concatenate([owner[1:] == owner[:-1], [False]]).astype(np.float64)
    returns = _fitted(np.stack([np.ones(len(starts)), share], axis=1), followed)
    return Leaving(leaves, returns)


def _maximum_likelihood(features: Float64, outcome: Float64, steps: int = 25) -> Float64:
    """Return coefficients of maximum likelihood, float64[d], by so many steps of Newton's method.

    ``features``: float64[n, d]; ``outcome``: float64[n], 0 or 1.
    """
    weights = np.zeros(features.shape[1])
    for _ in range(steps):
        mean = _sigmoid(features @ weights)
        curvature = (features * (mean * (1.0 - mean))[:, None]).T @ features
        weights = weights + np.linalg.solve(curvature, features.T @ (outcome - mean))
    return weights


def _fitted(features: Float64, outcome: Float64) -> Float64:
    """Return coefficients; 0 of columns that are all the same but the first, which is 1."""
    weights = np.zeros(features.shape[1])
    mean = float(outcome.mean())
    if mean in {0.0, 1.0}:
        weights[0] = SURE if mean else -SURE
        return weights

    varied = [0, *(at for at in range(1, len(weights)) if np.ptp(features[:, at]) > 0)]
    try:
        kept = features if len(varied) == len(weights) else features[:, varied]
        fitted = _maximum_likelihood(kept, outcome)
    except np.linalg.LinAlgError:
        fitted = np.full(len(varied), np.nan)

    # A column that parts the outcomes without fault has no coefficient of maximum likelihood.
    if not (np.abs(fitted) <= SURE).all():
        varied, fitted = [0], np.array([np.log(mean / (1.0 - mean))])
    weights[varied] = fitted
    return weights


def _sigmoid(values: Float64) -> Float64:
    mean: Float64 = 1.0 / (1.0 + np.exp(-values))
    return mean
