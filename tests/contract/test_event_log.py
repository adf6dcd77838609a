"""What a log promises, on a real server: order, group commit, and no acknowledgement without an entry."""

import asyncio
import time

import msgspec
import numpy as np
import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from bandits.errors import EventConflictError, LogUnavailableError, MissingBlobError
from bandits.log.codec import digest, encode
from bandits.log.records import ActivationRecord, DecisionRecord, RewardRecord, TickRecord
from serve_app.store.clients import wire
from serve_app.store.event_log import (
    FIELD,
    REMEMBERED_S,
    SPAN_S,
    LogWriter,
    RedisLog,
)
from serve_app.store.keys import Keys
from serve_app.store.replicas.shared_pipeline import SharedPipeline
from serve_app.store.replicas.shared_wire import MAX_BATCH

KEYS = Keys("home")

pytestmark = pytest.mark.every_server


def decision(chosen: list[int]) -> DecisionRecord:
    pmf = np.array([[0.5, 0.25, 0.25], [0.0, 0.5, 0.5]]).tobytes()
    return DecisionRecord("e1", "home", "s", "n", "c", {}, ["a", "b", "c"], None, {}, pmf, chosen)


def rewards(count: int) -> list[RewardRecord]:
    return [RewardRecord(f"e{i}", float(i)) for i in range(count)]


async def test_concurrent_appends_keep_their_order_and_learn_their_own_ids(client, async_client):
    """More than two pipelines' worth at once."""
    records = rewards(2 * MAX_BATCH + 100)
    writer = LogWriter(async_client)
    ids = await asyncio.gather(*(writer.append(KEYS.log, record) for record in records))
    entries = RedisLog(client, KEYS).read("0-0", count=10_000)
    assert [entry.record for entry in entries] == records
    assert [entry.id for entry in entries] == ids


async def test_many_records_at_once_are_entries_side_by_side(client, async_client):
    records = rewards(2 * MAX_BATCH + 100)
    ids = await LogWriter(async_client).append_all(KEYS.log, records)
    entries = RedisLog(client, KEYS).read("0-0", count=10_000)
    assert [(entry.id, entry.record) for entry in entries] == list(zip(ids, records, strict=True))


async def test_writes_of_several_logs_and_of_retries_share_a_batch(client, async_client):
    """Each is answered with what is its own."""
    other, (one, two, three, four) = Keys("other"), rewards(4)
    writer = LogWriter(async_client)
    await writer.append(KEYS.log, TickRecord())
    before = client.info("commandstats")["cmdstat_eval"]["calls"]
    first, both, kept, elsewhere = await asyncio.gather(
        writer.append(KEYS.log, one),
        writer.append_all(KEYS.log, [two, three]),
        writer.append_once(KEYS, decision([0, 1]), b"asked"),
        writer.append(other.log, four),
    )
    assert client.info("commandstats")["cmdstat_eval"]["calls"] - before <= 4
    assert kept == decision([0, 1])
    here = {entry.id: entry.record for entry in RedisLog(client, KEYS).read("0-0")}
    assert (here[first], [here[each] for each in both]) == (one, [two, three])
    assert [(entry.id, entry.record) for entry in RedisLog(client, other).read("0-0")] == [
        (elsewhere, four)
    ]


async def test_requests_that_come_while_a_batch_is_on_its_way_share_the_next_one(
    client, async_client
):
    writer = LogWriter(async_client)
    await writer.append(KEYS.log, TickRecord())
    before = client.info("commandstats")
    await asyncio.gather(*(writer.append(KEYS.log, record) for record in rewards(50)))
    after = client.info("commandstats")
    assert after["cmdstat_xadd"]["calls"] - before["cmdstat_xadd"]["calls"] == 50
    assert after["cmdstat_eval"]["calls"] - before["cmdstat_eval"]["calls"] <= 2
    assert client.xlen(KEYS.log) == 51


async def test_whoever_asks_alone_is_not_kept_waiting_for_others(client, async_client):
    """What is asked after that, in the same round of the loop, is a message of its own."""
    writer = LogWriter(async_client)
    await writer.append(KEYS.log, TickRecord())
    await writer.append(KEYS.log, TickRecord())
    task = asyncio.ensure_future(writer.append(KEYS.log, TickRecord()))
    await asyncio.sleep(0)
    assert writer.wire._sent is not None
    ids = await asyncio.gather(task, *(writer.append(KEYS.log, each) for each in rewards(3)))
    assert [entry.id for entry in RedisLog(client, KEYS).read("0-0")][2:] == ids


async def test_writers_of_several_replicas_share_one_order(client, server_url):
    clients = [redis.asyncio.Redis.from_url(server_url) for _ in range(4)]
    writers = [LogWriter(each) for each in clients]
    acknowledged = await asyncio.gather(
        *(writers[i % 4].append(KEYS.log, record) for i, record in enumerate(rewards(200)))
    )
    entries = RedisLog(client, KEYS).read("0-0")
    assert sorted(acknowledged, key=_order) == [entry.id for entry in entries]
    for each in clients:
        await each.aclose()


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence)


