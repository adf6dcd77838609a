"""Decisions of a log, looked at: found, listed newest first, and joined with what came of them."""

import contextlib
import threading

import msgspec
import pytest
import redis
from support.logs import decision
from support.loops import KEYS, SALT, SPEC, decide, make, settle, url_of
from typer.testing import CliRunner

from banditloop_client.console_schemas import DecisionSummary, SnapshotsResponse
from bandits.errors import (
    InvalidFieldError,
    SnapshotConflictError,
    UnknownEventError,
    UnknownSnapshotError,
)
from bandits.features.hashing import partition_of
from bandits.log.codec import encode
from bandits.log.join import JoinRule
from bandits.log.records import ActivationRecord, MergeRecord, Placed, RewardRecord, Ruled
from policies.items.catalogue import Catalogue
from policies.pseudonyms import pseudonym
from policies.spec import PolicySpec
from serve_app.cli.main import app
from serve_app.office.desk import Desk
from serve_app.settings import Settings
from serve_app.store.event_log import FIELD, RedisLog
from serve_app.store.keys import Keys
from serve_app.workers.archiver import Archiver

pytestmark = [pytest.mark.one_server, pytest.mark.usefixtures("hurried_learner")]

RULE = JoinRule(window_s=10.0, default_reward=-1.0, aggregation="sum")
SUMMED = msgspec.structs.replace(SPEC, join=RULE)
BEGAN_MS = 1_700_000_000_000


class History:
    """A log of given times, for one policy."""

    def __init__(self, client: redis.Redis, tmp_path, spec: PolicySpec = SUMMED) -> None:
        self.client, self.spec, self.archive = client, spec, tmp_path / "archive"
        RedisLog(client, KEYS).put_blob(spec.digest, spec.encoded)
        self.settings = Settings(
            redis_url=url_of(client), salt=SALT.decode(), archive=str(self.archive)
        )

    def add(self, second: float, record) -> str:
        at = f"{BEGAN_MS + round(1000 * second)}-0"
        return self.client.xadd(KEYS.log, {FIELD: encode(record)}, id=at).decode()

    def decide(self, second: float, event_id: str, **changes) -> str:
        changes = {"spec": self.spec.digest, "catalogue": Catalogue().digest, **changes}
        return self.add(second, decision(event_id, **changes))

    def ask(self, errand: str, **asked):
        return Desk(self.settings, "home").do(errand, asked)

    def archive_all(self) -> None:
        archiver = Archiver(
            self.client, "home", self.archive, max_entries=10, max_age_s=0.0, retain_s=0.0
        )
        while archiver.step() or archiver.trim():
            pass


@pytest.fixture
def history(client, tmp_path) -> History:
    return History(client, tmp_path)


def test_every_reward_is_told_with_how_it_was_counted(history):
    history.decide(0, "slate", chosen=(2, 0))
    history.add(1, RewardRecord("slate", 1.0, "r1"))
    history.add(2, RewardRecord("slate", 0.5, "r2", action_id="c"))
    history.add(3, RewardRecord("slate", 4.0, "r3", slot=1))
    history.add(4, RewardRecord("slate", 9.0, "r1"))
    history.add(5, RewardRecord("slate", 9.0, "r4", action_id="b"))
    history.add(6, RewardRecord("slate", 9.0, "r5", signal="click"))
    history.add(11, RewardRecord("slate", 9.0, "r6"))
    found = history.ask("event", event_id="slate")
    assert [(each.reward_id, each.outcome) for each in found.rewards] == [
        ("r1", "joined"),
        ("r2", "joined"),
        ("r3", "joined"),
        ("r1", "duplicate"),
        ("r4", "invalid"),
        ("r5", "unknown_signal"),
        ("r6", "late"),
    ]
    assert [(each.slot, each.id, each.reward) for each in found.earned] == [
        (0, "c", 1.5),
        (1, "a", 4.0),
    ]
    assert (found.outcome, found.default_reward, found.aggregation) == ("rewarded", -1.0, "sum")
    assert (found.closes - found.time).total_seconds() == 10
    assert {each.id: each.slot for each in found.candidates} == {"a": 1, "b": None, "c": 0}
    assert sum(each.probability for each in found.candidates) == pytest.approx(1)


