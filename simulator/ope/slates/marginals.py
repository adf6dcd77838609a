"""How likely a target policy puts each action into each slot of a page."""

import numpy as np

from bandits.features.hashing import splitmix64
from bandits.types import Float64, Pmf
from simulator.logs.rows import LoggedDecision
from simulator.ope.targets import RowTarget, UniformTarget

SIMULATED = 4
"""Pages that are filled to find it out."""


def slot_marginals(target: RowTarget, row: LoggedDecision, slots: int, key: int) -> Float64:
    """Return the probability of each of K actions in each slot, float64[slots, K].

    The target fills pages from the row's actions, each slot among what those above have left, and
    the mean of its PMFs is returned. The mean over pages of these means is exact, whatever the
    number of pages: estimators that are linear in it stay unbiased. What is drawn depends on the
    key alone.

    Args:
        target: the policy.
        row: of the page's first slot, with all of its actions.
        slots: of the page.
        key: a hash of the event id.

    Raises:
        ReplayError: the target cannot say what it would do after other slots than the log's.
    """
    count = len(row.action_ids)
    if isinstance(target, UniformTarget):
        return np.full((slots, count), 1.0 / count)

    ask, everything = target.after(row), np.arange(count)
    out = np.zeros((slots, count))
    out[0] = ask(everything)
    known = {np.ones(count, np.bool_).tobytes(): (out[0], np.cumsum(out[0]))}
    draws = _uniforms(key, SIMULATED * (slots - 1)).reshape(SIMULATED, slots - 1)

    for uniforms in draws.tolist():
        left, places = np.ones(count, np.bool_), everything
        at = left.tobytes()
        for slot, u in enumerate(uniforms, 1):
            _, cumulative = known[at]
            total = float(cumulative[-1])
            if not total > 0.0:
                break
            drawn = int(cumulative.searchsorted(u * total, side="right"))
            left[places[min(drawn, len(places) - 1)]] = False

            # Which actions are left says all; near a sure choice, pages are mostly the same.
            at, places = left.tobytes(), np.flatnonzero(left)
            if at not in known:
                pmf = among_left(ask(places))
                known[at] = pmf, np.cumsum(pmf)
            out[slot, places] += known[at][0] / SIMULATED
    return out


def among_left(pmf: Pmf) -> Pmf:
    """Return a PMF of what earlier slots have left, of all mass where it has any.

    A policy that is a table says nothing of what has gone; its page is filled all the same.

    Args:
        pmf: float64[K], the policy's mass on each.
    """
    total = float(pmf.sum())
    return pmf / total if total > 0.0 else pmf


def _uniforms(key: int, count: int) -> Float64:
    """Return uniforms in [0, 1) that depend on key and place alone, float64[count]."""
    hashed = splitmix64(splitmix64(np.arange(1, count + 1, dtype=np.uint64)) ^ np.uint64(key))
    uniforms: Float64 = (hashed >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return uniforms
