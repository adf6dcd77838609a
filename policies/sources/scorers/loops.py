"""Compiled loops of scorers: what is kept of some items, multiplied with what a request adds."""

import numpy as np
from numba import types

from bandits.kernels.compiled import Bools, Float32, Int64, compiled, f4s, f4ss, i8s, truths
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

    And float32[K, H], what the first of these adds up.

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
        row = kept[rows[k]]
        logits[k] = constant + row[0] + dot(row[1:first], vector)
        if crossed.size:
            logits[k] += dot(row[last:], crossed)
        for at in range(hidden.size):
            inner[k, at] = hidden[at] + row[first + at]
    return logits, inner
