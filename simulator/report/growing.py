"""An array that grows as parts are added to it, and is never there twice."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST = 1 << 16
"""Elements that there is room for at first."""
AT_ONCE = 1 << 18
"""Elements whose places are 64-bit integers at a time, as numpy wants them."""


class GrowingColumn:
    """Numbers of one kind, in the order in which they were added."""

    def __init__(self, kind: Any) -> None:
        self._count, self._room = 0, np.empty(LEAST, kind)

    def add(self, part: NDArray[Any]) -> None:
        """Add numbers at the end."""
        count = self._count + len(part)
        if count > len(self._room):
            # What is not written to yet takes no memory.
            grown = np.empty(count + count // 2, self._room.dtype)
            grown[: self._count] = self._room[: self._count]
            self._room = grown
        self._room[self._count : count] = part
        self._count = count

    def put_in_order(self, order: NDArray[np.uint32]) -> None:
        """Have them in another order.

        Args:
            order: uint32[n], the place of each so far.
        """
        self._room = in_places(self._room, order)

    def values(self) -> NDArray[Any]:
        """Return all of them, which later parts do not change."""
        return self._room[: self._count]


def in_places(values: NDArray[Any], places: NDArray[np.integer]) -> NDArray[Any]:
    """Return the values at n places; their integers are nowhere all there as 64 bits.

    Args:
        values: at least as many as the places say.
        places: integers [n].
    """
    out = np.empty(len(places), values.dtype)
    for start in range(0, len(places), AT_ONCE):
        out[start : start + AT_ONCE] = values[places[start : start + AT_ONCE]]
    return out
