"""A replica takes requests whose actions are as they were sent as it takes those that are decoded."""

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
from serve_app.api.bodies import whole
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.store.event_log import LogWriter, RedisLog
from serve_app.store.keys import Keys

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
    writer = LogWriter(async_client)
    service = RedisPolicyService(
        SPEC, async_client, writer, salt=SALT, replica="r", follow_interval_s=1.0
    )
    service.ranker.serve("s1", FakeLog(SPEC).fold().snapshot())
    service.ranker.offer(Catalogue([Item("a", {"f": 1.0}), Item("b", {"f": 2.0})]))

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


def decoded(**fields):
    return whole(sent(**fields))
