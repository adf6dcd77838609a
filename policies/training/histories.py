"""Histories, which sources are fitted on, made of events. Without torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArtifactError
from bandits.types import frozen
from policies.artifacts.histories import Histories, OtherEvents
from policies.data.coded import CodedEvents


def histories_of(events: CodedEvents) -> Histories:
    """Return who interacted with what: each item counts once for a user.

    Of a user's events of one type with one item the latest counts, so that who rates an item again
    means it; and of several types the strongest. Items and users stand in an order of their ids
    alone, shorter ones first, so that it does not matter how a data set was put together. What was
    done with an item besides is kept beside it: it says what a user bought, whatever came later.

    Raises:
        ArtifactError: there is no event, or a weight is negative or not finite.
    """
    if not len(events):
        raise ArtifactError("training needs at least one event", "data")
    if not (np.isfinite(events.weight).all() and events.weight.min() >= 0):
        raise ArtifactError("weights of events are finite and not negative", "data")

    user_ids, user = _in_order(events.user_ids, events.user)
    item_ids, item = _in_order(events.item_ids, events.item)

    # The events of one user, item and type side by side, in their own order: the last counts.
    cell = user * len(item_ids) + item
    kinds = len(events.types)
    by_type = np.argsort(cell * kinds + events.type, kind="stable")
    key = (cell * kinds + events.type)[by_type]
    latest = by_type[np.append(key[1:] != key[:-1], True)]

    # Then of those of one user and item.
    cells, first = np.unique(cell[latest], return_index=True)
    last = np.maximum.reduceat(latest, first)
    weights = np.maximum.reduceat(events.weight[latest], first)
    counts = np.diff(np.append(first, latest.size))
    others = latest[latest != np.repeat(last, counts)]

    bounds = np.arange(len(user_ids) + 1, dtype=np.int64) * len(item_ids)
    return Histories(
        items=item_ids,
        users=user_ids,
        starts=frozen(np.searchsorted(cells, bounds)),
        indices=frozen((cells % len(item_ids)).astype(np.int32)),
        weights=frozen(weights),
        times=frozen(events.time[last]),
        types=frozen(events.type[last]),
        type_names=events.types,
        others=OtherEvents(
            frozen(np.searchsorted(cell[others], bounds)),
            frozen(item[others].astype(np.int32)),
            frozen(events.type[others]),
            frozen(events.time[others]),
        )
        if others.size
        else None,
    )


def _in_order(
    ids: Sequence[str], codes: NDArray[np.int32]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the ids that occur, in order, and the place of each code among them, int64[n]."""
    used = np.flatnonzero(np.bincount(codes, minlength=len(ids))).tolist()
    used.sort(key=lambda code: (len(ids[code]), ids[code]))
    places = np.full(len(ids), -1, np.int64)
    places[used] = np.arange(len(used))
    return tuple(ids[code] for code in used), places[codes]
