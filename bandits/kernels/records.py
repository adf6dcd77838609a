"""Compiled loops over the bytes of records: which are surely valid, and the features in them.

A record is a version byte and msgpack. A reader here knows the usual forms alone: of anything else
it says that it does not know, and ``bandits.log.codec`` decides.
"""

from typing import Any

import numpy as np
from numba import types

from bandits.kernels.actions import SLACK
from bandits.kernels.compiled import (
    Int64,
    compiled,
    i8,
    i8s,
    inlined,
    read_only,
)
from bandits.values import MAX_EVENT_ID_BYTES, MAX_FEATURE, MAX_NUMBER, MAX_SIGNAL_BYTES

u1s = read_only(types.uint8)

OTHER, DECISION, REWARD = 0, 1, 2
"""The answers of ``scan_records`` about a record."""
LONGEST = 1 << 20
"""A record of more bytes is left to the codec."""
DEFERRED, HOLDOUT, NAMED_BEFORE = 1, 2, 4
"""The flags of a decision; the last: its spec and catalogue are those of the one before it."""

_TEXT, _BYTES, _ARRAY, _MAP = 1, 2, 3, 4
_NIL, _FALSE, _TRUE, _DOUBLE = 0xC0, 0xC2, 0xC3, 0xCB
_DECISION = np.frombuffer(b"decision", np.uint8)
_REWARD = np.frombuffer(b"reward", np.uint8)
_DECISION_LEAST, _DECISION_MOST = 12, 21
_REWARD_LEAST, _REWARD_MOST = 3, 7
_CROWD = 8
"""So many names are compared each with each; more are looked up."""


@inlined
def _big(data: Any, at: Any, size: Any) -> Any:
    """Return the whole number in some bytes, the highest first."""
    number = np.int64(0)
    for i in range(size):
        number = (number << 8) | np.int64(data[at + i])
    return number


@inlined
def _head(data: Any, at: Any, end: Any) -> Any:  # noqa: C901 - all forms
    """Return what stands at a place, its size, and where its content begins; kind 0: unknown."""
    if at >= end:
        return 0, np.int64(0), at
    first: Any = np.int64(data[at])
    kind, wide = 0, 0
    size: Any = np.int64(0)

    if 0xA0 <= first < 0xC0:
        kind, size = _TEXT, first & 31
    elif 0x80 <= first < 0x90:
        kind, size = _MAP, first & 15
    elif 0x90 <= first < 0xA0:
        kind, size = _ARRAY, first & 15
    elif 0xD9 <= first <= 0xDB:
        kind, wide = _TEXT, 1 << (first - 0xD9)
    elif 0xC4 <= first <= 0xC6:
        kind, wide = _BYTES, 1 << (first - 0xC4)
    elif 0xDC <= first <= 0xDD:
        kind, wide = _ARRAY, 2 << (first - 0xDC)
    elif 0xDE <= first <= 0xDF:
        kind, wide = _MAP, 2 << (first - 0xDE)

    at += 1
    if wide:
        if at + wide > end:
            return 0, np.int64(0), at
        size = _big(data, at, wide)
        at += wide
    if kind <= _BYTES and at + size > end:
        return 0, np.int64(0), at
    return kind, size, at


@inlined
def _is_utf8(data: Any, at: Any, end: Any) -> Any:
    while at < end:
        first = data[at]
        at += 1
        if first < 0x80:
            continue

        # How many bytes follow, and what the first of them may be: nothing overlong, no surrogate.
        low, high = 0x80, 0xBF
        if 0xC2 <= first <= 0xDF:
            more = 1
        elif 0xE0 <= first <= 0xEF:
            more = 2
            low = 0xA0 if first == 0xE0 else 0x80
            high = 0x9F if first == 0xED else 0xBF
        elif 0xF0 <= first <= 0xF4:
            more = 3
            low = 0x90 if first == 0xF0 else 0x80
            high = 0x8F if first == 0xF4 else 0xBF
        else:
            return False
        if at + more > end or not low <= data[at] <= high:
            return False
        for i in range(1, more):
            if not 0x80 <= data[at + i] <= 0xBF:
                return False
        at += more
    return True


@inlined
def _text(data: Any, at: Any, end: Any) -> Any:
    """Return where a text begins and ends; an end of -1: there is none."""
    kind, size, at = _head(data, at, end)
    if kind != _TEXT or not _is_utf8(data, at, at + size):
        return at, np.int64(-1)
    return at, at + size


@inlined
def _past_text(data: Any, at: Any, end: Any) -> Any:
    return _text(data, at, end)[1]


