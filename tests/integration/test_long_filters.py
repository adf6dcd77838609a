"""Filters that nobody has sent before slow those who ask beside them little, whatever they are."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
from support.replica import HOME, Caller, serving
from support.servers import Server, binary_of

from policies.rules.filters import MOST_OF_A_REQUEST, FilterRule
from policies.spec import PolicySpec

SPEC = PolicySpec("home", filter=FilterRule("true", fields=["id", "price"]))
ACTIONS = [{"id": name, "features": {"price": 1.0}} for name in "abcdefgh"]
AT_ONCE = 60
NEW = itertools.count()


def longest(begin: str, more: str, end: str) -> str:
    """A filter of as many characters as one may have, nearly."""
    return begin + more * ((MOST_OF_A_REQUEST - len(begin + end)) // len(more)) + end


KINDS = {
    "a list": lambda new: longest(f"item.price in [{new}", ",1", "]"),
    "terms": lambda new: longest(f"item.price != {new}.5", " && item.price > 0", ""),
    "texts": lambda new: longest(f"item.id != '{new}'", " && context.t != 'x'", " || true"),
    "none": lambda new: longest(f"item.id != '{new}'", " && item.price > 0", " && item.price >"),
}


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    with Server(binary_of("valkey"), tmp_path / "server") as out:
        yield out


async def sent(caller: Caller, filters: list[str | None]) -> list[int]:
    """The statuses of decisions that are asked for at once, each with a filter of its own."""
    bodies = [{"actions": ACTIONS, "context": {"t": "y"}} for _ in filters]
    asked = [
        caller.http.post(f"{HOME}/rank", json=body if where is None else {**body, "filter": where})
        for body, where in zip(bodies, filters, strict=True)
    ]
    return [answer.status_code for answer in await asyncio.gather(*asked)]


async def used_s(work: Callable[[], Awaitable[object]]) -> float:
    """Seconds of processor that some work takes at least."""
    taken = []
    for _ in range(3):
        began = time.process_time()
        await work()
        taken.append(time.process_time() - began)
    return min(taken)


@pytest.mark.timeout(120)
async def test_sixty_long_filters_at_once_cost_little_more_than_the_decisions(server, tmp_path):
    """All that a replica does is done in one process: what it does not use is left to others."""
    statuses: dict[str, list[int]] = {kind: [] for kind in KINDS}
    async with serving(server, tmp_path, spec=SPEC) as caller:
        assert set(await sent(caller, [None] * AT_ONCE)) == {200}
        plain_s = await used_s(lambda: sent(caller, [None] * AT_ONCE))
        used: dict[str, float] = {}
        for kind, make in KINDS.items():

            async def wave(kind=kind, make=make) -> None:
                statuses[kind] += await sent(caller, [make(next(NEW)) for _ in range(AT_ONCE)])

            used[kind] = await used_s(wave) / plain_s
    assert set(statuses.pop("none")) == {422}
    assert all(set(each) <= {200, 409} for each in statuses.values())
    assert max(used.values()) < 25, used
