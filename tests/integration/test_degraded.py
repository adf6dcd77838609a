"""Redis slow, down, full, demoted or loading: rank answers in time, no acknowledged event is lost."""

import asyncio
import contextlib
import functools
import random
import signal
import time
from collections.abc import Iterator

import httpx
import pytest
import redis
from support.replica import (
    HOME,
    KEYS,
    SLACK_S,
    SPEC,
    TIMEOUT_S,
    Answer,
    Caller,
    Replica,
    eventually,
    put_snapshot,
)
from support.replica import serving as patient
from support.servers import PATIENCE_S, Forwarder, Server, binary_of

from bandits.log.records import ActivityRecord, ItemsBaseRecord
from policies.items.catalogue import Catalogue, Item
from policies.profiles.options import ProfileOptions, Times
from policies.spec import PolicySpec
from serve_app.admin.freshness import read_all
from serve_app.replica import deployment as deployments
from serve_app.replica.deployment import RankReplica
from serve_app.settings import Settings
from serve_app.store.items.bases import append_base
from serve_app.store.items.history import ItemsHistory
from serve_app.store.keys import ActivityKeys, ItemsKeys, Keys
from serve_app.store.replicas import shared_wire
from serve_app.store.snapshots import RETRY_S
from serve_app.workers.items_leader import ItemsLeader

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=["valkey", "redis"])
def binary(request) -> str:
    return binary_of(request.param)


@pytest.fixture
def server(binary, tmp_path) -> Iterator[Server]:
    with Server(binary, tmp_path / "server") as out:
        yield out


@pytest.fixture
def second(binary, tmp_path) -> Iterator[Server]:
    with Server(binary, tmp_path / "second") as out:
        yield out


serving = functools.partial(patient, timeout_s=TIMEOUT_S)


@pytest.fixture
async def caller(server, tmp_path):
    async with serving(server, tmp_path) as out:
        yield out


def refused(answers: list[Answer]) -> None:
    """Rank answered from its snapshot, rewards were refused, nobody waited past the timeout."""
    assert answers
    for answer in answers:
        assert answer.seconds <= TIMEOUT_S + SLACK_S
        if answer.response.status_code == 200:
            body = answer.response.json()
            assert body["logged"] is False
            assert body["chosen"][0]["propensity"] > 0
        else:
            assert answer.response.status_code == 503
            assert answer.response.json()["error"]["code"] == "log_unavailable"
            assert int(answer.response.headers["retry-after"]) > 0


async def failures(caller: Caller, **labels: str) -> float:
    return await caller.metric("log_failures_total", **labels)


async def accounted(caller: Caller) -> None:
    """Every failure the callers saw has a reason in /metrics. Call while nothing else is sent."""
    assert await failures(caller) == sum(
        not a.logged and a.response.status_code != 202 for a in caller.answers
    )
    unlogged = sum(a.response.status_code == 200 and not a.logged for a in caller.answers)
    assert await caller.metric("decisions_total", logged="false") == unlogged


async def test_down_and_up_again(caller, server):
    async def healthy() -> bool:
        answers = await caller.traffic(0.3)
        return all(each.logged or each.response.status_code == 202 for each in answers)

    await eventually(healthy, "every decision and reward is logged")
    server.end()
    refused(await caller.traffic(0.5))
    assert await failures(caller, reason="connection") > 0
    for path, status in [("/livez", 200), ("/readyz", 200), (HOME, 200), ("/metrics", 200)]:
        assert (await caller.http.get(path)).status_code == status
    catalogue = await caller.http.put(f"{HOME}/catalogue", json={"items": []})
    assert (catalogue.status_code, catalogue.headers["retry-after"]) == (503, "1")
    server.start()
    await caller.recovered()
    await caller.traffic(0.3)
    caller.audit()


