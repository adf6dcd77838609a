"""Which items are like one, of those that may be offered: what the sources say that can compare."""

from collections.abc import Collection
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandits.errors import IncomparableError, UnknownItemError
from policies.offered import Offered
from policies.rules.columns import Bools
from policies.rules.filters import Filter
from policies.rules.ruled_items import Asked, RuledItems
from policies.rules.turns import in_turns
from policies.sources.base import Candidates, Passes
from policies.sources.local import EMPTY

AT_ONCE: Final = 2_000_000
"""Comparisons of numbers that are made without others having a turn: some milliseconds."""
PART: Final = 1_024
"""Items that are looked at together at first; fewer, if a filter looks into texts."""


def is_short(items: RuledItems, own: Filter) -> bool:
    """Return whether a filter may be asked of all items at once, if it comes to that."""
    return len(items) * own.condition.work <= AT_ONCE


async def passing_in_turns(items: RuledItems, own: Filter, asked: Asked) -> Passes:
    """Return which items a filter admits; others have their turns while it is asked of all.

    Args:
        items: as the rules see them.
        own: the filter.
        asked: what is looked at beside them.
    """

    def look(begin: int, end: int) -> Bools:
        return items.passing(own, np.arange(begin, end), asked)

    known = await in_turns(len(items), max(PART // (1 + own.condition.tests), 1), look)

    def passes(rows: NDArray[np.intp]) -> Bools:
        newer = rows >= known.size
        admitted: Bools = known[np.where(newer, 0, rows)]
        if newer.any():
            admitted[newer] = items.passing(own, rows[newer], asked)
        return admitted

    return passes


def similar_items(
    policy: str,
    offered: Offered,
    item_id: str,
    source: str | None,
    limit: int,
    passes: Passes | None,
) -> tuple[str, Candidates]:
    """Return the items most like one, best first, and the source that says it.

    Args:
        policy: its name.
        offered: what it may offer now.
        item_id: the one.
        source: who is asked; None: the first that has an answer.
        limit: how many at most.
        passes: the filter that these pass; None: there is none.

    Raises:
        IncomparableError: the source cannot say, or none can.
        UnknownItemError: there is no such item.
    """
    offering, can = offered.offering, offered.sources.comparing
    if source not in {None, *can}:
        raise IncomparableError(
            f"source {source!r} cannot say what is similar: {_those(can)}", "source"
        )
    if not can:
        raise IncomparableError(
            f"no source of policy {policy} can say what is similar: add one that is"
            " trained (als, item_knn, ease, rp3beta) or compares contents",
            "source",
        )

    asked = list(can) if source is None else [source]
    is_known = item_id in offering.catalogue
    for name in asked if is_known or not offering.limits else ():
        found = can[name].similar(item_id, limit, passes)
        if found is not None and offering.is_late:
            found = found.at([at for at, each in enumerate(found.ids) if each in offering])
        if found is not None and found.ids:
            return name, found
        is_known |= found is not None
    if not is_known:
        raise UnknownItemError(f"there is no item {item_id!r}", "item_id")
    return asked[0], EMPTY  # nobody has seen it yet, or nothing that is like it passes


def _those(can: Collection[str]) -> str:
    return f"these can: {', '.join(can)}" if can else "none of this policy's can"
