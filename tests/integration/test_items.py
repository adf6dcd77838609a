"""Items over a real server: a put is seen by every replica, a removed item is never chosen again.

Whatever dies in between, the log of items and the policy's say what was decided on what.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from functools import partial

import msgspec
import pytest
from support.small_artifact import ITEMS, make_artifact

from banditloop_client.schemas import ItemPatch, ItemsQuery, SimilarQuery
from bandits.errors import InvalidTimesError, NotReadyError, UnknownItemError
from bandits.log.join import JoinRule
from bandits.log.positions import START, log_order
from bandits.log.records import ItemChange, ItemsBaseRecord, ItemsRecord, RewardRecord
from policies.archive.archive import ArchiveReader
from policies.archive.shared import shared_folder
from policies.artifacts import source_artifact as artifact
from policies.artifacts.fetch import load_artifact
from policies.items import timeline as timelines
from policies.items.catalogue import Catalogue
from policies.items.changes import encode_item
from policies.requests import ActionRequest, Item, RankRequest
from policies.rules.filters import FilterRule
from policies.spec import ArtifactSource, ContentSource, FreshSource, PolicySpec
from serve_app.admin.replayed.verification import LogAddress, verify_policy
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.replica import items as replica_items
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.settings import Settings
from serve_app.store import inbox as inboxes
from serve_app.store.archiving.archived import Committed
from serve_app.store.clients import asyncio_client, blocking_client
from serve_app.store.event_log import LogWriter, RedisLog
from serve_app.store.inbox import Inbox
from serve_app.store.items.bases import read_base
from serve_app.store.items.history import ItemsHistory
from serve_app.store.items.sweep import ItemsSweep
from serve_app.store.keys import PROCESSES, ItemsKeys, Keys
from serve_app.store.lease import Lease
from serve_app.store.replicas.artifacts import read_vector_lengths
from serve_app.workers import items_leader
from serve_app.workers.archiver import Archiver
from serve_app.workers.items_leader import ItemsLeader
from serve_app.workers.learner_factory import learner_of_service

pytestmark = pytest.mark.timeout(120)
KEYS = ItemsKeys("home")
ASKED = RankRequest(history=["i01"])
MORNING = datetime(2026, 1, 1, tzinfo=UTC)


def put(item_id: str, **fields) -> ItemChange:
    return ItemChange("put", item_id, encode_item(Item(item_id, **fields)))


def patch(item_id: str, **fields) -> ItemChange:
    return ItemChange("patch", item_id, encode_item(ItemPatch(**fields)))


def delete(item_id: str) -> ItemChange:
    return ItemChange("delete", item_id)


class Shop:
    """A policy with learners that can be crashed, replicas, and an archive."""

    def __init__(self, url: str, folder, partitions: int) -> None:
        version = artifact.write(make_artifact(), folder / "artifact")
        self.spec = PolicySpec(
            "home",
            sources=[
                ArtifactSource("popular"),
                ArtifactSource("item_knn"),
                FreshSource("fresh"),
            ],
            artifact=str(folder / "artifact"),
            limit=len(ITEMS),
            join=JoinRule(window_s=0.3),
            partitions=partitions,
            filter=FilterRule("!item.sold_out", unknown="admit", fields=["price"]),
        )
        assert version
        self.settings = Settings(
            redis_url=url,
            data_dir=folder,
            publish_interval_ms=20,
            merge_interval_ms=50,
            checkpoint_interval_s=1,
        )
        self.url = url
        self.client = blocking_client(url)
        self._replicas: list[RedisPolicyService] = []

    @contextlib.contextmanager
    def learning(self) -> Iterator[None]:
        """One learner for each partition; at the end they crash: nothing is said or released."""
        stop = threading.Event()
        trained = load_artifact(self.spec.artifact)
        loops = [
            learner_of_service(self.settings, self.spec, number, trained, 1)
            for number in range(self.spec.partitions)
        ]
        threads = [threading.Thread(target=loop.run, args=(stop,)) for loop in loops]
        for loop, thread in zip(loops, threads, strict=True):
            loop.lease.release = lambda: None
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(10)
            for number in range(self.spec.partitions):  # as if its time were over
                self.client.delete(Keys("home", number).lease)

    async def replica(self, name: str, *, ready: bool = True) -> RedisPolicyService:
        client = asyncio_client(self.url, timeout_s=5.0)
        service = RedisPolicyService(
            self.spec,
            client,
            LogWriter(client),
            salt=self.settings.secret(),
            replica=name,
            follow_interval_s=0.02,
        )
        service.start()
        self._replicas.append(service)
        if ready:
            await until(lambda: service.ready)
        return service

    def archive(self) -> str:
        root = self.settings.archive_root()
        count = self.spec.partitions
        logs = [{"partition": number, "partitions": count} for number in range(count)]
        for which in (*logs, {"shared": "items"}):
            archiver = Archiver(
                self.client, "home", root, max_age_s=0.0, retain_s=0.0, max_entries=10, **which
            )
            while archiver.step():
                pass
            while archiver.trim():
                pass
        return root

    def trim_items(self) -> None:
        """Let what nobody needs in the stream go, to the last: an archiver leaves up to a hundred."""
        needed = self.client.get(KEYS.needed).decode()
        written = Committed.read(self.client, KEYS).written
        assert log_order(START) < log_order(needed) < log_order(written)
        self.client.xtrim(KEYS.log, minid=needed, approximate=False)
        (first, _), *_ = self.client.xrange(KEYS.log, count=1)
        assert log_order(first.decode()) >= log_order(needed)
        self.client.hset(KEYS.archive, "trimmed", needed)

    async def close(self) -> None:
        for service in self._replicas:
            await service.stop()
            await service._client.aclose()
        self.client.close()


async def similar(service: RedisPolicyService, item_id: str) -> list[str]:
    answer = await service.similar(item_id, SimilarQuery(limit=len(ITEMS)))
    return [each.id for each in answer.items]


async def sells_out(one: RedisPolicyService, other: RedisPolicyService) -> None:
    """What is sold out is offered to nobody; what a request's own filter admits fills its pool."""
    await one.change_items([patch("i08", features={"price": -9.0, "sold_out": True})])
    assert (await other.item("i08")).item.features["sold_out"] is True
    assert "i08" not in (await other.rank(ASKED))[0].action_ids + await similar(other, "i01")
    await one.change_items([patch("i08", features={"sold_out": False})])
    assert (await other.item("i08")).item.features["sold_out"] is False
    priced = RankRequest(history=["i01"], filter="has(item.price)")
    assert (await other.rank(priced))[0].action_ids == ["i08"]


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.005)


