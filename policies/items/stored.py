"""The texts of a log's items: where each is among those of a base, or as it was changed since."""

import re
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from banditloop_client.schemas import Item
from policies.items.changes import decode_item

_MAY_BE_ABSENT = re.compile(rb'"available_|"hidden"')
"""Occurs in the bytes of each item that is not always offered."""


class StoredItems:
    """The items of a log as texts: those of its base in one, and each that has changed since.

    Args:
        encoded: the base, as a catalogue's blob holds it; its item i has row i as long as it has
            not changed.
    """

    def __init__(self, encoded: bytes) -> None:
        self.changed: dict[str, bytes] = {}
        self._encoded = encoded
        texts = msgspec.json.decode(encoded, type=list[msgspec.Raw])
        sizes = np.fromiter((len(memoryview(text)) for text in texts), np.int64, len(texts))
        self._starts: NDArray[np.int64] = np.ones(len(texts) + 1, np.int64)
        np.cumsum(sizes + 1, out=self._starts[1:])
        self._starts[1:] += 1

    def text(self, item_id: str, row: int) -> bytes:
        """Return an item's text.

        Args:
            item_id: one that is there.
            row: its row.
        """
        changed = self.changed.get(item_id)
        return self._of_base(row) if changed is None else changed

    def _of_base(self, place: int) -> bytes:
        return self._encoded[self._starts[place] : self._starts[place + 1] - 1]

    def perhaps_absent(self) -> Iterator[Item]:
        """Yield the items of the base that may not always be offered."""
        found = [match.start() for match in _MAY_BE_ABSENT.finditer(self._encoded)]
        places = np.unique(np.searchsorted(self._starts, found, side="right")) - 1
        return (decode_item(self._of_base(place)) for place in places.tolist())
