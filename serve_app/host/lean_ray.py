"""Ray on one machine, without what nobody there asks: all that touches Ray's private parts for it.

``ray.init`` starts a server for a dashboard that is not shown, a monitor for an autoscaler that has
no nodes to add, a process that follows logs, and on each node two agents: one for the dashboard,
one that installs packages. Each is a Python process of 50 to 80 MB, which takes part in every
start. Nobody here calls them. What the raylet demands of its agents is two commands that go on
running, and the ports that they would have written to files: it gets both.

Serve imports pandas for a type that it would encode, where pandas is installed: 33 MB in each of
its processes. Ray's processes find a module of that name that says that it is not there.

What is left is forked from one process that has imported what they all import: see
forking/server.py. The main thread of each looks a hundred times a second whether Python has a
signal for it, and whether Python ends; once they have started, ours rest between two looks.

All of Ray runs in a session of its own. A signal for the whole group of the command's processes
(Ctrl-C, ``timeout``, ``kill -- -PGID``) then reaches the command, which stops them in good order.

Where Ray is not the one that this was written for, or ``BANDITLOOP_LEAN_RAY=off`` is in the
environment, Ray starts as it always does.
"""

import contextlib
import logging
import os
import secrets
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from importlib import import_module, metadata
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

from serve_app.host.forking import client
from serve_app.host.forking.server import can_fork, fork_server
from serve_app.host.loopback import named_starter
from serve_app.settings import Settings

RAY = "2.60."
"""The versions of Ray whose private parts are those that are used here."""
SWITCH = "BANDITLOOP_LEAN_RAY"
NOT_IN_USE = -1
"""What an agent writes in the place of a port that it does not listen on."""
PORTS = (
    "METRICS_AGENT_PORT_NAME",
    "METRICS_EXPORT_PORT_NAME",
    "DASHBOARD_AGENT_LISTEN_PORT_NAME",
    "RUNTIME_ENV_AGENT_PORT_NAME",
)
IDLE = """#!/bin/sh
# Stands for an agent of Ray: ends with the raylet, which has started it.
exec tail --pid="$PPID" -f /dev/null
"""
FOLDER = "absent-modules"
ABSENT = "no process of the service needs pandas: see lean_ray.py"
PYTHON_WORKER = "--python_worker_command="
SETUP_WORKER = "setup_worker.py"
AGENTS = ("--dashboard_agent_command=", "--runtime_env_agent_command=")
RAYLET, JOB = READ_ONCE = "RAY_RAYLET_PID", "RAY_JOB_ID"
"""What Ray's compiled part reads when it is imported, and never again.

The process with whose end those of Ray end is the command's, with which the raylet ends. A process
that is of no job yet is of the first one that gives it work.
"""
NO_JOB = "ffffffff"
PRELOADED = (
    "ray._private.workers.default_worker",
    "ray.serve._private.controller",
    "ray.serve._private.haproxy",
    "ray.serve._private.proxy",
    "ray.serve._private.replica",
    "serve_app.app",
    "serve_app.workers.archiver",
    "serve_app.workers.learner_factory",
    "serve_app.workers.users_backup",
)
"""What the processes of a service import."""

LOOK_S, STARTED_S = 0.06, 10.0
"""How long the main thread of a process of Ray rests between two looks, and from what age on.

So long a call of an actor may wait for its turn; no request to the service is one.
"""

log = logging.getLogger("banditloop.runtime")


@contextlib.contextmanager
def forks_for_ray(settings: Settings) -> Iterator[str | None]:
    """Have a fork server of Ray's processes while this context lasts; yield its socket's name.

    Yield None where Ray starts as it always does, or where this process has threads.

    Args:
        settings: of the service.
    """
    if why_not_lean() is not None or not can_fork() or "ray" in sys.modules:
        yield None
        return

    sys.meta_path.insert(0, _WithoutPandas())
    found = {name: os.environ.get(name) for name in READ_ONCE}
    os.environ.update({RAYLET: str(os.getpid()), JOB: NO_JOB})
    with named_starter(settings), _ids_drawn_by_the_system():
        for name in PRELOADED:
            import_module(name)
    for name, value in found.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value
    if can_fork():
        with fork_server(_read_environment_again) as server:
            yield server
    else:
        log.warning("each process of Ray starts by itself: modules have started threads")
        yield None


@contextlib.contextmanager
def lean_ray(
    folder: Path, *, forks: str | None = None, follows_logs: bool = False
) -> Iterator[None]:
    """Have ``ray.init`` start what is needed and no more, while this context lasts.

    Args:
        folder: where the module is kept that stands for pandas.
        forks: the name of the fork server's socket; None: each process starts by itself.
        follows_logs: whether logs are shown here, for which Ray follows them.
    """
    reason = why_not_lean()
    if reason is not None:
        log.warning("Ray starts with processes that nobody asks: %s", reason)
        yield
        return
    from ray._private import node, services  # noqa: PLC0415 - only where Ray runs

    kinds: Any = node.Node
    start = services.start_ray_process

    def start_process(command: Sequence[str], process_type: str, *given: Any, **named: Any) -> Any:
        lean = lean_command(command, process_type, forks)
        return start(lean, process_type, *given, **named)

    def no_api_server(self: Any, **_: Any) -> None:
        self._webui_url = ""

    left_out = {"start_api_server": no_api_server, "start_monitor": _nothing}
    if not follows_logs:
        left_out["start_log_monitor"] = _nothing
    before = {name: getattr(kinds, name) for name in left_out}
    path = os.environ.get("PYTHONPATH")
    try:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_without_pandas(folder), path]))
        services.start_ray_process = start_process
        for name, instead in left_out.items():
            setattr(kinds, name, instead)
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        if path is not None:
            os.environ["PYTHONPATH"] = path
        services.start_ray_process = start
        for name, function in before.items():
            setattr(kinds, name, function)


