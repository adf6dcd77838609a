"""Whole sessions as rows: what a session's estimators need of a log and one target policy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandits.errors import BadRowError
from bandits.features.hashing import UInt64
from bandits.types import Float64
from simulator.ope.batch import OpeBatch


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SessionBatch(OpeBatch):
    """The first H decisions of n sessions.

    As an OpeBatch a row is a session with its return and whole weight.

    Attributes:
        rewards: float64[n, H], 0 after a session's end.
        running: float64[n, H], the product of the importance weights up to and with each decision;
            it stays as it is after the end.
        gamma: what a reward counts one decision later.
        action_values: float64[n, H], what the model expects of the rest of the session from each
            choice; 0 after the end, None without a model.
        values: float64[n, H], the same from each decision under the target policy.
    """

    rewards: Float64
    running: Float64
    gamma: float
    action_values: Float64 | None = None
    values: Float64 | None = None

    @property
    def horizon(self) -> int:
        """Return H."""
        return int(self.rewards.shape[1])

    @property
    def before(self) -> Float64:
        """Return the running weight before each decision, float64[n, H]; 1 before the first."""
        return np.concatenate([np.ones((len(self), 1)), self.running[:, :-1]], axis=1)


def session_batch(
    keys: UInt64,
    lengths: NDArray[np.integer],
    rewards: Float64,
    propensity: Float64,
    target: Float64,
    unsupported: Float64,
    *,
    gamma: float,
    action_values: Float64 | None = None,
    values: Float64 | None = None,
) -> SessionBatch:
    """Return sessions from what is known of each decision.

    What stands after a session's end is not looked at.

    Args:
        keys: uint64[n].
        lengths: int[n], how many decisions each session has, at most H.
        rewards: float64[n, H].
        propensity: float64[n, H], the logging policy's probability of each choice.
        target: float64[n, H], the target policy's.
        unsupported: float64[n, H], the target policy's mass on actions that the logging policy
            never takes there.
        gamma: what a reward counts one decision later.
        action_values: float64[n, H], the model's, of each choice.
        values: float64[n, H], the model's, of each decision under the target policy.

    Raises:
        BadRowError: a propensity is not above 0.
    """
    there = np.arange(rewards.shape[1]) < lengths[:, None]
    if not (propensity[there] > 0.0).all():
        raise BadRowError("a session has a choice of propensity 0: leave it out", "propensity")

    # The mean of whole weights lacks E[sum of running weight before x unsupported mass] to 1.
    with np.errstate(over="ignore", invalid="ignore"):  # estimators refuse what is not finite
        weights = np.divide(target, propensity, out=np.ones_like(target), where=there)
        running: Float64 = np.multiply.accumulate(weights, axis=1)
        before = np.concatenate([np.ones((len(rewards), 1)), running[:, :-1]], axis=1)
        missing = (before * np.where(there, unsupported, 0.0)).sum(axis=1)

    counted = np.where(there, rewards, 0.0)
    discounts = gamma ** np.arange(rewards.shape[1])
    return SessionBatch(
        keys=keys,
        reward=counted @ discounts,
        propensity=np.ones(len(rewards)),
        target=np.ascontiguousarray(running[:, -1]),
        unsupported=missing,
        rewards=counted,
        running=running,
        gamma=gamma,
        action_values=None if action_values is None else np.where(there, action_values, 0.0),
        values=None if values is None else np.where(there, values, 0.0),
    )
