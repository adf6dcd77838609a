"""Compiled loops that join the log's entries as ``bandits.log.join`` does when windows close.

What is remembered of an event depends on the times of its own entries alone, so no queue of
deadlines is kept: an entry looks up how far its event's decision has come.
"""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from bandits.kernels.compiled import (
    Bools,
    Float64,
    Int32,
    Int64,
    compiled,
    f8s,
    i4s,
    i8s,
    inlined,
    read_only,
    spliced,
    truths,
)

DECISION, REWARD, ACTIVATION = 1, 2, 3
"""The kinds of entries that are joined."""
FIRST, LAST, SUM, MAX, MIN, AVERAGE, MEDIAN = range(7)
"""Which of several rewards of a slot counts, or what is made of them.

Of AVERAGE the sum is made, and of MEDIAN nothing: the rest takes all rewards of a cell.
"""
UNKNOWN = -1
"""The signal of a reward that its decision does not weigh; 0 is that of a reward naming none."""
NO_SLOT = -1
"""The slot of a reward that names none."""
UNUSED, WAITING = -1, -2
"""The decision of an entry that changes nothing, and of one that waits for its decision."""
UNCOUNTED, DEFERRED, ACTIVE = 0, 1, 2
"""The states of a decision: its id was taken, it is not activated, it is activated."""

Int8 = NDArray[np.int8]
UInt64 = NDArray[np.uint64]
i1s = read_only(types.int8)
u1s, u8s = read_only(types.uint8), read_only(types.uint64)
i1ss, i8ss = read_only(types.int8, 2), read_only(types.int64, 2)


@inlined
def _place_of(begin: Any, stop: Any, chosen: Any, on_page: Any, slot: Any, action: Any) -> Any:
    """Return the place of the slot that a reward is for; UNUSED if nothing was drawn for it."""
    if action < 0:
        # Placed items stand between what was drawn: it is here, or further to the front.
        number = np.int64(0) if slot == NO_SLOT else slot
        for place in range(min(begin + number, stop - 1), begin - 1, -1):
            if on_page[place] <= number:
                return place if on_page[place] == number else UNUSED
        return UNUSED
    for place in range(begin, stop):
        if chosen[place] == action and (slot == NO_SLOT or slot == on_page[place]):
            return place
    return UNUSED


