"""A target policy's choices on pages of the log, as the rows that estimators take."""

import math
from collections.abc import Collection

import numpy as np

from bandits.log.join_rule import PageReward
from bandits.types import Float64
from simulator.logs.actions.columns import ActionColumns
from simulator.ope.batch import NOTHING, mass_outside
from simulator.ope.kernels import weigh_rows
from simulator.ope.slates.batch import SlateBatch, slate_batch
from simulator.ope.slates.formulas import Weights
from simulator.ope.slates.kernels import weigh_slots
from simulator.ope.slates.marginals import slot_marginals
from simulator.ope.slates.pages import Pages, rows_of_first_slots
from simulator.ope.slates.pseudo_inverse import draws_of, page_weights
from simulator.ope.targets import LoggingTarget, RowTarget, demand_actions

OFF_THE_PATH: frozenset[Weights] = frozenset({"slot", "pseudo_inverse"})
"""Weights that need to know what a policy would do after other slots than the log's."""


def has_all_pmfs(actions: ActionColumns) -> bool:
    """Whether the log has the logging policy's PMF of every row."""
    return actions.pmf is not None and not bool(actions.lacking.any())


def target_slate_batch(
    target: RowTarget,
    pages: Pages,
    needed: Collection[Weights],
    page_reward: PageReward = "sum",
) -> SlateBatch:
    """Return pages beside what a target policy would have done on them.

    Args:
        target: the policy.
        pages: of the log.
        needed: the kinds of weights that somebody asks for.
        page_reward: what a page earns.

    Raises:
        ReplayError: the target cannot say what it would have done.
        BadRowError: the logging policy gives a chosen action no probability.
    """
    batch, there = pages.batch, pages.there
    keys = batch.keys[pages.starts[:-1]]
    rewards, propensity = pages.laid_out(batch.reward), pages.laid_out(batch.propensity, 1.0)
    if isinstance(target, LoggingTarget):
        ones = np.ones(there.shape)
        return slate_batch(
            keys,
            pages.lengths,
            rewards,
            propensity,
            propensity,
            np.zeros(there.shape),
            slot_weights=ones,
            slot_missing=np.zeros(there.shape),
            page_weights=np.ones(len(pages)),
            page_second=np.ones(len(pages)),
            page_reward=page_reward,
        )

    actions, pmfs = demand_actions(batch, target.name), _filled(target, pages)
    known = has_all_pmfs(actions)
    logging = actions.pmf if known and actions.pmf is not None else NOTHING
    mass, _, never, squares = weigh_rows(actions.offsets, logging, pmfs, NOTHING)
    missing = pages.laid_out((never if known else 0.0) + mass_outside(mass))

    slot_weights = slot_missing = slot_second = own_weights = page_second = None
    draws = math.inf
    marginals = marginals_of(target, pages) if known and OFF_THE_PATH & set(needed) else NOTHING
    if "slot" in needed and known:
        weights, lacking, slot_squares = weigh_slots(
            pages.starts, actions.offsets, pages.places, actions.chosen, logging, marginals
        )
        slot_weights, slot_missing = pages.laid_out(weights, 1.0), pages.laid_out(lacking)
        slot_second = pages.laid_out(slot_squares, 1.0)
    if "pseudo_inverse" in needed and known:
        own_weights, page_second = page_weights(pages, marginals)
        draws = draws_of(pages)

    return slate_batch(
        keys,
        pages.lengths,
        rewards,
        propensity,
        pages.laid_out(pmfs[actions.chosen_at]),
        missing,
        second=pages.laid_out(squares, 1.0) if known else None,
        slot_weights=slot_weights,
        slot_missing=slot_missing,
        slot_second=slot_second,
        page_weights=own_weights,
        page_second=page_second,
        page_draws=draws,
        page_reward=page_reward,
    )


def marginals_of(target: RowTarget, pages: Pages) -> Float64:
    """Return ``slot_marginals`` of all pages, one after the other, flat.

    Args:
        target: the policy.
        pages: of the log.

    Raises:
        ReplayError: the target cannot say what it would do after other slots than the log's.
    """
    rows, keys = rows_of_first_slots(pages), pages.batch.keys[pages.starts[:-1]]
    parts = [
        slot_marginals(target, row, slots, key).ravel()
        for row, slots, key in zip(rows, pages.lengths.tolist(), keys.tolist(), strict=True)
    ]
    return np.concatenate(parts) if parts else NOTHING


def _filled(target: RowTarget, pages: Pages) -> Float64:
    """Return the target's PMFs, of later slots among what those above have left; float64[total]."""
    actions = demand_actions(pages.batch, target.name)
    pmfs = np.asarray(target.flat_pmfs(pages.batch), np.float64)
    later = np.ones(len(actions), np.bool_)
    later[pages.starts[:-1]] = False

    # As ``among_left`` does for one row.
    sums = np.add.reduceat(pmfs, actions.offsets[:-1])
    divisors = np.where(later & (sums > 0.0), sums, 1.0)
    filled: Float64 = pmfs / np.repeat(divisors, actions.counts)
    return filled
