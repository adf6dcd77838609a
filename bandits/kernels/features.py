"""Compiled loops over features: a decision's scores and matrix, and the columns of rows.

The features of a decision come as ``bandits.features.flat.Flat`` holds them. A pair of features has
the hash that Vowpal Wabbit gives it. A table finds the column of a hash: ``keys`` uint32[S] and
``places`` int32[S], -1 where a place is free; S is a power of two above the number of columns.
"""

from typing import Any

import numpy as np
from numba import types

from bandits.kernels.compiled import (
    Bools,
    Float32,
    Float64,
    Int32,
    Int64,
    UInt32,
    compiled,
    f4s,
    f4ss,
    f8,
    i4s,
    i4ss,
    i8,
    i8s,
    inlined,
    truth,
    truths,
    u4s,
)

_SPREAD = np.uint32(2654435769)  # 2^32 / the golden ratio (Knuth, vol. 3, 6.4)
_HIGH = np.uint32(8)
FNV_PRIME = np.uint32(16777619)
"""Crosses two features: the hash of a pair is (first * FNV_PRIME) ^ second, as in Vowpal Wabbit."""


@inlined
def _pair(first: Any, second: Any) -> Any:
    return np.uint32(np.uint32(first * FNV_PRIME) ^ second)


@compiled(
    *(f4s, f8, u4s, i4ss, f4ss, u4s, f4s, i4s),
    returns=types.float64[::1],
)
def weigh(
    weights: Float32,
    constant: float,
    names: UInt32,
    codes: Int32,
    values: Float32,
    shared: UInt32,
    shared_values: Float32,
    layout: Int32,
) -> Float64:
    """Return - Σ weight · value of each action: its features, the context's, pairs, a constant.

    The weight of a name, its own and those of its pairs with the context's features times their
    values, is summed once, however many actions have a feature of that name.

    Args:
        weights: float32[2^bits]; a hash finds its weight at its last bits.
        constant: the weight of what every example has.
        names: uint32[U], see ``Flat``, as are the next four.
        codes: int32[K or 1, N].
        values: float32[K, N].
        shared: uint32[C].
        shared_values: float32[C].
        layout: the namespace of each name and of each feature of the context; then the pairs of
            namespaces that are crossed, three numbers each: the actions', the context's, and 1 if
            the context's comes first. One array, since each that is handed over costs more than
            reading it.

    Returns:
        float64[K].
    """
    mask = np.uint32(weights.size - 1)
    space, shared_space = layout[: names.size], layout[names.size : names.size + shared.size]
    crossed = layout[names.size + shared.size :]

    by_name = np.empty(names.size)
    for u in range(names.size):
        by_name[u] = weights[names[u] & mask]
    for p in range(0, crossed.size, 3):
        for c in range(shared.size):
            if shared_space[c] == crossed[p + 1]:
                for u in range(names.size):
                    if space[u] == crossed[p]:
                        first = crossed[p + 2] == 0
                        hashed = _pair(names[u], shared[c]) if first else _pair(shared[c], names[u])
                        by_name[u] += weights[hashed & mask] * np.float64(shared_values[c])

    # The context alone counts the same for all actions.
    same = 0.0
    for c in range(shared.size):
        same += weights[shared[c] & mask] * np.float64(shared_values[c])

    scores = np.empty(len(values))
    for k in range(len(values)):
        row = k if len(codes) > 1 else 0
        own = 0.0
        for j in range(values.shape[1]):
            own += by_name[codes[row, j]] * values[k, j]
        scores[k] = -(own + same + constant)
    return scores


@inlined
def _find(keys: Any, places: Any, key: Any) -> Any:
    """Return the place of a key, or the free one where it would be."""
    mask = keys.size - 1
    at = np.int64(np.uint32(key * _SPREAD) >> _HIGH) & mask
    while places[at] >= 0 and keys[at] != key:
        at = (at + 1) & mask
    return at


@inlined
def _column(keys: Any, places: Any, key: Any) -> Any:
    return places[_find(keys, places, key)]


