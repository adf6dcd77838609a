"""Compiled loops that add learned rows to the sums of a ridge model."""

import math
from typing import Any

import numpy as np
from numba import types

from bandits.kernels.compiled import (
    Bools,
    Float64,
    Int64,
    compiled,
    f8s,
    i8,
    i8s,
    inlined,
    truths,
)

SQUARES_BATCH = 8
"""Rows whose squares are added at a time."""
_LN_2 = 0.6931471805599453
_TERMS = 15


@compiled(i8s, i8, i8, returns=types.float64[::1])
def halved_by_age(times_ms: Int64, now_ms: int, half_life_ms: int) -> Float64:
    """Return 2^((time - now) / half-life) of each time, float64[R], the same on every machine.

    A whole number of half-lives changes the exponent of a weight and no other bit of it.

    Args:
        times_ms: int64[R]; a time after ``now_ms`` has a weight above 1.
        now_ms: where the weight is 1.
        half_life_ms: positive.
    """
    out = np.empty(times_ms.size)
    for r in range(times_ms.size):
        age = times_ms[r] - now_ms
        whole = age // half_life_ms
        part = (age - whole * half_life_ms) / half_life_ms
        if part > 0.5:
            part -= 1.0
            whole += 1

        # The series of e^x, whose further terms are too small to count.
        x, power = part * _LN_2, 1.0
        for term in range(_TERMS, 0, -1):
            power = 1.0 + x / term * power
        out[r] = math.ldexp(power, min(max(whole, -2000), 1023))
    return out


@inlined
def _add_squares(a: Any, x: Any, held: Any, size: Any) -> None:
    """Add x x' of each row that ``x`` holds to ``a``, in their order, and zero the rows."""
    for i in range(size):
        # In a full batch an element of ``a`` is read and written once for all rows.
        if held == SQUARES_BATCH:
            for j in range(size):
                sum_ij = a[i, j]
                for r in range(SQUARES_BATCH):
                    sum_ij += x[r, i] * x[r, j]
                a[i, j] = sum_ij
        else:
            for r in range(held):
                for j in range(size):
                    a[i, j] += x[r, i] * x[r, j]
    x[:held] = 0.0


@compiled(
    *(
        types.float64[:, ::1],
        types.float64[::1],
        types.float64[:, ::1],
        types.float64[::1],
        types.float64[::1],
        i8,
    ),
    *(i8s, i8s, f8s, i8s, f8s, truths, f8s),
)
def add_learned_rows(  # noqa: C901, PLR0912 - zeros added or left out
    a: Float64,
    b: Float64,
    cross: Float64,
    count: Float64,
    total: Float64,
    size: int,
    begins: Int64,
    columns: Int64,
    values: Float64,
    action: Int64,
    reward: Float64,
    learn: Bools,
    weight: Float64,
) -> None:
    """Add x x' to ``a``, r x to ``b``, and x, 1 and r to the action's own sums, row by row.

    Each is added with the row's weight. Of a correction, where ``learn`` is false, only r x and r
    are added. Sums grow element by element in the order of the rows, so where a batch ends changes
    no bit of any sum; a weight of 1 changes none either.

    Args:
        a: float64[d, d], the sum of x x' over all rows.
        b: float64[d], the sum of r x.
        cross: float64[N, d], the sum of x of each action.
        count: float64[N], the rows of each action.
        total: float64[N], the sum of r of each action.
        size: how many of the d columns there are.
        begins: where each row starts, as ``columns_of_rows`` returns it, as are the next two.
        columns: the column of each value.
        values: the features.
        action: the number of each row's action.
        reward: the reward of each row, or by how much it is corrected.
        learn: by row, whether it is new.
        weight: by row, what it counts, not negative.
    """
    x, held = np.zeros((SQUARES_BATCH, size)), 0
    occurs, met_in = np.empty(size, np.int64), np.full(size, -1, np.int64)

    for r in range(learn.size):
        # The row, dense, and which columns occur in it; a feature may stand in it twice.
        row, several = x[held], 0
        for at in range(begins[r], begins[r + 1]):
            column = columns[at]
            if met_in[column] != r:
                met_in[column] = r
                occurs[several] = column
                several += 1
            row[column] += values[at]

        weighed = weight[r] * reward[r]
        total[action[r]] += weighed
        for n in range(several):
            b[occurs[n]] += weighed * row[occurs[n]]
        if learn[r]:
            count[action[r]] += weight[r]
            for n in range(several):
                cross[action[r], occurs[n]] += weight[r] * row[occurs[n]]

            # From here on the row is for its squares alone.
            if weight[r] != 1.0:
                root = math.sqrt(weight[r])
                for n in range(several):
                    row[occurs[n]] *= root

        # Adding the zeros, too, is quicker than leaving them out, where there are few.
        if learn[r] and (held or 4 * several > size):
            held += 1
            if held == SQUARES_BATCH:
                _add_squares(a, x, held, size)
                held = 0
            continue

        for n in range(several):
            if learn[r]:
                for m in range(several):
                    a[occurs[n], occurs[m]] += row[occurs[n]] * row[occurs[m]]
        for n in range(several):
            row[occurs[n]] = 0.0

    _add_squares(a, x, held, size)
