"""Which items are like another, as a trained model has them."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32, frozen
from policies.sources.base import Candidates, ComparingSource
from policies.sources.local import LocalSource
from policies.sources.vectors import LargeVectorModel

Passes = Callable[[Sequence[str]], NDArray[np.bool_]]
"""Says which of some items a filter admits, bool[n]."""
WIDER = 4
"""How many times as many are looked at first as are wanted, where there is a filter."""
SPARE = 1.5
"""How many times as many are looked at next as should do, going by those before."""
MOST_LOOKED_AT = 100_000
"""However alike an item is, behind so many it is not looked for."""


@runtime_checkable
class ComparingModel(Protocol):
    """A model that knows how alike items are."""

    def alike(self, item: int) -> tuple[NDArray[Any], Float32]:
        """Return places of items, in no order, and how alike each is to one.

        Args:
            item: the place of the one.
        """
        ...


class SimilarItems(LocalSource):
    """A trained model as a candidate source that also says which items are like another."""

    def similar(self, item_id: str, limit: int) -> Candidates | None:
        """Return the items most like one, best first, of those that may be offered; not itself.

        Args:
            item_id: the one, whether or not it may be offered.
            limit: how many at most.
        """
        item = self._items.places.get(item_id)
        if item is None:
            return None

        shade, part = self._shade, self._part
        if isinstance(self._model, LargeVectorModel):
            places, alike = self._model.blocks.alike(item, limit, None if shade is None else part)
        elif isinstance(self._model, ComparingModel):
            places, alike = self._model.alike(item)
            kept = places != item
            if shade is not None:
                kept &= shade[places] == 0
            places, alike = places[kept], alike[kept]
        else:
            raise TypeError(f"a model of {type(self._model).__name__} compares nothing")

        # Ties stand in the order of items; only what reaches the last place is sorted.
        if 0 < limit < alike.size:
            reached = np.flatnonzero(alike >= np.partition(alike, -limit)[-limit])
            places, alike = places[reached], alike[reached]
        best = np.lexsort((places, -alike))[: max(limit, 0)]
        ids = tuple(map(self._items.ids.__getitem__, places[best].tolist()))
        return Candidates(ids, frozen(alike[best]))


def similar_to(
    source: ComparingSource, item_id: str, limit: int, passes: Passes | None = None
) -> Candidates | None:
    """Return the items most like one that a filter admits; None where the source knows it not.

    Args:
        source: who says what is alike.
        item_id: the one.
        limit: how many at most.
        passes: the filter; None: there is none.
    """
    if passes is None:
        return source.similar(item_id, limit)
    looked_at = WIDER * limit
    while True:
        looked_at = min(looked_at, MOST_LOOKED_AT)
        found = source.similar(item_id, looked_at)
        if found is None:
            return None
        kept = np.flatnonzero(passes(found.ids))
        if kept.size >= limit or len(found.ids) < looked_at or looked_at == MOST_LOOKED_AT:
            kept = kept[:limit]
            ids = tuple(map(found.ids.__getitem__, kept.tolist()))
            return Candidates(ids, frozen(found.scores[kept]))

        # What is further away is admitted about as often.
        share = (kept.size + 1) / (looked_at + 1)
        looked_at = max(2 * looked_at, math.ceil(SPARE * limit / share))
