"""An earlier build's data directory, opened by this one: it serves, learns on, and is trusted."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis
from support.replica import Replica
from support.upgrades import Left, unpacked
from typer.testing import CliRunner

from bandits.log.positions import START
from bandits.log.records import BuildRecord, SpecRecord
from bandits.log.versions import FOLD
from policies.archive.archive import ArchiveReader, archive_folder
from policies.fold.fold import Fold
from serve_app.admin.preflight import check_logs
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.cli.main import app
from serve_app.cli.snapshots import app as snapshots_app
from serve_app.host.build import this_build
from serve_app.host.embedded import valkey
from serve_app.replica.deployment import RankReplica
from serve_app.settings import Settings
from serve_app.store.checkpoints import Checkpoints
from serve_app.store.clients import blocking_client
from serve_app.store.history import History, LogPast
from serve_app.store.keys import Keys, partitions
from serve_app.workers.actors import logs_of
from serve_app.workers.archiver import Archiver
from serve_app.workers.learner_factory import learner_of_service

ROUNDS = 12


class Opened:
    """The service's parts in this process, over the embedded Valkey of the old directory."""

    def __init__(self, left: Left, settings: Settings, client: redis.Redis) -> None:
        self.left, self.settings, self.client = left, settings, client
        self.specs = list(left.specs.values())

    def stats(self, policy: str, partition: int = 0):
        stored = StoredPolicy(self.client, policy)
        stored.keys = Keys(policy, partition)
        return stored.stats()

    def learned(self, policy: str) -> int:
        return sum(
            self.stats(policy, number).learned
            for number in range(self.left.specs[policy].partitions)
        )

    def command(self, *words: str | Path) -> tuple[int, str]:
        """Exit status and output."""
        commands, given = (snapshots_app, words[1:]) if words[0] == "snapshots" else (app, words)
        result = CliRunner().invoke(commands, [*map(str, given), "--data-dir", str(self.left.data)])
        return result.exit_code, result.output


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> Iterator[Opened]:
    """Opened, checked, folded by the old rule.

    Then learners and an archiver run, and a replica has been asked.
    """
    left = unpacked(tmp_path_factory.mktemp("left"))
    settings = Settings(
        data_dir=left.data,
        publish_interval_ms=100,
        merge_interval_ms=200,
        checkpoint_interval_s=2,
        archive_max_age_s=2,
    )
    stop = threading.Event()
    with valkey(settings) as url, blocking_client(url) as client:
        settings = settings.model_copy(update={"redis_url": url})
        specs = list(left.specs.values())
        check_logs(url, specs)
        loops = [
            learner_of_service(settings, spec, number, None, 1)
            for spec in specs
            for number in range(spec.partitions)
        ]
        loops += [
            Archiver(blocking_client(url), policy, settings.archive_root(), max_age_s=2.0, **which)
            for _, policy, which in logs_of(specs)
        ]
        threads = [threading.Thread(target=loop.run, args=(stop,), daemon=True) for loop in loops]
        for thread in threads:
            thread.start()
        made = Opened(left, settings, client)
        try:
            asyncio.run(traffic(made))
            yield made
        finally:
            stop.set()
            for thread in threads:
                thread.join()


async def traffic(opened: Opened) -> None:
    """Decisions and rewards, once every policy has a snapshot of this build."""
    replica = Replica(opened.settings, opened.specs)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(replica.app()), base_url="http://test"
    ) as http:
        deadline = time.monotonic() + 60
        while (await http.get("/readyz")).status_code != 200 or not all(
            map(opened.stats, opened.left.specs)
        ):
            assert time.monotonic() < deadline, "it never was ready"
            await asyncio.sleep(0.1)
        for number in range(ROUNDS):
            for policy in opened.left.specs:
                await one(
                    http,
                    f"/v1/policies/{policy}",
                    f"new.{policy}.{number}",
                    deferred=number % 4 == 3,
                )
            await asyncio.sleep(0.1)
    await RankReplica.__del__(replica)
    wait(
        lambda: all(
            opened.learned(name) >= known["learned"] + 3
            for name, known in opened.left.expected.items()
        )
    )