@pytest.fixture(params=[1, 2], ids=["one log", "two partitions"])
async def shop(request, client, server_url, tmp_path, monkeypatch) -> AsyncIterator[Shop]:
    # Replicas forget what nobody needs again and again, beside what they answer.
    monkeypatch.setattr(replica_items, "REMEMBERED", 7)
    monkeypatch.setattr(timelines, "LEAST_DEAD", 0)
    made = Shop(server_url, tmp_path, request.param)
    yield made
    await made.close()


async def test_what_is_put_is_offered_and_what_is_removed_never_again_whoever_dies(
    shop, monkeypatch
):
    monkeypatch.setattr(items_leader, "LEAST_CHANGES", 40)
    monkeypatch.setattr(items_leader, "LOOK_S", 0.02)
    with shop.learning():
        one, other = await shop.replica("one"), await shop.replica("other")

        # The artifact's catalogue began the log, under the name that it always had.
        catalogue = Catalogue.of(load_artifact(shop.spec.artifact).catalogue)
        before, logged = await one.rank(ASKED)
        assert (before.catalogue, logged) == (catalogue.digest, True)
        assert "i07" in before.action_ids

        assert "i07" in await similar(other, "i01")

        gone = await one.change_items([delete("i07")])
        assert gone.items == len(ITEMS) - 1
        for look_up in (other.item, partial(similar, other)):
            with pytest.raises(UnknownItemError):
                await look_up("i07")
        assert "i07" not in (await other.rank(ASKED))[0].action_ids + await similar(other, "i01")

        # A patch through one replica is of what was put through the other, features and all.
        await other.change_items([put("i08", features={"price": 3.0, "new": True})])
        changed = await one.change_items([patch("i08", features={"price": 5.0})])
        assert await similar(other, "i08")
        seen = await other.item("i08")
        assert (seen.version, seen.item.features) == (changed.version, {"price": 5.0, "new": True})
        decided, _ = await other.rank(ASKED)
        assert decided.catalogue == changed.version
        await sells_out(one, other)
        await other.log([RewardRecord(decided.event_id, 1.0)])

    # While nobody learns, items change on; then somebody does again.
    await one.change_items([put("i07", hidden=True)])
    assert "i07" not in (await one.rank(ASKED))[0].action_ids
    with shop.learning():
        for number in range(60):
            await one.change_items([put(f"n{number % 3}", features={"number": float(number)})])
            record, _ = await (one if number % 2 else other).rank(ASKED)
            assert "i07" not in record.action_ids
            assert number % 2 == 0 or f"n{number % 3}" in record.action_ids, "a new one at once"
            await other.log([RewardRecord(record.event_id, number % 2)])
        await until(lambda: (base := read_base(shop.client, KEYS)) and "~" in base.version)

        # Who starts now begins at a later catalogue, and is where the others are.
        third = await shop.replica("third")
        for service in (one, other, third):
            await service.items_log.catch_up()
        assert len({each.items_log.timeline.version for each in (one, other, third)}) == 1
        page = await third.items(ItemsQuery(after="i28", contains="n"))
        assert ([item.id for item in page.items], page.total) == (
            ["n0", "n1", "n2"],
            len(ITEMS) + 3,
        )
        await until(lambda: third.ranker.serving.snapshot.learned > 60)

    root = await asyncio.to_thread(shop.archive)
    shop.trim_items()
    history = ItemsHistory(shop.client, KEYS, ArchiveReader(root, shared_folder("home", "items")))
    bases = [e for e in history.encoded(START) if isinstance(e.record, ItemsBaseRecord)]
    assert [entry.id for entry in history.bases(history.end())] == [e.id for e in bases][::-1]
    assert bases[0].record == ItemsBaseRecord(catalogue.digest)
    assert len(bases) > 1

    address = LogAddress(shop.url, "home", root, shop.settings.secret())
    served, corrupt = StoredPolicy(shop.client, "home").served()
    results, learned = await asyncio.to_thread(
        verify_policy, address, served, progress=lambda _: None
    )
    assert ({each.verdict for each in results}, corrupt) == ({"identical"}, [])
    assert learned > 60


