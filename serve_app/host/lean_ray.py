"""Ray on one machine, without what nobody there asks: all that touches Ray's private parts for it.

``ray.init`` starts a server for a dashboard that is not shown, a monitor for an autoscaler that has
no nodes to add, a process that follows logs, and on each node two agents: one for the dashboard,
one that installs packages. Each is a Python process of 50 to 80 MB, which takes part in every
start. Nobody here calls them. What the raylet demands of its agents is two commands that go on
running, and the ports that they would have written to files: it gets both.

Serve imports pandas for a type that it would encode, where pandas is installed: 33 MB in each of
its processes. Ray's processes find a module of that name that says that it is not there.

All of Ray runs in a session of its own. A signal for the whole group of the command's processes
(Ctrl-C, ``timeout``, ``kill -- -PGID``) then reaches the command, which stops them in good order.

Where Ray is not the one that this was written for, or ``BANDITLOOP_LEAN_RAY=off`` is in the
environment, Ray starts as it always does.
"""

import contextlib
import logging
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
while kill -0 "$PPID" 2>/dev/null; do sleep 5; done
"""
FOLDER = "absent-modules"
ABSENT = 'raise ImportError("no process of the service needs pandas: see lean_ray.py")\n'
AGENTS = ("--dashboard_agent_command=", "--runtime_env_agent_command=")

log = logging.getLogger("banditloop.runtime")


@contextlib.contextmanager
def lean_ray(folder: Path, *, follows_logs: bool = False) -> Iterator[None]:
    """Have ``ray.init`` start what is needed and no more, while this context lasts.

    Args:
        folder: where the module is kept that stands for pandas.
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
        return start(lean_command(command, process_type), process_type, *given, **named)

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


def _without_pandas(folder: Path) -> str:
    """Return a folder in which a module called pandas says that it is not there."""
    absent = folder.resolve() / FOLDER
    absent.mkdir(parents=True, exist_ok=True)
    (absent / "pandas.py").write_text(ABSENT)
    return str(absent)


def environment_of_commands() -> dict[str, str]:
    """Return this process's environment for a command that it runs, which may need pandas."""
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [part for part in path if Path(part).name != FOLDER]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(kept)}


def _nothing(*_: Any, **__: Any) -> None:
    pass


def why_not_lean() -> str | None:
    """Return why Ray starts as it always does; None if it need not."""
    import ray  # noqa: PLC0415 - only where Ray runs

    if os.environ.get(SWITCH, "on") != "on":
        return f"{SWITCH} says so"
    if not ray.__version__.startswith(RAY):
        return f"Ray is {ray.__version__}, and {RAY}x is known"
    missing = shutil.which("setsid") is None
    return "there is no command setsid: install util-linux" if missing else None


def lean_command(command: Sequence[str], process_type: str) -> list[str]:
    """Return the command that starts one of Ray's processes, in a session of its own.

    That of a raylet names agents that do nothing, whose ports are written here.

    Args:
        command: Ray's.
        process_type: what Ray calls the process.
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
    return [str(shutil.which("setsid")), *parts]


def _write_ports(session_dir: str, node_id: str) -> None:
    """Write that no agent of a node listens."""
    from ray import _raylet  # noqa: PLC0415 - only where Ray runs

    compiled: Any = _raylet
    for name in PORTS:
        compiled.persist_port(session_dir, node_id, getattr(compiled, name), NOT_IN_USE)
