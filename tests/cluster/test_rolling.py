"""Whatever can change is changed while requests come: none fails, no event is lost, every model verifies."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from cluster.application import SPEC, application
from cluster.base import ROOT
from cluster.fixed import FixedCluster
from cluster.load import Load, stopwatch

from bandits.log.records import ArtifactRecord, SpecRecord
from policies.archive.archive import ArchiveReader
from policies.artifacts.source_artifact import Artifact, TrainedSource, write
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.client import wait_until_ready
from serve_app.host.environment import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

NODE = {"CPU": 4, "serve": 1000, "learner": 1000}


def train(root: Path, *items: str) -> str:
    """An artifact that recommends these; its version."""
    popular = TrainedSource("popular", {"counts": np.arange(1, 1 + len(items), dtype=np.float32)})
    catalogue = tuple({"id": item, "features": {"length": len(item)}} for item in items)
    return write(Artifact(catalogue, items, {"popular": popular}), root)


def new_code(folder: Path) -> str:
    """The address of a copy of this project whose documentation page says that it is new."""
    for package in ("bandits", "policies", "serve_app", "simulator"):
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    page = folder / "serve_app" / "docs_page.py"
    page.write_text(page.read_text().replace("<html", "<!-- new code --><html"))
    return f"file://{shutil.make_archive(str(folder), 'zip', folder.parent, folder.name)}"


def test_specs_sources_code_and_policies_change_while_requests_come(valkey_url, tmp_path):
    port, archive, took = free_port(), str(tmp_path / "archive"), dict[str, float]()
    url = f"http://127.0.0.1:{port}"
    versions = [
        train(tmp_path / "shop", "tea", "rum"),
        train(tmp_path / "shop", "tea", "rum", "gin"),
    ]
    shops = [
        {
            "name": "shop",
            "artifact": str(tmp_path / "shop" / version),
            "sources": [{"kind": "artifact", "name": "popular"}],
        }
        | {"join": SPEC["join"]}
        for version in versions
    ]
    greedier = {**SPEC, "floor": 0.3}
    other_model = {**greedier, "learner": {"kind": "ridge", "interactions": [["context", "item"]]}}
    news = {**SPEC, "name": "news"}
    environment = {"BANDITLOOP_REDIS_URL": valkey_url, "BANDITLOOP_ARCHIVE": archive}
    with FixedCluster([NODE, NODE], **environment) as cluster:

        def roll_out(what: str, policies: list[dict[str, Any]], code: str | None = None) -> None:
            config = application(
                tmp_path, port, policies, replicas=(2, 2), checkpoint_interval_s=2, replica_cpus=0.5
            )
            if code is not None:
                config["applications"][0]["runtime_env"] = {"working_dir": code}
            with stopwatch(took, what):
                cluster.deploy(config)
                time.sleep(0.5)
                cluster.wait_until_running()

        roll_out("first deployment", [SPEC, shops[0]])
        wait_until_ready(url, timeout_s=120)
        home = Load(url, "home", workers=2, pause_s=0.05)
        shop = Load(url, "shop", workers=2, pause_s=0.05, actions=None)
        with home, shop:
            time.sleep(2)
            roll_out("a new spec", [greedier, shops[0]])
            roll_out("a new model", [other_model, shops[0]])
            roll_out("a new source artifact", [other_model, shops[1]])
            roll_out("one more policy", [other_model, shops[1], news])
            with Load(url, "news", workers=1, pause_s=0.05) as added:
                time.sleep(2)
            roll_out("one policy less", [other_model, shops[1]])
            roll_out("new code", [other_model, shops[1]], new_code(tmp_path / "code"))
            assert "new code" in httpx.get(f"{url}/docs").text
            time.sleep(2)
        assert httpx.get(f"{url}/v1/policies").json()["policies"] == ["home", "shop"]
        print(took, f"home: {home}", f"shop: {shop}", f"news: {added}", sep="\n")
        for each in (home, shop, added):
            assert each.answered > 10
            assert (each.unlogged, each.failed) == (0, {})
            each.audit(valkey_url, archive)
        time.sleep(2)
        for policy in ("home", "shop", "news"):
            report = json.loads(
                cluster.run("banditloop", "snapshots", "verify", "--policy", policy, "--json")
            )
            assert {each["verdict"] for each in report["snapshots"]} == {"identical"}, policy
    with redis.Redis.from_url(valkey_url) as client:
        said = {
            name: StoredPolicy(client, name, ArchiveReader(archive, name))
            for name in ("home", "shop")
        }
        records = {
            name: [entry.record for entry in each.history.encoded("0-0")]
            for name, each in said.items()
        }
    assert sum(isinstance(each, SpecRecord) for each in records["home"]) == 3
    assert [
        each.version for each in records["shop"] if isinstance(each, ArtifactRecord)
    ] == versions
