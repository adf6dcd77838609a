"""A Redis Cluster: partitions on different primaries, one of which dies.

The rest of the suite runs on it as well.
"""

import signal
import time

import pytest
import redis
from support.clusters import cluster
from support.partition_loops import COUNT, KEYS, decide, learned, make_all, served, settle, verdicts
from support.servers import binary_of

from bandits.errors import LogUnavailableError
from bandits.features.hashing import partition_of
from bandits.log.records import RewardRecord, TickRecord
from policies.items.catalogue import Catalogue
from serve_app.admin.freshness import read_all
from serve_app.settings import Settings
from serve_app.store.clients import asyncio_client, blocking_client, is_cluster, now_ms
from serve_app.store.event_log import LogWriter, RedisLog

pytestmark = [pytest.mark.usefixtures("hurried_learner"), pytest.mark.timeout(120)]


def test_a_primary_dies_and_its_replica_goes_on_for_replicas_and_learners(tmp_path):
    """Nothing written is lost, what follows is learned, and the logs give what is served."""
    with cluster(binary_of("valkey"), tmp_path) as servers:
        client = blocking_client(servers.url)
        loops = make_all(client)
        settle(loops, client)
        decide(client, 12)
        settle(loops, client)
        holders = [client.get_node_from_key(keys.log).port for keys in KEYS]
        assert len(set(holders)) > 1  # the partitions are spread
        victim = next(server for server in servers.primaries if server.port == holders[1])
        _replicated(victim)
        victim.end(signal.SIGKILL)
        with pytest.raises((redis.RedisError, OSError)):
            blocking_client(f"redis://127.0.0.1:{victim.port}").ping()
        deadline = time.monotonic() + 30
        while True:
            try:
                RedisLog(client, KEYS[1]).put_blob(Catalogue().digest, Catalogue().encoded)
                break
            except (redis.RedisError, OSError):
                assert time.monotonic() < deadline, "no replica took over"
                time.sleep(0.1)
        decide(client, 12, prefix="after")
        settle(loops, client, timeout_s=60)
        assert served(client).learned == learned(loops) == 24
        assert set(verdicts(client)) == {"identical"}
        client.close()


def _replicated(server) -> None:
    """What was written has reached the replica: otherwise a failover would lose it."""
    with server.client() as client:
        assert client.wait(1, 5000) == 1


async def test_no_acknowledged_write_is_lost_when_another_node_takes_over_the_slots(tmp_path):
    with cluster(binary_of("valkey"), tmp_path) as servers:
        client = asyncio_client(servers.url, timeout_s=2.0)
        writer = LogWriter(client, timeout_s=2.0)
        for keys in KEYS:
            await writer.append(keys.log, TickRecord())
        holders = [client.get_node_from_key(keys.log).port for keys in KEYS]
        victim = next(server for server in servers.primaries if server.port == holders[0])
        _replicated(victim)
        victim.end(signal.SIGKILL)
        acknowledged, number, deadline = set(), 0, time.monotonic() + 40
        while len([name for name in acknowledged if partition_of(name, COUNT) == 0]) < 5:
            assert time.monotonic() < deadline, "writes to the lost primary's slots never came back"
            number += 1
            name = f"e{number}"
            try:
                await writer.append(
                    KEYS[partition_of(name, COUNT)].log, RewardRecord(name, 1.0, name)
                )
            except LogUnavailableError:
                continue
            acknowledged.add(name)
        await client.aclose()
        with blocking_client(servers.url) as reader:
            there = [e.record.event_id for keys in KEYS for e in read_all(reader, keys) if _name(e)]
            assert acknowledged <= set(there)
            assert len(there) == len(set(there))
            assert abs(now_ms(reader, KEYS[0].log) - time.time() * 1000) < 5000


def _name(entry) -> str:
    return getattr(entry.record, "event_id", "")


def test_the_url_says_that_it_is_a_cluster_and_what_does_not_work_there_is_refused():
    assert is_cluster("rediss+cluster://u:p@host:1")
    assert not is_cluster("redis://host:1/0")
    assert Settings(redis_url="redis+cluster://127.0.0.1:7000").redis_url
    with pytest.raises(ValueError, match="confirm_replicas"):
        Settings(redis_url="redis+cluster://127.0.0.1:7000", confirm_replicas=1)
