"""Copies of who users are: what was lost comes back, and who was erased does not."""

import json
import threading

import pytest
from typer.testing import CliRunner

from bandits.errors import UsersBackupError
from bandits.log.codec import encode
from bandits.log.records import ErasureRecord
from policies.pseudonyms import person_key, salt_id
from serve_app.admin.users.user_copies import StoredUsers
from serve_app.cli.users import app
from serve_app.replica.space_metrics import read_states
from serve_app.replica.user_merges import UserMerges
from serve_app.replica.users import ReplicaUsers
from serve_app.settings import Settings
from serve_app.store import clients
from serve_app.store.erasures.job import erase_person, run
from serve_app.store.event_log import LogWriter
from serve_app.store.keys import ActivityKeys, UsersKeys
from serve_app.store.spaces import Space
from serve_app.store.users import reading
from serve_app.store.users.backups import UsersBackups
from serve_app.store.users.persons import new_person
from serve_app.store.users.restore import RestoredUsers
from serve_app.workers.users_backup import ScheduledUsersBackup

KEYS, ACTIVITY = UsersKeys("shop"), ActivityKeys("shop")
SALT = "a secret of at least sixteen bytes"
HOUR_MS = 3_600_000


@pytest.fixture
def settings(tmp_path, server_url) -> Settings:
    return Settings(redis_url=server_url, data_dir=tmp_path, salt=SALT, archive="none")


@pytest.fixture
def stored(client, settings) -> StoredUsers:
    return StoredUsers(client, "shop", settings)


def replica(async_client) -> ReplicaUsers:
    return ReplicaUsers(LogWriter(async_client), KEYS, salt=SALT.encode())


def persons(client) -> dict[bytes, bytes]:
    return {key: client.get(key) for key in client.scan_iter(match=KEYS.person("*"))}


def lose(client) -> None:
    """What a lost disk takes: everything."""
    client.flushall()


async def test_what_is_lost_comes_back_as_it_was(client, async_client, stored, monkeypatch):
    monkeypatch.setattr(reading, "PER_SCAN", 3)
    users = replica(async_client)
    await users.resolve_all([f"u{number}" for number in range(20)])
    merges = UserMerges(async_client, LogWriter(async_client), ACTIVITY, users)
    for visitor in ("u1", "u2"):
        await merges.merge(visitor, "u3")
    before = persons(client)

    backup = stored.back_up(lambda _count: None)
    assert [each.name for each in stored.chosen(None)] == [backup.name]
    lose(client)
    assert stored.restore(backup, lambda _count: None) == RestoredUsers(restored=18)
    assert persons(client) == before
    assert stored.restore(backup, lambda _count: None) == RestoredUsers(same=18)


async def test_who_was_erased_stays_so_and_comes_back_only_as_somebody_new(
    client, async_client, stored, settings
):
    users = replica(async_client)
    alice = await users.resolve("alice")
    await users.resolve("bob")
    backup = stored.back_up(lambda _count: None)
    run(client, erase_person(Space("shop"), users.key_of("alice")))
    new = await replica(async_client).resolve("alice")
    assert new.pseudonym != alice.pseudonym

    # As Redis knows it.
    assert stored.restore(backup, lambda _count: None) == RestoredUsers(same=1, erased=1)
    assert client.get(KEYS.person(new.key)) == new.raw

    # As the copies were told, when Redis has lost all.
    assert ScheduledUsersBackup(client, "shop", settings).note_erased() == 1
    assert not client.exists(KEYS.unnoted)
    lose(client)
    assert stored.restore(backup, lambda _count: None) == RestoredUsers(restored=1, erased=1)
    assert not client.exists(KEYS.person(alice.key))


async def test_the_log_says_who_was_erased_where_the_copies_were_not_told(
    client, async_client, stored
):
    alice = await replica(async_client).resolve("alice")
    backup = stored.back_up(lambda _count: None)
    lose(client)
    client.xadd(ACTIVITY.log, {"r": encode(ErasureRecord(alice.pseudonym, "e1"))})
    assert stored.restore(backup, lambda _count: None) == RestoredUsers(erased=1)
    assert persons(client) == {}


