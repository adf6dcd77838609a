"""Windows longer than the stream: their records are read from the archive, and nothing else is."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from support.logs import decision
from support.loops import KEYS, SALT, SPEC, make, stats, url_of

from bandits.log.codec import encode
from bandits.log.join import JoinRule
from bandits.log.records import CheckpointRecord, RewardRecord
from policies.archive.archive import ArchiveReader
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from serve_app.admin.replayed.verification import LogAddress, verify_policy
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.store.event_log import FIELD, RedisLog
from serve_app.workers.archiver import Archiver
from serve_app.workers.learner import LearnerLoop

pytestmark = pytest.mark.usefixtures("hurried_learner")
DECISIONS = 40
WINDOW_S = 12.0
AT_ONCE: dict[str, Any] = {"max_entries": 10, "max_age_s": 0.0, "retain_s": 0.0}
RULES = {
    "at close": JoinRule(window_s=WINDOW_S),
    "as it arrives": JoinRule(
        window_s=WINDOW_S, learn="as_it_arrives", late="correct", aggregation="sum"
    ),
}


@pytest.fixture(autouse=True)
def small_nodes(client) -> Iterator[None]:
    before = client.config_get("stream-node-max-entries")
    client.config_set("stream-node-max-entries", 5)
    yield
    client.config_set("stream-node-max-entries", before["stream-node-max-entries"])


def learner(client: redis.Redis, spec: PolicySpec, root: Path) -> LearnerLoop:
    """One that keeps no record in memory."""
    loop = make(client, spec, archive=ArchiveReader(root, "home"))
    make_fold = loop._make_fold

    def without_records(*told):
        fold = make_fold(*told)
        fold.join.recent_bytes = 0
        return fold

    loop._make_fold = without_records
    return loop


def step(loop: LearnerLoop, client: redis.Redis) -> None:
    """Read the stream to its end, and store what is to be stored."""
    for _ in range(200):
        loop.lease.acquire()
        loop.attempt()
        newest: Any = client.xrevrange(KEYS.log, count=1)
        if loop.fold.position == newest[0][0].decode() and not loop._taken:
            return
    raise AssertionError("it never came to the end")


@pytest.mark.one_server
@pytest.mark.parametrize(
    "name", ["at close", pytest.param("as it arrives", marks=pytest.mark.slow)]
)
def test_windows_close_whose_decisions_have_left_memory_and_redis(client, tmp_path, name):
    """Also for a learner that resumes in between, and while the archive was away for a moment."""
    spec = msgspec.structs.replace(SPEC, join=RULES[name])
    archiver = Archiver(client, "home", tmp_path, **AT_ONCE)
    first = learner(client, spec, tmp_path)
    step(first, client)
    reader = RedisLog(client, KEYS)
    reader.put_blob(Catalogue().digest, Catalogue().encoded)
    began = time.monotonic()
    for number in range(DECISIONS):
        reader.append(
            decision(
                f"e{number}",
                spec=spec.digest,
                catalogue=Catalogue().digest,
                chosen=(number % 3, (number + 1) % 3),
            )
        )
    client.xadd(KEYS.log, {FIELD: encode(CheckpointRecord())})
    step(first, client)
    while archiver.step() or archiver.trim():
        pass

    # Nothing but the last few entries is in Redis, and all windows are open.
    assert client.xlen(KEYS.log) < 15
    assert first.fold.join._older.count_open() == DECISIONS
    assert first.fold.learned == (2 * DECISIONS if name == "as it arrives" else 0)

    first.lease.release()
    second = learner(client, spec, tmp_path)
    step(second, client)
    assert second.log.checkpointed
    assert second.fold.join.state().remembered == (DECISIONS, 0)

    # Without the archive learning stands still as soon as a record is asked for.
    away = tmp_path.with_name("away")
    shutil.move(tmp_path / "home", away)
    for number in range(0, DECISIONS, 3):
        reader.append(RewardRecord(f"e{number}", 2.0, "r", None, "abc"[number % 3]))
    assert time.monotonic() - began < WINDOW_S, "the machine is too slow for this test"
    time.sleep(max(0.0, began + WINDOW_S + 0.5 - time.monotonic()))
    for _ in range(30):
        second.lease.acquire()
        second.attempt()
    assert second.standstill.stall is not None
    shutil.move(away, tmp_path / "home")
    deadline = time.monotonic() + 30
    while second.standstill.stall is not None or second.fold.join.oldest_open() is not None:
        assert time.monotonic() < deadline
        second.lease.acquire()
        second.attempt()

    assert second.fold.learned == 2 * DECISIONS
    assert second.fold.join.counts["joined"] == len(range(0, DECISIONS, 3))
    client.xadd(KEYS.log, {FIELD: encode(CheckpointRecord())})
    step(second, client)
    assert stats(client) is not None
    served, _ = StoredPolicy(client, "home").served()
    for jobs in (1, 2):
        address = LogAddress(url_of(client), "home", str(tmp_path), SALT)
        verified, _ = verify_policy(address, served, jobs=jobs, progress=lambda _: None)
        assert verified
        assert {each.verdict for each in verified} == {"identical"}
