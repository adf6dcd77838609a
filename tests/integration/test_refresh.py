"""Refreshes on a real server: the command with a learner, each code, and the schedule."""

import asyncio
import sys
import threading
from functools import partial

import msgspec
import pytest
from support import loops as one
from support.refreshes import CATALOGUE, SPEC, artifact, shop_log
from typer.testing import CliRunner

from bandits.log.codec import encode
from bandits.log.records import (
    ActivityRecord,
    ArtifactRecord,
    CheckpointRecord,
    DecisionRecord,
    MergeUsersRecord,
    RewardRecord,
    TickRecord,
    WarmStartRecord,
)
from policies.artifacts.fetch import load_version
from policies.artifacts.profile_file import open_profiles
from policies.artifacts.source_artifact import CURRENT, load
from policies.items.catalogue import Catalogue
from policies.profiles.options import ProfileOptions
from policies.pseudonyms import pseudonym
from policies.spec import PolicySpec
from policies.spec.refresh import Refresh
from serve_app.admin.freshness import read_all
from serve_app.admin.open import opened
from serve_app.admin.refreshes import only_refresh, read_refresh
from serve_app.cli.main import app
from serve_app.cli.refresh import run
from serve_app.cli.refresh.state import policy_state
from serve_app.replica.metrics import Metrics
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.replica.scrape import collect
from serve_app.replica.users import ReplicaUsers
from serve_app.settings import Settings
from serve_app.store.event_log import FIELD, LogWriter, RedisLog
from serve_app.store.keys import ActivityKeys, UsersKeys
from serve_app.workers.archiver import Archiver
from serve_app.workers.refresher import ScheduledRefresh
from simulator.refresh.course import refresh_sources
from simulator.refresh.training import train_apart

pytestmark = pytest.mark.usefixtures("hurried_learner")

ITEMS = Catalogue.of(CATALOGUE)


class Shop:
    """A policy on a server, with its learner, its spec's file and what was decided."""

    def __init__(
        self, client, url: str, folder, serving, *, decisions: int = 2400, spec=SPEC, **log
    ) -> None:
        self.client, self.url, self.folder = client, url, folder
        self.spec = msgspec.structs.replace(
            spec,
            name="home",
            artifact=str(folder / "artifacts"),
            profiles=str(folder / "profiles.parquet"),
        )
        self.file = folder / "policy.yaml"
        self.file.write_bytes(msgspec.yaml.encode(self.spec))
        self.loop = one.make(client, self.spec, artifact=serving.version, catalogue=ITEMS)
        one.settle(self.loop)
        self._decide(decisions, **log)
        one.settle(self.loop)

    def _decide(self, count: int, **log) -> None:
        """Have decisions logged, a second apart: the log's clock goes ahead of the machine's."""
        pipeline = self.client.pipeline(transaction=False)
        newest = self.client.xrevrange(one.KEYS.log, count=1)[0][0]
        base_ms = int(newest.partition(b"-")[0]) + 1
        for entry in shop_log(count, spec=self.spec, salt=one.SALT, **log).entries:
            if isinstance(entry.record, DecisionRecord | RewardRecord | TickRecord):
                at = f"{base_ms + entry.time_ms}-*"
                pipeline.xadd(one.KEYS.log, {FIELD: encode(entry.record)}, id=at)
        pipeline.execute()

    def refresh(self, *options: str):
        command = ["refresh", str(self.file), "--redis-url", self.url, *options]
        return CliRunner().invoke(app, [*command, "--data-dir", str(self.folder)])

    @property
    def records(self) -> list:
        return [entry.record for entry in read_all(self.client, one.KEYS)]

    @property
    def last(self):
        return read_refresh(self.client, one.KEYS)


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    monkeypatch.setenv("BANDITLOOP_SALT", one.SALT.decode())
    monkeypatch.setenv("BANDITLOOP_ARCHIVE", "none")
    monkeypatch.setattr(run, "PATIENCE_S", 0.1)  # no learner runs while a command does


@pytest.fixture
def made(monkeypatch):
    """Have training give an artifact that is there."""

    def give(artifact) -> None:
        train = partial(refresh_sources, train=lambda *_, **__: artifact)
        monkeypatch.setattr(run, "refresh_sources", train)

    return give


