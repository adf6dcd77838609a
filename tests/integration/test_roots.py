"""A log begins at a root: what comes after is proven, and what is before is not needed for it."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from support.loops import KEYS, SALT, SPEC, decide, make, settle, stats, url_of
from typer.testing import CliRunner

from bandits.errors import ArchiveError, RetentionError, SnapshotError
from bandits.log.codec import digest
from bandits.log.positions import position_ms
from bandits.log.records import (
    CheckpointRecord,
    ErasureRecord,
    RollbackRecord,
    RootRecord,
    WarmStartRecord,
)
from policies.archive.archive import ArchiveReader
from policies.profiles.options import ProfileOptions
from policies.profiles.part import CutRule
from policies.spec import PolicySpec
from policies.spec.personalizer import PersonalizerSettings
from serve_app.admin.control import rollback
from serve_app.admin.replayed.verification import LogAddress, verify_policy
from serve_app.admin.roots.older_files import older_files, remove_older
from serve_app.admin.roots.one_log import state_root
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.cli.main import app
from serve_app.personalizer.loops.retention import Retention, retain
from serve_app.settings import Settings
from serve_app.store.event_log import RedisLog
from serve_app.store.history import LogPast
from serve_app.store.keys import UsersKeys
from serve_app.store.profiles import part_feed
from serve_app.store.profiles.log_changes import PolicyChanges
from serve_app.store.profiles.spool import ChangeSpool
from serve_app.store.profiles.verification import verify_part
from serve_app.workers.archiver import Archiver
from serve_app.workers.learner import LearnerLoop

pytestmark = pytest.mark.usefixtures("hurried_learner")
RULE = CutRule(3)
AT_ONCE: dict[str, Any] = {"max_entries": 10, "max_age_s": 0.0, "retain_s": 0.0}


class Shop:
    """A policy whose log is archived and trimmed as it grows, with a checkpoint each round."""

    def __init__(self, client: redis.Redis, root: Path, spec: PolicySpec = SPEC) -> None:
        self.client, self.root, self.rounds, self.spec = client, str(root), 0, spec
        self.loop = self.learner()
        self.loop.lease.acquire()
        self.loop.attempt()

    def learner(self) -> LearnerLoop:
        return make(self.client, self.spec, archive=self.reader())

    def reader(self) -> ArchiveReader:
        return ArchiveReader(self.root, "home")

    @property
    def stored(self) -> StoredPolicy:
        return StoredPolicy(self.client, "home", self.reader())

    def go_on(self, rounds: int = 1) -> None:
        for _ in range(rounds):
            self.rounds += 1
            users = None if self.spec.profile is msgspec.UNSET else 5
            decide(self.client, 12, spec=self.spec, prefix=f"r{self.rounds}-", users=users)
            settle(self.loop)
            RedisLog(self.client, KEYS).append(CheckpointRecord())
            settle(self.loop)
            self.archive()

    def archive(self) -> None:
        archiver = Archiver(self.client, "home", self.root, **AT_ONCE)
        while archiver.step():
            pass

    def verdicts(self, start=None) -> list[str]:
        address = LogAddress(url_of(self.client), "home", self.root, SALT)
        served, corrupt = self.stored.served()
        verified, _ = verify_policy(address, served, start=start, progress=lambda _: None)
        return [each.verdict for each in verified] + corrupt

    def cut(self, checkpoint: int):
        """Have the log begin at a checkpoint, counted from the oldest."""
        at_ms = self.stored.checkpoints.list()[::-1][checkpoint].time_ms
        return state_root(self.stored, at_ms, SALT)

    def said_of_users(self) -> dict[str, bytes]:
        """What the log says of its users, as whoever makes profiles anew reads it."""
        with ChangeSpool(RULE) as spool:
            for _, changes in self.changes().through(self.stored.history.end()):
                spool.add(changes)
            return dict(spool.parts())

    def changes(self) -> PolicyChanges:
        history = self.stored.history
        return PolicyChanges(history, LogPast(history, self.stored.checkpoints), SALT)

    def profiles_hold(self) -> bool:
        users = UsersKeys("home")
        return verify_part(self.client, users, "home.0", RULE, self.changes()).holds


@pytest.fixture
def client(valkey_url) -> Iterator[redis.Redis]:
    """One server is enough here: what is asked of it is asked elsewhere of others, too."""
    connection = redis.Redis.from_url(valkey_url)
    connection.flushall()
    before = connection.config_get("stream-node-max-entries")
    connection.config_set("stream-node-max-entries", 5)
    yield connection
    connection.config_set("stream-node-max-entries", before["stream-node-max-entries"])
    connection.close()


@pytest.fixture
def shop(client, tmp_path) -> Shop:
    made = Shop(client, tmp_path / "archive")
    made.go_on(3)
    return made


def test_what_comes_after_the_root_is_proven_without_what_is_before(shop):
    learned, ranges = stats(shop.client).learned, shop.reader().ranges()
    assert set(shop.verdicts()) == {"identical"}
    root = shop.cut(1)
    assert root.position == shop.stored.checkpoints.list()[::-1][1].position

    # What is before is needed neither to learn nor to verify.
    settle(shop.loop)
    shop.archive()
    older = older_files(root, shop.root, "home")
    for file in older:
        (Path(shop.root) / "home" / file.path).unlink()
    kept = [each.range for each in shop.reader().ranges()]
    assert kept[: len(ranges) - len(older)] == [each.range for each in ranges[len(older) :]]
    assert 0 < len(older) < len(ranges)

    said = [entry.record for entry in shop.reader().entries(None, kinds=["root"])]
    assert said == [RootRecord(root.position, root.digest)]
    assert len(shop.reader().blob(root.digest)) > 0

    # Learning goes on, by another, and by one that has no checkpoint but the root.
    assert set(shop.verdicts()) == {"identical"}
    shop.loop.lease.release()
    shop.loop = shop.learner()
    shop.go_on()
    shop.loop.lease.release()
    shop.client.delete(KEYS.checkpoints)
    shop.loop = shop.learner()
    shop.go_on()
    assert stats(shop.client).learned == learned + 2 * 12
    assert set(shop.verdicts()) == {"identical"}


def test_a_log_is_not_cut_where_something_needs_what_is_before(shop):
    with pytest.raises(RetentionError, match="no checkpoint is as old"):
        state_root(shop.stored, 1, SALT)
    with pytest.raises(RetentionError, match="is not archived"):
        state_root(StoredPolicy(shop.client, "home"), int(time.time() * 1000), SALT)

    # A root moves on, and never back; nothing goes back behind it.
    oldest, back_to = shop.stored.snapshots()[0][0], shop.stored.checkpoints.list()[-1].position
    first = shop.cut(0)
    assert first.position == back_to
    second = shop.cut(1)
    assert second.position > first.position
    assert shop.cut(0) == second
    with pytest.raises(SnapshotError, match="begins at its root"):
        rollback(shop.stored, oldest, within_s=1)
    settle(shop.loop)
    assert set(shop.verdicts()) == {"identical"}

    # Nor is one taken that a later rollback goes behind.
    RedisLog(shop.client, KEYS).append(RollbackRecord("s", second.position))
    settle(shop.loop)
    shop.archive()
    with pytest.raises(RetentionError, match="the rollback at"):
        shop.cut(2)

    # Nor one before the log was learned anew, with longer windows perhaps.
    shop.go_on()
    log, made = RedisLog(shop.client, KEYS), b"refused, as this one is, or not"
    log.put_blob(digest(made), made)
    log.append(WarmStartRecord(digest(made), second.position))
    settle(shop.loop)
    for archived in (False, True):
        if archived:
            shop.archive()
        with pytest.raises(RetentionError, match="learned anew"):
            shop.cut(-1)

    # A state that is not that of the digest is found out.
    other = shop.stored.checkpoints.load(shop.stored.checkpoints.list()[-1])
    shop.client.set(KEYS.blob(second.digest), other)
    with pytest.raises(SnapshotError, match="corrupt"):
        shop.verdicts()


def test_profiles_begin_with_what_was_known_at_the_root(client, tmp_path, monkeypatch):
    """Of a cut log the same profiles are made as of the whole one, also anew, and cut again."""
    monkeypatch.setattr(part_feed, "LOOK_S", 0.0)
    spec = msgspec.structs.replace(SPEC, profile=ProfileOptions(items=RULE.items))
    shop = Shop(client, tmp_path / "archive", spec)
    shop.go_on()
    RedisLog(client, KEYS).append(ErasureRecord("u1", "job"))
    shop.go_on(2)
    whole, of_profiles = shop.said_of_users(), tmp_path / "archive" / "home" / "_profiles"
    assert len(whole) == 5
    assert shop.profiles_hold()

    first = shop.cut(1)
    assert remove_older(first, shop.root, "home")
    assert shop.said_of_users() == whole
    shop.go_on()
    assert shop.profiles_hold()

    # All are lost, and made of the root and what came after it.
    client.delete(*client.scan_iter(match=f"{UsersKeys('home').profile('')}*"))
    while not shop.profiles_hold():
        settle(shop.loop)

    # The next root begins with this one, of which nothing stays.
    known = shop.said_of_users()
    second = shop.cut(-1)
    remove_older(second, shop.root, "home")
    assert [file.stem for file in of_profiles.iterdir()] == [second.profiles] != [first.profiles]
    assert shop.said_of_users() == known
    shop.go_on()
    assert set(shop.verdicts()) == {"identical"}

    # What is not what the root named is found out.
    (file,) = of_profiles.iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ArchiveError, match="damaged"):
        shop.said_of_users()
    file.unlink()
    with pytest.raises(ArchiveError, match="is gone"):
        shop.said_of_users()


def test_a_log_is_kept_for_as_many_days_as_clients_have_set(shop, monkeypatch):
    """Files of before go, and what is left is proven; where nobody has set it, nothing goes."""
    settings = Settings(redis_url=url_of(shop.client), archive=shop.root, salt=SALT.decode())
    assert Retention(settings, [shop.spec]).days == {}
    asyncio.run(Retention(settings, [shop.spec]).follow())
    kept = PersonalizerSettings(log_retention_days=-1)
    assert Retention(settings, [msgspec.structs.replace(shop.spec, personalizer=kept)]).days == {}

    shop.go_on(2)
    files = [*shop.reader().chain.listing.after(None)]
    assert retain(settings, shop.client, "home", 1) == []
    assert shop.stored.checkpoints.root() is None

    # A day after the first half of the files.
    half = files[len(files) // 2]
    passed_ms = position_ms(half.last) + 86_400_000
    monkeypatch.setattr(RedisLog, "now_ms", lambda _: passed_ms)
    spec = msgspec.structs.replace(
        shop.spec, personalizer=PersonalizerSettings(log_retention_days=1)
    )
    retention = Retention(settings, [spec])
    assert retention.days == {"home": 1}
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(retention.follow(), 0.1))  # a thread ends what it has begun
    left = [*shop.reader().chain.listing.after(None)]
    removed = [each for each in files if each not in left]
    assert half in left
    assert removed
    assert files == removed + left
    assert all(position_ms(each.last) < position_ms(half.last) for each in removed)
    assert set(shop.verdicts()) == {"identical"}
    assert retain(settings, shop.client, "home", 1) == []


def test_the_command_states_a_root_and_verification_prints_it(shop, monkeypatch):
    monkeypatch.setenv("BANDITLOOP_SALT", SALT.decode())
    monkeypatch.setenv("BANDITLOOP_ARCHIVE", shop.root)
    where = ["--redis-url", url_of(shop.client)]
    time.sleep(0.15)  # so that all checkpoints are as old as that
    command = ["snapshots", "root", "0.1s", *where]
    stated = CliRunner().invoke(app, command)
    assert stated.exit_code == 0, stated.exception
    root = shop.stored.checkpoints.root()
    assert root.digest in stated.output
    assert older_files(root, shop.root, "home")
    removed = CliRunner().invoke(app, [*command, "--remove"])
    assert removed.exit_code == 0, removed.exception
    assert not older_files(root, shop.root, "home")

    shop.go_on()
    verify = ["snapshots", "verify", *where, "--jobs", "1"]
    said = CliRunner().invoke(app, verify)
    assert said.exit_code == 0, said.output
    assert f"begins at its root, {root.position}" in " ".join(said.output.split())
    report = json.loads(CliRunner().invoke(app, [*verify, "--json"]).output)
    assert report["root"] == {"position": root.position, "digest": root.digest}
