"""A command succeeds when the learner has done what it said.

Refused, stood still or not read it says so, and how.
"""

import contextlib
import threading

import msgspec
import pytest
import redis
from support import partition_loops
from support.loops import KEYS, SALT, SPEC, SPECS, decide, head, make, settle, stats
from typer.testing import CliRunner

from bandits.errors import RefusedError, StalledError
from bandits.log.codec import digest
from bandits.log.records import CatalogueRecord, PinRecord, RollbackRecord, WarmStartRecord
from bandits.ridge.config import RidgeConfig
from policies.artifacts.learner_model import TrainedModel
from policies.blend import make_learner
from serve_app.admin.outcomes import has_become, is_pinned
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.cli import snapshots as cli_snapshots
from serve_app.cli.snapshots import NOT_YET, app
from serve_app.store.event_log import RedisLog

pytestmark = [pytest.mark.usefixtures("hurried_learner"), pytest.mark.timeout(120)]
OTHER = msgspec.structs.replace(SPEC, learner=RidgeConfig(l2=9.0))


@contextlib.contextmanager
def learning(*loops):
    stop = threading.Event()
    for loop in loops:
        loop.lease.release()
    threads = [threading.Thread(target=loop.run, args=(stop,)) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


def command(url: str, *arguments: str):
    done = CliRunner().invoke(app, [*arguments, "--redis-url", url])
    return done, done.output + str(done.exception or "")


def trained(spec, checkpoint: bytes | None = None) -> TrainedModel:
    data = make_learner(spec, salt=SALT).checkpoint() if checkpoint is None else checkpoint
    return TrainedModel(spec_bytes=spec.encoded, learned=7, checkpoint=data)


BAD = {
    "no checkpoint": (SPEC, b"x"),
    "half a checkpoint": (SPEC, make_learner(SPEC, salt=SALT).checkpoint()[:-5]),
    "one of VW": (SPEC, make_learner(SPECS["vw"], salt=SALT).checkpoint()),
    "one of other arguments": (
        SPECS["vw"],
        make_learner(
            msgspec.structs.replace(
                SPECS["vw"],
                learner=msgspec.structs.replace(SPECS["vw"].learner, args="--cb_explore_adf -b 9"),
            ),
            salt=SALT,
        ).checkpoint(),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_warm_start_that_the_learner_refuses_is_no_success(client, server_url, tmp_path, name):
    spec, checkpoint = BAD[name]
    own, reader = redis.Redis.from_url(server_url), make(redis.Redis.from_url(server_url), spec)
    settle(reader)
    (tmp_path / "model").write_bytes(trained(spec, checkpoint).encoded)
    (tmp_path / "good").write_bytes(trained(spec).encoded)
    with learning(reader):
        done, output = command(server_url, "warm-start", str(tmp_path / "model"))
        assert done.exit_code not in (0, NOT_YET)
        assert "was refused" in output
        done, output = command(server_url, "warm-start", str(tmp_path / "good"))
        assert (done.exit_code, "done" in output) == (0, True), output
    assert stats(own).learned == 7
    own.close()
    reader.log.client.close()


@pytest.mark.parametrize(
    "record", [RollbackRecord("s", "0-0"), RollbackRecord("s", "9999999999999-0")]
)
@pytest.mark.parametrize("partitions", [1, 3])
def test_a_rollback_that_is_refused_is_no_success(client, server_url, record, partitions):
    if partitions == 1:
        loops = [make(redis.Redis.from_url(server_url))]
        settle(loops[0])
        decide(client, 6)
        settle(loops[0])
    else:
        loops = [
            partition_loops.make(redis.Redis.from_url(server_url), number) for number in range(3)
        ]
        partition_loops.settle(loops, client)
        partition_loops.decide(client, 9)
        partition_loops.settle(loops, client)
    stored = StoredPolicy(client, "home")
    with learning(*loops):
        at = stored.control(record)
        with pytest.raises(RefusedError, match=at):
            has_become(stored, at, "rollback", within_s=20)
    for loop in loops:
        loop.log.client.close()


def test_a_pin_is_done_when_it_is_read_and_served_not_when_it_happens_to_be_so(
    client, server_url, monkeypatch
):
    monkeypatch.setattr(cli_snapshots, "PATIENCE_S", 0.3)
    loop = make(redis.Redis.from_url(server_url))
    settle(loop)
    decide(client, 6)
    settle(loop)
    served = head(client)
    # nobody reads them
    for arguments in (("pin", served[:12]), ("unpin",), ("rollback", served[:12])):
        done, output = command(server_url, *arguments)
        assert done.exit_code == NOT_YET, output
        assert "no learner has read it yet" in " ".join(output.split())
    monkeypatch.setattr(cli_snapshots, "PATIENCE_S", 10.0)
    with learning(loop):
        done, output = command(server_url, "pin", served[:12])
        assert (done.exit_code, "done" in output) == (0, True), output
        assert stats(client).pinned == served
        done, _ = command(server_url, "unpin")
        assert done.exit_code == 0
        assert stats(client).pinned is None
        stored = StoredPolicy(client, "home")
        for gone in ("0" * 32, "f" * 32):
            at = stored.control(PinRecord(gone))
            assert has_become(stored, at, "pin", within_s=10)
            with pytest.raises(RefusedError, match="no longer stored"):
                is_pinned(stored, gone)
            assert client.exists(KEYS.blob(head(client)))  # what is served is there
        at = stored.control(PinRecord(None))
        assert has_become(stored, at, "pin", within_s=10)
        with pytest.raises(RefusedError, match="came after"):
            is_pinned(stored, served)
    loop.log.client.close()


def test_where_learning_stands_still_a_command_says_so_at_once(client, server_url, tmp_path):
    loop = make(redis.Redis.from_url(server_url))
    settle(loop)
    (tmp_path / "model").write_bytes(trained(SPEC).encoded)
    stuck = RedisLog(client, KEYS).append(CatalogueRecord("0" * 32))
    with learning(loop):
        done, output = command(server_url, "warm-start", str(tmp_path / "model"))
        assert isinstance(done.exception, StalledError)
        assert stuck in output
    loop.log.client.close()


def test_a_model_of_another_shape_that_comes_after_a_new_spec_is_refused(client, server_url):
    """What the command looked at had changed when the learner read it."""
    loop = make(redis.Redis.from_url(server_url))
    settle(loop)
    data = trained(OTHER).encoded
    client.set(KEYS.blob(digest(data)), data)
    stored = StoredPolicy(client, "home")
    with learning(loop):
        at = stored.control(WarmStartRecord(digest(data)))
        with pytest.raises(RefusedError, match="another kind"):
            has_become(stored, at, "warm_start", within_s=10)
    loop.log.client.close()