async def test_nothing_is_put_before_the_log_has_begun_and_a_whole_catalogue_replaces_all(
    client, server_url, tmp_path
):
    shop = Shop(server_url, tmp_path, 1)
    try:
        early = await shop.replica("early", ready=False)
        with pytest.raises(NotReadyError):
            await early.change_items([put("a")])
        with shop.learning():
            # From the first moment that it is ready, it has what the artifact brings.
            async with asyncio.timeout(30):
                while not early.ready:  # noqa: ASYNC110 - nothing tells of the moment
                    await asyncio.sleep(0)
            assert early.items_log.begun
            assert set((await early.rank(ASKED))[0].action_ids) <= set(ITEMS)

            one, other = await shop.replica("one"), await shop.replica("other")
            begun = (await one.item("i01")).version
            version = await one.replace_catalogue([Item("i02"), Item("x", {"p": 1.0})])
            assert (await other.item("x")).version == version != begun

            # A patch is refused by what the item is.
            then = await one.change_items([patch("x", available_from=MORNING)])
            with pytest.raises(InvalidTimesError, match="not after available_from"):
                await one.change_items([patch("x", available_until=MORNING)])
            assert (await one.item("x")).version == then.version
            assert set((await other.rank(ASKED))[0].action_ids) == {"i02", "x"}
            await other.change_items([delete("x")])
            with pytest.raises(UnknownItemError):
                await one.change_items([patch("x", hidden=True)])
            explicit, _ = await one.rank(RankRequest(actions=[ActionRequest("x")]))
            assert explicit.action_ids == ["x"]
            assert await one.replace_catalogue([Item("i03")]) != version
            await other.item("i03")
            assert (await other.rank(ASKED))[0].action_ids == ["i03"]

            # Many are several entries, so that replicas have turns in between.
            entries = client.xlen(KEYS.log)
            many = await other.change_items([put(f"m{number}") for number in range(450)])
            assert client.xlen(KEYS.log) == entries + 450 // replica_items.CHANGES_PER_TURN
            assert (many.items, many.version) == (451, (await one.item("m449")).version)
    finally:
        await shop.close()


async def test_items_come_through_the_inbox_once(client, server_url, tmp_path):
    shop = Shop(server_url, tmp_path, 1)
    inbox = Keys("home").inbox
    sent = [
        {"type": "item", "op": "put", "item": {"id": "a", "features": {"x": 1, "s": {"cm": 4}}}},
        {"type": "item", "op": "patch", "id": "a", "patch": {"features": {"y": [2, 3]}}},
        {"type": "item", "op": "put", "item": {"id": "b"}},
        {"type": "item", "op": "delete", "id": "b"},
        {"type": "item", "op": "delete"},
        {"type": "item", "op": "put", "item": {"id": "c", "vectors": {"v": []}}},
    ]
    try:
        with shop.learning():
            one = await shop.replica("one")
            for each in sent:
                client.xadd(inbox, {"json": msgspec.json.encode(each)})
            await until(lambda: not client.xlen(inbox))
            features = {"x": 1.0, "s.cm": 4.0, "y.0": 2.0, "y.1": 3.0}
            assert (await one.item("a")).item.features == features
            for absent in "bc":
                with pytest.raises(UnknownItemError):
                    await one.item(absent)
        assert client.xlen(KEYS.log) == 1 + 4
    finally:
        await shop.close()


