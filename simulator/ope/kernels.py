"""Compiled loops over the actions of a log's rows, as flat arrays.

Row i has the actions ``offsets[i]`` to ``offsets[i + 1]``; a map of features has its entries
likewise (see simulator.logs.actions.columns).
"""

from typing import Any

import numpy as np
from numba import types

from bandits.kernels.compiled import (
    Float32,
    Float64,
    Int32,
    Int64,
    UInt32,
    compiled,
    f4s,
    f8s,
    i4s,
    i8,
    i8s,
    inlined,
    read_only,
    u4s,
)
from bandits.kernels.features import FNV_PRIME

f8ss = read_only(types.float64, 2)
PRESENCE = np.uint32(0x9E3779B9)
"""Mixed with the hash of a feature to say only that the feature is there."""
LARGEST, MEAN, DEVIATION, STATE = 0, 1, 2, 3
"""The places of the numbers in the units of a feature; see FeatureScales.units."""
FEW = 64
"""Actions of a row whose ranks are counted one against the other; those of more are sorted."""
FAR = 1e150
"""A product that is not multiplied further; a single factor is far below."""
made = types.float64[::1]


@compiled(*(i8s, f8s, f8s, f8s), returns=types.Tuple((made, made, made, made)))
def weigh_rows(
    offsets: Int64, logging: Float64, target: Float64, predictions: Float64
) -> tuple[Float64, Float64, Float64, Float64]:
    """Sum over the actions of each row what estimators and diagnostics need of them.

    Args:
        offsets: int64[n + 1].
        logging: float64[total], the logging policy's PMFs; empty where they are not known.
        target: float64[total], the target policy's PMFs.
        predictions: float64[total], the reward model's; empty without one.

    Returns:
        float64[n] each: the target policy's mass; its mean prediction; its mass on actions that the
        logging policy never takes; and the sum of target^2 / logging over the others.
    """
    count = offsets.size - 1
    mass, expected = np.empty(count), np.zeros(count)
    never, second = np.zeros(count), np.zeros(count)
    for row in range(count):
        # One pass: a sum waits for its last term, and four of them wait together.
        total, mean, missed, squares = 0.0, 0.0, 0.0, 0.0
        for at in range(offsets[row], offsets[row + 1]):
            share = target[at]
            total += share
            if predictions.size:
                mean += predictions[at] * share
            if logging.size:
                impossible = logging[at] <= 0.0
                missed += share if impossible else 0.0
                squares += 0.0 if impossible else share / logging[at] * share
        mass[row], expected[row] = total, mean
        never[row], second[row] = missed, squares
    return mass, expected, never, second


@compiled(*(f8s, f8s), returns=made)
def sum_logs(excess: Float64, bets: Float64) -> Float64:
    """Return the sum of log(1 + bet * excess) over rows, for each bet.

    Factors are multiplied as far as a float reaches before a logarithm is taken.

    Args:
        excess: float64[n], at least -1.
        bets: float64[b], in (0, 1).
    """
    # Row by row: the products of several bets are made at a time.
    out, products = np.zeros(bets.size), np.ones(bets.size)
    for row in range(excess.size):
        for at in range(bets.size):
            product = products[at] * (1.0 + bets[at] * excess[row])
            if product > FAR or product < 1.0 / FAR:
                out[at] += np.log(product)
                product = 1.0
            products[at] = product
    for at in range(bets.size):
        out[at] += np.log(products[at])
    return out


@compiled(*(i8s, f4s), returns=types.Tuple((made, types.int64)))
def share_best(offsets: Int64, scores: Float32) -> tuple[Float64, int]:
    """Return float64[total], the actions with the highest score of each row, which share evenly.

    Args:
        offsets: int64[n + 1].
        scores: float32[total], NaN where there is none.

    Returns:
        The PMFs, and the first row without any score, or -1.
    """
    out, without = np.empty(scores.size), -1
    for row in range(offsets.size - 1):
        mine = scores[offsets[row] : offsets[row + 1]]
        best, ties = np.float32(-np.inf), 0
        for at in range(mine.size):
            best = mine[at] if mine[at] > best else best  # noqa: FURB136 - max() takes a NaN
        for at in range(mine.size):
            ties += mine[at] == best
        if ties == 0 and without < 0:
            without = row

        share, into = 1.0 / max(ties, 1), out[offsets[row] : offsets[row + 1]]
        for at in range(mine.size):
            into[at] = share if mine[at] == best else 0.0
    return out, without


@compiled(i8s, returns=made)
def share_evenly(offsets: Int64) -> Float64:
    """Return float64[total], the same probability for all actions of a row.

    Args:
        offsets: int64[n + 1].
    """
    out = np.empty(offsets[-1])
    for row in range(offsets.size - 1):
        first, stop = offsets[row], offsets[row + 1]
        out[first:stop] = 1.0 / (stop - first)
    return out


