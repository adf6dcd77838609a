"""Compiled loops of vectors that come and go: products with a user's vector, the nearest in order.

A product has one order of its sum, wherever it is asked for.
"""

from typing import Any

import numpy as np
from numba import types

from bandits.kernels.compiled import Float32, Int64, compiled, f4s, f4ss, i8, i8s, inlined


@inlined
def dot(one: Any, other: Any) -> Any:
    """Return the product of two vectors, float32: eight sums side by side, then their own sum."""
    size, at = one.size, 0
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0.0)
    while at + 8 <= size:
        s0 += one[at] * other[at]
        s1 += one[at + 1] * other[at + 1]
        s2 += one[at + 2] * other[at + 2]
        s3 += one[at + 3] * other[at + 3]
        s4 += one[at + 4] * other[at + 4]
        s5 += one[at + 5] * other[at + 5]
        s6 += one[at + 6] * other[at + 6]
        s7 += one[at + 7] * other[at + 7]
        at += 8
    total = ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))
    while at < size:
        total += one[at] * other[at]
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
        products[k] = dot(vectors[row], user) if row >= 0 else np.float32(np.nan)
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
