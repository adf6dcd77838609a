"""The items of a timeline in pages, in the order of their ids: stable while items change."""

import asyncio
import re
from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Final

from banditloop_client.schemas import Item
from policies.items.changes import decode_item
from policies.items.timeline import ItemTimeline

LOOKED_AT = 1_000
"""Items that are put in order before other requests get their turn: a thousandth of a second."""
DECODED = 250
"""Items that a search decodes before other requests get their turn: the same."""
_IN_JSON = re.compile(r"[ !#-\[\]-~]+")
"""Texts that stand in JSON as they are."""
MANY: Final = 10_000
"""Items that are no longer rare."""
FEW: Final = 20
"""Ids that are put in their places one by one, though each has all behind it moved."""


class ItemListing:
    """Lists a timeline's items as they are now.

    A page begins behind an id, whether or not there is such an item: so one that is put or deleted
    in between shifts no page, and whoever reads all of them sees each item once that stays.
    """

    def __init__(self, timeline: ItemTimeline) -> None:
        """List the items of ``timeline``."""
        self._timeline = timeline
        self._ids: list[str] | None = None
        self._new: dict[str, None] = {}
        self._notes = False
        self._sorting = asyncio.Lock()

    def change(self, changed: Iterable[str]) -> None:
        """Take note of items that were put, patched or deleted."""
        if self._notes:
            self._new.update(dict.fromkeys(changed))

    async def _sorted(self) -> list[str]:
        """Return the ids in order, those of items among them that are gone."""
        async with self._sorting:
            if self._ids is None or len(self._ids) > 2 * len(self._timeline) + LOOKED_AT:
                self._new.clear()
                self._notes = True  # of what changes meanwhile, too
                self._ids = await _sorted_in_turns(list(self._timeline))

            new = [item_id for item_id in self._new if not self._lists(item_id)]
            self._new.clear()
            if new:  # another list: pages that are being read go on with theirs
                self._ids = _with(self._ids, new)
            return self._ids

    def _lists(self, item_id: str) -> bool:
        ids = self._ids or []
        at = bisect_right(ids, item_id)
        return at > 0 and ids[at - 1] == item_id

    async def page(self, after: str, limit: int, contains: str) -> tuple[list[Item], str | None]:
        """Return items, and the id behind which the next page begins; None: there is no more.

        Args:
            after: the id to begin behind.
            limit: how many items at most.
            contains: what their ids or metadata contain, in capitals or not.
        """
        wanted = contains.casefold()
        if _IN_JSON.fullmatch(wanted):
            rare = await self._rare(wanted, after)
            if rare is not None:
                return rare[:limit], rare[limit - 1].id if len(rare) > limit else None

        ids = await self._sorted()
        found: list[Item] = []
        for at in range(bisect_right(ids, after) if after else 0, len(ids)):
            if at % DECODED == DECODED - 1:
                await asyncio.sleep(0)
            item = self._timeline.item(ids[at])
            if item is None or (wanted and not _contains(item, wanted)):
                continue

            if len(found) == limit:
                return found, found[-1].id
            found.append(item)
        return found, None

    async def _rare(self, wanted: str, after: str) -> list[Item] | None:
        """Return the items past an id that contain a text, in order; None: they are many.

        Their JSON is looked through, and hardly any is decoded. Where many contain it, a page of
        them is found sooner one by one.

        Args:
            wanted: in small letters that JSON writes as they are.
            after: the id.
        """
        found: dict[str, Item] = {}
        for texts in self._timeline.with_text(wanted.encode()):
            for item in map(decode_item, texts):
                if item.id > after and _contains(item, wanted):
                    found[item.id] = item
            if len(found) > MANY:
                return None
            await asyncio.sleep(0)

        # Some may have gone meanwhile.
        there = (item for item in found.values() if item.id in self._timeline)
        return sorted(there, key=attrgetter("id"))


async def _sorted_in_turns(ids: Sequence[str]) -> list[str]:
    """Return ids in order; other requests get their turns while there are many."""
    if len(ids) <= LOOKED_AT:
        return sorted(ids)

    # Some of them part the others into lists that are short enough to be sorted at once.
    bounds = sorted(ids[:: 1 + len(ids) // LOOKED_AT])
    parts: list[list[str]] = [[] for _ in range(len(bounds) + 1)]
    for at, item_id in enumerate(ids):
        parts[bisect_right(bounds, item_id)].append(item_id)
        if at % LOOKED_AT == LOOKED_AT - 1:
            await asyncio.sleep(0)

    out: list[str] = []
    for part in parts:
        part.sort()
        out += part
        await asyncio.sleep(0)
    return out


def _with(ids: list[str], new: Sequence[str]) -> list[str]:
    """Return another list of ids in order, with some more."""
    if len(new) > FEW:
        return sorted([*ids, *sorted(new)])
    out = ids.copy()
    for item_id in new:
        insort(out, item_id)
    return out


def _contains(item: Item, wanted: str) -> bool:
    return any(wanted in text.casefold() for text in (item.id, *item.metadata.values()))
