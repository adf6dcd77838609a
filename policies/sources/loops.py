"""Compiled loops of sources: neighbours of a history's items, the best of all items, networks."""

from typing import Any, Final

import numpy as np
from numba import types

from bandits.kernels.compiled import (
    Float32,
    Int32,
    Int64,
    compiled,
    f4s,
    f4ss,
    f4sss,
    i4ss,
    i8,
    i8s,
    inlined,
)

LARGEST_TANH: Final = 20.0
"""Of what is beyond, the hyperbolic tangent is 1."""
LEAST_VARIANCE: Final = 1e-5
"""Added to a variance, as torch does."""


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


@compiled(f4s, types.float32, types.float32, returns=types.float32[::1])
def standardised(raw: Float32, mean: np.float32, std: np.float32) -> Float32:
    """Return (raw - mean) / std, float32[N].

    Args:
        raw: float32[N].
        mean: what is 0 then.
        std: what is 1 above it then.
    """
    made = np.empty(raw.size, np.float32)
    for at in range(raw.size):
        made[at] = (raw[at] - mean) / std
    return made


@compiled(f4s, i8, returns=types.int64[::1])
def newest_that_speak(weights: Float32, most: int) -> Int64:
    """Return which events of a history have a weight, int64[n]: the newest, oldest first.

    Args:
        weights: float32[h], oldest first.
        most: how many at most.
    """
    found, size = np.empty(weights.size, np.int64), 0
    for h in range(weights.size):
        if weights[h] > 0:
            found[size] = h
            size += 1
    return found[max(0, size - most) : size].copy()


@compiled(f4s, i8s, returns=types.float32[::1])
def values_at(values: Float32, places: Int64) -> Float32:
    """Return the values at some places, float32[K]; NaN at a place of -1.

    Args:
        values: float32[N].
        places: int64[K].
    """
    found = np.empty(places.size, np.float32)
    for k in range(places.size):
        place = places[k]
        found[k] = values[place] if place >= 0 else np.float32(np.nan)
    return found


@inlined
def _tanh(x: Any) -> Any:
    """Return the hyperbolic tangent, float64: off by less than float32 can tell.

    The exponential is that of a 128th part, squared until it is whole; a loop of it needs no call.
    """
    part = max(-LARGEST_TANH, min(LARGEST_TANH, np.float64(x))) / 128.0
    power = 1.0 + part * (1.0 + part / 2.0 * (1.0 + part / 3.0 * (1.0 + part / 4.0)))
    for _ in range(8):
        power *= power
    return 1.0 - 2.0 / (power + 1.0)


@compiled(f4ss, f4ss, f4s, returns=types.float32[::1])
def recurrent_state(events: Float32, state_weight: Float32, new_bias: Float32) -> Float32:
    """Return the state of gated recurrent units after some events, float32[d].

    Args:
        events: float32[h, 3 d], what each event says to the reset, the update and the new state,
            oldest first.
        state_weight: float32[d, 3 d], what each number of the state says to them.
        new_bias: float32[d], is added to what the state says to the new one.
    """
    d = new_bias.size
    state, said = np.zeros(d, np.float32), np.empty(3 * d, np.float32)
    for number in range(len(events)):
        event = events[number]
        said[:] = 0.0
        for k in range(d):
            value = state[k]
            for at in range(3 * d):
                said[at] += value * state_weight[k, at]

        # A sigmoid as a tanh, which never overflows.
        for at in range(2 * d):
            said[at] = 0.5 + 0.5 * _tanh(0.5 * (said[at] + event[at]))
        for at in range(d):
            kept = said[at] * (said[2 * d + at] + new_bias[at])
            new = np.float32(_tanh(event[2 * d + at] + kept))
            state[at] = new + said[d + at] * (state[at] - new)
    return state


@inlined
def _normalise(row: Any, weight: Any, bias: Any) -> None:
    """Bring a row to mean 0 and deviation 1, then scale and move it."""
    mean = np.float64(0.0)
    for value in row:
        mean += value
    mean /= row.size
    spread = np.float64(0.0)
    for value in row:
        spread += (value - mean) * (value - mean)
    spread = np.sqrt(spread / row.size + LEAST_VARIANCE)
    for at in range(row.size):
        row[at] = (row[at] - mean) / spread * weight[at] + bias[at]


@inlined
def _layer(row: Any, weight: Any, bias: Any) -> Any:
    """Return row · weight + bias."""
    made = bias.copy()
    for k in range(row.size):
        value = row[k]
        for at in range(made.size):
            made[at] += value * weight[k, at]
    return made


@inlined
def _share(events: Any, query: Any, key: Any, of_head: Any, seen: Any) -> None:
    """Put in ``seen`` the events' mean, each counted by its share of a head's attention."""
    h, d = events.shape
    asked = np.zeros(d, np.float32)
    for k in of_head:
        for at in range(d):
            asked[at] += query[k] * key[k, at]

    shares = np.zeros(h)
    for number in range(h):
        for at in range(d):
            shares[number] += asked[at] * events[number, at]
    shares /= np.sqrt(np.float64(len(of_head)))
    shares = np.exp(shares - shares.max())
    shares /= shares.sum()

    seen[:] = 0.0
    for number in range(h):
        share = np.float32(shares[number])
        for at in range(d):
            seen[at] += share * events[number, at]


@compiled(f4ss, f4sss, f4ss, f4ss, i8, returns=types.float32[::1])
def newest_attended(
    events: Float32, layers: Float32, biases: Float32, norms: Float32, heads: int
) -> Float32:
    """Return what the last block of self-attention makes of the newest event, float32[d].

    Keys and values are linear, so that none is made: the query goes through the keys' layer once,
    and the shares' sum of the events through the values'. What a key's bias adds is the same for
    all events.

    Args:
        events: float32[h, d], what the blocks before have made of them, oldest first.
        layers: float32[6, d, d]: query, key, value, answer, inner, outer; each is multiplied from
            the right but that of the keys.
        biases: float32[5, d], of all of these but the keys.
        norms: float32[6, d]: weight and bias before the attention, before the layers, at the end.
        heads: which divide d.
    """
    h, d = events.shape
    each = d // heads
    before = events.copy()
    for number in range(h):
        _normalise(before[number], norms[0], norms[1])

    found, query = biases[1].copy(), _layer(before[h - 1], layers[0], biases[0])
    seen = np.empty(d, np.float32)
    for head in range(heads):
        of_head = range(head * each, (head + 1) * each)
        _share(before, query, layers[1], of_head, seen)
        for k in range(d):
            for at in of_head:
                found[at] += seen[k] * layers[2, k, at]

    newest: Float32 = events[h - 1] + _layer(found, layers[3], biases[2])
    inner = newest.copy()
    _normalise(inner, norms[2], norms[3])
    hidden = np.maximum(_layer(inner, layers[4], biases[3]), np.float32(0.0))
    newest += _layer(hidden, layers[5], biases[4])
    _normalise(newest, norms[4], norms[5])
    return newest
