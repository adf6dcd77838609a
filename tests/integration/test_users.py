"""Who the users of a space are, over a real server: made once, found by everybody."""

import asyncio

import pytest

from bandits.errors import LogUnavailableError, UnknownUserError
from bandits.log.records import MergeUsersRecord
from policies.pseudonyms import person_key
from serve_app.replica import users
from serve_app.replica.user_merges import UserMerges
from serve_app.replica.users import ReplicaUsers
from serve_app.store.event_log import LogWriter, RedisLog
from serve_app.store.keys import ActivityKeys, UsersKeys
from serve_app.store.users import reading
from serve_app.store.users.persons import alias_to

KEYS, ACTIVITY = UsersKeys("shop"), ActivityKeys("shop")
SALT = b"a secret of at least sixteen bytes"


def replica(client, **options) -> ReplicaUsers:
    return ReplicaUsers(LogWriter(client), KEYS, salt=SALT, **options)


async def test_whoever_asks_first_makes_a_person_and_everybody_finds_them(client, async_client):
    one, other = replica(async_client), replica(async_client)
    alices = await asyncio.gather(*(each.resolve("alice") for each in (one, other) * 8))
    assert len(set(alices)) == 1

    found = await other.resolve_all(["bob", "alice", "bob"])
    assert found["alice"] == alices[0]
    assert found["bob"].pseudonym != alices[0].pseudonym
    assert client.get(KEYS.person(one.key_of("alice"))) == alices[0].raw


async def test_many_at_once_are_found_in_their_order(client, async_client, monkeypatch):
    monkeypatch.setattr(users, "PER_COMMAND", 7)
    names = [f"u{number}" for number in range(50)]
    made = await replica(async_client).resolve_all(names)
    again = await replica(async_client).resolve_all(names[::-1])
    assert made == again
    assert len({person.pseudonym for person in made.values()}) == 50


async def test_a_replica_remembers_for_a_while_and_not_for_ever(client, async_client):
    now = 0.0
    one = replica(async_client, clock=lambda: now)
    first = await one.resolve("alice")
    client.delete(KEYS.person(one.key_of("alice")))
    assert await one.resolve("alice") == first
    now = users.FRESH_S + 1
    second = await one.resolve("alice")
    assert second.pseudonym != first.pseudonym

    client.delete(KEYS.person(one.key_of("alice")))
    one.forget("alice")
    assert (await one.resolve("alice")).pseudonym not in {first.pseudonym, second.pseudonym}


async def test_a_replica_remembers_so_many(client, async_client, monkeypatch):
    monkeypatch.setattr(users, "KEPT", 10)
    one = replica(async_client)
    await one.resolve_all([f"u{number}" for number in range(25)])
    kept = [number for number in range(25) if one.remembered(f"u{number}")]
    assert 9 <= len(kept) <= 10
    assert kept == list(range(25 - len(kept), 25))


async def test_an_alias_leads_to_its_person_and_one_that_leads_nowhere_to_nobody(
    client, async_client
):
    one = replica(async_client)
    alice = await one.resolve("alice")
    client.set(KEYS.person(one.key_of("cookie")), alias_to(alice.key, "a" * 32))
    assert await one.resolve("cookie") == alice

    client.set(KEYS.person(one.key_of("lost")), alias_to("0" * 32, "a" * 32))
    lost = await one.resolve("lost")
    assert lost.key == one.key_of("lost")
    assert lost.pseudonym != alice.pseudonym
    assert await replica(async_client).resolve("lost") == lost


def merges(client, users: ReplicaUsers) -> UserMerges:
    return UserMerges(client, LogWriter(client), ACTIVITY, users)


def logged(client) -> list[MergeUsersRecord]:
    return [entry.record for entry in RedisLog(client, ACTIVITY).read("0-0")]


async def test_a_merge_is_in_the_store_and_once_in_the_log(client, async_client):
    one, other = replica(async_client), replica(async_client)
    cookie, alice = await one.resolve("cookie"), await other.resolve("alice")
    for _ in range(3):
        plan = await merges(async_client, one).merge("cookie", "alice")
        assert plan.pseudonyms == 2
    assert logged(client) == [MergeUsersRecord(cookie.pseudonym, alice.pseudonym)]

    merged = await one.resolve("cookie")
    assert merged.pseudonyms == (alice.pseudonym, cookie.pseudonym)
    assert merged == await one.resolve("alice")

    # Another replica remembers what was, until it reads along with a profile that it is not so.
    assert await other.resolve("alice") == alice
    assert client.get(KEYS.person(alice.key)) == merged.raw != alice.raw
    other.forget("alice")
    assert await other.resolve("alice") == merged


async def test_merges_at_once_lose_nothing(client, async_client):
    one = replica(async_client)
    await one.resolve_all([f"c{number}" for number in range(5)])
    each = merges(async_client, one)

    async def merge(number: int) -> None:
        while True:
            try:
                await each.merge(f"c{number}", "alice")
            except LogUnavailableError:
                continue
            return

    await asyncio.gather(*map(merge, range(5)))
    assert len((await one.resolve("alice")).pseudonyms) == 6
    assert len(logged(client)) == 5


async def test_nothing_is_logged_of_whom_was_erased_meanwhile(client, async_client):
    one = replica(async_client)
    cookie = await one.resolve("cookie")
    client.set(ACTIVITY.erased(cookie.pseudonym), 1)
    with pytest.raises(UnknownUserError):
        await merges(async_client, one).merge("cookie", "alice")
    assert logged(client) == []


async def test_what_users_are_logged_under_is_told_of_those_who_are_known(
    client, async_client, monkeypatch
):
    monkeypatch.setattr(reading, "PER_SCAN", 2)
    users = replica(async_client)
    merges = UserMerges(async_client, LogWriter(async_client), ACTIVITY, users)
    made = await users.resolve_all(["ann", "bob", "carl"])
    await merges.merge("bob", "ann")
    key = {name: person_key(SALT, name) for name in ("ann", "bob", "carl", "dora")}
    assert reading.pseudonyms_of(client, KEYS, list(key.values())) == {
        key["ann"]: made["ann"].pseudonym,
        key["bob"]: made["ann"].pseudonym,
        key["carl"]: made["carl"].pseudonym,
    }
    alone = reading.pseudonyms_of(client, KEYS, [key["bob"]])
    assert alone[key["bob"]] == made["ann"].pseudonym
