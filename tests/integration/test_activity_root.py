"""A space's log of activity begins at a root: nothing of what was known is lost with what is older."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from support.loops import url_of
from typer.testing import CliRunner

from bandits.errors import RetentionError
from bandits.log.records import ActivityRecord, ErasureRecord, RootRecord
from policies.archive.archive import ArchiveReader
from policies.archive.shared import shared_folder
from policies.profiles.options import ProfileOptions
from policies.profiles.part import ERASED, CutRule, Part, decode_part
from policies.spec import PolicySpec, TrendingSource
from serve_app.admin.roots.older_files import remove_older
from serve_app.admin.users.user_copies import StoredUsers
from serve_app.cli.main import app
from serve_app.settings import Settings
from serve_app.store.activity.demand import Demand
from serve_app.store.activity.root import demand_at_root, state_activity_root
from serve_app.store.checkpoints import read_root
from serve_app.store.event_log import RedisLog
from serve_app.store.history import History
from serve_app.store.keys import ActivityKeys
from serve_app.store.profiles.log_changes import ActivityChanges
from serve_app.store.profiles.spool import ChangeSpool
from serve_app.store.spaces import read_space, register
from serve_app.workers.archiver import Archiver

KEYS, RULE, HALF_LIFE_MS = ActivityKeys("shop"), CutRule(4, ("buy",)), 3_600_000
SPEC = PolicySpec(
    "shop",
    sources=(TrendingSource("now", half_life="1h"),),
    profile=ProfileOptions(types={"view": 1.0, "buy": 3.0}),
)


class Activity:
    """A log of activity that is archived as it grows, and what its readers make of it."""

    def __init__(self, client: redis.Redis, root: Path) -> None:
        self.client, self.root, self.log = client, str(root), RedisLog(client, KEYS)
        self.count, self.at_ms = 0, int(time.time() * 1000) + 60_000
        register(client, SPEC)

    def go_on(self) -> None:
        for _ in range(40):
            kind = "buy" if self.count % 3 else "view"
            user, item = f"u{self.count % 7}", f"i{self.count % 11}"
            self.log.append(ActivityRecord(user, item, kind, id=f"a{self.count}"))
            self.count += 1
        self.client.set(KEYS.needed, self.history.end())
        archiver = Archiver(
            self.client, "shop", self.root, max_age_s=0.0, retain_s=0.0, shared="activity"
        )
        while archiver.step():
            archiver.trim()
        while archiver.trim():
            pass

    @property
    def reader(self) -> ArchiveReader:
        return ArchiveReader(self.root, shared_folder("shop", "activity"))

    @property
    def history(self) -> History:
        return History(self.client, KEYS, self.reader)

    def cut(self, before_ms: int):
        space = read_space(self.client, "shop")
        return state_activity_root(self.client, space, self.reader, before_ms)

    def known(self) -> dict[str, Part]:
        changes = ActivityChanges(self.history, read_root(self.client, KEYS))
        with ChangeSpool(RULE) as spool:
            for _, some in changes.through(self.history.end()):
                spool.add(some)
            return {user: decode_part(data) for user, data in spool.parts()}

    def wanted(self) -> dict[str, float]:
        """How much each item is in demand, counted from where the log begins."""
        demand = Demand(KEYS)
        demand.begin([HALF_LIFE_MS], demand_at_root(self.client, self.history, KEYS))
        demand.take(list(self.history.encoded(demand.position)), {"view": 1.0, "buy": 3.0})
        [trend] = demand._trends
        now = trend.published(self.at_ms)
        return dict(zip(now.ids, now.counts, strict=True))


@pytest.fixture
def activity(valkey_url, tmp_path) -> Iterator[Activity]:
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
        yield Activity(client, tmp_path / "archive")


def test_profiles_demand_and_erasures_are_the_same_without_what_is_before(activity, tmp_path):
    """A log is cut twice: what its readers make of it stays the same, and what is old is gone."""
    with pytest.raises(RetentionError, match="as long ago"):
        activity.cut(1)
    activity.log.append(ErasureRecord("u3", "job"))
    activity.go_on()
    activity.go_on()
    known, wanted = activity.known(), activity.wanted()
    assert known["u3"] == ERASED

    first = activity.cut(int(time.time() * 1000) + 1)
    assert activity.cut(1) == first
    assert remove_older(first, activity.root, shared_folder("shop", "activity"))
    assert activity.known() == known
    assert activity.wanted() == pytest.approx(wanted)
    activity.go_on()
    said = [entry.record for entry in activity.history.encoded(activity.reader.beginning)]
    assert RootRecord(first.position, first.digest, first.profiles) in said
    assert len(said) < activity.count

    # A later root begins with the one before; the whole of it stays what it was.
    known, wanted = activity.known(), activity.wanted()
    assert len(wanted) == 11
    second = activity.cut(int(time.time() * 1000) + 1)
    assert second.position != first.position
    assert remove_older(second, activity.root, shared_folder("shop", "activity"))
    assert activity.known() == known
    assert activity.wanted() == pytest.approx(wanted)

    # Whoever restores persons still learns who was erased.
    settings = Settings(
        redis_url=url_of(activity.client),
        data_dir=tmp_path / "data",
        archive=activity.root,
        salt="salt of these tests",
    )
    assert StoredUsers(activity.client, "shop", settings).erased() == {"u3"}


def test_the_command_states_the_root_and_removes(activity, monkeypatch):
    """``spaces root`` says which files are before the root, and with --remove they go."""
    activity.go_on()
    activity.go_on()
    known = activity.known()
    monkeypatch.setenv("BANDITLOOP_ARCHIVE", activity.root)
    where = ["--redis-url", url_of(activity.client)]
    time.sleep(0.02)  # so that all is as old as that
    command = ["spaces", "root", "0.01s", "--space", "shop", *where]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.exception
    assert "1 files" in said.output
    assert "removed" in CliRunner().invoke(app, [*command, "--remove"]).output
    assert activity.known() == known
    monkeypatch.setenv("BANDITLOOP_ARCHIVE", "none")
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1
    assert isinstance(refused.exception, RetentionError) or "archive" in refused.output