@inlined
def _find_shared(everywhere: Any, codes: Any, values: Any) -> None:
    """Mark each name that every action has a feature of, and all with the same value."""
    # ``count``: the actions so far that have it with the ``first`` value; -1 once one differs.
    count, first = np.zeros(everywhere.size, np.int64), np.zeros(everywhere.size)
    for k in range(len(values)):
        row = k if len(codes) > 1 else 0
        for j in range(values.shape[1]):
            u, value = codes[row, j], np.float64(values[k, j])
            if k == 0 and value != 0.0 and first[u] == 0.0:
                first[u] = value
                count[u] = 1
            elif value != 0.0:
                count[u] = count[u] + 1 if count[u] == k and value == first[u] else -1

    for u in range(everywhere.size):
        everywhere[u] = count[u] == len(values)


@compiled(types.uint32[::1], types.int32[::1], u4s)
def fill_table(keys: UInt32, places: Int32, hashes: UInt32) -> None:
    """Fill an empty table, in place; the hash at index i gets column i.

    Args:
        keys: uint32[S], S a power of two above the number of hashes.
        places: int32[S], all -1.
        hashes: uint32[n], each once.
    """
    for column in range(hashes.size):
        at = _find(keys, places, hashes[column])
        keys[at], places[at] = hashes[column], column


@inlined
def _set_shared(
    base: Any,
    occurs: Any,
    keys: Any,
    places: Any,
    shared: Any,
    shared_values: Any,
    shared_space: Any,
    alone: Any,
    shared_pairs: Any,
) -> None:
    """Put what all actions have in ``base``: the intercept, the context and its pairs."""
    base[0], occurs[0] = 1.0, True

    for c in range(shared.size):
        if alone[shared_space[c]]:
            column = _column(keys, places, shared[c])
            if column >= 0:
                base[column] += shared_values[c]
                occurs[column] = True

    for p in range(len(shared_pairs)):
        for c in range(shared.size):
            for e in range(shared.size):
                if shared_space[c] == shared_pairs[p, 0] and shared_space[e] == shared_pairs[p, 1]:
                    column = _column(keys, places, _pair(shared[c], shared[e]))
                    if column >= 0:
                        base[column] += np.float64(shared_values[c]) * np.float64(shared_values[e])
                        occurs[column] = True


@inlined
def _count_terms(crossed: Any, shared_space: Any) -> Any:
    """Return how many columns a name has: its own, and one per context feature it crosses."""
    terms = 1
    for p in range(len(crossed)):
        for c in range(shared_space.size):
            terms += shared_space[c] == crossed[p, 1]
    return terms


@inlined
def _set_terms(
    columns: Any,
    factor: Any,
    left_out: Any,
    keys: Any,
    places: Any,
    names: Any,
    space: Any,
    shared: Any,
    shared_values: Any,
    shared_space: Any,
    alone: Any,
    crossed: Any,
) -> None:
    """Find the columns of each name, once for all actions that have a feature of that name.

    Term 0 of ``columns`` [U, T] is the name's own column, each further one that of its pair with a
    feature of the context, whose value is the ``factor`` [T]; -1 where there is no column.
    ``left_out`` [U]: the sum of squared factors of those that have none.
    """
    for u in range(names.size):
        if alone[space[u]]:
            columns[u, 0] = _column(keys, places, names[u])
            if columns[u, 0] < 0:
                left_out[u] += 1.0

    # A pair that is crossed has a term for each feature of the context that it names.
    term = 0
    for p in range(len(crossed)):
        for c in range(shared.size):
            if shared_space[c] != crossed[p, 1]:
                continue
            term += 1
            factor[term] = shared_values[c]
            for u in range(names.size):
                if space[u] == crossed[p, 0]:
                    first = crossed[p, 2] == 0
                    hashed = _pair(names[u], shared[c]) if first else _pair(shared[c], names[u])
                    columns[u, term] = _column(keys, places, hashed)
                    if columns[u, term] < 0:
                        left_out[u] += factor[term] * factor[term]


