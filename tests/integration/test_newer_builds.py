"""A log that a newer build has written: this one says so in one line, and changes nothing."""

import msgspec
import pytest
import redis
from support.loops import KEYS, SALT, SPEC, decide, head, make, settle, stats, url_of
from support.partition_loops import SPEC as PARTITIONED
from typer.testing import CliRunner

from bandits.errors import BanditloopError, NewerBuildError
from bandits.log.codec import VERSION, digest, encode
from bandits.log.records import BuildRecord, CheckpointRecord, MergeRecord
from bandits.log.versions import FOLD
from policies.artifacts.learner_model import TrainedModel
from policies.blend import make_learner
from policies.requests import ActionRequest, RankRequest
from serve_app.admin.preflight import check_logs
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.cli.main import app
from serve_app.cli.snapshots import app as snapshots_app
from serve_app.host.embedded import any_redis, valkey
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.settings import Settings
from serve_app.store.event_log import FIELD, LogWriter
from serve_app.store.keys import Keys
from serve_app.store.merges import partition_count, read_merge
from serve_app.store.newer_builds import NO_MERGE, check_format
from serve_app.store.snapshots import Head
from serve_app.workers.learner_factory import learner_of_partition

pytestmark = pytest.mark.usefixtures("hurried_learner")

FUTURE = {
    "an unknown kind": bytes([VERSION]) + msgspec.msgpack.encode(["profile", "u", 1]),
    "another format": bytes([VERSION + 1]) + msgspec.msgpack.encode(["tick"]),
}
NEWER = BuildRecord({"fold": str(FOLD + 1), "machine": "x86_64"})


def everything(client: redis.Redis) -> dict[bytes, bytes]:
    """Every key with its content, but for the lease's own."""
    own = ("lease", "fence", "waiting")
    names = [name for name in client.scan_iter(count=1000) if not name.decode().endswith(own)]
    return {name: client.dump(name) for name in names}


def as_if_newer(client: redis.Redis) -> None:
    """A newer build leads, and says so."""
    client.xadd(KEYS.log, {FIELD: encode(NEWER)})
    client.set(KEYS.fold, FOLD + 1)


def test_a_learner_says_in_redis_and_in_the_log_by_which_version_it_folds(client):
    loop = make(client)
    settle(loop)
    assert loop.fold.version == FOLD
    assert client.get(KEYS.fold) == str(FOLD).encode()
    check_logs(url_of(client), [SPEC])


def test_a_service_is_not_started_on_what_a_newer_build_has_written(client):
    settle(make(client))
    as_if_newer(client)
    before = everything(client)
    with pytest.raises(
        NewerBuildError,
        match=f"the log of home: a newer build .* version {FOLD + 1}, this build's {FOLD}",
    ):
        check_logs(url_of(client), [SPEC])
    assert everything(client) == before