async def test_what_cannot_be_confirmed_is_not_acknowledged():
    nowhere = redis.asyncio.Redis(port=1, retry=Retry(NoBackoff(), 0))
    writer = LogWriter(nowhere)
    answers = await asyncio.gather(
        *(writer.append(KEYS.log, r) for r in rewards(20)), return_exceptions=True
    )
    assert all(isinstance(answer, LogUnavailableError) for answer in answers)
    with pytest.raises(LogUnavailableError):
        await writer.append_all(KEYS.log, rewards(2))
    await nowhere.aclose()


async def test_an_append_the_server_refuses_fails_alone(client, async_client):
    """Another policy's key of the wrong type does not take this one's requests with it."""
    writer = LogWriter(async_client)
    client.set("wrong", "no stream")
    good, bad = await asyncio.gather(
        writer.append(KEYS.log, TickRecord()),
        writer.append("wrong", TickRecord()),
        return_exceptions=True,
    )
    assert isinstance(good, str)
    assert isinstance(bad, LogUnavailableError)
    await writer.append(KEYS.log, TickRecord())


async def test_a_cancelled_request_does_not_disturb_the_others(client, async_client):
    writer = LogWriter(async_client)
    tasks = [asyncio.create_task(writer.append(KEYS.log, record)) for record in rewards(10)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(answer, str) for answer in answers) == 9
    await writer.append(KEYS.log, TickRecord())


async def test_looks_share_a_message_with_writes_and_are_answered_as_by_redis_pys_pipeline(
    client, async_client
):
    writer = LogWriter(async_client)
    client.set(KEYS.head, b"a head")
    client.hset(KEYS.archive, mapping={"one": "1", "two": "2"})
    client.rpush(KEYS.snapshots, "c", "b", "a")
    await writer.append_all(KEYS.log, rewards(3))

    def asked(pipeline):
        pipeline.get(KEYS.head)
        pipeline.get(KEYS.stats)
        pipeline.hmget(KEYS.archive, ("two", "three"))
        pipeline.lrange(KEYS.snapshots, 0, 1)
        pipeline.xrange(KEYS.log, "(0-0", count=2)
        pipeline.xrevrange(KEYS.log, count=1)
        return pipeline.execute()

    # The second of each finds what the others have found, whether it is asked with them or not.
    looks = [asked(SharedPipeline(writer.wire)) for _ in range(2)]
    *found, entry = await asyncio.gather(*looks, writer.append(Keys("other").log, TickRecord()))
    assert [*map(list, found)] == [await asked(async_client.pipeline(transaction=False))] * 2
    assert client.xlen(Keys("other").log) == 1
    assert entry


async def test_a_look_that_is_not_answered_is_a_failure_and_no_lost_write():
    nowhere = redis.asyncio.Redis(port=1, retry=Retry(NoBackoff(), 0))
    writer = LogWriter(nowhere)
    for _ in range(2):  # the second is not even asked
        pipeline = SharedPipeline(writer.wire)
        pipeline.get(KEYS.head)
        with pytest.raises(redis.ConnectionError):
            await pipeline.execute()
    assert await writer.wire.read([("GET", KEYS.head)]) is None
    assert not writer.failures
    await nowhere.aclose()


async def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next_one(client, async_client):
    sender, slow = wire(async_client), KEYS.blob("slow")
    client.set(KEYS.stats, "mine")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await sender.send([("BLPOP", slow, 5)])
    client.rpush(slow, "another's")
    for _ in range(3):
        assert await sender.send([("GET", KEYS.stats)]) == [b"mine"]


@pytest.mark.one_server
async def test_the_private_parts_of_redis_py_that_a_line_needs_are_those_of_this_version(
    async_client,
):
    """Nothing is read by its stream any more, and closing its client ends the line."""
    sender = wire(async_client)
    answers = await sender.send([("PING",), ("NOSUCH",)])
    assert answers[0] == b"PONG"
    assert isinstance(answers[1], redis.exceptions.ResponseError)
    line = sender._line
    assert line is not None
    assert line._transport.get_protocol() is line
    await asyncio.wait_for(async_client.connection_pool.disconnect(), 5)
    assert line.is_lost
    assert await sender.send([("PING",)]) == [b"PONG"]


def test_entries_that_do_not_decode_are_counted_and_passed(client):
    """They read as ticks: time has passed, the reader moves on, and what comes after them is read."""
    reader = RedisLog(client, KEYS)
    first = reader.append(RewardRecord("e", 1.0))
    for fields in (
        {FIELD: b"\x01junk"},
        {FIELD: b""},
        {b"other": b"x"},
        {FIELD: encode(TickRecord())[:-1]},
    ):
        client.xadd(KEYS.log, fields)
    last = reader.append(ActivationRecord("e"))
    entries = reader.read("0-0")
    assert [entry.id for entry in (entries[0], entries[-1])] == [first, last]
    assert [entry.record for entry in entries[1:-1]] == [TickRecord()] * 4
    assert reader.undecodable == 4