@compiled(
    *(u4s, i4s, i8),
    *(truth, truth, truth),
    *(u4s, i4ss, f4ss, i8s, u4s, f4s),
    *(i4s, i4s, truths, i4ss, i4ss, i4ss),
    returns=types.Tuple((types.int64[::1], types.float64[:, ::1], types.float64[::1])),
)
def design_matrix(  # noqa: C901, PLR0912 - one pass over the features of a decision
    keys: UInt32,
    places: Int32,
    size: int,
    dense: bool,
    relative: bool,
    room: bool,
    names: UInt32,
    codes: Int32,
    values: Float32,
    spans: Int64,
    shared: UInt32,
    shared_values: Float32,
    space: Int32,
    shared_space: Int32,
    alone: Bools,
    crossed: Int32,
    own_pairs: Int32,
    shared_pairs: Int32,
) -> tuple[Int64, Float64, Float64]:
    """Return the features of every action in columns; column 0 is the intercept.

    Args:
        keys: the table of columns.
        places: the same.
        size: how many columns there are.
        dense: all columns are returned, not only those that may occur.
        relative: what all actions have in common is left out, the intercept, the context, and what
            each has with the same value: it tells no action from another, and a large one would
            drown what does.
        room: there may be more columns, so what has none is counted.
        names: uint32[U], see ``Flat``, as are the next two.
        codes: int32[K or 1, N].
        values: float32[K, N].
        spans: int64[S + 1], where each of the actions' S namespaces starts in a row of ``values``.
        shared: uint32[C], the context's features.
        shared_values: float32[C].
        space: int32[U], the number of each name's namespace; the context's come first.
        shared_space: the same of the context's features.
        alone: by namespace, whether its features have columns of their own.
        crossed: int32[P, 3], pairs of namespaces: the actions', the context's, and 1 if the
            context's comes first in the hash.
        own_pairs: the pairs of two of the actions' namespaces.
        shared_pairs: the pairs of two of the context's namespaces.

    Returns:
        The columns, int64[n]; their values, float64[K, n]; and for each action the sum of squares
        of its features that have no column, float64[K], without those of the context.
    """
    spaces = alone.size - (spans.size - 1)  # of the context; the actions' come after them
    everywhere = np.zeros(names.size, np.bool_)
    if relative:
        _find_shared(everywhere, codes, values)

    base, occurs = np.zeros(size), np.zeros(size, np.bool_)
    if not relative:
        _set_shared(
            base, occurs, keys, places, shared, shared_values, shared_space, alone, shared_pairs
        )

    terms = _count_terms(crossed, shared_space)
    factor, columns = np.ones(terms), np.full((names.size, terms), -1, np.int64)
    left_out = np.zeros(names.size)
    _set_terms(
        *(columns, factor, left_out, keys, places, names, space),
        *(shared, shared_values, shared_space, alone, crossed),
    )
    # Which columns an action's own features and their pairs may have.
    for u in range(names.size):
        for t in range(terms):
            if columns[u, t] >= 0 and not everywhere[u]:
                occurs[columns[u, t]] = True
    for p in range(len(own_pairs)):
        one, other = own_pairs[p, 0] - spaces, own_pairs[p, 1] - spaces
        for k in range(len(codes)):
            for i in range(spans[one], spans[one + 1]):
                for j in range(spans[other], spans[other + 1]):
                    column = _column(keys, places, _pair(names[codes[k, i]], names[codes[k, j]]))
                    if column >= 0:
                        occurs[column] = True

    # Where each column that may occur stands in the matrix.
    place, kept = np.empty(size, np.int64), 0
    for column in range(size):
        if dense or occurs[column]:
            place[column] = kept
            kept += 1
    chosen = np.empty(kept, np.int64)
    for column in range(size):
        if dense or occurs[column]:
            chosen[place[column]] = column

    for u in range(names.size):
        for t in range(terms):
            if columns[u, t] >= 0:
                columns[u, t] = place[columns[u, t]]

    x, unmet, first = np.empty((len(values), kept)), np.zeros(len(values)), base[chosen]
    for k in range(len(values)):
        row, into = k if len(codes) > 1 else 0, x[k]
        for n in range(kept):
            into[n] = first[n]

        for j in range(values.shape[1]):
            value, u = np.float64(values[k, j]), codes[row, j]
            if value == 0.0 or everywhere[u]:
                continue
            for t in range(terms):
                if columns[u, t] >= 0:
                    into[columns[u, t]] += value * factor[t]
            unmet[k] += value * value * left_out[u]

        for p in range(len(own_pairs)):
            one, other = own_pairs[p, 0] - spaces, own_pairs[p, 1] - spaces
            for i in range(spans[one], spans[one + 1]):
                for j in range(spans[other], spans[other + 1]):
                    # A pair that all actions have alike tells none from another either.
                    if everywhere[codes[row, i]] and everywhere[codes[row, j]]:
                        continue
                    value = np.float64(values[k, i]) * np.float64(values[k, j])
                    hashed = _pair(names[codes[row, i]], names[codes[row, j]])
                    column = _column(keys, places, hashed)
                    if column >= 0:
                        x[k, place[column]] += value
                    else:
                        unmet[k] += value * value

    if not room:
        unmet[:] = 0.0
    return chosen, x, unmet