@compiled(f8s, f8s, types.int64[::1])
def count_in_bins(values: Float64, edges: Float64, counts: Int64) -> None:
    """Count the values of each bin, in place.

    Args:
        values: float64[n], none below the first edge.
        edges: float64[b], where bins begin, ascending.
        counts: int64[b].
    """
    for row in range(values.size):
        value, first, left = values[row], 0, edges.size
        while left > 1:
            half = left >> 1
            first = first + half if edges[first + half] <= value else first
            left -= half
        counts[first] += 1


@compiled(i8s, f8ss, types.float64[:, ::1], types.int64[::1])
def sum_by_place(places: Int64, columns: Float64, sums: Float64, counts: Int64) -> None:
    """Add columns up by the place of each row, in the order of the rows, in place.

    Args:
        places: int64[n].
        columns: float64[C, n].
        sums: float64[P, C].
        counts: int64[P], how many rows each has.
    """
    for row in range(places.size):
        place = places[row]
        counts[place] += 1
        for each in range(columns.shape[0]):
            sums[place, each] += columns[each, row]


@compiled(*(i8s, f4s, f8s), returns=made)
def rank_discounts(offsets: Int64, scores: Float32, discounts: Float64) -> Float64:
    """Return float64[total], the discount of each action's rank by its score, NaN without one.

    The rank counts the row's actions with a higher score, so ties share it.

    Args:
        offsets: int64[n + 1].
        scores: float32[total], NaN where there is none.
        discounts: float64[K], by rank; K is the largest number of actions.
    """
    out, widest = np.empty(scores.size), discounts.size
    held, ranks = np.empty(widest, np.float32), np.empty(widest, np.int32)
    for row in range(offsets.size - 1):
        mine, into = scores[offsets[row] : offsets[row + 1]], out[offsets[row] : offsets[row + 1]]
        if mine.size <= FEW:
            ranks[: mine.size] = 0
            for other in range(mine.size):
                score = mine[other]
                for at in range(mine.size):
                    ranks[at] += np.int32(score > mine[at])
        else:
            count = 0
            for at in range(mine.size):
                if not np.isnan(mine[at]):
                    held[count] = mine[at]
                    count += 1
            ordered = np.sort(held[:count])
            for at in range(mine.size):
                if not np.isnan(mine[at]):
                    ranks[at] = count - np.searchsorted(ordered, mine[at], side="right")

        for at in range(mine.size):
            into[at] = np.nan if np.isnan(mine[at]) else discounts[ranks[at]]
    return out


@inlined
def _standard(value: Any, units: Any, term: Any) -> Any:
    """Return what a feature enters with; one that does not vary says only that it is there."""
    deviation = units[term, DEVIATION]
    if deviation > 0.0:
        return (value / units[term, LARGEST] - units[term, MEAN]) / deviation
    return 1.0


@compiled(
    *(i8s, i4s, u4s, f8s),
    *(i8s, i4s, f8s, u4s, f8ss),
    *(i8s, i4s, f8s, u4s, f8ss),
    *(i8s, f8ss),
    returns=made,
)
def action_margins(  # noqa: C901, PLR0912 - one pass over the features of many rows
    offsets: Int64,
    ids: Int32,
    names: UInt32,
    known: Float64,
    shared_offsets: Int64,
    shared_codes: Int32,
    shared_values: Float64,
    shared: UInt32,
    shared_units: Float64,
    own_offsets: Int64,
    own_codes: Int32,
    own_values: Float64,
    own: UInt32,
    own_units: Float64,
    fold: Int64,
    coefficients: Float64,
) -> Float64:
    """Return the sum of coefficients times features of each action, float64[total].

    The features are those of ``hashed_design``, but for the sources' scores.

    Args:
        offsets: int64[n + 1].
        ids: int32[total], the place of each action's id in ``names``.
        names: uint32[U], hashes of ids.
        known: float64[U], what each id enters with, 0 if the model does not know it.
        shared_offsets: int64[n + 1], of the rows' contexts, as are the next four.
        shared_codes: int32[entries].
        shared_values: float64[entries].
        shared: uint32[terms], hashes.
        shared_units: float64[terms, 4], see FeatureScales.units.
        own_offsets: int64[total + 1], of the actions' features, as are the next four; [1] if there
            are none.
        own_codes: int32[entries].
        own_values: float64[entries].
        own: uint32[terms], hashes.
        own_units: float64[terms, 4].
        fold: int64[n], whose coefficients predict each row.
        coefficients: float64[folds, 2^bits + 1], the intercept last.
    """
    size = coefficients.shape[1] - 1
    mask, widest = np.uint32(size - 1), 0
    for row in range(fold.size):
        widest = max(widest, shared_offsets[row + 1] - shared_offsets[row])
    hashes, numbers = np.empty(2 * widest, np.uint32), np.empty(2 * widest)

    out = np.empty(ids.size)
    for row in range(fold.size):
        weights = coefficients[fold[row]]

        # The context speaks for all actions alike, and below for each by itself.
        same, held = weights[size], 0
        for entry in range(shared_offsets[row], shared_offsets[row + 1]):
            term = shared_codes[entry]
            state = shared_units[term, STATE]
            if state > 0.0:
                hashes[held] = shared[term]
                numbers[held] = _standard(shared_values[entry], shared_units, term)
                held += 1
            if state > 1.0:
                hashes[held], numbers[held] = np.uint32(shared[term] ^ PRESENCE), 1.0
                held += 1
        for each in range(held):
            same += weights[hashes[each] & mask] * numbers[each]

        for at in range(offsets[row], offsets[row + 1]):
            total, name = same, ids[at]
            if known[name] != 0.0:
                crossed, inner = np.uint32(names[name] * FNV_PRIME), weights[names[name] & mask]
                for each in range(held):
                    inner += weights[(crossed ^ hashes[each]) & mask] * numbers[each]
                total += inner * known[name]
            if own_offsets.size > 1:
                for entry in range(own_offsets[at], own_offsets[at + 1]):
                    term = own_codes[entry]
                    state = own_units[term, STATE]
                    if state > 0.0:
                        number = _standard(own_values[entry], own_units, term)
                        total += weights[own[term] & mask] * number
                    if state > 1.0:
                        total += weights[np.uint32(own[term] ^ PRESENCE) & mask]
            out[at] = total
    return out


