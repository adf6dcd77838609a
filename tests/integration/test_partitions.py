"""Partitions on a real server: their learners cut, offer and merge.

Whichever call fails or whoever dies, it agrees.
"""

import asyncio
import os
import threading
import time
from collections import Counter

import msgspec
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from support.faults import FaultyRedis
from support.partition_loops import (
    COUNT,
    KEYS,
    SALT,
    SPEC,
    SPECS,
    decide,
    learned,
    make,
    make_all,
    merges,
    quiet,
    served,
    settle,
    step,
    verdicts,
    verified,
)
from typer.testing import CliRunner

from bandits.errors import SpecError
from bandits.features.hashing import partition_of
from bandits.log.codec import digest, encode
from bandits.log.encoded_decisions import DECISIONS
from bandits.log.join import JoinRule
from bandits.log.positions import START
from bandits.log.records import (
    CheckpointRecord,
    CutRecord,
    DecisionRecord,
    PinRecord,
    RewardRecord,
    RollbackRecord,
)
from policies.archive.archive import ArchiveReader, archive_folder
from policies.items.catalogue import Item
from policies.requests import ActionRequest, RankRequest
from serve_app.admin.freshness import read_all
from serve_app.admin.preflight import check_logs
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.app import build_for_cluster
from serve_app.cli.main import app
from serve_app.cli.snapshots import app as snapshots_app
from serve_app.replica.metrics import Metrics
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.replica.scrape import collect
from serve_app.settings import Settings
from serve_app.store.event_log import FIELD, LogWriter
from serve_app.store.history import History
from serve_app.store.lease import Lease
from serve_app.store.merges import partition_count
from serve_app.workers import merger
from serve_app.workers.archiver import Archiver
from serve_app.workers.learner_factory import learner_of_log

pytestmark = pytest.mark.usefixtures("hurried_learner")

THOROUGH = bool(os.environ.get("BANDITLOOP_EVERY_FAULT"))
"""Every call, every kind of learner, on every server: `make partitions`.

Otherwise some of each, in a minute.
"""
EACH = list(SPECS) if THOROUGH else ["ridge"]
SOME = list(SPECS) if THOROUGH else ["ridge, as it arrives", "vw"]


ACTIONS = [ActionRequest(name, {"x": x}) for name, x in [("a", 1.0), ("b", 0.5), ("c", -1.0)]]


@pytest.mark.parametrize("name", list(SPECS) if THOROUGH else ["ridge", "vw"])
def test_what_is_served_has_learned_every_log_and_the_logs_together_give_it_again(client, name):
    spec = SPECS[name]
    loops = make_all(client, spec)
    settle(loops, client)
    for part in range(3):
        decide(client, 20, spec=spec, prefix=f"{part}.")
        settle(loops, client)
        assert served(client).learned == learned(loops) == 20 * (part + 1)
    assert merges(client, 0) == merges(client, 1) == merges(client, 2)
    last = merges(client, 0)[-1]
    assert [each.learned for each in last.inputs] == [loop.fold.learned for loop in loops]
    assert set(verdicts(client)) == {"identical"}
    assert len(verdicts(client)) >= 4


def test_a_quiet_service_says_nothing_more(client):
    loops = make_all(client)
    settle(loops, client)
    decide(client, 9)
    settle(loops, client)
    before = [client.xlen(keys.log) for keys in KEYS]
    for _ in range(20):
        for loop in loops:
            step(loop)
    assert [client.xlen(keys.log) for keys in KEYS] == before


@pytest.mark.slow
def test_the_stored_models_do_not_pile_up(client):
    loops = make_all(client)
    settle(loops, client)
    sizes = []
    for part in range(27):
        decide(client, 3, prefix=f"{part}.")
        settle(loops, client)
        sizes.append(len(client.keys("bl:{home.*}:blob:*")))
    # 20 snapshots, two merged models, two gifts of each partition
    assert max(sizes[24:]) <= sizes[22] + 2


