"""Compiled loops of vectors that come and go: products with a user's vector, the nearest in order.

A product has one order of its sum, wherever it is asked for.
"""

from typing import Any

import numpy as np
from numba import types

from bandits.kernels.compiled import (
    Float32,
    Int64,
    compiled,
    f4s,
    f4ss,
    f4sss,
    i8,
    i8s,
    spliced,
)
from policies.sources.loops import best_places


@spliced
def dot(table: Any, row: Any, first: Any, other: Any) -> Any:
    """Return the product of a part of a table's row with a vector, float32.

    Eight sums side by side, then their own sum.
    """
    size, at = other.size, 0
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0.0)
    while at + 8 <= size:
        s0 += table[row, first + at] * other[at]
        s1 += table[row, first + at + 1] * other[at + 1]
        s2 += table[row, first + at + 2] * other[at + 2]
        s3 += table[row, first + at + 3] * other[at + 3]
        s4 += table[row, first + at + 4] * other[at + 4]
        s5 += table[row, first + at + 5] * other[at + 5]
        s6 += table[row, first + at + 6] * other[at + 6]
        s7 += table[row, first + at + 7] * other[at + 7]
        at += 8
    total = ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))
    while at < size:
        total += table[row, first + at] * other[at]
        at += 1
    return total


@compiled(f4ss, i8s, f4s, returns=types.float32[::1])
def products_of(vectors: Float32, rows: Int64, user: Float32) -> Float32:
    """Return the product of some vectors with a user's, float32[K]; NaN for a row of -1.

    Args:
        vectors: float32[N, d].
        rows: int64[K], each below N.
        user: float32[d].
    """
    products = np.empty(rows.size, np.float32)
    for k in range(rows.size):
        row = rows[k]
        products[k] = dot(vectors, row, 0, user) if row >= 0 else np.float32(np.nan)
    return products


@compiled(f4s, i8s, types.float32, i8, returns=types.int64[::1])
def best_first(products: Float32, rows: Int64, least: np.float32, limit: int) -> Int64:
    """Return where the highest products are, best first, ties by row: int64[n].

    Args:
        products: float32[K], in about that order, as those of a search are.
        rows: int64[K], whose product each is.
        least: what a product has to be above.
        limit: how many at most.
    """
    order, count = np.empty(products.size, np.int64), 0
    for k in range(products.size):
        product = products[k]
        if not product > least:
            continue
        at = count
        while at:
            before = order[at - 1]
            earlier = products[before] == product and rows[before] < rows[k]
            if products[before] > product or earlier:
                break
            order[at] = before
            at -= 1
        order[at] = k
        count += 1
    return order[: max(0, min(limit, count))].copy()


@compiled(
    *(f4s, f4ss, f4s, i8s, f4s, i8, types.float32),
    returns=types.Tuple((types.int64[::1], types.float32[::1])),
)
def nearest_rows(
    products: Float32,
    vectors: Float32,
    shade: Float32,
    barred: Int64,
    user: Float32,
    limit: int,
    least: np.float32,
) -> tuple[Int64, Float32]:
    """Return the rows with the highest products, best first, int64[n], and their products.

    The products are those of ``products_of``.

    Args:
        products: float32[n], of all rows with a user's vector, in about these bits.
        vectors: float32[N, d], the first n of which they are of.
        shade: float32[n], what is added to each.
        barred: int64[b], rows that are left out.
        user: float32[d].
        limit: how many at most.
        least: what a product has to be above.
    """
    rows = best_places(products, shade, barred, limit, least)
    exact = products_of(vectors, rows, user)
    order = best_first(exact, rows, least, limit)
    return rows[order], exact[order]


@compiled(i8s, i8s, returns=types.Tuple((types.int64[::1], types.int64, types.int64)))
def rows_of_places(row_at: Int64, places: Int64) -> tuple[Int64, int, int]:
    """Return the row at each place, int64[K], -1 of none; how many have none; how many no place.

    Args:
        row_at: int64[N + 1], the row at each place; -1 of none, as the last is.
        places: int64[K], -1 of what has no place.
    """
    rows, lacking, strangers = np.empty(places.size, np.int64), 0, 0
    for k in range(places.size):
        row = row_at[places[k]]
        rows[k] = row
        lacking += row < 0
        strangers += places[k] < 0
    return rows, lacking, strangers


@compiled(f4ss, f4s, f4sss, returns=types.float32[::1])
def direction_of(rows: Float32, weights: Float32, steps: Float32) -> Float32:
    """Return the mean of a history's vectors, brought to length 1, and what its last items add.

    Args:
        rows: float32[h, d], oldest first.
        weights: float32[h], how strongly each speaks for its item.
        steps: float32[S, d, d], by which the last is multiplied, the one before it, …
    """
    d = rows.shape[1]
    user, length = np.zeros(d, np.float32), np.float32(0.0)
    for h in range(weights.size):
        weight, row = weights[h], rows[h]
        for at in range(d):
            user[at] += weight * row[at]
    for value in user:
        length += value * value
    if length > 0:
        user /= np.sqrt(length)

    for back in range(min(len(steps), len(rows))):
        row = rows[len(rows) - 1 - back]
        for k in range(d):
            value, step = row[k], steps[back, k]
            for at in range(d):
                user[at] += value * step[at]
    return user