@inlined
def _past_text_or_nil(data: Any, at: Any, end: Any) -> Any:
    if at < end and data[at] == _NIL:
        return at + 1
    return _text(data, at, end)[1]


@inlined
def _past_truth(data: Any, at: Any, end: Any) -> Any:
    return at + 1 if at < end and (data[at] == _FALSE or data[at] == _TRUE) else np.int64(-1)


@inlined
def _whole(data: Any, at: Any, end: Any) -> Any:
    """Return a whole number from 0 on, and where it ends; -1: there is none."""
    if at >= end:
        return np.int64(0), np.int64(-1)
    first = np.int64(data[at])
    if first < 0x80:
        return first, at + 1
    wide = 1 << (first - 0xCC) if 0xCC <= first <= 0xCE else 0
    if wide == 0 or at + 1 + wide > end:
        return np.int64(0), np.int64(-1)
    return _big(data, at + 1, wide), at + 1 + wide


@inlined
def _double(data: Any, at: Any, cell: Any) -> Any:
    """Return the float64 in 8 bytes, the highest first. ``cell``: see ``scan_records``."""
    bits = np.uint64(0)
    for i in range(8):
        bits = (bits << np.uint64(8)) | np.uint64(data[at + i])
    cell[0][0] = bits
    return cell[1][0]


@inlined
def _little_double(data: Any, at: Any, cell: Any) -> Any:
    """Return the float64 in 8 bytes, the lowest first."""
    bits = np.uint64(0)
    for i in range(8):
        bits |= np.uint64(data[at + i]) << np.uint64(8 * i)
    cell[0][0] = bits
    return cell[1][0]


@inlined
def _little_single(data: Any, at: Any, cell: Any) -> Any:
    """Return the float32 in 4 bytes, the lowest first."""
    bits = np.uint64(0)
    for i in range(4):
        bits |= np.uint64(data[at + i]) << np.uint64(8 * i)
    cell[0][0] = bits
    return cell[2][0]


@inlined
def _order(data: Any, first: Any, first_end: Any, other: Any, other_end: Any) -> Any:
    """Return a number below 0, 0 or above as one text comes before, is, or comes after another."""
    for i in range(min(first_end - first, other_end - other)):
        if data[first + i] != data[other + i]:
            return np.int64(data[first + i]) - np.int64(data[other + i])
    return (first_end - first) - (other_end - other)


@inlined
def _are_distinct(data: Any, spans: Any, count: Any, table: Any) -> Any:
    """Return whether no two of the first texts of ``spans`` [n, 2] are the same."""
    if count <= _CROWD:
        for i in range(count):
            for j in range(i):
                if _order(data, spans[i, 0], spans[i, 1], spans[j, 0], spans[j, 1]) == 0:
                    return False
        return True

    size = 2 * _CROWD
    while size < 2 * count:
        size *= 2
    table[:size] = -1
    for i in range(count):
        hashed = np.uint32(2166136261)
        for at in range(spans[i, 0], spans[i, 1]):
            hashed = np.uint32((hashed ^ data[at]) * np.uint32(16777619))
        place = np.int64(hashed ^ (hashed >> np.uint32(15))) & (size - 1)
        while table[place] >= 0:
            j = table[place]
            if _order(data, spans[i, 0], spans[i, 1], spans[j, 0], spans[j, 1]) == 0:
                return False
            place = (place + 1) & (size - 1)
        table[place] = i
    return True


@inlined
def _past_features(  # noqa: C901 - all kinds of values
    data: Any, at: Any, end: Any, spans: Any, table: Any, cell: Any
) -> Any:
    """Return where a map of features ends; -1: it is none, or not surely valid."""
    kind, count, at = _head(data, at, end)
    if kind != _MAP:
        return np.int64(-1)

    for i in range(count):
        name, at = _text(data, at, end)
        if at < 0 or at >= end:
            return np.int64(-1)
        spans[i, 0], spans[i, 1] = name, at

        if data[at] == _DOUBLE:
            if at + 9 > end or not abs(_double(data, at + 1, cell)) <= MAX_FEATURE:
                return np.int64(-1)
            at += 9
            continue
        if data[at] == _FALSE or data[at] == _TRUE:
            at += 1
            continue
        kind, size, inside = _head(data, at, end)
        if kind != _ARRAY:
            at = _past_text(data, at, end)
        else:
            at = inside
            for _ in range(size):
                at = _past_text(data, at, end)
                if at < 0:
                    break
        if at < 0:
            return np.int64(-1)

    # Of a name that occurs twice the last counts.
    return at if _are_distinct(data, spans, count, table) else np.int64(-1)


