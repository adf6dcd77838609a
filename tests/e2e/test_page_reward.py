"""The real service with a reward of the whole page: each slot of it is taught what the page earned."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from policies.requests import ActionRequest
from serve_app.client import Client, wait_until_ready
from serve_app.host.environment import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

SPEC = """
name: {name}
learner: {{kind: ridge, interactions: [[context, features]]}}
exploration: {{kind: softmax, temperature: 0.2}}
join: {{window_s: 1, {join}}}
"""
POLICIES = {"pages": "page_reward: sum", "slots": "default_reward: 0"}
BANDITLOOP = str(Path(sys.executable).parent / "banditloop")
PAGES = 60


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """Its address and its data, of two policies that differ in what a page earns."""
    folder = tmp_path_factory.mktemp("pages")
    specs = []
    for name, join in POLICIES.items():
        specs.append(str(folder / f"{name}.yaml"))
        Path(specs[-1]).write_text(SPEC.format(name=name, join=join))
    port, data = free_port(), folder / "data"
    command = [BANDITLOOP, "serve", *specs, "--port", str(port), "--data-dir", str(data)]
    with (folder / "output").open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", timeout_s=150)
        yield f"http://127.0.0.1:{port}", data
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_all_slots_of_a_page_are_taught_what_it_earned(service):
    """Each page shows both, and only ``clicked`` is ever named by a reward: so both earn alike."""
    url, data = service
    actions = [ActionRequest(name, {"is": name}) for name in ("clicked", "beside")]
    chances = {}
    for name in POLICIES:
        with Client(url, name) as client:
            for _ in range(PAGES):
                page = client.rank(actions, slots=2)
                assert page.logged
                client.reward(page.event_id, 1.0, action_id="clicked")

            deadline = time.monotonic() + 60
            while httpx.get(f"{url}/v1/policies/{name}").json()["learned"] < 2 * PAGES:
                assert time.monotonic() < deadline, "not all pages were learned"
                time.sleep(0.1)
            newest = httpx.get(f"{url}/v1/policies/{name}").json()["snapshot_id"]
            while (answer := client.rank(actions, return_pmf=True)).snapshot_id < newest:
                assert time.monotonic() < deadline, "what was learned is not served"
            chances[name] = {each.id: each.probability for each in answer.pmf}

    assert chances["slots"]["clicked"] > 0.9
    assert chances["pages"]["clicked"] == pytest.approx(0.5, abs=0.05)

    where = ["--data-dir", str(data)]
    done = subprocess.run(
        [BANDITLOOP, "snapshots", "verify", "--policy", "pages", *where],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