def test_a_log_of_nothing_but_junk_is_read_to_its_end(client):
    reader, position = RedisLog(client, KEYS), "0-0"
    pipeline = client.pipeline()
    for _ in range(2500):
        pipeline.xadd(KEYS.log, {FIELD: b"junk"})
    *_, last = pipeline.execute()
    while entries := reader.read(position):
        position = entries[-1].id
    assert position == last.decode()
    assert reader.undecodable == 2500


def test_reading_waits_for_a_first_entry_and_no_longer(client):
    reader = RedisLog(client, KEYS)
    started = time.monotonic()
    assert reader.read_encoded("0-0", block_ms=30) == []
    assert time.monotonic() - started >= 0.02
    reader.append(TickRecord())
    assert len(reader.read_encoded("0-0", block_ms=60_000)) == 1


def test_the_ids_are_the_servers_clock(client):
    reader = RedisLog(client, KEYS)
    before = reader.now_ms()
    reader.append(TickRecord())
    (entry,) = reader.read("0-0")
    assert before <= entry.time_ms <= reader.now_ms()


def test_a_blob_is_found_by_its_digest_or_said_to_be_missing(client):
    reader = RedisLog(client, KEYS)
    reader.put_blob(digest(b"data"), b"data")
    assert reader.blob(digest(b"data")) == b"data"
    with pytest.raises(MissingBlobError, match="not stored"):
        reader.blob(digest(b"other"))


def test_all_keys_of_a_policy_share_a_slot_of_a_cluster():
    names = [
        KEYS.log,
        KEYS.head,
        KEYS.snapshots,
        KEYS.loads,
        KEYS.stats,
        KEYS.blob("d"),
        KEYS.decisions_prefix,
    ]
    assert len(set(names)) == len(names)
    assert {name[name.index("{") : name.index("}") + 1] for name in names} == {"{home.0}"}


async def test_a_decision_under_a_client_made_event_id_is_appended_once(client, async_client):
    """The same request gets the first decision again, even when this one chose differently.

    Another is a conflict.
    """
    writer = LogWriter(async_client)
    first, second = decision(chosen=[0, 2]), decision(chosen=[0, 1])
    answers = await asyncio.gather(
        *(writer.append_once(KEYS, each, b"asked") for each in (first, second, first))
    )
    assert answers == [first] * 3
    assert client.xlen(KEYS.log) == 1
    with pytest.raises(EventConflictError):
        await writer.append_once(KEYS, first, b"something else")
    (memory,) = client.scan_iter(f"{KEYS.decisions_prefix}*")
    assert REMEMBERED_S < client.ttl(memory) <= REMEMBERED_S + 2 * SPAN_S


def _early_in_a_span(client) -> int:
    """The server's clock in seconds, once at least ten are left of its span of time."""
    while (now := client.time()[0]) % SPAN_S > SPAN_S - 10:
        time.sleep(0.1)
    return now


@pytest.mark.parametrize(
    ("age_s", "known"),
    [(-SPAN_S, True), (0, True), (SPAN_S, True), (REMEMBERED_S - 5, True), (REMEMBERED_S, False)],
)
async def test_a_decision_is_remembered_for_as_long_as_is_said(client, async_client, age_s, known):
    """And what was remembered of a span of time before that is gone."""
    first, second = decision(chosen=[0, 2]), decision(chosen=[0, 1])
    now = _early_in_a_span(client)
    made_at = now - age_s
    entry = client.xadd(KEYS.log, {FIELD: encode(first)}, id=f"{1000 * made_at}-1")
    client.hset(f"{KEYS.decisions_prefix}{made_at // SPAN_S}", "e1", entry + b" asked")
    forgotten = f"{KEYS.decisions_prefix}{now // SPAN_S - REMEMBERED_S // SPAN_S - 1}"
    client.hset(forgotten, "e0", "1-1 asked")
    assert await LogWriter(async_client).append_once(KEYS, second, b"asked") == (
        first if known else second
    )
    assert client.xlen(KEYS.log) == (1 if known else 2)
    assert client.exists(forgotten) == known


@pytest.mark.parametrize(
    "event_id", ["}", "{x}", "}:log{", "../..", "a\nb", "\0", "*", "\U0001f600", "x" * 256]
)
async def test_an_event_id_is_part_of_no_key(client, async_client, event_id):
    record = msgspec.structs.replace(decision(chosen=[0, 1]), event_id=event_id)
    memory = f"{KEYS.decisions_prefix}{_early_in_a_span(client) // SPAN_S}"
    for _ in range(2):
        assert await LogWriter(async_client).append_once(KEYS, record, b"asked") == record
    assert client.xlen(KEYS.log) == 1
    assert {key.decode() for key in client.scan_iter("*")} == {KEYS.log, memory}