def test_how_a_decision_stands_is_that_of_the_log_s_time(history):
    history.decide(0, "rewarded")
    history.add(1, RewardRecord("rewarded", 2.0))
    history.decide(2, "unrewarded")
    history.decide(3, "unshown", deferred=True)
    history.add(4, RewardRecord("unshown", 2.0))
    history.decide(5, "shown", deferred=True)
    history.add(6, RewardRecord("shown", 3.0))
    history.add(7, ActivationRecord("shown"))
    history.decide(8, "rewarded")
    history.decide(20, "open")
    history.add(21, RewardRecord("open", 1.0))
    history.decide(22, "waits", deferred=True)
    history.add(23, RewardRecord("waits", 1.0))

    page = history.ask("decisions", limit=10)
    assert page.next is None
    assert [(each.event_id, each.outcome, each.reward) for each in page.decisions] == [
        ("waits", "open", 1.0),
        ("open", "open", 1.0),
        ("rewarded", "duplicate", None),
        ("shown", "rewarded", 3.0),
        ("unshown", "not_activated", 2.0),
        ("unrewarded", "unrewarded", None),
        ("rewarded", "rewarded", 2.0),
    ]
    outcomes = {
        name: history.ask("event", event_id=name).rewards[0].outcome
        for name in ("unshown", "shown", "waits")
    }
    assert outcomes == {"unshown": "unactivated", "shown": "joined", "waits": "waiting"}


def whole(history: History, limit: int, **asked) -> list[DecisionSummary]:
    """All pages, one after the other."""
    out, before = [], ""
    while True:
        page = history.ask("decisions", limit=limit, before=before, **asked)
        out += page.decisions
        assert len(page.decisions) <= limit
        if page.next is None:
            return out
        before = page.next


def test_pages_go_from_the_newest_to_the_oldest_also_into_the_archive(history, monkeypatch):
    keyed = pseudonym(SALT, "ann")
    for number in range(25):
        history.decide(number, f"e{number}", user=keyed if number % 4 == 0 else None)
        history.add(number + 0.5, RewardRecord(f"e{number}", float(number)))
    everything = whole(history, 7)
    assert [each.event_id for each in everything] == [f"e{at}" for at in reversed(range(25))]

    history.archive_all()
    for number in range(25, 30):
        history.decide(number, f"e{number}")
    moved = whole(history, 7)
    assert [each.event_id for each in moved] == [f"e{at}" for at in reversed(range(30))]
    assert moved[-14:] == everything[-14:]  # the others were open, as long as the log ended there
    assert all(each.reward == float(each.event_id[1:]) for each in moved[5:])

    hers = [f"e{at}" for at in reversed(range(0, 25, 4))]
    assert [each.event_id for each in whole(history, 3, user_id="ann")] == hers
    monkeypatch.setattr("serve_app.admin.decided.listing.MOST_LOOKED", 10)
    assert [each.event_id for each in whole(history, 3, user_id="ann")] == hers
    assert whole(history, 100, user_id="bob") == []
    for before in ("x", "1-2-3", "0", "-1-0"):
        with pytest.raises(InvalidFieldError, match="page before"):
            history.ask("decisions", limit=1, before=before)


