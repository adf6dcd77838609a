"""Many items whose time comes, or is over, at one moment: no request waits for all of them."""

from datetime import UTC, datetime
from math import inf
from typing import Any

import pytest
from support.spaces import until_true

from bandits.errors import NoCandidatesError
from policies.asker import Asker
from policies.items.catalogue import Catalogue, Item
from policies.items.timeline import ItemTimeline
from policies.offered import AT_ONCE
from policies.proposers import Proposers
from policies.requests import RankRequest
from policies.sources import load_sources
from policies.sources.source_set import SourceSet
from policies.spec import FreshSource, PolicySpec

NOON_S = 1_800_000_000.0
NOON = datetime.fromtimestamp(NOON_S, UTC)
MANY = 10 * AT_ONCE


class Sale:
    """Proposers of the newest items, at a time that a test sets."""

    def __init__(self, *items: Item) -> None:
        self.now_s = NOON_S - 1
        config = FreshSource("fresh")
        sources = SourceSet.of(list(load_sources(None, [config]).values()))
        spec = PolicySpec("p", sources=[config], limit=20)
        self.proposers = Proposers(spec, sources, lambda: self.now_s)
        timeline = ItemTimeline(Catalogue.put(items))
        self.proposers.offer(timeline.newest, timeline)

    @property
    def is_late(self) -> bool:
        return self.proposers.offered.offering.is_late

    async def proposed(self, **asked: Any) -> set[str]:
        pool, _, _ = await self.proposers.pool(RankRequest(**asked), Asker(None, None))
        return set(pool.ids)


def begins(number: int) -> Item:
    return Item(f"new-{number}", available_from=NOON)


def ends(number: int) -> Item:
    return Item(f"old-{number}", available_until=NOON)


async def test_items_that_begin_together_are_proposed_in_turns_without_a_request():
    """The first request looks at some of them; the others come between requests, by themselves."""
    sale = Sale(*map(begins, range(MANY)), Item("always"))
    assert await sale.proposed() == {"always"}

    sale.now_s = NOON_S
    assert len(await sale.proposed()) > 1
    assert sale.is_late
    assert len(sale.proposers.offered.offering) <= 2 * AT_ONCE + 1
    await until_true(lambda: not sale.is_late)
    assert len(sale.proposers.offered.offering) == MANY + 1


async def test_items_that_end_together_are_proposed_to_nobody_though_the_source_is_told_in_turns():
    """What is over is in no pool from that moment on; where little else is left, all is looked at."""
    stay = [Item(f"stays-{number}") for number in range(3)]
    sale = Sale(*map(ends, range(MANY)), *stay)
    assert len(await sale.proposed()) == 20

    sale.now_s = NOON_S
    names = {item.id for item in stay}
    sale.proposers.now()
    offering = sale.proposers.offered.offering
    assert sale.is_late
    assert len(offering) > len(stay)
    assert {item for item in offering.ids if item in offering} == names
    assert await sale.proposed(slots=3) == names
    assert sale.is_late
    with pytest.raises(NoCandidatesError):
        await sale.proposed(exclude=sorted(names))
    assert not sale.is_late


def test_where_no_event_loop_runs_all_are_looked_at_at_once():
    """A script that asks what may be offered gets the whole answer."""
    sale = Sale(*map(begins, range(MANY)))
    sale.now_s = NOON_S
    assert len(sale.proposers.now().offering) == MANY
    assert sale.proposers.offered.pass_time(inf) is False
