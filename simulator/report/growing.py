"""An array that grows as parts are added to it, and is never there twice."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST = 1 << 16
"""Elements that there is room for at first."""


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

    def values(self) -> NDArray[Any]:
        """Return all of them, which later parts do not change."""
        return self._room[: self._count]
