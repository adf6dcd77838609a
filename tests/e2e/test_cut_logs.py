"""A service whose logs are cut while it runs: it goes on, it is proven, and it starts again."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from policies.requests import ActionRequest
from serve_app.client import Client, wait_until_ready
from serve_app.host.environment import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(400)]

SPEC = """
space: shop
learner: {kind: ridge, interactions: [[context, features]]}
exploration: {kind: lints, scale: 0.3, draws: 50}
join: {window_s: 1}
profile: {items: 20}
repeat: {purchased: never}
"""
ENVIRONMENT = {
    "BANDITLOOP_ARCHIVE_MAX_AGE_S": "1",
    "BANDITLOOP_CHECKPOINT_INTERVAL_S": "2",
    "BANDITLOOP_REDIS_TIMEOUT_S": "10",
}
ITEMS = ("lamp", "chair", "rug")
ACTIONS = [ActionRequest(item, {"kind": item}) for item in ITEMS]
PATIENCE_S = 60.0


def banditloop(*arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    command = [str(Path(sys.executable).parent / "banditloop"), *arguments]
    with (cwd / "output").open("w") as printed:
        return subprocess.Popen(
            command,
            cwd=cwd,
            text=True,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **ENVIRONMENT},
        )


def told(*arguments: str, cwd: Path) -> str:
    process = banditloop(*arguments, cwd=cwd / "told")
    status, said = process.wait(120), (cwd / "told" / "output").read_text()
    assert status == 0, said
    return said


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    port = free_port()
    process = banditloop("serve", "home.yaml", "parts.yaml", "--port", str(port), cwd=folder)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", timeout_s=150)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def visit(url: str, policy: str, count: int) -> None:
    """Users ask and are paid; all of it is learned afterwards."""
    before = httpx.get(f"{url}/v1/policies/{policy}").json()["learned"]
    with Client(url, policy, space="shop", retries=8) as client:
        for number in range(count):
            answer = client.rank(ACTIONS, user_id=f"u{number % 7}", context={"hour": number % 5})
            client.reward(answer.event_id, float(answer.chosen[0].id == "lamp"))

    def learned() -> bool:
        return httpx.get(f"{url}/v1/policies/{policy}").json()["learned"] >= before + count

    until(learned, "all is learned")


def archived(folder: Path) -> set[Path]:
    return {
        each
        for each in (folder / ".banditloop" / "archive").rglob("*.parquet")
        if not each.parent.name.startswith("_")
    }


def test_logs_are_cut_under_a_service_which_starts_again_and_is_proven(tmp_path):
    """Of one log, of two partitions, and of the activity of the space that both share."""
    (tmp_path / "told").mkdir()
    (tmp_path / "home.yaml").write_text(f"name: home\n{SPEC}")
    (tmp_path / "parts.yaml").write_text(f"name: parts\npartitions: 2\n{SPEC}")
    where = ("--data-dir", str(tmp_path / ".banditloop"))

    def proven() -> list[str]:
        for policy in ("home", "parts"):
            said = json.loads(told("snapshots", "verify", policy, "--json", *where, cwd=tmp_path))
            assert said["holds"], said
            assert said["root"] is not None
        return told("profiles", "verify", "--space", "shop", *where, cwd=tmp_path)

    def still_bars(client: Client) -> bool:
        answer = client.rank(ACTIONS, user_id="ann", return_pmf=True)
        return answer.profile is True and {each.id for each in answer.pmf} == {"chair", "rug"}

    with served(tmp_path) as url:
        with Client(url, "home", space="shop", retries=8) as client:
            for item in ITEMS:
                httpx.put(f"{url}/v1/policies/home/items/{item}", json={"features": {}})
            client.did("ann", "lamp", "purchase")
            client.did("bob", "rug", "view")
            until(lambda: still_bars(client), "what ann has bought is known")
        for _ in range(3):
            for policy in ("home", "parts"):
                visit(url, policy, 30)
        time.sleep(3)  # checkpoints, files of the archive: one of each a second or two

        before = archived(tmp_path)
        for command in (
            ("snapshots", "root", "1s", "--policy", "home"),
            ("snapshots", "root", "1s", "--policy", "parts"),
            ("spaces", "root", "1s", "--space", "shop"),
        ):
            assert "root" in told(*command, "--remove", *where, cwd=tmp_path)
        assert len(before - archived(tmp_path)) >= 3
        for policy in ("home", "parts"):
            visit(url, policy, 10)
        proven()
        told("profiles", "rebuild", "--space", "shop", *where, cwd=tmp_path)
        with Client(url, "home", space="shop", retries=8) as client:
            assert still_bars(client)

    with served(tmp_path) as url:
        with Client(url, "home", space="shop", retries=8) as client:
            until(lambda: still_bars(client), "what ann has bought is known to who starts again")
        for policy in ("home", "parts"):
            visit(url, policy, 10)
        proven()
