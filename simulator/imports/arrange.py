"""Events of some users put in order, and what cleaning finds by looking along it.

An event is a record of 32 bytes. Spilled parts hold all events of their users, in the order in
which they were read.
"""

from typing import Any

import numpy as np
from numba import from_dtype, types

from bandits.kernels.compiled import compiled, f8s, i4s, i8, i8s, inlined, read_only, truths

EVENT = np.dtype(
    [
        ("time", np.int64),
        ("value", np.float64),
        ("user", np.int32),
        ("item", np.int32),
        ("row", np.uint32),
        ("file", np.uint16),
        ("type", np.uint16),
    ]
)
"""``time``: ms since 1970, NO_TIME for none; ``value``: NaN for none; ``row``: that of its file,
counted from 1; the others are numbers in the tables of the import."""

NO_TIME = -(2**62)
KEPT, EXACT_DUPLICATE, REPEATED, BOT = 0, 1, 2, 3
"""Fates of an event; see ``arranged``."""
MINUTE_MS = 60_000

_event = from_dtype(EVENT)
_events = types.Array(_event, 1, "C")
_i4, _u1 = types.int32[::1], types.uint8[::1]
u2s = read_only(types.uint16)
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_SHIFT = np.uint64(33)


@compiled(i4s, i4s, u2s, i8s, f8s, i8s, i8, i8, truths, _events, types.int64[::1])
def pack_by_part(
    user: Any,
    item: Any,
    kind: Any,
    time: Any,
    value: Any,
    rows: Any,
    first_row: int,
    file: int,
    dropped: Any,
    out: Any,
    ends: Any,
) -> None:
    """Make records of columns, those of one part side by side, in their order.

    An event's part is the last bits of its user: a shift and a mask, where parts of any number
    would cost a division for every event, four times.

    Args:
        user: int32[n].
        item: int32[n].
        kind: uint16[n], or one for all.
        time: int64[n], or one for all.
        value: float64[n], or one for all.
        rows: int64[n]; empty where rows follow each other.
        first_row: the first of them.
        file: of all.
        dropped: bool[n], which are left out; empty where none is.
        out: n events.
        ends: int64[parts], a power of two of them: where each part ends in ``out``.
    """
    all_kept, last = dropped.size == 0, ends.size - 1
    ends[:] = 0
    for at in range(user.size):
        if all_kept or not dropped[at]:
            ends[user[at] & last] += 1
    total = 0
    for part in range(ends.size):
        count = ends[part]
        ends[part] = total
        total += count

    by_kind, by_time, by_value = kind.size > 1, time.size > 1, value.size > 1
    for at in range(user.size):
        if all_kept or not dropped[at]:
            part = user[at] & last
            event = out[ends[part]]
            ends[part] += 1
            event.user, event.item = user[at], item[at]
            event.type = kind[at if by_kind else 0]
            event.time = time[at if by_time else 0]
            event.value = value[at if by_value else 0]
            event.row = first_row + at if rows.size == 0 else rows[at]
            event.file = file


@inlined
def _sort_by_time(events: Any, start: int, stop: int) -> None:
    """Sort one user's events by time; those of one time stay in their order."""
    is_sorted = True
    for at in range(start + 1, stop):
        if events[at].time < events[at - 1].time:
            is_sorted = False
            break
    if is_sorted:
        return

    moved = events[start:stop].copy()
    times = np.empty(stop - start, np.int64)
    for at in range(stop - start):
        times[at] = moved[at].time
    by_time = np.argsort(times, kind="mergesort")
    for at in range(stop - start):
        events[start + at] = moved[by_time[at]]


@inlined
def _bits(value: Any) -> Any:
    """Return the same number for the same value, also for NaN."""
    if np.isnan(value):
        return -1
    return np.int64(np.float64(value).view(np.int64)) if value != 0.0 else 0


@inlined
def _slot_of(event: Any, with_value: bool, mask: int) -> Any:
    key = (np.uint64(event.item) << np.uint64(16)) ^ np.uint64(event.type)
    if with_value:
        key ^= np.uint64(_bits(event.value)) * _MIX
    key = (key ^ (key >> _SHIFT)) * _MIX
    return np.int64((key ^ (key >> _SHIFT)) & np.uint64(mask))


@inlined
def _mark_exact(events: Any, fate: Any, start: int, stop: int) -> None:
    """Mark the later ones of events of one time that agree in everything."""
    if stop - start <= 16:
        for at in range(start + 1, stop):
            event = events[at]
            for before in range(start, at):
                other = events[before]
                if (
                    event.item == other.item
                    and event.type == other.type
                    and _bits(event.value) == _bits(other.value)
                ):
                    fate[at] = EXACT_DUPLICATE
                    break
        return

    room = 32
    while room < 2 * (stop - start):
        room *= 2
    slots = np.full(room, -1, np.int64)
    for at in range(start, stop):
        event = events[at]
        slot = _slot_of(event, True, room - 1)
        while slots[slot] >= 0:
            other = events[slots[slot]]
            if (
                event.item == other.item
                and event.type == other.type
                and _bits(event.value) == _bits(other.value)
            ):
                fate[at] = EXACT_DUPLICATE
                break
            slot = (slot + 1) & (room - 1)
        else:
            slots[slot] = at


