"""Erasing persons, over a real server: the record goes, every log is told, and a job says so."""

import asyncio
import io

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from bandits.errors import (
    ProfilesLeftError,
    StartupError,
    UnknownErasureError,
    UnknownUserError,
)
from bandits.log.codec import decode
from bandits.log.records import ErasureRecord
from policies.artifacts.histories import Histories
from policies.artifacts.profile_file import write_profiles
from policies.profiles.options import ProfileOptions
from policies.pseudonyms import person_key, pseudonym
from policies.spec import PolicySpec
from serve_app.admin.spaces import known_secret, opened_space
from serve_app.cli import main as cli
from serve_app.replica.erasures import ReplicaErasures
from serve_app.replica.user_merges import UserMerges
from serve_app.replica.users import ReplicaUsers
from serve_app.store.erasures.job import (
    Erasure,
    erase_person,
    go_on,
    go_on_with_all,
    run,
    run_async,
)
from serve_app.store.event_log import LogWriter
from serve_app.store.keys import ActivityKeys, Keys, UsersKeys
from serve_app.store.profiles.part_state import PartState
from serve_app.store.spaces import Member, Space, read_space, register
from serve_app.store.users.persons import alias_to, decode_person

SALT = b"a secret of at least sixteen bytes"
USERS = UsersKeys("shop")
SPACE = Space("shop", (Member("home", 2, items=50), Member("mail")))
LOGS = {"activity": ActivityKeys("shop"), "home.0": Keys("home", 0), "home.1": Keys("home", 1)}


@pytest.fixture
def users(async_client) -> ReplicaUsers:
    return ReplicaUsers(LogWriter(async_client), USERS, salt=SALT)


def key_of(user_id: str) -> str:
    return person_key(SALT, user_id)


def erasures_in(client, keys) -> list[tuple[str, ErasureRecord]]:
    return [(at.decode(), decode(fields[b"r"])) for at, fields in client.xrange(keys.log)]


def pass_all(client, position: str = "9" * 13 + "-0", *parts: str, until: str = "") -> None:
    state = msgspec.msgpack.encode(PartState(position, "rule", "epoch", until, ""))
    for part in parts or LOGS:
        client.hset(USERS.parts, part, state)


async def test_the_record_goes_every_log_is_told_and_the_job_waits_for_all_parts(client, users):
    ann = (await users.resolve("ann")).pseudonym
    begun = run(client, erase_person(SPACE, key_of("ann")))

    assert not client.exists(USERS.person(key_of("ann")))
    assert begun.waits_for == list(LOGS)
    assert begun.job.keyed == ["mail"]
    for part, keys in LOGS.items():
        [(at, record)] = erasures_in(client, keys)
        assert record == ErasureRecord(ann, begun.job.erasure)
        assert client.get(keys.erased(ann)) == at.encode()
        assert begun.job.told[part] == at
        assert 3500 < client.ttl(keys.erased(ann)) <= 3600

    for number, part in enumerate(LOGS):
        still = run(client, go_on(SPACE, begun.name))
        assert (still.is_complete, still.waits_for) == (False, list(LOGS)[number:])
        pass_all(client, begun.job.told[part], part)

    ended = run(client, go_on(SPACE, begun.name))
    assert ended.is_complete
    assert ended.waits_for == []
    assert all(len(erasures_in(client, keys)) == 1 for keys in LOGS.values())

    # What is left says when, and leads to no pseudonym.
    assert not client.hlen(USERS.erasures)
    stored = client.get(USERS.erasure(begun.name))
    assert ann.encode() not in stored
    assert begun.job.erasure.encode() not in stored
    assert run(client, go_on(SPACE, begun.name)) == ended


