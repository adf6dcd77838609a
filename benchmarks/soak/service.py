"""The service that benchmarks/soak/soak.py runs, and what its processes and its Valkey hold."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec
import redis

from serve_app.client import wait_until_ready
from serve_app.host.environment import free_port
from serve_app.store.keys import Keys

POLICY = "soak"
SPEC = """
name: soak
learner: {kind: ridge, standbys: 1, interactions: [[context, features]]}
join: {window_s: 10}
"""
SETTINGS = {"CHECKPOINT_INTERVAL_S": "10", "ARCHIVE_MAX_AGE_S": "5", "ARCHIVE_RETAIN_S": "601"}
TITLES = {
    "ray::LearnerActor": "learner",
    "ServeReplica:banditloop:rank": "replicas",
    "ray::ArchiverActor": "archiver",
    "ServeReplica:banditloop:keeper": "keeper",
    "ServeController": "controller",
    "valkey-server": "valkey",
    "bin/haproxy": "haproxy",
    "raylet/raylet": "raylet",
    "gcs_server": "gcs",
    "banditloop serve": "serve command",
    "ray::ProxyActor": "proxy actors",
    "ray::HAProxyManager": "proxy actors",
}
"""What a command line contains, and what such a process is called here; Ray's agents and idle workers are "other"."""
REDIS = (
    "used_memory",
    "used_memory_overhead",
    "used_memory_dataset",
    "mem_clients_normal",
    "mem_aof_buffer",
)
STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """``rss``: bytes by kind of process; ``own``: those of them that are of no file.

    ``pids``: those of each kind.

    ``at_s``: since the service was ready. ``redis``: bytes by what INFO calls them.
    """

    at_s: float
    rss: dict[str, int]
    own: dict[str, int]
    pids: dict[str, list[int]]
    redis: dict[str, int]
    log_entries: int


class Service:
    """``banditloop serve`` on a folder of its own, from ``with`` to the end of its block."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        self._keys = Keys(POLICY)

    def __enter__(self) -> Self:
        (self._folder / "soak.yaml").write_text(SPEC)
        command = [
            str(Path(sys.executable).parent / "banditloop"),
            "serve",
            "soak.yaml",
            "--data-dir",
            "data",
        ]
        command += ["--port", self.url.rpartition(":")[2], "--replicas", "2"]
        settings = {f"BANDITLOOP_{name}": value for name, value in SETTINGS.items()}
        with (self._folder / "service.log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this project's own command
                command, cwd=self._folder, env={**os.environ, **settings}, stdout=log, stderr=log
            )
        try:
            wait_until_ready(self.url, timeout_s=120)
        except BaseException:
            print(
                (self._folder / "service.log").read_text(errors="replace")[-2000:], file=sys.stderr
            )
            self._stop()
            raise
        running = msgspec.json.decode(
            (self._folder / "data" / "valkey" / "running.json").read_bytes()
        )
        self._client = redis.Redis.from_url(running["url"], socket_timeout=10)
        self._ready_at = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._stop()

    def sample(self) -> Sample:
        """What everything holds now. The leader is whoever has the lease."""
        token: Any = self._client.get(self._keys.lease)
        leader = None if token is None else int(token.decode().partition(":")[2].partition(".")[0])
        rss: dict[str, int] = defaultdict(int)
        own: dict[str, int] = defaultdict(int)
        pids: dict[str, list[int]] = defaultdict(list)
        for pid, title in sorted(descendants(self._process.pid).items()):
            kind = next((name for part, name in TITLES.items() if part in title), "other")
            if kind == "learner":
                kind = "learner, leading" if pid == leader else "learner, standby"
            with contextlib.suppress(OSError, StopIteration):
                whole, anonymous = rss_of(pid), rss_of(pid, "RssAnon")
                rss[kind] += whole
                own[kind] += anonymous
                pids[kind].append(pid)
        info: Any = self._client.info("memory")
        entries = int(self._client.xlen(self._keys.log))
        at_s = time.monotonic() - self._ready_at
        return Sample(
            at_s,
            dict(rss),
            dict(own),
            dict(pids),
            {name: int(info[name]) for name in REDIS},
            entries,
        )

    def _stop(self) -> None:
        started = {pid: _started(pid) for pid in descendants(self._process.pid)}
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        time.sleep(1.0)
        for pid, when in started.items():
            # still the same process, not another one of that number
            if when is not None and _started(pid) == when:
                print(f"process {pid} has outlived its service: killed", file=sys.stderr)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def descendants(root: int) -> dict[int, str]:
    """``root`` and every living process that it started, directly or not, with its command line."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    parents[int(entry.name)] = int(fields[1])
                    titles[int(entry.name)] = (
                        (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    )
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: titles[pid] for pid in found if pid in titles}


def rss_of(pid: int, which: str = "VmRSS") -> int:
    """Resident memory of a process, in bytes: all of it, or that of no file (RssAnon)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{which}:"))


def _started(pid: int) -> str | None:
    """When a process was started, in clock ticks; None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
