"""Compiled loops of sources: the neighbours of a history's items, and the best of all items."""

from typing import Any

import numpy as np
from numba import types

from bandits.kernels.compiled import (
    Float32,
    Int32,
    Int64,
    compiled,
    f4s,
    f4ss,
    i4ss,
    i8,
    i8s,
    inlined,
)


@compiled(i4ss, f4ss, i8s, f4s, returns=types.float32[::1])
def sum_similarities(
    neighbours: Int32, similarities: Float32, indices: Int64, weights: Float32
) -> Float32:
    """Return every item's summed similarity to the items of a history, float32[items].

    Sums are of float64, in the order of the history and of each item's neighbours.

    Args:
        neighbours: int32[items, K], places of items.
        similarities: float32[items, K].
        indices: int64[h], places of the history's items.
        weights: float32[h], what the similarities to each are multiplied by.
    """
    sums = np.zeros(len(neighbours))
    for h in range(indices.size):
        row = indices[h]
        for k in range(neighbours.shape[1]):
            sums[neighbours[row, k]] += np.float64(similarities[row, k] * weights[h])
    return sums.astype(np.float32)


@inlined
def _is_worse(scores: Any, places: Any, one: Any, other: Any) -> Any:
    """Return whether one of a heap is behind another: its score is lower, or the same and later."""
    if scores[one] == scores[other]:
        return places[one] > places[other]
    return scores[one] < scores[other]


@inlined
def _swap(scores: Any, places: Any, one: Any, other: Any) -> None:
    scores[one], scores[other] = scores[other], scores[one]
    places[one], places[other] = places[other], places[one]


@inlined
def _sink(scores: Any, places: Any, size: Any) -> None:
    """Let the first of a heap sink to where nothing below it is worse."""
    at = 0
    while True:
        worst = at
        for below in (2 * at + 1, 2 * at + 2):
            if below < size and _is_worse(scores, places, below, worst):
                worst = below
        if worst == at:
            return
        _swap(scores, places, at, worst)
        at = worst


@compiled(f4s, f4s, i8s, i8, types.float32, returns=types.int64[::1])
def best_places(
    scores: Float32, shade: Float32, barred: Int64, limit: int, floor: np.float32
) -> Int64:
    """Return the places of the highest scores above a floor, best first, ties by place.

    Args:
        scores: float32[items].
        shade: float32[items], what is added to each; none: nothing is.
        barred: int64[n], places that are left out.
        limit: how many at most.
        floor: what a score has to be above.
    """
    left_out = np.zeros(scores.size, np.bool_)
    for place in barred:
        left_out[place] = True

    # A heap of the best so far, the worst of them first.
    most, size = max(0, min(limit, scores.size)), 0
    best, places = np.empty(most, np.float32), np.empty(most, np.int64)
    for place in range(scores.size if most else 0):
        score = scores[place] + shade[place] if shade.size else scores[place]
        if left_out[place] or not score > floor:
            continue
        if size < most:
            best[size], places[size] = score, place
            at, size = size, size + 1
            while at and _is_worse(best, places, at, (at - 1) // 2):
                _swap(best, places, at, (at - 1) // 2)
                at = (at - 1) // 2
        elif score > best[0]:
            best[0], places[0] = score, place
            _sink(best, places, size)

    for last in range(size - 1, 0, -1):
        _swap(best, places, 0, last)
        _sink(best, places, last)
    return places[:size].copy()