async def test_a_part_that_is_made_anew_has_passed_it_when_it_has_read_it(client, users):
    await users.resolve("ann")
    begun = run(client, erase_person(SPACE, key_of("ann")))
    pass_all(client)
    last = begun.job.told["home.1"]
    state = PartState("9999999999999-0", "rule", "epoch", until="9999999999998-0")
    for built, waits in (("", True), ("1-0", True), (last, False)):
        made = msgspec.structs.replace(state, built=built)
        client.hset(USERS.parts, "home.1", msgspec.msgpack.encode(made))
        assert run(client, go_on(SPACE, begun.name)).waits_for == ["home.1"] * waits


async def test_all_pseudonyms_of_a_person_are_erased_with_all_that_leads_to_them(client, users):
    ann, cookie = await users.resolve("ann"), await users.resolve("cookie")
    record = decode_person(ann.raw)
    merged = msgspec.structs.replace(
        record,
        earlier=[bytes.fromhex(cookie.pseudonym)],
        ids=[bytes.fromhex(key_of("cookie"))],
    )
    client.set(USERS.person(ann.key), merged.encoded)
    client.set(USERS.person(cookie.key), alias_to(ann.key, cookie.pseudonym))

    # By any of their ids, and again by any.
    begun = run(client, erase_person(SPACE, key_of("cookie")))
    for each in ("cookie", "ann"):
        assert run(client, erase_person(SPACE, key_of(each))).name == begun.name
    assert begun.job.pseudonyms == [ann.pseudonym, cookie.pseudonym]
    assert not list(client.scan_iter(USERS.person("*")))
    for keys in LOGS.values():
        erased = [record.user for _, record in erasures_in(client, keys)]
        assert erased == [ann.pseudonym, cookie.pseudonym]

    pass_all(client)
    assert run(client, go_on(SPACE, begun.name)).is_complete
    for each in ("cookie", "ann"):
        assert run(client, erase_person(SPACE, key_of(each))).name == begun.name
        assert 3500 < client.ttl(USERS.erased(key_of(each))) <= 3600


async def test_nobody_is_erased_who_is_not_known(client, users):
    with pytest.raises(UnknownUserError) as caught:
        run(client, erase_person(SPACE, key_of("nobody")))
    assert caught.value.target == "user_id"
    with pytest.raises(UnknownErasureError):
        run(client, go_on(SPACE, "0" * 32))
    assert not list(client.scan_iter("*"))


async def test_whoever_asks_again_is_told_of_the_same_job_for_an_hour(client, users):
    await users.resolve("ann")
    first = run(client, erase_person(SPACE, key_of("ann")))
    again = run(client, erase_person(SPACE, key_of("ann")))
    assert (again.name, again.is_complete) == (first.name, False)
    pass_all(client)
    assert run(client, erase_person(SPACE, key_of("ann"))).is_complete
    assert run(client, erase_person(SPACE, key_of("ann"))).name == first.name
    assert 3500 < client.ttl(USERS.erased(key_of("ann"))) <= 3600

    client.delete(USERS.erased(key_of("ann")))
    with pytest.raises(UnknownUserError):
        run(client, erase_person(SPACE, key_of("ann")))
    assert run(client, go_on(SPACE, first.name)).is_complete
    assert 29 * 86_400 < client.ttl(USERS.erasure(first.name)) <= 30 * 86_400


async def test_one_who_comes_back_is_somebody_else_and_is_erased_anew(client, users, async_client):
    before = await users.resolve("ann")
    first = run(client, erase_person(SPACE, key_of("ann")))
    users.forget("ann")
    after = await users.resolve("ann")
    assert after.pseudonym != before.pseudonym

    second = run(client, erase_person(SPACE, key_of("ann")))
    assert second.name != first.name
    assert second.job.pseudonyms == [after.pseudonym]


def stop_after(count: int, client, steps) -> None:
    """Run so many commands of a job, and die."""
    command = next(steps)
    for _ in range(count):
        command = steps.send(client.execute_command(*command))
    steps.close()