@inlined
def _mark_repeated(events: Any, fate: Any, start: int, stop: int, window_ms: int) -> None:
    """Mark events of one item and type that come within a window of the last one that stays."""
    room = 32
    while room < 2 * (stop - start):
        room *= 2
    slots = np.full(room, -1, np.int64)
    for at in range(start, stop):
        event = events[at]
        if fate[at] != KEPT or event.time == NO_TIME:
            continue
        slot = _slot_of(event, False, room - 1)
        while slots[slot] >= 0:
            other = events[slots[slot]]
            if event.item == other.item and event.type == other.type:
                break
            slot = (slot + 1) & (room - 1)
        if slots[slot] >= 0 and event.time - events[slots[slot]].time <= window_ms:
            fate[at] = REPEATED
        else:
            slots[slot] = at


@inlined
def _is_bot(events: Any, fate: Any, start: int, stop: int, most: int) -> bool:
    """Return whether more than ``most`` of the events that stay lie within one minute."""
    # Each of them has the place of the one that is ``most`` before it.
    recent = np.empty(most, np.int64)
    seen = 0
    for at in range(start, stop):
        time = events[at].time
        if fate[at] != KEPT or time == NO_TIME:
            continue
        if seen >= most and time - recent[seen % most] < MINUTE_MS:
            return True
        recent[seen % most] = time
        seen += 1
    return False


@compiled(_events, i8, types.int64[::1])
def count_users(events: Any, bits: int, counts: Any) -> None:
    """Count the events of each user.

    Args:
        events: of a part, or some of them.
        bits: the logarithm of the number of parts.
        counts: int64[users of the part], to which they are added.
    """
    for at in range(events.size):
        counts[events[at].user >> bits] += 1


@compiled(_events, i8, types.int64[::1], _events)
def put_by_user(events: Any, bits: int, ends: Any, out: Any) -> None:
    """Put the events of each user side by side, in their order.

    Args:
        events: of a part, or some of them.
        bits: the logarithm of the number of parts.
        ends: int64[users of the part], where each one's next event goes.
        out: all events of the part.
    """
    for at in range(events.size):
        user = events[at].user >> bits
        out[ends[user]] = events[at]
        ends[user] += 1


@compiled(_events, i8s, i8, i8, i8, _u1)
def put_in_order(  # noqa: C901 - the steps of one pass over the users
    events: Any, starts: Any, drop_exact: int, window_ms: int, most_a_minute: int, fate: Any
) -> None:
    """Put the events of each user in the order of their times, and say what becomes of each.

    Args:
        events: of a part, by user; of a user in the order in which they were read.
        starts: int64[users + 1], where each user's begin.
        drop_exact: 1 where events that agree in everything count once.
        window_ms: same user, item and type within it are one event; below 0: they are not.
        most_a_minute: users with more events within a minute lose them all; 0: no such limit.
        fate: uint8[n], filled with KEPT or the reason why not.
    """
    fate[:] = KEPT
    for user in range(starts.size - 1):
        start, stop = starts[user], starts[user + 1]
        if stop - start < 2:
            continue
        _sort_by_time(events, start, stop)

        if drop_exact:
            first = start
            for at in range(start + 1, stop + 1):
                if at == stop or events[at].time != events[first].time:
                    if at - first > 1:
                        _mark_exact(events, fate, first, at)
                    first = at
        if window_ms >= 0:
            _mark_repeated(events, fate, start, stop, window_ms)
        if (
            most_a_minute > 0
            and stop - start > most_a_minute
            and _is_bot(events, fate, start, stop, most_a_minute)
        ):
            for at in range(start, stop):
                if fate[at] == KEPT:
                    fate[at] = BOT


@compiled(
    _events,
    _u1,
    _i4,
    _i4,
    _i4,
    types.int64[::1],
    types.float64[::1],
    types.boolean[::1],
    types.int64[::1],
    returns=types.UniTuple(i8, 5),
)
def kept_columns(
    events: Any,
    fate: Any,
    user: Any,
    item: Any,
    kind: Any,
    time: Any,
    value: Any,
    present: Any,
    by_type: Any,
) -> Any:
    """Write the fields of the events that are kept.

    Args:
        events: of a part, those of a user side by side.
        fate: what becomes of each.
        user: int32[n].
        item: int32[n].
        kind: int32[n].
        time: int64[n].
        value: float64[n].
        present: bool[items], set for those of these events.
        by_type: int64[types], to which the events of each type are added.

    Returns:
        How many users there are, how many events have a time, how many a value, and the first and
        the last time.
    """
    kept, users, timed, valued, first, last = 0, 0, 0, 0, -NO_TIME, NO_TIME
    for at in range(events.size):
        if fate[at] == KEPT:
            event = events[at]
            users += kept == 0 or user[kept - 1] != event.user
            user[kept], item[kept], kind[kept] = event.user, event.item, event.type
            time[kept], value[kept] = event.time, event.value
            present[event.item] = True
            by_type[event.type] += 1
            if event.time != NO_TIME:
                timed += 1
                first, last = min(first, event.time), max(last, event.time)
            if not np.isnan(event.value):
                valued += 1
            kept += 1
    return users, timed, valued, first, last


@compiled(_i4, _i4, _i4, returns=i8)
def recode(codes: Any, place: Any, used: Any) -> int:
    """Number codes anew from 0, in the order of appearance, in place; return how many there are.

    Args:
        codes: what is numbered anew.
        place: -1 for each code there may be; it is left so.
        used: as long as there may be different ones; filled with the code of each new number.
    """
    count = 0
    for at in range(codes.size):
        code = codes[at]
        if place[code] < 0:
            place[code] = count
            used[count] = code
            count += 1
        codes[at] = place[code]
    for at in range(count):
        place[used[at]] = -1
    return count
