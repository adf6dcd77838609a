"""What may stand beside what on a page, as the draw of its slots asks it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from bandits.types import Float64

STORED = np.dtype("<f2")
"""What a page rule says is rounded to so many bits before it is used, as the log holds it."""
MOST_ADDED = 10_000.0
"""The most that a page rule adds to a score, or takes away."""


class PageRule(Protocol):
    """Says what may follow what was chosen for a page. Pure: the same arguments, the same bytes."""

    def after(self, chosen: Sequence[int]) -> Float64 | None:
        """Return what is added to the scores of the K actions in the next slot, float64[K].

        NaN for an action that may not follow, whatever its score. What is said of those that were
        chosen already does not matter. None: nothing is added to any, and any may follow.

        Args:
            chosen: the places of the actions that were drawn already, in their order.
        """
        ...


class HeardPage:
    """A page rule that remembers what it said, as a decision's record keeps it."""

    def __init__(self, rule: PageRule) -> None:
        """Listen to a rule while the slots of one decision are drawn, one after the other."""
        self._rule = rule
        self._said: list[Float64 | None] = []

    def after(self, chosen: Sequence[int]) -> Float64 | None:
        """Return what the rule says, as far as the log holds it; see PageRule."""
        offsets = self._rule.after(chosen)
        if offsets is not None:
            rounded = offsets.astype(STORED).astype(np.float64)
            offsets = rounded if rounded.any() else None  # NaN counts
        del self._said[len(chosen) :]
        self._said.append(offsets)
        return offsets

    def encoded(self, slots: int) -> bytes:
        """Return what was said of the slots that were drawn, float16[n, K]; see ``Ruled.page``.

        Args:
            slots: how many there are.
        """
        said = self._said[:slots]
        first = next((slot for slot, each in enumerate(said) if each is not None), slots)
        size = next((each.size for each in said if each is not None), 0)
        rows = [np.zeros(size) if each is None else each for each in said[first:]]
        return np.array(rows, STORED).tobytes()


class LoggedPage:
    """What a page rule said of one decision, read from its record."""

    def __init__(self, data: bytes, slots: int, actions: int) -> None:
        """Read what the record holds.

        Args:
            data: float16[n, K], of the last n slots.
            slots: how many were drawn.
            actions: K.
        """
        self._rows = np.frombuffer(data, STORED).reshape(-1, actions).astype(np.float64)
        self._first = slots - len(self._rows)

    def after(self, chosen: Sequence[int]) -> Float64 | None:
        """Return what was said after as many were drawn; see PageRule."""
        row = len(chosen) - self._first
        return None if row < 0 else self._rows[row]