@pytest.mark.parametrize("partition", [0, 1])
@pytest.mark.parametrize("name", EACH)
@pytest.mark.timeout(900)
def test_whichever_call_fails_before_or_after_its_effect_the_end_is_the_same(
    client, server_url, name, partition
):
    """Of the learner that merges and of one that does not."""
    spec, number, calls = SPECS[name], 0, 1
    while number < calls:
        number += 3 if THOROUGH else 19
        after = bool(number % 2)
        client.flushall()
        faulty = FaultyRedis.from_url(server_url)
        loops = [make(faulty if each == partition else client, each, spec) for each in range(COUNT)]
        faulty.fail_at, faulty.after = number, after
        settle(loops, client)
        decide(client, 9, spec=spec)
        for keys in KEYS:
            client.xadd(keys.log, {FIELD: encode(CheckpointRecord())})
        for part in range(3):
            client.xadd(KEYS[0].inbox, {FIELD: encode(RewardRecord(f"e{part}", 5.0, "inbox"))})
        settle(loops, client)
        calls = max(calls, faulty.calls)
        assert served(client).learned == learned(loops) == 9, (number, after)
        rewards = Counter(
            entry.record.reward_id
            for keys in KEYS
            for entry in read_all(client, keys)
            if isinstance(entry.record, RewardRecord)
        )
        assert rewards["inbox"] == 3, (number, after)
        found = verdicts(client)
        assert set(found) == {"identical"}, (number, after, found)
        faulty.close()
    assert calls > 40  # the test exercised what it claims to


@pytest.mark.parametrize("name", SOME)
def test_any_learner_may_be_killed_between_any_two_steps(client, name):
    """A successor resumes from a checkpoint, or the start; the lease of the dead one runs out."""
    spec = SPECS[name]
    loops = make_all(client, spec)
    settle(loops, client)
    for part in range(6):
        decide(client, 9, spec=spec, prefix=f"{part}.")
        # in the middle of whatever it was: a cut, an offer, a merge, a repetition
        for _ in range(part):
            for loop in loops:
                step(loop)
        if part == 2:
            for keys in KEYS:
                client.xadd(keys.log, {FIELD: encode(CheckpointRecord())})
        for victim in {part % COUNT, 0} if part % 2 else {part % COUNT}:
            client.delete(KEYS[victim].lease)
            loops[victim] = make(client, victim, spec)
    settle(loops, client)
    assert served(client).learned == learned(loops) == 54
    assert set(verdicts(client)) == {"identical"}
    before = [loop.fold.learner.checkpoint() for loop in loops]
    for keys in KEYS:
        client.delete(keys.lease)
    again = make_all(client, spec)
    for loop in again:
        loop.start()
        while loop.fold.position != loops[loop.log.keys.partition].fold.position:
            loop.step()
    assert [loop.fold.learner.checkpoint() for loop in again] == before


def test_a_leader_that_was_paused_decides_no_merge(client, server_url):
    loops = make_all(client)
    settle(loops, client)
    decide(client, 9)
    other = redis.Redis.from_url(server_url)
    successor = make(other, 0)
    client.delete(KEYS[0].lease)
    settle([successor, *loops[1:]], client)
    count = len(merges(client, 0))
    loops[0].lease._renewed_at = time.monotonic()  # it still believes that it leads
    for _ in range(5):
        loops[0].publisher.merger._decided = 0
        loops[0].publisher.merger.served = None
        loops[0].attempt()
    assert len(merges(client, 0)) == count
    assert set(verdicts(client)) == {"identical"}
    other.close()


def test_a_merge_that_nobody_heard_of_is_not_decided_again(client):
    """Two different merges of one number: the first in the log is the one that counts."""
    loops = make_all(client)
    settle(loops, client)
    known, first = merges(client, 0)[-1], loops[0]
    other = msgspec.structs.replace(known, digest=digest(b"another"))
    merger.put_merge(client, first.lease, KEYS[0], other, b"another")
    assert merges(client, 0)[-1] == known
    decide(client, 6)
    settle(loops, client)
    assert set(verdicts(client)) == {"identical"}


@pytest.mark.parametrize("name", EACH)
def test_a_dead_partition_holds_up_the_others_once_and_loses_nothing(
    client, name, monkeypatch, caplog
):
    monkeypatch.setattr(merger, "LATE_S", 0.3)
    spec = SPECS[name]
    loops = make_all(client, spec)
    settle(loops, client)
    decide(client, 12, spec=spec)
    settle(loops, client)
    alive = loops[:2]
    for part in range(3):
        before = served(client).learned
        decide(client, 12, spec=spec, prefix=f"dead{part}.")
        while served(client).learned == before:
            for loop in alive:
                step(loop)
    assert alive[0].publisher.merger.late == {2}
    # after which it is not waited for
    assert caplog.text.count("goes on without partitions [2]") == 1
    # what it gave stays in
    assert merges(client, 0)[-1].inputs[2] == merges(client, 2)[-1].inputs[2]
    settle(loops, client)  # it wakes up
    assert served(client).learned == learned(loops) == 48
    assert alive[0].publisher.merger.late == set()
    assert set(verdicts(client)) == {"identical"}


