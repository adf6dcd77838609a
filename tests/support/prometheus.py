"""A real Prometheus (Debian's package), started over a service and asked by its own API."""

import contextlib
import math
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from serve_app.host.environment import free_port

PATIENCE_S = 60.0
DEMANDED = "BANDITLOOP_DEMAND_PROMETHEUS"
"""Set where no test may be left out for want of Prometheus, as in CI."""


def program(name: str) -> str:
    """Where a program is; skips the test where it is not installed."""
    found = shutil.which(name)
    if found is None:
        assert not os.environ.get(DEMANDED), f"there is no {name}: .ci/run installs it"
        pytest.skip(f"no {name} is installed here")
    return found


class Prometheus:
    """One that runs. ``url``: of its API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The samples that an expression has now, those that are no number left out."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        return [
            each for each in answer["data"]["result"] if not math.isnan(float(each["value"][1]))
        ]

    def rules(self) -> list[dict[str, Any]]:
        """Its rules, each with its health and its last error."""
        groups = httpx.get(f"{self.url}/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


@contextlib.contextmanager
def prometheus(config: dict[str, Any], folder: Path) -> Iterator[Prometheus]:
    """Run one.

    Args:
        config: of it, with paths that are absolute.
        folder: for its files.
    """
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + PATIENCE_S
        while not _is_ready(url):
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < deadline, (folder / "prometheus.log").read_text()
            time.sleep(0.1)
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/-/ready").status_code == httpx.codes.OK
    return False
