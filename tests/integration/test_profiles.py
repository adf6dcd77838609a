"""Parts of profiles in a real Valkey: written once, by one leader, and made anew when they go."""

from collections.abc import Iterator

import pytest

from bandits.log.positions import START
from bandits.log.records import ActivityRecord, ErasureRecord, LogEntry
from policies.profiles.changes import PartChanges
from policies.profiles.part import ERASED, CutRule, decode_part, encode_part, join_parts
from serve_app.store.keys import UsersKeys
from serve_app.store.profiles.part_build import PartBuild
from serve_app.store.profiles.part_state import are_whole
from serve_app.store.profiles.part_writer import PartFencedError, PartMovedError, PartWriter
from serve_app.store.profiles.spool import ChangeSpool

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
    for entry in log:
        made.read(entry)
    return made


def expected(log: list[LogEntry]) -> dict[str, bytes]:
    return {user: encode_part(join_parts([part], RULE)) for user, part in changes(log).parts()}


def stored(client) -> dict[str, bytes]:
    users = [f"u{n}" for n in range(USERS)]
    read = {user: client.hget(KEYS.profile(user), "activity") for user in users}
    return {user: data for user, data in read.items() if data is not None}


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
    client.delete(*client.keys("bl:{shop.users}:profile:*"))
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


def test_a_spool_groups_what_does_not_fit_in_memory(monkeypatch):
    monkeypatch.setattr("serve_app.store.profiles.spool.IN_MEMORY", 700)
    log = [*entries(), LogEntry("9-0", ErasureRecord("u7", "e"))]
    with ChangeSpool() as spool:
        for _, some in reader(log)("9-0"):
            spool.add(some)
        found = list(spool.parts())
    assert len(found) == len(dict(found)) == USERS
    joined = {user: encode_part(join_parts([part], RULE)) for user, part in found}
    assert joined == expected(log)