@inlined
def _past_map_of_texts_or_nil(data: Any, at: Any, end: Any) -> Any:
    if at < end and data[at] == _NIL:
        return at + 1
    kind, count, at = _head(data, at, end)
    if kind != _MAP:
        return np.int64(-1)
    for _ in range(2 * count):
        at = _past_text(data, at, end)
        if at < 0:
            return at
    return at


@inlined
def _past_names(data: Any, at: Any, end: Any, out: Any) -> Any:
    """Return where event, policy, spec, snapshot and catalogue end; -1: they do not."""
    for field in range(5):
        begins, at = _text(data, at, end)
        if at < 0:
            return at
        # Its event, its spec and its catalogue are noted.
        if (field & 1) == 0:
            out[field], out[field + 1] = begins, at
    return at if 0 < out[1] - out[0] <= MAX_EVENT_ID_BYTES else np.int64(-1)


@inlined
def _past_actions(data: Any, at: Any, end: Any, spans: Any, table: Any, cell: Any) -> Any:
    """Return how many actions there are, and where their ids and features end; -1: they do not."""
    kind, count, at = _head(data, at, end)
    if kind != _ARRAY or count == 0:
        return np.int64(0), np.int64(-1)
    for k in range(count):
        spans[k, 0], at = _text(data, at, end)
        if at < 0:
            return count, at
        spans[k, 1] = at
    if not _are_distinct(data, spans, count, table):
        return count, np.int64(-1)

    if at < end and data[at] == _NIL:
        return count, at + 1
    kind, size, at = _head(data, at, end)
    if kind != _ARRAY or size != count:
        return count, np.int64(-1)
    for _ in range(count):
        if at < end and data[at] == _NIL:
            at += 1
            continue
        at = _past_features(data, at, end, spans, table, cell)
        if at < 0:
            break
    return count, at


@inlined
def _past_scores(
    data: Any, at: Any, end: Any, actions: Any, spans: Any, table: Any, cell: Any
) -> Any:
    """Return where a map of sources to their scores ends; -1: it does not."""
    kind, count, at = _head(data, at, end)
    if kind != _MAP:
        return np.int64(-1)
    for i in range(count):
        spans[i, 0], at = _text(data, at, end)
        if at < 0:
            return at
        spans[i, 1] = at

        kind, size, at = _head(data, at, end)
        if kind != _BYTES or size != 4 * actions:
            return np.int64(-1)
        for k in range(actions):
            if np.isinf(_little_single(data, at + 4 * k, cell)):
                return np.int64(-1)
        at += size
    return at if _are_distinct(data, spans, count, table) else np.int64(-1)


@inlined
def _past_choice(
    data: Any, at: Any, end: Any, actions: Any, table: Any, cell: Any, out: Any
) -> Any:
    """Return where the PMFs and what was drawn from them end; -1: they do not."""
    kind, size, pmfs = _head(data, at, end)
    if kind != _BYTES:
        return np.int64(-1)
    kind, slots, at = _head(data, pmfs + size, end)
    if kind != _ARRAY or slots == 0 or slots > actions or size != 8 * slots * actions:
        return np.int64(-1)

    table[:actions] = -1
    for slot in range(slots):
        index, at = _whole(data, at, end)
        if at < 0 or index >= actions or table[index] >= 0:
            return np.int64(-1)
        table[index] = slot

        # As ``total_and_least`` adds them up.
        total, least, begins = 0.0, np.inf, pmfs + 8 * slot * actions
        for k in range(actions):
            p = _little_double(data, begins + 8 * k, cell)
            total += p
            least = min(least, p)
        # Rounding may leave a propensity beyond 1, which not every learner takes.
        chosen = _little_double(data, begins + 8 * index, cell)
        if not abs(total - 1.0) <= SLACK or least < 0.0 or not 0.0 < chosen <= 1.0:
            return np.int64(-1)
    out[6] = slots
    return at


@inlined
def _past_later_fields(data: Any, at: Any, end: Any, count: Any, out: Any) -> Any:
    """Return where the fields end that older builds did not know; -1: they do not."""
    # Its user, whether it is deferred, or held out; no credit; whether unserved; what failed; its
    # artifact, and its profile; no rules.
    for field in range(count):
        begins = at
        if field in (0, 6, 7):
            at = _past_text_or_nil(data, at, end)
        elif field in (3, 8):
            at = at + 1 if at < end and data[at] == _NIL else np.int64(-1)
        elif field == 5:
            at = _past_map_of_texts_or_nil(data, at, end)
        else:
            at = _past_truth(data, at, end)
            if at >= 0 and field < 3 and data[begins] == _TRUE:
                out[7] |= DEFERRED if field == 1 else HOLDOUT
        if at < 0:
            break
    return at


