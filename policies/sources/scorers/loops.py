"""Compiled loops of scorers: what a request adds, and what is kept of items multiplied with it."""

import numpy as np
from numba import types

from bandits.kernels.compiled import (
    Bools,
    Float32,
    Int64,
    compiled,
    f4s,
    f4ss,
    i8,
    i8s,
    truths,
)
from policies.sources.live.products import dot


@compiled(truths, i8s, returns=types.boolean)
def all_there(there: Bools, rows: Int64) -> bool:
    """Return whether each of some rows is there.

    Args:
        there: bool[n + 1]; the last is that of the row -1, and of those beyond.
        rows: int64[K].
    """
    last, found = there.size - 1, True
    for row in rows:
        found &= 0 <= row < last and there[row]
    return found


@compiled(
    *(f4ss, f4ss, i8s, f4s, f4ss, f4ss, f4s),
    returns=types.Tuple((types.float32[::1], types.float32[::1], types.float32)),
)
def user_of_fields(
    history: Float32,
    last: Float32,
    places: Int64,
    weights: Float32,
    context: Float32,
    layer: Float32,
    bias: Float32,
) -> tuple[Float32, Float32, np.float32]:
    """Return the sum of a user's fields, float32[d], what they add to a layer, and their products.

    The products are those of every two fields, summed.

    Args:
        history: float32[items, d], vectors of items by which somebody is known.
        last: float32[items, d], vectors of the newest of these.
        places: int64[h], those that somebody has, oldest first.
        weights: float32[h], how strongly each speaks for its item.
        context: float32[C, d], vectors of what is said of them.
        layer: float32[(2 + C) d, H], what the fields are multiplied with; H is 0 without a layer.
        bias: float32[H].
    """
    d = history.shape[1]
    fields = np.zeros((2 + len(context), d), np.float32)
    fields[2:] = context
    total = np.float32(0.0)
    for weight in weights:
        total += weight
    if total > 0:
        for h in range(places.size):
            share, place = weights[h] / total, places[h]
            for at in range(d):
                fields[0, at] += share * history[place, at]
        fields[1] = last[places[-1]]

    vector, pairs, hidden = np.zeros(d, np.float32), 0.0, bias.copy()
    for at in range(d):
        for field in range(len(fields)):
            pairs += vector[at] * fields[field, at]
            vector[at] += fields[field, at]
    if bias.size:
        for k in range(fields.size):
            value, own = fields[k // d, k % d], layer[k]
            for at in range(bias.size):
                hidden[at] += value * own[at]
    return vector, hidden, np.float32(pairs)


@compiled(f4s, f4s, f4ss, i8, f4ss, returns=types.float32[::1])
def weights_of_crosses(
    said: Float32, weights: Float32, rows: Float32, first: int, crosses: Float32
) -> Float32:
    """Return the weight of each feature of an item that is crossed, float32[C].

    Args:
        said: float32[S], how much each feature of the context counts.
        weights: float32[h], how strongly each item of the history speaks.
        rows: float32[h or 0, width], what is kept of these items.
        first: the column of these from which on their C features are.
        crosses: float32[S + C, C], the weight of each feature of the user crossed with the item's.
    """
    count = crosses.shape[1]
    asks = np.zeros(len(crosses), np.float32)
    asks[: said.size] = said
    of_items = asks[said.size :]
    total = np.float32(0.0)
    for weight in weights:
        total += weight
    if total > 0:
        for h in range(len(rows)):
            share, own = weights[h] / total, rows[h, first : first + count]
            for at in range(count):
                of_items[at] += share * own[at]

    crossed = np.zeros(count, np.float32)
    for k in range(asks.size):
        value = asks[k]
        if value != 0:
            for at in range(count):
                crossed[at] += value * crosses[k, at]
    return crossed


@compiled(
    f4ss,
    i8s,
    types.float32,
    f4s,
    f4s,
    f4s,
    returns=types.Tuple((types.float32[::1], types.float32[:, ::1])),
)
def logits_of_rows(
    kept: Float32,
    rows: Int64,
    constant: np.float32,
    vector: Float32,
    hidden: Float32,
    crossed: Float32,
) -> tuple[Float32, Float32]:
    """Return what rows of a table add up to for a request, float32[K], before any layers.

    And float32[K, H], the first of these, none below 0.

    Args:
        kept: float32[N, 1 + d + H + C], by item: its linear part, its vector, what it adds to the
            first layer, and its features that are crossed.
        rows: int64[K], of the items.
        constant: is added to each.
        vector: float32[d], multiplied with the items' vectors.
        hidden: float32[H], what the request adds to the first layer.
        crossed: float32[C], the weights of the features that are crossed.
    """
    logits = np.empty(rows.size, np.float32)
    inner = np.empty((rows.size, hidden.size), np.float32)
    first = 1 + vector.size
    last = first + hidden.size
    for k in range(rows.size):
        row = rows[k]
        logits[k] = constant + kept[row, 0] + dot(kept, row, 1, vector)
        if crossed.size:
            logits[k] += dot(kept, row, last, crossed)
        into, own = inner[k], kept[row, first:last]
        for at in range(hidden.size):
            into[at] = max(hidden[at] + own[at], np.float32(0.0))
    return logits, inner


@compiled(types.float32[:, ::1], f4s)
def rectify(inner: Float32, bias: Float32) -> None:
    """Add a bias to each row, in place; none is below 0 then.

    Args:
        inner: float32[K, H].
        bias: float32[H].
    """
    for k in range(len(inner)):
        for at in range(bias.size):
            inner[k, at] = max(inner[k, at] + bias[at], np.float32(0.0))


@compiled(types.float32[::1], f4ss, f4s, types.float32, types.float32, types.float32)
def finish(
    logits: Float32,
    inner: Float32,
    last: Float32,
    bias: np.float32,
    slope: np.float32,
    intercept: np.float32,
) -> None:
    """Add to logits what layers end in, and calibrate them, in place.

    Args:
        logits: float32[K].
        inner: float32[K, H], what the layer before the last has made; H is 0 without layers.
        last: float32[H], the last layer.
        bias: is added, with it.
        slope: what logits are multiplied with then.
        intercept: what is added then.
    """
    for k in range(logits.size):
        logit = logits[k]
        if last.size:
            logit += dot(inner, k, 0, last) + bias
        logits[k] = logit * slope + intercept
