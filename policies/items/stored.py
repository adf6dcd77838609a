"""The texts of a log's items: where each is among those of a base, or as it was changed since."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress, islice
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from banditloop_client.schemas import Item
from bandits.values import Value
from policies.items.changes import decode_item

PART = 2_000
"""Items read at a time: in between, the thread that answers requests gets its turns."""
NOBODY = -1

_MAY_BE_ABSENT = re.compile(rb'"available_|"hidden"')
"""Occurs in the bytes of each item that is not always offered."""


class StoredItems:
    """The items of a log as texts: those of its base in one, and each that has changed since.

    Args:
        encoded: the base, as a catalogue's blob holds it; its item i has row i as long as it has
            not changed.
        sizes: how many bytes each item has there, int64[n].
    """

    def __init__(self, encoded: bytes, sizes: NDArray[np.int64]) -> None:
        self.changed: dict[str, bytes] = {}
        self._encoded = encoded
        self._starts: NDArray[np.int64] = np.ones(sizes.size + 1, np.int64)
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

    def values(
        self, rows: Mapping[str, int], names: Sequence[str]
    ) -> Iterator[tuple[list[str], list[list[Any]]]]:
        """Yield items, PART at a time: their ids, and by name the value of a feature of each.

        Args:
            rows: by id, the row of each item that is there.
            names: the features; the value is None where an item lacks one.
        """
        ids, changed = list(rows), list(self.changed)
        every = iter(rows.values())
        parts = [np.fromiter(islice(every, PART), np.intp) for _ in range(0, len(ids), PART)]
        at = np.concatenate([np.zeros(0, np.intp), *parts])
        of_base = np.flatnonzero(at < len(self._starts) - 1)
        whose = np.full(len(self._starts) - 1, NOBODY)
        whose[at[of_base]] = of_base

        # Most features are not asked about: they are passed over.
        fields = [f"value_{number}" for number in range(len(names))]
        read = _values_decoder(dict(zip(fields, names, strict=True))).decode
        for first in range(0, whose.size, PART):
            owners = whose[first : first + PART]
            start, end = self._starts[first], self._starts[first + owners.size]
            there = (owners != NOBODY).tolist()
            items = compress(read(b"[" + self._encoded[start : end - 1] + b"]"), there)
            features = [item.features for item in items]
            values = [list(map(attrgetter(field), features)) for field in fields]
            yield [ids[owner] for owner in compress(owners.tolist(), there)], values

        for first in range(0, len(changed), PART):
            some = changed[first : first + PART]
            known = [decode_item(self.changed[item_id]).features for item_id in some]
            yield some, [[each.get(name) for each in known] for name in names]

    def with_text(self, needle: bytes) -> Iterator[list[tuple[int, bytes]]]:
        """Yield which items of the base may contain a text: row and JSON, PART items at a time.

        Args:
            needle: in small letters that JSON writes as they are.
        """
        for first in range(0, len(self._starts) - 1, PART):
            starts = self._starts[first : first + PART + 1]
            begin = int(starts[0])
            part = self._encoded[begin : int(starts[-1])]
            rows = list(range(len(starts) - 1))
            if _is_plain(part):
                places = [each.start() for each in re.finditer(re.escape(needle), part.lower())]
                found = np.searchsorted(starts, np.array(places, np.int64) + begin, "right") - 1
                rows = np.unique(found).tolist()
            yield [(first + row, self._of_base(first + row)) for row in rows]

    def changed_with(self, needle: bytes) -> Iterator[list[bytes]]:
        """Yield the JSON of the items that have changed and may contain a text; see ``with_text``.

        Args:
            needle: likewise.
        """
        texts = list(self.changed.values())
        for first in range(0, len(texts), PART):
            some = texts[first : first + PART]
            yield [each for each in some if not _is_plain(each) or needle in each.lower()]

    def perhaps_absent(self) -> Iterator[Item]:
        """Yield the items of the base that may not always be offered."""
        for first in range(0, len(self._starts) - 1, PART):
            starts = self._starts[first : first + PART + 1]
            begin = int(starts[0])
            part = self._encoded[begin : int(starts[-1])]
            found = [begin + match.start() for match in _MAY_BE_ABSENT.finditer(part)]
            places = np.unique(np.searchsorted(starts, found, side="right")) - 1
            yield from (decode_item(self._of_base(first + place)) for place in places.tolist())


def _values_decoder(names: Mapping[str, str]) -> "msgspec.json.Decoder[list[Any]]":
    """Return what reads some features of each item of a list.

    Args:
        names: by the attribute of ``features`` that has its value, the name of each.
    """
    features = msgspec.defstruct(
        "NamedFeatures",
        [(field, Value | None, None) for field in names],
        rename=dict(names),
        frozen=True,
        gc=False,
    )
    item = msgspec.defstruct(
        "ItemValues", [("features", features, features())], frozen=True, gc=False
    )
    return msgspec.json.Decoder(list[item])  # type: ignore[valid-type]


def _is_plain(text: bytes) -> bool:
    """Return whether JSON has each of its characters as it is."""
    return text.isascii() and b"\\" not in text
