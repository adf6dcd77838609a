"""The logs of several partitions begin together, behind one merge: what comes after is proven."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis
from support.loops import url_of
from support.partition_loops import (
    COUNT,
    KEYS,
    SALT,
    SPECS,
    decide,
    learned,
    make,
    merges,
    served,
    settle,
)
from typer.testing import CliRunner

from bandits.errors import RetentionError, SnapshotError
from bandits.log.positions import position_ms
from bandits.log.records import CheckpointRecord, RollbackRecord
from policies.archive.archive import ArchiveReader, archive_folder
from policies.profiles.options import ProfileOptions
from policies.profiles.part import CutRule
from policies.spec import PolicySpec
from serve_app.admin.control import rollback
from serve_app.admin.replayed.verification import LogAddress, verify_policy
from serve_app.admin.roots.older_files import older_files, remove_older
from serve_app.admin.roots.one_log import state_root
from serve_app.admin.roots.partitions import state_roots
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.cli.main import app
from serve_app.store.checkpoints import Checkpoints, Root
from serve_app.store.event_log import RedisLog
from serve_app.store.history import LogPast
from serve_app.store.keys import UsersKeys
from serve_app.store.profiles import part_feed
from serve_app.store.profiles.log_changes import PolicyChanges
from serve_app.store.profiles.spool import ChangeSpool
from serve_app.store.profiles.verification import verify_part
from serve_app.store.spaces import part_name
from serve_app.workers.archiver import Archiver

pytestmark = pytest.mark.usefixtures("hurried_learner")
RULE = CutRule(3)


class Shop:
    """A policy of several partitions whose logs are archived and trimmed as they grow."""

    def __init__(self, client: redis.Redis, root: Path, spec: PolicySpec) -> None:
        self.client, self.root, self.spec, self.rounds = client, str(root), spec, 0
        self.address = LogAddress(url_of(client), "home", self.root, SALT)
        self.loops = [self.learner(partition) for partition in range(COUNT)]
        settle(self.loops, client)

    def learner(self, partition: int):
        folders = [archive_folder("home", number, COUNT) for number in range(COUNT)]
        archives = [ArchiveReader(self.root, folder) for folder in folders]
        return make(self.client, partition, self.spec, archives=archives)

    def go_on(self, *, checkpoint: bool = True) -> None:
        self.rounds += 1
        decide(self.client, 12, spec=self.spec, prefix=f"r{self.rounds}-", users=4)
        settle(self.loops, self.client)
        if checkpoint:
            for keys in KEYS:
                RedisLog(self.client, keys).append(CheckpointRecord())
            settle(self.loops, self.client)
        for number in range(COUNT):
            archiver = Archiver(
                self.client,
                "home",
                self.root,
                max_entries=10,
                max_age_s=0.0,
                retain_s=0.0,
                partition=number,
                partitions=COUNT,
            )
            while archiver.step() or archiver.trim():
                pass

    @property
    def stored(self) -> StoredPolicy:
        return self.address.open()

    def cut(self, at_ms: int, *, remove: bool = True) -> list[Root]:
        roots = state_roots(self.address, at_ms)
        for partition, root in enumerate(roots):
            folder = archive_folder("home", partition, COUNT)
            if remove:
                remove_older(root, self.root, folder)
                assert not older_files(root, self.root, folder)
        return roots

    def verdicts(self) -> list[str]:
        found, corrupt = self.stored.served()
        return [
            each.verdict for each in verify_policy(self.address, found, progress=lambda _: None)[0]
        ] + corrupt

    def changes(self, partition: int) -> PolicyChanges:
        history = self.address.histories(COUNT)[partition]
        past = LogPast(history, Checkpoints(self.client, KEYS[partition]))
        return PolicyChanges(history, past, SALT)

    def profiles_hold(self) -> bool:
        users = UsersKeys("home")
        return all(
            verify_part(self.client, users, part_name("home", each), RULE, self.changes(each)).holds
            for each in range(COUNT)
        )

    def said_of_users(self, partition: int) -> dict[str, bytes]:
        """What one log says of its users, as whoever makes profiles anew reads it."""
        end = self.address.histories(COUNT)[partition].end()
        with ChangeSpool(RULE) as spool:
            for _, changes in self.changes(partition).through(end):
                spool.add(changes)
            return dict(spool.parts())


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


@pytest.mark.parametrize("name", ["ridge", pytest.param("vw", marks=pytest.mark.slow)])
def test_what_comes_after_the_roots_is_proven_without_what_is_before(
    client, tmp_path, name, monkeypatch
):
    """Where models are added up, and where they are gains on the merge before."""
    monkeypatch.setattr(part_feed, "LOOK_S", 0.0)
    spec = msgspec.structs.replace(SPECS[name], profile=ProfileOptions(items=RULE.items))
    shop = Shop(client, tmp_path, spec)
    for _ in range(2):
        shop.go_on()
    at_ms = int(time.time() * 1000)
    shop.go_on()
    before, known = learned(shop.loops), [shop.said_of_users(each) for each in range(COUNT)]
    assert set(shop.verdicts()) == {"identical"}

    # They begin behind the newest merge of then, and nothing of before is needed any more.
    roots = shop.cut(at_ms)
    assert roots[0].others == roots[1:]
    states = [
        Checkpoints(client, keys).state(root.checkpoint)
        for keys, root in zip(KEYS, roots, strict=True)
    ]
    assert len({state.merging.number for state in states}) == 1
    assert 0 < sum(root.learned for root in roots) < before
    assert set(shop.verdicts()) == {"identical"}
    assert [shop.said_of_users(each) for each in range(COUNT)] == known

    # Learning goes on, by another too that has no checkpoint but the root.
    for partition, keys in enumerate(KEYS):
        shop.loops[partition].lease.release()
        client.delete(keys.checkpoints)
        shop.loops[partition] = shop.learner(partition)
    for record in merges(client, 0):
        client.delete(KEYS[0].blob(record.digest))
    shop.go_on()
    assert served(client).learned == learned(shop.loops) == before + 12
    assert set(shop.verdicts()) == {"identical"}

    # And they are cut again, from the roots where they begin.
    known = [shop.said_of_users(each) for each in range(COUNT)]
    again = shop.cut(int(time.time() * 1000))
    assert again[0].position > roots[0].position
    assert shop.cut(at_ms) == again
    shop.go_on()
    assert set(shop.verdicts()) == {"identical"}
    assert shop.profiles_hold()

    # Profiles that are gone are made of the roots and what came after them.
    client.delete(*client.scan_iter(match=f"{UsersKeys('home').profile('')}*"))
    while not shop.profiles_hold():
        settle(shop.loops, client)


def test_no_roots_are_stated_where_something_needs_what_is_before(client, tmp_path):
    shop = Shop(client, tmp_path, SPECS["ridge"])
    with pytest.raises(RetentionError, match="checkpoint"):
        shop.cut(int(time.time() * 1000))
    shop.go_on()
    shop.go_on()
    with pytest.raises(RetentionError, match="begin together"):
        state_root(shop.stored, int(time.time() * 1000), SALT)
    with pytest.raises(RetentionError, match="as old as that"):
        shop.cut(1000)

    # Nothing goes back behind a root.
    oldest = next(name for name, found in shop.stored.snapshots() if found and found.learned == 12)
    there = shop.stored.find(oldest)[1].position
    time.sleep(0.01)
    asked = RedisLog(client, KEYS[0]).append(RollbackRecord(oldest, there))
    settle(shop.loops, client)
    shop.go_on()
    assert set(shop.verdicts()) == {"identical"}
    with pytest.raises(RetentionError, match="rollback"):
        shop.cut(position_ms(asked))
    (first, *_) = shop.cut(int(time.time() * 1000), remove=False)
    with pytest.raises(SnapshotError, match="begins at its root"):
        rollback(shop.stored, oldest, within_s=1)
    assert first.position > there


def test_the_command_cuts_the_logs_of_all_partitions(client, tmp_path, monkeypatch):
    shop = Shop(client, tmp_path, SPECS["ridge"])
    shop.go_on()
    monkeypatch.setenv("BANDITLOOP_SALT", SALT.decode())
    monkeypatch.setenv("BANDITLOOP_ARCHIVE", shop.root)
    time.sleep(0.01)
    where = ["--redis-url", url_of(client)]
    done = CliRunner().invoke(app, ["snapshots", "root", "0.001s", "--remove", *where])
    assert done.exit_code == 0, (done.output, done.exception)
    root = shop.stored.checkpoints.root()
    assert root.digest in done.output
    assert shop.verdicts() == ["identical"]  # what was served at the root

    shop.go_on()
    said = CliRunner().invoke(app, ["snapshots", "verify", *where])
    assert said.exit_code == 0, (said.output, said.exception)
    assert f"begins at its root, {root.position}" in " ".join(said.output.split())
