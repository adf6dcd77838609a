"""Compiled loops of towers: what a history and a context make of a user, and layers over items."""

from typing import Any

import numpy as np
from numba import types

from bandits.kernels.compiled import Float32, Int64, compiled, f4s, f4ss, i8, i8s, inlined


@inlined
def _add_mean(rows: Any, weights: Any, first: Any, into: Any) -> None:
    """Add the mean of the rows from one on, each counted by its weight, as far as it reaches."""
    total = np.float32(0.0)
    for h in range(first, weights.size):
        total += weights[h]
    for h in range(first, weights.size):
        share = weights[h] / total
        for at in range(into.size):
            into[at] += share * rows[h, at]


@inlined
def _add_product(row: Any, weight: Any, into: Any) -> None:
    """Add row · weight."""
    for k in range(row.size):
        value = row[k]
        for at in range(into.size):
            into[at] += value * weight[k, at]


@compiled(
    *(f4ss, f4s, f4s, f4ss, f4ss, f4ss, f4s, f4ss, f4s, i8),
    returns=types.float32[::1],
)
def tower_of_user(
    rows: Float32,
    weights: Float32,
    told: Float32,
    whole: Float32,
    latest: Float32,
    weight_1: Float32,
    bias_1: Float32,
    weight_2: Float32,
    bias_2: Float32,
    recent: int,
) -> Float32:
    """Return a user's vector, float32[d + 1], of which the last number is 1.

    Args:
        rows: float32[h, d + 1], the vectors of the history's items, oldest first.
        weights: float32[h], above 0.
        told: float32[d], what the context says.
        whole: float32[d, d], what the mean of all is multiplied with.
        latest: float32[d, d], what that of the last ``recent`` is.
        weight_1: float32[3 d, hidden], of both means and the context.
        bias_1: float32[hidden].
        weight_2: float32[hidden, d].
        bias_2: float32[d].
        recent: items that are the latest.
    """
    d = told.size
    x = np.zeros(3 * d, np.float32)
    if weights.size:
        _add_mean(rows, weights, 0, x[:d])
        _add_mean(rows, weights, max(0, weights.size - recent), x[d : 2 * d])
    x[2 * d :] = told

    hidden = bias_1.copy()
    _add_product(x, weight_1, hidden)
    user = np.ones(d + 1, np.float32)
    made = user[:d]
    made[:] = bias_2 + told
    _add_product(np.maximum(hidden, np.float32(0.0)), weight_2, made)
    _add_product(x[:d], whole, made)
    _add_product(x[d : 2 * d], latest, made)
    return user


@compiled(
    *(f4ss, i8s, f4s, i8, f4ss),
    returns=types.UniTuple(types.float32[::1], 2),
)
def halves_of_user(
    known: Float32, places: Int64, weights: Float32, width: int, of_user: Float32
) -> tuple[Float32, Float32]:
    """Return what a user's items mean for the product, float32[width], and the layers, float32[H].

    Args:
        known: float32[items, width + d], vectors of items by which somebody is known.
        places: int64[h], those that somebody has.
        weights: float32[h], how strongly each speaks for its item.
        width: numbers that are for the product.
        of_user: float32[d, H], what the others are multiplied with.
    """
    total = np.float32(0.0)
    for weight in weights:
        total += weight
    user = np.zeros(known.shape[1], np.float32)
    for h in range(places.size):
        share, place = weights[h] / total, places[h]
        for at in range(user.size):
            user[at] += share * known[place, at]

    told = np.zeros(of_user.shape[1], np.float32)
    _add_product(user[width:], of_user, told)
    return user[:width].copy(), told


@compiled(f4ss, f4s, returns=types.float32[:, ::1])
def rectified(first: Float32, told: Float32) -> Float32:
    """Return the first layer's numbers of each item, float32[H, items], none below 0.

    Args:
        first: float32[H, items], the item's part.
        told: float32[H], the user's.
    """
    made = np.empty_like(first)
    for k in range(len(first)):
        # What does not change in the inner loop stands outside of it, or it is not vectorised.
        own, into, added = first[k], made[k], told[k]
        for item in range(own.size):
            into[item] = max(own[item] + added, np.float32(0.0))
    return made


@compiled(types.float32[::1], f4ss, f4s, f4s)
def add_last_layer(scores: Float32, second: Float32, bias: Float32, last: Float32) -> None:
    """Add to each item's score what the layers end in, in place.

    Args:
        scores: float32[items].
        second: float32[H, items], what the second layer adds up.
        bias: float32[H], the second layer's.
        last: float32[H], what its numbers, none below 0, are multiplied with.
    """
    for k in range(last.size):
        own, added, counts = second[k], bias[k], last[k]
        for item in range(scores.size):
            scores[item] += max(own[item] + added, np.float32(0.0)) * counts
