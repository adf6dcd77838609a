"""Compiled loops over the bytes of records: which are surely valid, and the features in them.

A record is a version byte and msgpack. A reader here knows the usual forms alone: of anything else
it says that it does not know, and ``bandits.log.codec`` decides.
"""

from typing import Any

import numpy as np
from numba import types

from bandits.kernels.actions import SLACK
from bandits.kernels.apprentices import past_apprentice
from bandits.kernels.compiled import (
    Int64,
    compiled,
    i8,
    i8s,
    inlined,
    read_only,
)
from bandits.kernels.packed import (
    ARRAY,
    BYTES,
    DOUBLE,
    FALSE,
    MAP,
    NIL,
    TRUE,
    double_at,
    head_at,
    little_double_at,
    little_single_at,
    past_text,
    past_text_or_nil,
    past_texts,
    past_truth,
    says,
    text_at,
    whole_at,
)
from bandits.kernels.ruled import past_rules
from bandits.values import MAX_EVENT_ID_BYTES, MAX_FEATURE, MAX_NUMBER, MAX_SIGNAL_BYTES

u1s = read_only(types.uint8)

OTHER, DECISION, REWARD = 0, 1, 2
"""The answers of ``scan_records`` about a record."""
LONGEST = 1 << 20
"""A record of more bytes is left to the codec."""
DEFERRED, HOLDOUT, NAMED_BEFORE, HAS_PLACED = 1, 2, 4, 8
"""The flags of a decision; the third: its spec and catalogue are those of the one before it."""

_DECISION = np.frombuffer(b"decision", np.uint8)
_REWARD = np.frombuffer(b"reward", np.uint8)
DECISION_LEAST, _DECISION_MOST = 12, 22
_REWARD_LEAST, _REWARD_MOST = 3, 7
_CROWD = 8
"""So many names are compared each with each; more are looked up."""


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
def _past_features(data: Any, at: Any, end: Any, spans: Any, table: Any, cell: Any) -> Any:
    """Return where a map of features ends; -1: it is none, or not surely valid."""
    kind, count, at = head_at(data, at, end)
    if kind != MAP:
        return np.int64(-1)

    for i in range(count):
        name, at = text_at(data, at, end)
        if at < 0 or at >= end:
            return np.int64(-1)
        spans[i, 0], spans[i, 1] = name, at

        if data[at] == DOUBLE:
            if at + 9 > end or not abs(double_at(data, at + 1, cell)) <= MAX_FEATURE:
                return np.int64(-1)
            at += 9
            continue
        if data[at] == FALSE or data[at] == TRUE:
            at += 1
            continue
        is_list = head_at(data, at, end)[0] == ARRAY
        at = past_texts(data, at, end) if is_list else past_text(data, at, end)
        if at < 0:
            return np.int64(-1)

    # Of a name that occurs twice the last counts.
    return at if _are_distinct(data, spans, count, table) else np.int64(-1)


@inlined
def _past_map_of_texts_or_nil(data: Any, at: Any, end: Any) -> Any:
    if at < end and data[at] == NIL:
        return at + 1
    kind, count, at = head_at(data, at, end)
    if kind != MAP:
        return np.int64(-1)
    for _ in range(2 * count):
        at = past_text(data, at, end)
        if at < 0:
            return at
    return at


@inlined
def _past_names(data: Any, at: Any, end: Any, out: Any) -> Any:
    """Return where event, policy, spec, snapshot and catalogue end; -1: they do not."""
    for field in range(5):
        begins, at = text_at(data, at, end)
        if at < 0:
            return at
        # Its event, its spec and its catalogue are noted.
        if (field & 1) == 0:
            out[field], out[field + 1] = begins, at
    return at if 0 < out[1] - out[0] <= MAX_EVENT_ID_BYTES else np.int64(-1)


@inlined
def _past_actions(data: Any, at: Any, end: Any, spans: Any, table: Any, cell: Any) -> Any:
    """Return how many actions there are, and where their ids and features end; -1: they do not."""
    kind, count, at = head_at(data, at, end)
    if kind != ARRAY or count == 0:
        return np.int64(0), np.int64(-1)
    for k in range(count):
        spans[k, 0], at = text_at(data, at, end)
        if at < 0:
            return count, at
        spans[k, 1] = at
    if not _are_distinct(data, spans, count, table):
        return count, np.int64(-1)

    if at < end and data[at] == NIL:
        return count, at + 1
    kind, size, at = head_at(data, at, end)
    if kind != ARRAY or size != count:
        return count, np.int64(-1)
    for _ in range(count):
        if at < end and data[at] == NIL:
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
    kind, count, at = head_at(data, at, end)
    if kind != MAP:
        return np.int64(-1)
    for i in range(count):
        spans[i, 0], at = text_at(data, at, end)
        if at < 0:
            return at
        spans[i, 1] = at

        kind, size, at = head_at(data, at, end)
        if kind != BYTES or size != 4 * actions:
            return np.int64(-1)
        for k in range(actions):
            if np.isinf(little_single_at(data, at + 4 * k, cell)):
                return np.int64(-1)
        at += size
    return at if _are_distinct(data, spans, count, table) else np.int64(-1)


