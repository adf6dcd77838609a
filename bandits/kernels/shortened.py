"""Compiled: the bytes of valid decisions with no more than what their chosen actions teach."""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from bandits.kernels.compiled import Int64, compiled, i8s, inlined, read_only
from bandits.kernels.packed import NIL, index_at, past, past_decision_head, past_map, sized

HEAD_BYTES = 64
"""More than what is written of a record beside what is copied of it."""

_HEAD = np.frombuffer(b"\x01\xdc\x00\x12\xa8decision" + 5 * b"\xa0", np.uint8)
"""The version; that there are 18 fields; the kind; no event, policy, spec, snapshot, catalogue."""
_TAIL = np.frombuffer(b"\xc0\xc2\xc2\xc0\xc2\xc0", np.uint8)
"""No user; not deferred, not held out; no credit; served; nothing has failed."""
_ONE = np.frombuffer(np.ones(1, "<f8").tobytes(), np.uint8)
_NO_TEXT = 0xA0


@inlined
def _copied(data: Any, first: Any, last: Any, out: Any, at: Any) -> Any:
    """Copy some bytes; return where they end."""
    for k in range(first, last):
        out[at] = data[k]
        at += 1
    return at


@inlined
def _past_indices(data: Any, at: Any, count: Any) -> Any:
    """Return where so many whole numbers end."""
    for _ in range(count):
        first = np.int64(data[at])
        at += 1 if first < 0x80 else 1 + (1 << (first - 0xCC))
    return at


u1s = read_only(types.uint8)


@compiled(u1s, i8s, types.uint8[::1], types.int64[:, ::1], returns=types.int64[::1])
def shorten(  # noqa: C901, PLR0912, PLR0915 - one pass over the fields
    data: NDArray[np.uint8], starts: Int64, out: NDArray[np.uint8], names: Int64
) -> Int64:
    """Write n decisions as ``policies.archive.parts.assembled.taught`` does from columns.

    Args:
        data: uint8[N], valid decisions, one after the other; nothing is placed on their pages.
        starts: int64[n + 1], where each begins, and the last ends.
        out: what is written to: HEAD_BYTES by decision more than ``data`` has.
        names: int64[slots of all, 2], gets where in ``data`` the id of what each slot chose is.

    Returns:
        Where each ends, int64[n].
    """
    ends = np.empty(starts.size - 1, np.int64)
    longest = np.diff(starts).max() + 1 if starts.size > 1 else 1
    is_chosen, places = np.zeros(longest, np.bool_), np.empty(longest, np.int64)
    to, slot = np.int64(0), np.int64(0)
    for n in range(starts.size - 1):
        context = at = past_decision_head(data, starts[n])
        context_ends, _ = past_map(data, at)

        actions, ids = sized(data, context_ends)
        at = ids
        for k in range(actions):
            places[k] = at
            at = past(data, at)
        places[actions] = at
        features = own = at
        has_features = data[at] != NIL
        if has_features:
            _, own = sized(data, at)
            at = own
            for _ in range(actions):
                at = at + 1 if data[at] == NIL else past_map(data, at)[0]
        else:
            at += 1

        scores = at
        sources, at = sized(data, at)
        for _ in range(2 * sources):
            at = past(data, at)
        scores_end = at
        chosen = past(data, at)
        drawn, first = sized(data, chosen)
        last = _past_indices(data, first, drawn)
        at = first
        while at < last:
            index, at = index_at(data, at)
            is_chosen[index] = True
            size, names[slot, 0] = sized(data, places[index])
            names[slot, 1] = names[slot, 0] + size
            slot += 1

        # What was not chosen has no name and no features.
        to = _copied(_HEAD, 0, _HEAD.size, out, to)
        to = _copied(data, context, ids, out, to)
        for k in range(actions):
            if is_chosen[k]:
                to = _copied(data, places[k], places[k + 1], out, to)
            else:
                out[to] = _NO_TEXT
                to += 1

        if has_features:
            to = _copied(data, features, own, out, to)
            at = own
            for k in range(actions):
                end = at + 1 if data[at] == NIL else past_map(data, at)[0]
                if is_chosen[k]:
                    to = _copied(data, at, end, out, to)
                else:
                    out[to] = NIL
                    to += 1
                at = end
        else:
            out[to] = NIL
            to += 1

        # Each slot's propensity is said to be 1.
        to = _copied(data, scores, scores_end, out, to)
        size = 8 * drawn
        if size <= 0xFF:
            out[to], out[to + 1] = 0xC4, size
            to += 2
        else:
            out[to], out[to + 1], out[to + 2] = 0xC5, size >> 8, size & 0xFF
            to += 3
        for _ in range(drawn):
            to = _copied(_ONE, 0, _ONE.size, out, to)
        to = _copied(data, chosen, last, out, to)
        to = _copied(_TAIL, 0, _TAIL.size, out, to)

        is_chosen[:actions] = False
        ends[n] = to
    return ends
