"""The highest of many scores, and the highest of those that a filter admits."""

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32

Admits = Callable[[NDArray[Any]], NDArray[np.bool_]]
"""Says which of some items may be found, bool[n]."""
LEAST_ASKED: Final = 1_000
"""So many a filter is asked about first: it takes hardly longer than to ask about a few."""
SPARE: Final = 1.5
"""How many times as many are asked about next as should do, going by those before."""
MOST_ASKED: Final = 100_000
"""However high a score is, behind so many it is not looked for where a filter is to admit it."""


def highest(scores: Float32, limit: int, admits: Admits | None = None) -> NDArray[np.intp]:
    """Return the places of the ``limit`` highest scores, in no order, with what equals the last.

    Args:
        scores: float32[n].
        limit: how many are wanted; all if it is not above 0.
        admits: says which places count; of the highest scores it is asked first, and of most others
            never. None: all count.
    """
    if admits is None:
        return _reaching(scores, limit)
    asked = max(LEAST_ASKED, limit)
    while True:
        asked = min(asked, MOST_ASKED)
        places = _reaching(scores, asked)
        kept = places[admits(places)]
        if kept.size >= limit or asked >= min(scores.size, MOST_ASKED):
            return kept[_reaching(scores[kept], limit)]

        # What is lower is admitted about as often.
        share = (kept.size + 1) / (asked + 1)
        asked = max(2 * asked, math.ceil(SPARE * limit / share))


def of_places(items: NDArray[Any], admits: Admits) -> Admits:
    """Return what says by places in ``items`` which of these may be found.

    Args:
        items: of which some are asked about.
        admits: says it by what is at the places.
    """
    return lambda places: admits(items[places])


def _reaching(scores: Float32, limit: int) -> NDArray[np.intp]:
    if not 0 < limit < scores.size:
        return np.arange(scores.size)
    return np.flatnonzero(scores >= np.partition(scores, -limit)[-limit])
