"""Compiled loops over JSON as clients send it: the ids of actions that have nothing else."""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from bandits.kernels.compiled import Int32, Int64, compiled, i4s, i8, i8s, read_only, spliced
from bandits.kernels.packed import WORD, are_same, word_at, word_before

UInt8 = NDArray[np.uint8]
u1s = read_only(types.uint8)

OTHER = -1
"""The count of a text that says more, or is written in another way."""
_SPACE, _NEWLINE, _RETURN, _TAB = 0x20, 0x0A, 0x0D, 0x09
_QUOTE, _COLON, _COMMA, _OPEN, _CLOSE, _BEGIN, _END = 34, 58, 44, 123, 125, 91, 93
_I, _D = 105, 100
_BASIS, _PRIME = np.uint64(14695981039346656037), np.uint64(11400714819323198485)
_HIGH, _SEVEN, _ONE, _NONE = np.uint64(32), np.uint64(7), np.uint64(1), np.uint64(0)
_ONES, _HIGHEST = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
"""The lowest bit of each byte of a word, and the highest."""
_QUOTES, _ESCAPES, _SPACES = (np.uint64(each * 0x0101010101010101) for each in (34, 92, 32))
_PLACES, _TOP = np.uint64(0x0001020304050607), np.uint64(56)


@spliced
def _skip(data: Any, at: Any, end: Any) -> Any:
    """Return where the next character is that is no white space."""
    while at < end and (
        data[at] == _SPACE or data[at] == _NEWLINE or data[at] == _RETURN or data[at] == _TAB
    ):
        at += 1
    return at


@spliced
def _passed(data: Any, at: Any, end: Any, character: Any) -> Any:
    """Return what is behind a character, and white space before it; OTHER if it is not there."""
    at = _skip(data, at, end)
    return at + 1 if at < end and data[at] == character else OTHER


@spliced
def _zeros(word: Any) -> Any:
    """Return a word that has the highest bit of each byte that is 0, and perhaps of some above one.

    (Lamport 1975; Warren, Hacker's Delight, 6-1)
    """
    return (word - _ONES) & ~word & _HIGHEST


@spliced
def _lowest(word: Any) -> Any:
    """Return the lowest bit that a word has; 0: it has none."""
    return word & (~word + _ONE)


@spliced
def _bytes_below(highest: Any) -> Any:
    """Return how many bytes of a word are below the one that has this highest bit."""
    return np.int64(((highest >> _SEVEN) * _PLACES) >> _TOP)


@spliced
def _mixed(hashed: Any, word: Any) -> Any:
    """Return the hash of a text that goes on with eight more bytes, or those that are left."""
    hashed = (hashed ^ word) * _PRIME
    return hashed ^ (hashed >> _HIGH)


@spliced
def _hash(data: Any, begin: Any, end: Any) -> Any:
    """Return 64 bits of a text: of its words, and what is left of them, which may be nothing."""
    hashed, at = _BASIS, begin
    while at + WORD <= end:
        hashed = _mixed(hashed, word_at(data, at))
        at += WORD
    return _mixed(hashed, word_before(data, at, end))


@spliced
def _place(
    texts: Any, bounds: Any, table: Any, data: Any, begin: Any, end: Any, hashed: Any
) -> Any:
    """Return where the table has a text of this hash, or the free place where it would be."""
    mask = table.size - 1
    at = np.int64((hashed * _PRIME) >> _HIGH) & mask
    while table[at] >= 0:
        first, last = bounds[table[at]], bounds[table[at] + 1]
        if last - first == end - begin and are_same(texts, first, data, begin, end - begin):
            return at
        at = (at + 1) & mask
    return at


@spliced
def _opened(data: Any, at: Any, end: Any) -> Any:
    """Return where the id of an object begins that has nothing else, or OTHER."""
    at = _passed(data, at, end, _OPEN)
    at = _passed(data, at, end, _QUOTE) if at >= 0 else at
    if at < 0 or at + 3 > end or data[at] != _I or data[at + 1] != _D:
        return OTHER
    at = at + 3 if data[at + 2] == _QUOTE else OTHER
    at = _passed(data, at, end, _COLON) if at >= 0 else at
    return _passed(data, at, end, _QUOTE) if at >= 0 else at


