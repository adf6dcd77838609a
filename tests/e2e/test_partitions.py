"""The real service with two partitions on a Redis Cluster: a learner is killed under traffic, and nothing is lost."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.clusters import cluster
from support.processes import descendants
from support.servers import binary_of

from bandits.features.hashing import partition_of
from policies.archive.archive import ArchiveReader, archive_folders
from policies.requests import ActionRequest
from serve_app.client import Client, wait_until_ready
from serve_app.host.environment import free_port

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not os.environ.get("BANDITLOOP_EVERY_FAULT"),
        reason="one more service to start: make partitions",
    ),
]

SPEC = """
name: news
learner: {kind: ridge, interactions: [[context, features]]}
exploration: {kind: lints, scale: 0.3, draws: 50}
join: {window_s: 1}
partitions: 2
"""
ACTIONS = [ActionRequest("good", {"topic": "sport"}), ActionRequest("bad", {"topic": "war"})]
BANDITLOOP = str(Path(sys.executable).parent / "banditloop")


@pytest.fixture
def service(tmp_path) -> Iterator[tuple[str, int, list[str]]]:
    """Its address, its process, and what a command needs to find its log."""
    (tmp_path / "news.yaml").write_text(SPEC)
    with cluster(binary_of("valkey"), tmp_path) as servers:
        port = free_port()
        where = ["--redis-url", servers.url, "--data-dir", str(tmp_path / "data")]
        command = [
            BANDITLOOP,
            "serve",
            str(tmp_path / "news.yaml"),
            "--port",
            str(port),
            "--replicas",
            "2",
            *where,
        ]
        env = {**os.environ, "BANDITLOOP_ARCHIVE_MAX_AGE_S": "1"}
        with (tmp_path / "output").open("w") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, env=env
            )
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", timeout_s=150)
            yield f"http://127.0.0.1:{port}", process.pid, where
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def told(*arguments: str) -> tuple[dict, int]:
    """What a command prints as JSON, and its exit status."""
    done = subprocess.run([BANDITLOOP, *arguments], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.returncode


def test_learners_of_two_partitions_die_and_the_logs_together_give_what_was_served(
    service, tmp_path
):
    url, root, where = service
    sent, ages = 0, []
    with Client(url, "news", retries=8) as client:
        for part in range(6):
            names = [f"visit-{part}-{i}" for i in range(40)]
            assert {partition_of(name, 2) for name in names} == {0, 1}
            for name in names:
                answer = client.rank(ACTIONS, context={"hour": 3}, event_id=name)
                assert answer.logged
                client.reward(answer.event_id, float(answer.chosen[0].id == "good"))
            sent += len(names)
            if part in {1, 3}:
                learners = [pid for pid, title in descendants(root).items() if "Learner" in title]
                assert len(learners) == 2
                os.kill(learners[part // 2], signal.SIGKILL)
            learnable = time.monotonic() + 1.0
            while httpx.get(f"{url}/v1/policies/news").json()["learned"] < sent:
                assert time.monotonic() < learnable + 30
                time.sleep(0.02)
            ages.append(round(time.monotonic() - learnable, 2))
    print("seconds from the last window's end to served, after each part:", ages)  # noqa: T201
    # the interval and a second; and a crowded machine
    assert max(ages[part] for part in (0, 2, 4, 5)) < 2.0 + 3.0
    found, status = told("snapshots", "verify", "--json", *where)
    assert (found["learned"], status) == (sent, 0), found
    assert told("doctor", "--json", *where)[0]["decisions"] == sent
    folders = archive_folders(tmp_path / "data" / "archive", "news")
    assert folders == ["news/partition=0", "news/partition=1"]
    assert all(ArchiveReader(tmp_path / "data" / "archive", folder).ranges() for folder in folders)
    assert 'banditloop_merges_total{policy="news"}' in httpx.get(f"{url}/metrics").text