async def test_a_job_whose_beginner_died_is_taken_up_wherever_it_stood(client, users):
    for count in range(2, 7):
        ann = (await users.resolve(f"ann{count}")).pseudonym
        stop_after(count, client, erase_person(SPACE, key_of(f"ann{count}")))
        assert run(client, go_on_with_all(SPACE)) == 1
        for keys in LOGS.values():
            entries = [record.user for _, record in erasures_in(client, keys)]
            assert entries.count(ann) == 1
        pass_all(client)
        assert run(client, go_on_with_all(SPACE)) == 0
        client.delete(USERS.parts)


async def test_a_person_who_changes_meanwhile_is_read_again(client, users):
    ann, steps = await users.resolve("ann"), erase_person(SPACE, key_of("ann"))
    found = client.execute_command(*next(steps))
    record = msgspec.structs.replace(decode_person(ann.raw), earlier=[b"e" * 16])
    client.set(USERS.person(ann.key), record.encoded)

    command = steps.send(found)
    while True:
        try:
            command = steps.send(client.execute_command(*command))
        except StopIteration as end:
            erased: Erasure = end.value
            break
    assert erased.job.pseudonyms == [ann.pseudonym, (b"e" * 16).hex()]
    assert not client.exists(USERS.person(ann.key))


async def test_many_who_erase_one_person_at_once_begin_one_job(client, users, async_client):
    await users.resolve("ann")
    pass_all(client)
    writer = LogWriter(async_client)
    begun = await asyncio.gather(
        *(
            run_async(
                lambda command: writer.append_by("any", command), erase_person(SPACE, key_of("ann"))
            )
            for _ in range(8)
        )
    )
    assert len({each.name for each in begun}) == 1
    assert all(len(erasures_in(client, keys)) == 1 for keys in LOGS.values())


async def test_a_policy_that_joins_the_space_is_told_too(client, users):
    await users.resolve("ann")
    begun = run(client, erase_person(SPACE, key_of("ann")))
    client.hset(USERS.policies, "basket", msgspec.msgpack.encode(Member("basket", 1, items=9)))
    pass_all(client)
    still = run(client, go_on(SPACE, begun.name))
    assert still.waits_for == ["basket.0"]
    assert len(erasures_in(client, Keys("basket"))) == 1
    assert set(still.job.told) == {*LOGS, "basket.0"}


async def test_a_job_that_cannot_be_read_is_passed_over(client, users):
    await users.resolve("ann")
    client.hset(USERS.erasures, "odd", b"\xc1")
    run(client, erase_person(SPACE, key_of("ann")))
    pass_all(client)
    assert run(client, go_on_with_all(SPACE)) == 0
    assert client.hgetall(USERS.erasures) == {b"odd": b"\xc1"}


def banditloop(monkeypatch, capsys, *arguments: str, given: str = "") -> tuple[int, str]:
    """Run ``banditloop``; return its exit status, and all it prints."""
    monkeypatch.setenv("BANDITLOOP_SALT", SALT.decode())
    monkeypatch.setattr("sys.argv", ["banditloop", *arguments])
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    monkeypatch.setattr(cli, "prepare_environment", lambda: None)
    status = 0
    try:
        cli.main()
    except SystemExit as end:
        status = int(end.code or 0)
    return status, " ".join("".join(capsys.readouterr()).split())


async def test_the_command_erases_and_says_what_stays(client, users, monkeypatch, capsys):
    await users.resolve_all(["ann", "bob", "carl"])
    for member in SPACE.members:
        client.hset(USERS.policies, member.policy, msgspec.msgpack.encode(member))
    url = client.get_connection_kwargs()
    command = "erase", "--redis-url", f"redis://{url['host']}:{url['port']}/0", "--wait-s", "0"

    status, said = banditloop(monkeypatch, capsys, *command, "ann")
    assert status == 3
    assert "waits for activity, home.0, home.1" in said
    assert "not unlinked mail" in said

    pass_all(client)
    status, said = banditloop(monkeypatch, capsys, *command, "-", "ann", given="bob\ncarl\n")
    assert (status, "3 erased" in said) == (0, True)
    assert not list(client.scan_iter(USERS.person("*")))

    status, said = banditloop(monkeypatch, capsys, *command, "nobody", "--space", "shop")
    assert (status, "nothing is known of 1 of 1 users (" in said) == (1, True)
    status, said = banditloop(monkeypatch, capsys, *command, "nobody", "--space", "toys")
    assert (status, "no space 'toys' is here" in said) == (1, True)
    status, said = banditloop(monkeypatch, capsys, *command, "")
    assert (status, "1 to 256 bytes" in said) == (1, True)


