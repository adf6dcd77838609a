"""Services to measure: banditloop, and an empty application on the same Ray Serve."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec

from serve_app.client import is_ready
from serve_app.host.environment import free_port

READY_S = 150.0
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Service:
    """``ready_s``: from the start of its command to the first answer."""

    url: str
    pid: int
    ready_s: float
    folder: Path

    @property
    def redis_url(self) -> str:
        """Of its embedded Valkey."""
        running: Any = msgspec.json.decode(
            (self.folder / "data" / "valkey" / "running.json").read_bytes()
        )
        return str(running["url"])


@contextlib.contextmanager
def banditloop(
    folder: Path,
    specs: Mapping[str, str],
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> Iterator[Service]:
    """`banditloop serve` of these specs (YAML by name) in a folder of its own.

    ``command`` starts another build.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in specs.items():
        (folder / f"{name}.yaml").write_text(f"name: {name}\n{text}")
    program = command or [str(Path(sys.executable).parent / "banditloop")]
    serve = [
        *program,
        "serve",
        *(f"{name}.yaml" for name in specs),
        "--data-dir",
        "data",
        *arguments,
    ]
    with running(folder, serve, environment or {}) as service:
        yield service


@contextlib.contextmanager
def empty(folder: Path) -> Iterator[Service]:
    """An application that reads the body and answers {}, in the configuration that banditloop runs in."""
    folder.mkdir(parents=True, exist_ok=True)
    with running(
        folder, [sys.executable, str(Path(__file__).with_name("empty_app.py"))], {}
    ) as service:
        yield service


@contextlib.contextmanager
def running(
    folder: Path, command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[Service]:
    """A command that serves, with a free port beside it, from its start to its end."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    began = time.monotonic()
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(  # noqa: S603 - this project's own commands
            [*command, "--port", str(port)],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        while not is_ready(url):
            if process.poll() is not None or time.monotonic() - began > READY_S:
                raise SystemExit(f"not ready: {(folder / 'output').read_text()[-2000:]}")
            time.sleep(POLL_S)
        yield Service(url, process.pid, time.monotonic() - began, folder)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def put_catalogue(service: Service, policy: str, items: Sequence[Mapping[str, Any]]) -> None:
    """Replace a policy's catalogue, and wait until a replica serves it."""
    answer = httpx.put(
        f"{service.url}/v1/policies/{policy}/catalogue", json={"items": items}, timeout=60
    )
    answer.raise_for_status()
    deadline = time.monotonic() + READY_S
    while httpx.get(f"{service.url}/v1/policies/{policy}", timeout=10).json()["items"] != len(
        items
    ):
        if time.monotonic() > deadline:
            raise SystemExit(f"the catalogue of {policy} is not served")
        time.sleep(POLL_S)