def test_a_decision_is_found_wherever_it_is_and_what_is_not_there_is_said(history):
    rules = Ruled(placed=[Placed(0, "x")], short="too few")
    at = history.decide(0, "placed <b>", rules=rules)
    history.add(1, RewardRecord("placed <b>", 2.0, slot=0))
    history.decide(15, "e")
    there = history.ask("event", event_id="placed <b>")
    assert [(each.slot, each.id) for each in there.placed] == [(0, "x")]
    assert (there.chosen[0].slot, there.short) == (1, "too few")
    assert there.rewards[0].outcome == "placed"
    assert history.ask("event", event_id="placed <b>", entry=at) == there

    for number in range(30):
        history.decide(20 + number, f"e{number}")
    history.archive_all()
    assert history.ask("event", event_id="placed <b>") == there
    assert history.ask("event", event_id="placed <b>", entry=at) == there
    for entry in ("items", "1", "1-2-3", "\u0663-\u0661", "9" * 30 + "-0"):
        with pytest.raises(InvalidFieldError, match="id of an entry"):
            history.ask("event", event_id="e1", entry=entry)
    for asked in ({"event_id": "nobody"}, {"event_id": "e1", "entry": at}):
        with pytest.raises(UnknownEventError, match="never logged") as refused:
            history.ask("event", **asked)
        assert refused.value.target == "event_id"


def test_of_an_erased_user_it_is_said_that_they_were(history):
    history.decide(0, "e", user="ab" * 16)
    assert not history.ask("event", event_id="e").erased
    history.client.set(KEYS.erased("ab" * 16), 1)
    assert history.ask("event", event_id="e").erased


def test_the_logs_of_several_partitions_are_one_list(client, tmp_path):
    spec = msgspec.structs.replace(SUMMED, partitions=2)
    history = History(client, tmp_path, spec)
    merge = MergeRecord(1, [None, None], "", "")
    client.hset(KEYS.merge, "record", msgspec.msgpack.encode(merge))
    names = [f"e{number}" for number in range(20)]
    for number, name in enumerate(names):
        keys = Keys("home", partition_of(name, 2))
        RedisLog(client, keys).put_blob(spec.digest, spec.encoded)
        record = decision(name, spec=spec.digest, catalogue=Catalogue().digest)
        # Two entries of the same position, one in each log, are two.
        at = f"{BEGAN_MS + number // 4}-{number % 2}"
        with contextlib.suppress(redis.ResponseError):
            client.xadd(keys.log, {FIELD: encode(record)}, id=at)
    logged = client.xlen(Keys("home", 0).log) + client.xlen(Keys("home", 1).log)
    listed = whole(history, 3)
    assert len({(each.entry, each.partition) for each in listed}) == len(listed) == logged
    assert len({each.entry for each in listed}) < logged
    assert history.ask("event", event_id=listed[0].event_id).partition == listed[0].partition


def test_snapshots_are_listed_pinned_and_rolled_back_to(client, tmp_path):
    history, stop = History(client, tmp_path, SPEC), threading.Event()
    loop = make(client)
    settle(loop)
    decide(client, 4)
    settle(loop)
    with pytest.raises(UnknownSnapshotError, match="no stored snapshot"):
        history.ask("pin", snapshot_id="nope")
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    try:
        listed = history.ask("snapshots")
        options = ["--redis-url", url_of(client), "--json"]
        printed = CliRunner().invoke(app, ["snapshots", "list", *options]).output
        assert msgspec.json.decode(printed, type=SnapshotsResponse) == listed
        newest, oldest = listed.snapshots[0], listed.snapshots[-1]
        assert (newest.served, newest.learned, oldest.learned) == (True, 4, 0)
        assert listed.pinned is None
        with pytest.raises(UnknownSnapshotError, match="no stored snapshot"):
            history.ask("pin", snapshot_id=oldest.id[:8])
        assert history.ask("pin", snapshot_id=oldest.id).done
        assert history.ask("snapshots").pinned == oldest.id
        with pytest.raises(SnapshotConflictError, match="is not pinned"):
            history.ask("unpin", snapshot_id=newest.id)
        assert history.ask("unpin", snapshot_id=oldest.id).done
        assert history.ask("snapshots").pinned is None
        assert "0 interactions" in history.ask("rollback", snapshot_id=oldest.id).effect
    finally:
        stop.set()
        thread.join(10)