async def one(http: httpx.AsyncClient, base: str, event: str, *, deferred: bool) -> None:
    scores = {"popular": 1.0, "deep": 0.5, "cf": 0.3} if "mixture" in base else {"cf": 0.4}
    actions = [{"id": name, "features": {"x": 1}, "scores": scores} for name in "abcd"]
    body = {"event_id": event, "actions": actions, "context": {"hour": 3, "device": "tv"}}
    answer = await http.post(f"{base}/rank", json=body | {"defer_activation": deferred})
    assert answer.status_code == 200, answer.text
    assert answer.json()["logged"]
    assert (
        await http.post(f"{base}/events/{event}/reward", json={"value": 0.5})
    ).status_code == 202


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def history(opened: Opened, policy: str, number: int = 0) -> History:
    count = opened.left.specs[policy].partitions
    reader = ArchiveReader(opened.left.archive, archive_folder(policy, number, count))
    return History(opened.client, partitions(policy, count)[number], reader)


POLICIES = ("ridge", "arrives", "vw", "mixture", "halves", "vwhalves")


@pytest.mark.parametrize("policy", POLICIES)
def test_every_log_says_where_this_build_goes_on(opened, policy):
    for number in range(opened.left.specs[policy].partitions):
        entries = list(history(opened, policy, number).encoded(START))
        builds = [entry.record.build for entry in entries if isinstance(entry.record, BuildRecord)]
        assert "fold" not in builds[0]
        assert builds[-1] == this_build()
        assert builds[-1]["fold"] == str(FOLD)
        # the same spec under the same name: no build has said it anew
        assert sum(isinstance(entry.record, SpecRecord) for entry in entries) == 2


@pytest.mark.parametrize("policy", ["ridge", "arrives", "vw", "mixture"])
def test_what_the_old_build_had_counted_is_what_its_entries_come_to(opened, policy):
    expected, log = opened.left.expected[policy], history(opened, policy)
    past = LogPast(log, Checkpoints(opened.client, Keys(policy)))
    fold = Fold(log.blob, salt=opened.left.salt, past=past)
    fold.apply(log.encoded(START, expected["position"]))
    counts = {
        name: fold.join.counts[name] for name in expected["outcomes"] if name in fold.join.counts
    }
    assert counts == {name: expected["outcomes"][name] for name in counts}
    assert counts["joined"] > 0
    assert (fold.position, fold.learned, fold.version) == (
        expected["position"],
        expected["learned"],
        1,
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_under_way_ends_by_the_old_rule_and_what_came_since_by_the_new(opened, policy):
    """Three in twelve new decisions are deferred, rewarded and never activated."""
    count = opened.left.specs[policy].partitions

    def counted(outcome: str) -> int:
        return sum(opened.stats(policy, number).outcomes.get(outcome, 0) for number in range(count))

    wait(lambda: counted("unactivated") == 3 and counted("early") == 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_it_can_be_verified_and_trusted(opened, policy):
    for words in (
        ("snapshots", "verify", "--policy", policy, "--jobs", "1"),
        ("doctor", "--policy", policy),
    ):
        status, said = opened.command(*words)
        assert status == 0, said


def test_a_model_that_the_old_build_trained_warms_up_this_one(opened):
    before = opened.stats("vw").outcomes["refused_warm_start"]
    status, said = opened.command(
        "snapshots", "warm-start", opened.left.folder / "vw.model", "--policy", "vw"
    )
    assert status == 0, said
    assert opened.stats("vw").outcomes["refused_warm_start"] == before
    status, said = opened.command("snapshots", "verify", "--policy", "vw", "--jobs", "1")
    assert status == 0, said


@pytest.mark.parametrize("policy", ["ridge", "halves"])
def test_what_the_old_build_had_learned_can_be_gone_back_to(opened, policy):
    stored = StoredPolicy(opened.client, policy)
    old = [
        name
        for name, known in stored.snapshots()
        if known is not None and "fold" not in known.build
    ]
    assert old
    before = opened.stats(policy).outcomes["refused_rollback"]
    status, said = opened.command("snapshots", "rollback", old[-1], "--policy", policy)
    assert status == 0, said
    wait(lambda: stored.find(stored.head())[1].learned == stored.find(old[-1])[1].learned)
    assert opened.stats(policy).outcomes["refused_rollback"] == before
    status, said = opened.command("snapshots", "verify", "--policy", policy, "--jobs", "1")
    assert status == 0, said
