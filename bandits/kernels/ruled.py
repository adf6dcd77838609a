"""Compiled: what a decision's rules depended on, as its record has it: surely valid or not."""

from typing import Any

import numpy as np

from bandits.kernels.compiled import inlined
from bandits.kernels.packed import (
    ARRAY,
    BYTES,
    MAP,
    NIL,
    head_at,
    little_single_at,
    past_text,
    past_text_or_nil,
    past_texts,
    whole_at,
)
from bandits.values import MAX_PLACES, MAX_TIME_MS

RULED_FIELDS = 10
_INT64 = 0xCF
_INFINITE = 0x7C
"""The second byte of an infinite number of 16 bits, the first of which is 0, without its sign."""


@inlined
def past_rules(  # noqa: C901 - one field after the other
    data: Any, at: Any, end: Any, slots: Any, actions: Any, cell: Any
) -> Any:
    """Return where what rules depended on ends, or nil, and how many items were placed.

    It ends at -1 where it does not, or is not surely valid.
    """
    nothing, count = np.int64(-1), np.int64(0)
    if at < end and data[at] == NIL:
        return at + 1, count
    kind, fields, at = head_at(data, at, end)
    if kind != ARRAY or fields != RULED_FIELDS:
        return nothing, count

    # The request's filter, the moment, what users did; what was removed.
    at = past_text_or_nil(data, at, end)
    if at >= 0:
        at = _past_time_or_nil(data, at, end)
    if at >= 0:
        at = _past_done_or_nil(data, at, end)
    if at >= 0:
        at = _past_removed(data, at, end)
    # The boosts, the controller's state.
    if at >= 0:
        at = _past_boosts(data, at, end, actions, cell)
    if at >= 0:
        at = past_text_or_nil(data, at, end)
    # What was placed, why the page is short, what was not placed, and what the page's rules said.
    if at >= 0:
        at, count = _past_placed(data, at, end)
    if at >= 0:
        at = past_text_or_nil(data, at, end)
    if at >= 0:
        at = _past_unplaced(data, at, end)
    if at >= 0:
        at = _past_page(data, at, end, slots, actions)
    return at, count


@inlined
def _past_time_or_nil(data: Any, at: Any, end: Any) -> Any:
    if at < end and data[at] == NIL:
        return at + 1
    if at < end and data[at] == _INT64:
        if at + 9 > end:
            return np.int64(-1)
        moment, at = np.int64(0), at + 1
        for _ in range(8):
            moment = (moment << 8) | np.int64(data[at])
            at += 1
    else:
        moment, at = whole_at(data, at, end)
    return at if 0 <= moment <= MAX_TIME_MS else np.int64(-1)


@inlined
def _past_done_or_nil(data: Any, at: Any, end: Any) -> Any:
    if at < end and data[at] == NIL:
        return at + 1
    kind, count, at = head_at(data, at, end)
    if kind != MAP:
        return np.int64(-1)
    for _ in range(count):
        at = past_text(data, at, end)
        if at >= 0:
            at = past_texts(data, at, end)
        if at < 0:
            break
    return at


@inlined
def _past_removed(data: Any, at: Any, end: Any) -> Any:
    kind, rules, at = head_at(data, at, end)
    if kind != MAP:
        return np.int64(-1)
    for _ in range(rules):
        at = past_text(data, at, end)
        if at < 0:
            return at
        kind, size, at = head_at(data, at, end)
        if kind != ARRAY or size != 2:
            return np.int64(-1)
        kind, known, _ = head_at(data, at, end)
        at = past_texts(data, at, end)
        if at < 0:
            return at
        count, at = whole_at(data, at, end)
        if at < 0 or count < known:
            return np.int64(-1)
    return at


@inlined
def _past_boosts(data: Any, at: Any, end: Any, actions: Any, cell: Any) -> Any:
    kind, size, at = head_at(data, at, end)
    if kind != BYTES or (size != 0 and size != 4 * actions):
        return np.int64(-1)
    for k in range(size // 4):
        if not np.isfinite(little_single_at(data, at + 4 * k, cell)):
            return np.int64(-1)
    return at + size


@inlined
def _past_placed(data: Any, at: Any, end: Any) -> Any:
    """Return where placements end, and how many there are; their slots go upwards."""
    nothing = np.int64(-1)
    kind, count, at = head_at(data, at, end)
    if kind != ARRAY:
        return nothing, count
    before = nothing
    for _ in range(count):
        kind, size, at = head_at(data, at, end)
        if kind != ARRAY or size != 2:
            return nothing, count
        slot, at = whole_at(data, at, end)
        if at < 0 or not before < slot < MAX_PLACES:
            return nothing, count
        before = slot
        at = past_text(data, at, end)
        if at < 0:
            break
    return at, count


@inlined
def _past_unplaced(data: Any, at: Any, end: Any) -> Any:
    kind, count, at = head_at(data, at, end)
    if kind != ARRAY:
        return np.int64(-1)
    for _ in range(count):
        kind, size, at = head_at(data, at, end)
        if kind != ARRAY or size != 3:
            return np.int64(-1)
        slot, at = whole_at(data, at, end)
        if at < 0 or slot >= MAX_PLACES:
            return np.int64(-1)
        at = past_text(data, at, end)
        if at >= 0:
            at = past_text(data, at, end)
        if at < 0:
            break
    return at


@inlined
def _past_page(data: Any, at: Any, end: Any, slots: Any, actions: Any) -> Any:
    """Return where the numbers of a page end: 16 bits each, for some slots, none infinite."""
    kind, size, at = head_at(data, at, end)
    if kind != BYTES or size % (2 * actions) != 0 or size > 2 * actions * slots:
        return np.int64(-1)
    for k in range(size // 2):
        if data[at + 2 * k] == 0 and data[at + 2 * k + 1] & 0x7F == _INFINITE:
            return np.int64(-1)
    return at + size
