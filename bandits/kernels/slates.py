"""Compiled loops over lists of decisions: rows of slates, lists put in place, missing scores."""

import numpy as np
from numba import types
from numpy.typing import NDArray

from bandits.kernels.compiled import Float32, Int32, Int64, compiled, f4s, i4s, i8s

Bools = NDArray[np.bool_]


@compiled(i8s, i8s, i4s, types.boolean[::1])
def take_chosen(actions: Int64, slots: Int64, chosen: Int32, barred: Bools) -> None:
    """Say of no action that a page bars it from a slot, if an earlier one, or it, has chosen it.

    Args:
        actions: int64[D + 1], where a decision's actions begin.
        slots: int64[D + 1], where its slots begin.
        chosen: int32[S], which of its actions each slot chose.
        barred: bool[P], by place in the PMFs of all slots; is changed.
    """
    pmf = 0
    for d in range(len(actions) - 1):
        count = actions[d + 1] - actions[d]
        for slot in range(slots[d], slots[d + 1]):
            for earlier in range(slots[d], slot + 1):
                barred[pmf + chosen[earlier]] = False
            pmf += count


@compiled(
    *(i8s, i8s, i4s, types.boolean[::1], i8s),
    *(types.boolean[::1], types.int64[::1], types.int64[::1], types.int64[::1]),
)
def slate_rows(
    actions: Int64,
    slots: Int64,
    chosen: Int32,
    barred: Bools,
    rows: Int64,
    taken: Bools,
    action: Int64,
    place: Int64,
    index: Int64,
) -> None:
    """Make a row of each of S slots of D decisions: a later one is among what is left.

    Args:
        actions: int64[D + 1], where a decision's actions begin.
        slots: int64[D + 1], where its slots begin.
        chosen: int32[S], which of its actions each slot chose.
        barred: bool[P], by place in the PMFs of all slots, what pages bar, as ``take_chosen``
            leaves it; empty: nothing.
        rows: int64[S + 1], where the actions of a slot begin that are left for it, of L in all.
        taken: bool[...], room for as many actions as any decision has.
        action: int64[L], gets which action of all decisions each is.
        place: int64[L], gets the place of its probability in the PMFs of all slots.
        index: int64[S], gets which of those that are left each slot chose.
    """
    pmf = 0
    for d in range(len(actions) - 1):
        first, count = actions[d], actions[d + 1] - actions[d]
        taken[:count] = False
        for slot in range(slots[d], slots[d + 1]):
            at = rows[slot]
            for k in range(count):
                if taken[k] or (barred.size and barred[pmf + k]):
                    continue
                if k == chosen[slot]:
                    index[slot] = at - rows[slot]
                action[at], place[at] = first + k, pmf + k
                at += 1
            taken[chosen[slot]] = True
            pmf += count


@compiled(types.float32[::1], i8s, i8s, f4s, i8s)
def put_lists(out: Float32, owners: Int64, offsets: Int64, flat: Float32, starts: Int64) -> None:
    """Copy lists of numbers to where they belong.

    Args:
        out: float32[total], gets list i at ``offsets[owners[i]]``, as long as the owner's part.
        owners: int64[m].
        offsets: int64[D + 1].
        flat: float32[...], the lists.
        starts: int64[m], where each list starts in ``flat``.
    """
    for i in range(owners.size):
        first, stop = offsets[owners[i]], offsets[owners[i] + 1]
        for at in range(stop - first):
            out[first + at] = flat[starts[i] + at]


@compiled(i8s, f4s, returns=types.boolean[::1])
def are_scored(offsets: Int64, scores: Float32) -> Bools:
    """Return which rows have an action with a score, bool[n].

    Args:
        offsets: int64[n + 1].
        scores: float32[total], NaN where there is none.
    """
    out = np.zeros(offsets.size - 1, np.bool_)
    for row in range(offsets.size - 1):
        for at in range(offsets[row], offsets[row + 1]):
            if not np.isnan(scores[at]):
                out[row] = True
                break
    return out
