"""Vectors of items that come and go, and those with the highest product with a user's.

Up to EXACT_UP_TO items every product is computed. Of more, most lie in blocks
(``policies.sources.blocks``), and what has come or changed since these were arranged is looked at
one by one, until they are arranged anew.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32
from policies.sources.blocks import Blocks
from policies.sources.highest import Admits, highest
from policies.sources.live.products import (
    best_first,
    nearest_rows,
    products_of,
    rows_of_places,
)
from policies.sources.loops import best_places
from policies.training.blocks import arrange

EXACT_UP_TO: Final = 100_000
"""Items of which every one is looked at."""
LEAST_ROOM: Final = 64
"""Vectors for which there is room at first; it doubles."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldVectors:
    """The items of an index at one moment: their ids, float32[n, d], and bool[n] whether open."""

    ids: tuple[str, ...]
    vectors: Float32
    open: NDArray[np.bool_]


class VectorIndex:
    """Items by their vectors; only those that are open are found.

    Rows below that of the first loose vector are in blocks. To put, open, close or drop an item
    costs the same however many there are.

    Args:
        held: what it begins with.
        least: an item whose product with a user's vector is not above is not found.
        places: the places of items that are asked for by these, in some order.
    """

    def __init__(
        self, held: HeldVectors, least: float = 0.0, places: Mapping[str, int] | None = None
    ) -> None:
        count, size = held.vectors.shape
        self.size, self._least = size, least
        self.open_count = int(held.open.sum())
        self._rows = {item_id: row for row, item_id in enumerate(held.ids)}
        self._ids: list[str] = list(held.ids)

        # The row of each place, and behind them that of no place.
        self._places = {} if places is None else places
        self._row_at = np.full(len(self._places) + 1, -1, np.intp)
        at = np.fromiter(map(self._places.get, held.ids, repeat(-1)), np.intp, count)
        self._row_at[at] = np.arange(count)
        self._row_at[-1] = -1

        # Of loose vectors a shade is added to the products: -inf if they are not open.
        self._free: list[int] = []
        self._blocks: Blocks | None = None
        if count > EXACT_UP_TO:
            arranged = arrange(held.vectors, seed=0)
            self._blocks = Blocks(held.vectors, arranged["order"], arranged["starts"])
            self._part = self._blocks.part(np.flatnonzero(~held.open))
            self._part_open = held.open.copy()
            held = HeldVectors((), held.vectors[:0], held.open[:0])

        self._first_loose: int = count - len(held.vectors)
        self._loose = held.vectors.copy()
        self._shade = np.where(held.open, 0.0, -np.inf).astype(np.float32)
        self._loose_count = len(self._loose)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._rows

    @property
    def is_due(self) -> bool:
        """Whether so many vectors are loose that it is time to arrange them all anew."""
        most = EXACT_UP_TO if self._blocks is None else EXACT_UP_TO // 5 + self._first_loose // 32
        return self._loose_count - len(self._free) > most

    def put(self, item_id: str, vector: Float32, *, is_open: bool) -> None:
        """Let an item have this vector.

        Args:
            item_id: new, or one that had another.
            vector: float32[size].
            is_open: whether it may be found.
        """
        row = self._rows.get(item_id)
        if row is not None and (self._vector(row) == vector).all():
            self._set_open(row, is_open=is_open)
            return

        if row is None or row < self._first_loose:
            if row is not None:
                self._set_open(row, is_open=False)
            row = self._new_row(item_id)
            self._note(item_id, row)
        self._loose[row - self._first_loose] = vector
        self._set_open(row, is_open=is_open)

    def set_open(self, item_id: str, *, is_open: bool) -> None:
        """Let an item be found, or not; nothing happens to one that is not here."""
        row = self._rows.get(item_id)
        if row is not None:
            self._set_open(row, is_open=is_open)

    def drop(self, item_id: str) -> None:
        """Forget an item, if it is here."""
        row = self._rows.pop(item_id, None)
        if row is not None:
            self._note(item_id, None)
            self._set_open(row, is_open=False)
            if row >= self._first_loose:
                self._free.append(row)

    def _note(self, item_id: str, row: int | None) -> None:
        """Keep which row an item has."""
        if row is not None:
            self._rows[item_id] = row
        place = self._places.get(item_id)
        if place is not None:
            self._row_at[place] = -1 if row is None else row

    @property
    def ids(self) -> Sequence[str]:
        """The item of each row, also of one that is free."""
        return self._ids

    def rows(self, ids: Sequence[str]) -> NDArray[np.intp]:
        """Return the row of each item, int[n]; -1 for one that is not here."""
        return np.fromiter(map(self._rows.get, ids, repeat(-1)), np.intp, len(ids))

    def rows_at(self, places: NDArray[np.intp]) -> tuple[NDArray[np.intp], int, int]:
        """Return the row of the item at each place, int[n], -1 of one that is not here.

        And how many have none, and how many of these no place.

        Args:
            places: int[n], -1 for none.
        """
        return rows_of_places(self._row_at, places)

    def row(self, item_id: str) -> int | None:
        """Return the row of an item; None of one that is not here."""
        return self._rows.get(item_id)

    def _vector(self, row: int) -> Float32:
        at = row - self._first_loose
        known: Float32 = self._loose[at] if at >= 0 else self.vectors(np.array([row]))[0]
        return known

    def vectors(self, rows: NDArray[np.intp]) -> Float32:
        """Return the vectors of rows, float32[n, size]."""
        if self._blocks is None:
            loose_rows: Float32 = self._loose.take(rows, axis=0)
            return loose_rows

        found = np.empty((rows.size, self.size), np.float32)
        loose = rows >= self._first_loose
        found[loose] = self._loose[rows[loose] - self._first_loose]
        if not loose.all():
            found[~loose] = self._blocks.rows(rows[~loose])
        return found

    def nearest(
        self,
        user: Float32,
        barred: NDArray[np.intp],
        limit: int,
        admitted: NDArray[np.bool_] | None = None,
        admits: Admits | None = None,
    ) -> tuple[tuple[str, ...], Float32]:
        """Return up to ``limit`` open items with the highest products, best first.

        Ties stand in the order of their rows. A product is the same bytes as ``products`` gives it.

        Args:
            user: float32[size].
            barred: rows that are left out.
            limit: how many at most.
            admitted: bool[rows], those that may be found; None: all.
            admits: says which rows of these may be found, the nearest first; None: all.
        """
        user = np.ascontiguousarray(user, np.float32)
        products = self._loose[: self._loose_count] @ user
        first, shade = self._first_loose, self._shade[: self._loose_count]
        part = self._part if self._blocks is not None else None
        if admitted is not None:
            end = self._first_loose + self._loose_count
            products[~admitted[self._first_loose : end]] = -np.inf
            if self._blocks is not None:
                part = self._blocks.narrowed(part, admitted[: self._first_loose])
        left_out = barred if not first else barred[barred >= first] - first
        least, ids = np.float32(self._least), self._ids
        if admits is None and self._blocks is None:
            rows, exact = nearest_rows(products, self._loose, shade, left_out, user, limit, least)
            return tuple(map(ids.__getitem__, rows.tolist())), exact
        if admits is None:
            rows = best_places(products, shade, left_out, limit, least) + first
        else:
            products += shade
            products[left_out] = -np.inf
            rows = highest(products, limit, lambda at: admits(at + first))
            rows = rows[products[rows] > self._least] + first

        if self._blocks is not None:
            known = barred[barred < self._first_loose]
            near, _ = self._blocks.nearest(user, known, limit, part, admits)
            rows = np.concatenate([rows, near])

        exact = self.products(rows, user)
        order = best_first(exact, rows, least, limit)
        return tuple([ids[row] for row in rows[order].tolist()]), exact[order]

    def products(self, rows: NDArray[np.intp], user: Float32) -> Float32:
        """Return the product of each row's vector with a user's, float32[n]; NaN for a row of -1.

        Args:
            rows: int[n].
            user: float32[size].
        """
        if self._blocks is None:
            return products_of(self._loose, rows, np.ascontiguousarray(user, np.float32))
        found = np.full(rows.size, np.nan, np.float32)
        here = rows >= 0
        found[here] = np.vecdot(self.vectors(rows[here]), user)
        return found

    def held(self) -> HeldVectors:
        """Return all items with their vectors, as they are now.

        It may be called in a thread: what is true of an item that changes meanwhile is not told.
        """
        here = list(self._rows.items())
        ids, rows = tuple(each[0] for each in here), np.array([each[1] for each in here], np.intp)
        loose = rows >= self._first_loose
        is_open = np.empty(rows.size, np.bool_)
        is_open[loose] = self._shade[rows[loose] - self._first_loose] == 0
        if self._blocks is not None:
            is_open[~loose] = self._part_open[rows[~loose]]
        return HeldVectors(ids, self.vectors(rows), is_open)

    def adopt(self, other: "VectorIndex", changed: Collection[str]) -> None:
        """Have the items that have changed as another index has them.

        Args:
            other: the index that was at work meanwhile.
            changed: the items.
        """
        for item_id in changed:
            row = other._rows.get(item_id)  # noqa: SLF001 - its own class
            if row is None:
                self.drop(item_id)
            else:
                vector = other.vectors(np.array([row]))[0]
                self.put(item_id, vector, is_open=other._is_open(row))  # noqa: SLF001

    def _new_row(self, item_id: str) -> int:
        if self._free:
            row = self._free.pop()
            self._ids[row] = item_id
            return row

        if self._loose_count == len(self._loose):
            room = max(LEAST_ROOM, 2 * self._loose_count)
            self._loose = _enlarged(self._loose, (room, self.size))
            self._shade = _enlarged(self._shade, (room,))
        self._shade[self._loose_count] = -np.inf
        self._loose_count += 1
        self._ids.append(item_id)
        return self._first_loose + self._loose_count - 1

    def _is_open(self, row: int) -> bool:
        at = row - self._first_loose
        return bool(self._part_open[row] if at < 0 else self._shade[at] == 0)

    def _set_open(self, row: int, *, is_open: bool) -> None:
        if is_open == self._is_open(row):
            return
        at = row - self._first_loose
        self.open_count += 1 if is_open else -1
        if at < 0:
            self._part_open[row] = is_open
            self._part.change(row, held=is_open)
        else:
            self._shade[at] = 0.0 if is_open else -np.inf


def _enlarged(array: Float32, shape: tuple[int, ...]) -> NDArray[Any]:
    larger = np.zeros(shape, np.float32)
    larger[: len(array)] = array
    return larger
