"""Load adds replicas, replicas add nodes, a replay adds nodes of its own.

When they are done all go away again.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from cluster.application import SPEC, application
from cluster.autoscaled import HEAD, AutoscaledCluster
from cluster.load import Load, eventually, slow_source, stopwatch, write_log

from serve_app.client import wait_until_ready
from serve_app.host.environment import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

TYPES = {
    HEAD: {
        "resources": {"CPU": 0, "learner": 1000},
        "node_config": {},
        "min_workers": 0,
        "max_workers": 0,
    },
    "serve": {
        "resources": {"CPU": 1, "serve": 1000, "learner": 1000},
        "node_config": {},
        "min_workers": 1,
        "max_workers": 3,
    },
    "replay": {
        "resources": {"CPU": 1, "replay": 1000},
        "node_config": {},
        "min_workers": 0,
        "max_workers": 2,
    },
}
LEAST = {"head": 1, "serve": 1}


@pytest.fixture(scope="module")
def cluster(valkey_url) -> Iterator[AutoscaledCluster]:
    with AutoscaledCluster(TYPES, BANDITLOOP_REDIS_URL=valkey_url) as running:
        yield running


def test_load_adds_replicas_and_nodes_and_its_end_removes_them_without_a_failed_or_unlogged_request(
    cluster, tmp_path, valkey_url
):
    took: dict[str, float] = {}
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with slow_source() as source:
        slow = {
            **SPEC,
            "sources": [{"kind": "remote", "name": "slow", "url": source, "timeout_ms": 5000}],
        }
        with stopwatch(took, "deployed"):
            cluster.deploy(application(tmp_path, port, [slow], replicas=(1, 3)))
            wait_until_ready(url, timeout_s=120)
            cluster.wait_until_running()
        assert cluster.nodes() == LEAST
        # goes on while replicas and nodes go away
        with Load(url, "home", workers=1, actions=None) as trickle:
            with Load(url, "home", workers=16, actions=None) as load:
                with stopwatch(took, "3 replicas on 3 nodes"):
                    eventually(lambda: cluster.replicas() == 3, 120, "three replicas")
                assert cluster.nodes() == {**LEAST, "serve": 3}
                time.sleep(3)  # under load with all of them
            with stopwatch(took, "1 replica on 1 node"):
                eventually(
                    lambda: cluster.replicas() == 1 and cluster.nodes() == LEAST,
                    90,
                    "one replica on one node",
                )
    print(took, f"load: {load}", f"trickle: {trickle}", sep="\n")
    for each in (load, trickle):
        assert each.answered > 50
        assert (each.unlogged, each.failed) == (0, {})
        each.audit(valkey_url, str(tmp_path / "archive"))


def test_a_replay_adds_nodes_of_its_own_says_how_many_and_releases_them(cluster, tmp_path):
    write_log(tmp_path / "log.csv", rows=600_000)
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
        "24",
    ]
    reports = [tmp_path / name for name in ("here.json", "there.json")]
    cluster.run(*replay, "--out", str(reports[0]))
    took: dict[str, float] = {}
    most: Counter[str] = Counter()
    with (
        stopwatch(took, "replayed"),
        cluster.started(*replay, "--address", "auto", "--out", str(reports[1])) as process,
    ):
        while process.poll() is None:
            most |= cluster.nodes()
            time.sleep(0.5)
        said, _ = process.communicate()
    assert process.returncode == 0, said
    with stopwatch(took, "released"):
        eventually(lambda: cluster.nodes() == LEAST, 60, "no node for replay")
    print(took, dict(most), said, sep="\n")
    assert most["replay"] == 2
    found = re.search(r"24/24 +[\d,]+ rows/s +\d+ nodes \(at most (\d+)\)", said)
    assert found is not None
    assert int(found[1]) >= LEAST["head"] + LEAST["serve"] + 2
    assert reports[0].read_bytes() == reports[1].read_bytes()
