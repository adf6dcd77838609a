"""Compiled: the bytes of many users' parts, as ``policies.profiles.part`` joins and encodes them.

Texts are numbered: ``words[starts[k] : starts[k + 1]]`` is number k in UTF-8, whose order is that
of the texts. Types come first.
"""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from bandits.kernels.compiled import Int64, compiled, i8, i8s, inlined, read_only
from bandits.kernels.packed import put_array, put_size, put_text, put_whole

TIME, ENTRY, SEQ, ITEM, TYPE = range(5)
"""Rows of what was done."""
SHOWN_ENTRY, SHOWN_SEQ, SHOWN_ITEM = range(3)
"""Rows of what was shown."""
USER_BYTES, DONE_BYTES, SHOWN_BYTES = 96, 60, 40
"""More than is written of a user, an event and a showing beside their texts."""
_FIELDS = 11
_ODD = 0x9E3779B1


@inlined
def _is_before(words: Any, starts: Any, one: Any, other: Any) -> Any:
    """Return whether a text comes before another one."""
    first, at = starts[one], starts[other]
    size, most = starts[one + 1] - first, starts[other + 1] - at
    for k in range(min(size, most)):
        if words[first + k] != words[at + k]:
            return words[first + k] < words[at + k]
    return size < most


@inlined
def _settle_ties(words: Any, starts: Any, rows: Any, keys: Any, first: Any, last: Any) -> Any:
    """Put rows that are alike in their ``keys`` first lines in the order of their texts."""
    lines = rows.shape[0]
    for end in range(first + 1, last):
        at = end
        while at > first:
            alike = True
            for k in range(keys):
                alike &= rows[k, at - 1] == rows[k, at]
            if not alike:
                break

            is_before = False
            for k in range(keys, lines):
                if rows[k, at - 1] != rows[k, at]:
                    is_before = _is_before(words, starts, rows[k, at - 1], rows[k, at])
                    break
            if not is_before:
                break
            for k in range(keys, lines):
                rows[k, at - 1], rows[k, at] = rows[k, at], rows[k, at - 1]
            at -= 1


@inlined
def _common_size(words: Any, starts: Any, named: Any, count: Any) -> Any:
    """Return how many bytes all of some texts begin with, in whole characters."""
    if count == 0:
        return np.int64(0)
    begin = starts[named[0]]
    size = starts[named[0] + 1] - begin
    for k in range(1, count):
        at, other = starts[named[k]], np.int64(0)
        most = min(size, starts[named[k] + 1] - at)
        while other < most and words[begin + other] == words[at + other]:
            other += 1
        size = other

    within = True
    while size > 0 and within:
        within = False
        for k in range(count):
            at = starts[named[k]] + size
            if at < starts[named[k] + 1] and words[at] & 0xC0 == 0x80:
                within = True
        if within:
            size -= 1
    return size


@inlined
def _put_numbers(out: Any, at: Any, values: Any, count: Any) -> Any:
    """Write whole numbers, and none if all are 0."""
    some = False
    for k in range(count):
        some |= values[k] != 0
    if not some:
        return put_array(out, at, 0)
    at = put_array(out, at, count)
    for k in range(count):
        at = put_whole(out, at, values[k])
    return at


@inlined
def _put_steps(out: Any, at: Any, line: Any, rows: Any, count: Any) -> Any:
    """Write the first of some numbers, and then how much less each is than the one before."""
    at = put_array(out, at, count)
    for k in range(count):
        value = line[rows[k]]
        at = put_whole(out, at, value if k == 0 else line[rows[k - 1]] - value)
    return at


u1s = read_only(types.uint8)
i8ss = types.int64[:, ::1]


