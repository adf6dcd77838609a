"""A replica takes requests whose actions are as they were sent as it takes those that are decoded."""

import httpx
import msgspec
import pytest
from support.fakes import SALT, FakeLog

from bandits.errors import DuplicateActionError, EventConflictError
from bandits.exploration import EpsilonGreedy
from bandits.log.records import DecisionRecord
from bandits.vw.config import VwConfig
from policies.items.catalogue import Catalogue
from policies.requests import BareRequest, Item
from policies.spec import PolicySpec
from serve_app.api.asgi import Api
from serve_app.api.bodies import whole
from serve_app.replica.metrics import Metrics
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.store.clients import asyncio_client
from serve_app.store.event_log import LogWriter, RedisLog
from serve_app.store.keys import Keys

NOWHERE = "redis://127.0.0.1:1/0"
SPEC = PolicySpec(
    "home",
    use=["context", "features"],
    learner=VwConfig(args="--cb_explore_adf -q cf"),
    exploration=EpsilonGreedy(),
)


def sent(**fields) -> BareRequest:
    body = {"context": {"hour": 21.0}, "actions": [{"id": "a"}, {"id": "b"}], **fields}
    return msgspec.json.decode(msgspec.json.encode(body), type=BareRequest)


async def test_a_retry_gets_the_first_decision_whichever_way_either_was_read(client, async_client):
    service = ready(async_client)
    for number, (first, second) in enumerate(((sent, sent), (sent, decoded), (decoded, sent))):
        name = f"event-{number}"
        assert service.ranker.rank_bare(sent(event_id=name)) is not None
        made = await service.rank(first(event_id=name))
        assert made[1]
        assert await service.rank(second(event_id=name)) == made
        with pytest.raises(EventConflictError):
            await service.rank(second(event_id=name, context={"hour": 22.0}))
    with pytest.raises(DuplicateActionError):
        await service.rank(sent(actions=[{"id": "a"}, {"id": "a"}]))

    unnamed, logged = await service.rank(sent())
    assert logged
    entries = [entry.record for entry in RedisLog(client, Keys("home")).read("0-0")]
    assert [type(record) for record in entries] == [DecisionRecord] * 4
    assert entries[-1] == unnamed


@pytest.mark.parametrize("holds", [True, False])
async def test_an_answer_made_while_the_disk_syncs_says_what_came_of_that(
    client, async_client, holds
):
    """It says logged: false where the log did not take it; what it says else is the record's."""
    redis_client = async_client if holds else asyncio_client(NOWHERE, timeout_s=1.0)
    service, metrics = ready(redis_client), Metrics("r")
    assert not isinstance(service.begin(sent(event_id="of-the-client")), tuple)
    assert not isinstance(service.begin(sent(explain=True)), tuple)
    assert not isinstance(service.begin(decoded()), tuple)

    app = Api({"home": service}, metrics, no_scrape)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as http:
        body = {"context": {"hour": 21.0}, "actions": [{"id": "a"}, {"id": "b"}]}
        answer = await http.post("/v1/policies/home/rank", json={**body, "return_pmf": True})
    await redis_client.aclose()

    said = answer.json()
    assert (answer.status_code, said["logged"]) == (200, holds)
    assert metrics.counts["decisions", "home", str(holds).lower()] == 1
    records = [entry.record for entry in RedisLog(client, Keys("home")).read("0-0")]
    assert [record.event_id for record in records] == ([said["event_id"]] if holds else [])
    assert [each["id"] for each in said["pmf"]] == ["a", "b"]


def ready(redis_client) -> RedisPolicyService:
    """A policy that decides, over this log."""
    writer = LogWriter(redis_client)
    service = RedisPolicyService(
        SPEC, redis_client, writer, salt=SALT, replica="r", follow_interval_s=1.0
    )
    service.ranker.serve("s1", FakeLog(SPEC).fold().snapshot())
    service.ranker.offer(Catalogue([Item("a", {"f": 1.0}), Item("b", {"f": 2.0})]))
    return service


async def no_scrape() -> bytes:
    return b""


def decoded(**fields):
    return whole(sent(**fields))
