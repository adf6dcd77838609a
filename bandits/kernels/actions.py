"""Compiled loops over actions: PMFs, draws, rows."""

from typing import Any

import numpy as np
from numba import types

from bandits.kernels.compiled import (
    Float32,
    Float64,
    Int64,
    compiled,
    f4s,
    f4ss,
    f8,
    f8s,
    i8,
    i8s,
    inlined,
    truth,
)

SLACK = 1e-12
"""How far from 1 the sum of a PMF may be."""


@inlined
def _floored(p: Any, floor: Any, count: Any) -> Any:
    return (1.0 - floor) * p + floor / count


@compiled(f8s, f8, returns=types.float64[::1])
def greedy_pmf(scores: Float64, floor: float) -> Float64:
    """Return ``1 - floor`` on the highest score, shared by ties, and ``floor`` on all.

    NaN in one score makes the whole PMF NaN.

    Args:
        scores: float64[K].
        floor: the mass that all actions share.
    """
    best, ties = scores[0], 0
    for score in scores:
        if score > best or score != score:  # noqa: PLR0124 - NaN
            best, ties = score, 0
        ties += score == best

    pmf = np.empty(scores.size)
    for k in range(scores.size):
        pmf[k] = _floored((1.0 if scores[k] == best else 0.0) / ties, floor, scores.size)
    return pmf


@compiled(f4s, f8, truth, returns=types.boolean)
def all_within(numbers: Float32, most: float, some: bool) -> bool:
    """Return whether no number is further from 0 than ``most``.

    Args:
        numbers: float32[n].
        most: how far one may be.
        some: whether NaN will do.
    """
    within = True
    for number in numbers:
        within &= abs(number) <= most or (some and np.isnan(number))
    return within


@compiled(f8s, f8, returns=types.float64[::1])
def mixed(pmf: Float64, floor: float) -> Float64:
    """Return a PMF mixed with the uniform one, float64[K].

    Args:
        pmf: float64[K], which keeps ``1 - floor`` of its mass.
        floor: the total mass of the uniform one, in [0, 1].
    """
    out = np.empty(pmf.size)
    for k in range(pmf.size):
        out[k] = _floored(pmf[k], floor, pmf.size)
    return out


@compiled(f4ss, returns=types.float64[::1])
def count_votes(draws: Float32) -> Float64:
    """Return in how many columns of float32[K, M] each row is highest; a tie splits its vote."""
    count, several = draws.shape

    # The highest of each column, and what a tie at it leaves to each.
    best, ties = draws[0].copy(), np.zeros(several)
    for k in range(1, count):
        for m in range(several):
            best[m] = max(best[m], draws[k, m])
    for k in range(count):
        for m in range(several):
            ties[m] += draws[k, m] == best[m]
    for m in range(several):
        ties[m] = 1.0 / ties[m]

    won = np.zeros(count)
    for k in range(count):
        for m in range(several):
            if draws[k, m] == best[m]:
                won[k] += ties[m]
    return won


@compiled(types.float32[:, ::1], f4ss, i8s)
def add_known(out: Float32, added: Float32, which: Int64) -> None:
    """Add a row to each row of ``out``, in place.

    Args:
        out: float32[K, M].
        added: float32[N, M], the rows to choose from.
        which: int64[K], the row of ``added`` that is added to row k, below N; -1 adds nothing.
    """
    # What does not change in the inner loop stands outside of it, or it is not vectorised.
    for k in range(which.size):
        row = which[k]
        if row >= 0:
            into, more = out[k], added[row]
            for m in range(into.size):
                into[m] += more[m]


@compiled(types.float32[:, ::1], i8s, f8s, f4ss, i8s)
def add_scaled(out: Float32, rows: Int64, scale: Float64, added: Float32, which: Int64) -> None:
    """Add scaled rows to some rows of ``out``, in place, for n from 0 to R - 1.

    Args:
        out: float32[K, M].
        rows: int64[R], the row of ``out`` that is added to, in [0, K).
        scale: float64[R], the factor of what is added, rounded to float32.
        added: float32[N, M], the rows to choose from.
        which: int64[R], the row of ``added`` that is taken, in [0, N).
    """
    for n in range(rows.size):
        into, factor, more = out[rows[n]], np.float32(scale[n]), added[which[n]]
        for m in range(into.size):
            into[m] += factor * more[m]


@compiled(f8s, returns=types.UniTuple(types.float64, 2))
def total_and_least(pmf: Float64) -> tuple[float, float]:
    """Return the sum of float64[K], and the least of it."""
    total, least = 0.0, np.inf
    for p in pmf:
        total += p
        least = min(least, p)
    return total, least


@compiled(f8s, f8, returns=i8)
def draw(pmf: Float64, u: float) -> int:
    """Return the first index whose cumulative mass exceeds u of all; never one of mass 0.

    Args:
        pmf: float64[K].
        u: uniform in [0, 1).
    """
    total = 0.0
    for p in pmf:
        total += p

    cumulative, last = 0.0, 0
    for k in range(pmf.size):
        cumulative += pmf[k]
        if cumulative > u * total:
            return k
        if pmf[k] > 0.0:
            last = k
    return last  # u times the whole may round up to the whole


@compiled(f8s, f8, returns=i8)
def draw_checked(pmf: Float64, u: float) -> int:
    """Return what ``draw`` does, or -1 if it was not given a PMF.

    Args:
        pmf: float64[K]; all are non-negative and sum to 1 within SLACK, else it is no PMF.
        u: uniform in [0, 1).
    """
    total, least = total_and_least(pmf)
    if abs(total - 1.0) <= SLACK and least >= 0.0:  # also catches NaN
        return draw(pmf, u)
    return -1


@compiled(f4ss, i8s, returns=types.float32[:, ::1])
def take_rows(values: Float32, rows: Int64) -> Float32:
    """Return some rows of a table, float32[K, F].

    Args:
        values: float32[N, F], the table.
        rows: int64[K], each below N; a row of -1 gives zeros.
    """
    out = np.empty((rows.size, values.shape[1]), np.float32)
    for k in range(rows.size):
        for j in range(values.shape[1]):
            out[k, j] = values[rows[k], j] if rows[k] >= 0 else np.float32(0.0)
    return out


@compiled(f4ss, f8s, returns=types.float32[:, ::1])
def columns_of_scores(scores: Float32, discounts: Float64) -> Float32:
    """Return three columns of each source, float32[K, 3 S]: its score, its rank, 1 if it has one.

    All three are 0 for an action that a source has not scored.

    Args:
        scores: float32[S, K], NaN where there is none.
        discounts: float64[K + 1], what a rank counts, by how many actions have a higher score.
    """
    sources, count = scores.shape
    out = np.zeros((count, 3 * sources), np.float32)
    higher = np.empty(count, np.int32)
    for source in range(sources):
        row = scores[source]
        # To compare each with each takes less than to sort and to look up: there is no branch.
        for k in range(count):
            score, above = row[k], np.int32(0)
            for other in range(count):
                above = np.int32(above + np.int32(row[other] > score))
            higher[k] = above

        for k in range(count):
            if not np.isnan(row[k]):
                out[k, 3 * source] = row[k]
                out[k, 3 * source + 1] = discounts[higher[k]]
                out[k, 3 * source + 2] = 1.0
    return out
