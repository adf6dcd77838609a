"""The loop over a real server: snapshots are published and followed, replays are identical."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
import redis
from support.fakes import SALT, fresh_ranker
from support.small_artifact import HISTORIES, ITEMS, make_artifact

from bandits.errors import BanditloopError, NoCandidatesError, SnapshotError, SpecError
from bandits.exploration import EpsilonGreedy
from bandits.log.codec import digest
from bandits.log.join import JoinRule
from bandits.log.records import (
    ActivationRecord,
    ArtifactRecord,
    BuildRecord,
    CatalogueRecord,
    ItemsBaseRecord,
    LogEntry,
    RewardRecord,
    SpecRecord,
    TickRecord,
)
from bandits.vw.config import VwConfig
from policies.artifacts import source_artifact as artifact
from policies.artifacts.profile_file import write_profiles
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue, Item
from policies.requests import ActionRequest, RankRequest
from policies.spec import ArtifactSource, PolicySpec
from serve_app.admin.freshness import read_all
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.store.event_log import FIELD, LogWriter, RedisLog
from serve_app.store.keys import ItemsKeys, Keys
from serve_app.store.lease import Lease
from serve_app.store.snapshots import (
    KEPT_SNAPSHOTS,
    Follower,
    Head,
    Published,
    decode_published,
    publish,
)
from serve_app.store.stats import Stats
from serve_app.workers.learner import LearnerLoop
from serve_app.workers.learner_factory import learner_of_log

KEYS = Keys("home")
ITEMS_KEYS = ItemsKeys("home")
WINDOW_S = 0.2
SPEC = PolicySpec("home", join=JoinRule(window_s=WINDOW_S))
VW_SPEC = PolicySpec(
    "home",
    learner=VwConfig("--cb_explore_adf --cb_type mtr -b 10 -q cf"),
    exploration=EpsilonGreedy(),
    join=JoinRule(window_s=WINDOW_S),
)
ACTIONS = [ActionRequest(name, {"x": x}) for name, x in [("a", 1.0), ("b", 0.5), ("c", -1.0)]]


def eventually(condition, timeout_s: float = 60.0):
    """The first truthy value of ``condition``."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)
    return value


@contextmanager
def learning(url: str, spec: PolicySpec, **options) -> Iterator[LearnerLoop]:
    """A learner on a thread, as the service runs it."""
    connection = redis.Redis.from_url(url)
    loop = learner_of_log(
        connection, spec, salt=options.pop("salt", SALT), publish_interval_s=0.02, **options
    )
    stop = threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    try:
        yield loop
    finally:
        stop.set()
        thread.join(10)
        connection.close()
        assert not thread.is_alive()


def head(client) -> tuple[Head, Published] | None:
    raw = client.get(KEYS.head)
    if raw is None:
        return None
    pointer = msgspec.msgpack.decode(raw, type=Head)
    data = client.get(KEYS.blob(pointer.snapshot_id))
    return None if data is None else (pointer, decode_published(data, pointer.snapshot_id))


def learned(client, count: int) -> Published | None:
    found = head(client)
    return found[1] if found and found[1].learned >= count else None


def replay(client, until: str) -> Fold:
    """A fresh fold of the log up to and with the entry ``until``."""
    fold = Fold(RedisLog(client, KEYS).blob, salt=SALT)
    limit = _order(until)
    fold.apply([entry for entry in read_all(client, KEYS) if _order(entry.id) <= limit])
    return fold


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence)


def decide_and_reward(client, spec: PolicySpec, count: int, prefix: str = "e") -> None:
    """Decisions with their rewards, some deferred, as a replica logs them."""
    reader, ranker = RedisLog(client, KEYS), fresh_ranker(spec)
    reader.put_blob(Catalogue().digest, Catalogue().encoded)
    for i in range(count):
        request = RankRequest(
            event_id=f"{prefix}{i}",
            context={"n": i % 5 / 5},
            actions=ACTIONS,
            defer_activation=i % 3 == 0,
        )
        record = asyncio.run(ranker.rank(request))
        reader.append(record)
        if record.deferred:
            reader.append(ActivationRecord(record.event_id))
        if i % 2:
            reader.append(RewardRecord(record.event_id, 1.0, f"r{i}"))


