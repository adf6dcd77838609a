"""What an estimator needs of a log and one target policy: a few numbers per row."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandits.errors import BadRowError
from bandits.features.hashing import UInt64
from bandits.types import Float64


@dataclass(frozen=True, slots=True, eq=False)
class OpeBatch:
    """n rows of a log beside what one target policy would have done. All float64[n] but ``keys``.

    ``propensity``: the logging policy's probability of the chosen action, ``target`` the target
    policy's. ``predicted``: the reward model's prediction for the chosen action, ``expected`` its
    mean under the target policy; the model was fitted without the row. Both are None without a
    model (then there is no DM and no DR). ``unsupported``: the target policy's mass on actions that
    the logging policy never takes here, and ``second_moment``: the mean of weight^2 under the
    logging policy, sum over actions of target^2 / logging (one plus the chi-square divergence).
    Both are None when the log does not hold the logging policy's PMF. ``counts``: how many
    decisions of the service each row stands for, 1 / (1 - pdrop), where decisions were left out of
    the log by chance; None where none were.
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
        """``counts``, or 1."""
        return 1.0 if self.counts is None else self.counts

    @property
    def weight(self) -> Float64:
        """The importance weight, target / propensity.

        Infinite where that is too small, which estimators refuse.
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
    """Rows whose PMFs are known. ``chosen``: int[n].

    ``logging``, ``target``: the policies' PMFs, float64[n, K]; ``predictions``: the reward model's,
    of every action, float64[n, K]. Rows with fewer than K actions are padded with zeros.

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
    """Of the products: float64[n] from two float64[n, K]."""
    sums: Float64 = np.einsum("nk,nk->n", left, right)
    return sums
