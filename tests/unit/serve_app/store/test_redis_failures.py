"""A Redis of which nobody answers is a failure that is expected.

Of a cluster redis-py has an error of its own.
"""

import ast
import asyncio
from pathlib import Path

import pytest
from redis import exceptions

import serve_app
from bandits.errors import LogUnavailableError
from bandits.log.records import RewardRecord
from policies.spec import PolicySpec
from serve_app.replica.metrics import Metrics
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.replica.scrape import collect
from serve_app.store.clients import FAILURES, asyncio_client
from serve_app.store.event_log import LogWriter

SPEC = PolicySpec("home")


def test_what_a_cluster_raises_is_among_them():
    assert not issubclass(exceptions.RedisClusterException, exceptions.RedisError)
    assert issubclass(exceptions.RedisClusterException, FAILURES)


def test_nobody_catches_half_of_them():
    """Wherever redis-py's base class is caught, its other one would come through."""
    for path in Path(serve_app.__file__).parent.rglob("*.py"):
        if path.name != "clients.py":
            names = {
                getattr(node, "attr", getattr(node, "id", ""))
                for node in ast.walk(ast.parse(path.read_text()))
            }
            assert "RedisError" not in names or path.name in {"shared_wire.py", "reachable.py"}, (
                path.name
            )


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:1/0",
        "redis+cluster://127.0.0.1:1",
        "rediss+cluster://127.0.0.1:1",
        "unix:///no/such/socket",
    ],
)
async def test_a_replica_does_without_it(url):
    client = asyncio_client(url, timeout_s=1.0)
    service = RedisPolicyService(
        SPEC,
        client,
        LogWriter(client),
        salt=b"0123456789abcdef",
        replica="r",
        follow_interval_s=0.01,
    )
    service.start()
    metrics = Metrics("r")
    pushing = asyncio.create_task(metrics.push_forever(client))
    try:
        assert (await service.info()).outcomes == {}
        with pytest.raises(LogUnavailableError):
            await service.log([RewardRecord("e", 1.0)])
        with pytest.raises(LogUnavailableError):
            await service.replace_catalogue([])
        assert b"banditloop_" in await collect(
            client, metrics.sample(), {"home": service}, {"home": 1}
        )
        await asyncio.sleep(0.05)
        assert not pushing.done()
    finally:
        pushing.cancel()
        await service.stop()
        await client.aclose()
