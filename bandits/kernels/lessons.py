"""Compiled loops from the bytes of valid decisions to the features of the actions they chose.

They read what ``bandits.kernels.records.scan_records`` has found valid, and what it says of other
bytes is undefined.
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
    f4ss,
    f8s,
    i4ss,
    i8,
    i8s,
    inlined,
    read_only,
    spliced,
    truths,
    u4s,
)
from bandits.kernels.packed import (
    DOUBLE,
    FALSE,
    NIL,
    TRUE,
    index_at,
    past,
    past_decision_head,
    past_map,
    sized,
)
from bandits.kernels.records import DECISION_LEAST

u1s, i8ss = read_only(types.uint8), read_only(types.int64, 2)

CONTEXT, ITEM, FEATURES, SCORES = 0, 1, 2, 3
"""The numbers of the namespaces, in the order in which a policy sees them."""
KINDS_OF_SCORE = (b".score", b".rank", b".present")
"""The ends of the names of a source's three features; the source's name stands before them."""

_EQUALS = 0x3D
_SUFFIXES = np.frombuffer(b"".join(KINDS_OF_SCORE), np.uint8)
_SUFFIX_STARTS = np.cumsum([0, *map(len, KINDS_OF_SCORE)])


@spliced
def _little(data: Any, at: Any, size: Any) -> Any:
    bits = np.uint64(0)
    for i in range(size):
        bits |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return bits


@inlined
def _murmur(text: Any, at: Any, end: Any, seed: Any) -> Any:
    """Return murmur3's 32-bit hash (Appleby), as ``bandits.features.hashing`` has it."""
    hashed = np.uint32(seed)
    blocks = (end - at) >> 2
    for i in range(blocks):
        k = np.uint32(_little(text, at + 4 * i, 4))
        k = np.uint32(k * np.uint32(0xCC9E2D51))
        k = np.uint32((k << np.uint32(15)) | (k >> np.uint32(17)))
        hashed ^= np.uint32(k * np.uint32(0x1B873593))
        hashed = np.uint32((hashed << np.uint32(13)) | (hashed >> np.uint32(19)))
        hashed = np.uint32(hashed * np.uint32(5) + np.uint32(0xE6546B64))

    left = (end - at) & 3
    if left:
        k = np.uint32(_little(text, end - left, left))
        k = np.uint32(k * np.uint32(0xCC9E2D51))
        k = np.uint32((k << np.uint32(15)) | (k >> np.uint32(17)))
        hashed ^= np.uint32(k * np.uint32(0x1B873593))

    hashed ^= np.uint32(end - at)
    hashed ^= hashed >> np.uint32(16)
    hashed = np.uint32(hashed * np.uint32(0x85EBCA6B))
    hashed ^= hashed >> np.uint32(13)
    hashed = np.uint32(hashed * np.uint32(0xC2B2AE35))
    hashed ^= hashed >> np.uint32(16)
    return np.uint32(hashed)


@compiled(u1s, i8s, i8s, returns=types.UniTuple(types.int64[:, ::1], 2))
def find_shown(data: Any, starts: Int64, slots: Int64) -> tuple[Int64, Int64]:
    """Return where decisions say whom they are for, and what they chose.

    Args:
        data: uint8[N], which holds the records of valid decisions.
        starts: int64[R], where each begins.
        slots: int64[R], how many slots each has; S in all.

    Returns:
        int64[R, 2], where the user's pseudonym begins and ends, twice 0 where there is none; and
        int64[S, 2], the same of the ids that were chosen, slot by slot.
    """
    users, chosen = np.zeros((starts.size, 2), np.int64), np.empty((slots.sum(), 2), np.int64)
    seen = 0
    for r in range(starts.size):
        fields, _ = sized(data, starts[r] + 1)
        at, _ = past_map(data, past_decision_head(data, starts[r]))
        actions, ids = sized(data, at)
        at = ids
        for _ in range(actions):
            at = past(data, at)

        if data[at] == NIL:
            at += 1
        else:
            _, at = sized(data, at)
            for _ in range(actions):
                at = at + 1 if data[at] == NIL else past_map(data, at)[0]
        sources, at = sized(data, at)
        for _ in range(2 * sources):
            at = past(data, at)

        drawn, at = sized(data, past(data, at))
        for _ in range(drawn):
            index, at = index_at(data, at)
            name = ids
            for _ in range(index):
                name = past(data, name)
            size, name = sized(data, name)
            chosen[seen, 0], chosen[seen, 1] = name, name + size
            seen += 1
        if fields > DECISION_LEAST and data[at] != NIL:
            size, at = sized(data, at)
            users[r, 0], users[r, 1] = at, at + size
    return users, chosen


