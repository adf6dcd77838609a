"""A node is killed with all that runs on it: the learner's under traffic, and one in the middle of a replay."""

import json
import time

import pytest
import redis
from cluster.application import SPEC, application
from cluster.fixed import FixedCluster
from cluster.load import Load, eventually, write_log

from serve_app.client import wait_until_ready
from serve_app.host.environment import free_port
from serve_app.store.keys import Keys
from serve_app.workers.actors import LearnerActor

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

TAKEOVER_S = 10.0


def test_when_the_learners_node_dies_its_standby_on_another_takes_over_and_nothing_is_lost(
    valkey_url, tmp_path
):
    spec = {**SPEC, "learner": {"kind": "ridge", "standbys": 1}}
    node = {"CPU": 1, "serve": 1000, "learner": 1000}
    port, archive = free_port(), str(tmp_path / "archive")
    environment = {"BANDITLOOP_REDIS_URL": valkey_url, "BANDITLOOP_ARCHIVE": archive}
    with (
        FixedCluster([node, node], **environment) as cluster,
        redis.Redis.from_url(valkey_url) as client,
    ):
        settings = {"checkpoint_interval_s": 2, "archive_max_age_s": 2, "replica_cpus": 0.5}
        cluster.deploy(application(tmp_path, port, [spec], replicas=(2, 2), **settings))
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, timeout_s=120)
        cluster.wait_until_running()
        leader = eventually(lambda: client.get(Keys("home").lease), 30, "a leader")
        learners = [
            actor
            for actor in cluster.listed("actors", detail="1")
            if actor["class_name"] == LearnerActor.__name__
        ]
        where = {each["pid"]: each["node_id"] for each in learners}
        assert len(set(where.values())) == 2, "leader and standby are on the same node"
        with Load(url, "home", workers=4, pause_s=0.02) as load:
            time.sleep(4)
            cluster.kill(where[_pid_of(leader)])
            killed = time.monotonic()
            eventually(
                lambda: (client.get(Keys("home").lease) or leader) != leader, 60, "another leader"
            )
            takeover_s = time.monotonic() - killed
            before = load.answered
            eventually(
                lambda: load.answered > before + 50, 30, "decisions from the replica that is left"
            )
            time.sleep(4)
        print(f"takeover {takeover_s:.1f} s, load: {load}")
        assert takeover_s <= TAKEOVER_S
        assert (load.unlogged, load.failed) == (0, {})
        load.audit(valkey_url, archive)
        time.sleep(2)  # the last windows close
        report = json.loads(cluster.run("banditloop", "snapshots", "verify", "--json"))
        assert report["holds"]
        assert {each["verdict"] for each in report["snapshots"]} == {"identical"}


def _pid_of(token: bytes) -> int:
    return int(token.decode().partition(":")[2].partition(".")[0])


@pytest.mark.slow
def test_when_a_node_dies_in_the_middle_of_a_replay_its_result_is_the_same(tmp_path):
    write_log(tmp_path / "log.csv", rows=400_000)
    replay = [
        "banditloop",
        "replay",
        "--log",
        str(tmp_path / "log.csv"),
        "--format",
        "csv",
        "--interval",
        "bootstrap",
    ]
    replay += [
        "--policy",
        "{kind: column, column: new}",
        "--policy",
        "{kind: column, column: old}",
        "--shards",
        "16",
    ]
    reports = [tmp_path / name for name in ("here.json", "there.json")]
    node = {"CPU": 1, "replay": 1000}
    with FixedCluster([node, node]) as cluster:
        cluster.run(*replay, "--out", str(reports[0]))
        with cluster.started(*replay, "--address", "auto", "--out", str(reports[1])) as process:
            busy = eventually(lambda: _running(cluster), 60, "tasks at work")
            cluster.kill(busy[0])
            said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        eventually(lambda: cluster.nodes() == {"head": 1, "replay": 1}, 30, "the node's death")
        eventually(
            lambda: any(each["attempt_number"] for each in cluster.listed("tasks")),
            30,
            "pieces done again",
        )
        assert reports[0].read_bytes() == reports[1].read_bytes()
        print(said)


def _running(cluster: FixedCluster) -> list[str]:
    """Nodes on which a task runs, once some have been done."""
    tasks = cluster.listed("tasks", detail="1")
    done = sum(each["state"] == "FINISHED" for each in tasks)
    return [
        each["node_id"]
        for each in tasks
        if each["state"] == "RUNNING" and each["node_id"] and done >= 2
    ]
