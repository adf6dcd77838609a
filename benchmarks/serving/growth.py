"""How much Ray Serve itself grows with every request: an empty application, with Ray's metrics and without them.

    python -m benchmarks.serving.growth [--seconds 60]            (about three minutes)

Resident memory of each kind of process before and after a closed loop of wrk on 8 connections, in
bytes per request. banditloop turns these metrics off (serve_app/host/environment.py).
"""

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.serving.load import closed_loop
from benchmarks.serving.services import empty
from benchmarks.soak.service import TITLES, descendants, rss_of

SWITCH = "RAY_enable_metrics_collection"
WARM_S = 10.0


def resident(root: int) -> dict[str, int]:
    """Bytes by kind of process."""
    found: dict[str, int] = {}
    titles = {**TITLES, "ServeReplica": "replica"}
    for pid, title in descendants(root).items():
        kind = next((name for part, name in titles.items() if part in title), None)
        if kind is not None:
            with contextlib.suppress(OSError, StopIteration):
                found[kind] = found.get(kind, 0) + rss_of(pid)
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    print(describe())
    for switch in ("1", "0"):
        os.environ[SWITCH] = switch
        with (
            tempfile.TemporaryDirectory(prefix="growth-") as folder,
            empty(Path(folder)) as service,
        ):
            closed_loop(service.url + "/", ["{}"], WARM_S)
            before = resident(service.pid)
            measured = closed_loop(service.url + "/", ["{}"], seconds)
            after, requests = resident(service.pid), measured.per_s * seconds
        grown = ", ".join(
            f"{kind} {(after[kind] - size) / requests:+.1f}"
            for kind, size in sorted(before.items())
        )
        print(
            f"{SWITCH}={switch}: {measured.per_s:,.0f} per s, {requests:,.0f} requests; bytes per"
            f" request: {grown}"
        )
    return 0


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.exit(main())
