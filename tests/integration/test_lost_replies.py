"""A command is carried out and its reply is lost: nothing is done twice, or left behind."""

import ast
import asyncio
import contextlib
import itertools
from collections import Counter
from pathlib import Path

import msgspec
import pytest
import redis
from support import activity, partition_loops
from support.clusters import cluster
from support.logs import decision
from support.loops import KEYS, SPEC, SPECS, decide, head, make, settle, stats, verdicts
from support.relays import Losing, before_each, before_one
from support.servers import Server, binary_of

from bandits.errors import LogUnavailableError
from bandits.log.codec import digest, encode
from bandits.log.records import (
    CatalogueRecord,
    CheckpointRecord,
    DecisionRecord,
    MergeRecord,
    PinRecord,
    RewardRecord,
    SpecRecord,
    WarmStartRecord,
)
from policies.archive.archive import ArchiveReader
from serve_app.admin.freshness import read_all
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.store.checkpoints import Checkpoints
from serve_app.store.clients import FAILURES, asyncio_client, blocking_client
from serve_app.store.event_log import FIELD, LogWriter
from serve_app.store.inbox import Inbox
from serve_app.store.keys import Keys
from serve_app.store.lease import Lease
from serve_app.store.merges import put_merge
from serve_app.store.profiles.part_state import decode_part_state
from serve_app.store.snapshots import KEPT_SNAPSHOTS, Head, Published, publish
from serve_app.store.spaces import register
from serve_app.workers.activity_leader import ActivityLeader
from serve_app.workers.archiver import Archiver

