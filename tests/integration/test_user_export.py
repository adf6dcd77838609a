"""An export of a user: all that is held, of them and of nobody else, wherever the logs are."""

import json
from functools import partial

import msgspec
import pytest
from support.logs import decision
from support.small_artifact import HISTORIES
from typer.testing import CliRunner

from bandits.errors import RateLimitedError, UnknownUserError
from bandits.log.codec import encode
from bandits.log.records import ActivityRecord, LogRecord, RewardRecord, TickRecord
from policies.artifacts.profile_file import write_profiles
from policies.items.catalogue import Catalogue, Item
from policies.profiles.options import ProfileOptions
from policies.profiles.part import Part, ProfileEvent, encode_part
from policies.pseudonyms import pseudonym
from policies.spec import PolicySpec
from serve_app.admin.users.user_copies import StoredUsers
from serve_app.cli.users import app
from serve_app.replica.user_exports import UserExports
from serve_app.replica.user_merges import UserMerges
from serve_app.replica.users import ReplicaUsers
from serve_app.settings import Settings
from serve_app.store.event_log import LogWriter
from serve_app.store.items.history import ItemsHistory
from serve_app.store.keys import ActivityKeys, ItemsKeys, Keys, LogKeys, UsersKeys
from serve_app.store.spaces import register
from serve_app.workers.archiver import Archiver
from serve_app.workers.items_leader import ItemsLeader

SALT = "a secret of at least sixteen bytes"
SPECS = [
    PolicySpec("home", space="shop", profile=ProfileOptions(items=5), partitions=2),
    PolicySpec("mail", space="shop"),
]
ACTIVITY = ActivityKeys("shop")
AT_ONCE = {"max_age_s": 0.0, "retain_s": 0.0}


class Held:
    """A space of two policies, with what some users did."""

    def __init__(self, client, async_client, settings) -> None:
        self.client, self.async_client, self.settings = client, async_client, settings
        self.users = ReplicaUsers(LogWriter(async_client), UsersKeys("shop"), salt=SALT.encode())
        self.exports = UserExports("shop", SPECS[:1], settings)
        for spec in SPECS:
            register(client, spec)

    def add(self, keys: LogKeys, *records: LogRecord) -> None:
        for record in records:
            self.client.xadd(keys.log, {"r": encode(record)})

    async def fill(self) -> str:
        """The same of two users; returns the pseudonym of the one."""
        people = await self.users.resolve_all(["alice", "bob"])
        for name, person in people.items():
            user = person.pseudonym
            self.add(ACTIVITY, ActivityRecord(user, "a", "view", None, 5, f"{name}-view"))
            self.add(
                Keys("home", 1),
                TickRecord(),
                decision(f"{name}-1", user=user, chosen=(1,), context={"city": name}),
                RewardRecord(f"{name}-1", 2.0, signal="click"),
            )
            keyed = pseudonym(SALT.encode(), name)
            self.add(Keys("mail"), decision(f"{name}-2", user=keyed))
        return people["alice"].pseudonym

    def archive(self) -> None:
        make = partial(Archiver, self.client, root=self.settings.archive_root(), **AT_ONCE)
        for archiver in (
            make(policy="shop", shared="activity"),
            *(make(policy="home", partition=number, partitions=2) for number in range(2)),
            make(policy="mail"),
        ):
            while archiver.step():
                pass
            archiver.trim()


@pytest.fixture
def held(client, async_client, server_url, tmp_path) -> Held:
    settings = Settings(redis_url=server_url, data_dir=tmp_path, salt=SALT)
    return Held(client, async_client, settings)


async def test_what_a_file_of_profiles_says_of_them_is_held_too(held, tmp_path):
    path = tmp_path / "profiles.parquet"
    write_profiles(path, HISTORIES, salt=SALT.encode())
    spec = msgspec.structs.replace(SPECS[0], profiles=str(path))
    exports = UserExports("shop", [spec], held.settings)
    for user in HISTORIES.users:
        (filed,) = (await exports.export(user)).files
        at = HISTORIES.users.index(user)
        first, last = HISTORIES.starts[at], HISTORIES.starts[at + 1]
        items = {HISTORIES.items[index] for index in HISTORIES.indices[first:last]}
        assert {event.item_id for event in filed.events} == items
    with pytest.raises(UnknownUserError):
        await exports.export("nobody")


