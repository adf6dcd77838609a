"""The vectors by which items of a page are compared, looked up as they are proposed."""

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from banditloop_client.schemas import Item
from bandits.types import Float64

REMEMBERED = 100_000
"""Items whose vectors are kept; all are looked up anew when there are more."""


class PageVectors:
    """One vector of each item, scaled to length 1, kept from one request to the next.

    ``item_of``: gives an item as it is now; None: there is none.
    """

    def __init__(self, name: str) -> None:
        """Begin with none.

        Args:
            name: which of the items' vectors.
        """
        self.item_of: Callable[[str], Item | None] = lambda _: None
        self._name = name
        self._known: dict[str, Float64 | None] = {}

    def forget(self, item_id: str) -> None:
        """Look an item up again when it is asked for."""
        self._known.pop(item_id, None)

    def of(self, ids: Sequence[str]) -> Float64:
        """Return the vectors of items, float64[N, d].

        Zeros where an item has none, or one of another length than most of these items'.
        """
        if len(self._known) > REMEMBERED:
            self._known.clear()
        found = [self._known[each] if each in self._known else self._look_up(each) for each in ids]
        sizes = Counter(vector.size for vector in found if vector is not None)
        size = max(sizes, key=lambda each: (sizes[each], each), default=0)
        vectors = np.zeros((len(ids), size))
        for row, vector in enumerate(found):
            if vector is not None and vector.size == size:
                vectors[row] = vector
        return vectors

    def _look_up(self, item_id: str) -> Float64 | None:
        item = self.item_of(item_id)
        vector: Float64 | None = None
        if item is not None and item.vectors is not msgspec.UNSET and self._name in item.vectors:
            given = np.array(item.vectors[self._name], np.float64)
            largest = np.abs(given).max()
            if largest > 0:  # so that no square is beyond what there is
                vector = given / largest
                vector /= np.sqrt(vector @ vector)
        self._known[item_id] = vector
        return vector
