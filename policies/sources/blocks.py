"""The items with the highest product with a user's factors, without computing every product.

Item factors lie in blocks of similar rows, side by side in memory (``policies.training.blocks``
arranges them). A block's mean and reach tell what its best item may be worth, and only the most
promising blocks are looked at: approximate, at a few percent of the work
(docs/explanation/sources.md).
"""

from bisect import bisect_right
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArtifactError
from bandits.types import Float32
from policies.sources.highest import MOST_ASKED, Admits, highest, of_places

LOOK_AT: Final = 160
"""Blocks that are looked at, if they hold candidates enough."""
SPARSE: Final = 0.3
"""Share of the items below which those that may be proposed are multiplied one by one."""


class ItemSubset:
    """Some of the items: ``places`` bool[items], in the order of memory.

    Args:
        place: int[items], the place in memory of each item.
        starts: int[blocks + 1], the place at which each block begins.
        places: bool[items], which are among them, in the order of memory.
    """

    def __init__(
        self, place: NDArray[Any], starts: NDArray[Any], places: NDArray[np.bool_]
    ) -> None:
        self._place, self._starts = place, starts
        self.places = places
        self._counts = np.add.reduceat(places, starts[:-1], dtype=np.intp)
        self._count = int(self._counts.sum())
        self._blocks: NDArray[np.intp] | None = None
        self._bounds: list[int] | None = None
        self._held: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None

    @property
    def blocks(self) -> NDArray[np.intp]:
        """The blocks that hold any of them, ascending."""
        if self._blocks is None:
            self._blocks = np.flatnonzero(self._counts)
        return self._blocks

    @property
    def share(self) -> float:
        """How many of all items they are, as a part of one."""
        return self._count / self.places.size

    def held(self, blocks: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the places of those of them that are in some blocks, ascending.

        Args:
            blocks: ascending.
        """
        if self._held is None:
            places = np.flatnonzero(self.places)
            self._held = places, np.append(0, np.cumsum(self._counts))
        places, ends = self._held
        if blocks.size == self.blocks.size:
            return places
        held: NDArray[np.intp] = places[_stretches(ends[blocks], ends[blocks + 1])]
        return held

    def change(self, item: int, *, held: bool) -> None:
        """Let an item be one of them, or none.

        Args:
            item: its place among the source's items.
            held: whether it is one of them.
        """
        # Numbers are taken out of arrays before they are compared: that is several times as fast.
        at = self._place.item(item)
        if self.places.item(at) == held:
            return
        self.places[at] = held
        if self._bounds is None:
            self._bounds = self._starts.tolist()
        block, one = bisect_right(self._bounds, at) - 1, 1 if held else -1
        self._counts[block] = count = self._counts.item(block) + one
        self._count += one
        self._held = None

        # Blocks come and go with their first and last item.
        if count == (1 if held else 0):
            self._blocks = None


def _stretches(begin: NDArray[Any], end: NDArray[Any]) -> NDArray[np.intp]:
    """Return the numbers of some stretches, one after the other: from each begin before its end."""
    offsets = np.append(0, np.cumsum(end - begin))
    numbers: NDArray[np.intp] = np.arange(offsets[-1])
    numbers += np.repeat(begin - offsets[:-1], end - begin)
    return numbers


class Blocks:
    """Item factors float32[items, d], rearranged in blocks.

    Block ``b`` is the items ``order[starts[b]:starts[b + 1]]``. ``order``: int32[items], each item
    once; ``starts``: int32[blocks + 1], ascending from 0 to the number of items. An item's product
    is the same bytes whatever it is computed with.

    Raises:
        ArtifactError: ``order`` or ``starts`` is not that.
    """

    def __init__(self, factors: Float32, order: NDArray[Any], starts: NDArray[Any]) -> None:
        items = len(factors)
        if order.dtype.kind != "i" or not np.array_equal(np.sort(order), np.arange(items)):
            raise ArtifactError(f"order must hold each of the {items} items once", "order")
        if (
            starts.dtype.kind != "i"
            or starts.size < 2
            or starts[0]
            or starts[-1] != items
            or np.diff(starts).min() < 1
        ):
            raise ArtifactError(
                f"starts must ascend from 0 to {items}, the number of items", "starts"
            )

        self._order, self._starts = order, starts
        self._place = np.empty_like(order)
        self._place[order] = np.arange(items, dtype=order.dtype)
        self._rows = factors[order]
        self._means = (
            np.add.reduceat(self._rows, starts[:-1]) / np.diff(starts).astype(np.float32)[:, None]
        )

        # A block's reach is the distance of its farthest row from the mean, as if it were spread
        # evenly over the dimensions.
        self._reach = np.empty(starts.size - 1, np.float32)
        for b, mean in enumerate(self._means):
            apart = self._rows[starts[b] : starts[b + 1]] - mean
            self._reach[b] = np.sqrt(np.vecdot(apart, apart).max() / mean.size)

        self._lengths = np.maximum(np.sqrt(np.vecdot(self._rows, self._rows)), np.float32(1e-12))
        means = np.sqrt(np.vecdot(self._means, self._means))
        self._directions = self._means / np.maximum(means, np.float32(1e-12))[:, None]

    def rows(self, items: NDArray[Any]) -> Float32:
        """Return the factors of these items, float32[n, d]."""
        rows: Float32 = self._rows[self._place[items]]
        return rows

    def products(self, items: NDArray[Any], user: Float32) -> Float32:
        """Return the product of each item with a user's factors, float32[n].

        Args:
            items: int[n], their places in ``factors``, in any order.
            user: float32[d], what an item's factors are multiplied by.
        """
        products: Float32 = np.vecdot(self.rows(items), user)
        return products

    def all_products(self, user: Float32) -> Float32:
        """Return the products of all items with a user's factors, float32[items]."""
        products: Float32 = np.vecdot(self._rows, user)[self._place]
        return products

    def part(self, lacking: NDArray[Any]) -> ItemSubset:
        """Return all items but those."""
        places = np.ones(self._place.size, np.bool_)
        places[self._place[lacking]] = False
        return ItemSubset(self._place, self._starts, places)

    def narrowed(self, part: ItemSubset | None, admitted: NDArray[np.bool_]) -> ItemSubset:
        """Return those of a part that are admitted.

        Args:
            part: some items; None: all.
            admitted: bool[items].
        """
        places = admitted[self._order]
        if part is not None:
            places &= part.places
        return ItemSubset(self._place, self._starts, places)

    def nearest(
        self,
        user: Float32,
        barred: NDArray[Any],
        limit: int,
        part: ItemSubset | None = None,
        admits: Admits | None = None,
    ) -> tuple[NDArray[Any], Float32]:
        """Return about ``limit`` items with the highest products, in no order, and the products.

        There are more if several share the last place, and fewer only if there are no more.

        Args:
            user: factors, float32[d].
            barred: items that are left out.
            limit: how many are wanted.
            part: the only items that may be found; None for all.
            admits: says which items of these may be found, the nearest first; None: all.
        """
        # What the best item of a block may be worth.
        hoped = self._means @ user + np.sqrt(user @ user) * self._reach
        return self._nearest(hoped, user, barred, limit, part, admits)

    def alike(
        self,
        item: int,
        limit: int,
        part: ItemSubset | None = None,
        admits: Admits | None = None,
    ) -> tuple[NDArray[Any], Float32]:
        """Return about ``limit`` items whose factors have the highest cosine with those of one.

        As ``nearest``, in no order, with the cosines. Those of one cluster have one direction.

        Args:
            item: the one, which is not found.
            limit: how many are wanted.
            part: the only items that may be found; None for all.
            admits: says which items of these may be found, the most alike first; None: all.
        """
        row: Float32 = self._rows[self._place[item]]
        unit = row / max(np.sqrt(row @ row), np.float32(1e-12))
        barred = np.array([item])
        hoped = self._directions @ unit
        return self._nearest(hoped, unit, barred, limit, part, admits, self._lengths)

    def _nearest(
        self,
        hoped: Float32,
        user: Float32,
        barred: NDArray[Any],
        limit: int,
        part: ItemSubset | None,
        admits: Admits | None,
        lengths: Float32 | None = None,
    ) -> tuple[NDArray[Any], Float32]:
        """Return the items with the highest products in the blocks of which most is hoped.

        Args:
            hoped: float32[blocks], which blocks are looked at.
            user: what an item's factors are multiplied by.
            barred: items that are left out.
            limit: how many are wanted.
            part: the only items that may be found; None for all.
            admits: says which items of these may be found; None: all.
            lengths: float32[items], in the order of memory, that products are divided by.
        """
        blocks, count = np.arange(hoped.size), LOOK_AT
        if part is not None:
            # So many more blocks are looked at that as many items of the part are.
            blocks, hoped = part.blocks, hoped[part.blocks]
            count = int(LOOK_AT / max(part.share, 1e-9))

        # The most promising blocks, and four times as many while they hold too few.
        closed = np.unique(self._place[barred])
        while True:
            best = blocks
            if count < hoped.size:
                best = np.sort(blocks[np.argpartition(hoped, -count)[-count:]])
            items, products = self._look(best, user, closed, part, lengths)

            at = highest(products, limit, None if admits is None else of_places(items, admits))
            enough = at.size >= limit or (admits is not None and items.size >= MOST_ASKED)
            if enough or best is blocks:
                return items[at], products[at]
            count *= 4

    def _look(
        self,
        blocks: NDArray[Any],
        user: Float32,
        closed: NDArray[Any],
        part: ItemSubset | None,
        lengths: Float32 | None,
    ) -> tuple[NDArray[Any], Float32]:
        """Return the items of these blocks and their products, without the places ``closed``.

        ``blocks`` and ``closed`` ascend. Products are divided by ``lengths``, if there are any.
        """
        if not blocks.size:
            return self._order[:0], np.zeros(0, np.float32)

        if part is not None and part.share < SPARSE:
            places = part.held(blocks)
            products: Float32 = np.vecdot(self._rows[places], user)
        else:
            # Neighbouring blocks are one stretch of memory.
            breaks = np.flatnonzero(np.diff(blocks) > 1)
            begin = self._starts[blocks[np.append(0, breaks + 1)]]
            end = self._starts[blocks[np.append(breaks, blocks.size - 1)] + 1]
            offsets = np.append(0, np.cumsum(end - begin))
            places = _stretches(begin, end)
            products = np.empty(offsets[-1], np.float32)
            edges = zip(
                begin.tolist(),
                end.tolist(),
                offsets[:-1].tolist(),
                offsets[1:].tolist(),
                strict=True,
            )
            for i, j, a, b in edges:
                np.vecdot(self._rows[i:j], user, out=products[a:b])

        # Without what is not in the part, or closed.
        kept = np.ones(places.size, np.bool_) if part is None else part.places[places]
        at = np.searchsorted(places, closed)
        met = at < places.size
        met[met] = places[at[met]] == closed[met]
        kept[at[met]] = False
        if lengths is not None:
            products /= lengths[places]
        return self._order[places[kept]], products[kept]
