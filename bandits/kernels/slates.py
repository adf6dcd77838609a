"""A compiled loop over slates: a later slot chooses among what the slots before it have left."""

import numpy as np
from numba import types
from numpy.typing import NDArray

from bandits.kernels.compiled import Int32, Int64, compiled, i4s, i8s

Bools = NDArray[np.bool_]


@compiled(
    *(i8s, i8s, i4s, i8s),
    *(types.boolean[::1], types.int64[::1], types.int64[::1], types.int64[::1]),
)
def slate_rows(
    actions: Int64,
    slots: Int64,
    chosen: Int32,
    rows: Int64,
    taken: Bools,
    action: Int64,
    place: Int64,
    index: Int64,
) -> None:
    """Make a row of each of S slots of D decisions.

    Args:
        actions: int64[D + 1], where a decision's actions begin.
        slots: int64[D + 1], where its slots begin.
        chosen: int32[S], which of its actions each slot chose.
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
                if taken[k]:
                    continue
                if k == chosen[slot]:
                    index[slot] = at - rows[slot]
                action[at], place[at] = first + k, pmf + k
                at += 1
            taken[chosen[slot]] = True
            pmf += count
