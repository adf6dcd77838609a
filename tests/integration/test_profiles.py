"""Parts of profiles in a real Valkey: written once, by one leader, and made anew when they go."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from support.logs import decision
from support.loops import SALT, SPEC, make, url_of
from typer.testing import CliRunner

from bandits.log.codec import encode
from bandits.log.join import JoinRule
from bandits.log.positions import START
from bandits.log.records import (
    ActivityRecord,
    CheckpointRecord,
    ErasureRecord,
    LogEntry,
    RewardRecord,
    TickRecord,
)
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.profiles.changes import PartChanges
from policies.profiles.options import ProfileOptions
from policies.profiles.part import ERASED, CutRule, decode_part, encode_part, join_parts
from policies.profiles.user_profile import read_profile
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.cli.main import app
from serve_app.store.checkpoints import Checkpoints
from serve_app.store.event_log import FIELD, RedisLog
from serve_app.store.history import History, LogPast
from serve_app.store.keys import Keys, UsersKeys
from serve_app.store.profiles.log_changes import PolicyChanges, rule_now
from serve_app.store.profiles.part_build import PartBuild
from serve_app.store.profiles.part_state import are_whole, decode_part_state
from serve_app.store.profiles.part_writer import PartFencedError, PartMovedError, PartWriter
from serve_app.store.profiles.spool import ChangeSpool
from serve_app.store.profiles.verification import PartVerdict, verify_part
from serve_app.workers.activity_leader import ActivityLeader
from serve_app.workers.learner import LearnerLoop

KEYS = UsersKeys("shop")
RULE = CutRule(5, ("purchase",))
USERS, EACH = 300, 20


def entries(count: int = USERS * EACH) -> list[LogEntry]:
    types = ("view", "cart", "purchase")
    return [
        LogEntry(
            f"{1000 + n // 7}-{n % 7}",
            ActivityRecord(f"u{n * 7919 % USERS}", f"i{n * n % 97}", types[n % 3]),
        )
        for n in range(count)
    ]


def changes(log: list[LogEntry]) -> PartChanges:
    made = PartChanges()
    made.read(log)
    return made


def expected(log: list[LogEntry]) -> dict[str, bytes]:
    return {user: encode_part(join_parts([part], RULE)) for user, part in changes(log).parts()}


def stored(client) -> dict[str, bytes]:
    users = [f"u{n}" for n in range(USERS)]
    read = {user: client.hget(KEYS.profile(user), "activity") for user in users}
    return {user: data for user, data in read.items() if data is not None}


def drop(client, keys: UsersKeys) -> None:
    """Delete all keys of profiles."""
    client.delete(*client.scan_iter(match=f"{keys.profile('')}*"))


def writer_of(client, fence=1, at=START, since=START) -> PartWriter:
    writer = PartWriter(client, KEYS, "activity")
    writer.lead(fence, RULE, since=since, at=at)
    return writer


def reader(log: list[LogEntry]):
    def read(until: str) -> Iterator[tuple[str, PartChanges]]:
        for first in range(0, len(log), 500):
            batch = log[first : first + 500]
            yield batch[-1].id, changes(batch)
            if batch[-1].id == until:
                return

    return read


def test_what_is_written_is_what_the_entries_say_however_they_come(client):
    log, writer = entries(), writer_of(client)
    for first in range(0, len(log), 900):
        writer.write(changes(log[first : first + 1000]), log[min(first + 999, len(log) - 1)].id)
    assert stored(client) == expected(log)
    assert writer.read_state().position == log[-1].id
    assert are_whole(client.hgetall(KEYS.parts), ["activity"])
    assert not are_whole(client.hgetall(KEYS.parts), ["activity", "home.0"])


def test_an_erased_user_stays_so(client):
    log, writer = entries(200), writer_of(client)
    writer.write(changes([LogEntry("5-0", ErasureRecord("u0", "e")), *log]), "5-0")
    writer.write(changes(log), log[-1].id)
    assert decode_part(stored(client)["u0"]) == ERASED


def test_a_leader_that_was_replaced_writes_nothing(client):
    log, first = entries(100), writer_of(client)
    first.write(changes(log[:50]), log[49].id)
    second = PartWriter(client, KEYS, "activity")
    assert second.lead(2, RULE, since=START, at=log[49].id).position == log[49].id
    with pytest.raises(PartFencedError):
        first.write(changes(log[50:]), log[-1].id)
    assert stored(client) == expected(log[:50])
    with pytest.raises(PartFencedError):
        first.lead(1, RULE, since=START, at=START)
    second.write(changes(log[50:]), log[-1].id)
    assert stored(client) == expected(log)


def test_all_keys_of_profiles_deleted_under_way_come_again_to_the_same_bytes(client):
    log, writer = entries(), writer_of(client)
    build = PartBuild(writer, reader(log))
    writer.write(changes(log[:3000]), log[2999].id)

    # While it is being made, what is new is written, and nobody takes the profiles for whole.
    drop(client, KEYS)
    with pytest.raises(PartMovedError):
        writer.write(changes(log[3000:4000]), log[3999].id)
    state = writer.lead(1, RULE, since=log[2999].id, at=log[2999].id)
    assert state.until == log[2999].id
    writer.write(changes(log[3000:4000]), log[3999].id)
    assert not are_whole(client.hgetall(KEYS.parts), ["activity"])

    build.begin_if_due()
    writer.write(changes(log[4000:]), log[-1].id)
    build._thread.join()
    assert stored(client) == expected(log)
    assert are_whole(client.hgetall(KEYS.parts), ["activity"])
    assert writer.read_state().position == log[-1].id


def test_another_rule_makes_the_part_anew(client):
    log, writer = entries(), PartWriter(client, KEYS, "activity")
    writer.lead(1, CutRule(2), since=START, at=START)
    writer.write(changes(log), log[-1].id)
    state = writer.lead(1, RULE, since=log[-1].id, at=log[-1].id)
    assert state.until == state.position == log[-1].id
    PartBuild(writer, reader(log)).build(state)
    assert stored(client) == expected(log)


def test_a_redis_that_lost_the_last_writes_is_noticed(client):
    log, writer = entries(1000), writer_of(client)
    writer.write(changes(log[:500]), log[499].id)
    before = client.hget(KEYS.parts, "activity")
    writer.write(changes(log[500:]), log[-1].id)
    client.hset(KEYS.parts, "activity", before)
    with pytest.raises(PartMovedError):
        writer.write(PartChanges(), "9999-0")
    state = writer.lead(1, RULE, since=log[-1].id, at=log[-1].id)
    assert state.until == log[-1].id


def test_damaged_bytes_are_made_anew(client):
    log, writer = entries(1000), writer_of(client)
    writer.write(changes(log[:500]), log[499].id)
    client.hset(KEYS.profile("u0"), "activity", b"\xc1")
    client.hset(KEYS.profile("u1"), "activity", b"\x90")
    writer.write(changes(log[500:]), log[-1].id)
    assert not writer.state.is_whole
    PartBuild(writer, reader(log)).build(writer.state)
    assert stored(client) == expected(log)


def test_a_spool_groups_what_does_not_fit_in_memory_also_of_a_user_who_did_much(monkeypatch):
    monkeypatch.setattr("serve_app.store.profiles.spool.IN_MEMORY", 700)
    monkeypatch.setattr("serve_app.store.profiles.spool.MUCH", 40)
    log = [*entries(), LogEntry("99999-0", ErasureRecord("u7", "e"))]
    log[2000:2000] = [
        LogEntry(f"{1300 + n}-9", ActivityRecord("u8", f"i{n % 1000}", "purchase"))
        for n in range(4000)
    ]
    with ChangeSpool(RULE) as spool:
        for _, some in reader(log)("99999-0"):
            spool.add(some)
        found = list(spool.parts())
    assert len(found) == len(dict(found)) == USERS
    assert dict(found) == expected(log)


# The part of a policy's log


# However slow the machine is, a reward comes within its window: it counts.
PROFILED = msgspec.structs.replace(
    SPEC,
    profile=ProfileOptions(items=5),
    repeat={"purchased": "never"},
    join=JoinRule(window_s=60.0),
)
LOG, KEYS_OF_HOME = Keys("home"), UsersKeys("home")


@contextmanager
def learning(client, spec=PROFILED) -> Iterator[LearnerLoop]:
    loop, stop = make(client, spec), threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    try:
        yield loop
    finally:
        stop.set()
        thread.join()


def act(client, first: int, count: int, spec=PROFILED) -> None:
    """Decisions for users, of which every second is rewarded."""
    reader = RedisLog(client, LOG)
    reader.put_blob(Catalogue().digest, Catalogue().encoded)
    reader.put_blob(spec.digest, spec.encoded)
    for n in range(first, first + count):
        name = f"e{n}"
        reader.append(
            decision(
                name,
                spec=spec.digest,
                catalogue=Catalogue().digest,
                chosen=(n % 3, (n + 1) % 3),
                user=f"u{n % 7}",
            )
        )
        if n % 2:
            reader.append(RewardRecord(name, 1.0, slot=n % 4 // 2))


def until(holds) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_written(client) -> bool:
    states = client.hgetall(KEYS_OF_HOME.parts)
    state = decode_part_state(states.get(b"home.0"))
    newest = client.xrevrange(LOG.log, count=1)[0][0].decode()
    return state is not None and state.is_whole and state.position == newest


def verdict(client, spec=PROFILED) -> PartVerdict:
    history = History(client, LOG, None)
    changes = PolicyChanges(history, LogPast(history, Checkpoints(client, LOG)), SALT)
    rule = rule_now(client, spec)
    return verify_part(client, KEYS_OF_HOME, "home.0", rule, changes)


@pytest.mark.usefixtures("hurried_learner")
def test_a_learner_writes_what_its_log_says_of_users_and_makes_it_anew_when_it_is_gone(client):
    with learning(client):
        act(client, 0, 40)
        until(lambda: is_written(client))
        first = verdict(client)
        assert first.holds
        assert (first.users, first.changes) == (7, 100)

        stored = read_profile([client.hgetall(KEYS_OF_HOME.profile("u1"))], CutRule(5))
        assert {event.type for event in stored.events} == {"reward"}
        assert len(stored.shown) == 12

        # All keys of profiles go under way.
        drop(client, KEYS_OF_HOME)
        act(client, 40, 20)
        until(lambda: is_written(client) and verdict(client).holds)
        assert verdict(client).changes == 150

    # Whoever comes next goes on from there; what it is told again changes nothing.
    with learning(client):
        act(client, 60, 5)
        until(lambda: is_written(client))
        assert verdict(client).holds
        epoch = decode_part_state(client.hget(KEYS_OF_HOME.parts, "home.0")).epoch
    with learning(client, msgspec.structs.replace(PROFILED, profile=ProfileOptions(items=2))):
        until(lambda: is_written(client))
        until(lambda: decode_part_state(client.hget(KEYS_OF_HOME.parts, "home.0")).epoch != epoch)
        until(lambda: is_written(client))


@pytest.mark.usefixtures("hurried_learner")
def test_a_standby_goes_on_from_what_was_written_and_nothing_is_made_anew(client):
    with learning(client) as first:
        act(client, 0, 20)
        until(lambda: is_written(client))
        epoch = decode_part_state(client.hget(KEYS_OF_HOME.parts, "home.0")).epoch
        with learning(client) as second:
            until(lambda: second.fold.position == first.fold.position)
            client.xadd(LOG.log, {FIELD: encode(CheckpointRecord())})
            act(client, 20, 20)
            until(StoredPolicy(client, "home").checkpoints.list)

            # The first ends without a word, with what it has not written yet.
            first._profiles._writer.write = lambda *_: time.sleep(0.05)
            act(client, 40, 20)
            first.lease.abstain()
            until(lambda: second.lease.token is not None)
            act(client, 60, 5)
            until(lambda: is_written(client))
            assert verdict(client).holds

    # The third resumes from the checkpoint.
    with learning(client) as third:
        act(client, 65, 5)
        until(lambda: is_written(client))
        assert third.log.checkpointed
    assert verdict(client).holds
    assert decode_part_state(client.hget(KEYS_OF_HOME.parts, "home.0")).epoch == epoch


@pytest.mark.usefixtures("hurried_learner")
def test_a_log_that_tells_nothing_of_users_takes_no_memory_while_nobody_writes(client):
    feed = make(client, PROFILED)._profiles
    feed.attach(Fold({}.__getitem__, salt=SALT))
    feed.applied([LogEntry("1-0", ErasureRecord("u", "job"))])
    for n in range(2, 1000):
        feed.applied([LogEntry(f"{n}-0", TickRecord())])
    assert [position for position, _ in feed._pending] == ["1-0", "999-0"]


def test_the_commands_verify_and_make_anew_also_where_nothing_happens(client, tmp_path):
    where = ["--redis-url", url_of(client), "--data-dir", str(tmp_path)]

    def run(name: str, *options: str):
        return CliRunner().invoke(app, ["profiles", name, *where, *options])

    leader, stop = ActivityLeader(client, "home", salt=SALT), threading.Event()
    thread = threading.Thread(target=leader.run, args=(stop,))
    with learning(client):
        thread.start()
        act(client, 0, 20)
        until(lambda: is_written(client))
        until(lambda: client.hexists(KEYS_OF_HOME.parts, "activity"))
        verified = run("verify")
        assert verified.exit_code == 0, verified.output
        assert "the profiles are what the logs say" in verified.output

        rebuilt = run("rebuild")
        assert rebuilt.exit_code == 0, rebuilt.output
        assert "7 profiles made anew" in rebuilt.output
        assert run("verify").exit_code == 0
        stop.set()
        thread.join()

    # Without a learner.
    client.hdel(KEYS_OF_HOME.profile("u3"), "home.0")
    said = run("verify", "--json")
    assert said.exit_code == 1
    of_home = json.loads(said.output)["parts"][1]
    assert (of_home["differing"], of_home["examples"]) == (1, ["u3"])
    rebuilt = run("rebuild", "--wait-s", "0")
    assert rebuilt.exit_code == 3
    assert "that begins when the service runs" in " ".join(rebuilt.output.split())
    assert run("verify").exit_code == 3


@pytest.mark.usefixtures("hurried_learner")
def test_a_verification_finds_what_is_not_what_the_log_says(client):
    with learning(client):
        act(client, 0, 20)
        until(lambda: is_written(client))
    assert verdict(client).holds
    client.hset(KEYS_OF_HOME.profile("u3"), "home.0", encode_part(ERASED))
    client.hdel(KEYS_OF_HOME.profile("u4"), "home.0")
    client.hset(KEYS_OF_HOME.profile("nobody"), "home.0", encode_part(ERASED))
    found = verdict(client)
    assert not found.holds
    assert found.examples == ["nobody", "u3", "u4"]
    assert found.differing == 3
    client.hdel(KEYS_OF_HOME.parts, "home.0")
    assert verdict(client).state == "absent"


@pytest.mark.usefixtures("hurried_learner")
def test_a_policy_without_profiles_writes_none(client):
    with learning(client, SPEC):
        act(client, 0, 4, SPEC)
        until(lambda: client.exists(LOG.stats))
    assert list(client.scan_iter(match="bl:{home.users}:*")) == []
