"""The learner on a real server: resuming, leading, fencing, pins, rollbacks and verification."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
import redis
from support.logs import decision
from support.loops import (
    KEYS,
    SALT,
    SPEC,
    SPECS,
    decide,
    head,
    make,
    settle,
    stats,
    verdicts,
    verified,
)
from typer.testing import CliRunner

from bandits.errors import SnapshotError
from bandits.log.codec import encode
from bandits.log.join import JoinRule
from bandits.log.records import (
    ActivationRecord,
    CheckpointRecord,
    PinRecord,
    RewardRecord,
    RollbackRecord,
    SpecRecord,
    TickRecord,
)
from bandits.ridge.config import RidgeConfig
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.cli.main import app
from serve_app.cli.snapshots import app as snapshots_app
from serve_app.cli.train import app as train_app
from serve_app.store.checkpoints import RECENT
from serve_app.store.event_log import FIELD, RedisLog
from serve_app.store.lease import Lease, LeaseLostError
from serve_app.store.snapshots import KEPT_SNAPSHOTS
from serve_app.workers import learner
from serve_app.workers.learner import LearnerLoop

pytestmark = pytest.mark.usefixtures("hurried_learner")


@pytest.mark.parametrize("name", SPECS)
def test_a_learner_resumes_from_its_newest_checkpoint_and_reads_no_more_than_it_needs(client, name):
    spec = SPECS[name]
    loop = make(client, spec)
    settle(loop)
    for part in range(3):
        decide(client, 10, spec=spec, prefix=f"{part}.")
        client.xadd(KEYS.log, {FIELD: encode(CheckpointRecord())})
        settle(loop)
    first = head(client)
    assert stats(client).learned == 30
    assert len(StoredPolicy(client, "home").checkpoints.list()) == 3
    old = client.get(KEYS.needed).decode()
    client.xtrim(KEYS.log, minid=old)  # what a resume does not need is gone
    loop.lease.release()
    again = make(client, spec)
    settle(again)
    assert stats(client).learned == 30
    decide(client, 5, spec=spec, prefix="more")
    settle(again)
    assert stats(client).learned == 35
    assert head(client) != first


def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(client):
    loop = make(client)
    settle(loop)
    for part in range(2):
        decide(client, 5, prefix=f"{part}.")
        client.xadd(KEYS.log, {FIELD: encode(CheckpointRecord())})
        settle(loop)
    loop.lease.release()
    newest, older = StoredPolicy(client, "home").checkpoints.list()
    client.set(KEYS.blob(newest.digest), b"junk")
    again = make(client)
    again.start()
    assert again.fold.position == older.position
    client.delete(KEYS.blob(older.digest))
    again.start()
    assert again.fold.position == "0-0"
    settle(again)
    assert stats(client).learned == 10
    assert set(verdicts(client)) == {"identical"}


def test_only_the_leader_writes_and_a_standby_takes_over_where_it_stopped(client, server_url):
    """The first leader stops giving signs of life.

    The second, which folded along, takes over within the lease.
    """
    other = redis.Redis.from_url(server_url)
    first, second = make(client), make(other)
    first.log.lease, second.log.lease = (
        Lease(c, KEYS, n, lease_s=2.0) for c, n in ((client, "first"), (other, "second"))
    )
    settle(first)
    decide(client, 10)
    settle(first)
    settle(second, lead=False, at_least=4)
    assert not second.lease.acquire()
    assert second.fold.learned == stats(client).learned == 10
    entries = client.xlen(KEYS.log)
    settle(second, lead=False, at_least=3)
    assert client.xlen(KEYS.log) == entries
    time.sleep(2.05)
    decide(client, 4, prefix="later")
    settle(second)
    assert stats(client).learned == 14
    assert second.lease.takeovers == 1
    # the first wakes up, and still believes it leads
    first.lease._renewed_at = time.monotonic()
    before = (client.xlen(KEYS.log), head(client))
    with pytest.raises(LeaseLostError):
        first.log.append(CheckpointRecord())
    settle(first, lead=False, at_least=3)
    assert (client.xlen(KEYS.log), head(client)) == before
    assert set(verdicts(client)) == {"identical"}
    other.close()


def test_a_later_deployment_leads_once_it_has_caught_up_while_the_earlier_one_still_runs(
    client, server_url
):
    """Also in another cluster: it has its own specs to publish before its replicas can answer."""
    other = redis.Redis.from_url(server_url)
    old, new = (
        make(client, generation=1),
        make(other, msgspec.structs.replace(SPEC, floor=0.3), generation=2),
    )
    settle(old)
    decide(client, 10)
    settle(old)
    assert not new.lease.acquire()  # it has read nothing yet
    settle(new, lead=False, at_least=2)
    settle(new)
    assert new.fold.learned == 10
    with pytest.raises(LeaseLostError):
        old.log.append(CheckpointRecord())
    settle(old, lead=False, at_least=3)
    assert not old.lease.acquire()
    assert new.lease.acquire()
    assert new.fold.spec.floor == 0.3
    assert set(verdicts(client)) == {"identical"}
    other.close()


def test_a_lease_is_released_renewed_and_never_given_twice(client, server_url):
    others = [redis.Redis.from_url(server_url) for _ in range(3)]
    leases = [Lease(each, KEYS, str(n), lease_s=5) for n, each in enumerate(others)]
    won = [lease.acquire() for lease in leases]
    assert won == [True, False, False]
    token = leases[0].token
    assert leases[0].acquire()
    assert leases[0].token == token
    leases[0].release()
    assert [lease.acquire() for lease in leases[1:]] == [True, False]
    assert int(leases[1].token.split(b":")[0]) > int(token.split(b":")[0])
    assert leases[1].guarded([("SET", "bl:{home.0}:x", 1), ("GET", "bl:{home.0}:x")])[1] == b"1"
    with pytest.raises(LeaseLostError):
        leases[0].guarded([("SET", "bl:{home.0}:x", 2)])
    assert client.get("bl:{home.0}:x") == b"1"
    for each in others:
        each.close()


@contextmanager
def running(url: str, spec: PolicySpec) -> Iterator[LearnerLoop]:
    connection = redis.Redis.from_url(url)
    loop, stop = make(connection, spec), threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    yield loop
    stop.set()
    thread.join(10)
    connection.close()
    assert not thread.is_alive()


def test_a_learner_that_stops_hands_over_at_once(client, server_url):
    with running(server_url, SPEC) as first:
        deadline = time.monotonic() + 5
        while first.lease.token is None:
            assert time.monotonic() < deadline
        with running(server_url, SPEC) as second:
            time.sleep(0.1)
            assert second.lease.token is None
            first.lease.release()
            first.lease.acquire = lambda: False
            while second.lease.token is None:
                assert time.monotonic() < deadline


def test_a_leader_of_a_quiet_log_waits_for_an_entry_which_wakes_it(client, monkeypatch):
    """It does not look every moment; while a window is open it does."""
    loop = make(client, msgspec.structs.replace(SPEC, join=JoinRule(window_s=60)))
    settle(loop)
    for _ in range(learner.QUIET_STEPS):
        loop.attempt()
    monkeypatch.setattr(learner, "QUIET_MS", 30_000)
    before = loop.fold.position
    timer = threading.Timer(0.1, client.xadd, (KEYS.log, {FIELD: encode(TickRecord())}))
    timer.start()
    loop.attempt()
    timer.join()
    assert loop.fold.position != before

    monkeypatch.setattr(learner, "QUIET_MS", 61_000)  # longer than it is until the window closes
    decide(client, 1, spec=loop.fold.spec)
    began = time.monotonic()
    for _ in range(learner.QUIET_STEPS + 3):
        loop.attempt()
    assert time.monotonic() - began < 20


# The inbox


def test_the_inbox_takes_rewards_and_activations_and_drops_the_rest(client):
    spec = msgspec.structs.replace(SPEC, join=JoinRule(window_s=2))
    loop = make(client, spec)
    settle(loop)
    reader = RedisLog(client, KEYS)
    reader.put_blob(Catalogue().digest, Catalogue().encoded)
    reader.append(decision("a", spec=spec.digest, catalogue=Catalogue().digest, deferred=True))
    good = [
        {b"json": b'{"type": "activation", "event_id": "a"}'},
        {b"json": b'{"type": "reward", "event_id": "a", "value": 2.5, "reward_id": "x"}'},
        {FIELD: encode(RewardRecord("a", 1.0, "x"))},
    ]
    bad = [
        {b"json": b'{"type": "reward", "event_id": "a", "value": 1e400}'},
        {b"json": b'{"type": "reward", "event_id": "", "value": 1}'},
        {b"json": b'{"type": "reward", "event_id": "a", "value": 1, "extra": 1}'},
        {b"json": b"[" * 100_000},
        {b"json": b"\xff"},
        {FIELD: encode(decision("b"))},
        {FIELD: encode(SpecRecord("d", "s"))},
        {FIELD: b"junk"},
        {b"other": b"field"},
    ]
    for fields in (*bad, *good):
        client.xadd(KEYS.inbox, fields)
    settle(loop)
    counts = loop.fold.join.counts
    assert (loop.fold.learned, counts["joined"], counts["duplicate"]) == (1, 1, 1)
    assert loop.log.inbox.refused == len(bad)
    assert client.xlen(KEYS.inbox) == 0
    kinds = [type(entry.record) for entry in reader.read("0-0")]
    assert kinds.count(SpecRecord) == 1
    assert kinds.count(ActivationRecord) == 1


# Pins, rollbacks, and what verify sees


def test_a_pinned_snapshot_is_served_and_kept_while_learning_goes_on(client):
    loop = make(client)
    settle(loop)
    decide(client, 6)
    settle(loop)
    pinned = head(client)
    RedisLog(client, KEYS).append(PinRecord(pinned))
    for part in range(25):
        decide(client, 2, prefix=f"{part}.")
        settle(loop)
    assert head(client) == pinned
    assert stats(client).learned == 56
    assert client.exists(KEYS.blob(pinned))
    RedisLog(client, KEYS).append(PinRecord(None))
    settle(loop)
    assert head(client) == stats(client).snapshot_id != pinned
    assert set(verdicts(client)) == {"identical"}


FORGETS = msgspec.structs.replace(
    SPECS["ridge, as it arrives"], learner=RidgeConfig(half_life="1s")
)


@pytest.mark.parametrize("spec", [*SPECS.values(), FORGETS], ids=[*SPECS, "ridge that forgets"])
def test_a_rollback_serves_what_was_known_and_the_replay_agrees(client, spec):
    loop = make(client, spec)
    settle(loop)
    for part in range(4):
        decide(client, 6, spec=spec, prefix=f"{part}.")
        if part == 1:
            client.xadd(KEYS.log, {FIELD: encode(CheckpointRecord())})
        settle(loop)
    stored = StoredPolicy(client, "home")
    there = next(p for _, p in stored.snapshots() if p and p.learned == 18)
    stored.control(RollbackRecord(there.snapshot_id, there.position))
    settle(loop)
    assert stats(client).learned == 18
    decide(client, 3, spec=spec, prefix="after")
    settle(loop)
    assert stats(client).learned == 21
    assert set(verdicts(client)) == {"identical"}
    loop.lease.release()
    again = make(client, spec)  # a restart, from the checkpoint before the rollback
    settle(again)
    assert stats(client).learned == 21
    assert set(verdicts(client)) == {"identical"}


@pytest.mark.parametrize("name", SPECS)
def test_a_learner_goes_on_from_a_model_trained_on_another_log_and_the_replay_agrees(
    client, server_url, name, tmp_path
):
    spec = SPECS[name]
    chosen = "\n".join(f"{number},{'abc'[number % 3]},0.33,{number % 2}" for number in range(60))
    (tmp_path / "log.csv").write_text(f"hour,action,p,click\n{chosen}\n")
    (tmp_path / "spec.yaml").write_bytes(msgspec.yaml.encode(spec))
    columns = (
        "{reward: click, propensity: p, action: action, action_ids: [a, b, c], context: [hour]}"
    )
    command = [
        "policy",
        str(tmp_path / "spec.yaml"),
        "--log",
        str(tmp_path / "log.csv"),
        "--format",
        "csv",
    ]
    command += [
        "--columns",
        columns,
        "--publish",
        "--redis-url",
        server_url,
        "--data-dir",
        str(tmp_path),
    ]
    with running(server_url, spec) as loop:
        deadline = time.monotonic() + 60
        while StoredPolicy(client, "home").stats() is None:
            assert time.monotonic() < deadline
        decide(client, 6, spec=spec)
        while stats(client).learned < 6:
            assert time.monotonic() < deadline
        done = CliRunner().invoke(train_app, command)
        assert done.exit_code == 0, done.output
        assert "learning goes on from 60" in done.output
        decide(client, 3, spec=spec, prefix="after")
        while stats(client).learned != 63:
            assert time.monotonic() < deadline
    assert loop.fold.refused_warm_starts == 0
    assert set(verdicts(client)) == {"identical"}
    again = make(client, spec)  # a restart, from the start of the log
    settle(again)
    assert stats(client).learned == 63
    assert set(verdicts(client)) == {"identical"}
    policies = [
        "--policy",
        f"snapshot:{head(client)[:10]}",
        "--policy",
        f"snapshot:home/{head(client)[:10]}",
    ]
    done = CliRunner().invoke(
        app, ["replay", *command[2:8], *command[9:], *policies, "--estimator", "ips"]
    )
    assert done.exit_code == 0, done.output
    assert " ".join(done.output.split()).count("learned from 63 interactions") == 2
    other = msgspec.structs.replace(spec, use=["context", "item"])
    (tmp_path / "spec.yaml").write_bytes(msgspec.yaml.encode(other))
    done = CliRunner().invoke(train_app, command)
    assert isinstance(done.exception, SnapshotError)
    assert "train it with the spec that is served" in done.exception.message


def test_verify_finds_what_was_changed_behind_the_logs_back(client):
    loop = make(client)
    settle(loop)
    decide(client, 8)
    settle(loop)
    decide(client, 8, prefix="f")
    settle(loop)
    assert set(verdicts(client)) == {"identical"}
    assert "different" in verdicts(client, salt=b"another salt of the same kind")
    stolen = next(
        e for e in RedisLog(client, KEYS).read("0-0") if isinstance(e.record, RewardRecord)
    )
    client.xdel(KEYS.log, stolen.id)
    found = verdicts(client)
    assert found[0] == "identical"  # what was served before it still is what the log gives
    assert found[-1] == "different"


def test_verify_finds_a_snapshot_that_no_prefix_of_the_log_gives(client):
    loop = make(client)
    settle(loop)
    decide(client, 4)
    settle(loop)
    last = StoredPolicy(client, "home").snapshots()[-1][1]
    client.xdel(KEYS.log, last.position)
    assert verdicts(client)[-1] in {"not in the log", "different"}
    client.set(KEYS.blob(head(client)), b"junk")
    assert head(client) in verdicts(client)


def test_a_verification_can_start_from_a_checkpoint(client):
    loop = make(client)
    settle(loop)
    for part in range(3):
        decide(client, 5, prefix=f"{part}.")
        client.xadd(KEYS.log, {FIELD: encode(CheckpointRecord())})
        settle(loop)
    stored = StoredPolicy(client, "home")
    start = stored.checkpoints.list()[1]
    client.xtrim(KEYS.log, minid=client.get(KEYS.needed).decode())
    found = verified(client, start=start)
    assert {each.verdict for each in found} == {"identical"}
    assert 1 <= len(found) < len(stored.served()[0])


def test_a_verification_in_parts_proves_what_one_from_the_start_does(client):
    """Each part ends with the bytes of the checkpoint the next one starts from.

    A rollback reaches across parts.
    """
    loop = make(client)
    settle(loop)
    for part in range(4):
        decide(client, 6, prefix=f"{part}.")
        client.xadd(KEYS.log, {FIELD: encode(CheckpointRecord())})
        settle(loop)
    stored = StoredPolicy(client, "home")
    early = next(p for _, p in stored.snapshots() if p and p.learned == 6)
    stored.control(RollbackRecord(early.snapshot_id, early.position))
    decide(client, 6, prefix="after")
    settle(loop)
    found = verified(client, jobs=3)
    assert {each.verdict for each in found} == {"identical"}
    boundaries = [each for each in found if each.snapshot_id.startswith("checkpoint")]
    assert len(boundaries) == 2
    assert len(found) - 2 == len(verified(client))
    stolen = next(
        e for e in RedisLog(client, KEYS).read("0-0") if isinstance(e.record, RewardRecord)
    )
    client.xdel(KEYS.log, stolen.id)  # of the first part: the others prove no more than they did
    found = verified(client, jobs=3)
    assert [each.verdict for each in found if each.snapshot_id.startswith("checkpoint")] == [
        "different",
        "identical",
    ]


@pytest.mark.slow
@pytest.mark.one_server
def test_what_is_listed_is_stored_however_many_checkpoints_are_forgotten(client):
    """A quiet policy publishes with its checkpoints alone.

    The snapshot of one that is forgotten is listed on.
    """
    loop = make(client)
    settle(loop)
    decide(client, 6)
    settle(loop)
    for _ in range(RECENT + 6):
        client.xadd(KEYS.log, {FIELD: encode(CheckpointRecord())})
        settle(loop)
    listed = [name.decode() for name in client.lrange(KEYS.snapshots, 0, -1)]
    assert len(listed) > RECENT
    assert len(StoredPolicy(client, "home").checkpoints.list()) < RECENT + 6
    assert [name for name in listed if not client.exists(KEYS.blob(name))] == []
    for number in range(KEPT_SNAPSHOTS + 1):  # and when they do, they are gone
        decide(client, 1, prefix=f"more{number}-")
        settle(loop)
    kept = {each.snapshot_id for each in StoredPolicy(client, "home").checkpoints.list()}
    now = {name.decode() for name in client.lrange(KEYS.snapshots, 0, -1)} | kept
    assert [name for name in listed if name not in now and client.exists(KEYS.blob(name))] == []


def test_a_verification_of_nothing_is_no_proof_and_one_with_a_hole_fails(
    client, server_url, tmp_path
):
    arguments = ["verify", "home", "--redis-url", server_url, "--data-dir", str(tmp_path), "--json"]
    (tmp_path / "salt").write_bytes(SALT)
    RedisLog(client, KEYS).append(TickRecord())
    nothing = CliRunner().invoke(snapshots_app, arguments, catch_exceptions=False)
    assert (nothing.exit_code, json.loads(nothing.stdout)["holds"]) == (3, False)
    loop = make(client)
    settle(loop)
    decide(client, 6)
    settle(loop)
    good = CliRunner().invoke(snapshots_app, arguments, catch_exceptions=False)
    assert (good.exit_code, json.loads(good.stdout)["holds"]) == (0, True)
    gone = client.lindex(KEYS.snapshots, 1).decode()
    client.delete(KEYS.blob(gone))
    hole = CliRunner().invoke(snapshots_app, arguments, catch_exceptions=False)
    assert (hole.exit_code, json.loads(hole.stdout)["corrupt"]) == (1, [gone])
