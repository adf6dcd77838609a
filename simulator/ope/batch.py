"""The rows of a log and one target policy as estimators need them: a few numbers each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandits.errors import BadRowError
from bandits.features.hashing import UInt64
from bandits.types import Float64


@dataclass(frozen=True, slots=True, eq=False)
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

    @property
    def decisions(self) -> Float64 | float:
        """Return ``counts``, or 1."""
        return 1.0 if self.counts is None else self.counts

    @property
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
    """Return a batch of rows whose PMFs are known.

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
    rows = np.arange(len(reward))
    propensity = logging[rows, chosen]
    if not (propensity > 0.0).all():
        first = int((~(propensity > 0.0)).argmax())
        raise BadRowError(
            f"row {first}: its PMF gives the chosen action no probability; leave such rows out",
            "pmf",
        )

    # The second moment is over actions that the logging policy can take.
    never = logging <= 0.0
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        weights = target / logging
    weights[never] = 0.0

    return OpeBatch(
        keys=keys,
        reward=reward,
        propensity=propensity,
        target=target[rows, chosen],
        predicted=None if predictions is None else predictions[rows, chosen],
        expected=None if predictions is None else _row_sums(predictions, target),
        unsupported=_row_sums(target, never.astype(np.float64)),
        second_moment=_row_sums(weights, target),
    )


def _row_sums(left: Float64, right: Float64) -> Float64:
    """Return the sums of the rows' products, float64[n], from two float64[n, K]."""
    sums: Float64 = np.einsum("nk,nk->n", left, right)
    return sums