async def test_a_server_that_stands_still_is_waited_for_once(caller, server):
    """The writes of the first moment pay the timeout.

    Then one at a time tries, and the others are answered at once.
    """
    workers, began = 8, time.monotonic()
    with server.frozen():
        refused(await caller.traffic(4 * TIMEOUT_S, workers))
    trials = (time.monotonic() - began) / TIMEOUT_S + 1
    assert 1 <= await failures(caller, reason="timeout") <= workers + trials
    assert await failures(caller, reason="skipped") > 0
    await accounted(caller)
    await caller.recovered()
    await caller.traffic(0.3)
    caller.audit()


async def test_a_pause_longer_than_the_timeout_is_got_over(caller, server):
    with server.client() as client:
        client.client_pause(round(6000 * TIMEOUT_S), all=True)
        # the last of it ends a timeout later, well within the pause
        refused(await caller.traffic(2 * TIMEOUT_S))
        await caller.recovered()
    caller.audit()


async def test_a_slow_server_that_answers_in_time_loses_nothing(server, tmp_path):
    async with patient(server, tmp_path) as caller:
        with server.client() as client:
            client.client_pause(250, all=True)
        answers = await caller.traffic(0.5)
        assert all(answer.logged or answer.response.status_code == 202 for answer in answers)
        assert await failures(caller) == 0
        caller.audit()


async def test_what_waits_is_bounded(caller, server, monkeypatch):
    monkeypatch.setattr(shared_wire, "MAX_WAITING", 10)
    with server.frozen():
        answers = await asyncio.gather(*(caller.rank() for _ in range(40)))
    refused(answers)
    assert await failures(caller, reason="crowded") >= 29  # one batch is on its way, ten wait
    await accounted(caller)
    await caller.recovered()
    caller.audit()


async def test_out_of_memory(caller, server):
    with server.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        refused(await caller.traffic(0.3))
        refused([await caller.rank("mine")])
        catalogue = await caller.http.put(f"{HOME}/catalogue", json={"items": []})
        assert catalogue.status_code == 503
        oom = await failures(caller, reason="oom")
        # On a busy machine some writes are not answered in time.
        assert await failures(caller) == oom + await failures(caller, reason="timeout")
        assert oom > 0
        client.config_set("maxmemory", 0)
    await caller.recovered()
    await caller.logged("mine")
    caller.audit()


async def test_demoted_to_a_replica_and_promoted_again(caller, server):
    with server.client() as client:
        client.replicaof("127.0.0.1", 1)

        async def demoted() -> bool:
            refused(await caller.traffic(0.2))
            return await failures(caller, reason="readonly") > 0

        await eventually(demoted, "a write is refused as to a replica")
        client.replicaof("NO", "ONE")
    await caller.recovered()
    await caller.traffic(0.2)
    caller.audit()


async def follows(new: redis.Redis, old: redis.Redis) -> None:
    """Wait until one server is the other's replica and has everything."""

    async def caught_up() -> bool:
        there, here = new.info("replication"), old.info("replication")
        return (there["master_link_status"], there["slave_repl_offset"]) == (
            "up",
            here["master_repl_offset"],
        )

    await eventually(caught_up, "the second server has everything")


@pytest.mark.parametrize("confirm_replicas", [0, 1])
async def test_failing_over_to_another_server_behind_the_same_address(
    server, second, tmp_path, confirm_replicas
):
    """The old primary lives on as a replica and keeps its connections; new ones find the new primary.

    With ``confirm_replicas`` the new one needs a replica before it acknowledges anything: the old
    one.
    """
    with Forwarder(server) as address, server.client() as old, second.client() as new:
        async with serving(
            server, tmp_path, url=address.url, confirm_replicas=confirm_replicas
        ) as caller:
            new.replicaof("127.0.0.1", server.port)
            await follows(new, old)
            await caller.traffic(0.3)
            await follows(new, old)
            old.replicaof("127.0.0.1", second.port)

            async def demoted() -> bool:
                refused([await caller.rank()])
                return await failures(caller, reason="readonly") > 0

            await eventually(demoted, "a write is refused as to a replica")
            new.replicaof("NO", "ONE")
            address.target = second
            await caller.recovered()
            await caller.traffic(0.2)
        caller.audit(second)


