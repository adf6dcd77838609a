"""Worlds whose truth is known, for the tests of off-policy evaluation: contexts, actions, two policies, rewards."""

from dataclasses import dataclass, replace

import numpy as np

from bandits.types import Float64
from simulator.ope.batch import OpeBatch, ope_batch_from_pmfs
from simulator.ope.hashed_features import features_from_columns
from simulator.ope.reward_model import RewardModel


@dataclass(frozen=True, eq=False)
class World:
    """X contexts, all as likely, and K actions.

    ``logging``, ``target``, ``means`` of rewards: float64[X, K].

    ``stated``: the PMFs that the log holds. ``noise``: standard deviation of rewards, or 0 for
    rewards of 0 and 1.
    """

    logging: Float64
    stated: Float64
    target: Float64
    means: Float64
    noise: float
    n: int
    seed: int

    @property
    def truth(self) -> float:
        return float((self.target * self.means).sum(axis=1).mean())

    def batch(self, *, modelled: bool = True, pmfs: bool = True) -> OpeBatch:
        """The log's n rows. ``pmfs``: whether the log holds PMFs, or propensities alone."""
        rng = np.random.default_rng([self.seed, 1])
        contexts = rng.integers(0, len(self.means), self.n)
        chosen = (rng.random((self.n, 1)) > self.logging[contexts].cumsum(axis=1)[:, :-1]).sum(
            axis=1
        )
        mean = self.means[contexts, chosen]
        reward = (
            rng.normal(mean, self.noise)
            if self.noise
            else (rng.random(self.n) < mean).astype(np.float64)
        )
        keys = rng.integers(0, 2**64, self.n, np.uint64)
        predictions = self._predictions(contexts, chosen, reward, keys) if modelled else None
        batch = ope_batch_from_pmfs(
            keys,
            reward,
            chosen,
            self.stated[contexts],
            self.target[contexts],
            predictions=predictions,
        )
        return batch if pmfs else replace(batch, unsupported=None, second_moment=None)

    def _predictions(self, contexts, chosen, reward, keys) -> Float64:
        """Of a cross-fitted ridge on context, action and their product, hashed into 128 columns."""
        x, k = self.means.shape
        action = np.broadcast_to(np.arange(k), (self.n, k))
        context = np.broadcast_to(contexts[:, None], (self.n, k))
        columns = np.stack([context, x + action, x + k + context * k + action], axis=-1)
        values = np.ones(columns.shape)
        rows = np.arange(self.n)
        model = RewardModel(bits=7, kinds=["ridge"])
        model.update(
            features_from_columns(columns[rows, chosen], values[rows, chosen]), reward, keys
        )
        return model.fit().predict(features_from_columns(columns, values), keys)


def softmax(scores: Float64) -> Float64:
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def sound(seed: int) -> World:
    """All is right: weights of at most 2 to 20, and at least 25 times as many rows.

    Anything else at random.
    """
    rng = np.random.default_rng([seed, 0])
    n = int(np.exp(rng.uniform(np.log(500), np.log(20_000))))
    x, k = int(rng.integers(1, 9)), int(rng.integers(2, 51))
    means = rng.uniform(0.1, 0.9, (x, k))
    believed = means + rng.normal(0.0, 0.3, (x, k))
    explored = rng.uniform(0.05, 1.0)
    logging = (1 - explored) * softmax(rng.uniform(0.0, 8.0) * believed) + explored / k
    wanted = softmax(rng.uniform(0.0, 12.0) * (means + rng.normal(0.0, 0.2, (x, k))))
    target = np.minimum(wanted, logging * rng.uniform(2.0, min(20.0, n / 25)))
    target += logging * (1.0 - target.sum(axis=1, keepdims=True))
    return World(
        logging,
        logging,
        target / target.sum(axis=1, keepdims=True),
        means,
        rng.choice([0.0, 0.3, 2.0]),
        n,
        seed,
    )


def never_taken(seed: int) -> World:
    """A tenth to nine tenths of the target policy's mass are actions that the logging policy never takes."""
    return _moved(seed, 0.0)


def rarely_taken(seed: int) -> World:
    """The same on actions with logging propensities of 1e-7 to 1e-4."""
    return _moved(seed, 10.0 ** np.random.default_rng([seed, 2]).uniform(-7.0, -4.0))


def _moved(seed: int, propensity: float) -> World:
    world, rng = sound(seed), np.random.default_rng([seed, 3])
    k = world.means.shape[1]
    lost = np.zeros(k, bool)
    lost[rng.permutation(k)[: rng.integers(1, max(2, k // 2))]] = True
    mass = rng.uniform(0.1, 0.9)
    logging = np.where(
        lost, propensity, _shared(world.logging, ~lost, 1.0 - propensity * lost.sum())
    )
    target = _shared(world.target, lost, mass) + _shared(world.target, ~lost, 1.0 - mass)
    return replace(world, logging=logging, stated=logging, target=target)


def not_uniform(seed: int) -> World:
    """The log says that actions were drawn uniformly, and they were drawn by a policy that prefers some."""
    world, rng = sound(seed), np.random.default_rng([seed, 4])
    skewed = _exploring(rng, world.means)
    return replace(
        world,
        logging=skewed,
        stated=np.full_like(skewed, 1.0 / skewed.shape[1]),
        target=_better(rng, world),
    )


def recomputed(seed: int) -> World:
    """The log has the PMFs of another model than the one that chose."""
    world, rng = sound(seed), np.random.default_rng([seed, 5])
    return replace(
        world,
        logging=_exploring(rng, world.means),
        stated=_exploring(rng, world.means),
        target=_better(rng, world),
    )


def scaled(seed: int) -> World:
    """Every propensity is a constant times what it should be, 1.25 or more away from it."""
    world, rng = sound(seed), np.random.default_rng([seed, 6])
    return replace(world, stated=world.logging * rng.choice([0.5, 0.65, 0.8, 1.25, 1.5, 2.0]))


def _exploring(rng: np.random.Generator, means: Float64) -> Float64:
    explored = rng.uniform(0.05, 0.3)
    believed = means + rng.normal(0.0, 0.3, means.shape)
    return (1 - explored) * softmax(rng.uniform(3.0, 8.0) * believed) + explored / means.shape[1]


def _better(rng: np.random.Generator, world: World) -> Float64:
    """A policy that knows more of the rewards than the logging policy."""
    return softmax(rng.uniform(3.0, 12.0) * (world.means + rng.normal(0.0, 0.2, world.means.shape)))


def _shared(pmf: Float64, actions, mass: float) -> Float64:
    """``mass``, over these actions as ``pmf`` has it."""
    inside = np.where(actions, pmf, 0.0)
    return mass * inside / inside.sum(axis=1, keepdims=True)
