"""Large blobs, on a real Redis: no command and no answer of them is long, and a crash leaves none.

What is long holds up everybody else: a server does one command after the other.
"""

import contextlib
import random

import pytest
import redis
from support.items import put

from bandits.errors import MissingBlobError
from bandits.log.codec import digest, encode
from bandits.log.records import ItemsRecord
from policies.items.catalogue import Catalogue, Item
from serve_app.replica.items import ReplicaItems
from serve_app.store.blobs.parts import (
    PART,
    UNNAMED_S,
    read_blob,
    read_blob_async,
    write_blob,
    write_blob_async,
)
from serve_app.store.event_log import LogWriter, RedisLog
from serve_app.store.items.bases import read_base
from serve_app.store.items.history import ItemsHistory
from serve_app.store.keys import ItemsKeys, Keys
from serve_app.workers.items_leader import ItemsLeader

KEYS = ItemsKeys("shop")
SIZES = 1, PART - 1, PART, PART + 1, 2 * PART, 3 * PART + 17


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def unfinished(client: redis.Redis) -> list[bytes]:
    return list(client.scan_iter(match=KEYS.unfinished("*")))


@contextlib.contextmanager
def nothing_long(client: redis.Redis, *, answers: bool = True):
    """Have the server hang up on whoever sends it, or is to be sent, 1.5 MB at once."""
    bounds = {"client-query-buffer-limit": 3 * PART // 2}
    if answers:
        bounds["client-output-buffer-limit"] = f"normal {3 * PART // 2} 0 0"
    before = {name: client.config_get(name)[name] for name in bounds}
    for name, bound in bounds.items():
        client.config_set(name, bound)
    try:
        yield
    finally:
        for name, bound in before.items():
            client.config_set(name, bound)


@pytest.mark.one_server
async def test_no_command_and_no_answer_is_long_however_large_a_blob_is(client, async_client):
    data, other = noise(5 * PART + 17), noise(4 * PART)
    client.set("whole", data)
    with nothing_long(client):
        for asked in (("SET", "another", data), ("GETRANGE", "whole", 0, -1)):
            with pytest.raises(redis.ConnectionError):
                client.execute_command(*asked)

        write_blob(client, KEYS, digest(data), data)
        assert read_blob(client, KEYS, digest(data)) == data
        RedisLog(client, KEYS).put_blob(digest(data), data)
        assert RedisLog(client, KEYS).blob(digest(data)) == data
        await write_blob_async(async_client, KEYS, digest(other), other)
        assert await read_blob_async(async_client, KEYS, digest(other)) == other


@pytest.mark.one_server
async def test_neither_are_those_of_many_large_items_that_are_put_at_once(client, async_client):
    """They are entries of a megabyte each, in the order in which they were sent."""
    ItemsLeader(client, KEYS, ItemsHistory(client, KEYS, None)).begin(Catalogue(), None)
    replica = ReplicaItems(
        async_client,
        LogWriter(async_client),
        KEYS,
        lambda *_: None,
        older=Keys("shop"),
        brought=False,
    )
    items = [Item(f"i{n:02}", metadata={"text": "x" * 90_000}) for n in range(60)]
    with nothing_long(client, answers=False):
        version = await replica.change([put(item) for item in [*items, Item("i00")]])
    assert version.items == len(items)
    assert replica.timeline.item("i00") == Item("i00")
    assert replica.timeline.item("i59") == items[-1]
    assert client.xlen(KEYS.log) == 1 + 6


@pytest.mark.parametrize("size", SIZES)
async def test_a_blob_of_any_size_is_read_as_it_was_written(client, async_client, size):
    data = noise(size)
    write_blob(client, KEYS, "own", data)
    await write_blob_async(async_client, KEYS, "other", data)

    assert client.get(KEYS.blob("own")) == client.get(KEYS.blob("other")) == data
    assert (
        read_blob(client, KEYS, "own") == await read_blob_async(async_client, KEYS, "own") == data
    )
    assert (
        read_blob(client, KEYS, "none") is await read_blob_async(async_client, KEYS, "no") is None
    )
    assert 0 < client.ttl(KEYS.blob("own")) <= UNNAMED_S
    assert unfinished(client) == []


@pytest.mark.parametrize("size", [1_000, 2 * PART + 1])
def test_what_is_stored_stays_unless_it_is_to_be_replaced_by_what_lasts(client, size):
    """Also a blob that is named by now, which expires no more; damaged bytes are replaced."""
    data, damaged = noise(size), noise(size)[::-1]
    client.set(KEYS.blob("a"), damaged)
    write_blob(client, KEYS, "a", data)
    assert (client.get(KEYS.blob("a")), client.ttl(KEYS.blob("a"))) == (damaged, -1)

    write_blob(client, KEYS, "a", data, lasting=True)
    assert (client.get(KEYS.blob("a")), client.ttl(KEYS.blob("a"))) == (data, -1)
    assert unfinished(client) == []


class Dying:
    """A client of a process that dies before its third part."""

    def __init__(self, client: redis.Redis) -> None:
        self._client, self._left = client, 2

    def execute_command(self, *words):
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return self._client.execute_command(*words)


@pytest.mark.one_server
@pytest.mark.parametrize("lasting", [False, True])
def test_a_writer_that_dies_half_way_leaves_what_expires_and_the_next_one_stores_it_all(
    client, lasting
):
    data = noise(4 * PART)
    client.set(KEYS.blob("b"), b"before")
    if not lasting:
        client.delete(KEYS.blob("b"))
    with pytest.raises(KeyboardInterrupt):
        write_blob(Dying(client), KEYS, "b", data, lasting=lasting)

    (left,) = unfinished(client)
    assert 0 < client.ttl(left) <= UNNAMED_S
    assert client.get(KEYS.blob("b")) == (b"before" if lasting else None)
    write_blob(client, KEYS, "b", data, lasting=lasting)
    assert client.get(KEYS.blob("b")) == data
    assert unfinished(client) == [left]


@pytest.mark.one_server
@pytest.mark.parametrize("lasting", [False, True])
async def test_of_a_blob_that_is_more_than_the_server_takes_nothing_is_left(
    client, async_client, lasting
):
    """A writer tries again, and would fill the server."""
    data = noise(2 * PART)
    before = client.config_get("proto-max-bulk-len")["proto-max-bulk-len"]
    client.config_set("proto-max-bulk-len", 3 * PART // 2)
    try:
        with pytest.raises(redis.ResponseError, match="exceeds maximum allowed size"):
            write_blob(client, KEYS, "large", data, lasting=lasting)
        with pytest.raises(redis.ResponseError, match="exceeds maximum allowed size"):
            await write_blob_async(async_client, KEYS, "large", data)
        assert list(client.scan_iter()) == []
    finally:
        client.config_set("proto-max-bulk-len", before)


@pytest.mark.one_server
def test_of_a_blob_for_which_there_is_no_memory_nothing_is_left(client):
    """Some parts are stored; for the next there is no room."""
    data, config = noise(6 * PART), client.config_get("maxmemory*")
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 4 * PART)
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            write_blob(client, KEYS, "large", data)
        assert list(client.scan_iter()) == []
    finally:
        client.config_set("maxmemory", config["maxmemory"])
        client.config_set("maxmemory-policy", config["maxmemory-policy"])


def test_parts_that_go_meanwhile_are_an_error_and_no_shorter_blob(client):
    """They expire, or the server that had them is gone."""
    data = noise(3 * PART)

    class Losing:
        @staticmethod
        def execute_command(*words):
            for key in unfinished(client):
                client.delete(key)
            return client.execute_command(*words)

    with pytest.raises(redis.ResponseError, match="the parts before are gone"):
        write_blob(Losing(), KEYS, digest(data), data)
    assert list(client.scan_iter()) == []
    with pytest.raises(MissingBlobError):
        RedisLog(client, KEYS).blob(digest(data))


@pytest.mark.one_server
def test_neither_are_the_leaders_when_it_writes_all_items_of_a_log_and_reads_them(client):
    items = [Item(f"i{n}", metadata={"text": "x" * 90_000}) for n in range(40)]
    history = ItemsHistory(client, KEYS, None)
    with nothing_long(client):
        begun = ItemsLeader(client, KEYS, history).begin(Catalogue(), Catalogue.put(items))
        record = ItemsRecord([put(Item("new"))])
        through = client.xadd(KEYS.log, {"r": encode(record)}).decode()
        ItemsLeader(client, KEYS, history).write_base(read_base(client, KEYS), through)

        base = read_base(client, KEYS)
        assert (base.begins, base.items) == (through, len(items) + 1)
        assert base.version != begun
        assert Catalogue.decode(history.blob(base.digest)).ids[-1] == "new"
    assert [client.ttl(key) for key in client.scan_iter(match=KEYS.blob("*"))] == [-1, -1]