@pytest.mark.parametrize("spec", [SPEC, VW_SPEC], ids=["ridge", "vw"])
def test_the_published_snapshot_is_the_replay_of_the_log_byte_for_byte(client, server_url, spec):
    with learning(server_url, spec):
        eventually(lambda: head(client))
        decide_and_reward(client, spec, 40)
        published = eventually(lambda: learned(client, 40))
    assert published.snapshot == replay(client, published.position).snapshot()
    assert published.learned == 40


def test_a_learner_that_is_started_again_arrives_at_the_same_bytes(client, server_url):
    with learning(server_url, SPEC):
        eventually(lambda: head(client))
        decide_and_reward(client, SPEC, 30)
        eventually(lambda: learned(client, 30))
    pointer, published = eventually(lambda: head(client))
    client.delete(KEYS.head)
    with learning(server_url, SPEC):
        again, republished = eventually(lambda: head(client))
    kinds = [type(entry.record) for entry in read_all(client, KEYS)]
    # nothing had changed, so nothing was said
    assert kinds.count(SpecRecord) == kinds.count(BuildRecord) == 1
    assert republished.learned == published.learned == 30
    assert published.snapshot == replay(client, published.position).snapshot()
    assert republished.snapshot == replay(client, republished.position).snapshot()
    if republished.position == published.position:
        assert again.snapshot_id == pointer.snapshot_id


def test_a_learner_that_dies_in_the_middle_loses_nothing_and_learns_nothing_twice(
    client, server_url
):
    decided = 0
    for round_ in range(3):
        with learning(server_url, SPEC):
            eventually(lambda: head(client))
            decide_and_reward(client, SPEC, 10, prefix=f"{round_}.")
            decided += 10
    with learning(server_url, SPEC):
        published = eventually(lambda: learned(client, decided))
    assert published.learned == decided


def test_a_tick_closes_windows_when_the_log_is_quiet(client, server_url):
    with learning(server_url, SPEC):
        eventually(lambda: head(client))
        decide_and_reward(client, SPEC, 1)
        eventually(lambda: learned(client, 1))
    ticks = [entry for entry in read_all(client, KEYS) if isinstance(entry.record, TickRecord)]
    assert 1 <= len(ticks) <= 2  # at the window's end, and perhaps when the decision is forgotten


def test_what_changed_is_said_once_and_in_an_order_that_can_be_resumed(client, server_url):
    catalogue = Catalogue([Item("a", {"x": 1.0})])
    for _ in range(2):
        with learning(server_url, SPEC, artifact="v1", catalogue=catalogue):
            eventually(lambda: head(client))
    kinds = [type(entry.record) for entry in read_all(client, KEYS)]
    assert kinds == [BuildRecord, SpecRecord, ArtifactRecord]
    items = [entry.record for entry in RedisLog(client, ITEMS_KEYS).between("0-0")]
    assert items == [ItemsBaseRecord(catalogue.digest)]


def test_an_older_log_gives_its_catalogue_to_the_log_of_items_and_no_artifact_does(
    client, server_url
):
    older, brought = Catalogue([Item("a", {"x": 1.0})]), Catalogue([Item("b")])
    reader = RedisLog(client, KEYS)
    reader.put_blob(older.digest, older.encoded)
    reader.append(CatalogueRecord(older.digest))
    with learning(server_url, SPEC, artifact="v1", catalogue=brought):
        eventually(lambda: (found := head(client)) and found[1].catalogue == older.digest)
    items = [entry.record for entry in RedisLog(client, ITEMS_KEYS).between("0-0")]
    assert items == [ItemsBaseRecord(older.digest)]
    assert client.get(ITEMS_KEYS.blob(older.digest)) == older.encoded