@spliced
def _find(
    data: Any,
    begin: Any,
    end: Any,
    texts: Any,
    bounds: Any,
    table: Any,
    found: Any,
    spans: Any,
    filled: Any,
) -> Any:
    """Find the ids of one text, put behind those that are ``filled``; return how many, or OTHER."""
    first, gap_at, gap = filled, begin, begin - begin
    at = _passed(data, begin, end, _BEGIN)
    name = _opened(data, at, end) if at >= 0 else at
    while name >= 0 and filled < found.size:
        at, hashed, quote = name, _BASIS, _NONE
        while quote == _NONE:
            if at >= end:
                return OTHER
            word = word_before(data, at, data.size)
            quote = _lowest(_zeros(word ^ _QUOTES))
            # Up to the quote: an escape, a control character, and what is beyond ASCII.
            before = quote - _ONE
            strange = _zeros(word ^ _ESCAPES) | ((word - _SPACES) & ~word) | word
            if strange & before & _HIGHEST != _NONE:
                return OTHER
            hashed = _mixed(hashed, word & (before >> _SEVEN) if quote != _NONE else word)
            at += WORD if quote == _NONE else _bytes_below(quote)
        if at >= end:
            return OTHER
        spans[filled, 0], spans[filled, 1] = name, at
        found[filled] = table[_place(texts, bounds, table, data, name, at, hashed)]
        filled += 1

        # Whoever writes such a text has the same between any two ids, as a rule.
        if gap > 0 and at + gap <= end and are_same(data, gap_at, data, at, gap):
            name = at + gap
            continue
        gap_at, at = at, _passed(data, at + 1, end, _CLOSE)
        behind = _passed(data, at, end, _COMMA) if at >= 0 else at
        if behind < 0:
            at = _passed(data, at, end, _END) if at >= 0 else at
            return filled - first if at >= 0 and _skip(data, at, end) == end else OTHER
        name = _opened(data, behind, end)
        gap = name - gap_at
    return OTHER


@compiled(
    *(u1s, i8s, u1s, i8s, i4s),
    *(types.int64[::1], types.int64[:, ::1], types.int64[::1], i8),
    returns=types.int64[::1],
)
def find_bare_ids(
    data: UInt8,
    starts: Int64,
    texts: UInt8,
    bounds: Int64,
    table: Int32,
    found: Int64,
    spans: Int64,
    marks: Int64,
    mark: int,
) -> Int64:
    """Find the ids in JSON arrays of objects that have an ``id`` and nothing else.

    Ids with an escape, or beyond ASCII, are written in another way: a decoder has to read them.

    Args:
        data: R texts, one after the other.
        starts: int64[R + 1], where each begins.
        texts: the ids that are known, one after the other.
        bounds: int64[n + 1 or more], where each begins.
        table: int32[S], the number of an id where its hash points, or further on; -1 is free. S is
            a power of two above n.
        found: int64[M], written to: the number of each id that was found, one after the other; -1
            for one that is not known.
        spans: int64[M, 2], written to: where each id begins and ends in ``data``.
        marks: int64[n or more], written to: the last mark of each id that is known.
        mark: the first of R that no other call has had.

    Returns:
        How many ids each text has, int64[R]; OTHER where it is not of that form, or there is no
        room for them, or one that is known is there twice.
    """
    counts, filled = np.zeros(starts.size - 1, np.int64), 0
    for r in range(starts.size - 1):
        count = _find(data, starts[r], starts[r + 1], texts, bounds, table, found, spans, filled)
        for k in range(filled, filled + count):
            number = found[k]
            if number >= 0:
                if marks[number] == mark + r:
                    count = OTHER
                    break
                marks[number] = mark + r
        counts[r] = count
        filled += max(count, 0)
    return counts


@compiled(
    *(u1s, u1s, i8s, i4s),
    *(types.int64[::1], types.int64[:, ::1], types.int64[::1], i8, i8s, types.int64[::1]),
    returns=types.int64,
)
def find_distinct_ids(
    data: UInt8,
    texts: UInt8,
    bounds: Int64,
    table: Int32,
    found: Int64,
    spans: Int64,
    marks: Int64,
    mark: int,
    row_of: Int64,
    rows: Int64,
) -> int:
    """Find the ids in one JSON array, as ``find_bare_ids`` does, each of which has a row.

    Args:
        data: the text.
        texts: see ``find_bare_ids``, which has the next four, too.
        bounds: see there.
        table: see there.
        found: see there.
        spans: see there.
        marks: int64[n or more], written to: the last mark of each id that is known.
        mark: one that no other call has had.
        row_of: int64[n], the row of each id that is known; -1: none.
        rows: int64[M], written to: the row of each id that was found.

    Returns:
        How many ids it has; OTHER where it is not of that form, or has none, or there is no room
        for them, or an id is there twice or empty, or one is not known, or has no row.
    """
    count = _find(data, 0, data.size, texts, bounds, table, found, spans, 0)
    for k in range(count):
        number = found[k]
        if number < 0 or marks[number] == mark or spans[k, 0] == spans[k, 1]:
            return OTHER
        marks[number], rows[k] = mark, row_of[number]
        if rows[k] < 0:
            return OTHER
    return count if count > 0 else OTHER


@compiled(u1s, i8s, types.int32[::1], i8, i8)
def enter_ids(texts: UInt8, bounds: Int64, table: Int32, first: int, count: int) -> None:
    """Enter ids into a table, in place; none of them is there yet.

    Args:
        texts: the ids that are known, one after the other.
        bounds: int64[n + 1 or more], where each begins.
        table: int32[S]; see ``find_bare_ids``.
        first: the number of the first that is entered.
        count: how many are known.
    """
    for number in range(first, count):
        begin, end = bounds[number], bounds[number + 1]
        hashed = _hash(texts, begin, end)
        table[_place(texts, bounds, table, texts, begin, end, hashed)] = number
