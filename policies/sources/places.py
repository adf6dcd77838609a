"""An artifact's items in their order, and which of its places may not be proposed now."""

from collections.abc import Collection

import numpy as np

from bandits.types import Float32
from policies.items.offering import Offering

PART = 10_000
"""Places looked up at a time: in between, the thread that answers requests gets its turns."""


class ItemOrder:
    """The items of one artifact's sources: each knows them by their places here."""

    def __init__(self, ids: tuple[str, ...]) -> None:
        self.ids = ids
        self.places = {item: place for place, item in enumerate(ids)}
        self._closed: ClosedPlaces | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def closed(self, offering: Offering) -> "ClosedPlaces":
        """Return the places that may not be proposed now; the sources of an artifact share them."""
        if self._closed is None or self._closed.offering is not offering:
            self._closed = ClosedPlaces(self, offering)
        return self._closed


class ClosedPlaces:
    """The places of an order that may not be proposed now, up to date by what has changed.

    ``shade`` float32[items] is added to scores: 0, or -inf at a closed place; ``count`` of them are
    closed.
    """

    def __init__(self, items: ItemOrder, offering: Offering) -> None:
        self.offering = offering
        self.shade: Float32 = np.zeros(len(items), np.float32)
        self._items = items
        self._seen = offering.changes

        if offering.limits:
            for at in range(0, len(items), PART):
                rows = offering.catalogue.rows(items.ids[at : at + PART])
                self.shade[at : at + PART][rows < 0] = -np.inf
            closed = [items.places[each] for each in offering.closed if each in items.places]
            self.shade[closed] = -np.inf
        self.count = int(np.count_nonzero(self.shade))

    def update(self, changed: Collection[str]) -> None:
        """Look at the changed items.

        Each source that shares this calls it; the first call after a change does the work.
        """
        if self._seen == self.offering.changes:
            return
        self._seen = self.offering.changes

        places, shade, offering = self._items.places, self.shade, self.offering
        for item_id in changed:
            place = places.get(item_id)
            if place is None:
                continue
            closed = item_id not in offering
            if closed != bool(shade[place]):
                shade[place] = -np.inf if closed else 0.0
                self.count += 1 if closed else -1

    def __contains__(self, place: int) -> bool:
        return bool(self.shade[place])