def test_another_salt_is_said_in_the_log(client, server_url):
    for salt in (SALT, b"another"):
        with learning(server_url, SPEC, salt=salt):
            eventually(lambda: head(client))
            name = digest(salt)
            eventually(
                lambda name=name: [
                    e
                    for e in read_all(client, KEYS)
                    if isinstance(e.record, SpecRecord) and e.record.salt_id == name
                ]
            )


def test_a_new_spec_and_a_new_catalogue_take_effect_through_the_log(client, server_url):
    with learning(server_url, SPEC):
        eventually(lambda: head(client))
        decide_and_reward(client, SPEC, 10)
        eventually(lambda: learned(client, 10))
    changed = msgspec.structs.replace(SPEC, floor=0.5)
    with learning(server_url, changed):
        published = eventually(
            lambda: (found := head(client)) and found[1].spec == changed.digest and found[1]
        )
        assert published.learned == 10
        catalogue = Catalogue([Item("a", {"x": 9.0})])
        reader = RedisLog(client, KEYS)
        reader.put_blob(catalogue.digest, catalogue.encoded)
        reader.append(CatalogueRecord(catalogue.digest))
        published = eventually(
            lambda: (found := head(client)) and found[1].catalogue == catalogue.digest and found[1]
        )
    assert published.snapshot == replay(client, published.position).snapshot()


def test_a_spec_that_cannot_be_learned_never_enters_the_log(client):
    wrong = PolicySpec(
        "home", learner=VwConfig("--cb_explore_adf --no_such_option"), exploration=EpsilonGreedy()
    )
    with pytest.raises(SpecError):
        learner_of_log(client, wrong, salt=SALT, publish_interval_s=1)
    assert client.xlen(KEYS.log) == 0


def test_junk_in_the_log_is_counted_and_learning_goes_on(client, server_url):
    with learning(server_url, SPEC):
        eventually(lambda: head(client))
        for _ in range(5):
            client.xadd(KEYS.log, {FIELD: b"junk"})
        decide_and_reward(client, SPEC, 3)
        published = eventually(lambda: learned(client, 3))
        stats = eventually(
            lambda: (
                (raw := client.get(KEYS.stats))
                and (s := msgspec.msgpack.decode(raw, type=Stats)).learned == 3
                and s
            )
        )
    assert stats.outcomes["undecodable"] >= 5
    assert stats.outcomes["closed"] == 3
    assert published.snapshot == replay(client, published.position).snapshot()


# Snapshots


class NothingBeside:
    """Nothing is followed beside the snapshots."""

    def ask(self, _pipeline) -> int:
        return 0

    async def take(self, _number, answers) -> None:
        assert answers == []


def follower(async_client, accepted: list) -> Follower:
    def accept(snapshot_id: str, published: Published) -> None:
        if published.payload == b"refuse":
            raise SnapshotError("refused", "payload")
        accepted.append((snapshot_id, published.position))

    return Follower(async_client, KEYS, accept, NothingBeside(), replica="r1", interval_s=0.01)


def put(client, number: int, payload: bytes = b"p") -> str:
    lease = Lease(client, KEYS, "test")
    assert lease.acquire()
    published = Published("k", f"{number}-0", number, payload, "s", Catalogue().digest)
    try:
        return publish(client, lease, KEYS, published)
    finally:
        lease.release()


async def test_a_follower_loads_each_new_snapshot_once(client, async_client):
    accepted = []
    replica = follower(async_client, accepted)
    assert not await replica.step()
    first = put(client, 1)
    assert [await replica.step(), await replica.step()] == [True, False]
    second = put(client, 2)
    put(client, 3)
    third = put(client, 3)  # the same bytes again are the same snapshot
    assert [await replica.step(), await replica.step()] == [True, False]
    assert [each[0] for each in accepted] == [first, third]
    assert second != third
    reports = [fields[b"position"] for _, fields in client.xrange(KEYS.loads)]
    assert reports == [b"1-0", b"3-0"]


