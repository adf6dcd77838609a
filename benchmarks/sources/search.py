"""Looking for an item among a million: how long it takes, and how long others wait meanwhile.

    python -m benchmarks.sources.search [--items 1000000]

A catalogue of items with a title each, listed as a replica lists them for the console and for
``GET /v1/policies/{policy}/items``. Pages of 20: the first of all, which sorts them once; of titles
with a word that one in a thousand has; of a text that nobody has; of one that JSON writes otherwise,
so that each item is read; the last of all. Processor time, and the longest that the event loop was
held at a time: a goal of 100 ms. Garbage is collected as seldom as in a replica.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from benchmarks.table import Table
from policies.items.catalogue import Catalogue, Item
from policies.items.listing import ItemListing
from policies.items.timeline import ItemTimeline
from serve_app.host.environment import collect_rarely

HELD_MS, PAGE = 100.0, 20
WORDS = ("lamp", "table", "chair", "shelf", "rug")


def item(number: int) -> Item:
    """An item with a title."""
    rare = "rare" if number % 1000 == 7 else WORDS[number % len(WORDS)]
    title = f"The {WORDS[number % len(WORDS)]} of number {number}, {rare}"
    return Item(
        f"item-{number * 7919 % 1_000_003}", {"price": float(number % 97)}, {"title": title}
    )


async def asked(listing: ItemListing, after: str, contains: str) -> tuple[int, float, float]:
    """How many items a page has, its milliseconds, and the longest that others waited."""
    longest, done = 0.0, False

    async def others() -> None:
        nonlocal longest
        while not done:
            began = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - began)

    beside = asyncio.create_task(others())
    await asyncio.sleep(0)
    began = time.thread_time()
    items, _ = await listing.page(after, PAGE, contains)
    took, done = time.thread_time() - began, True
    await beside
    return len(items), 1000 * took, 1000 * longest


def main() -> int:
    """Measure, print, exit 1 if somebody waits for longer than the goal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    arguments = parser.parse_args()

    collect_rarely()
    listing = ItemListing(ItemTimeline(Catalogue(map(item, range(arguments.items)))))
    table = Table()
    for what, after, contains in (
        ("the first page", "", ""),
        ("the same again", "", ""),
        ("what one in a thousand has", "", "rare"),
        ("what a fifth has", "", "lamp"),
        ("what nobody has", "", "nothing of this"),
        ("what nobody has, not in ASCII", "", "näthing"),
        ("the last page", "item-99999", ""),
    ):
        count, ms, held = asyncio.run(asked(listing, after, contains))
        said = f"{count} items, {ms:,.0f} ms; held for {held:.1f} ms"
        table.add(f"{what}, of {arguments.items:,}", said, held, at_most=HELD_MS)
    return table.finish(arguments.out)


if __name__ == "__main__":
    sys.exit(main())
