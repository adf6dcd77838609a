"""An entry that cannot be applied: learning stands still, says so, and goes on when it can."""

import threading
import time

import msgspec
import pytest
import redis
from support import partition_loops
from support.loops import KEYS, SALT, SPEC, SPECS, decide, head, make, settle, stats, verdicts
from support.replica import HOME, eventually, serving
from support.replica import SPEC as HOME_SPEC
from support.servers import Server, binary_of
from typer.testing import CliRunner

from bandits.errors import ArchiveError
from bandits.exploration import EpsilonGreedy, LinUcb, Softmax, VwExploration
from bandits.features.hashing import partition_of
from bandits.log.codec import digest, encode
from bandits.log.records import CatalogueRecord, CheckpointRecord, SpecRecord, WarmStartRecord
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.artifacts.learner_model import TrainedModel
from policies.blend import make_learner
from policies.items.catalogue import Catalogue, Item
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.cli.main import app
from serve_app.replica import learning_watch as learning
from serve_app.store.event_log import FIELD, RedisLog
from serve_app.store.progress import Progress
from serve_app.workers import publisher, standstill
from serve_app.workers.learner import LearnerLoop
from serve_app.workers.learner_factory import learner_of_log

pytestmark = [pytest.mark.usefixtures("hurried_learner"), pytest.mark.timeout(120)]

VW = SPECS["vw"]
EXPLORATIONS = {"epsilon": EpsilonGreedy(0.2), "vw": VwExploration(), "softmax": Softmax(0.3)}
CATALOGUE = Catalogue([Item("a", {"x": 1.0})])


@pytest.fixture(autouse=True)
def hurried(monkeypatch) -> None:
    monkeypatch.setattr(standstill, "PACE_S", 0.01)
    monkeypatch.setattr(standstill, "MAX_PACE_S", 0.1)
    monkeypatch.setattr(standstill, "SAY_S", 0.0)
    monkeypatch.setattr(learning, "WATCH_S", 0.02)


def explored(name: str):
    return msgspec.structs.replace(VW, exploration=EXPLORATIONS[name])


@pytest.mark.parametrize(
    ("first", "second"), [(a, b) for a in EXPLORATIONS for b in EXPLORATIONS if a != b]
)
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_change_of_a_vw_policys_exploration_and_back_goes_on_from_the_model(
    client, first, second, checkpoint
):
    """A build died at the spec's entry: its log, with or without a checkpoint, is learned on."""
    learned = 0
    for part, name in enumerate((first, second, first)):
        loop = make(client, explored(name))
        settle(loop)
        decide(client, 10, spec=explored(name), prefix=f"{part}.")
        learned += 10
        if checkpoint:
            client.xadd(KEYS.log, {FIELD: encode(CheckpointRecord())})
        settle(loop)
        assert stats(client).learned == learned
        assert loop.standstill.stall is None
        loop.lease.release()
    assert len(verdicts(client)) > 3
    assert set(verdicts(client)) == {"identical"}


@pytest.mark.parametrize(("first", "second"), [("epsilon", "vw"), ("vw", "softmax")])
@pytest.mark.parametrize("learned_before", [pytest.param(0, marks=pytest.mark.slow), 12])
def test_of_several_partitions_as_well(client, first, second, learned_before):
    """Also where only some have learned under the first spec, and their models are merged."""
    specs = {
        name: msgspec.structs.replace(explored(name), partitions=3, learner=VwConfig())
        for name in EXPLORATIONS
    }
    learned = 0
    for name in (first, second, first):
        loops = partition_loops.make_all(client, specs[name])
        partition_loops.settle(loops, client)
        count = 1 if name == first and not learned_before else 12
        partition_loops.decide(client, count, spec=specs[name], prefix=f"{name}{learned}.")
        partition_loops.settle(loops, client)
        learned += count
        assert partition_loops.learned(loops) == learned
        assert all(loop.standstill.stall is None for loop in loops)
        for loop in loops:
            loop.lease.release()
    assert set(partition_loops.verdicts(client)) == {"identical"}


def progress(client: redis.Redis) -> Progress:
    return msgspec.msgpack.decode(client.get(KEYS.progress), type=Progress)