COMMANDS = [
    ["list"],
    ["show", "ID"],
    ["pin", "ID"],
    ["unpin"],
    ["rollback", "ID"],
    ["verify", "--jobs", "1"],
    ["warm-start", "FILE"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=[words[0] for words in COMMANDS])
def test_no_command_reads_or_writes_what_a_newer_build_has_written(
    client, server_url, tmp_path, words
):
    settle(make(client))
    as_if_newer(client)
    before, trained = everything(client), tmp_path / "model"
    learner = make_learner(SPEC, salt=SALT)
    trained.write_bytes(
        TrainedModel(spec_bytes=SPEC.encoded, learned=0, checkpoint=learner.checkpoint()).encoded
    )
    given = [{"ID": head(client), "FILE": str(trained)}.get(word, word) for word in words]
    result = CliRunner().invoke(
        snapshots_app, [*given, "--redis-url", server_url, "--data-dir", str(tmp_path)]
    )
    assert isinstance(result.exception, NewerBuildError)
    assert everything(client) == before


def test_the_doctor_says_that_it_cannot_examine_what_a_newer_build_has_written(
    client, server_url, tmp_path
):
    settle(make(client))
    decide(client, 5)
    as_if_newer(client)
    before = everything(client)
    command = ["doctor", "--redis-url", server_url, "--data-dir", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "newer build" in result.stdout
    assert everything(client) == before


@pytest.mark.parametrize("what", [NEWER, "an unknown kind", "another format"])
@pytest.mark.parametrize("start", ["running", "standing by", "starting", "resuming"])
def test_a_learner_that_meets_a_newer_build_leaves_everything_as_it_is(client, caplog, start, what):
    """Leading, standing by, started from nothing, or from a checkpoint.

    What it said before stays right.
    """
    loop = make(client)
    settle(loop)
    decide(client, 10)
    settle(loop)
    if start != "starting":
        loop.log.append(CheckpointRecord())
        settle(loop)
    served, learned = head(client), stats(client).learned
    if start in {"starting", "resuming"}:
        loop.lease.release()
        loop = make(client)
    if start == "standing by":
        settle(loop, lead=False, at_least=2)
    client.xadd(KEYS.log, {FIELD: FUTURE[what] if isinstance(what, str) else encode(what)})
    decide(client, 4, prefix="more")
    before = everything(client)
    for _ in range(4):
        loop.lease.acquire()
        loop.attempt()
    assert everything(client) == before
    assert (head(client), stats(client).learned) == (served, learned)
    assert not loop.lease.acquire()
    assert client.get(KEYS.lease) is None  # a newer one may lead at once
    assert "newer build" in caplog.text


async def test_a_replica_passes_over_a_snapshot_of_a_newer_build_and_serves_the_one_it_has(
    client, async_client
):
    """Its rule for PMFs is unknown, or it has fields more: either way rank goes on answering."""
    loop = make(client)
    settle(loop)
    writer = LogWriter(async_client)
    service = RedisPolicyService(
        SPEC, async_client, writer, salt=SALT, replica="r", follow_interval_s=0.05
    )
    assert await service.follower.step()
    first = service.ranker.serving.snapshot_id
    published = StoredPolicy(client, "home").find(first)[1]
    newer = msgspec.structs.replace(published, position="9-9", build={"fold": str(FOLD + 1)})
    extended = msgspec.msgpack.encode(
        {**msgspec.to_builtins(published), "payload": published.payload, "rules": 1}
    )
    for data in (newer.encoded, extended):
        client.set(KEYS.blob(digest(data)), data)
        client.set(KEYS.head, msgspec.msgpack.encode(Head(digest(data))))
        with pytest.raises(BanditloopError):
            await service.follower.step()
        assert service.ranker.serving.snapshot_id == first
        record, logged = await service.rank(
            RankRequest(actions=[ActionRequest("a"), ActionRequest("b")])
        )
        assert logged
        assert record.snapshot_id == first
    await service.stop()


@pytest.mark.parametrize("said", ["2", "x", ""])
def test_a_data_directory_in_a_later_format_is_left_alone(tmp_path, said):
    (tmp_path / "format").write_text(said)
    with pytest.raises(NewerBuildError, match="newer build"), valkey(Settings(data_dir=tmp_path)):
        pass
    with pytest.raises(NewerBuildError), any_redis(Settings(data_dir=tmp_path)):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["format"]
    (tmp_path / "format").write_text("1\n")
    check_format(tmp_path)


def test_a_build_that_knows_of_no_versions_finds_a_policy_without_partitions_and_refuses_it(client):
    """What 1c51045 does before it starts: it counts the inputs of the merge under ``record``."""
    settle(make(client))
    raw = client.hget(KEYS.merge, "record")
    assert msgspec.msgpack.decode(raw, type=MergeRecord).inputs == []
    assert client.exists(KEYS.head)
    assert read_merge(client, KEYS) is None
    assert partition_count(client, "home") == 1


def test_merges_that_an_older_build_decided_are_found(client):
    first = Keys(PARTITIONED.name)
    old = MergeRecord(3, [None, None], "0" * 32, PARTITIONED.model_digest)
    client.hset(first.merge, mapping={"number": 3, "record": msgspec.msgpack.encode(old)})
    assert read_merge(client, first) == old
    loop = learner_of_partition(client, PARTITIONED, salt=SALT, partition=0, publish_interval_s=0.0)
    loop.lease.acquire()
    loop.log.append(BuildRecord({"fold": str(FOLD)}))
    assert client.hget(first.merge, "record") == NO_MERGE
    assert read_merge(client, first) == old
    loop.log.append(BuildRecord({"fold": str(FOLD)}))
    assert read_merge(client, first) == old
    assert partition_count(client, PARTITIONED.name) == 2
