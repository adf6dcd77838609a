"""Compiled loops over several decisions at once: scores, PMFs and draws of a ragged array.

The actions of R decisions stand one after the other; ``starts``, int64[R + 1], says where those of
each begin. Every number is the one that the loops over a single decision give, bit for bit.
"""

from typing import Any

import numpy as np
from numba import types

from bandits.kernels.actions import draw_checked, greedy_pmf, mixed
from bandits.kernels.compiled import (
    Float32,
    Float64,
    Int32,
    Int64,
    UInt32,
    compiled,
    f4s,
    f4ss,
    f8,
    f8s,
    i4s,
    i8s,
    inlined,
    u4s,
)
from bandits.kernels.features import FNV_PRIME

TWICE, ONCE, UNKNOWN = 0, 1, 2
"""What ``occurrences`` says of a decision."""
_SPREAD = np.uint64(11400714819323198485)  # 2^64 / the golden ratio (Knuth, vol. 3, 6.4)
_HIGH = np.uint64(32)


@inlined
def _crossed_weight(weights: Any, own: Any, other: Any, context_first: Any) -> Any:
    """Return the weight of a pair of features, one of an action and one of the context."""
    first, second = (other, own) if context_first else (own, other)
    hashed = np.uint32(np.uint32(first * FNV_PRIME) ^ second)
    return weights[hashed & np.uint32(weights.size - 1)]


@compiled(
    *(f4s, f8, i8s, u4s, u4s, f4ss, i8s, i8s, u4s, f4s, i4s),
    returns=types.float64[::1],
)
def weigh_each(  # noqa: C901, PLR0912 - one pass over the features of all decisions
    weights: Float32,
    constant: float,
    starts: Int64,
    items: UInt32,
    names: UInt32,
    values: Float32,
    rows: Int64,
    shared_starts: Int64,
    shared: UInt32,
    shared_values: Float32,
    crossed: Int32,
) -> Float64:
    """Return what ``weigh`` does of each decision, over actions whose features have the same names.

    Args:
        weights: float32[2^bits]; a hash finds its weight at its last bits.
        constant: the weight of what every example has.
        starts: int64[R + 1].
        items: uint32[N], an indicator of each action; empty if there is none.
        names: uint32[F], the hashes of the features that all actions have.
        values: float32[n, F].
        rows: int64[N], the row of each action's values; -1 for one that has none.
        shared_starts: int64[R + 1], where each decision's context begins.
        shared: uint32[C], the features of the contexts.
        shared_values: float32[C].
        crossed: pairs of namespaces that are crossed, three numbers each: the actions' (1 is the
            first), the context's (0), and 1 if the context's comes first.

    Returns:
        float64[N].
    """
    mask = np.uint32(weights.size - 1)
    alike = 2 if items.size else 1
    by_name, scores = np.empty(names.size), np.empty(rows.size)

    for r in range(starts.size - 1):
        begin, end = shared_starts[r], shared_starts[r + 1]
        for u in range(names.size):
            by_name[u] = weights[names[u] & mask]
        for p in range(0, crossed.size, 3):
            if crossed[p] == alike:
                for c in range(begin, end):
                    for u in range(names.size):
                        weight = _crossed_weight(weights, names[u], shared[c], crossed[p + 2] == 1)
                        by_name[u] += weight * np.float64(shared_values[c])

        same = 0.0
        for c in range(begin, end):
            same += weights[shared[c] & mask] * np.float64(shared_values[c])

        for k in range(starts[r], starts[r + 1]):
            own = 0.0
            if items.size:
                of_item = np.float64(weights[items[k] & mask])
                for p in range(0, crossed.size, 3):
                    if crossed[p] != alike:
                        for c in range(begin, end):
                            weight = _crossed_weight(
                                weights, items[k], shared[c], crossed[p + 2] == 1
                            )
                            of_item += weight * np.float64(shared_values[c])
                own += of_item
            if rows[k] >= 0:
                for j in range(names.size):
                    own += by_name[j] * values[rows[k], j]
            scores[k] = -(own + same + constant)
    return scores


@compiled(f8s, i8s, f8, returns=types.float64[::1])
def greedy_each(scores: Float64, starts: Int64, floor: float) -> Float64:
    """Return what ``greedy_pmf`` does of each decision, float64[N].

    Args:
        scores: float64[N].
        starts: int64[R + 1].
        floor: the mass that all actions of a decision share.
    """
    out = np.empty(scores.size)
    for r in range(starts.size - 1):
        out[starts[r] : starts[r + 1]] = greedy_pmf(scores[starts[r] : starts[r + 1]], floor)
    return out


@compiled(f8s, i8s, f8, returns=types.float64[::1])
def mixed_each(pmfs: Float64, starts: Int64, floor: float) -> Float64:
    """Return what ``mixed`` does of each decision's PMF, float64[N].

    Args:
        pmfs: float64[N].
        starts: int64[R + 1].
        floor: the total mass of the uniform one, in [0, 1].
    """
    out = np.empty(pmfs.size)
    for r in range(starts.size - 1):
        out[starts[r] : starts[r + 1]] = mixed(pmfs[starts[r] : starts[r + 1]], floor)
    return out


@compiled(f8s, i8s, f8s, returns=types.int64[::1])
def draw_each(pmfs: Float64, starts: Int64, uniforms: Float64) -> Int64:
    """Return what ``draw_checked`` does of each decision, int64[R]: -1 where there is no PMF.

    Args:
        pmfs: float64[N].
        starts: int64[R + 1].
        uniforms: float64[R], each in [0, 1).
    """
    drawn = np.empty(uniforms.size, np.int64)
    for r in range(uniforms.size):
        drawn[r] = draw_checked(pmfs[starts[r] : starts[r + 1]], uniforms[r])
    return drawn


@compiled(i8s, i8s, returns=types.int64[::1])
def occurrences(rows: Int64, starts: Int64) -> Int64:
    """Return of each decision whether its rows are TWICE the same, each ONCE, or some UNKNOWN.

    Args:
        rows: int64[N], of a table; -1 is unknown.
        starts: int64[R + 1].
    """
    most = 1
    for r in range(starts.size - 1):
        most = max(most, starts[r + 1] - starts[r])
    size = 1
    while size < 2 * most:
        size *= 2

    # A table of those that the decision has had so far: an entry of another decision is a free one.
    found, of = np.empty(size, np.int64), np.full(size, -1, np.int64)
    out = np.full(starts.size - 1, ONCE, np.int64)
    for r in range(starts.size - 1):
        for k in range(starts[r], starts[r + 1]):
            if rows[k] < 0:
                out[r] = UNKNOWN
                break
            at = np.int64((np.uint64(rows[k]) * _SPREAD) >> _HIGH) & (size - 1)
            while of[at] == r and found[at] != rows[k]:
                at = (at + 1) & (size - 1)
            if of[at] == r:
                out[r] = TWICE
                break
            found[at], of[at] = rows[k], r
    return out
