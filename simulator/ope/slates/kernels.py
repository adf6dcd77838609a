"""Compiled loops over the slots of pages.

Page i has the rows ``starts[i]`` to ``starts[i + 1]``, a slot each; row r has the actions
``offsets[r]`` to ``offsets[r + 1]``.
"""

import numpy as np
from numba import types

from bandits.kernels.compiled import Float64, Int32, Int64, compiled, f8s, i4s, i8s, read_only

f8ss, i8ss = read_only(types.float64, 2), read_only(types.int64, 2)


@compiled(i8s, i8s, i4s, returns=types.int64[::1])
def places_on_page(starts: Int64, offsets: Int64, ids: Int32) -> Int64:
    """Find the actions of later slots among those of their page's first slot.

    Args:
        starts: int64[n + 1].
        offsets: int64[rows + 1].
        ids: int32[total], the actions' ids as codes.

    Returns:
        int64[total], the place of each action; -1 where the first slot has it not.
    """
    out = np.full(ids.size, -1, np.int64)
    for page in range(starts.size - 1):
        if starts[page] == starts[page + 1]:
            continue
        first = offsets[starts[page]]
        count = offsets[starts[page] + 1] - first
        for row in range(starts[page], starts[page + 1]):
            # Most often what is left stands in the same order: go on from where the last was.
            place = 0
            for at in range(offsets[row], offsets[row + 1]):
                for _ in range(count):
                    found = ids[first + place] == ids[at]
                    if found:
                        out[at] = place
                    place = place + 1 if place + 1 < count else 0
                    if found:
                        break
    return out


@compiled(i8s, i8s, i8s, i8s, f8s, f8s, returns=types.UniTuple(types.float64[::1], 3))
def weigh_slots(
    starts: Int64,
    offsets: Int64,
    places: Int64,
    chosen: Int64,
    logging: Float64,
    marginals: Float64,
) -> tuple[Float64, Float64, Float64]:
    """Weigh each slot by itself, whatever stood in the slots above it.

    The weight of action a in slot j is pi_j(a) / (mu(a | h_j) prod_{k < j} (1 - mu(a | h_k))),
    where pi_j(a) is the target's probability that a stands in slot j, and h_k what was chosen above
    slot k. See ``simulator.ope.slates.formulas``.

    Args:
        starts: int64[n + 1].
        offsets: int64[rows + 1].
        places: int64[total], the place of each action among those of its page's first slot.
        chosen: int64[rows], the index of each row's chosen action among its own.
        logging: float64[total], the logging policy's PMFs, given the slots above.
        marginals: float64[...], pi_j(a), slot after slot, page after page: of a page with K actions
            in its first slot K numbers a slot.

    Returns:
        float64[rows] each: the weights; the target's mass on what the logging policy never puts
        into the slot; and the mean of the weight's square under it, given what stands above.
    """
    rows = offsets.size - 1
    weights, never, second = np.zeros(rows), np.zeros(rows), np.zeros(rows)
    most = 0
    for row in range(rows):
        most = max(most, offsets[row + 1] - offsets[row])
    mu, kept, taken = np.empty(most), np.empty(most), np.empty(most, np.bool_)

    begin = 0
    for page in range(starts.size - 1):
        if starts[page] == starts[page + 1]:
            continue
        count = offsets[starts[page] + 1] - offsets[starts[page]]
        kept[:count], taken[:count] = 1.0, False
        for row in range(starts[page], starts[page + 1]):
            # An action that is taken, or that a rule of the page keeps out, has nothing.
            mu[:count] = 0.0
            for at in range(offsets[row], offsets[row + 1]):
                mu[places[at]] = logging[at]

            picked = places[offsets[row] + chosen[row]]
            weights[row] = marginals[begin + picked] / (mu[picked] * kept[picked])
            missing, squares = 0.0, 0.0
            for k in range(count):
                share = marginals[begin + k]
                if kept[k] <= 0.0 or (mu[k] == 0.0 and not taken[k]):
                    missing += share
                elif mu[k] > 0.0:
                    squares += share / mu[k] * share / kept[k] / kept[k]
                if mu[k] > 0.0:
                    kept[k] *= 1.0 - mu[k] if mu[k] < 1.0 else 0.0
            taken[picked] = True
            never[row], second[row] = missing, squares
            begin += count
    return weights, never, second


@compiled(f8s, types.float64, f8ss, returns=types.int64[:, ::1])
def fill_pages(own: Float64, share: float, draws: Float64) -> Int64:
    """Fill pages, each slot from what those above it have left.

    Args:
        own: float64[K], the weights by which an action is drawn.
        share: with which probability it is drawn uniformly instead.
        draws: float64[pages, slots], in [0, 1).

    Returns:
        int64[pages, slots], what each slot shows.
    """
    count = own.size
    out = np.empty(draws.shape, np.int64)
    left = np.empty(count, np.bool_)
    for page in range(draws.shape[0]):
        left[:] = True
        for slot in range(draws.shape[1]):
            total = 0.0
            for k in range(count):
                total += own[k] if left[k] else 0.0
            uniform = share / (count - slot)

            # The last that is left takes what rounding leaves.
            reached, picked = 0.0, -1
            for k in range(count):
                if left[k]:
                    picked = k
                    mine = own[k] / total if total > 0.0 else 0.0
                    reached += (1.0 - share) * mine + uniform
                    if draws[page, slot] < reached:
                        break
            out[page, slot] = picked
            left[picked] = False
    return out


@compiled(i8ss, f8s, types.int64, returns=types.float64[:, ::1])
def sum_pairs(pages: Int64, chances: Float64, count: int) -> Float64:
    """Return how likely each two actions stand in each two slots.

    Args:
        pages: int64[pages, slots], what each slot shows.
        chances: float64[pages], the probability of each page.
        count: how many actions there are, K.

    Returns:
        float64[slots K, slots K]; action a in slot j is number j K + a.
    """
    slots = pages.shape[1]
    out = np.zeros((slots * count, slots * count))
    for page in range(pages.shape[0]):
        for j in range(slots):
            for k in range(slots):
                out[j * count + pages[page, j], k * count + pages[page, k]] += chances[page]
    return out