@compiled(u1s, i8s, i8s, returns=types.Tuple((types.int64[:, ::1], types.float64[::1])))
def find_chosen(  # noqa: C901 - one pass over the fields
    data: Any, starts: Int64, slots: Int64
) -> tuple[Int64, Float64]:
    """Return where the parts of decisions are that say what was chosen.

    Args:
        data: uint8[N], which holds the records of valid decisions, or what of them teaches (see
            ``policies.archive.taught``).
        starts: int64[L], by lesson, where its decision begins; lessons of one are side by side.
        slots: int64[L], by lesson, the slot that it is of.

    Returns:
        int64[L, 10]: where the chosen action's id begins and ends, its index, how many actions
        there are, how many the slot could be chosen from, where the context, the action's own
        features (0: it has none in the record) and the scores are, and how many features the
        context and the action have; and float64[L], the propensities.
    """
    found, propensities = np.empty((slots.size, 10), np.int64), np.empty(slots.size)
    cell = np.zeros(1, np.uint64)
    number = cell.view(np.float64)

    last, masses = np.int64(-1), np.int64(0)
    context = met = ids = actions = features = scores = pmf = drawn = chosen = np.int64(0)
    for n in range(slots.size):
        if starts[n] != last:
            last = starts[n]
            context = at = past_decision_head(data, last)
            at, met = past_map(data, at)

            actions, ids = sized(data, at)
            at = ids
            for _ in range(actions):
                at = past(data, at)

            features = np.int64(0)
            if data[at] == NIL:
                at += 1
            else:
                _, at = sized(data, at)
                features = at
                for _ in range(actions):
                    at = at + 1 if data[at] == NIL else past_map(data, at)[0]

            scores = at
            sources, at = sized(data, at)
            for _ in range(2 * sources):
                at = past(data, at)
            size, pmf = sized(data, at)
            masses = size >> 3
            drawn, chosen = sized(data, pmf + size)

        # The index of the slot's action.
        at, index = chosen, np.int64(0)
        for _ in range(slots[n] + 1):
            index, at = index_at(data, at)

        at = ids
        for _ in range(index):
            at = past(data, at)
        size, at = sized(data, at)
        found[n, 0], found[n, 1], found[n, 2] = at, at + size, index
        # Each earlier slot took one action.
        found[n, 3], found[n, 4] = actions, actions - slots[n]

        own, several = np.int64(0), np.int64(0)
        if features:
            at = features
            for _ in range(index):
                at = at + 1 if data[at] == NIL else past_map(data, at)[0]
            if data[at] != NIL:
                own, several = at, past_map(data, at)[1]
        found[n, 5], found[n, 6], found[n, 7], found[n, 8], found[n, 9] = (
            context,
            own,
            scores,
            met,
            several,
        )

        # One that holds what teaches, and no more, has the propensities alone.
        place = slots[n] if masses == drawn else slots[n] * actions + index
        cell[0] = _little(data, pmf + 8 * place, 8)
        propensities[n] = number[0]
    return found, propensities


@spliced
def _copy(data: Any, at: Any, size: Any, text: Any, to: Any) -> None:
    for i in range(size):
        text[to + i] = data[at + i]


@inlined
def _add_features(
    data: Any,
    at: Any,
    seed: Any,
    text: Any,
    cell: Any,
    number: Any,
    hashes: Any,
    values: Any,
    filled: Any,
) -> Any:
    """Add the features that a map means, as ``policies.encoding`` has them; return how many."""
    count, at = sized(data, at)
    for _ in range(count):
        size, at = sized(data, at)
        _copy(data, at, size, text, 0)
        at += size

        first = data[at]
        if FALSE <= first <= TRUE or first == DOUBLE:
            hashes[filled] = _murmur(text, 0, size, seed)
            if first == DOUBLE:
                bits = np.uint64(0)
                for i in range(8):
                    bits = (bits << np.uint64(8)) | np.uint64(data[at + 1 + i])
                cell[0] = bits
                values[filled] = np.float32(number[0])
                at += 9
            else:
                values[filled] = np.float32(1.0) if first == TRUE else np.float32(0.0)
                at += 1
            filled += 1
            continue

        # A text, or each text of a list, is an indicator of its own.
        several = np.int64(1)
        if 0x90 <= first < 0xA0 or first >= 0xDC:
            several, at = sized(data, at)
        text[size] = _EQUALS
        for _ in range(several):
            length, at = sized(data, at)
            _copy(data, at, length, text, size + 1)
            at += length
            hashes[filled] = _murmur(text, 0, size + 1 + length, seed)
            values[filled] = np.float32(1.0)
            filled += 1
    return filled