@pytest.mark.parametrize("damage", ["blob", "payload", "pointer"])
async def test_a_snapshot_that_cannot_be_loaded_leaves_the_previous_one_serving(
    client, async_client, damage
):
    accepted = []
    replica = follower(async_client, accepted)
    put(client, 1)
    await replica.step()
    bad = put(client, 2, b"refuse" if damage == "payload" else b"p")
    if damage == "blob":
        client.set(KEYS.blob(bad), b"corrupt")
    if damage == "pointer":
        client.set(KEYS.head, b"corrupt")
    with pytest.raises(BanditloopError):
        await replica.step()
    assert len(accepted) == 1
    put(client, 3)
    assert await replica.step()
    assert [each[1] for each in accepted] == ["1-0", "3-0"]


async def test_a_follower_runs_on_past_refusals_and_counts_them(client, async_client):
    accepted = []
    replica = follower(async_client, accepted)
    put(client, 1, b"refuse")
    task = asyncio.create_task(replica.run())
    await asyncio.to_thread(eventually, lambda: replica.failures)
    put(client, 2)
    await asyncio.to_thread(eventually, lambda: accepted)
    assert replica.failures == {"refused": 1}  # what was refused is not tried again and again
    task.cancel()


async def test_a_connection_lost_between_two_reads_only_delays_the_snapshot(client, async_client):
    name = put(client, 1)

    class Flaky:
        """Loses the connection the first time the snapshot is asked for."""

        lost = False

        def __getattr__(self, name):
            return getattr(async_client, name)

        async def execute_command(self, *command):
            if KEYS.blob(name) in command and not self.lost:
                self.lost = True
                raise redis.ConnectionError("gone")
            return await async_client.execute_command(*command)

    accepted = []
    replica = follower(Flaky(), accepted)
    with pytest.raises(redis.ConnectionError):
        await replica.step()
    assert await replica.step()
    assert [each[1] for each in accepted] == ["1-0"]


def test_only_the_newest_snapshots_are_kept(client):
    ids = [put(client, n) for n in range(KEPT_SNAPSHOTS + 7)]
    stored = [i for i in ids if client.exists(KEYS.blob(i))]
    assert stored == ids[-KEPT_SNAPSHOTS:]
    assert [i.decode() for i in client.lrange(KEYS.snapshots, 0, -1)] == stored[::-1]
    assert head(client)[0].snapshot_id == ids[-1]


def test_a_snapshot_whose_bytes_are_not_those_of_its_name_is_refused():
    with pytest.raises(SnapshotError):
        decode_published(b"data", digest(b"other"))
    with pytest.raises(SnapshotError):
        decode_published(b"data", digest(b"data"))


# All of it


async def test_a_replica_answers_logs_and_follows_what_is_learned(client, async_client, server_url):
    service = RedisPolicyService(
        SPEC, async_client, LogWriter(async_client), salt=SALT, replica="r1", follow_interval_s=0.01
    )
    assert not service.ready
    service.start()
    with learning(server_url, SPEC):
        await asyncio.to_thread(eventually, lambda: service.ready)
        for i in range(20):
            record, logged = await service.rank(RankRequest(event_id=f"e{i}", actions=ACTIONS))
            assert logged
            await service.log([RewardRecord(record.event_id, 1.0)])
        await asyncio.to_thread(eventually, lambda: service.ranker.serving.snapshot.learned == 20)
        digest_ = await service.replace_catalogue([Item("a", {"x": 2.0})])
        await asyncio.to_thread(
            eventually, lambda: service.ranker.offering.catalogue.digest == digest_
        )
        info = await service.info()
    assert (info.learned, info.items, info.ready) == (20, 1, True)
    serving = service.ranker.serving
    assert serving.snapshot == replay(client, serving.snapshot.position).snapshot()
    await service.stop()


