"""Whole pages as rows: what estimators of slates need of a log and one target policy."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandits.errors import BadRowError
from bandits.features.hashing import UInt64
from bandits.log.join_rule import PageReward
from bandits.types import Float64
from simulator.ope.sessions.batch import SessionBatch, session_batch


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SlateBatch(SessionBatch):
    """The first S slots of n pages: a page is a session whose decisions are its slots.

    ``running`` are the weights of the cascade, and the row's own weight is that of the whole page.

    Attributes:
        lengths: int[n], how many slots each page has.
        missing: float64[n, S], the target's mass on what the log never puts into each slot, given
            those above; 0 where that is not known.
        second: float64[n, S], the mean of the square of each slot's weight, given the slots above;
            None where the log does not tell.
        slot_weights: float64[n, S], those of each slot by itself; 1 after a page's end. None where
            they cannot be had.
        slot_missing: float64[n, S], the target's mass on what the log never puts into the slot.
        slot_second: float64[n, S], the means of the squares of ``slot_weights``, given the slots
            above.
        page_weights: float64[n], those of the pseudo-inverse; None where they cannot be had.
        page_second: float64[n], the means of their squares under the logging policy.
        page_draws: how many pages they were found by; infinite where these are all that there are.
    """

    lengths: NDArray[np.integer]
    missing: Float64
    second: Float64 | None = None
    slot_weights: Float64 | None = None
    slot_missing: Float64 | None = None
    slot_second: Float64 | None = None
    page_weights: Float64 | None = None
    page_second: Float64 | None = None
    page_draws: float = math.inf


def rewards_of_pages(rewards: Float64, there: NDArray[np.bool_], kind: PageReward) -> Float64:
    """Return what pages earn, float64[n].

    Args:
        rewards: float64[n, S], of their slots.
        there: bool[n, S], which slots they have.
        kind: what of them counts.
    """
    out: Float64
    if kind == "sum":
        out = np.where(there, rewards, 0.0).sum(axis=1)
    else:
        out = np.where(there, rewards, -np.inf).max(axis=1)
    return out


def slate_batch(
    keys: UInt64,
    lengths: NDArray[np.integer],
    rewards: Float64,
    propensity: Float64,
    target: Float64,
    unsupported: Float64,
    *,
    second: Float64 | None = None,
    slot_weights: Float64 | None = None,
    slot_missing: Float64 | None = None,
    slot_second: Float64 | None = None,
    page_weights: Float64 | None = None,
    page_second: Float64 | None = None,
    page_draws: float = math.inf,
    page_reward: PageReward = "sum",
) -> SlateBatch:
    """Return pages from what is known of each slot.

    What stands after a page's end is not looked at.

    Args:
        keys: uint64[n].
        lengths: int[n], how many slots each page has, at most S.
        rewards: float64[n, S].
        propensity: float64[n, S], the logging policy's probability of what each slot shows, given
            those above.
        target: float64[n, S], the target policy's.
        unsupported: float64[n, S], the target's mass on what the log never puts there, given the
            slots above.
        second: float64[n, S], see SlateBatch.
        slot_weights: float64[n, S].
        slot_missing: float64[n, S].
        slot_second: float64[n, S].
        page_weights: float64[n].
        page_second: float64[n].
        page_draws: see SlateBatch.
        page_reward: what a page earns.

    Raises:
        BadRowError: a propensity is not above 0, or no finite number.
    """
    there = np.arange(rewards.shape[1]) < lengths[:, None]
    made = session_batch(keys, lengths, rewards, propensity, target, unsupported, gamma=1.0)
    if slot_weights is not None and not np.isfinite(slot_weights[there]).all():
        raise BadRowError("a page has a choice of propensity 0: leave it out", "propensity")

    return SlateBatch(
        keys=made.keys,
        reward=rewards_of_pages(made.rewards, there, page_reward),
        propensity=made.propensity,
        target=made.target,
        unsupported=made.unsupported,
        rewards=made.rewards,
        running=made.running,
        gamma=1.0,
        lengths=lengths,
        missing=np.where(there, unsupported, 0.0),
        second=second,
        slot_weights=None if slot_weights is None else np.where(there, slot_weights, 1.0),
        slot_missing=None if slot_missing is None else np.where(there, slot_missing, 0.0),
        slot_second=slot_second,
        page_weights=page_weights,
        page_second=page_second,
        page_draws=page_draws,
    )