@pytest.mark.one_server
async def test_a_trained_artifact_is_stored_adopted_and_reported(
    client, async_client, server_url, tmp_path
):
    """By the schedule; ``current`` stays, profiles know who came, the doctor says so."""
    bad = artifact(tmp_path, knows=False)
    shop = Shop(client, server_url, tmp_path, bad)
    scheduled = msgspec.structs.replace(shop.spec, refresh=Refresh(every="1h", window="1d"))
    settings = Settings(redis_url=server_url, data_dir=tmp_path)
    stop = threading.Event()
    learner = threading.Thread(target=shop.loop.run, args=(stop,))
    learner.start()
    try:
        await asyncio.to_thread(
            ScheduledRefresh(client, scheduled, settings).refresh, threading.Event()
        )
    finally:
        stop.set()
        learner.join()

    last = shop.last
    assert last.outcome == "accepted", last
    version = last.artifact
    for measure in last.measures[:2]:
        assert measure.low > 0, measure

    new = load_version(shop.spec.artifact, version)
    assert set(new.sources) == {"item_knn"}
    assert load(tmp_path / "artifacts").version == bad.version
    assert (tmp_path / "artifacts" / CURRENT).read_text().strip() == bad.version
    adopted = [each for each in shop.records if isinstance(each, ArtifactRecord)]
    assert [each.version for each in adopted] == [bad.version, version]
    profiles, note = open_profiles(shop.spec.profiles, new, one.SALT)
    assert note == ""
    assert profiles.find(pseudonym(one.SALT, "u1")).indices.size > 0

    # The learner has gone on, and every snapshot is derived again.
    assert shop.loop.fold.artifact == version
    assert set(one.verdicts(client)) == {"identical"}

    service = RedisPolicyService(
        PolicySpec("home"),
        async_client,
        LogWriter(async_client),
        salt=one.SALT,
        replica="r",
        follow_interval_s=1.0,
    )
    info = (await service.info()).refresh
    assert (info.outcome, info.artifact, info.counts) == ("accepted", version, {"accepted": 1})
    assert len(info.measures) == 3
    text = await collect(async_client, Metrics("p").sample(), ["home"], {"home": 1})
    assert b'banditloop_refreshes_total{outcome="accepted",policy="home"} 1.0' in text
    doctor = CliRunner().invoke(app, ["doctor", "--redis-url", server_url, "--json"])
    found = {each["check"]: each for each in msgspec.json.decode(doctor.stdout)["findings"]}
    assert version in found["refresh"]["message"]


def test_a_worse_artifact_is_refused_and_a_louder_one_starts_the_model_anew(
    client, server_url, tmp_path, made
):
    good, bad = artifact(tmp_path, knows=True), artifact(tmp_path, knows=False)
    quiet = artifact(tmp_path, std=80.0)
    shop = Shop(client, server_url, tmp_path, good)

    made(bad)
    before = len(shop.records)
    report = tmp_path / "report.json"
    trial = shop.refresh("--dry-run", "--out", str(report))
    assert (trial.exit_code, shop.last) == (3, None)
    said = msgspec.json.decode(report.read_bytes())
    assert (said["outcome"], said["serving"]) == ("refused", good.version)
    assert said["artifact"] == bad.version
    done = shop.refresh()
    assert done.exit_code == 3, done.output
    assert "is worse: mean reward (DR)" in done.stderr
    assert (shop.last.outcome, shop.last.code) == ("refused", "worse_artifact")
    assert len(shop.records) == before

    made(quiet)
    done = shop.refresh()
    assert done.exit_code == 0, done.output
    assert [type(each) for each in shop.records[-2:]] == [ArtifactRecord, WarmStartRecord]
    one.settle(shop.loop)
    assert shop.loop.fold.refused_warm_starts == 0
    assert shop.loop.fold.learned == 2160
    assert set(one.verdicts(client)) == {"identical"}
    assert shop.last.counts == {"accepted": 1, "refused": 1}


def test_each_failure_has_a_code_and_leaves_the_log_alone(
    client, server_url, tmp_path, made, monkeypatch
):
    good = artifact(tmp_path)
    shop = Shop(client, server_url, tmp_path, good, decisions=30, rewarded=False)
    before = len(shop.records)
    made(good)

    def failed(*options: str) -> str:
        done = shop.refresh(*options)
        assert done.exit_code == 1, done.output
        last = shop.last
        assert (last.outcome, last.code) == ("failed", done.exception.code)
        assert last.message == done.exception.message
        return str(last.code)

    assert failed() == "nothing_to_learn"
    assert failed("--data", str(tmp_path / "nowhere")) == "invalid_data_set"
    assert failed("--sources", "popular") == "invalid_spec"

    shop._decide(30)
    one.settle(shop.loop)
    before = len(shop.records)
    (tmp_path / "file").write_text("no folder")
    assert failed("--artifact", str(tmp_path / "file" / "artifacts")) == "store_unreadable"
    assert failed("--since", "yesterday") == "data_unavailable"
    for code, ends in (
        ("training_died", "sys.exit('a library is missing')"),
        ("training_out_of_memory", "sys.exit(77)"),
    ):
        train = partial(train_apart, trainer=[sys.executable, "-c", f"import sys; {ends}"])
        monkeypatch.setattr(run, "refresh_sources", partial(refresh_sources, train=train))
        assert failed() == code
    made(good)
    assert len(shop.records) == before

    # The second of two says who runs since when; the first one's outcome is its own.
    counts = shop.last.counts
    with only_refresh(client, one.KEYS, "process 7 on here", RedisLog(client, one.KEYS).now_ms()):
        done = shop.refresh()
        assert done.exit_code == 1
        assert done.exception.code == "refresh_running"
        assert "process 7 on here refreshes home since 20" in done.exception.message
    assert shop.last.counts == counts
    assert shop.refresh().exit_code == 0