async def test_the_command_makes_no_salt(client, users, monkeypatch, tmp_path, capsys):
    await users.resolve("ann")
    client.hset(USERS.policies, "home", msgspec.msgpack.encode(SPACE.members[0]))
    url = client.get_connection_kwargs()
    where = f"redis://{url['host']}:{url['port']}/0"
    with opened_space(None, where, tmp_path) as (_, space, settings):
        assert space.name == "shop"
        with pytest.raises(StartupError, match="has no salt"):
            known_secret(settings)
    assert not list(tmp_path.iterdir())


async def test_an_entry_in_a_file_is_not_used_from_then_on_and_is_removed(
    client, users, async_client, tmp_path
):
    """Also of a user whom a file alone knows, and of one who is asked for by a merged id."""
    path = tmp_path / "profiles.parquet"
    write_profiles(path, histories_of("ann", "bob", "carl"), salt=SALT)
    spec = PolicySpec("home", space="shop", artifact="a", profiles=str(path))
    writer = LogWriter(async_client)
    erasures = ReplicaErasures("shop", [spec], writer, users, salt=SALT)

    assert (await users.resolve("ann")).filed
    await users.resolve("cookie")
    await UserMerges(async_client, writer, ActivityKeys("shop"), users).merge("cookie", "ann")
    assert pseudonym(SALT, "ann") in (await users.resolve("cookie")).filed_as
    assert (await erasures.erase("cookie")).erasure
    assert not (await users.resolve("ann")).filed
    assert (await users.resolve("cookie")).filed_as == ()
    assert users_in(path) == {"bob", "carl"}
    client.hset(USERS.policies, "home", msgspec.msgpack.encode(Member.of(spec)))

    only_filed = await erasures.erase("bob")
    assert (only_filed.state, only_filed.waiting_for) == ("complete", [])
    assert not (await users.resolve("bob")).filed
    assert users_in(path) == {"carl"}
    assert (await users.resolve("carl")).filed
    with pytest.raises(UnknownUserError):
        await erasures.erase("dora")

    # What cannot be removed yet is not used all the same, and whoever asks again has it removed.
    whole = path.read_bytes()
    path.write_bytes(b"damaged")
    with pytest.raises(ProfilesLeftError, match="not used any more"):
        await erasures.erase("carl")
    assert not (await users.resolve("carl")).filed
    path.write_bytes(whole)
    await erasures.erase("carl")
    assert users_in(path) == set()


def histories_of(*names: str) -> Histories:
    count = len(names)
    starts, places = np.arange(count + 1), np.zeros(count, np.int32)
    return Histories(("a",), names, starts, places, np.ones(count, np.float32))


def users_in(path) -> set[str]:
    named = {pseudonym(SALT, each): each for each in ("ann", "bob", "carl")}
    return {named[each] for each in pq.read_table(path)["user"].to_pylist()}


async def test_it_says_which_logs_have_keyed_pseudonyms_also_of_a_time_before(client, users):
    await users.resolve("ann")
    spec = PolicySpec("home", space="shop", profile=ProfileOptions())
    before = PolicySpec("home", space="shop")
    register(client, spec, None)
    register(client, PolicySpec("mail", space="shop"), None)
    assert read_space(client, "shop").keyed_logs == ["mail"]

    register(client, spec, before)
    register(client, spec, spec)
    assert read_space(client, "shop").keyed_logs == ["home", "mail"]
    assert run(client, erase_person(Space("shop"), key_of("ann"))).job.keyed == ["home", "mail"]
