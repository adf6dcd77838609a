"""Weights of the pseudo-inverse, for logging policies that fill a page by one rule.

Swaminathan et al. 2017, arXiv:1605.04812. The matrix G = mean(1_s 1_s') is over all pages that the
logging policy could have shown, and a log has the PMFs of the page that it did show. They say all
where a later slot's PMF is what is left of the first one's, normalised, mixed with a share of the
uniform one: so do softmax, proportional and uniform choices with a floor. Whether that holds is
seen on each page.
"""

import math
from functools import lru_cache
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ReplayError
from bandits.types import Float64, frozen
from simulator.ope.slates.kernels import fill_pages, sum_pairs
from simulator.ope.slates.pages import Pages

CELLS = 400
"""Slots times actions at most: the matrix has the square of that many numbers."""
LISTED = 20_000
"""Pages that are all listed; of more, DRAWN are drawn by the rule."""
DRAWN = 1 << 16
ALIKE = 1e-6
"""What the PMF of a slot may differ from the rule's by rounding."""
RANK = 1e-9
"""Eigenvalues below this share of the largest are 0."""

Rule = tuple[Float64, float]
"""The probabilities of a first slot without the uniform share, float64[K], and that share."""


def page_weights(pages: Pages, marginals: Float64) -> tuple[Float64, Float64]:
    """Return the weights of pages, and the means of their squares under the logging policy.

    Args:
        pages: of the log, whose PMFs are all known.
        marginals: the target's, of all pages; see ``marginals_of``.

    Returns:
        float64[n] each.

    Raises:
        ReplayError: the logging policy fills pages by another rule, or pages are too large.
    """
    actions = pages.batch.actions
    assert actions is not None  # noqa: S101 - of every batch of pages
    assert actions.pmf is not None  # noqa: S101 - the caller has looked
    weights, second = np.empty(len(pages)), np.empty(len(pages))
    shown = pages.places[actions.chosen_at]

    begin = 0
    for page, slots in enumerate(pages.lengths.tolist()):
        rows = range(int(pages.starts[page]), int(pages.starts[page + 1]))
        count = int(actions.counts[rows.start])
        pmfs = np.zeros((slots, count))
        for slot, row in enumerate(rows):
            mine = slice(int(actions.offsets[row]), int(actions.offsets[row + 1]))
            pmfs[slot, pages.places[mine]] = actions.pmf[mine]

        wanted = marginals[begin : begin + slots * count]
        places = shown[rows.start : rows.stop]
        begin += slots * count
        inverse = _inverse_of(pmfs, places, pages, rows.start)
        spread = inverse @ wanted
        weights[page] = spread[np.arange(slots) * count + places].sum()
        second[page] = wanted @ spread
    return weights, second


def draws_of(pages: Pages) -> float:
    """Return how many pages the weights are found by; infinite where all that there are are listed.

    Args:
        pages: of the log.
    """
    actions = pages.batch.actions
    assert actions is not None  # noqa: S101 - of every batch of pages
    counts = actions.counts[pages.starts[:-1]]
    kinds = set(zip(counts.tolist(), pages.lengths.tolist(), strict=True))
    is_listed = all(math.perm(count, slots) <= LISTED for count, slots in kinds)
    return math.inf if is_listed else DRAWN


def rule_of(pmfs: Float64, places: NDArray[np.int64]) -> Rule | None:
    """Return the rule by which a page was filled; None if it is not of the kind.

    Args:
        pmfs: float64[slots, K], 0 at what earlier slots show.
        places: int64[slots], what each slot shows.
    """
    first, count = pmfs[0], pmfs.shape[1]
    share = 0.0
    left = np.ones(count, np.bool_)
    left[places[0]] = False
    if len(pmfs) > 1 and count > 2:
        among = np.flatnonzero(left)
        high, low = among[first[among].argmax()], among[first[among].argmin()]
        apart = first[high] - first[low]

        # Of two actions, the difference of their probabilities grows by a factor that tells.
        if apart > ALIKE * first[high]:
            grown = (pmfs[1, high] - pmfs[1, low]) / apart
            below = 1.0 - grown * (1.0 - 1.0 / count)
            share = (1.0 - grown * (1.0 - first[places[0]])) / below if below else math.nan
    if not -ALIKE <= share < 1.0:
        return None
    share = float(np.clip(share, 0.0, 1.0))
    own = (first - share / count) / (1.0 - share)

    left[:] = True
    for slot, pmf in enumerate(pmfs):
        rest = np.where(left, own, 0.0)
        total = rest.sum()
        if own.min() < -ALIKE or not total > 0.0:
            return None
        expected = (1.0 - share) * rest / total + share * left / left.sum()
        if np.abs(expected - pmf).max() > ALIKE:
            return None
        left[places[slot]] = False
    return np.maximum(own, 0.0), share


def _inverse_of(pmfs: Float64, places: NDArray[np.int64], pages: Pages, row: int) -> Float64:
    """Return the pseudo-inverse of a page's matrix, float64[slots K, slots K]."""
    slots, count = pmfs.shape
    if slots * count > CELLS:
        raise ReplayError(
            f"pi is for pages of up to {CELLS} slots times actions, and one has"
            f" {slots} x {count}: use iips, or fewer slots (--horizon)",
            "estimator",
        )
    rule = rule_of(pmfs, places)
    if rule is None:
        raise ReplayError(
            f"decision {pages.batch.decisions[row].event_id}: the PMFs of its slots do not follow"
            " from that of the first (as those of softmax and uniform choices do), so the log does"
            " not say how likely other pages were, which pi needs: use iips or rips",
            "estimator",
        )
    own, share = rule
    # Rules that differ by rounding alone are one.
    return _inverse(own.round(10).tobytes(), round(share, 10), slots)


@lru_cache(maxsize=256)
def _inverse(own: bytes, share: float, slots: int) -> Float64:
    """Return the pseudo-inverse of the matrix of pages that a rule fills."""
    weights = np.frombuffer(own)
    count = len(weights)
    if math.perm(count, slots) <= LISTED:
        listed, chances = _all_pages(count, slots), np.ones(math.perm(count, slots))
        left = np.ones((len(listed), count), np.bool_)
        rows = np.arange(len(listed))
        for slot in range(slots):
            picked = listed[:, slot]
            rest = np.where(left, weights, 0.0).sum(axis=1)
            mine = np.divide(weights[picked], rest, out=np.zeros(len(rows)), where=rest > 0.0)
            chances *= (1.0 - share) * mine + share / (count - slot)
            left[rows, picked] = False
    else:
        listed = fill_pages(weights, share, _draws(slots))
        chances = np.full(DRAWN, 1.0 / DRAWN)

    matrix = sum_pairs(listed, chances, count)
    values, vectors = np.linalg.eigh(matrix)
    kept = values > RANK * values[-1]
    return frozen((vectors[:, kept] / values[kept]) @ vectors[:, kept].T)


@lru_cache(maxsize=8)
def _all_pages(count: int, slots: int) -> NDArray[np.int64]:
    """Return all pages, int64[pages, slots]."""
    return np.array(list(permutations(range(count), slots)), np.int64).reshape(-1, slots)


@lru_cache(maxsize=8)
def _draws(slots: int) -> Float64:
    """Return what pages are drawn by, the same for every rule: float64[DRAWN, slots]."""
    return frozen(np.random.default_rng(slots).random((DRAWN, slots)))