def test_what_a_partition_gave_is_made_again_if_it_was_lost(client):
    loops = make_all(client)
    settle(loops, client)
    decide(client, 12)
    settle(loops, client)
    given = merges(client, 0)[-1].inputs[1]
    client.delete(KEYS[1].blob(given.digest))
    client.delete(KEYS[0].lease)
    loops[0] = make(client, 0)  # which remembers nothing
    settle(loops, client)
    assert served(client).learned == 12
    assert set(verdicts(client)) == {"identical"}


def test_a_merged_model_that_is_gone_is_made_again_from_the_logs(client):
    spec = SPECS["vw"]
    loops = make_all(client, spec)
    settle(loops, client)
    for part in range(2):
        decide(client, 9, spec=spec, prefix=f"{part}.")
        settle(loops, client)
    before = loops[1].fold.learner.checkpoint()
    for record in merges(client, 0):
        client.delete(KEYS[0].blob(record.digest))
    again = make(client, 1, spec)
    again.start()
    again.step()
    assert again.fold.learner.checkpoint() == before


# Commands


def command(application, url: str, *arguments: str):
    done = CliRunner().invoke(
        application,
        [*arguments, "--redis-url", url],
        env={"BANDITLOOP_SALT": SALT.decode(), "BANDITLOOP_ARCHIVE": ""},
    )
    return done, done.output


@pytest.mark.parametrize("name", EACH)
def test_pins_and_rollbacks_are_of_the_merged_model(client, name):
    spec = SPECS[name]
    loops = make_all(client, spec)
    settle(loops, client)
    for part in range(3):
        decide(client, 9, spec=spec, prefix=f"{part}.")
        settle(loops, client)
    stored = StoredPolicy(client, "home")
    there = next((name, p) for name, p in stored.snapshots() if p and p.learned == 18)
    stored.control(PinRecord(there[0]))
    decide(client, 3, spec=spec, prefix="pinned")
    settle(loops, client)
    assert (stored.head(), stored.stats().pinned) == (there[0], there[0])
    stored.control(PinRecord(None))
    settle(loops, client)
    assert served(client).learned == 30
    stored.control(RollbackRecord(there[0], there[1].position))
    settle(loops, client)
    assert served(client).learned == learned(loops) == 18
    decide(client, 3, spec=spec, prefix="after")
    settle(loops, client)
    assert served(client).learned == learned(loops) == 21
    stored.control(RollbackRecord("nothing", "5-5"))
    settle(loops, client)
    assert (served(client).learned, loops[0].fold.refused_rollbacks) == (21, 1)
    assert set(verdicts(client)) == {"identical"}


def test_the_commands_work_as_with_one_partition_or_say_which_field_is_in_the_way(
    client, server_url, tmp_path
):
    loops = make_all(client)
    settle(loops, client)
    decide(client, 30)
    settle(loops, client)
    done, output = command(snapshots_app, server_url, "verify", "--json")
    assert done.exit_code == 0, output
    assert msgspec.json.decode(output)["learned"] == 30
    _, output = command(snapshots_app, server_url, "list")
    assert "served" in output
    _, output = command(snapshots_app, server_url, "show", StoredPolicy(client, "home").head()[:10])
    assert "30 interactions" in output
    done, output = command(app, server_url, "doctor", "--json")
    report = msgspec.json.decode(output)
    assert report["decisions"] == 30
    assert {each["check"] for each in report["findings"]} >= {
        "learner_lag",
        "snapshot_staleness",
        "draws",
    }
    client.xdel(
        KEYS[1].log,
        next(e.id for e in read_all(client, KEYS[1]) if isinstance(e.record, DecisionRecord)),
    )
    done, output = command(snapshots_app, server_url, "verify")
    assert done.exit_code == 1
    first = next(each.number for each in merges(client, 0) if each.inputs[1] is not None)
    # the first that took anything from the log that lacks an entry now
    assert f"merge {first}" in output
    done, _ = command(snapshots_app, server_url, "verify", "--from", loops[0].fold.position)
    assert done.exception is not None


def test_a_rollback_by_command_says_so_when_the_merge_that_restores_is_served(client, server_url):
    loops = make_all(client)
    settle(loops, client)
    for part in range(2):
        decide(client, 9, prefix=f"{part}.")
        settle(loops, client)
    there = next(
        name for name, p in StoredPolicy(client, "home").snapshots() if p and p.learned == 9
    )
    stop = threading.Event()
    for loop in loops:
        loop.lease.release()
    threads = [threading.Thread(target=loop.run, args=(stop,)) for loop in loops]
    for thread in threads:
        thread.start()
    done, output = command(snapshots_app, server_url, "rollback", there[:10])
    stop.set()
    for thread in threads:
        thread.join()
    assert "is that of" in output, done.exception
    assert served(client).learned == 9
    assert set(verdicts(client)) == {"identical"}


