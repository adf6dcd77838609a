"""How long a report on ten million decisions takes, and how much memory.

    python -m benchmarks.replay.report [--decisions 10000000] [--folder DIR]

A policy of ten partitions, each with a tenth of the decisions: 20 actions, a context of three
features, the scores of a source, 100,000 users of whom a tenth is held out. One partition is
written, which takes most of the time; the others are copies of its files under their own names. The
report is `banditloop report --no-doctor`, as it is typed; beside it `banditloop replay` of the logging
policy, which has the same mean reward. Three threads join, read and count, so the goal is held against
the clock of an idle machine of two cores or more; the processor's time is told beside it.

With --folder the log is kept there, and used again.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.replay.long_log import POLICY, write_long_archive
from benchmarks.table import Table

PARTITIONS = 10
USERS, HOLDOUT = 100_000, 0.1
COMMAND = "from serve_app.cli.main import main; main()"


def write(root: Path, decisions: int) -> None:
    """Write the archive.

    Args:
        root: Its folder.
        decisions: How many it has, in all partitions.
    """
    first = f"{POLICY}/partition=0"
    write_long_archive(root, decisions // PARTITIONS, users=USERS, holdout=HOLDOUT, folder=first)
    for number in range(1, PARTITIONS):
        other = f"{POLICY}/partition={number}"
        shutil.copytree(root / first, root / other)
        for path in (root / other).rglob("*.parquet"):
            # A file says in its footer whose it is: the name is as long.
            path.write_bytes(path.read_bytes().replace(first.encode(), other.encode()))


class Took(NamedTuple):
    """What a command took: on the clock, of a processor, and at most of memory."""

    clock_s: float
    cpu_s: float
    peak_mib: float

    def __str__(self) -> str:
        return f"{self.cpu_s:.1f} s of a processor, {self.clock_s:.1f} s on the clock"


def run(*arguments: str) -> tuple[dict[str, Any], Took]:
    """Run a command; return its report, and what it took."""
    one_core = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        out, began = Path(folder) / "report.json", time.perf_counter()
        command = [sys.executable, "-c", COMMAND, *arguments, "--out", str(out)]
        done = subprocess.Popen(  # noqa: S603 - this project's own
            command, env={**os.environ, **one_core}, stdout=subprocess.DEVNULL
        )
        _, status, used = os.wait4(done.pid, 0)
        took = time.perf_counter() - began
        if status:
            raise SystemExit(f"{arguments[0]} failed")
        report: dict[str, Any] = json.loads(out.read_bytes())
    return report, Took(took, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def main() -> int:
    """Measure, print; exit 0 when all goals are reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--decisions", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        root = asked.folder or Path(scratch)
        if not (root / POLICY).exists():
            write(root, asked.decisions)

        table = Table()
        report, took = run("report", POLICY, "--archive", str(root), "--no-doctor")
        decisions = report["range"]["decisions"]
        table.add(f"report of {decisions:,} decisions", str(took), took.clock_s, at_most=60.0)
        peak = took.peak_mib
        table.add("  its peak memory, MiB", f"{peak:,.0f}", peak, at_most=1024.0)

        replayed, took = run(
            *("replay", "--log", f"{root}/{POLICY}", "--policy", "logging"),
            *("--estimator", "ips"),
        )
        table.add("replay of the logging policy, IPS", str(took), took.cpu_s)
        means = report["range"]["mean_reward"], replayed["log"]["mean_reward"]
        apart = abs(means[0] / means[1] - 1.0)
        table.add("  mean rewards apart", f"{apart:.1e}", apart, at_most=1e-12)
        return table.finish(asked.out)


if __name__ == "__main__":
    raise SystemExit(main())
