"""A world whose truth is known: linear in the context, one weight vector per action, drifting if asked to."""

import numpy as np
from numpy.typing import NDArray

from bandits.records import FeatureMap
from policies.ranker import ActionRequest, RankRequest


class SyntheticWorld:
    """Rewards are Bernoulli(1/2 + 1/2 tanh(theta_a . x)), with x ~ N(0, I) and theta_a ~ N(0, scale^2 I).

    ``drift``: radians per round by which every theta_a turns in a random plane of its own; 0 keeps the truth fixed.
    Rounds are counted by the calls of ``request``. Delays and losses of rewards are the loop's (``Timing``).
    """

    def __init__(
        self, seed: int, *, actions: int = 10, features: int = 4, scale: float = 1.0, drift: float = 0.0
    ) -> None:
        rng = np.random.default_rng(seed)
        self._start, self._end = scale * rng.normal(size=(2, actions, features))
        self._drift = drift
        self._round = 0
        self._actions = [ActionRequest(f"a{i}") for i in range(actions)]

    def request(self, rng: np.random.Generator) -> RankRequest:
        """A request with all actions and a fresh context."""
        self._round += 1
        values = rng.normal(size=self._start.shape[1])
        context: FeatureMap = {f"x{i}": float(value) for i, value in enumerate(values)}
        return RankRequest(context=context, actions=self._actions)

    def reward(self, request: RankRequest, action_id: str, rng: np.random.Generator) -> float:
        """1 or 0, with the probability that ``expected`` gives."""
        return float(rng.random() < self.expected(request)[self._index(action_id)])

    def expected(self, request: RankRequest) -> NDArray[np.float64]:
        """float64[actions]: every action's expected reward now."""
        angle = self._drift * self._round
        theta = np.cos(angle) * self._start + np.sin(angle) * self._end
        context = np.array([request.context[f"x{i}"] for i in range(theta.shape[1])], np.float64)
        expected: NDArray[np.float64] = 0.5 + 0.5 * np.tanh(theta @ context)
        return expected

    @staticmethod
    def _index(action_id: str) -> int:
        return int(action_id.removeprefix("a"))