async def test_the_inbox_refuses_vectors_that_cannot_be_compared_with_the_others(
    client, async_client, monkeypatch
):
    """A replica says how long those are; until it does, the first that comes says it."""
    monkeypatch.setattr(inboxes, "UNTOLD_S", 60.0)  # however slow this machine is
    spec = PolicySpec("home", sources=[ContentSource("looks", vector="look")])
    keys = Keys("home")
    ItemsLeader(client, KEYS, ItemsHistory(client, KEYS, None)).begin(Catalogue(), None)
    service = RedisPolicyService(
        spec,
        async_client,
        LogWriter(async_client),
        salt=b"s" * 16,
        replica="one",
        follow_interval_s=0.02,
    )
    client.zadd(PROCESSES, {"one": time.time() + 1_000})  # as if it pushed its metrics
    lease = Lease(client, keys, "test", lease_s=60.0)
    assert lease.acquire()

    def refused(inbox: Inbox, **vectors: list[float]) -> set[str]:
        before, offered = inbox.refused, set(vectors)
        for name, vector in vectors.items():
            item = {"id": name, "vectors": {"look": vector, "sound": [*vector, 1]}}
            sent = {"type": "item", "op": "put", "item": item}
            client.xadd(keys.inbox, {"json": msgspec.json.encode(sent)})
        inbox.move(lease)
        made = {
            change.id
            for entry in RedisLog(client, KEYS).between(START)
            if isinstance(entry.record, ItemsRecord)
            for change in entry.record.changes
        }
        assert inbox.refused - before == len(offered - made)
        return offered - made

    service.start()
    try:
        await until(lambda: read_vector_lengths(client, keys) == {"look": 0})
        inbox = Inbox(client, keys)
        assert refused(inbox, a=[1, 2], b=[1, 2, 3], c=[3, 4]) == {"b"}
        assert refused(inbox, b=[1, 2, 3], d=[1, 2]) == {"b"}
        await until(lambda: read_vector_lengths(client, keys) == {"look": 2})
        assert refused(Inbox(client, keys), b=[1, 2, 3], e=[5, 6]) == {"b"}

        patch_of = {"type": "item", "op": "patch", "id": "a", "patch": {"vectors": {"look": [1]}}}
        client.xadd(keys.inbox, {"json": msgspec.json.encode(patch_of)})
        last = Inbox(client, keys)
        last.move(lease)
        assert last.refused == 1
    finally:
        await service.stop()
    assert refused(Inbox(client, keys), b=[1, 2, 3]) == set()  # nobody says that it matters


async def test_catalogues_that_nobody_begins_with_go_once_they_are_archived(
    client, server_url, tmp_path
):
    shop = Shop(server_url, tmp_path, 1)
    root = shop.settings.archive_root()
    sweep = ItemsSweep(client, KEYS, ArchiveReader(root, shared_folder("home", "items")))

    def expiring() -> set[str]:
        return {name for name in versions if client.ttl(KEYS.blob(name)) >= 0}

    try:
        with shop.learning():
            one = await shop.replica("one")
            versions = [await one.replace_catalogue([Item(name)]) for name in ITEMS[:3]]
            assert sweep.sweep() == []  # the archive has none of it yet
            await asyncio.to_thread(shop.archive)
            assert set(versions[:2]) <= set(sweep.sweep())
            assert expiring() == set(versions[:2])

            # Put again, it lasts again, and the one before it goes.
            await one.replace_catalogue([Item(ITEMS[0])])
            await asyncio.to_thread(shop.archive)
            assert versions[2] in sweep.sweep()
            assert expiring() == set(versions[1:])
    finally:
        await shop.close()


async def test_what_a_server_has_lost_in_a_failover_is_offered_no_more(
    client, server_url, tmp_path
):
    """Another server answers, after questions that nobody did, and lacks the newest entry."""
    shop = Shop(server_url, tmp_path, 1)
    try:
        with shop.learning():
            one = await shop.replica("one")
            kept = await one.change_items([put("kept")])
            lost = await one.change_items([put("lost")])
            assert "lost" in (await one.rank(ASKED))[0].action_ids

            one.items_log.ask(one._client.pipeline(transaction=False))
            client.xdel(KEYS.log, lost.version.partition("~")[0])
            with pytest.raises(UnknownItemError):
                await one.item("lost")
            assert (await one.item("kept")).version == kept.version
            assert "lost" not in (await one.rank(ASKED))[0].action_ids
    finally:
        await shop.close()
