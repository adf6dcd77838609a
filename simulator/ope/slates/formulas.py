"""Estimators of what a page earns under another policy, as functions of means over pages.

Slot j of a page shows action a_j, drawn among what the slots above have left, and earns r_j; h_j is
what stands above it. mu and pi are the logging and the target policy's probabilities.

How a reward may depend on the rest of the page is what they differ in:

- ``sips``: on all of it. One weight, prod_j pi(a_j | h_j) / mu(a_j | h_j), times the page's reward,
  be it the sum of its slots' or their largest.
- ``rips``: on the slots above (the cascade model; McInerney et al. 2020, arXiv:2007.12986). r_j has
  the product up to slot j.
- ``iips``: on slot and action alone (the item-position model; Li et al. 2018, arXiv:1804.10488).
  r_j has a weight W_j of its own.
- ``pi``: only the page's reward is looked at, and it is a sum over slots of something that depends
  on slot and action (the pseudo-inverse; Swaminathan et al. 2017, arXiv:1605.04812). One weight,
  q' G^+ 1_s, where 1_s marks which action stands in which slot, q is its mean under the target
  policy, and G the mean of 1_s 1_s' under the logging policy.

Those with ``sn`` divide by the means of their weights, which are 1 but for chance.

The papers' W_j is pi_j(a_j) / mu_j(a_j), where pi_j(a) is the probability that a stands in slot j.
A log has probabilities given what stood above, mu(a | h_j), and not mu_j(a), a mean over all that
could have stood there. Differs from the papers: here W_j = pi_j(a_j) / (mu(a_j | h_j) prod_{k < j}
(1 - mu(a_j | h_k))). Given that W_j's action is a, its mean over h_j is the papers' weight, because
prod_{k < j} mu(a_k | h_k) / (1 - mu(a | h_k)) is a distribution of the slots above that avoid a. So
it is unbiased wherever theirs is, for any logging policy whose PMFs the log has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from bandits.errors import ReplayError
from bandits.types import Float64
from simulator.ope.batch import OpeBatch
from simulator.ope.formulas import ratio_of_means
from simulator.ope.sessions.formulas import SessionFormula
from simulator.ope.slates.batch import SlateBatch

Weights = Literal["page", "cascade", "slot", "pseudo_inverse"]


@dataclass(frozen=True)
class SlateFormula(SessionFormula):
    """A formula of pages of S slots, the ``horizon``; ``weights`` says which it uses."""

    weights: ClassVar[Weights] = "page"
    normalised: ClassVar[bool] = False

    @property
    def by_slot(self) -> bool:
        """Whether each slot has a weight of its own."""
        return self.weights in ("cascade", "slot")

    @property
    def k(self) -> int:  # type: ignore[override] # other formulas have it of their class
        """Return how many columns there are: one a weight, and its reward's."""
        return (self.horizon if self.by_slot else 1) * (1 + self.normalised)

    def used(self, batch: OpeBatch) -> Float64:
        """Return the weights, float64[n, S], or float64[n, 1] where a page has one.

        Raises:
            ReplayError: the batch is of something else, or lacks them.
        """
        pages, out = pages_in(batch, self.horizon), None
        match self.weights:
            case "page":
                out = pages.weight
            case "cascade":
                out = pages.running
            case "slot":
                out = pages.slot_weights
            case "pseudo_inverse":
                out = pages.page_weights
        if out is None:
            raise ReplayError(
                f"the log does not have what weights of kind {self.weights} need", "estimator"
            )
        return out.reshape(len(pages), -1)

    def columns(self, weight: Float64, batch: OpeBatch) -> Float64:  # noqa: ARG002
        """Compute the products of weights and rewards, and the weights if ``normalised``.

        Args:
            weight: left aside: each formula has its own.
            batch: n pages of S slots.

        Raises:
            ReplayError: the batch is of something else, or lacks the weights.
        """
        used = self.used(batch)
        rewards = batch.reward[:, None]
        if self.by_slot:
            rewards = pages_in(batch, self.horizon).rewards
        columns = [used * rewards, used] if self.normalised else [used * rewards]
        return np.ascontiguousarray(np.concatenate(columns, axis=1).T)

    def slot_values(self, means: Float64) -> Float64:
        """Return what each slot earns, float64[..., S], or the page, float64[..., 1]."""
        if not self.normalised:
            return means
        count = self.k // 2
        return ratio_of_means(means[..., :count], means[..., count:])

    def value(self, means: Float64) -> Float64:
        """Return the sum over slots."""
        value: Float64 = self.slot_values(means).sum(axis=-1)
        return value

    def slot_gradients(self, means: Float64) -> Float64:
        """Return the gradient of each slot's value, float64[S, k]."""
        count = self.k // (1 + self.normalised)
        if not self.normalised:
            return np.eye(count)
        above, below = means[:count], means[count:]
        return np.concatenate([np.diag(1.0 / below), np.diag(-above / below**2)], axis=1)

    def gradient(self, means: Float64) -> Float64:
        """Return their sum."""
        gradient: Float64 = self.slot_gradients(means).sum(axis=0)
        return gradient


class SlateIPS(SlateFormula):
    """Importance sampling of whole pages: mean(w sum_j r_j)."""


class SlateSNIPS(SlateFormula):
    """SlateIPS over the mean weight."""

    normalised = True


class CascadeIPS(SlateFormula):
    """Reward interaction IPS: mean(sum_j w_1 ... w_j r_j), McInerney et al. 2020."""

    weights = "cascade"


class CascadeSNIPS(SlateFormula):
    """CascadeIPS, each slot over the mean weight of the slots up to it."""

    weights, normalised = "cascade", True


class SlotIPS(SlateFormula):
    """Independent IPS: mean(sum_j W_j r_j), Li et al. 2018."""

    weights = "slot"


class SlotSNIPS(SlateFormula):
    """SlotIPS, each slot over its mean weight."""

    weights, normalised = "slot", True


class PseudoInverse(SlateFormula):
    """The pseudo-inverse: mean(W sum_j r_j), Swaminathan et al. 2017."""

    weights = "pseudo_inverse"


class PseudoInverseSN(SlateFormula):
    """PseudoInverse over the mean weight, their weighted pseudo-inverse."""

    weights, normalised = "pseudo_inverse", True


SLATE_FORMULAS: Mapping[str, type[SlateFormula]] = {
    "sips": SlateIPS,
    "snsips": SlateSNIPS,
    "rips": CascadeIPS,
    "snrips": CascadeSNIPS,
    "iips": SlotIPS,
    "sniips": SlotSNIPS,
    "pi": PseudoInverse,
    "snpi": PseudoInverseSN,
}


def pages_in(batch: OpeBatch, horizon: int) -> SlateBatch:
    """Return the batch as what it must be: pages of ``horizon`` slots.

    Args:
        batch: of pages.
        horizon: the slots that count.

    Raises:
        ReplayError: it is something else.
    """
    if not isinstance(batch, SlateBatch) or batch.horizon != horizon:
        raise ReplayError(f"this estimator takes pages of {horizon} slots", "horizon")
    return batch