@pytest.mark.parametrize("where", ["stream", "archive", "both"])
async def test_what_the_logs_say_of_one_user_is_there_and_of_nobody_else(held, where):
    alice = await held.fill()
    if where != "stream":
        held.archive()
    if where == "both":
        held.add(Keys("home", 1), RewardRecord("alice-1", 3.0, "late"))

    found = await held.exports.export("alice")
    assert (found.user_id, found.pseudonyms, found.other_ids) == ("alice", [alice], 0)
    assert found.since is not None
    assert found.keyed_logs == ["mail"]
    assert not found.more
    said = [(entry.log, entry.kind, entry.said) for entry in found.entries]
    assert said[:3] == [
        (
            "activity",
            "activity",
            {"user": alice, "item": "a", "event_type": "view", "time_ms": 5, "id": "alice-view"},
        ),
        (
            "home.1",
            "decision",
            {
                "event_id": "alice-1",
                "user": alice,
                "context": {"city": "alice"},
                "deferred": False,
                "chosen": ["b"],
            },
        ),
        ("home.1", "reward", {"event_id": "alice-1", "value": 2.0, "signal": "click"}),
    ]
    late = [("home.1", "reward", 3.0)] if where == "both" else []
    assert [(log, kind, fields.get("value")) for log, kind, fields in said[3:]] == [
        *late,
        ("mail.0", "decision", None),
    ]


async def test_what_is_archived_no_longer_is_not_held(held, tmp_path):
    await held.fill()
    held.archive()
    oldest = list((tmp_path / "archive").rglob("*.parquet"))
    await held.fill()
    held.archive()
    for file in oldest:
        file.unlink()
    assert len((await held.exports.export("alice")).entries) == 4
    assert StoredUsers(held.client, "shop", held.settings).erased() == frozenset()


async def test_those_who_were_merged_are_one_and_nobody_is_made_by_being_asked_about(held):
    await held.fill()
    merges = UserMerges(held.async_client, LogWriter(held.async_client), ACTIVITY, held.users)
    await merges.merge("bob", "alice")
    for name in ("alice", "bob"):
        found = await held.exports.export(name)
        assert (len(found.pseudonyms), found.other_ids) == (2, 1)
        assert {entry.said.get("id") for entry in found.entries} >= {"alice-view", "bob-view"}
        assert any(entry.kind == "merge_users" for entry in found.entries)

    before = held.client.dbsize()
    with pytest.raises(UnknownUserError):
        await held.exports.export("carol")
    assert held.client.dbsize() == before


async def test_an_answer_has_so_many_entries_and_the_command_all(held, tmp_path, monkeypatch):
    monkeypatch.setattr("serve_app.replica.user_exports.MOST_ENTRIES", 2)
    alice = await held.fill()
    events = tuple(ProfileEvent(5, 5, 0, item, "view") for item in ("a", "gone"))
    held.client.hset(UsersKeys("shop").profile(alice), "activity", encode_part(Part(events)))
    items = ItemsKeys("shop")
    ItemsLeader(held.client, items, ItemsHistory(held.client, items, None)).begin(
        Catalogue.put([Item("a", {"tags": ["x", "y"], "price": 2.0})]), None
    )
    found = await held.exports.export("alice")
    assert (len(found.entries), found.more) == (2, True)

    monkeypatch.setenv("BANDITLOOP_SALT", SALT)
    options = ["--redis-url", held.settings.redis_url, "--data-dir", str(tmp_path)]
    out = tmp_path / "alice.json"
    result = CliRunner().invoke(
        app, ["export", "alice", "--out", str(out), *options], catch_exceptions=False
    )
    assert result.exit_code == 0
    written = json.loads(out.read_text())
    assert (written["pseudonyms"], len(written["entries"]), written["more"]) == ([alice], 4, False)
    assert written["profile"]["counts"] == {"tags": {"x": 1, "y": 1}}
    assert oct(out.stat().st_mode & 0o777) == "0o600"


async def test_a_replica_exports_one_user_at_a_time(held):
    await held.fill()
    async with held.exports._busy:
        with pytest.raises(RateLimitedError):
            await held.exports.export("alice")
