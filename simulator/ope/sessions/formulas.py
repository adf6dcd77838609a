"""Estimators of what a session earns under another policy, as functions of means over sessions.

w_t is the product of a session's importance weights up to and with decision t, w_-1 = 1, r_t its
reward there, q_t the model's value of the choice and v_t of the decision under the target policy.
All sums are over t < H, the horizon: what comes later is left out. Formulas whose decisions have
weights of their own leave the argument ``weight`` aside.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bandits.errors import ReplayError
from bandits.types import Float64
from simulator.ope.batch import OpeBatch
from simulator.ope.formulas import SNIPS, Formula, RewardRange, ratio_of_means
from simulator.ope.sessions.batch import SessionBatch


@dataclass(frozen=True)
class SessionFormula(Formula):
    """A formula of sessions of H decisions, the ``horizon``.

    ``gamma`` is what a reward counts one decision later.
    """

    horizon: int
    gamma: float = 1.0

    @property
    def discounts(self) -> Float64:
        """Return what a reward of each decision counts, float64[H]."""
        discounts: Float64 = np.power(self.gamma, np.arange(self.horizon, dtype=np.float64))
        return discounts

    def span(
        self,
        max_weight: float,  # noqa: ARG002
        rewards: RewardRange,  # noqa: ARG002
    ) -> tuple[Float64, Float64]:
        """Refuse to say a range; see Formula.

        Args:
            max_weight: of the importance weights of whole sessions, which are products.
            rewards: the least and the largest return of a session.

        Raises:
            ReplayError: always, as the range of a product of weights says nothing.
        """
        raise ReplayError(
            "a session's estimates have intervals of kind normal and bootstrap", "interval"
        )


class SessionWIS(SessionFormula):
    """Weighted importance sampling of whole sessions: mean(w_H-1 G) / mean(w_H-1).

    Precup, Sutton & Singh 2000.
    """

    k = 2

    def columns(self, weight: Float64, batch: OpeBatch) -> Float64:
        """Compute the columns of SNIPS, float64[2, n]: a session is a row.

        Args:
            weight: float64[n], the weights of whole sessions.
            batch: n sessions, whose rewards are their returns.
        """
        return SNIPS().columns(weight, batch)

    def value(self, means: Float64) -> Float64:
        """Return the value of SNIPS."""
        return SNIPS().value(means)

    def gradient(self, means: Float64) -> Float64:
        """Return the gradient of SNIPS."""
        return SNIPS().gradient(means)


class PerDecisionWIS(SessionFormula):
    """Consistent weighted per-decision importance sampling.

    sum_t gamma^t mean(w_t r_t) / mean(w_t): Thomas 2015, "Safe Reinforcement Learning" (PhD
    thesis), section 3.10. A reward is weighted by the choices before it only.
    """

    @property
    def k(self) -> int:  # type: ignore[override] # other formulas have it of their class
        """Return two columns per decision."""
        return 2 * self.horizon

    def columns(self, weight: Float64, batch: OpeBatch) -> Float64:  # noqa: ARG002
        """Compute the products w_t r_t, and w_t: float64[2 H, n].

        Args:
            weight: left aside: each decision has its own.
            batch: n sessions of H decisions.

        Raises:
            ReplayError: the batch is of something else.
        """
        sessions = _sessions(batch, self.horizon)
        return np.concatenate([sessions.running * sessions.rewards, sessions.running], axis=1).T

    def value(self, means: Float64) -> Float64:
        """Return the discounted sum of ratios."""
        return (
            ratio_of_means(means[..., : self.horizon], means[..., self.horizon :]) @ self.discounts
        )

    def gradient(self, means: Float64) -> Float64:
        """Return the gradient of each a / b: 1 / b and -a / b^2."""
        above, below = means[: self.horizon], means[self.horizon :]
        return np.concatenate([self.discounts / below, -self.discounts * above / below**2])


class SessionDR(SessionFormula):
    """Doubly robust: mean(sum_t gamma^t (w_t-1 v_t + w_t (r_t - q_t))).

    Jiang & Li 2016, arXiv:1511.03722.
    """

    def columns(self, weight: Float64, batch: OpeBatch) -> Float64:  # noqa: ARG002
        """Compute the model's value, corrected at every decision: float64[1, n].

        Args:
            weight: left aside: each decision has its own.
            batch: n sessions of H decisions, with a model's values.

        Raises:
            ReplayError: the batch is of something else, or has no values.
        """
        sessions = _sessions(batch, self.horizon)
        actions, values = _model(sessions)
        corrections = sessions.running * (sessions.rewards - actions)
        return np.stack([(sessions.before * values + corrections) @ self.discounts])


class WeightedDR(SessionFormula):
    """SessionDR with weights divided by their means at each decision.

    Thomas & Brunskill 2016, arXiv:1604.00923.
    """

    @property
    def k(self) -> int:  # type: ignore[override] # other formulas have it of their class
        """Return three columns per decision."""
        return 3 * self.horizon

    def columns(self, weight: Float64, batch: OpeBatch) -> Float64:  # noqa: ARG002
        """Compute the products w_t (r_t - q_t) and w_t-1 v_t, and w_t: float64[3 H, n].

        Args:
            weight: left aside: each decision has its own.
            batch: n sessions of H decisions, with a model's values.

        Raises:
            ReplayError: the batch is of something else, or has no values.
        """
        sessions = _sessions(batch, self.horizon)
        actions, values = _model(sessions)
        parts = [
            sessions.running * (sessions.rewards - actions),
            sessions.before * values,
            sessions.running,
        ]
        return np.concatenate(parts, axis=1).T

    def value(self, means: Float64) -> Float64:
        """Return the discounted sum of both ratios."""
        corrections, values, weights, before = self._parts(means)
        return (
            ratio_of_means(corrections, weights) + ratio_of_means(values, before)
        ) @ self.discounts

    def gradient(self, means: Float64) -> Float64:
        """Return the gradient of a_t / b_t + c_t / b_t-1; b_t is below both a_t and c_t+1."""
        corrections, values, weights, before = self._parts(means)
        of_weights = -self.discounts * corrections / weights**2
        of_weights[:-1] -= (self.discounts * values / before**2)[1:]
        return np.concatenate([self.discounts / weights, self.discounts / before, of_weights])

    def _parts(self, means: Float64) -> tuple[Float64, Float64, Float64, Float64]:
        """Return a_t, c_t, b_t and b_t-1, float64[..., H] each."""
        h = self.horizon
        weights = means[..., 2 * h :]
        before = np.concatenate([np.ones_like(weights[..., :1]), weights[..., :-1]], axis=-1)
        return means[..., :h], means[..., h : 2 * h], weights, before


SESSION_FORMULAS: Mapping[str, type[SessionFormula]] = {
    "wis": SessionWIS,
    "pdwis": PerDecisionWIS,
    "dr": SessionDR,
    "wdr": WeightedDR,
}
SESSION_MODEL = frozenset({"dr", "wdr"})
"""The names of those that need a model."""


def _sessions(batch: OpeBatch, horizon: int) -> SessionBatch:
    """Return the batch as what it must be: sessions of ``horizon`` decisions."""
    if not isinstance(batch, SessionBatch) or batch.horizon != horizon:
        raise ReplayError(f"this estimator takes sessions of {horizon} decisions", "horizon")
    return batch


def _model(sessions: SessionBatch) -> tuple[Float64, Float64]:
    """Return q_t and v_t."""
    if sessions.action_values is None or sessions.values is None:
        raise ReplayError("dr and wdr need the values of a model; give one, or use pdwis", "values")
    return sessions.action_values, sessions.values
