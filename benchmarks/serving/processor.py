"""Whose processor time a load uses: seconds by process of this machine.

And a process that takes all it can get.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
NAMES = (
    ("rank replica", r"ServeReplica:\S+:rank"),
    ("empty replica", r"ServeReplica:\S+:empty"),
    ("learner", r"ray::Learner"),
    ("archiver", r"ray::Archiver"),
    ("shadows", r"ray::Shadow"),
    ("console", r"ServeReplica:console"),
    ("Serve's controller", r"ServeController"),
    ("Serve's proxies and keeper", r"ray::(Proxy|HAProxy|ServeReplica)"),
    ("console's commands", r"office/beside\.py"),
    ("HAProxy", r"haproxy"),
    ("Redis", r"(valkey|redis)-server"),
    ("load generator", r"^wrk "),
    ("raylet, GCS and agents", r"raylet|gcs_server|ray/dashboard|runtime_env|log_monitor"),
)
OTHERS = "others"


def name_of(title: str) -> str:
    """What a process with this command line is."""
    return next((name for name, pattern in NAMES if re.search(pattern, title)), OTHERS)


def by_process() -> dict[str, float]:
    """Seconds of processor so far, user and system, by what the process is."""
    used: dict[str, float] = defaultdict(float)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        used[name_of(title)] += (int(fields[11]) + int(fields[12])) * TICK_S
    return dict(used)


def per_request_us(
    before: dict[str, float], after: dict[str, float], requests: float
) -> dict[str, float]:
    """Microseconds of processor per request, the largest first; what is below 5 is left out."""
    used = {
        name: 1e6 * (seconds - before.get(name, 0.0)) / requests for name, seconds in after.items()
    }
    return {name: us for name, us in sorted(used.items(), key=lambda each: -each[1]) if us >= 5}


@contextlib.contextmanager
def looping(niceness: int) -> Iterator[int]:
    """A process that takes all the processor time that it can get, at this niceness.

    Stopped at first.
    """
    code = f"import os\nos.nice({niceness})\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as process:  # noqa: S603 - the code is above
        process.send_signal(signal.SIGSTOP)
        try:
            yield process.pid
        finally:
            process.kill()
