"""Compiled: what an apprentice would have chosen, as its record has it: surely valid or not."""

from typing import Any

import numpy as np

from bandits.kernels.actions import SLACK
from bandits.kernels.compiled import inlined
from bandits.kernels.packed import (
    ARRAY,
    BYTES,
    NIL,
    head_at,
    little_double_at,
    says,
    text_at,
    whole_at,
)

_FIELDS = 3
_FIRST = np.frombuffer(b"first", np.uint8)
_REQUEST = np.frombuffer(b"request", np.uint8)
_DRAWN = np.frombuffer(b"drawn", np.uint8)
_SOURCE = np.frombuffer(b"source", np.uint8)
_HOLDOUT = np.frombuffer(b"holdout", np.uint8)


@inlined
def _is_known(data: Any, at: Any, end: Any) -> Any:
    """Return whether a text says whose choice was served; see ``SERVED`` of the records."""
    return (
        says(data, at, end, _FIRST)
        or says(data, at, end, _REQUEST)
        or says(data, at, end, _DRAWN)
        or says(data, at, end, _SOURCE)
        or says(data, at, end, _HOLDOUT)
    )


@inlined
def _index_at(data: Any, first: Any, at: Any, end: Any, slot: Any, actions: Any) -> Any:
    """Return a slot's index, and where it ends; -1: it is none, or one of those from ``first``."""
    index, at = whole_at(data, at, end)
    if at < 0 or index >= actions:
        return index, np.int64(-1)
    before = first
    for _ in range(slot):
        earlier, before = whole_at(data, before, end)
        if earlier == index:
            return index, np.int64(-1)
    return index, at


@inlined
def _is_drawn(data: Any, row: Any, actions: Any, index: Any, cell: Any) -> Any:
    """Return whether a PMF is one, by which the action at an index has a chance."""
    # As ``total_and_least`` adds them up.
    total, least = 0.0, np.inf
    for k in range(actions):
        p = little_double_at(data, row + 8 * k, cell)
        total += p
        least = min(least, p)
    chosen = little_double_at(data, row + 8 * index, cell)
    return abs(total - 1.0) <= SLACK and least >= 0.0 and chosen > 0.0


@inlined
def _past_own_choice(data: Any, at: Any, end: Any, slots: Any, actions: Any, cell: Any) -> Any:
    """Return where the PMFs and what was drawn from them end; -1: they do not."""
    kind, size, pmfs = head_at(data, at, end)
    if kind != BYTES or size != 8 * slots * actions:
        return np.int64(-1)
    kind, count, first = head_at(data, pmfs + size, end)
    if kind != ARRAY or count != slots:
        return np.int64(-1)

    at = first
    for slot in range(slots):
        index, at = _index_at(data, first, at, end, slot, actions)
        if at < 0 or not _is_drawn(data, pmfs + 8 * slot * actions, actions, index, cell):
            return np.int64(-1)
    return at


@inlined
def past_apprentice(data: Any, at: Any, end: Any, slots: Any, actions: Any, cell: Any) -> Any:
    """Return where what an apprentice would have chosen ends, or nil.

    It is -1 where it does not end, or is not surely valid.
    """
    if at < end and data[at] == NIL:
        return at + 1
    kind, fields, at = head_at(data, at, end)
    if kind != ARRAY or fields != _FIELDS:
        return np.int64(-1)
    begins, at = text_at(data, at, end)
    if at < 0 or not _is_known(data, begins, at):
        return np.int64(-1)
    return _past_own_choice(data, at, end, slots, actions, cell)