def test_a_log_is_not_divided_otherwise_later(client, server_url, monkeypatch):
    settle(make_all(client), client)
    assert partition_count(client, "home") == COUNT
    changed = msgspec.structs.replace(SPEC, partitions=1)
    with pytest.raises(SpecError) as refused:
        check_logs(server_url, [changed])
    assert (refused.value.target, f"partitions to {COUNT}" in refused.value.message) == (
        "partitions",
        True,
    )
    check_logs(server_url, [SPEC])
    # which it asks a running Serve
    monkeypatch.setattr("serve_app.app.serve_host", lambda: "127.0.0.1")
    # nor by a deployment on a cluster
    with pytest.raises(SpecError, match=f"partitions to {COUNT}"):
        build_for_cluster(
            Settings(redis_url=server_url, salt=SALT.hex(), archive="none"), [changed]
        )
    for keys in KEYS:
        client.delete(keys.lease)
    loop = learner_of_log(client, changed, salt=SALT, publish_interval_s=0.0)
    while loop.standstill.stall is None:
        step(loop)
    assert f"partitions to {COUNT}" in loop.standstill.stall.reason


def test_a_new_spec_of_the_same_shape_keeps_what_was_learned_and_another_shape_starts_afresh(
    client,
):
    loops = make_all(client)
    settle(loops, client)
    decide(client, 12)
    settle(loops, client)
    for changed, kept in ((msgspec.structs.replace(SPEC, floor=0.3), 12), (SPECS_WITHOUT_ITEMS, 0)):
        for keys in KEYS:
            client.delete(keys.lease)
        loops = make_all(client, changed)
        settle(loops, client)
        assert (served(client).spec, served(client).learned) == (changed.digest, kept)
    decide(client, 6, spec=SPECS_WITHOUT_ITEMS, prefix="new")
    settle(loops, client)
    assert served(client).learned == 6
    assert set(verdicts(client)) == {"identical"}


SPECS_WITHOUT_ITEMS = msgspec.structs.replace(SPEC, use=["context", "features"])


# All of it


async def test_a_replica_finds_the_log_of_each_event_and_serves_merged_models_only(
    client, async_client
):
    spec = msgspec.structs.replace(SPEC, join=JoinRule(window_s=0.3))
    loops = make_all(client, spec)
    settle(loops, client)
    service = RedisPolicyService(
        spec, async_client, LogWriter(async_client), salt=SALT, replica="r", follow_interval_s=0.01
    )
    await service.follower.step()
    names = [f"visit-{i}" for i in range(12)]
    for name in names[:4]:
        assert (await service.rank(RankRequest(event_id=name, actions=ACTIONS)))[1]
    answers = await service.rank_all(
        [RankRequest(event_id=name, actions=ACTIONS) for name in names]
    )
    answers += await service.rank_all([RankRequest(actions=ACTIONS) for _ in range(8)])
    assert all(logged for _, logged in answers)
    made = [record.event_id for record, _ in answers]
    await service.log([RewardRecord(name, 1.0) for name in made])
    for number, keys in enumerate(KEYS):
        there = [
            e.record
            for e in read_all(client, keys)
            if isinstance(e.record, DecisionRecord | RewardRecord)
        ]
        assert {partition_of(record.event_id, COUNT) for record in there} <= {number}
        assert Counter(record.event_id for record in there) == dict.fromkeys(
            [name for name in made if partition_of(name, COUNT) == number], 2
        )
    catalogue = await service.replace_catalogue([Item("a", {"x": 2.0})])
    await asyncio.sleep(0.35)
    await asyncio.to_thread(settle, loops, client)
    await service.follower.step()
    info = await service.info()
    assert (info.learned, info.items, info.outcomes["joined"], info.outcomes["decisions"]) == (
        20,
        1,
        20,
        20,
    )
    assert service.ranker.offering.catalogue.digest == catalogue
    samples = metrics(
        (await collect(async_client, Metrics("p").sample(), ["home"], {"home": COUNT})).decode()
    )
    assert samples["banditloop_learned_total"] == 20
    assert samples["banditloop_merges_total"] == loops[0].fold.number
    assert samples["banditloop_late_partitions"] == 0
    assert set(await asyncio.to_thread(verdicts, client)) == {"identical"}
    await service.stop()


def metrics(text: str) -> dict[str, float]:
    return {
        s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples
    }


