"""The true values of policies in a frozen world, without playing them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bandits.types import Float64
from simulator.worlds.frozen.base import FrozenWorld
from simulator.worlds.frozen.parts import FrozenVisit, Indexes

PmfOf = Callable[[FrozenVisit, Indexes], Float64]
"""A policy: from a visit and the indexes of K items to float64[K], their probabilities."""
ListOf = Callable[[FrozenVisit], Sequence[str]]
"""A policy of lists: from a visit to the ids of the items to show."""


class TrueValue(NamedTuple):
    """The expected reward per visit; ``stderr`` is 0 only if all visits of the world are asked.

    ``stderr`` is that of the choice of the visits: over what could happen at each, the value is
    exact.
    """

    value: float
    stderr: float
    visits: int


def value_of_policy(
    world: FrozenWorld, policy: PmfOf, visits: Indexes, *, everything: bool = False
) -> TrueValue:
    """Return what a policy earns in the first slot, on average over visits that count.

    Args:
        world: The world.
        policy: The policy; exactly its expected reward is taken, nothing is drawn.
        visits: Numbers of visits.
        everything: Whether it chooses among all items on offer; else among the visit's pool.
    """
    counted = visits[world.counted(visits)]
    values = np.empty(len(counted))
    for at, number in enumerate(counted.tolist()):
        visit = world.visit(number)
        items = visit.offered if everything else world.pools(counted[at : at + 1])[0]
        values[at] = policy(visit, items) @ world.expected(number, items)
    return _true_value(world, values)


def value_of_lists(world: FrozenWorld, policy: ListOf, visits: Indexes) -> TrueValue:
    """Return what a policy of lists earns, on average over visits that count.

    Args:
        world: The world.
        policy: The policy.
        visits: Numbers of visits.
    """
    counted = visits[world.counted(visits)]
    values = np.empty(len(counted))
    for at, number in enumerate(counted.tolist()):
        values[at] = value_of_list(world, number, policy(world.visit(number)))
    return _true_value(world, values)


def value_of_list(world: FrozenWorld, number: int, shown: Sequence[str]) -> float:
    """Return the expected reward of showing a list at a visit, exactly.

    Args:
        world: The world.
        number: The visit.
        shown: Ids of the items, that of slot 0 first.
    """
    visits, slots = np.full(len(shown), number), np.arange(len(shown))
    items = world.indexes(shown)
    return float((world.looked_at(visits, slots) * world.means(visits, items)).sum())


def best_list(world: FrozenWorld, number: int, items: Indexes | None = None) -> list[str]:
    """Return the ids of the best list of a visit: no other earns more on average.

    Items do not compete, and a higher slot is looked at no less, so it is the items by their means.

    Args:
        world: The world.
        number: The visit.
        items: Indexes of the items to choose among; None: all that are on offer.
    """
    offered = world.offered(number) if items is None else items
    means = world.means(np.array([number]), offered)
    best = offered[np.argsort(-means, kind="stable")[: world.slots]]
    return [world.people.item_ids[item] for item in best.tolist()]


def appeal_to_all(world: FrozenWorld, visits: Indexes) -> Float64:
    """Return float64[items]: the mean of ``means`` over visits that count, while on offer.

    To show the items by this is the best that a policy can do that knows nobody.

    Args:
        world: The world.
        visits: Numbers of visits; an item that is on offer at none of them has 0.
    """
    items = np.arange(len(world.people.item_ids))
    total, offered = np.zeros(len(items)), np.zeros(len(items))
    counted = visits[world.counted(visits)]

    # Some visits at a time: visits times items are many.
    for some in np.array_split(counted, max(1, len(counted) * len(items) // 1_000_000)):
        total += world.means(some[:, None], items[None, :]).sum(axis=0)
        offered += world.on_offer(some[:, None], items[None, :]).sum(axis=0)
    return total / np.maximum(offered, 1.0)


def _true_value(world: FrozenWorld, values: Float64) -> TrueValue:
    """Return the mean; sampling without replacement has the finite-population correction."""
    if not len(values):
        return TrueValue(float("nan"), float("nan"), 0)
    left = 1.0 - len(values) / world.visits
    spread = values.std(ddof=1) if len(values) > 1 else float("nan")
    stderr = float(spread * np.sqrt(max(left, 0.0) / len(values)))
    return TrueValue(float(values.mean()), stderr, len(values))
