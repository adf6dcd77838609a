"""A world whose truth is known: linear in the context, a weight vector per action, with drift."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64
from bandits.values import FeatureMap
from policies.requests import ActionRequest, RankRequest


class SyntheticWorld:
    """A world with contexts x ~ N(0, I) and weights theta_a ~ N(0, scale^2 I) per action a.

    A choice is a hit with probability 1/2 + 1/2 tanh(offset + theta_a . x). A hit earns 1, or with
    a ``spread`` a lognormal value of mean 1 whose logarithm has that standard deviation; all else
    earns 0. Rounds are counted by the calls of ``request``, the first is 1. Delays and losses of
    rewards are the loop's (``Timing``).

    Args:
        seed: Seed of the weights.
        actions: How many actions there are.
        features: How many features a context has.
        scale: Standard deviation of the weights.
        drift: Radians per round by which every theta_a turns in a random plane of its own; 0 keeps
            the truth fixed.
        offset: Added to every linear score.
        spread: Standard deviation of the logarithm of what a hit earns; 0: a hit earns 1.
    """

    def __init__(
        self,
        seed: int | Sequence[int],
        *,
        actions: int = 10,
        features: int = 4,
        scale: float = 1.0,
        drift: float = 0.0,
        offset: float = 0.0,
        spread: float = 0.0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self._start, self._end = scale * rng.normal(size=(2, actions, features))
        self._drift, self._offset, self._spread = drift, offset, spread
        self._round = 0
        self._actions = [ActionRequest(f"a{i}") for i in range(actions)]

    def request(self, rng: np.random.Generator) -> RankRequest:
        """Return a request with all actions and a fresh context."""
        self._round += 1
        values = self.contexts(1, rng)[0]
        context: FeatureMap = {f"x{i}": float(value) for i, value in enumerate(values)}
        return RankRequest(context=context, actions=self._actions)

    def reward(self, request: RankRequest, action_id: str, rng: np.random.Generator) -> float:
        """Return what a choice earns, 0 or more; its mean is what ``expected`` gives.

        Args:
            request: A request of the current round, with features x0, x1 and so on.
            action_id: The action that was chosen: a0, a1 and so on.
            rng: What the hit and its value are drawn from.
        """
        hit = rng.random() < self.expected(request)[self._index(action_id)]
        if hit and self._spread:
            return float(np.exp(self._spread * rng.normal() - self._spread**2 / 2.0))
        return float(hit)

    def expected(self, request: RankRequest) -> Float64:
        """Return float64[actions]: every action's expected reward now."""
        means: Float64 = self.means(self.vectors([request.context]), np.array([self._round]))[0]
        return means

    def contexts(self, count: int, rng: np.random.Generator) -> Float64:
        """Draw fresh contexts, float64[count, features].

        Args:
            count: How many to draw.
            rng: What they are drawn from.
        """
        return rng.normal(size=(count, self._start.shape[1]))

    def vectors(self, contexts: Sequence[FeatureMap]) -> Float64:
        """Return contexts, as requests have them, as float64[n, features]."""
        names = [f"x{i}" for i in range(self._start.shape[1])]
        return np.array([[context[name] for name in names] for context in contexts], np.float64)

    def means(self, contexts: Float64, rounds: NDArray[np.integer]) -> Float64:
        """Return float64[n, actions]: every action's expected reward.

        Args:
            contexts: float64[n, features].
            rounds: int[n], the round of each; 0 is the world before it has turned.
        """
        angle = self._drift * rounds[:, None]
        linear = np.cos(angle) * (contexts @ self._start.T) + np.sin(angle) * (
            contexts @ self._end.T
        )
        means: Float64 = 0.5 + 0.5 * np.tanh(self._offset + linear)
        return means

    @staticmethod
    def _index(action_id: str) -> int:
        return int(action_id.removeprefix("a"))
