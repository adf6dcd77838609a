"""Estimators of sessions at work, which also say how many decisions ahead the log reaches."""

from collections.abc import Sequence

import msgspec
import numpy as np

from bandits.errors import ReplayError
from bandits.statistics.intervals import Interval, Normal
from bandits.types import Float64
from simulator.ope.estimators import Estimate, Estimator
from simulator.ope.sessions.batch import SessionBatch
from simulator.ope.sessions.formulas import SESSION_FORMULAS
from simulator.ope.verdict import ENOUGH_ROWS


class Reach:
    """The effective sample size at every decision, (sum w_t)^2 / sum w_t^2: a monoid.

    ``cut`` counts the sessions that went on after the horizon; ``decisions`` counts all decisions,
    those after it included.
    """

    def __init__(self, horizon: int) -> None:
        self.sessions, self.cut, self.decisions = 0, 0, 0
        self._weights, self._squares = np.zeros(horizon), np.zeros(horizon)

    def update(self, batch: SessionBatch, lengths: Sequence[int]) -> None:
        """Add sessions.

        Args:
            batch: the sessions, up to the horizon.
            lengths: how many decisions each has, those after the horizon included.
        """
        self.sessions += len(batch)
        self.cut += sum(length > batch.horizon for length in lengths)
        self.decisions += sum(lengths)
        self._weights += batch.running.sum(axis=0)
        self._squares += np.square(batch.running).sum(axis=0)

    def merge(self, other: "Reach") -> None:
        """Add the sessions of another, of the same horizon."""
        self.sessions += other.sessions
        self.cut += other.cut
        self.decisions += other.decisions
        self._weights += other._weights  # noqa: SLF001
        self._squares += other._squares  # noqa: SLF001

    @property
    def ess(self) -> Float64:
        """Return the effective sample size at each decision, float64[H]."""
        roots = np.sqrt(self._squares)
        ratio: Float64 = np.divide(
            self._weights, roots, out=np.zeros_like(roots), where=roots > 0.0
        )
        return np.square(ratio)

    @property
    def decisions_ahead(self) -> int:
        """Return how many decisions ahead at least ENOUGH_ROWS sessions still count."""
        short = self.ess < ENOUGH_ROWS
        return int(short.argmax()) if short.any() else len(short)


class SessionEstimator:
    """One formula over one log of sessions and one target policy: see Estimator.

    The verdict is of whole weights, those of the last decision before the horizon: the worst there
    are.
    """

    def __init__(self, name: str, *, horizon: int, gamma: float = 1.0, replicates: int = 0) -> None:
        if name not in SESSION_FORMULAS:
            raise ReplayError(
                f"there is no estimator {name!r}; there are {', '.join(SESSION_FORMULAS)}",
                "estimator",
            )
        if horizon < 1:
            raise ReplayError(f"a horizon is 1 decision or more, not {horizon}", "horizon")
        if not 0.0 <= gamma <= 1.0:
            raise ReplayError(f"gamma is between 0 and 1, not {gamma}", "gamma")
        self.estimator = Estimator(SESSION_FORMULAS[name](horizon, gamma), replicates)

    def update(self, batch: SessionBatch) -> None:
        """Add sessions.

        Raises:
            ReplayError: the model's values are needed and missing, or a weight is not finite.
        """
        if not np.isfinite(batch.running).all():
            raise ReplayError(
                "the weights of a session are too large to multiply: choose a shorter horizon",
                "horizon",
            )
        self.estimator.update(batch)

    def merge(self, other: "SessionEstimator") -> None:
        """Add the sessions of another, of the same formula and horizon."""
        self.estimator.merge(other.estimator)

    def estimate(
        self,
        reach: Reach,
        interval: Interval = Normal(),  # noqa: B008 - frozen
    ) -> Estimate:
        """Return the estimate from the sessions so far.

        Args:
            reach: how far ahead their weights reach.
            interval: the kind of interval.
        """
        estimate = self.estimator.estimate(interval)
        if estimate.ess >= ENOUGH_ROWS or not reach.sessions:
            return estimate

        # Where weights have collapsed, the reason says from which decision on.
        ahead = reach.decisions_ahead
        advice = f"--horizon {ahead}" if ahead else "a policy closer to the logging policy"
        reason = (
            f"fewer than {ENOUGH_ROWS:.0f} sessions count from decision {ahead + 1} on: use"
            f" {advice}, or more of the log"
        )
        return msgspec.structs.replace(estimate, reason=f"{reason}; {estimate.reason}")