def stand(loop: LearnerLoop, client: redis.Redis, attempts: int = 1) -> Progress:
    """Step until it has said that it stands still, after so many attempts."""
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline, "it never stood still"
        loop.lease.acquire()
        time.sleep(min(loop.attempt(), 0.02))
        said = client.get(KEYS.progress)
        if (
            said
            and (found := progress(client)).stall is not None
            and found.stall.attempts >= attempts
        ):
            return found


@pytest.mark.parametrize("damaged", [None, b"", b"other bytes"])
@pytest.mark.parametrize("kind", ["catalogue", "spec", "warm_start"])
def test_without_its_blob_learning_stands_still_and_goes_on_when_it_is_back(client, kind, damaged):
    loop = make(client)
    settle(loop)
    decide(client, 6)
    settle(loop)
    served = head(client)
    other = msgspec.structs.replace(SPEC, floor=0.3)
    model = TrainedModel(
        spec_bytes=SPEC.encoded, learned=3, checkpoint=make_learner(SPEC, salt=SALT).checkpoint()
    )
    data, record = {
        "catalogue": (CATALOGUE.encoded, CatalogueRecord(CATALOGUE.digest)),
        "spec": (other.encoded, SpecRecord(other.digest, digest(SALT))),
        "warm_start": (model.encoded, WarmStartRecord(digest(model.encoded))),
    }[kind]
    if damaged is not None:
        client.set(KEYS.blob(digest(data)), damaged)
    at = RedisLog(client, KEYS).append(record)
    decide(client, 6, prefix="later")
    said = stand(loop, client, attempts=3)
    assert (said.stall.position, said.stall.kind) == (at, kind)
    assert digest(data) in said.stall.reason
    assert head(client) == served
    entries = client.xlen(KEYS.log)
    loop.lease.release()
    loop = make(client)  # a process that is started again meets the same
    assert stand(loop, client).stall.position == at
    assert client.xlen(KEYS.log) == entries  # it appends nothing on and on
    client.set(KEYS.blob(digest(data)), data)
    settle(loop)
    assert progress(client).stall is None
    assert stats(client).learned == (9 if kind == "warm_start" else 12)
    assert set(verdicts(client)) == {"identical"}


def test_a_damaged_blob_is_read_from_the_archive_where_there_is_one(client, tmp_path):
    class Kept:
        local = None

        def blob(self, name: str) -> bytes:
            if name != CATALOGUE.digest:
                raise ArchiveError("no such blob", "digest")
            return CATALOGUE.encoded

    loop = make(client, archive=Kept())
    settle(loop)
    client.set(KEYS.blob(CATALOGUE.digest), b"junk")
    RedisLog(client, KEYS).append(CatalogueRecord(CATALOGUE.digest))
    settle(loop)
    assert loop.fold.catalogue.digest == CATALOGUE.digest