async def test_without_the_replicas_that_should_confirm_nothing_is_acknowledged(
    server, second, tmp_path
):
    async with serving(server, tmp_path, confirm_replicas=1) as caller:

        async def unconfirmed() -> bool:
            refused(await caller.traffic(0.2))
            return await failures(caller, reason="unconfirmed") > 0

        await eventually(unconfirmed, "a write is not confirmed")
        with second.client() as new:
            new.replicaof("127.0.0.1", server.port)
            await caller.recovered()
            server.end()
            new.replicaof("NO", "ONE")
        caller.audit(second)


async def test_loading(caller, server):
    """Started again over so much data that reading it takes a while."""
    with server.client() as client:
        noise = random.Random(1)
        for number in range(300):
            client.set(f"filler:{number}", noise.randbytes(1024))
        client.bgrewriteaof()

        async def rewritten() -> bool:
            info = client.info("persistence")
            return not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]

        await eventually(rewritten, "the append-only file is compact")
    server.end()
    slowly = ("--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
    await asyncio.to_thread(server.start, *slowly, ready=False)
    refused(await caller.traffic(0.3))
    assert await failures(caller, reason="loading") > 0
    await caller.recovered()
    caller.audit()


async def test_killed_in_the_middle_of_a_pipeline(caller, server):
    """Every time at another moment; what was on its way is there once or not at all."""
    moments = random.Random(7)
    for _ in range(4):
        before = len(caller.answers)
        traffic = asyncio.ensure_future(caller.traffic(0.8, workers=32))

        async def busy(before: int = before) -> bool:
            return len(caller.answers) > before

        await eventually(busy, "some are answered")
        await asyncio.to_thread(time.sleep, moments.uniform(0, 0.2))
        await asyncio.to_thread(server.end, signal.SIGKILL)
        assert max(answer.seconds for answer in await traffic) <= TIMEOUT_S + SLACK_S
        server.start()
        await caller.recovered()
    assert await failures(caller, reason="connection") > 0
    caller.audit()


@contextlib.contextmanager
def down(server: Server):
    server.end()
    yield
    server.start()


@pytest.mark.parametrize(
    "outage", [Server.frozen, down], ids=["it arrives late", "it never arrives"]
)
async def test_a_retry_after_logged_false_is_one_decision_and_one_reply(caller, server, outage):
    """Even when the replica serves another snapshot by then.

    Another request under the event_id is a conflict.
    """
    await caller.recovered()  # a line is open: what is sent on it is on its way
    with outage(server):
        first = await caller.rank("mine", slots=3)
        assert not first.logged
    await caller.recovered()
    with server.client() as client:
        newer = put_snapshot(client, 2)
    await serves(caller, newer)
    retries = [await caller.logged("mine", slots=3) for _ in range(3)]
    assert retries[0] == retries[1] == retries[2]
    if outage is Server.frozen:  # it was on its way: the log has what the first answer said
        assert retries[0] == {**first.response.json(), "logged": True}
    else:
        assert retries[0]["snapshot_id"] == newer
    assert (await caller.rank("mine", slots=2)).response.status_code == 409
    caller.audit()


# Snapshots

ITEMS_KEYS = ItemsKeys("home")
CATALOGUE = Catalogue([Item("a", {"x": 1.0}), Item("b", {"x": 2.0})])


def damaged(data: bytes, kind: str) -> bytes | None:
    return {"gone": None, "cut": data[:-3], "changed": bytes([data[0] ^ 1]) + data[1:]}[kind]


def put(client: redis.Redis, blobs: dict[str, bytes | None]) -> None:
    """Store some keys and delete others, in one step for whoever looks."""
    with client.pipeline(transaction=True) as step:
        for key, data in blobs.items():
            step.delete(key) if data is None else step.set(key, data)
        step.execute()


def published(client: redis.Redis, number: int, **options) -> tuple[str, dict[str, bytes]]:
    """A snapshot's id, and the keys that its publication stores.

    Not yet where the replica looks.
    """
    elsewhere = Keys("elsewhere")
    name = put_snapshot(client, number, keys=elsewhere, **options)
    return name, {
        KEYS.blob(name): client.get(elsewhere.blob(name)),
        KEYS.head: client.get(elsewhere.head),
    }


async def serves(caller: Caller, name: str) -> None:
    async def swapped() -> bool:
        return (await caller.rank()).response.json()["snapshot_id"] == name

    await eventually(swapped, "the newer snapshot serves")


@pytest.mark.parametrize("kind", ["gone", "cut", "changed"])
@pytest.mark.parametrize("what", ["head", "snapshot"])
async def test_of_a_damaged_snapshot_the_previous_one_serves_on(caller, server, what, kind):
    served = (await caller.rank()).response.json()["snapshot_id"]
    reason = "head" if what == "head" else "missing" if kind == "gone" else "corrupt"
    with server.client() as client:
        newer, keys = published(client, 2)
        key = {"head": KEYS.head, "snapshot": KEYS.blob(newer)}[what]
        put(client, {**keys, key: damaged(keys[key], kind)})

        async def counted() -> bool:
            return await caller.metric("snapshot_failures_total", policy="home", reason=reason) > 0

        await eventually(counted, "the failure is counted")
        assert (await caller.logged())["snapshot_id"] == served
        put(client, keys)  # published again, byte for byte
        await serves(caller, newer)
        await serves(caller, put_snapshot(client, 3))
    assert await caller.metric("snapshot_failures_total") == await caller.metric(
        "snapshot_failures_total", reason=reason
    )


@pytest.mark.parametrize("kind", ["gone", "cut", "changed"])
async def test_of_a_damaged_catalogue_the_previous_items_are_offered_on(caller, server, kind):
    item = f"{HOME}/items/a"
    blob = ITEMS_KEYS.blob(CATALOGUE.digest)
    base = append_base(ITEMS_KEYS, ItemsBaseRecord(CATALOGUE.digest), items=len(CATALOGUE))
    with server.client() as client:
        with client.pipeline(transaction=True) as step:
            step.set(blob, CATALOGUE.encoded)
            step.execute_command(*base)
            data = damaged(CATALOGUE.encoded, kind)
            step.delete(blob) if data is None else step.set(blob, data)
            step.execute()
        reason = "missing" if kind == "gone" else "corrupt"

        async def counted() -> bool:
            return await caller.metric("snapshot_failures_total", policy="home", reason=reason) > 0

        await eventually(counted, "the failure is counted")
        await caller.logged()
        assert (await caller.http.get(item)).status_code == 500
        newer = put_snapshot(client, 2)
        await serves(caller, newer)
        put(client, {blob: CATALOGUE.encoded})

    async def offered() -> bool:
        return (await caller.http.get(item)).status_code == 200

    await eventually(offered, "the items are there")


async def test_a_snapshot_of_another_spec_is_refused_once(caller, server):
    served = (await caller.rank()).response.json()["snapshot_id"]
    with server.client() as client:
        put_snapshot(client, 2, spec="another")

        async def counted() -> bool:
            return await caller.metric("snapshot_failures_total") > 0

        await eventually(counted, "it is refused")
        await asyncio.sleep(3 * RETRY_S)
        assert await caller.metric("snapshot_failures_total") == 1
        assert await caller.metric("snapshot_failures_total", reason="refused") == 1
        assert (await caller.rank()).response.json()["snapshot_id"] == served
        await serves(caller, put_snapshot(client, 3))


async def test_a_replica_that_starts_without_redis_becomes_ready_when_it_comes(server, tmp_path):
    with server.client() as client:
        first = put_snapshot(client, 1)
    server.end()
    async with serving(server, tmp_path, ready=False) as caller:
        assert (await caller.http.get("/readyz")).status_code == 503
        answer = await caller.rank()
        assert (answer.response.status_code, answer.response.headers["retry-after"]) == (503, "1")
        server.start()
        await eventually(caller.is_ready, "the replica is ready")
        assert (await caller.rank()).response.json()["snapshot_id"] == first


async def test_a_replica_has_started_when_it_can_answer_and_waits_no_longer_for_a_first_snapshot(
    server, tmp_path, monkeypatch
):
    """Until then Serve keeps the replica that it is to replace, and sends this one nothing."""
    monkeypatch.setattr(deployments, "PATIENCE_S", 0.3)
    settings = Settings(redis_url=server.url, data_dir=tmp_path, follow_interval_ms=10)
    replica = Replica(settings, [SPEC, PolicySpec("never-learned")])
    started = asyncio.create_task(replica.__serve_build_asgi_app__())
    try:
        await asyncio.sleep(0.6)
        assert not started.done()
        with server.client() as client:
            put_snapshot(client, 1)
        await asyncio.wait_for(started, PATIENCE_S)
    finally:
        await RankReplica.__del__(replica)


PROFILED = PolicySpec(
    "home",
    space="shop",
    profile=ProfileOptions(types={"view": 1.0}),
    repeat={"shown": Times(9, "1d")},
)
SPACE = "/v1/spaces/shop"


async def test_of_users_nothing_is_acknowledged_that_is_not_logged_and_a_retry_counts_once(
    server, tmp_path
):
    with server.client() as client:
        keys = ItemsKeys("shop")
        leader = ItemsLeader(client, keys, ItemsHistory(client, keys, None))
        leader.begin(Catalogue.put([Item("a")]), None)
        async with serving(server, tmp_path, spec=PROFILED) as caller:
            http = caller.http

            async def did(name: str) -> httpx.Response:
                event = {"user_id": "u", "item_id": "a", "type": "view", "id": name}
                return await http.post(f"{SPACE}/activity", json={"events": [event]})

            async def others() -> list[httpx.Response]:
                merge = {"user_id": "v", "into": "u"}
                return [
                    await http.post(f"{SPACE}/users/merge", json=merge),
                    await http.delete(f"{SPACE}/users/u"),
                ]

            async def done(name: str) -> None:
                """It is, or is repeated: on a busy machine it may take too long."""

                async def accepted() -> bool:
                    return (await did(name)).status_code == 202

                await eventually(accepted, "it is accepted")

            await done("up")
            assert (await caller.logged(user_id="u"))["repeat"] is False  # nobody makes profiles

            # Standing still, the server may carry out later what nobody was told of.
            with server.frozen():
                answers = [await did("frozen")]
                rank = await caller.rank(user_id="u")
                answers += [await did("frozen"), *await others()]
            server.end()
            answers += [await did("down"), *await others()]
            for answer in answers:
                assert answer.status_code == 503, answer.text
                assert answer.json()["error"]["code"] == "log_unavailable"
                assert int(answer.headers["retry-after"]) > 0
            for ranked in (rank, await caller.rank(user_id="u")):
                body = ranked.response.json()
                assert {body[name] for name in ("logged", "profile", "repeat")} == {False}

            server.start()
            await caller.recovered()
            for name in ("frozen", "down", "up", "frozen"):
                await done(name)
            records = [entry.record for entry in read_all(client, ActivityKeys("shop"))]
            ids = [record.id for record in records if isinstance(record, ActivityRecord)]
            assert sorted(ids) == ["down", "frozen", "up"]

            # An erasure that was refused is begun when it is repeated.
            assert (await http.delete(f"{SPACE}/users/u")).status_code == 202
