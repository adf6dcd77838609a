"""One version of the items of a timeline, looked up in what all of its versions share."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bandits.errors import MissingBlobError
from policies.items.catalogue import Catalogue

if TYPE_CHECKING:
    from policies.items.timeline import ItemTimeline

ABSENT = -1
"""The row of an item that is not there."""


class CatalogueVersion(Catalogue):
    """One version of a timeline, in the place of a catalogue of its own."""

    def __init__(self, timeline: "ItemTimeline", version: str, step: int) -> None:
        self.digest = version
        self._timeline, self._step = timeline, step
        self._features = timeline._table  # noqa: SLF001 - two parts of one thing
        self._rows = timeline._rows  # noqa: SLF001
        self._changed = timeline._changed  # noqa: SLF001
        self._count = timeline._counts[step - timeline._first]  # noqa: SLF001
        self._row = self._rows.get
        self._lacking = self._last = self._before = None

    def freeze(self) -> None:
        """Look rows up as of this version: later ones are about to come, or have."""
        self._row = self._row_then

    def rows(self, ids: Sequence[str]) -> NDArray[np.intp]:
        """Return the row of each id, -1 for one that is not here."""
        # What has not changed since is asked of the newest, which is faster.
        if self._row == self._row_then and self._step >= self._timeline._first:  # noqa: SLF001
            changed, row, then = self._changed, self._rows.get, self._row_then
            found = [then(each, ABSENT) if each in changed else row(each, ABSENT) for each in ids]
            return np.array(found, np.intp)
        return super().rows(ids)

    def _row_then(self, item_id: str, default: int) -> int:
        if self._step < self._timeline._first:  # noqa: SLF001
            raise MissingBlobError(f"version {self.digest} of the items is forgotten", "catalogue")
        history = self._changed.get(item_id)
        if history is None:
            return self._rows.get(item_id, default)
        # Most of those that ask do so of a version that is not much older than the newest.
        step, row = history[-1]
        if step > self._step:
            row = history[bisect_right(history, self._step, key=step_of) - 1][1]
        return default if row == ABSENT else row

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> tuple[str, ...]:  # type: ignore[override]
        """The items; those of the newest version in the order in which they came."""
        if self._row != self._row_then:
            return tuple(self._rows)
        every = dict.fromkeys((*self._rows, *self._changed))
        return tuple(item_id for item_id in every if item_id in self)


def step_of(change: tuple[int, int]) -> int:
    """Return the step from which on an item has a row: the first of the two."""
    return change[0]
