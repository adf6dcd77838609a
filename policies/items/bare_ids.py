"""The ids of actions as clients send them, found without making an object of each.

A client sends the same ids again and again: their texts are kept, and found byte for byte. What is
new is remembered; what is written in another way, a decoder has to read.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from policies.items.catalogue import Catalogue
from policies.items.id_loops import enter_ids, find_bare_ids, find_distinct_ids
from policies.requests import MAX_ACTIONS

Cell = TypeVar("Cell", bound=np.generic)

MOST = 1 << 15
"""Ids that are kept; when there would be more, all are forgotten."""
ROOM = 1 << 12
"""Places of the table at first; it doubles."""
LEAST_BYTES = len('{"id":""},')
"""Bytes of an action whose id is empty: there are no more ids than fit."""
MOST_PASSED = 1 << 10
"""Calls that are passed over at most, where most ids are new each time: learning costs more."""


class FoundIds(NamedTuple):
    """The ids of one text, each once, and their rows in the catalogue, int64[K]; -1: none.

    ``are_known``: for certain each of them has a row, without a look at every one.
    """

    ids: list[str]
    rows: NDArray[np.int64]
    are_known: bool = False


class BareIds:
    """Finds ids in JSON arrays of objects that have an ``id`` and nothing else."""

    def __init__(self) -> None:
        self._passes = self._passed = self._mark = 0
        self._found, self._spans = _scratch(0)
        self._forget()

    def find(
        self, texts: Sequence[bytes | msgspec.Raw], catalogue: Catalogue
    ) -> list[FoundIds | None]:
        """Return the ids of each text; None where a decoder has to read it.

        Args:
            texts: of JSON.
            catalogue: the one that they are looked up in.
        """
        if self._passes:
            self._passes -= 1
            return [None] * len(texts)
        joined = b"".join(texts)
        starts = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(text) for text in texts], out=starts[1:])

        counts, numbers = self._numbers(joined, starts)
        bounds = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(np.maximum(counts, 0), out=bounds[1:])
        good = (counts > 0) & (counts <= MAX_ACTIONS)
        rows, ids = self._rows_in(catalogue)[numbers], self._objects[numbers].tolist()
        are_known = bool(rows.min(initial=0) >= 0)

        return [
            FoundIds(ids[begin:end], rows[begin:end], are_known) if is_good else None
            for is_good, (begin, end) in zip(good.tolist(), pairwise(bounds.tolist()), strict=True)
        ]

    def find_one(self, text: bytes, catalogue: Catalogue) -> FoundIds | None:
        """Return the ids of one text, none of which is empty; None where a decoder has to read it.

        It is much quicker than to ask for one of several, where all ids are known.

        Args:
            text: of JSON, not empty.
            catalogue: the one that they are looked up in.
        """
        if self._passes:
            self._passes -= 1
            return None
        data = np.frombuffer(text, np.uint8)
        room = self._room(data.size)

        self._mark += 1
        known = self._texts, self._bounds, self._table, *room, self._marks, self._mark
        rows = np.empty(self._found.size, np.int64)
        count = find_distinct_ids(data, *known, self._rows_in(catalogue), rows)
        if count < 0:
            (found,) = self.find([text], catalogue)
            return None if found is None or "" in found.ids else found
        if count > MAX_ACTIONS:
            return None
        return FoundIds(self._objects[self._found[:count]].tolist(), rows[:count], are_known=True)

    def _room(self, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return room for the ids of a text of so many bytes, which the next call uses again."""
        if size // LEAST_BYTES >= self._found.size:
            self._found, self._spans = _scratch(size)
        return self._found, self._spans

    def _numbers(
        self, joined: bytes, starts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return how many ids each text has, and the number of each, one after the other."""
        data = np.frombuffer(joined, np.uint8)
        found, spans = self._room(data.size)
        known = self._texts, self._bounds, self._table
        counts = find_bare_ids(data, starts, *known, found, spans, self._marks, self._next(starts))

        total = int(counts[counts > 0].sum())
        new = np.flatnonzero(found[:total] < 0)
        if not new.size:
            self._passed = 0
            return counts, found[:total]

        # Where most are new again and again, others are about to be new as well.
        if 2 * new.size > total and len(self._ids) > ROOM:
            self._passed = min(MOST_PASSED, 2 * self._passed + 1)
            self._passes = self._passed
        if len(self._ids) + new.size > MOST:
            self._forget()
            new = np.arange(total)
        texts = [joined[begin:end] for begin, end in spans[new].tolist()]
        self._learn(list(dict.fromkeys(texts)))
        known = self._texts, self._bounds, self._table
        again = find_bare_ids(data, starts, *known, found, spans, self._marks, self._next(starts))
        return again, found[: int(again[again > 0].sum())]

    def _next(self, starts: NDArray[np.int64]) -> int:
        """Return the first of as many marks as there are texts, which nobody has had."""
        self._mark += len(starts)
        return self._mark - len(starts) + 1

    def _forget(self) -> None:
        self._ids: list[str] = []
        self._objects: NDArray[Any] = np.zeros(ROOM, object)
        self._marks = np.zeros(ROOM, np.int64)
        self._texts, self._bounds = np.zeros(ROOM, np.uint8), np.zeros(ROOM, np.int64)
        self._table = np.full(ROOM, -1, np.int32)
        self._catalogue: Catalogue | None = None
        self._rows = np.zeros(0, np.int64)

    def _learn(self, texts: Sequence[bytes]) -> None:
        """Keep ids that are not known yet."""
        first, begin = len(self._ids), int(self._bounds[len(self._ids)])
        self._ids += [text.decode() for text in texts]
        count = len(self._ids)
        self._objects = _with_room(self._objects, count)
        self._marks = _with_room(self._marks, count)
        self._objects[first:count] = np.fromiter(self._ids[first:], object, count - first)

        # Their texts stand behind the others, in arrays that double where there is no room.
        joined = np.frombuffer(b"".join(texts), np.uint8)
        self._texts = _with_room(self._texts, begin + joined.size)
        self._texts[begin : begin + joined.size] = joined
        self._bounds = _with_room(self._bounds, count + 1)
        np.cumsum([len(text) for text in texts], out=self._bounds[first + 1 : count + 1])
        self._bounds[first + 1 : count + 1] += begin

        size = self._table.size
        while size < 2 * count:
            size *= 2
        if size > self._table.size:
            self._table, first = np.full(size, -1, np.int32), 0
        enter_ids(self._texts, self._bounds, self._table, first, count)

    def _rows_in(self, catalogue: Catalogue) -> NDArray[np.int64]:
        """Return the row of each id that is known."""
        known = self._rows if catalogue is self._catalogue else self._rows[:0]
        if len(known) < len(self._ids):
            new = catalogue.rows(self._ids[len(known) :])
            self._rows, self._catalogue = np.concatenate([known, new]), catalogue
        return self._rows


def _scratch(size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return room for the ids of a text of so many bytes, and for where each of them stands."""
    most = size // LEAST_BYTES + 1
    return np.empty(most, np.int64), np.empty((most, 2), np.int64)


def _with_room(array: NDArray[Cell], size: int) -> NDArray[Cell]:
    """Return an array that has room for so many, and begins as the one that is given."""
    if size <= array.size:
        return array
    larger = np.zeros(max(size, 2 * array.size), array.dtype)
    larger[: array.size] = array
    return larger
