"""``banditloop serve --address auto``: the application on a cluster that runs, which has none of its resources."""

import signal

import httpx
import pytest
import yaml
from cluster.application import SPEC
from cluster.fixed import FixedCluster

from serve_app.client import Client
from serve_app.host.environment import free_port
from serve_app.workers.actors import ArchiverActor, LearnerActor

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(200)]


def test_it_serves_on_the_cluster_and_leaves_it_as_it_was(valkey_url, tmp_path):
    (tmp_path / "home.yaml").write_text(yaml.safe_dump(SPEC))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    serve = [
        "banditloop",
        "serve",
        str(tmp_path / "home.yaml"),
        "--address",
        "auto",
        "--port",
        str(port),
    ]
    with FixedCluster([], BANDITLOOP_REDIS_URL=valkey_url) as cluster:
        with cluster.started(*serve) as refused:  # every node has to reach the archive
            said, _ = refused.communicate(timeout=90)
        assert refused.returncode == 1
        assert "archive" in said.splitlines()[-1]
        with cluster.started(*serve, "--archive", str(tmp_path / "archive")) as process:
            assert process.stdout is not None
            said = next(line for line in process.stdout if line.startswith("ready"))
            assert url in said
            with Client(url, "home") as client:
                assert client.rank(["a", "b"]).logged
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert cluster.status() == {}
        alive = [
            each["class_name"] for each in cluster.listed("actors") if each["state"] == "ALIVE"
        ]
        assert not {LearnerActor.__name__, ArchiverActor.__name__} & set(alive)
        assert cluster.nodes() == {"head": 1}
        assert httpx.get(f"{url}/v1/policies").status_code == 404