@compiled(
    *(i1s, i8s, i4s, i8s, i4s, i4s, i1ss, i8ss, truths, f8s, i4s, i4s, i8s, i4s, i8s, i4s, i4s),
    *(types.int32[::1], types.int32[::1], types.int32[::1], types.int32[::1]),
    *(types.float64[:, ::1], types.boolean[:, ::1], types.boolean[:, ::1]),
    *(types.int8[::1], types.int32[::1], types.int64[::1]),
)
def join_entries(  # noqa: C901, PLR0912, PLR0915 - one loop over the kinds of entries
    kind: Int8,
    ms: Int64,
    event: Int32,
    window: Int64,
    era: Int32,
    rule: Int32,
    aggregation: Int8,
    own_window: Int64,
    deferred: Bools,
    value: Float64,
    signal: Int32,
    identity: Int32,
    slot: Int64,
    action: Int32,
    begins: Int64,
    chosen: Int32,
    on_page: Int32,
    newest: Int32,
    waiting: Int32,
    following: Int32,
    seen: Int32,
    values: Float64,
    has_value: Bools,
    has_nameless: Bools,
    state: Int8,
    owner: Int32,
    cell: Int64,
) -> None:
    """Join n entries of E events, in the log's order, by R rules that weigh G signals at most.

    Args:
        kind: int8[n], DECISION, REWARD or ACTIVATION.
        ms: int64[n], when.
        event: int32[n], of which event.
        window: int64[n], milliseconds: a decision's window, or how long another waits.
        era: int32[n], what it is greater for gives up the activations that wait from before.
        rule: int32[n], a decision's, by number.
        aggregation: int8[R, G], of the rewards of a signal; UNKNOWN where a rule weighs no such.
        own_window: int64[R, G], milliseconds: that of a signal.
        deferred: bool[n], whether a decision needs an activation.
        value: float64[n], of a reward.
        signal: int32[n], of a reward, or 0 where it names none.
        identity: int32[n], of a reward, which of the I pairs of event and reward id; -1: no id.
        slot: int64[n], of a reward, of the page, or NO_SLOT.
        action: int32[n], of a reward, or -1.
        begins: int64[n + 1], where a decision's slots begin among all S; the others have none.
        chosen: int32[S], each slot's action.
        on_page: int32[S], which of its page each slot is; they go upwards.
        newest: int32[E], room for an event's newest decision.
        waiting: int32[E], room for the newest of the event's entries that wait.
        following: int32[n], room for the entry after each in a list.
        seen: int32[I], room for the decision that a pair's reward was joined to.
        values: float64[S, G], gets of each slot the aggregate of each signal that came.
        has_value: bool[S, G], all false; gets whether it came.
        has_nameless: bool[S, G], all false; room for whether it has one without an id.
        state: int8[n], gets of a decision UNCOUNTED, DEFERRED or ACTIVE.
        owner: int32[n], gets of the others the decision they belong to, or UNUSED or WAITING.
        cell: int64[n], gets of a reward that counts where its aggregate is in ``values``, flat; of
            others UNUSED.
    """
    newest[:] = -1
    waiting[:] = -1
    seen[:] = -1

    for i in range(len(kind)):
        now, of = ms[i], event[i]
        decision = newest[of]
        remembered = decision >= 0 and now < ms[decision] + 2 * window[decision]
        opens = kind[i] == DECISION
        owner[i] = cell[i] = UNUSED

        # Within a window, and one more, the first decision of an id counts.
        if opens:
            state[i] = UNCOUNTED
            if remembered:
                continue
            state[i] = DEFERRED if deferred[i] else ACTIVE
            decision = newest[of] = i

            # What waited is listed from new to old, and joined in the order in which it came.
            entry, before = waiting[of], -1
            while entry >= 0:
                after = following[entry]
                following[entry] = before
                before, entry = entry, after
            waiting[of] = -1
            entry = before
        elif not remembered:
            owner[i] = WAITING
            following[i] = waiting[of]
            waiting[of] = i
            continue
        elif now >= ms[decision] + window[decision]:
            continue
        else:
            following[i] = -1
            entry = i

        # The entry itself, or all that waited for it and still does.
        begin, stop = begins[decision], begins[decision + 1]
        while entry >= 0:
            each, entry = entry, following[entry]
            owner[each] = UNUSED
            if opens and now >= ms[each] + window[each]:
                continue
            if kind[each] == ACTIVATION:
                if not opens or era[each] == era[i]:
                    state[decision] = ACTIVE
                    owner[each] = decision
                continue

            # A signal may be late while its decision still waits for others.
            of_rule, of_signal = rule[decision], signal[each]
            if of_signal < 0 or aggregation[of_rule, of_signal] == UNKNOWN:
                continue
            if not opens and now >= ms[decision] + own_window[of_rule, of_signal]:
                continue
            place = _place_of(begin, stop, chosen, on_page, slot[each], action[each])
            if place == UNUSED:
                continue

            # A reward without an id of its own is the one reward of its signal in its slot.
            if identity[each] < 0:
                if has_nameless[place, of_signal]:
                    continue
                has_nameless[place, of_signal] = True
            elif seen[identity[each]] == decision:
                continue
            else:
                seen[identity[each]] = decision

            owner[each] = decision
            cell[each] = place * values.shape[1] + of_signal
            way = aggregation[of_rule, of_signal]
            if not has_value[place, of_signal] or way == LAST:
                values[place, of_signal] = value[each]
            elif way in {SUM, AVERAGE}:
                values[place, of_signal] += value[each]
            elif (way == MAX and value[each] > values[place, of_signal]) or (
                way == MIN and value[each] < values[place, of_signal]
            ):
                values[place, of_signal] = value[each]
            has_value[place, of_signal] = True


