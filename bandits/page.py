"""What may stand beside what on a page, as the draw of its slots asks it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64


class PageRule(Protocol):
    """Says what may follow what was chosen for a page. Pure: the same arguments, the same bytes."""

    def after(self, chosen: Sequence[int]) -> tuple[NDArray[np.bool_], Float64 | None]:
        """Return which of the K actions may follow, bool[K], and what is added to their scores.

        Args:
            chosen: the places of the actions that stand on the page already, in their order; one at
                least.

        Returns:
            bool[K], and offsets before exploration, float64[K], or None for none. What is said of
            those that were chosen already does not matter.
        """
        ...