@compiled(
    *(types.uint32[::1], types.int32[::1], types.uint32[::1], i8, i8),
    *(i8s, i4s, i8s, u4s, f4s, truths, i4ss, truths),
    returns=types.Tuple(
        (types.int64, types.int64[::1], types.int64[::1], types.float64[::1], types.int64[::1])
    ),
)
def columns_of_rows(  # noqa: C901, PLR0912 - one pass over the features of many rows
    keys: UInt32,
    places: Int32,
    hashes: UInt32,
    size: int,
    limit: int,
    first: Int64,
    space: Int32,
    start: Int64,
    names: UInt32,
    values: Float32,
    alone: Bools,
    pairs: Int32,
    learn: Bools,
) -> tuple[int, Int64, Int64, Float64, Int64]:
    """Return the columns and values of rows; where ``learn``, a feature first met gets a column.

    Args:
        keys: the hash table of columns: the hash in each of its cells. Written to in place.
        places: the column in each cell, negative where the cell is empty. Written to in place.
        hashes: uint32[limit], the hash of each column. Written to in place.
        size: the number of columns so far.
        limit: the most columns there may be.
        first: int64[R + 1]; row r has the segments ``first[r]`` to ``first[r + 1]``. A segment
            holds the features of one namespace.
        space: the number of each segment's namespace.
        start: where each segment's features start in ``names`` and ``values``.
        names: the hash of each feature.
        values: the value of each feature.
        alone: by namespace, whether its features have columns of their own.
        pairs: int32[P, 3], which namespaces are crossed.
        learn: by row, whether what it brings may get columns.

    Returns:
        The number of columns now; where each row starts, int64[R + 1], in the columns and values
        that follow; and for each row how many of its features have no column.
    """
    count = learn.size

    # At most so many: the intercept of each row, its features and their pairs.
    begins, cells = np.zeros(count + 1, np.int64), 0
    for r in range(count):
        cells += 1 + start[first[r + 1]] - start[first[r]]
        for p in range(len(pairs)):
            for s in range(first[r], first[r + 1]):
                for e in range(first[r], first[r + 1]):
                    if space[s] == pairs[p, 0] and space[e] == pairs[p, 1]:
                        cells += (start[s + 1] - start[s]) * (start[e + 1] - start[e])
    columns, filled, at = np.empty(cells, np.int64), np.empty(cells), 0
    without = np.zeros(count, np.int64)

    for r in range(count):
        columns[at], filled[at] = 0, 1.0
        at += 1

        for p in range(-1, len(pairs)):  # the features themselves, then the pairs
            for s in range(first[r], first[r + 1]):
                for e in range(first[r], first[r + 1]):
                    if p < 0 and (s != e or not alone[space[s]]):
                        continue
                    if p >= 0 and (space[s] != pairs[p, 0] or space[e] != pairs[p, 1]):
                        continue

                    for i in range(start[s], start[s + 1]):
                        for j in range(
                            start[e] if p >= 0 else i, start[e + 1] if p >= 0 else i + 1
                        ):
                            value = np.float64(values[i])
                            if p >= 0:
                                value *= np.float64(values[j])
                            if value == 0.0:
                                continue

                            hashed = _pair(names[i], names[j]) if p >= 0 else names[i]
                            place = _find(keys, places, hashed)
                            if places[place] < 0 and learn[r] and size < limit:
                                keys[place], places[place], hashes[size] = hashed, size, hashed
                                size += 1

                            if places[place] >= 0:
                                columns[at], filled[at] = places[place], value
                                at += 1
                            else:
                                without[r] += 1
        begins[r + 1] = at
    return size, begins, columns[:at], filled[:at], without