pytestmark = [pytest.mark.usefixtures("hurried_learner"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=["one", "cluster"])
def losing(request, tmp_path_factory):
    """One Redis, and a cluster, behind relays."""
    folder = tmp_path_factory.mktemp("servers")
    if request.param == "one":
        with Server(binary_of("valkey"), folder / "server") as server, before_one(server) as out:
            yield out
    else:
        with cluster(binary_of("valkey"), folder) as servers, before_each(servers) as out:
            yield out


@pytest.fixture
def direct(losing):
    """A client that loses nothing, of an empty server."""
    client = blocking_client(losing.direct)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def through(losing, direct):
    """A client through the relays, as the service makes one."""
    client = blocking_client(losing.url)
    yield client
    client.close()


def each(nth: int, *, of: bytes = b""):
    """Lose every nth reply to what contains ``of``."""
    numbers = itertools.count(1)
    return lambda asked: of in asked and next(numbers) % nth == 0


def once(of: bytes, times: int = 1):
    """Lose the first replies to what contains ``of``."""
    left = itertools.count(1)
    return lambda asked: of in asked and next(left) <= times


def unnamed(client: redis.Redis, keys: Keys = KEYS) -> set[str]:
    """Blobs that last, although no list, pointer or entry names them."""
    prefix = keys.blob("")
    found = [
        key.decode()
        for key in client.scan_iter(match="bl:*:blob:*")
        if key.decode().startswith(prefix)
    ]
    lasting = {key.removeprefix(prefix) for key in found if client.ttl(key) == -1}
    named = {name.decode() for name in client.lrange(keys.snapshots, 0, -1)}
    named |= {name.decode() for name in client.lrange(keys.offers, 0, -1)}
    named |= {name.decode() for name in client.hvals(keys.merged)}
    for stored in Checkpoints(client, keys).list():
        named |= {stored.digest, stored.snapshot_id}
    for entry in read_all(client, keys):
        record = entry.record
        if isinstance(record, DecisionRecord):
            named |= {record.spec, record.catalogue}
        elif isinstance(record, SpecRecord | CatalogueRecord | WarmStartRecord):
            named.add(record.digest)
    return lasting - named


def leading(client: redis.Redis, keys: Keys = KEYS) -> Lease:
    lease = Lease(client, keys, "test", lease_s=60.0)
    assert lease.acquire()
    return lease


def snapshot(number: int) -> Published:
    return Published("ridge", f"{number}-0", number, b"x" * 100, SPEC.digest, "c")


@pytest.mark.parametrize(("name", "nth"), [("ridge", 3), ("vw", 7), ("ridge, as it arrives", 5)])
def test_a_learner_that_loses_replies_leaves_nothing_behind_and_does_nothing_twice(
    losing, direct, through, name, nth
):
    spec = SPECS[name]
    loop = make(through, spec)
    settle(loop)
    rewards = 0
    with losing.losing(each(nth)):
        before = losing.count
        for part in range(9):
            decide(direct, 4, spec=spec, prefix=f"{part}.")
            for number in range(3):
                direct.xadd(
                    KEYS.inbox, {FIELD: encode(RewardRecord(f"{part}.0", 5.0, f"inbox {number}"))}
                )
            rewards += 5
            direct.xadd(KEYS.log, {FIELD: encode(CheckpointRecord())})
            if part == 5:
                direct.xadd(KEYS.log, {FIELD: encode(PinRecord(loop.publisher.snapshots.newest))})
            settle_through(loop)
        assert losing.count - before > 20
    settle(loop)
    logged = Counter(
        e.record.reward_id for e in read_all(direct, KEYS) if isinstance(e.record, RewardRecord)
    )
    assert sum(logged.values()) == rewards
    assert stats(direct).learned == 36
    assert not unnamed(direct)
    pinned = loop.fold.pinned
    assert pinned in {name.decode() for name in direct.lrange(KEYS.snapshots, 0, -1)}
    assert head(direct) == pinned
    assert direct.exists(KEYS.blob(pinned))
    assert set(verdicts(direct)) == {"identical"}


def settle_through(loop, steps: int = 12) -> None:
    """Steps, whatever is lost on the way."""
    for _ in range(steps):
        try:
            loop.lease.acquire()
        except FAILURES:
            continue
        loop.attempt()


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_publishing_forgets_what_is_too_old_and_keeps_what_is_pinned(losing, direct, through, lost):
    lease = leading(through)
    pinned = None
    for number in range(KEPT_SNAPSHOTS + 12):
        with losing.losing(once(b"EVAL", lost if number > 5 else 0)):
            while True:
                try:
                    name = publish(through, lease, KEYS, snapshot(number), pinned=pinned)
                    break
                except redis.RedisError:
                    continue
        pinned = pinned or name
    listed = [each.decode() for each in direct.lrange(KEYS.snapshots, 0, -1)]
    assert len(listed) == KEPT_SNAPSHOTS + 1
    assert listed[-1] == pinned
    assert head(direct) == pinned
    assert not unnamed(direct)
    assert all(direct.exists(KEYS.blob(each)) for each in listed)


def test_a_pin_of_a_snapshot_that_is_gone_does_not_stop_what_is_served(direct):
    lease = leading(direct)
    name = publish(direct, lease, KEYS, snapshot(1), pinned="0" * 32)
    assert msgspec.msgpack.decode(direct.get(KEYS.head), type=Head).snapshot_id == name


@pytest.mark.slow
@pytest.mark.parametrize("lost", [1, 3])
def test_storing_checkpoints_forgets_old_ones_and_no_listed_snapshot(losing, direct, through, lost):
    loop = make(through)
    settle(loop)
    for number in range(16):
        decide(direct, 1, prefix=f"{number}.")
        direct.xadd(KEYS.log, {FIELD: encode(CheckpointRecord())})
        with losing.losing(once(b"PERSIST", lost)):
            settle_through(loop, 3 + 2 * lost)
        settle(loop)
    stored = Checkpoints(direct, KEYS).list()
    assert len(stored) < 17
    assert not unnamed(direct)
    listed = [each.decode() for each in direct.lrange(KEYS.snapshots, 0, -1)]
    assert all(
        direct.exists(KEYS.blob(name)) for name in (*listed, *(each.digest for each in stored))
    )


def test_the_model_of_a_merge_that_was_not_decided_expires(losing, direct, through):
    """The first try is decided, its reply lost; the second, of other offers, is not."""
    keys = partition_loops.KEYS[0]
    lease = leading(through, keys)
    for number, data in enumerate((b"first", b"second")):
        record = MergeRecord(1, [None] * 3, digest(data), "model")
        with losing.losing(once(b"XADD", 1 - number)):
            if number == 0:
                with pytest.raises(redis.RedisError):
                    put_merge(through, lease, keys, record, data)
            else:
                put_merge(through, lease, keys, record, data)
    assert not unnamed(direct, keys)
    assert direct.ttl(keys.blob(digest(b"first"))) == -1
    assert direct.ttl(keys.blob(digest(b"second"))) > 0
    assert len([e for e in read_all(direct, keys) if isinstance(e.record, MergeRecord)]) == 1


@pytest.mark.parametrize("nth", [4, pytest.param(9, marks=pytest.mark.slow)])
def test_partitions_that_lose_replies_leave_nothing_behind(losing, direct, through, nth):
    loops = partition_loops.make_all(through)
    partition_loops.settle(loops, direct)
    with losing.losing(each(nth)):
        for part in range(3):
            partition_loops.decide(direct, 9, prefix=f"{part}.")
            for _ in range(15):
                for loop in loops:
                    partition_loops.step(loop)
    partition_loops.settle(loops, direct)
    assert partition_loops.learned(loops) == 27
    for keys in partition_loops.KEYS:
        assert not unnamed(direct, keys)
    assert set(partition_loops.verdicts(direct)) == {"identical"}


@pytest.mark.parametrize("repeats", [0, 3])
def test_an_inbox_is_moved_once_also_by_a_client_that_repeats(losing, direct, through, repeats):
    """Three events left six entries."""
    lease = leading(through)
    for number in range(3):
        direct.xadd(KEYS.inbox, {FIELD: encode(RewardRecord("e", 1.0, str(number)))})
    client = through
    if repeats and not isinstance(through, redis.RedisCluster):
        client = redis.Redis.from_url(
            losing.url, retry=redis.retry.Retry(redis.backoff.NoBackoff(), repeats)
        )
        lease._client = client
    inbox = Inbox(client, KEYS)
    with losing.losing(once(b"XDEL")):
        try:
            inbox.move(lease)
        except redis.RedisError:
            inbox.move(lease)
    assert direct.xlen(KEYS.inbox) == 0
    assert [e.record.reward_id for e in read_all(direct, KEYS)] == ["0", "1", "2"]


def test_a_lease_whose_token_was_lost_on_the_way_is_known_again(losing, direct, through):
    lease = Lease(through, KEYS, "first", lease_s=60.0)
    with losing.losing(once(b"EVAL")), pytest.raises(redis.RedisError):
        lease.acquire()
    assert lease.acquire()
    assert direct.get(KEYS.fence) == b"1"
    assert not Lease(direct, KEYS, "second").acquire()


def test_a_command_of_an_operator_is_in_the_log_once(losing, direct, through):
    stored = StoredPolicy(through, "home")
    with losing.losing(once(b"EVAL", 2)):
        at = stored.control(PinRecord("s"))
    assert [entry.id for entry in read_all(direct, KEYS)] == [at]
    with losing.losing(each(1, of=b"EVAL")), pytest.raises(redis.RedisError):
        stored.control(PinRecord("s"))
    assert len([*read_all(direct, KEYS)]) == 2


@pytest.mark.parametrize("own", [False, True])
async def test_a_write_of_a_replica_is_in_the_log_once_though_it_was_not_acknowledged(
    losing, direct, own
):
    client = asyncio_client(losing.url, timeout_s=2.0)
    writer = LogWriter(client, timeout_s=2.0)
    keys = Keys("home")
    await writer.append(keys.log, RewardRecord("e", 1.0, "before"))
    both = [RewardRecord("e", 1.0, "a"), RewardRecord("e", 1.0, "b")]
    written = (
        writer.append_once(keys, decision("e1"), b"asked")
        if own
        else writer.append_all(keys.log, both)
    )
    with losing.losing(once(b"EVAL")), pytest.raises(LogUnavailableError):
        await written
    await client.aclose()
    assert len([*read_all(direct, keys)]) == (2 if own else 3)


async def test_what_users_did_is_in_the_log_once_whichever_reply_is_lost(losing, direct, through):
    for spec in activity.SPECS:
        register(direct, spec)
    client = asyncio_client(losing.url, timeout_s=2.0)
    shop, keys = activity.Shop(direct, client), activity.KEYS
    names = [f"n{number}" for number in range(10)]
    replica, lost = shop.replica(), losing.count
    with losing.losing(each(3, of=b"EVAL")):
        for number, name in enumerate(names):
            event = activity.view(f"u{number % 3}", id=name)
            for _ in range(10):
                with contextlib.suppress(LogUnavailableError):
                    assert await replica.add_activity([event]) == [name]
                    break
                await asyncio.sleep(0.06)
    await client.aclose()
    assert losing.count > lost

    # What the leader writes: each of its commands loses its reply once.
    leader = ActivityLeader(through, "shop", salt=activity.SALT)
    for number in range(1, 9):
        direct.xadd(keys.inbox, {"json": msgspec.json.encode(activity.view("u0", id=None))})
        numbers = itertools.count(1)
        with losing.losing(lambda asked, n=number, of=numbers: b"EVAL" in asked and next(of) == n):
            for _ in range(3):
                with contextlib.suppress(*FAILURES):
                    leader.lease.acquire()
                leader.attempt()

    assert direct.xlen(keys.inbox) == 0
    records = [entry.record for entry in read_all(direct, keys)]
    assert [record.id for record in records] == names + [None] * 8
    assert len({record.user for record in records}) == 3
    assert direct.hgetall(keys.inbox_counts) == {b"moved": b"8"}
    state = decode_part_state(direct.hget(activity.USERS.parts, "activity"))
    assert state.position == shop.log.read("0-0")[-1].id


@pytest.mark.parametrize("nth", [2, 3, 5])
def test_an_archiver_that_loses_replies_archives_every_entry_once(
    losing, direct, through, tmp_path, nth
):
    for number in range(40):
        direct.xadd(KEYS.log, {FIELD: encode(RewardRecord("e", 1.0, str(number)))})
    archiver = Archiver(through, "home", str(tmp_path), max_entries=7, max_age_s=0.0, retain_s=0.0)
    with losing.losing(each(nth)):
        for _ in range(60):
            try:
                archiver.step()
                archiver.trim()
            except FAILURES:
                continue
    while archiver.step():
        pass
    archived = [entry.record.reward_id for entry in ArchiveReader(str(tmp_path), "home").entries()]
    assert archived == [str(number) for number in range(40)]


# That no client repeats by itself


def test_no_client_repeats_a_command_by_itself(losing):
    blocking, asynchronous = blocking_client(losing.url), asyncio_client(losing.url, timeout_s=1.0)
    for client in (blocking, asynchronous):
        pool = getattr(client, "connection_pool", None)
        retry = client.retry if pool is None else pool.connection_kwargs["retry"]
        assert retry.get_retries() == 0
    blocking.close()


def test_every_client_of_the_service_is_made_where_that_is_said():
    root = Path(__file__).parents[2]
    made = []
    for path in [
        *root.glob("serve_app/**/*.py"),
        *root.glob("simulator/**/*.py"),
        *root.glob("policies/**/*.py"),
    ]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                text = ast.unparse(node.func)
                if text.endswith(
                    ("Redis.from_url", "Cluster.from_url", "redis.Redis", "RedisCluster")
                ):
                    made.append(path.name)
    assert set(made) == {"clients.py"}
    assert len(made) == 4


def test_the_relays_lose_what_they_are_asked_to(losing: Losing, direct, through):
    before = losing.count
    with losing.losing(once(b"INCR", 2)):
        for _ in range(2):
            with pytest.raises(redis.RedisError):
                through.incr("bl:{home.0}:number")
    assert losing.count == before + 2
    assert direct.get("bl:{home.0}:number") == b"2"
