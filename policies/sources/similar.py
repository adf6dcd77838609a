"""Which items are like another, as a trained model has them."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32, frozen
from policies.sources.base import Candidates, Passes
from policies.sources.highest import Admits, highest, of_places
from policies.sources.local import LocalSource
from policies.sources.vectors import LargeVectorModel


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

    def similar(self, item_id: str, limit: int, passes: Passes | None = None) -> Candidates | None:
        """Return the items most like one, best first, of those that may be offered; not itself.

        Args:
            item_id: the one, whether or not it may be offered.
            limit: how many at most.
            passes: the filter that these pass; None: there is none.
        """
        item = self._items.places.get(item_id)
        if item is None:
            return None

        shade, admits = self._shade, None if passes is None else self._admits(passes)
        if isinstance(self._model, LargeVectorModel):
            part = None if shade is None else self._part
            places, alike = self._model.blocks.alike(item, limit, part, admits)
        elif isinstance(self._model, ComparingModel):
            places, alike = self._model.alike(item)
            kept = places != item
            if shade is not None:
                kept &= shade[places] == 0
            places, alike = places[kept], alike[kept]
            own = None if admits is None else of_places(places, admits)
            reaching = highest(alike, limit, own)
            places, alike = places[reaching], alike[reaching]
        else:
            raise TypeError(f"a model of {type(self._model).__name__} compares nothing")

        # Ties stand in the order of items.
        best = np.lexsort((places, -alike))[: max(limit, 0)]
        ids = tuple(map(self._items.ids.__getitem__, places[best].tolist()))
        return Candidates(ids, frozen(alike[best]))

    def _admits(self, passes: Passes) -> Admits:
        """Return what says by their places which items pass."""
        closed = self._closed
        if closed is None:
            return lambda places: passes(np.zeros(len(places), np.intp))
        return lambda places: passes(closed.rows(places))