def test_events_left_in_any_inbox_reach_the_log_of_their_decision_once(client):
    spec = msgspec.structs.replace(SPEC, join=JoinRule(window_s=2))
    loops = make_all(client, spec)
    settle(loops, client)
    for i in range(9):
        client.xadd(
            KEYS[i % COUNT].inbox,
            {"json": f'{{"type": "reward", "event_id": "e{i}", "value": {i}}}'},
        )
    client.xadd(KEYS[1].inbox, {"json": "junk"})
    settle(loops, client)
    for number, keys in enumerate(KEYS):
        names = [
            e.record.event_id for e in read_all(client, keys) if isinstance(e.record, RewardRecord)
        ]
        assert sorted(names) == sorted(
            f"e{i}" for i in range(9) if partition_of(f"e{i}", COUNT) == number
        )
    assert sum(loop.log.inbox.refused for loop in loops) == 1


def test_archived_and_trimmed_logs_give_it_all_again(client, server_url, tmp_path):
    before = client.config_get("stream-node-max-entries")
    client.config_set("stream-node-max-entries", 5)
    archives = [
        ArchiveReader(tmp_path, archive_folder("home", number, COUNT)) for number in range(COUNT)
    ]
    loops = [make(client, number, SPEC, archives=archives) for number in range(COUNT)]
    settle(loops, client)
    for part in range(3):
        decide(client, 24, prefix=f"{part}.")
        settle(loops, client)
        for keys in KEYS:
            client.xadd(keys.log, {FIELD: encode(CheckpointRecord())})
        settle(loops, client)
    for number in range(COUNT):
        archiver = Archiver(
            client,
            "home",
            tmp_path,
            max_age_s=0.0,
            retain_s=0.0,
            partition=number,
            partitions=COUNT,
        )
        while archiver.step() or archiver.trim():
            pass
    assert client.xrange(KEYS[0].log, count=1)[0][0].decode() > archives[0].ranges()[0].range.first
    history = History(client, KEYS[2], archives[2])
    assert (
        sum(isinstance(e.record, DECISIONS) for e in history.encoded(START))
        == loops[2].fold.learned
    )
    environment = {"BANDITLOOP_SALT": SALT.decode(), "BANDITLOOP_ARCHIVE": str(tmp_path)}
    done = CliRunner().invoke(
        snapshots_app, ["verify", "--json", "--redis-url", server_url], env=environment
    )
    assert done.exit_code == 0, done.output
    assert msgspec.json.decode(done.output)["learned"] == 72
    runner = CliRunner()
    for method in ("ope", "progressive"):
        arguments = [
            "replay",
            "--log",
            str(tmp_path),
            "--method",
            method,
            "--out",
            str(tmp_path.parent / "out.json"),
        ]
        policy = ["--policy", "uniform", "--estimator", "ips"]
        if method == "progressive":
            (tmp_path.parent / "p.yaml").write_text(
                "name: p\nexploration: {kind: epsilon_greedy}\n"
            )
            policy = ["--policy", str(tmp_path.parent / "p.yaml")]
        done = runner.invoke(app, [*arguments, *policy])
        assert done.exit_code == 0, (done.output, done.exception)
        assert msgspec.json.decode((tmp_path.parent / "out.json").read_bytes())["log"]["rows"] == 72
    done = runner.invoke(
        app, ["doctor", "home", "--archive", str(tmp_path), "--json"], env=environment
    )
    assert msgspec.json.decode(done.output)["decisions"] == 72
    done = runner.invoke(app, ["archive", "show", "home", "--archive", str(tmp_path)])
    assert "entries" in done.output
    client.config_set("stream-node-max-entries", before["stream-node-max-entries"])


def test_cuts_and_merges_out_of_turn_change_nothing(client):
    loops = make_all(client)
    settle(loops, client)
    decide(client, 9)
    settle(loops, client)
    known = merges(client, 0)
    for keys in KEYS:
        for record in (
            CutRecord(1),
            CutRecord(99),
            known[0],
            known[-1],
            msgspec.structs.replace(known[-1], model="x"),
        ):
            client.xadd(keys.log, {FIELD: encode(record)})
    settle(loops, client)
    assert served(client).learned == 9
    assert quiet(loops, client)
    assert {each.verdict for each in verified(client)} == {"identical"}


def test_leases_of_partitions_are_their_own(client):
    first, second = Lease(client, KEYS[0], "a"), Lease(client, KEYS[1], "b")
    assert first.acquire()
    assert second.acquire()
    assert not Lease(client, KEYS[1], "c").acquire()