async def test_who_is_erased_while_they_are_brought_back_is_gone(
    client, async_client, stored, monkeypatch
):
    users = replica(async_client)
    merges = UserMerges(async_client, LogWriter(async_client), ACTIVITY, users)
    await users.resolve_all(["cookie", "alice", "bob"])
    await merges.merge("cookie", "alice")
    alice = await users.resolve("alice")
    backup = stored.back_up(lambda _count: None)
    lose(client)

    answers = iter([frozenset(), frozenset([alice.pseudonyms[1]])])
    monkeypatch.setattr(stored, "erased", lambda: next(answers))
    assert stored.restore(backup, lambda _count: None) == RestoredUsers(restored=2, erased=1)
    assert list(persons(client)) == [KEYS.person(users.key_of("bob")).encode()]


async def test_who_has_come_back_since_the_loss_is_both(client, async_client, stored):
    users = replica(async_client)
    merges = UserMerges(async_client, LogWriter(async_client), ACTIVITY, users)
    before = await users.resolve_all(["cookie", "alice", "bob"])
    await merges.merge("cookie", "alice")
    backup = stored.back_up(lambda _count: None)
    lose(client)

    # All are somebody new; the visitor's cookie, too.
    since = replica(async_client)
    after = await since.resolve_all(["cookie", "alice"])
    outcome = stored.restore(backup, lambda _count: None)
    assert outcome == RestoredUsers(restored=1, joined=2)
    alice = await replica(async_client).resolve("alice")
    assert alice.pseudonym == after["alice"].pseudonym
    assert set(alice.pseudonyms) == {
        person.pseudonym for name in ("alice", "cookie") for person in (before[name], after[name])
    }
    assert await replica(async_client).resolve("cookie") == alice
    assert (await replica(async_client).resolve("bob")).pseudonym == before["bob"].pseudonym


async def test_all_copies_together_bring_back_what_the_newest_lacks(
    client, async_client, stored, settings
):
    old = await replica(async_client).resolve("alice")
    first = stored.back_up(lambda _count: None)
    lose(client)
    await replica(async_client).resolve("bob")
    stored.back_up(lambda _count: None)
    lose(client)
    for backup in stored.chosen(None):
        stored.restore(backup, lambda _count: None)
    assert (await replica(async_client).resolve("alice")).pseudonym == old.pseudonym
    assert len(persons(client)) == 2
    assert stored.chosen(first.name) == [first]
    with pytest.raises(UsersBackupError):
        stored.chosen("persons-of-nobody.parquet")


async def test_a_copy_under_another_salt_or_a_damaged_one_says_so(
    client, async_client, stored, settings, tmp_path
):
    with pytest.raises(UsersBackupError, match="no users"):
        stored.back_up(lambda _count: None)
    await replica(async_client).resolve("alice")
    backup = stored.back_up(lambda _count: None)
    root = settings.users_backup_root()
    with pytest.raises(UsersBackupError, match="another salt"):
        UsersBackups(root, "shop", salt_id(b"another secret of sixteen")).read(backup)

    path = tmp_path / "users" / "shop" / backup.name
    data = bytearray(path.read_bytes())
    data[20] ^= 255
    path.write_bytes(data)
    with pytest.raises(UsersBackupError, match="cannot be read"):
        stored.restore(backup, lambda _count: None)


async def test_copies_are_made_on_schedule_by_one_process_and_kept_for_a_time(
    client, async_client, settings, monkeypatch
):
    now = 1_800_000_000_000
    monkeypatch.setattr("serve_app.workers.users_backup.now_ms", lambda *_: now)
    settings = settings.model_copy(update={"users_backup_interval_s": 4 * HOUR_MS / 1000})
    one, other = (ScheduledUsersBackup(client, "shop", settings) for _ in range(2))
    backups = UsersBackups(settings.users_backup_root(), "shop", salt_id(SALT.encode()))
    assert not one.step()  # nobody to copy
    await replica(async_client).resolve("alice")
    assert other.step()
    assert not other.step()

    now += 61_000
    assert not one.step()  # the other one has
    client.set(KEYS.backing_up, 1)
    now += 4 * HOUR_MS
    assert not one.step()  # the other one does
    client.delete(KEYS.backing_up)
    now += 61_000
    assert one.step()
    assert int(client.get(KEYS.backed_up)) == now
    assert len(backups.kept()) == 2

    # All of a day, then the last of each day, for a week.
    for _ in range(6 * 9):
        now += 4 * HOUR_MS
        one.step()
    ages = [(now - backup.made_ms) / HOUR_MS for backup in backups.kept()]
    assert 6 <= sum(age <= 24 for age in ages) <= 7
    assert 6 <= sum(age > 24 for age in ages) <= 8
    assert max(ages) <= 24 * 7


