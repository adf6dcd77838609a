"""Quotas on a real server: a learner measures and says prices, a replica decides under them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from support import loops as whole
from support import partition_loops as divided

from banditloop_client.schemas import QuotaInfo
from bandits.exploration import Softmax
from bandits.log.join import JoinRule
from bandits.log.records import ControlRecord, DecisionRecord
from policies.requests import ActionRequest, RankRequest
from policies.rules.quotas import controller
from policies.rules.quotas.quota import Quota
from policies.spec import Holdout, PolicySpec
from serve_app.admin.freshness import read_all
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.store.event_log import LogWriter
from serve_app.store.keys import partitions
from serve_app.workers.beside import quota_keeper
from serve_app.workers.learner import LearnerLoop

pytestmark = [
    pytest.mark.usefixtures("hurried_learner", "hurried_quotas"),
    pytest.mark.one_server,
]

SALT = divided.SALT
ACME = 'item.provider == "acme"'
ACTIONS = [
    ActionRequest(name, {"provider": "acme" if name == "a" else "other"}) for name in "abcde"
]
LEAST_S = 0.05


@pytest.fixture
def hurried_quotas(monkeypatch) -> None:
    """Prices move in a tenth of the time."""
    monkeypatch.setattr(controller, "PERIOD_MS", 50)
    monkeypatch.setattr(controller, "STEP_S", 2.0)
    monkeypatch.setattr(quota_keeper, "SAY_S", LEAST_S)


def spec_of(count: int) -> PolicySpec:
    return PolicySpec(
        "home",
        exploration=Softmax(0.2),
        join=JoinRule(window_s=0.02),
        quota=[Quota(ACME, at_least=0.9)],
        holdout=Holdout(0.2),
        partitions=count,
    )


def made(client, spec: PolicySpec) -> list[LearnerLoop]:
    return [whole.make(client, spec)] if spec.partitions == 1 else divided.make_all(client, spec)


class Traffic:
    """Decisions of one replica, with the learners stepped in between."""

    def __init__(self, service: RedisPolicyService) -> None:
        self.service = service
        self.records: list[DecisionRecord] = []

    async def decide(self) -> DecisionRecord:
        record, logged = await self.service.rank(RankRequest(actions=ACTIONS))
        assert logged
        self.records.append(record)
        await self.service.follower.step()
        return record

    async def until(
        self, holds: Callable[[DecisionRecord], bool], loops: Sequence[LearnerLoop]
    ) -> DecisionRecord:
        """Decide until a decision that is not held out is one that is looked for."""
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline, "it never happened"
            record = await self.decide()
            if not record.holdout and holds(record):
                return record
            for loop in loops:
                await asyncio.to_thread(divided.step, loop)

    @property
    def price(self) -> float:
        """What is added to the group's item by the newest decision."""
        boosts = next(record for record in reversed(self.records) if not record.holdout).boosts
        return 0.0 if boosts is None else float(boosts[0])


@asynccontextmanager
async def traffic_of(spec: PolicySpec, async_client) -> AsyncIterator[Traffic]:
    service = RedisPolicyService(
        spec, async_client, LogWriter(async_client), salt=SALT, replica="r", follow_interval_s=0.01
    )

    async def served() -> bool:
        await service.follower.step()
        return service.ranker.serving is not None

    assert await served()
    yield Traffic(service)
    await service.stop()


@pytest.mark.parametrize("count", [1, 2])
async def test_a_quota_is_held_and_the_next_leader_goes_on_from_the_state_that_serves(
    client, async_client, count
):
    """The first leader is killed: until there is another, replicas decide under its last state."""
    spec, keys = spec_of(count), partitions("home", count)
    loops = made(client, spec)
    for _ in range(20 * count):
        for loop in loops:
            await asyncio.to_thread(divided.step, loop)

    async with traffic_of(spec, async_client) as traffic:
        first = await traffic.until(lambda record: record.rules is not None, loops)
        assert first.rules.control
        before = traffic.price
        await traffic.until(lambda _: traffic.price > 1.5 * before, loops)

        # Nobody leads: the last state serves, whatever is decided.
        await asyncio.sleep(2 * LEAST_S)
        await traffic.decide()
        last = traffic.price
        for _ in range(10):
            await traffic.decide()
        assert traffic.price == last

        for each in keys:
            client.delete(each.lease)
        again = made(client, spec)
        later = await traffic.until(lambda _: traffic.price > last, again)
        assert traffic.price < 3 * last
        assert np.argmax(later.pmfs()[0]) == 0

        found = await until_told(traffic.service)
        assert found.wanted == 0.9
        assert found.price == pytest.approx(traffic.price, rel=0.5)
        assert 0 < found.share < 1

    entries = [entry for each in keys for entry in read_all(client, each)]
    said = {entry.id: entry for entry in entries if isinstance(entry.record, ControlRecord)}
    times = [entry.time_ms for entry in said.values()]
    assert times == sorted(times)
    assert all(record.prices.keys() == {f"at_least {ACME}"} for record in _records(said.values()))

    decided = [entry.record for entry in entries if isinstance(entry.record, DecisionRecord)]
    assert len(decided) == len(traffic.records)
    under = [record for record in decided if record.rules is not None]
    assert len(under) > 10
    for record in under:
        assert not record.holdout
        price = said[record.rules.control].record.prices[f"at_least {ACME}"]
        assert record.boosts.tolist() == [np.float32(price), 0, 0, 0, 0]

    for loop in again:
        loop.lease.release()
    await asyncio.to_thread(settled, made(client, spec), client)
    verdicts = whole.verdicts if count == 1 else divided.verdicts
    assert set(await asyncio.to_thread(verdicts, client)) == {"identical"}


async def until_told(service: RedisPolicyService) -> QuotaInfo:
    """How the quota stands, once the counts say it."""
    deadline = time.monotonic() + 60
    while not (found := (await service.info()).quotas):
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.05)
    return found[f"at_least {ACME}"]


def _records(entries) -> list[ControlRecord]:
    return [entry.record for entry in entries]


def settled(loops: list[LearnerLoop], client) -> None:
    time.sleep(0.05)
    if len(loops) > 1:
        divided.settle(loops, client)
    else:
        whole.settle(loops[0])