def test_the_log_is_read_from_the_archive_and_the_stream(client, server_url, tmp_path, monkeypatch):
    """Each decision once, in order, wherever it is by now; and no earlier than it is asked for."""
    shop = Shop(client, server_url, tmp_path, artifact(tmp_path), decisions=300)

    def positions(archive: str, **options) -> list[str]:
        monkeypatch.setenv("BANDITLOOP_ARCHIVE", archive)
        with opened("home", server_url, tmp_path) as (stored, settings):
            wanted = {"since": None, "window_ms": 10**9, "data": None, **options}
            state = policy_state(stored, client, settings, shop.spec, note=print, **wanted)
            return [joined.position for joined in state.decisions()]

    everything = positions("none")
    assert len(everything) == 300
    assert positions("none", window_ms=120_000) == everything[-59:]

    # Behind a checkpoint nothing is needed; the log's clock is ahead of the machine's.
    client.xadd(one.KEYS.log, {FIELD: encode(CheckpointRecord())})
    one.settle(shop.loop)
    archiver = Archiver(client, "home", tmp_path / "archive", max_age_s=-1e4, retain_s=-1e4)
    while archiver.step():
        pass
    while archiver.trim():
        pass
    assert client.xlen(one.KEYS.log) < 100
    assert positions(str(tmp_path / "archive")) == everything


@pytest.mark.parametrize("archived", [0, 1, 4])
async def test_activity_is_read_of_the_space_and_users_as_it_knows_them(
    client, async_client, server_url, tmp_path, monkeypatch, archived
):
    spec = msgspec.structs.replace(SPEC, profile=ProfileOptions(), space="shop")
    shop = Shop(client, server_url, tmp_path, artifact(tmp_path), decisions=10, spec=spec)
    views = [ActivityRecord("ann's", item, "view") for item in "abc"]
    merge = MergeUsersRecord("a visitor's", "ann's")
    for at, record in enumerate([views[0], merge, *views[1:]]):
        client.xadd(ActivityKeys("shop").log, {FIELD: encode(record)}, id=f"{at + 1}000-0")

    # Part of it is archived.
    root = tmp_path / "archive"
    monkeypatch.setenv("BANDITLOOP_ARCHIVE", str(root))
    archiver = Archiver(client, "shop", root, max_entries=1, max_age_s=0, shared="activity")
    for _ in range(archived):
        archiver.step()

    with opened("home", server_url, tmp_path) as (stored, settings):
        wanted = {"window_ms": 10**9, "data": None, "note": print}
        state = policy_state(stored, client, settings, shop.spec, since="3000-0", **wanted)
        assert state.activity is not None
        # Who was merged is told of all times.
        assert [entry.record for entry in state.activity()] == [merge, views[2]]

        state = policy_state(stored, client, settings, shop.spec, since="0-0", **wanted)
        assert [entry.record for entry in state.activity()] == [views[0], merge, *views[1:]]

        users = ReplicaUsers(LogWriter(async_client), UsersKeys("shop"), salt=settings.secret())
        made = await users.resolve("u1")
        assert state.persons(["u1", "u2"]) == {"u1": made.pseudonym}


def test_a_schedule_starts_one_at_a_time_and_notes_what_dies_without_a_word(
    client, server_url, tmp_path
):
    spec = msgspec.structs.replace(SPEC, name="home", refresh=Refresh(every="1h"))
    settings = Settings(redis_url=server_url, data_dir=tmp_path)
    told = tmp_path / "told"
    script = f"import os, sys; open({str(told)!r}, 'w').write(sys.argv[1] + os.environ['BANDITLOOP_REDIS_URL']); sys.exit('no memory')"
    schedule = ScheduledRefresh(client, spec, settings, command=[sys.executable, "-c", script])
    stop = threading.Event()

    # The first is due an hour after the first look, however often the service starts.
    assert 3_590_000 < schedule.wait_ms() <= 3_600_000
    schedule.refresh(stop)
    assert told.read_text().endswith(server_url)
    last = read_refresh(client, one.KEYS)
    assert (last.outcome, last.code, last.by) == ("failed", "refresh_failed", "the schedule")
    assert "no memory" in last.message
    assert 440_000 < schedule.wait_ms() <= 450_000
    with only_refresh(client, one.KEYS, "somebody", 0):
        assert schedule.wait_ms() == 3_600_000

    # Told to stop, it ends the process at once.
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    schedule = ScheduledRefresh(client, spec, settings, command=sleeper)
    thread = threading.Thread(target=schedule.refresh, args=(stop,))
    thread.start()
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert read_refresh(client, one.KEYS) == last
