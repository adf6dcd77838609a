"""A Ray cluster of several nodes on this machine, as its operator sees it: commands, the dashboard's API, HTTP."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Self

import httpx
from support.processes import descendants

from serve_app.host.environment import CLUSTER_NODE, CLUSTERS, SIDE_PORTS, free_port

START_S = 90.0
BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]
ROLES = ("serve", "replay")


class RayCluster:
    """A context manager: it runs inside, nothing of it is left afterwards.

    ``environment`` is that of every node.

    Ports, folders and the token are its own. HAProxy's files are in ``folder``.
    """

    ready = ""
    """What the command prints once the cluster is there."""

    def __init__(self, **environment: str) -> None:
        # short: it becomes part of sockets' names
        self.folder = folder = Path(tempfile.mkdtemp(prefix="ray-"))
        self.port, self.dashboard_port = free_port(), free_port()
        self.host = own_address()
        self.address = f"{self.host}:{self.port}"
        self.dashboard = f"http://127.0.0.1:{self.dashboard_port}"
        token = secrets.token_hex(32)
        self._http = httpx.Client(
            base_url=self.dashboard,
            headers={"authorization": f"Bearer {token}"},
            timeout=60,
            trust_env=False,
        )
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if name != "PYTHONDONTWRITEBYTECODE"
            },
            **CLUSTER_NODE,
            **{name: str(free_port()) for name in SIDE_PORTS},
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'clients' / 'python'}",
            "RAY_ADDRESS": self.address,
            "RAY_DASHBOARD_ADDRESS": self.dashboard,
            CLUSTERS: "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            "RAY_SERVE_PORT_QUARANTINE_S": "0",
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy" / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "haproxy" / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder / "haproxy"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "haproxy" / "server-state"),
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(_haproxy(folder)),
            "BANDITLOOP_HOST": "127.0.0.1",
            "BANDITLOOP_SALT": "s" * 32,
            **environment,
        }

    def command(self) -> list[str]:
        """What starts the cluster and ends with it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        output = self.folder / "output"
        with output.open("w") as file:
            self._process = subprocess.Popen(
                self.command(),
                env=self.environment,
                # Ray has every worker import from where its driver was started, before anything
                # else
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_S
        try:
            while self.ready not in output.read_text():
                assert self._process.poll() is None, output.read_text()
                assert time.monotonic() < deadline, (
                    f"the cluster does not start: {output.read_text()}"
                )
                time.sleep(0.2)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        everything = descendants(self._process.pid)
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        for pid in {*everything, *_with_argument(str(self.folder))}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.communicate()
        self._http.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def nodes(self) -> Counter[str]:
        """How many living nodes there are of each type."""
        return Counter(
            _role_of(node) for node in self.listed("nodes", detail="1") if node["state"] == "ALIVE"
        )

    def listed(self, what: str, **parameters: str) -> list[dict[str, Any]]:
        """Nodes, actors or tasks, as Ray's state API lists them."""
        return self._http.get(f"/api/v0/{what}", params=parameters).json()["data"]["result"][
            "result"
        ]

    def deploy(self, config: dict[str, Any]) -> None:
        """What ``serve deploy`` does with a config file, by the same request."""
        self._http.put("/api/serve/applications/", json=config).raise_for_status()

    def status(self) -> dict[str, Any]:
        """What Serve says of the application."""
        return (
            self._http.get("/api/serve/applications/").json()["applications"].get("banditloop", {})
        )

    def replicas(self) -> int:
        """Replicas that answer, of any version."""
        found = self.status()["deployments"]["rank"]["replicas"]
        return sum(each["state"] == "RUNNING" for each in found)

    def wait_until_running(self, timeout_s: float = 120) -> None:
        """Wait until the application is as it was last deployed."""
        deadline = time.monotonic() + timeout_s
        while (found := self.status()).get("status") != "RUNNING":
            assert found.get("status") != "DEPLOY_FAILED", found
            assert time.monotonic() < deadline, found
            time.sleep(0.5)

    def started(self, *command: str) -> "subprocess.Popen[str]":
        """One of this environment's commands, running on the cluster's head."""
        return subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            env={**self.environment, "COLUMNS": "200"},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str, timeout_s: float = 120) -> str:
        """What such a command prints."""
        with self.started(*command) as process:
            try:
                said, _ = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                said, _ = process.communicate()
                raise AssertionError(f"{command} takes too long: {said[-3000:]}") from None
        assert process.returncode == 0, said[-3000:]
        return said


def own_address() -> str:
    """The address as Ray finds it: where a packet to the world would come from. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 80))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _with_argument(text: str) -> list[int]:
    """Processes that have this in their command: HAProxy, for one, is nobody's child once it has been reloaded."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and text.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def _role_of(node: dict[str, Any]) -> str:
    return next((role for role in ROLES if role in node["resources_total"]), "head")


def _haproxy(folder: Path) -> Path:
    """The starter that ``pip install`` makes of this project's entry point, for a checkout that is not installed."""
    (folder / "haproxy").mkdir()
    starter = folder / "haproxy" / "banditloop-haproxy"
    starter.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "from serve_app.host.haproxy import *;'
        ' on_cluster_node()" "$@"\n'
    )
    starter.chmod(0o700)
    return starter