@compiled(
    *(types.uint8[::1], u1s, i8s, i8ss, i8s, i8ss, i8s, i8, i8s, i8),
    returns=types.int64[::1],
)
def put_parts(  # noqa: C901, PLR0912, PLR0915 - one column after the other
    out: NDArray[np.uint8],
    words: NDArray[np.uint8],
    starts: Int64,
    done: Int64,
    done_bounds: Int64,
    seen: Int64,
    seen_bounds: Int64,
    most: int,
    kept: Int64,
    most_seen: int,
) -> Int64:
    """Write the parts of U users. Returns where each ends, int64[U].

    Args:
        out: what is written to; large enough, see USER_BYTES.
        words: all texts, one after the other.
        starts: where each begins, and the last ends.
        done: int64[5, E], see TIME; by user, the newest first but for ties.
        done_bounds: int64[U + 1], where the events of each user begin.
        seen: int64[3, S], see SHOWN_ENTRY; likewise.
        seen_bounds: int64[U + 1].
        most: so many of the newest events are kept, one of each item and type.
        kept: by type, how many of its newest are kept besides.
        most_seen: so many of the newest showings are kept.
    """
    kinds, texts = kept.size, starts.size - 1
    users = done_bounds.size - 1
    longest_done = np.diff(done_bounds).max() if users else 0
    longest_seen = np.diff(seen_bounds).max() if users else 0
    slots = 2
    while slots < 2 * longest_done:
        slots *= 2

    # What is found for a user is told from what is left of others by a stamp.
    keys, stamps = np.empty(slots, np.int64), np.full(slots, -1, np.int64)
    number, numbered = np.empty(texts, np.int64), np.full(texts, -1, np.int64)
    left = np.empty(kinds, np.int64)
    rows, shown = np.empty(longest_done, np.int64), np.empty(longest_seen, np.int64)
    places, shown_places = np.empty(longest_done, np.int64), np.empty(longest_seen, np.int64)
    named, kinds_named = np.empty(longest_done + longest_seen, np.int64), np.empty(kinds, np.int64)
    values = np.empty(max(longest_done, longest_seen), np.int64)
    ends, at = np.empty(users, np.int64), np.int64(0)

    for user in range(users):
        # Of each item and type the newest, and of those the newest ones.
        first, last = done_bounds[user], done_bounds[user + 1]
        _settle_ties(words, starts, done, 3, first, last)
        for kind in range(kinds):
            left[kind] = kept[kind]
        events, count = 0, 0
        for row in range(first, last):
            kind = done[TYPE, row]
            key = done[ITEM, row] * kinds + kind
            slot = ((key * _ODD) >> 7) & (slots - 1)
            while stamps[slot] == user and keys[slot] != key:
                slot = (slot + 1) & (slots - 1)
            if stamps[slot] == user:
                continue
            stamps[slot], keys[slot] = user, key

            if count < most or left[kind] > 0:
                rows[events] = row
                events += 1
            if left[kind] > 0:
                left[kind] -= 1
            count += 1
            if count >= most and left.sum() == 0:
                break

        first, last = seen_bounds[user], seen_bounds[user + 1]
        _settle_ties(words, starts, seen, 2, first, last)
        showings = 0
        for row in range(first, last):
            again = row > first
            for k in range(3):
                again = again and seen[k, row] == seen[k, row - 1]
            if not again:
                shown[showings] = row
                showings += 1
                if showings == most_seen:
                    break

        # Items and types are numbered by their first use.
        items, types_named = 0, 0
        for k in range(events):
            item, kind = done[ITEM, rows[k]], done[TYPE, rows[k]]
            places[k] = number[item] + 1 if numbered[item] == user else 0
            if numbered[item] != user:
                number[item], numbered[item], named[items] = items, user, item
                items += 1
            if numbered[kind] != user:
                number[kind], numbered[kind], kinds_named[types_named] = types_named, user, kind
                types_named += 1
        for k in range(showings):
            item = seen[SHOWN_ITEM, shown[k]]
            shown_places[k] = number[item] + 1 if numbered[item] == user else 0
            if numbered[item] != user:
                number[item], numbered[item], named[items] = items, user, item
                items += 1

        at = put_array(out, at, _FIELDS)
        prefix = _common_size(words, starts, named, items)
        for k in range(-1, items):
            if k == 0:
                at = put_array(out, at, items)
            begin = starts[named[max(k, 0)]] + (prefix if k >= 0 else 0) if items else 0
            end = starts[named[k] + 1] if k >= 0 else begin + prefix
            at = put_size(out, at, end - begin, 0xA0, 31, 0xD9)
            for byte in range(begin, end):
                out[at] = words[byte]
                at += 1
        if items == 0:
            at = put_array(out, at, 0)
        at = put_array(out, at, types_named)
        for k in range(types_named):
            at = put_text(out, at, words, starts, kinds_named[k])

        at = _put_numbers(out, at, places, events)
        for k in range(events):
            values[k] = number[done[TYPE, rows[k]]]
        at = _put_numbers(out, at, values, events)
        at = _put_steps(out, at, done[TIME], rows, events)
        for k in range(events):
            values[k] = done[ENTRY, rows[k]] - done[TIME, rows[k]]
        at = _put_numbers(out, at, values, events)
        for k in range(events):
            values[k] = done[SEQ, rows[k]]
        at = _put_numbers(out, at, values, events)

        at = _put_numbers(out, at, shown_places, showings)
        at = _put_steps(out, at, seen[SHOWN_ENTRY], shown, showings)
        for k in range(showings):
            values[k] = seen[SHOWN_SEQ, shown[k]]
        at = _put_numbers(out, at, values, showings)
        ends[user] = at
    return ends
