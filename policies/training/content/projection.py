"""From what is said of items to the directions in which users' tastes tell them apart."""

from dataclasses import replace
from typing import Final

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]
from numpy.typing import NDArray

from bandits.types import Float32
from policies.artifacts.histories import Histories
from policies.sources.live.text_vectors import unit
from policies.training.cf import AlsConfig, fit_als
from policies.training.content.descriptions import ContentConfig

LEAST_ITEMS: Final = 200
"""Items with events enough below which nothing is learned of tastes."""
LEAST_EVENTS: Final = 5
"""Events that are enough."""
MOST_ITEMS: Final = 50_000
"""Items that are fitted on: those with the most events."""
HELD_OUT: Final = 0.2
"""Share of the items, as if nobody had seen them, on which it is judged whether tastes help."""
JUDGED: Final = 1_000
"""Users whose held-out items are looked for."""
LIST: Final = 10
"""Items of a user's list when that is judged."""


def choose_projection(
    said: Float32, histories: Histories, config: ContentConfig, *, seed: int
) -> Float32 | None:
    """Return a projection, float32[parts, size], if it finds unseen items better than none does.

    That is measured: on a fifth of the items, whose events are taken away, users' own are looked
    for by what is said of them, with a projection fitted on the others and without one. In the
    frozen shop it helps, and on MovieLens it does not (docs/decisions/text_vectors.md).

    Args:
        said: float32[items, parts], what is said of each item less the mean; zeros: nothing is.
        histories: who interacted with what, over the same items.
        config: see ContentConfig.
        seed: of the ALS, and of the items and users that are drawn.
    """
    rng = np.random.default_rng([seed, 5])
    held_out = rng.random(len(histories.items)) < HELD_OUT
    seen = _without(histories, held_out)
    tried = fit_projection(said, seen, config, seed=seed)
    if tried is None:
        return None

    users = rng.permutation(len(histories.users))
    plain, projected = (
        _found(vectors, histories, seen, held_out, users)
        for vectors in (unit(said), unit(said @ tried))
    )
    return fit_projection(said, histories, config, seed=seed) if projected > plain else None


def fit_projection(
    said: Float32, histories: Histories, config: ContentConfig, *, seed: int
) -> Float32 | None:
    """Return the projection; None if there are too few items with events enough.

    A ridge regression of the directions of items' ALS factors on what is said of the items, as in
    Gantner et al. 2010 (https://doi.org/10.1109/ICDM.2010.129).

    Args:
        said: float32[items, parts], as ``choose_projection`` has it.
        histories: who interacted with what.
        config: see ContentConfig.
        seed: of the ALS.
    """
    events = np.bincount(histories.indices[histories.weights > 0], minlength=len(histories.items))
    known = np.flatnonzero(events >= LEAST_EVENTS)
    if known.size < LEAST_ITEMS:
        return None
    known = np.sort(known[np.argsort(-events[known], kind="stable")[:MOST_ITEMS]])

    als = AlsConfig(factors=config.factors, iterations=config.iterations)
    factors = fit_als(histories, als, seed=seed, step=lambda *_: None).arrays["item_factors"]
    targets, parts = unit(factors[known]).astype(np.float64), said[known].astype(np.float64)
    worth = np.sqrt(events[known])
    targets -= np.average(targets, axis=0, weights=worth)

    with threadpoolctl.threadpool_limits(1, "blas"):
        gram = (parts * worth[:, None]).T @ parts
        gram += config.ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
        found = np.linalg.solve(gram, (parts * worth[:, None]).T @ targets)
    return found.astype(np.float32)


def _without(histories: Histories, left_out: NDArray[np.bool_]) -> Histories:
    """Return the histories without some of the items, which keep their places."""
    kept = ~left_out[histories.indices]
    before = np.append(0, np.cumsum(kept))
    return replace(
        histories,
        starts=before[histories.starts],
        indices=histories.indices[kept],
        weights=histories.weights[kept],
        times=None,
        types=None,
    )


def _found(
    vectors: Float32,
    histories: Histories,
    seen: Histories,
    held_out: NDArray[np.bool_],
    users: NDArray[np.intp],
) -> float:
    """Return the mean nDCG of lists of held-out items, for the first users who have any.

    Args:
        vectors: float32[items, d], of length 1.
        histories: all that users did.
        seen: the same without the items that are held out.
        held_out: bool[items].
        users: in the order in which they are taken.
    """
    items = np.flatnonzero(held_out)
    gains = 1.0 / np.log2(np.arange(LIST) + 2.0)
    found: list[float] = []
    for user in users.tolist():
        indices, weights = histories.row(user)
        wanted = np.intersect1d(indices[weights > 0], items)
        known, strength = seen.row(user)
        if not wanted.size or not strength.any():
            continue

        scores = vectors[items] @ unit(strength @ vectors[known])
        best = items[np.argsort(-scores, kind="stable")[:LIST]]
        hits = np.isin(best, wanted)
        found.append(float(hits @ gains[: best.size] / gains[: wanted.size].sum()))
        if len(found) == JUDGED:
            break
    return float(np.mean(found)) if found else 0.0
