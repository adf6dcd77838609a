"""Items in pages: whoever reads all of them sees each that stays once, whatever changes."""

from hypothesis import given
from hypothesis import strategies as st

from bandits.log.records import ItemChange, ItemsRecord, LogEntry
from policies.items.catalogue import Catalogue, Item
from policies.items.changes import encode_item
from policies.items.listing import ItemListing
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
