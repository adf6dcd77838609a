"""What clients set over HTTP is served on a cluster, too: by a Serve config that is deployed, and by `banditloop serve`."""

import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml
from cluster.application import SPEC, application
from cluster.fixed import FixedCluster
from cluster.load import Load, eventually

from bandits.log.records import SpecRecord
from policies.archive.archive import ArchiveReader
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.client import wait_until_ready
from serve_app.host.environment import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

NODE = {"CPU": 4, "serve": 1000, "learner": 1000}
CONFIG, COMMAND = ({**SPEC, "name": name} for name in ("by-config", "by-command"))
"""Of names of their own: all tests have one Redis."""


def put(url: str, **changes: Any) -> None:
    """Set a configuration: whoever is answered may, at once."""
    address = f"{url}/personalizer/configurations/service"
    wanted = {**httpx.get(address).json(), **changes}
    answer = httpx.put(address, json=wanted, timeout=30)
    assert answer.status_code == 200, answer.text


def reward_of(url: str) -> float:
    """The default reward of the spec that is served."""
    name = httpx.get(f"{url}/v1/policies").json()["policies"][0]
    return httpx.get(f"{url}/v1/policies/{name}").json()["spec"]["join"]["default_reward"]


def spec_records(valkey_url: str, archive: Path) -> int:
    """How often the log says that the spec is another."""
    with redis.Redis.from_url(valkey_url) as client:
        name = CONFIG["name"]
        stored = StoredPolicy(client, name, ArchiveReader(str(archive), name))
        entries = list(stored.history.encoded("0-0"))
    return sum(isinstance(entry.record, SpecRecord) for entry in entries)


def test_a_deployed_config_serves_what_clients_set_and_goes_on_so(valkey_url, tmp_path):
    """No request fails meanwhile; the same file deployed again changes nothing, another one counts."""
    port, archive = free_port(), tmp_path / "archive"
    url = f"http://127.0.0.1:{port}"
    environment = {"BANDITLOOP_REDIS_URL": valkey_url, "BANDITLOOP_ARCHIVE": str(archive)}
    with FixedCluster([NODE], **environment) as cluster:

        def deploy(spec: dict[str, Any]) -> None:
            cluster.deploy(application(tmp_path, port, [spec], replicas=(1, 1), replica_cpus=0.5))

        deploy(CONFIG)
        wait_until_ready(url, timeout_s=120)
        with Load(url, CONFIG["name"], workers=1, pause_s=0.1) as load:
            put(url, defaultReward=-0.5)
            eventually(lambda: reward_of(url) == -0.5, 120, "the configuration is served")
            cluster.wait_until_running()
        assert (load.unlogged, load.failed) == (0, {})
        assert spec_records(valkey_url, archive) == 2

        deploy(CONFIG)
        cluster.wait_until_running()
        assert reward_of(url) == -0.5
        deploy({**CONFIG, "floor": 0.3})
        eventually(lambda: reward_of(url) == 0, 120, "the other file counts")


def test_a_service_on_a_cluster_serves_what_clients_set(valkey_url, tmp_path):
    (tmp_path / "home.yaml").write_text(yaml.safe_dump(COMMAND))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    serve = ["banditloop", "serve", str(tmp_path / "home.yaml"), "--address", "auto"]
    with (
        FixedCluster([], BANDITLOOP_REDIS_URL=valkey_url) as cluster,
        cluster.started(
            *serve, "--port", str(port), "--archive", str(tmp_path / "archive")
        ) as process,
    ):
        assert process.stdout is not None
        assert any(line.startswith("ready") for line in process.stdout)
        put(url, defaultReward=0.25)
        eventually(lambda: reward_of(url) == 0.25, 120, "the configuration is served")
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