@inlined
def _same_text(data: Any, offsets: Any, one: Any, other: Any) -> bool:
    first, at = offsets[one], offsets[other]
    size = offsets[one + 1] - first
    if offsets[other + 1] - at != size:
        return False
    for i in range(size):  # noqa: SIM110 - numba compiles no generator
        if data[first + i] != data[at + i]:
            return False
    return True


@compiled(u8s, u1s, i4s, types.int32[::1], types.int32[::1], returns=types.int64)
def number_texts(
    keys: UInt64, data: NDArray[np.uint8], offsets: Int32, table: Int32, numbers: Int32
) -> int:
    """Number n texts from 0 as they first appear; return how many different ones there are.

    Args:
        keys: uint64[n], a hash of each text.
        data: uint8[...], the texts.
        offsets: int32[n + 1], where each begins.
        table: int32[T], all -1; T is a power of two, above n.
        numbers: int32[n], gets the numbers.
    """
    last, count = table.size - 1, 0
    for i in range(numbers.size):
        place = np.int64(keys[i] & np.uint64(last))
        while True:
            known = table[place]
            if known < 0:
                table[place] = i
                numbers[i] = count
                count += 1
                break
            if keys[known] == keys[i] and _same_text(data, offsets, known, i):
                numbers[i] = numbers[known]
                break
            place = (place + 1) & last
    return count


ROW_BITS = 36
"""So many bits of a place of ``enter_rows`` are a row's, plus one; the others are of its hash."""

_ROW_BITS, _HIGHEST = np.uint64(ROW_BITS), np.uint64(64 - ROW_BITS)


@spliced
def _first_place(entry: Any, bits: Any) -> Any:
    """Return where a row looks first, in a table of two to the power of ``bits`` places."""
    if bits <= _HIGHEST:
        return np.int64(entry >> (np.uint64(64) - bits))
    return np.int64((entry >> _ROW_BITS) << (bits - _HIGHEST))


@spliced
def _entry(hashed: Any, row: Any) -> Any:
    return ((hashed >> _ROW_BITS) << _ROW_BITS) | np.uint64(row + 1)


@spliced
def _bits_of(table: Any) -> Any:
    bits = np.uint64(0)
    while (np.int64(1) << bits) < table.size:
        bits += np.uint64(1)
    return bits


@compiled(types.uint64[::1], u8s, types.int64)
def enter_rows(table: UInt64, hashes: UInt64, first: int) -> None:
    """Enter rows of a hash table, each at the first free place from that on that its hash says.

    Args:
        table: uint64[T], in the lowest ROW_BITS a row plus one, above these the highest bits of its
            hash; 0: free. T is a power of two, and more than n places are free.
        hashes: uint64[n], the rows'.
        first: the number of the first row; the others follow it.
    """
    last, bits = table.size - 1, _bits_of(table)
    for i in range(hashes.size):
        entry = _entry(hashes[i], first + i)
        place = _first_place(entry, bits)
        while table[place]:
            place = (place + 1) & last
        table[place] = entry


@compiled(types.uint64[::1], u8s, types.int64)
def remove_rows(table: UInt64, hashes: UInt64, first: int) -> None:
    """Remove rows of a hash table, and move up those behind each that may stand in its place.

    Args:
        table: uint64[T], see ``enter_rows``.
        hashes: uint64[n], those of rows that are there.
        first: the number of the first row; the others follow it.
    """
    last, bits = table.size - 1, _bits_of(table)
    for i in range(hashes.size):
        entry = _entry(hashes[i], first + i)
        free = _first_place(entry, bits)
        while table[free] != entry:
            free = (free + 1) & last

        at = (free + 1) & last
        while table[at]:
            own = _first_place(table[at], bits)
            if (at - own) & last >= (at - free) & last:
                table[free] = table[at]
                free = at
            at = (at + 1) & last
        table[free] = np.uint64(0)
