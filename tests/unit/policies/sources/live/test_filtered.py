"""Sources over the items of now look only at what a request's filters admit, at once."""

import asyncio

import numpy as np
import pytest

from bandits.log.records import ItemChange, ItemsRecord, LogEntry
from bandits.log.trends import Trends, encode_trends
from bandits.types import Snapshot
from policies.items.catalogue import Catalogue
from policies.items.changes import encode_item
from policies.items.offering import Offering
from policies.items.timeline import ItemTimeline
from policies.requests import Item
from policies.rules.ruled_items import Asked, RuledItems
from policies.rules.ruling import Admission
from policies.sources import load_sources
from policies.sources.base import Candidates, SourceRequest
from policies.sources.live import vector_index
from policies.spec import ContentSource, FreshSource, TrendingSource, spec_of

N, LIMIT = 300, 10
FILTER = "item.stock > 0 && context.region in item.regions"
CONFIGS = [
    FreshSource("new", "7d"),
    ContentSource("looks", vector="look"),
    TrendingSource("now", "1h"),
]


def item(number: int, rng: np.random.Generator, stock: float | None = None) -> Item:
    features = {
        "stock": float(rng.integers(3)) if stock is None else stock,
        "regions": [f"r{region}" for region in rng.choice(20, 2, replace=False).tolist()],
        "genre": f"g{number % 4}",
    }
    return Item(f"i{number}", features, vectors={"look": rng.normal(size=4).tolist()})


def trends_of(ids: list[str]) -> Snapshot:
    trends = Trends(3_600_000)
    for count, item_id in enumerate(ids, 1):
        for _ in range(count % 50):
            trends.add(item_id, 0)
    return Snapshot("ridge", "1-0", 0, b"", trends=encode_trends([trends], 0))


class Shop:
    """Items that come and go, and a source over them: one is asked with filters, one without."""

    def __init__(self, config) -> None:
        self.rng = np.random.default_rng(1)
        rules = spec_of({"name": "home", "filter": FILTER}).rules
        assert rules is not None
        self.timeline = ItemTimeline(Catalogue.put([item(n, self.rng) for n in range(N)]))
        self.ruled = RuledItems(rules)
        self.offerings = [
            Offering(self.timeline.newest, self.timeline, clock=lambda: 1.0, ruled=ruled)
            for ruled in (self.ruled, RuledItems(rules))
        ]
        [loaded] = load_sources(None, [config]).values()
        if isinstance(config, TrendingSource):
            loaded.learn(trends_of([f"i{n}" for n in range(0, N, 2)]))
        self.filtered, self.unfiltered = map(loaded.over, self.offerings)

    def change(self, *changes: ItemChange) -> None:
        self.timeline.apply(LogEntry("1-0", ItemsRecord([*changes])), {}.__getitem__)
        changed = [each.id for each in changes]
        for offering, source in zip(self.offerings, (self.filtered, self.unfiltered), strict=True):
            offering.change(self.timeline.newest, self.timeline, changed)
            source.update(changed)

    async def check(self, region: str) -> Candidates:
        """The best that are admitted, of all that are proposed without the filter, in its order."""
        asked = Asked({"region": region}, dict, 0)
        admission = Admission(self.ruled, asked)
        await admission.look_at_all()
        history = ("i1", "i2")
        found = await self.filtered.candidates(
            SourceRequest(history=history, admission=admission), LIMIT
        )
        assert found.admitted or not found.ids

        every = await self.unfiltered.candidates(SourceRequest(history=history), 2 * N)
        admitted = self.ruled.admits(self.ruled.rows(every.ids), asked)
        expected = np.flatnonzero(admitted)[:LIMIT]
        assert set(found.ids) == {every.ids[at] for at in expected.tolist()}
        np.testing.assert_allclose(found.scores, every.scores[expected], rtol=1e-5)
        return found


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("blocks", [False, True])
def test_the_best_of_what_is_admitted_is_proposed_as_items_come_and_go(config, blocks, monkeypatch):
    if blocks:
        monkeypatch.setattr(vector_index, "EXACT_UP_TO", 50)
    shop = Shop(config)
    assert asyncio.run(shop.check("r1")).ids
    for number in range(N, N + 80):
        put = item(number, shop.rng, 1.0)
        shop.change(ItemChange("put", put.id, encode_item(put)))
    again = item(5, shop.rng, 1.0)
    shop.change(ItemChange("delete", "i3"), ItemChange("put", again.id, encode_item(again)))
    for region in ("r1", "r2", "r19"):
        asyncio.run(shop.check(region))
    assert not asyncio.run(shop.check("nowhere")).ids