@pytest.mark.parametrize(
    "error", [MemoryError("too little"), ValueError("numerics"), OSError(5, "a disk")]
)
def test_whatever_a_snapshot_fails_of_the_process_stays_and_goes_on_when_it_can(
    client, error, monkeypatch
):
    loop = make(client)
    settle(loop)
    decide(client, 6)

    def fails(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(publisher, "published_of", fails)
        said = stand(loop, client, attempts=3)
        assert type(error).__name__ in said.stall.reason
    settle(loop)
    assert progress(client).stall is None
    assert stats(client).learned == 6
    assert set(verdicts(client)) == {"identical"}


def test_a_standby_refuses_and_stands_still_alike_and_takes_over_from_there(client, server_url):
    other = redis.Redis.from_url(server_url)
    first, second = make(client), make(other)
    settle(first)
    client.set(KEYS.blob(digest(b"{")), b"{")
    refused = RedisLog(client, KEYS).append(CatalogueRecord(digest(b"{")))
    settle(first)
    at = RedisLog(client, KEYS).append(CatalogueRecord(CATALOGUE.digest))
    assert stand(first, client).stall.position == at
    deadline = time.monotonic() + 60
    while second.standstill.stall is None:
        assert time.monotonic() < deadline
        second.attempt()
    assert second.standstill.stall.position == at
    first.lease.release()
    assert stand(second, client).stall.position == at
    client.set(KEYS.blob(CATALOGUE.digest), CATALOGUE.encoded)
    settle(second)
    decide(client, 4)
    settle(second)
    assert stats(client).learned == 4
    assert stats(client).outcomes["refused_catalogue"] == 1
    assert [each.position for each in StoredPolicy(client, "home").refusals()] == [refused]
    assert set(verdicts(client)) == {"identical"}
    other.close()


def test_while_one_partition_stands_still_the_others_learn_on_and_are_merged(client):
    keys = partition_loops.KEYS[1]
    loops = partition_loops.make_all(client)
    partition_loops.settle(loops, client)
    client.set(keys.blob(CATALOGUE.digest), b"junk")
    at = RedisLog(client, keys).append(CatalogueRecord(CATALOGUE.digest))
    partition_loops.decide(client, 12)
    own = sum(partition_of(f"e{number}", 3) == 1 for number in range(12))
    deadline = time.monotonic() + 30
    while partition_loops.served(client).learned < 12 - own:
        assert time.monotonic() < deadline, "the others were never merged"
        for loop in loops:
            partition_loops.step(loop)
    assert loops[1].standstill.stall.position == at
    client.set(keys.blob(CATALOGUE.digest), CATALOGUE.encoded)
    partition_loops.settle(loops, client)
    assert partition_loops.served(client).learned == 12
    assert set(partition_loops.verdicts(client)) == {"identical"}


def test_a_learner_that_stands_still_stays_and_tries_ever_more_seldom(
    client, server_url, monkeypatch
):
    """Not 28 processes a minute: one thread that lives, and pauses that double up to a limit."""
    pauses = []
    original = standstill.Standstill.record_failure

    def record_failure(self, error, position):
        original(self, error, position)
        pauses.append(self.wait_s())

    monkeypatch.setattr(standstill.Standstill, "record_failure", record_failure)
    loop = make(redis.Redis.from_url(server_url))
    RedisLog(client, KEYS).append(CatalogueRecord("0" * 32))
    stop = threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while len(pauses) < 6:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert thread.is_alive()
    finally:
        stop.set()
        thread.join(10)
        loop.log.client.close()
    assert [round(each, 3) for each in pauses[:4]] == pytest.approx(
        [0.01, 0.02, 0.04, 0.08], abs=0.005
    )
    assert max(pauses) <= 0.1


# What a replica and the doctor say of it


@pytest.fixture
def server(tmp_path):
    with Server(binary_of("valkey"), tmp_path / "server") as out:
        yield out


class Learns:
    """A learner in a thread, for a replica of the same policy."""

    def __init__(self, server: Server, spec) -> None:
        self._client = server.client()
        self.loop = learner_of_log(self._client, spec, salt=SALT, publish_interval_s=0.02)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.loop.run, args=(self._stop,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join(10)
        self._client.close()


async def state(caller) -> tuple[int, dict, int, dict]:
    ready, healthy = await caller.http.get("/readyz"), await caller.http.get("/healthz/learning")
    return ready.status_code, ready.json(), healthy.status_code, healthy.json()


async def becomes(caller, wanted: str) -> None:
    async def so() -> bool:
        return (await state(caller))[1]["learning"] == wanted

    await eventually(so, f"learning is {wanted}")


async def seconds_of(caller) -> float:
    """The fastest of 30 requests: other work on the machine interrupts most of them, not all."""
    return min([await _seconds_of_one(caller) for _ in range(30)])


async def _seconds_of_one(caller) -> float:
    began = time.perf_counter()
    assert (await caller.rank()).logged
    return time.perf_counter() - began


async def test_while_learning_stands_still_rank_answers_at_the_same_rate_and_everything_says_so(
    server, tmp_path
):
    salt = tmp_path / "salt"
    salt.write_bytes(SALT)
    with (
        Learns(server, HOME_SPEC),
        server.client() as client,
        Server(binary_of("valkey"), tmp_path / "beside") as other,
    ):
        async with (
            serving(server, tmp_path, ready=False) as caller,
            serving(other, tmp_path / "other") as beside,
        ):
            await eventually(caller.is_ready, "a first snapshot is served")
            await becomes(caller, "ok")
            code, body, healthy, _ = await state(caller)
            assert (code, body["status"], healthy) == (200, "ok", 200)
            assert await caller.metric("learning_stalled", policy="home") == 0
            name = digest(CATALOGUE.encoded)
            at = RedisLog(client, KEYS).append(CatalogueRecord(name))
            await becomes(caller, "stalled")
            going, standing = [], []
            for _ in range(10):  # in turn: other work on the machine slows both alike
                going.append(await seconds_of(beside))
                standing.append(await seconds_of(caller))
            assert min(standing) < 1.5 * min(going)

            code, body, healthy, said = await state(caller)
            assert (code, body["status"], healthy) == (200, "ok", 503)
            assert said["status"] == body["learning"] == "stalled"
            [where] = body["stalled"]
            assert (where["policy"], where["entry"], where["kind"]) == ("home", at, "catalogue")
            assert name not in str(body)  # the reason is for those with a key
            info = (await caller.http.get(HOME)).json()
            assert info["learning"] == "stalled"
            assert name in info["reason"]
            assert await caller.metric("learning_stalled", policy="home", kind="catalogue") == 1

            arguments = [
                "doctor",
                "home",
                "--redis-url",
                server.url,
                "--salt-file",
                str(salt),
                "--json",
            ]
            done = CliRunner().invoke(app, arguments)
            finding = next(
                f for f in msgspec.json.decode(done.stdout)["findings"] if f["check"] == "learning"
            )
            assert (done.exit_code, finding["severity"]) == (1, "failure")
            assert at in finding["message"]
            assert name in finding["message"]

            client.set(KEYS.blob(name), CATALOGUE.encoded)
            await becomes(caller, "ok")
            assert (await state(caller))[2] == 200


async def test_a_learner_that_says_nothing_while_entries_wait_stands_still(
    server, tmp_path, monkeypatch
):
    """Dead, hung or never started: whoever looks notices that nobody reads on."""
    monkeypatch.setattr(learning, "SILENT_S", 0.3)
    async with serving(server, tmp_path) as caller:
        await becomes(caller, "ok")  # the log is empty: nothing waits
        await caller.rank()
        await becomes(caller, "stalled")
        code, body, healthy, _ = await state(caller)
        assert (code, healthy) == (200, 503)
        assert body["stalled"][0]["kind"] == "entry after"


async def test_while_redis_is_away_learning_is_unknown_and_afterwards_not_stalled(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr(learning, "SILENT_S", 1.0)
    async with serving(server, tmp_path) as caller:
        await becomes(caller, "ok")
        server.end()
        await becomes(caller, "unknown")
        assert (await state(caller))[0] == 200
        assert (await state(caller))[2] == 503
        server.start()
        await becomes(caller, "ok")


async def test_what_was_refused_is_shown_with_its_reason(server, tmp_path):
    salt = tmp_path / "salt"
    salt.write_bytes(SALT)
    other = msgspec.structs.replace(HOME_SPEC, learner=RidgeConfig(l2=7.0), exploration=LinUcb())
    model = TrainedModel(
        spec_bytes=other.encoded, learned=3, checkpoint=make_learner(other, salt=SALT).checkpoint()
    )
    with Learns(server, HOME_SPEC), server.client() as client:
        async with serving(server, tmp_path, ready=False) as caller:
            await eventually(caller.is_ready, "a first snapshot is served")
            await caller.rank()
            client.set(KEYS.blob(digest(model.encoded)), model.encoded)
            client.set(KEYS.blob(digest(b"{")), b"{")
            reader = RedisLog(client, KEYS)
            warm, bad = (
                reader.append(WarmStartRecord(digest(model.encoded))),
                reader.append(CatalogueRecord(digest(b"{"))),
            )

            async def both() -> bool:
                return len((await caller.http.get(HOME)).json()["refused"]) == 2

            await eventually(both, "both refusals are shown")
            info = (await caller.http.get(HOME)).json()
            assert [(each["entry"], each["kind"]) for each in info["refused"]] == [
                (bad, "catalogue"),
                (warm, "warm_start"),
            ]
            assert "another kind" in info["refused"][1]["reason"]
            assert info["learning"] == "ok"

            async def counted() -> bool:
                return await caller.metric("log_outcomes_total", outcome="refused_catalogue") == 1

            await eventually(counted, "the metric counts it")
            assert await caller.metric("log_outcomes_total", outcome="refused_warm_start") == 1
            done = CliRunner().invoke(
                app,
                ["doctor", "home", "--redis-url", server.url, "--salt-file", str(salt), "--json"],
            )
            finding = next(
                f for f in msgspec.json.decode(done.stdout)["findings"] if f["check"] == "refused"
            )
            assert finding["severity"] == "warning"
            assert warm in finding["message"]