class _WithoutPandas(MetaPathFinder):
    """Says of pandas that it is not there, in this process and its forks, as the folder does."""

    def find_spec(self, name: str, *_: object) -> None:
        """Find nothing, and of pandas say so.

        Raises:
            ImportError: it is pandas.
        """
        if name == "pandas":
            raise ImportError(ABSENT)


@contextlib.contextmanager
def pandas_hidden() -> Iterator[None]:
    """Have whoever looks for pandas, as pyarrow does once, not find it while this context lasts.

    Its import takes 41 MB that nothing of ours uses.
    """
    absent = _WithoutPandas()
    sys.meta_path.insert(0, absent)
    try:
        yield
    finally:
        sys.meta_path.remove(absent)


def _without_pandas(folder: Path) -> str:
    """Return a folder in which a module called pandas says that it is not there."""
    absent = folder.resolve() / FOLDER
    absent.mkdir(parents=True, exist_ok=True)
    (absent / "pandas.py").write_text(f"raise ImportError({ABSENT!r})\n")
    return str(absent)


def environment_of_commands() -> dict[str, str]:
    """Return this process's environment for a command that it runs, which may need pandas."""
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [part for part in path if Path(part).name != FOLDER]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(kept)}


@contextlib.contextmanager
def _ids_drawn_by_the_system() -> Iterator[None]:
    """Have modules that are imported in this context draw no number from Ray's compiled part.

    A decorator of Ray draws the id of a class. The generators of all threads are seeded from one
    pool, which the first number fills: had it been filled here, each fork would draw, in each of
    its threads, what the others draw.
    """
    actor: Any = import_module("ray.actor")
    kind = actor.ActorClassID

    class _Drawn:
        @staticmethod
        def from_random() -> object:
            return kind(secrets.token_bytes(kind.size()))

    actor.ActorClassID = _Drawn
    try:
        yield
    finally:
        actor.ActorClassID = kind


def _read_environment_again() -> None:
    """Have Ray's compiled part read the environment, which it has when it was imported."""
    from ray import _raylet  # noqa: PLC0415 - only where Ray runs

    compiled: Any = _raylet
    compiled.Config.initialize("")
    compiled.sys = RestingSystem()


class RestingSystem:
    """Stands for the module ``sys`` in Ray's compiled part, which asks it at every look.

    The look is the main thread's alone; other threads may ask as well, and do not rest.
    """

    def __init__(self) -> None:
        self._main = threading.get_ident()
        self._rests_at = time.monotonic() + STARTED_S

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)

    def is_finalizing(self) -> bool:
        """Say whether Python ends, after a rest."""
        if threading.get_ident() == self._main and time.monotonic() > self._rests_at:
            time.sleep(LOOK_S)
        return sys.is_finalizing()


def _nothing(*_: Any, **__: Any) -> None:
    pass


def why_not_lean() -> str | None:
    """Return why Ray starts as it always does; None if it need not."""
    if os.environ.get(SWITCH, "on") != "on":
        return f"{SWITCH} says so"
    version = metadata.version("ray")
    if not version.startswith(RAY):
        return f"Ray is {version}, and {RAY}x is known"
    missing = shutil.which("setsid") is None
    return "there is no command setsid: install util-linux" if missing else None


def lean_command(command: Sequence[str], process_type: str, forks: str | None = None) -> list[str]:
    """Return the command that starts one of Ray's processes, in a session of its own.

    That of a raylet names agents that do nothing, whose ports are written here, and asks the fork
    server for Python.

    Args:
        command: Ray's.
        process_type: what Ray calls the process.
        forks: the name of the fork server's socket; None: each process starts by itself.
    """
    parts = list(command)
    if process_type == "raylet":
        given = dict(
            part[2:].split("=", 1) for part in parts if part.startswith("--") and "=" in part
        )
        _write_ports(given["session_dir"], given["node_id"])
        idle = Path(given["session_dir"]) / "idle_agent"
        idle.write_text(IDLE)
        idle.chmod(stat.S_IRWXU)
        parts = [
            next((f"{option}{idle}" for option in AGENTS if part.startswith(option)), part)
            for part in parts
        ]
        if forks is not None:
            parts = [_forking(part, forks) for part in parts]
    return [str(shutil.which("setsid")), *parts]


def _forking(part: str, forks: str) -> str:
    """Return what a raylet is told, with the fork server's client where it says Python."""
    if not part.startswith(PYTHON_WORKER):
        return part
    # The raylet drops this script of Ray's from the command; its words stay.
    python, setup, rest = part.partition(f"{SETUP_WORKER} ")
    asks = subprocess.list2cmdline(["-I", "-S", client.__file__, forks])
    return f"{python}{setup}{asks} {rest}" if setup else part


def _write_ports(session_dir: str, node_id: str) -> None:
    """Write that no agent of a node listens."""
    from ray import _raylet  # noqa: PLC0415 - only where Ray runs

    compiled: Any = _raylet
    for name in PORTS:
        compiled.persist_port(session_dir, node_id, getattr(compiled, name), NOT_IN_USE)