@inlined
def _past_choice(
    data: Any, at: Any, end: Any, actions: Any, table: Any, cell: Any, out: Any
) -> Any:
    """Return where the PMFs and what was drawn from them end; -1: they do not."""
    kind, size, pmfs = head_at(data, at, end)
    if kind != BYTES:
        return np.int64(-1)
    kind, slots, at = head_at(data, pmfs + size, end)
    if kind != ARRAY or slots == 0 or slots > actions or size != 8 * slots * actions:
        return np.int64(-1)

    table[:actions] = -1
    for slot in range(slots):
        index, at = whole_at(data, at, end)
        if at < 0 or index >= actions or table[index] >= 0:
            return np.int64(-1)
        table[index] = slot

        # As ``total_and_least`` adds them up.
        total, least, begins = 0.0, np.inf, pmfs + 8 * slot * actions
        for k in range(actions):
            p = little_double_at(data, begins + 8 * k, cell)
            total += p
            least = min(least, p)
        # Rounding may leave a propensity beyond 1, which not every learner takes.
        chosen = little_double_at(data, begins + 8 * index, cell)
        if not abs(total - 1.0) <= SLACK or least < 0.0 or not 0.0 < chosen <= 1.0:
            return np.int64(-1)
    out[6] = slots
    return at


@inlined
def _past_later_fields(
    data: Any, at: Any, end: Any, count: Any, actions: Any, cell: Any, out: Any
) -> Any:
    """Return where the fields end that older builds did not know; -1: they do not."""
    # Its user, whether it is deferred, or held out; no credit; whether unserved; what failed; its
    # artifact, and its profile; what its rules depended on; what an apprentice would have chosen.
    for field in range(count):
        begins = at
        if field in (0, 6, 7):
            at = past_text_or_nil(data, at, end)
        elif field == 8:
            at, placed = past_rules(data, at, end, out[6], actions, cell)
            if placed > 0:
                out[7] |= HAS_PLACED
        elif field == 9:
            at = past_apprentice(data, at, end, out[6], actions, cell)
        elif field == 3:
            at = at + 1 if at < end and data[at] == NIL else np.int64(-1)
        elif field == 5:
            at = _past_map_of_texts_or_nil(data, at, end)
        else:
            at = past_truth(data, at, end)
            if at >= 0 and field < 3 and data[begins] == TRUE:
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
        at = _past_later_fields(data, at, end, count - DECISION_LEAST, actions, cell, out)
    return at == end


@inlined
def _is_reward(data: Any, at: Any, end: Any, count: Any, cell: Any) -> Any:
    """Return whether the fields from ``at`` on are surely those of a valid reward."""
    begins, at = text_at(data, at, end)
    if at < 0 or not 0 < at - begins <= MAX_EVENT_ID_BYTES:
        return False

    if at + 9 > end or data[at] != DOUBLE:
        return False
    if not abs(double_at(data, at + 1, cell)) <= MAX_NUMBER:
        return False
    at += 9

    # Its name, its slot, its action, its signal.
    for field in range(count - _REWARD_LEAST):
        if field == 1 and at < end and data[at] != NIL:
            _, at = whole_at(data, at, end)
        elif field == 3 and at < end and data[at] != NIL:
            begins, at = text_at(data, at, end)
            if not 0 < at - begins <= MAX_SIGNAL_BYTES:
                return False
        else:
            at = past_text_or_nil(data, at, end)
        if at < 0:
            return False
    return at == end


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
        kind, fields, at = head_at(data, at + 1, end)
        if kind != ARRAY:
            continue
        begins, at = text_at(data, at, end)
        if at < 0:
            continue

        if says(data, begins, at, _DECISION):
            if DECISION_LEAST <= fields <= _DECISION_MOST and _is_decision(
                data, at, end, fields, spans, table, cell, out[r]
            ):
                kinds[r] = DECISION
                if before >= 0 and _are_named_alike(data, out[r], out[before]):
                    out[r, 7] |= NAMED_BEFORE
                before = r
        elif (
            says(data, begins, at, _REWARD)
            and _REWARD_LEAST <= fields <= _REWARD_MOST
            and _is_reward(data, at, end, fields, cell)
        ):
            kinds[r] = REWARD
    return kinds, out
