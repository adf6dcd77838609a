"""Items in pages: whoever reads all of them sees each that stays once, whatever changes."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from bandits.log.records import ItemChange, ItemsRecord, LogEntry
from policies.items.catalogue import Catalogue, Item
from policies.items.changes import encode_item
from policies.items.listing import ItemListing, _contains
from policies.items.timeline import ItemTimeline

IDS = st.text("abcäÄ/ 1", min_size=1, max_size=3)


class Items:
    """A timeline and its listing, as a replica keeps them."""

    def __init__(self, *ids: str) -> None:
        self.timeline = ItemTimeline(Catalogue([Item(each) for each in ids]))
        self.listing = ItemListing(self.timeline)
        self.entries = 0

    def change(self, *changes: ItemChange) -> None:
        self.entries += 1
        entry = LogEntry(f"{self.entries}-0", ItemsRecord(list(changes)))
        assert self.timeline.apply(entry, lambda _: b"") == []
        self.listing.change([change.id for change in changes])

    def put(self, item: Item) -> None:
        self.change(ItemChange("put", item.id, encode_item(item)))

    def delete(self, item_id: str) -> None:
        self.change(ItemChange("delete", item_id))

    async def page(self, after: str = "", limit: int = 2, contains: str = ""):
        items, following = await self.listing.page(after, limit, contains)
        return [item.id for item in items], following

    async def all(self, limit: int = 2, contains: str = "") -> list[str]:
        found, after = await self.page("", limit, contains)
        while after is not None:
            more, after = await self.page(after, limit, contains)
            found += more
        return found


@given(
    st.lists(IDS, unique=True, max_size=8),
    st.lists(st.tuples(st.booleans(), IDS), max_size=12),
    st.integers(1, 4),
)
async def test_pages_are_all_there_is_in_order_after_any_changes(ids, steps, limit):
    items = Items(*ids)
    for puts, item_id in steps:
        await items.page(limit=limit)
        items.put(Item(item_id)) if puts else items.delete(item_id)
    assert await items.all(limit) == sorted(items.timeline)


async def test_what_changes_between_two_pages_shifts_none():
    items = Items("a", "b", "d", "e", "g")
    first, after = await items.page()
    assert (first, after) == (["a", "b"], "b")
    items.delete("a")
    items.delete("b")  # behind which the next page begins
    items.put(Item("c"))
    items.put(Item("aa"))
    assert await items.page(after) == (["c", "d"], "d")
    assert await items.page("d") == (["e", "g"], None)


async def test_a_search_looks_at_ids_and_metadata_in_capitals_or_not():
    items = Items("LAMP-1", "b", "c")
    items.put(Item("b", {}, {"title": "Eine Straße", "text": "x"}))
    items.put(Item("c", {"lamp": "lamp"}, {"title": "a small Lamp"}))
    assert await items.all(contains="lamp") == ["LAMP-1", "c"]
    assert await items.all(contains="STRASSE") == ["b"]
    assert await items.all(contains="nothing of this") == []
    items.put(
        Item("d", {"brand": "small"}, {"title": 'in "quotes"\n', "text": "5 \N{KELVIN SIGN}"})
    )
    assert await items.all(contains='"QUOTES"') == await items.all(contains="5 k") == ["d"]
    assert await items.all(contains="small") == ["c"], "a feature is not looked at"


async def test_a_search_among_many_items_lets_others_have_their_turns():
    """Sorting them for the first time and looking through all of them are done in small parts."""
    ids = [f"i{(7919 * number) % 20_011}" for number in range(20_000)]
    items, turns = Items(*ids), 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    try:
        first, after = await items.page(limit=3)
        assert (first, after) == (sorted(ids)[:3], sorted(ids)[2])
        sorting = turns
        assert await items.page(contains="nothing") == ([], None)
        searching = turns
        assert await items.page(contains="nöthing") == ([], None)
    finally:
        beside.cancel()
    assert sorting >= 20
    assert searching - sorting >= 10
    assert turns - searching >= 19


async def test_what_is_put_while_ids_are_sorted_for_the_first_time_is_listed():
    items = Items(*(f"i{number}" for number in range(5_000)))
    listing = asyncio.create_task(items.page(limit=1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    items.put(Item("a new one"))
    await listing
    assert await items.all(limit=2_000) == sorted(items.timeline)


@given(
    st.lists(st.tuples(IDS, st.text('aÄ"k\N{KELVIN SIGN} ', max_size=3)), max_size=12),
    st.lists(st.tuples(st.booleans(), IDS, st.text("aÄk", max_size=2)), max_size=8),
    st.sampled_from(["a", "ak", "k a", '"', "ä", "/"]),
    st.integers(1, 3),
)
async def test_a_search_finds_what_looking_at_each_item_finds(begun, steps, wanted, limit):
    """Of the items that the log began with, and of those that have changed since."""
    first = {item_id: Item(item_id, {"a": "a k"}, {"title": title}) for item_id, title in begun}
    items = Items()
    items.timeline = ItemTimeline(Catalogue(list(first.values())))
    items.listing = ItemListing(items.timeline)
    for puts, item_id, title in steps:
        items.put(Item(item_id, {}, {"title": title})) if puts else items.delete(item_id)
    every = (items.timeline.item(item_id) for item_id in sorted(items.timeline))
    assert await items.all(limit, wanted) == [
        item.id for item in every if item is not None and _contains(item, wanted)
    ]