@inlined
def _sources(data: Any, at: Any, spans: Any) -> Any:
    """Put where each source's name begins and ends, and its scores, in the order of the names."""
    count, at = sized(data, at)
    for i in range(count):
        size, name = sized(data, at)
        length, scores = sized(data, name + size)
        at = scores + length

        # UTF-8 sorts as the texts do.
        place = i
        while place > 0:
            before, end = spans[place - 1, 0], spans[place - 1, 1]
            order = np.int64(0)
            for j in range(min(end - before, size)):
                if order == 0:
                    order = np.int64(data[before + j]) - np.int64(data[name + j])
            if order < 0 or (order == 0 and end - before <= size):
                break
            for j in range(3):
                spans[place, j] = spans[place - 1, j]
            place -= 1
        spans[place, 0], spans[place, 1], spans[place, 2] = name, name + size, scores
    return count


@compiled(
    *(u1s, i8ss, truths, u4s, i8s),
    *(u4s, i4ss, f4ss, f8s, i8),
    returns=types.Tuple((types.int64[::1], types.uint32[::1], types.float32[::1])),
)
def features_of_chosen(  # noqa: C901, PLR0912 - one pass over the namespaces
    data: Any,
    found: Int64,
    use: Bools,
    seeds: UInt32,
    rows: Int64,
    names: UInt32,
    codes: Int32,
    table: Float32,
    discounts: Float64,
    longest: int,
) -> tuple[Int64, UInt32, Float32]:
    """Return the features of chosen actions, as ``policies.features.featurise`` makes them.

    Args:
        data: uint8[N], the records.
        found: int64[L, 10], as ``find_chosen`` returns it.
        use: bool[4], which namespaces are used.
        seeds: uint32[4], the hash of each namespace's name.
        rows: int64[L], the row of each chosen action in the catalogue; -1: it is not in there.
        names: uint32[U], the catalogue's distinct hashes.
        codes: int32[N or 1, F], which of them each value is of; one row where all items are alike.
        table: float32[N, F], the catalogue's values.
        discounts: what a rank counts, by how many actions have a higher score.
        longest: the most bytes that a record has.

    Returns:
        What ``ChosenRows`` holds: bounds, hashes and values.
    """
    lessons, cells = rows.size, np.int64(0)
    for n in range(lessons):
        cells += found[n, 8] + found[n, 9] + 1 + table.shape[1]
        cells += 3 * sized(data, found[n, 7])[0]

    bounds = np.zeros(4 * lessons + 1, np.int64)
    hashes, values = np.empty(cells, np.uint32), np.empty(cells, np.float32)
    text, spans = np.empty(longest + 16, np.uint8), np.empty((longest + 1, 3), np.int64)
    cell = np.zeros(1, np.uint64)
    number, single = cell.view(np.float64), cell.view(np.float32)

    filled = np.int64(0)
    for n in range(lessons):
        for kind in range(4):
            if not use[kind]:
                pass
            elif kind == CONTEXT:
                filled = _add_features(
                    data, found[n, 5], seeds[kind], text, cell, number, hashes, values, filled
                )
            elif kind == FEATURES and found[n, 6]:
                filled = _add_features(
                    data, found[n, 6], seeds[kind], text, cell, number, hashes, values, filled
                )
            elif kind == FEATURES and rows[n] >= 0:
                row = rows[n] if len(codes) > 1 else 0
                for j in range(table.shape[1]):
                    hashes[filled], values[filled] = names[codes[row, j]], table[rows[n], j]
                    filled += 1
            elif kind == ITEM:
                hashes[filled] = _murmur(data, found[n, 0], found[n, 1], seeds[kind])
                values[filled] = np.float32(1.0)
                filled += 1
            elif kind == SCORES:
                for i in range(_sources(data, found[n, 7], spans)):
                    name, size = spans[i, 0], spans[i, 1] - spans[i, 0]
                    _copy(data, name, size, text, 0)
                    for k in range(3):
                        begins, ends = _SUFFIX_STARTS[k], _SUFFIX_STARTS[k + 1]
                        _copy(_SUFFIXES, begins, ends - begins, text, size)
                        hashes[filled + k] = _murmur(text, 0, size + ends - begins, seeds[kind])

                    # Its score; its rank, which the higher scores alone decide; that it has one.
                    scores = spans[i, 2]
                    cell[0] = _little(data, scores + 4 * found[n, 2], 4)
                    own, higher = single[0], np.int64(0)
                    present = own == own  # noqa: PLR0124 - NaN
                    if present:
                        for k in range(found[n, 3]):
                            cell[0] = _little(data, scores + 4 * k, 4)
                            higher += single[0] > own
                    values[filled] = own if present else np.float32(0.0)
                    values[filled + 1] = (
                        np.float32(discounts[higher]) if present else np.float32(0.0)
                    )
                    values[filled + 2] = np.float32(1.0) if present else np.float32(0.0)
                    filled += 3

            bounds[4 * n + kind + 1] = filled
    return bounds, hashes[:filled], values[:filled]