async def test_the_commands_copy_list_and_bring_back(
    client, async_client, settings, tmp_path, monkeypatch
):
    monkeypatch.setenv("BANDITLOOP_SALT", SALT)
    options = ["--redis-url", settings.redis_url, "--data-dir", str(tmp_path), "--json"]

    def said(*arguments: str):
        result = CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False)
        return json.loads(result.stdout)

    alice = await replica(async_client).resolve("alice")
    made = said("backup", "--space", "shop")
    assert said("list") == [made]
    lose(client)
    counts = {"restored": 1, "joined": 0, "same": 0, "erased": 0, "refused": 0}
    assert said("restore") == {made["name"]: counts}
    assert await replica(async_client).resolve("alice") == alice
    assert oct((tmp_path / "users").stat().st_mode & 0o777) == "0o700"

    for given, match in [
        (["--space", "nobody"], "no copy"),
        (["--space", "shop", "--backups", "none"], "no copies are kept"),
        (["--backups", str(tmp_path / "empty")], "no space has users"),
    ]:
        with pytest.raises(UsersBackupError, match=match):
            CliRunner().invoke(app, ["restore", *options, *given], catch_exceptions=False)


def test_a_schedule_outlives_whatever_it_cannot_reach(client, settings, tmp_path, monkeypatch):
    (tmp_path / "users").write_text("no folder")
    client.sadd(KEYS.unnoted, "p")
    schedule = ScheduledUsersBackup(client, "shop", settings)
    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", lambda _seconds: stop.set())
    schedule.run(stop)
    assert schedule.failures == 1
    assert client.smembers(KEYS.unnoted) == {b"p"}


async def test_a_loss_is_said_aloud(client, async_client, settings, monkeypatch, caplog):
    await replica(async_client).resolve_all(map(str, range(10)))
    schedule = ScheduledUsersBackup(client, "shop", settings)
    assert schedule.step()
    now = clients.now_ms(client, KEYS.backing_up)
    monkeypatch.setattr("serve_app.workers.users_backup.now_ms", lambda *_: now)
    for left, said in ((6, False), (2, True), (0, True)):
        client.delete(*list(persons(client))[left:])
        now += HOUR_MS + 1
        caplog.clear()
        assert schedule.step() is (left > 0)
        assert ("users restore --space shop" in caplog.text) is said


async def test_a_metric_tells_how_old_the_newest_copy_is(client, async_client, settings):
    assert (await read_states(async_client, ["shop"]))["shop"].copied_s is None
    await replica(async_client).resolve("alice")
    assert ScheduledUsersBackup(client, "shop", settings).step()
    assert 0 <= (await read_states(async_client, ["shop"]))["shop"].copied_s < 60


async def test_a_merge_that_is_made_while_all_are_read_is_read_whole_or_not_at_all(
    client, async_client, monkeypatch
):
    monkeypatch.setattr(reading, "PER_SCAN", 5)
    users = replica(async_client)
    merges = UserMerges(async_client, LogWriter(async_client), ACTIVITY, users)
    await users.resolve_all([f"u{number}" for number in range(40)])
    rows: dict[str, bytes] = {}
    for number, part in enumerate(reading.each_person(client, KEYS)):
        rows.update(part)
        await merges.merge(f"u{number % 20}", f"u{20 + number % 20}")
    for number in range(20):
        key = person_key(SALT.encode(), f"u{number}")
        into = person_key(SALT.encode(), f"u{20 + number}")
        if rows[key].startswith(b">"):
            assert client.get(KEYS.person(into)) == rows[into]
    assert len(rows) == 40
    assert new_person().encoded not in rows.values()