@inlined
def _is_decision(
    data: Any, at: Any, end: Any, count: Any, spans: Any, table: Any, cell: Any, out: Any
) -> Any:
    """Return whether the fields from ``at`` on are surely those of a valid decision.

    ``out`` gets what ``scan_records`` says of it.
    """
    actions = np.int64(0)
    at = _past_names(data, at, end, out)
    if at >= 0:
        at = _past_features(data, at, end, spans, table, cell)
    if at >= 0:
        actions, at = _past_actions(data, at, end, spans, table, cell)
    if at >= 0:
        at = _past_scores(data, at, end, actions, spans, table, cell)
    if at >= 0:
        at = _past_choice(data, at, end, actions, table, cell, out)
    if at >= 0:
        at = _past_later_fields(data, at, end, count - _DECISION_LEAST, out)
    return at == end


@inlined
def _is_reward(data: Any, at: Any, end: Any, count: Any, cell: Any) -> Any:
    """Return whether the fields from ``at`` on are surely those of a valid reward."""
    begins, at = _text(data, at, end)
    if at < 0 or not 0 < at - begins <= MAX_EVENT_ID_BYTES:
        return False

    if at + 9 > end or data[at] != _DOUBLE:
        return False
    if not abs(_double(data, at + 1, cell)) <= MAX_NUMBER:
        return False
    at += 9

    # Its name, its slot, its action, its signal.
    for field in range(count - _REWARD_LEAST):
        if field == 1 and at < end and data[at] != _NIL:
            _, at = _whole(data, at, end)
        elif field == 3 and at < end and data[at] != _NIL:
            begins, at = _text(data, at, end)
            if not 0 < at - begins <= MAX_SIGNAL_BYTES:
                return False
        else:
            at = _past_text_or_nil(data, at, end)
        if at < 0:
            return False
    return at == end


@inlined
def _says(data: Any, at: Any, end: Any, word: Any) -> Any:
    if end - at != word.size:
        return False
    same = True
    for i in range(word.size):
        same &= data[at + i] == word[i]
    return same


@inlined
def _are_named_alike(data: Any, said: Any, before: Any) -> Any:
    """Return whether two decisions name one spec and one catalogue; see ``scan_records``."""
    same = True
    for first in (2, 4):
        at, earlier = said[first], before[first]
        size = said[first + 1] - at
        if before[first + 1] - earlier != size:
            return False
        for i in range(size):
            same &= data[at + i] == data[earlier + i]
    return same


@compiled(u1s, i8s, i8, returns=types.Tuple((types.int8[::1], types.int64[:, ::1])))
def scan_records(  # noqa: C901 - one loop over the kinds of records
    data: Any, starts: Int64, version: int
) -> tuple[Any, Int64]:
    """Return which records are surely valid decisions and rewards, and what decisions say.

    Args:
        data: uint8[N], the records, one after the other.
        starts: int64[R + 1], where each begins, and the end of the last.
        version: the version byte that records begin with.

    Returns:
        For each record OTHER, DECISION or REWARD; and int64[R, 8], of a decision where in ``data``
        its event, its spec and its catalogue begin and end, how many slots it has, and its flags.
    """
    count, longest = starts.size - 1, 0
    for r in range(count):
        if starts[r + 1] - starts[r] <= LONGEST:
            longest = max(longest, starts[r + 1] - starts[r])
    # No list in a record has more items than the record has bytes.
    spans, table = np.empty((longest + 1, 2), np.int64), np.empty(4 * longest + 32, np.int32)
    # The same bits as a whole number, as a float64 and as two of float32.
    bits = np.zeros(1, np.uint64)
    cell = (bits, bits.view(np.float64), bits.view(np.float32))

    kinds, out = np.zeros(count, np.int8), np.zeros((count, 8), np.int64)
    before = -1
    for r in range(count):
        at, end = starts[r], starts[r + 1]
        if end - at > LONGEST or at >= end or data[at] != version:
            continue
        kind, fields, at = _head(data, at + 1, end)
        if kind != _ARRAY:
            continue
        begins, at = _text(data, at, end)
        if at < 0:
            continue

        if _says(data, begins, at, _DECISION):
            if _DECISION_LEAST <= fields <= _DECISION_MOST and _is_decision(
                data, at, end, fields, spans, table, cell, out[r]
            ):
                kinds[r] = DECISION
                if before >= 0 and _are_named_alike(data, out[r], out[before]):
                    out[r, 7] |= NAMED_BEFORE
                before = r
        elif (
            _says(data, begins, at, _REWARD)
            and _REWARD_LEAST <= fields <= _REWARD_MOST
            and _is_reward(data, at, end, fields, cell)
        ):
            kinds[r] = REWARD
    return kinds, out
