"""What an estimator needs of a log and one target policy: a few numbers per row."""

from dataclasses import dataclass

from bandits.types import Float64
from simulator.logs.base import UInt64


@dataclass(frozen=True, slots=True, eq=False)
class OpeBatch:
    """n rows of a log beside what one target policy would have done. All float64[n] but ``keys``.

    ``propensity``: the logging policy's probability of the chosen action, ``target`` the target policy's.
    ``predicted``: the reward model's prediction for the chosen action, ``expected`` its mean under the target policy;
    the model was fitted without the row. Both are None without a model (then there is no DM and no DR).
    ``unsupported``: the target policy's mass on actions that the logging policy never takes here; None when the log
    does not hold the logging policy's PMF.
    """

    keys: UInt64
    reward: Float64
    propensity: Float64
    target: Float64
    predicted: Float64 | None = None
    expected: Float64 | None = None
    unsupported: Float64 | None = None

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def weight(self) -> Float64:
        """The importance weight, target / propensity."""
        return self.target / self.propensity