@pytest.mark.usefixtures("client")
async def test_what_is_put_out_of_the_catalogue_is_recommended_no_more(
    async_client, server_url, tmp_path
):
    """By rank and rank:batch, of a service that has an artifact.

    Then nothing is left, and then it comes back.
    """
    version = artifact.write(make_artifact(), tmp_path)
    sources = [ArtifactSource(name) for name in ("popular", "als", "item_knn")]
    profiles = tmp_path / "profiles.parquet"
    write_profiles(profiles, HISTORIES, salt=SALT)
    spec = msgspec.structs.replace(
        SPEC, sources=sources, artifact=str(tmp_path), profiles=str(profiles), limit=4
    )
    service = RedisPolicyService(
        spec, async_client, LogWriter(async_client), salt=SALT, replica="r1", follow_interval_s=0.01
    )
    service.start()
    request = RankRequest(user_id="known", slots=2)

    async def put(*ids: str) -> None:
        digest_ = await service.replace_catalogue([Item(each) for each in ids])
        await asyncio.to_thread(
            eventually, lambda: service.ranker.offering.catalogue.digest == digest_
        )

    trained = {"artifact": version, "catalogue": Catalogue.of(make_artifact().catalogue)}
    with learning(server_url, spec, **trained):
        await asyncio.to_thread(eventually, lambda: service.ready)
        before, _ = await service.rank(request)
        assert len(before.action_ids) >= spec.limit
        left = [item for item in ITEMS[2:] if item not in before.action_ids][:6]
        await put(*left)
        answers = [await service.rank(request), *await service.rank_all([request] * 3)]
        for record, logged in answers:
            assert logged
            assert len(record.action_ids) >= spec.limit
            assert set(record.action_ids) <= set(left)
        await put()
        for answer in await service.rank_all([request] * 2):
            assert isinstance(answer, NoCandidatesError)
        explicit, _ = await service.rank(RankRequest(actions=ACTIONS))
        assert len(explicit.action_ids) == len(ACTIONS)
        await put(*ITEMS)
        assert (await service.rank(request))[0].action_ids == before.action_ids
    await service.stop()


def test_a_log_entry_knows_its_time():
    assert LogEntry("12-3", TickRecord()).time_ms == 12


async def test_a_follower_that_is_stopped_ends_although_its_client_swallows_the_cancellation():
    asked = asyncio.Event()

    class Swallows:
        def pipeline(self, *, transaction: bool) -> "Swallows":
            assert not transaction
            return self

        def get(self, _key: str) -> None:
            """Ask for it with the others."""

        async def execute(self) -> None:
            asked.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise redis.ConnectionError("the connection was closed") from None

    follower = Follower(
        Swallows(),
        Keys("home"),
        lambda *_: None,
        NothingBeside(),
        replica="r",
        interval_s=0.01,
    )
    task = asyncio.create_task(follower.run())
    await asked.wait()
    follower.stop()
    task.cancel()
    await asyncio.wait_for(asyncio.wait([task]), 5)
    assert task.done()


def test_an_entry_of_another_stream_ends_the_wait_for_entries_of_a_log(client):
    """Over either protocol: it is not returned, and neither does it hide those of the log."""
    log = RedisLog(client, KEYS)
    position = log.append(TickRecord())
    client.xadd(KEYS.inbox, {"json": "{}"})
    waits = {"block_ms": 60_000, "beside": KEYS.inbox}
    assert log.read_encoded(position, **waits) == []
    assert [each.id for each in log.read_encoded("0-0", **waits)] == [position]
    url = client.connection_pool.connection_kwargs
    other = redis.Redis(host=url["host"], port=url["port"], protocol=2)
    assert RedisLog(other, KEYS).read_encoded(position, **waits) == []
    assert [each.id for each in RedisLog(other, KEYS).read_encoded("0-0", **waits)] == [position]
    other.close()
