"""The learner on a real server: resuming, leading, being fenced off, and every call of Redis failing once."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
import redis
from faults import FaultyRedis
from logs import decision

from bandits.codec import encode
from bandits.exploration import EpsilonGreedy, LinTs
from bandits.join import JoinRule
from bandits.records import (
    ActivationRecord,
    CheckpointRecord,
    PinRecord,
    RewardRecord,
    RollbackRecord,
    SpecRecord,
)
from bandits.ridge import RidgeConfig
from policies.catalogue import Catalogue
from policies.spec import PolicySpec, VwConfig
from policies.verify import Verified
from serve_app import learner
from serve_app.event_log import FIELD, LogReader
from serve_app.keys import Keys
from serve_app.learner import LearnerLoop
from serve_app.lease import Lease, LeaseLostError
from serve_app.snapshots import Head
from serve_app.stats import Stats
from serve_app.stored import StoredPolicy
from serve_app.verification import Work, verify_policy

SALT = b"salt of these tests"
KEYS = Keys("home")
WINDOW_S = 0.05
SPEC = PolicySpec("home", learner=RidgeConfig(), exploration=LinTs(draws=8), join=JoinRule(window_s=WINDOW_S))
SPECS = {
    "ridge": SPEC,
    "ridge, as it arrives": msgspec.structs.replace(
        SPEC, join=JoinRule(window_s=WINDOW_S, learn="as_it_arrives", late="correct", aggregation="sum")
    ),
    "vw": msgspec.structs.replace(
        SPEC, learner=VwConfig("--cb_explore_adf --cb_type mtr -b 10 -q ci"), exploration=EpsilonGreedy(0.1)
    ),
}


@pytest.fixture(autouse=True)
def hurried(monkeypatch) -> None:
    """No waiting for what does not come."""
    monkeypatch.setattr(learner, "BLOCK_MS", 5)
    monkeypatch.setattr(learner, "RETRY_S", 0.0)


def make(client: redis.Redis, spec: PolicySpec = SPEC, **options) -> LearnerLoop:
    return LearnerLoop(client, spec, salt=SALT, publish_interval_s=0.0, checkpoint_interval_s=3600, **options)


def settle(loop: LearnerLoop, *, lead: bool = True, at_least: int = 3) -> None:
    """What ``run`` does, in this thread, until nothing is left to do."""
    deadline, steps = time.monotonic() + 20, 0
    while steps < at_least or (lead and not quiet(loop)):
        assert time.monotonic() < deadline, "it never came to rest"
        steps += 1
        if lead:
            try:
                loop.lease.acquire()
            except redis.RedisError:
                continue
        loop.attempt()


def quiet(loop: LearnerLoop) -> bool:
    """Whether the log is read, every window closed, the inbox moved, and all of it published."""
    observer = redis.Redis(**{k: loop._client.connection_pool.connection_kwargs[k] for k in ("host", "port", "db")})
    with observer:
        newest, raw = observer.xrevrange(KEYS.log, count=1), observer.get(KEYS.stats)
        return bool(
            raw
            and newest[0][0].decode() == loop._fold.position
            and loop._fold.join.oldest_open() is None
            and not observer.xlen(KEYS.inbox)
            and not loop._taken
            and msgspec.msgpack.decode(raw, type=Stats).snapshot_id == loop._snapshot_id
            and loop._published is not None
            and loop._published[0] == loop._fold.changes
        )


def decide(client: redis.Redis, count: int, *, spec: PolicySpec = SPEC, prefix: str = "e") -> None:
    """Decisions with rewards for every second one, as replicas would log them; their windows are over afterwards."""
    reader = LogReader(client, KEYS)
    reader.put_blob(Catalogue().digest, Catalogue().encoded)
    for i in range(count):
        reader.append(decision(f"{prefix}{i}", spec=spec.digest, catalogue=Catalogue().digest, chosen=(i % 3,)))
        if i % 2:
            reader.append(RewardRecord(f"{prefix}{i}", float(i), f"r{i}"))
    time.sleep(WINDOW_S + 0.01)


def verified(client: redis.Redis, *, salt: bytes = SALT, jobs: int = 1, start=None) -> list[Verified]:
    known = client.connection_pool.connection_kwargs
    work = Work(f"redis://{known['host']}:{known['port']}/{known['db']}", "home", "", salt)
    return verify_policy(
        work, StoredPolicy(client, "home").served()[0], start=start, jobs=jobs, progress=lambda _: None
    )[0]


def verdicts(client: redis.Redis, *, salt: bytes = SALT) -> list[str]:
    return [each.verdict for each in verified(client, salt=salt)] + StoredPolicy(client, "home").served()[1]


def head(client: redis.Redis) -> str:
    return msgspec.msgpack.decode(client.get(KEYS.head), type=Head).snapshot_id


def stats(client: redis.Redis) -> Stats:
    return msgspec.msgpack.decode(client.get(KEYS.stats), type=Stats)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.timeout(300)
def test_whichever_call_fails_before_or_after_its_effect_the_end_is_the_same(client, server_url, name, request):
    """Every call that learner and lease make, once each way: nothing lost, nothing learned twice, replay identical.

    On the second kind of server every fifth, with one kind of learner: the commands are the same.
    """
    second = "redis" in request.node.callspec.id
    if second and name != "ridge":
        pytest.skip("one kind of learner on this server: its commands are the same for all")
    spec, number, calls = SPECS[name], 0, 1
    while number < calls:
        number += 5 if second else 1
        for after in (False, True):
            client.flushall()
            faulty = FaultyRedis.from_url(server_url)
            loop = make(faulty, spec)
            faulty.fail_at, faulty.after = number, after
            settle(loop)
            decide(client, 6, spec=spec)
            client.xadd(KEYS.inbox, {FIELD: encode(RewardRecord("e0", 5.0, "inbox"))})
            client.xadd(KEYS.log, {FIELD: encode(CheckpointRecord())})
            settle(loop)
            calls = max(calls, faulty.calls)
            seen, counts = stats(client), loop._fold.join.counts
            assert seen.learned == counts["decisions"] == 6, (number, after)
            assert sum(counts[outcome] for outcome in ("joined", "late", "early", "orphan")) == 4, (number, after)
            assert client.xlen(KEYS.inbox) == 0
            found = verdicts(client)
            assert set(found) == {"identical"}, (number, after, found)
            assert head(client) == seen.snapshot_id
            assert seen.checkpoint
            faulty.close()
    assert calls > 40  # the test exercised what it claims to


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
    assert again._fold.position == older.position
    client.delete(KEYS.blob(older.digest))
    again.start()
    assert again._fold.position == "0-0"
    settle(again)
    assert stats(client).learned == 10
    assert set(verdicts(client)) == {"identical"}


def test_only_the_leader_writes_and_a_standby_takes_over_where_it_stopped(client, server_url):
    """The first leader stops giving signs of life; the second, which folded along, takes over within the lease."""
    other = redis.Redis.from_url(server_url)
    first, second = make(client), make(other)
    first.lease, second.lease = (Lease(c, KEYS, n, lease_s=2.0) for c, n in ((client, "first"), (other, "second")))
    settle(first)
    decide(client, 10)
    settle(first)
    settle(second, lead=False, at_least=4)
    assert not second.lease.acquire()
    assert second._fold.learned == stats(client).learned == 10
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
        first._append(CheckpointRecord())
    settle(first, lead=False, at_least=3)
    assert (client.xlen(KEYS.log), head(client)) == before
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


# The inbox


def test_the_inbox_takes_rewards_and_activations_and_drops_the_rest(client):
    spec = msgspec.structs.replace(SPEC, join=JoinRule(window_s=2))
    loop = make(client, spec)
    settle(loop)
    reader = LogReader(client, KEYS)
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
    counts = loop._fold.join.counts
    assert (loop._fold.learned, counts["joined"], counts["duplicate"]) == (1, 1, 1)
    assert loop._inbox.refused == len(bad)
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
    LogReader(client, KEYS).append(PinRecord(pinned))
    for part in range(25):
        decide(client, 2, prefix=f"{part}.")
        settle(loop)
    assert head(client) == pinned
    assert stats(client).learned == 56
    assert client.exists(KEYS.blob(pinned))
    LogReader(client, KEYS).append(PinRecord(None))
    settle(loop)
    assert head(client) == stats(client).snapshot_id != pinned
    assert set(verdicts(client)) == {"identical"}


@pytest.mark.parametrize("name", SPECS)
def test_a_rollback_serves_what_was_known_and_the_replay_agrees(client, name):
    spec = SPECS[name]
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


def test_verify_finds_what_was_changed_behind_the_logs_back(client):
    loop = make(client)
    settle(loop)
    decide(client, 8)
    settle(loop)
    decide(client, 8, prefix="f")
    settle(loop)
    assert set(verdicts(client)) == {"identical"}
    assert "different" in verdicts(client, salt=b"another salt of the same kind")
    stolen = next(e for e in LogReader(client, KEYS).read("0-0") if isinstance(e.record, RewardRecord))
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
    """Each part ends with the bytes of the checkpoint the next one starts from; a rollback reaches across parts."""
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
    stolen = next(e for e in LogReader(client, KEYS).read("0-0") if isinstance(e.record, RewardRecord))
    client.xdel(KEYS.log, stolen.id)  # of the first part: the others prove no more than they did
    found = verified(client, jobs=3)
    assert [each.verdict for each in found if each.snapshot_id.startswith("checkpoint")] == ["different", "identical"]