@compiled(*(made, i8s, f8s), *(types.uint32, f8ss, i8), *(i8s, f8ss))
def add_feature(
    out: Float64,
    offsets: Int64,
    values: Float64,
    name: int,
    units: Float64,
    term: int,
    fold: Int64,
    coefficients: Float64,
) -> None:
    """Add one more feature of the actions to their margins, in place.

    Args:
        out: float64[total], see ``action_margins``.
        offsets: int64[n + 1].
        values: float64[total], NaN where it is not there.
        name: its hash.
        units: float64[terms, 4].
        term: its place in ``units``.
        fold: int64[n].
        coefficients: float64[folds, 2^bits + 1].
    """
    state, mask = units[term, STATE], np.uint32(coefficients.shape[1] - 2)
    largest, mean, deviation = units[term, LARGEST], units[term, MEAN], units[term, DEVIATION]
    if state == 0.0:
        return

    for row in range(fold.size):
        weight = coefficients[fold[row], name & mask]
        there = coefficients[fold[row], np.uint32(name ^ PRESENCE) & mask] if state > 1.0 else 0.0
        mine, into = values[offsets[row] : offsets[row + 1]], out[offsets[row] : offsets[row + 1]]
        if deviation > 0.0:
            weight /= deviation
            for at in range(mine.size):
                added = (mine[at] / largest - mean) * weight + there
                into[at] += 0.0 if np.isnan(mine[at]) else added
        else:
            for at in range(mine.size):
                into[at] += 0.0 if np.isnan(mine[at]) else weight + there


@compiled(*(i8s, i4s, f8s, f8ss), returns=types.float64[:, ::1])
def sparse_times(starts: Int64, columns: Int32, values: Float64, matrix: Float64) -> Float64:
    """Return the product of a sparse matrix with a matrix, float64[n, F].

    Args:
        starts: int64[n + 1]; row i has the values ``starts[i]`` to ``starts[i + 1]``.
        columns: int32[e], the column of each value.
        values: float64[e].
        matrix: float64[d, F].
    """
    out = np.zeros((starts.size - 1, matrix.shape[1]))
    for row in range(len(out)):
        for at in range(starts[row], starts[row + 1]):
            for each in range(matrix.shape[1]):
                out[row, each] += values[at] * matrix[columns[at], each]
    return out


@compiled(*(i8s, i4s, f8s, f8ss, i8), returns=types.float64[:, ::1])
def sparse_transposed_times(
    starts: Int64, columns: Int32, values: Float64, matrix: Float64, size: int
) -> Float64:
    """Return the product of a sparse matrix's transpose with a matrix, float64[d, F].

    Args:
        starts: int64[n + 1]; row i has the values ``starts[i]`` to ``starts[i + 1]``.
        columns: int32[e], the column of each value.
        values: float64[e].
        matrix: float64[n, F].
        size: d, how many columns there are.
    """
    out = np.zeros((size, matrix.shape[1]))
    for row in range(len(matrix)):
        for at in range(starts[row], starts[row + 1]):
            for each in range(matrix.shape[1]):
                out[columns[at], each] += values[at] * matrix[row, each]
    return out
