"""Which items are like one, of those that may be offered: what the sources say that can compare."""

from collections.abc import Collection

from bandits.errors import IncomparableError, UnknownItemError
from policies.offered import Offered
from policies.sources.base import Candidates, Passes
from policies.sources.local import EMPTY


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
