"""The rows of a log and one target policy as estimators need them: a few numbers each."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.errors import BadRowError
from bandits.features.hashing import UInt64
from bandits.types import Float64
from simulator.logs.actions.columns import Int64
from simulator.ope.kernels import weigh_rows

ROUNDED = 1e-9
"""What the sum of a PMF may lack to 1 by rounding."""
NOTHING: Float64 = np.zeros(0)


@dataclass(frozen=True, eq=False)
class OpeBatch:
    """n rows of a log beside what one target policy would have done.

    All arrays but ``keys`` are float64[n].

    Attributes:
        keys: uint64[n], a decision's; its slots share it.
        reward: what the chosen action earned.
        propensity: the logging policy's probability of the chosen action.
        target: the target policy's probability of the chosen action.
        predicted: the reward model's prediction for the chosen action, by a model that was fitted
            without the row; None without a model (then there is no DM and no DR).
        expected: the mean of the model's predictions under the target policy; None without a model.
        unsupported: the target policy's mass on actions that the logging policy never takes here;
            None when the log does not hold the logging policy's PMF.
        second_moment: the mean of weight^2 under the logging policy, sum over actions of
            target^2 / logging (one plus the chi-square divergence); None without that PMF.
        counts: how many decisions of the service each row stands for, 1 / (1 - pdrop), where
            decisions were left out of the log by chance; None where none were.
    """

    keys: UInt64
    reward: Float64
    propensity: Float64
    target: Float64
    predicted: Float64 | None = None
    expected: Float64 | None = None
    unsupported: Float64 | None = None
    second_moment: Float64 | None = None
    counts: Float64 | None = None

    def __len__(self) -> int:
        return len(self.reward)

    def take(self, rows: NDArray[np.intp]) -> "OpeBatch":
        """Return some of the rows, in the order given."""
        columns = {each.name: getattr(self, each.name) for each in fields(self)}
        taken: dict[str, Any] = {
            name: None if column is None else column[rows] for name, column in columns.items()
        }
        return OpeBatch(**taken)

    @property
    def decisions(self) -> Float64 | float:
        """Return ``counts``, or 1."""
        return 1.0 if self.counts is None else self.counts

    @cached_property
    def weight(self) -> Float64:
        """Return the importance weight, target / propensity.

        It is infinite where the propensity is too small; estimators refuse that.
        """
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            return self.target / self.propensity


def ope_batch_from_pmfs(
    keys: UInt64,
    reward: Float64,
    chosen: NDArray[np.integer],
    logging: Float64,
    target: Float64,
    predictions: Float64 | None = None,
) -> OpeBatch:
    """Return a batch of rows whose PMFs are known, as matrices.

    Rows with fewer than K actions are padded with zeros.

    Args:
        keys: uint64[n].
        reward: float64[n].
        chosen: int[n], the index of the chosen action.
        logging: float64[n, K], the logging policy's PMFs.
        target: float64[n, K], the target policy's PMFs.
        predictions: float64[n, K], the reward model's, of every action.

    Raises:
        BadRowError: the logging policy gives a chosen action no probability.
    """
    offsets = logging.shape[1] * np.arange(len(reward) + 1)
    logging, target = (np.ascontiguousarray(pmfs, np.float64).ravel() for pmfs in (logging, target))
    if predictions is not None:
        predictions = np.ascontiguousarray(predictions, np.float64).ravel()
    return ope_batch_from_actions(
        keys, reward, offsets, offsets[:-1] + chosen, logging, target, predictions
    )


def ope_batch_from_actions(
    keys: UInt64,
    reward: Float64,
    offsets: Int64,
    chosen_at: Int64,
    logging: Float64,
    target: Float64,
    predictions: Float64 | None = None,
) -> OpeBatch:
    """Return a batch of rows whose PMFs are known, one row's actions after the other's.

    Args:
        keys: uint64[n].
        reward: float64[n].
        offsets: int64[n + 1]; row i has the actions ``offsets[i]`` to ``offsets[i + 1]``.
        chosen_at: int64[n], the place of each row's chosen action.
        logging: float64[total], the logging policy's PMFs.
        target: float64[total], the target policy's PMFs. What one lacks to 1 is mass on actions
            that its row does not have.
        predictions: float64[total], the reward model's, of every action.

    Raises:
        BadRowError: the logging policy gives a chosen action no probability.
    """
    propensity = logging[chosen_at]
    if not (propensity > 0.0).all():
        first = int((~(propensity > 0.0)).argmax())
        raise BadRowError(
            f"row {first}: its PMF gives the chosen action no probability; leave such rows out",
            "pmf",
        )

    sums = weigh_rows(offsets, logging, target, NOTHING if predictions is None else predictions)
    mass, expected, never, second_moment = sums
    return OpeBatch(
        keys=keys,
        reward=reward,
        propensity=propensity,
        target=target[chosen_at],
        predicted=None if predictions is None else predictions[chosen_at],
        expected=None if predictions is None else expected,
        unsupported=never + mass_outside(mass),
        second_moment=second_moment,
    )


def mass_outside(mass: Float64) -> Float64:
    """Return what the sums of PMFs, float64[n], lack to 1; rounding is nothing."""
    outside = np.maximum(0.0, 1.0 - mass)
    outside[outside < ROUNDED] = 0.0
    return outside
