"""Our own archive beside the build before columns: written, evaluated, learned from, verified.

    python benchmarks/replay/archive.py [--decisions 5000000] [--against COMMIT] [--quick] [--only PART]
                                       [--files 5000]

One core. Both builds do the same on the same log, one after the other, each in processes of its
own; the other build gets a shorter log, since a rate does not depend on its length. Rates are of
processor time. "Bare" is the learner alone on rows that are in memory. The log: 20 actions, three
context features, the scores of one source, three in ten decisions rewarded.

The other build is taken from git into a folder of its own and runs on the same installed packages.
Half an hour; ``--quick`` takes five minutes and holds nothing against a goal that needs the length.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # it may be run as a file

import numpy as np

from benchmarks.learning import verify, windows
from benchmarks.replay import archive_size, training
from benchmarks.serving.builds import checked_out
from benchmarks.table import Table

HERE = Path(__file__).resolve().parents[2]
BEFORE = "787c29b"
TASKS = Path(__file__).with_name("archive_tasks.py")
LATENCY_TRIES = 5
VERIFY_TURNS = 3
PARTS = ("show", "tiny", "write", "verify", "train", "evaluate", "windows")


def run(code: Path, task: str, folder: Path, count: int = 0) -> dict[str, Any]:
    """Run a task of archive_tasks.py by a build's packages, on one core; return what it measured."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{code}:{code / 'clients' / 'python'}",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(TASKS), task, str(folder), str(count)]
    done = subprocess.run(  # noqa: S603 - this project's own
        command, capture_output=True, text=True, check=False, env=environment, cwd=code
    )
    if done.returncode:
        raise SystemExit(f"{task} by {code}: {done.stderr[-2000:]}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def evaluation(table: Table, other: Path, folder: Path, decisions: int, *, quick: bool) -> None:
    """IPS and DR from the archive, beside the other build."""
    shorter = max(20_000, decisions // 100)
    run(other, "write", folder / "before", shorter)
    run(HERE, "write", folder / "now", decisions)

    for task, times in (("ips", 50), ("dr", 20)):
        before, now = run(other, task, folder / "before"), run(HERE, task, folder / "now")
        said = f"{now['per_s']:,.0f} / {before['per_s']:,.0f} rows/s"
        goal = None if quick else times
        ratio = now["per_s"] / before["per_s"]
        table.add(f"{task} of {decisions:,} decisions: rows/s", said, ratio, at_least=goal)
        peak = now["peak_mib"]
        table.add(f"{task}: peak memory, MiB", f"{peak:,.0f}", peak, at_most=1024)

    # The same log by both builds: the same estimates.
    before, now = run(other, "dr", folder / "before"), run(HERE, "dr", folder / "before")
    apart = float(np.abs(np.subtract(before["values"], now["values"])).max())
    table.add("estimates of one archive, both builds: apart", f"{apart:.1e}", apart, at_most=1e-9)


def archiving(table: Table, other: Path, decisions: int) -> None:
    """Measure what a decision costs the archiver, and the disk."""
    for name, make in (
        ("demo", archive_size.demo_log),
        ("20 explicit actions", archive_size.explicit_log),
    ):
        if not archive_size.compare(table, name, make(decisions), other, 3):
            raise SystemExit(f"{name}: what was read back is not what was put in")


def verifying(table: Table, other: Path, decisions: int) -> None:
    """How fast a log is folded again, from the stream and from the archive: best of some turns."""
    policies = ("LinTS", "LinUCB")
    turns = [
        [verify.rates_of(build, policies, decisions) for build in (other, HERE)]
        for _ in range(VERIFY_TURNS)
    ]
    for at in turns[0][0]:
        before, now = (min(turn[build][at].cpu_us for turn in turns) for build in (0, 1))
        said, ratio = f"{now:.1f} / {before:.1f} us", before / now
        table.add(f"snapshots verify, {at[0]}, from the {at[1]}", said, ratio, at_least=2.0)


def showing(table: Table, other: Path, folder: Path, files: int) -> None:
    """`archive show` of many range files: the summary, and the command as it is typed."""
    run(HERE, "write-small-files", folder / "many", files)
    run(other, "write-small-files", folder / "many-before", files)
    now = min(run(HERE, "show", folder / "many")["s"] for _ in range(LATENCY_TRIES))
    before = run(other, "show", folder / "many-before")["s"]
    table.add(f"archive show of {files:,} files", f"{now:.2f} / {before:.2f} s", now, at_most=1.0)

    start = "from serve_app.cli.main import main; main()"
    command = [sys.executable, "-c", start, "archive", "show", "--archive", str(folder / "many")]
    began = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True, cwd=HERE)  # noqa: S603 - this project's own
    took = time.perf_counter() - began
    table.add("the same, the whole command", f"{took:.2f} s", took)


def tiny(table: Table, folder: Path, files: int, *, quick: bool) -> None:
    """Compare what a file costs among many tiny ones with what it costs among a tenth of them."""
    counts, goal = (files // 10, files), None if quick else 1.2
    for count in counts:
        run(HERE, "write-small-files", folder / f"tiny-{count}", count)

    for task in ("show", "ips", "compact"):
        few, many = (run(HERE, task, folder / f"tiny-{count}") for count in counts)
        each = [1e6 * done["s"] / count for done, count in zip((few, many), counts, strict=True)]
        said = f"{many['s']:.1f} s; {each[1]:,.0f} / {each[0]:,.0f} us a file"
        grown = each[1] / each[0]
        table.add(f"{task} of {files:,} tiny files to {counts[0]:,}", said, grown, at_most=goal)
        table.add(f"{task}: peak memory, MiB", f"{many['peak_mib']:,.0f}", many["peak_mib"])


def main() -> int:
    """Measure, print; exit 0 when all goals are reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--decisions", type=int, default=5_000_000)
    parser.add_argument("--against", default=BEFORE, metavar="COMMIT")
    parser.add_argument("--quick", action="store_true", help="short logs")
    parser.add_argument("--files", type=int, help="tiny files, beside a tenth of them")
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    parser.add_argument("--only", action="append", choices=PARTS, help="may be repeated")
    given = parser.parse_args()
    quick, table, parts = given.quick, Table(), given.only or PARTS
    decisions = 200_000 if quick else given.decisions

    with (
        tempfile.TemporaryDirectory(prefix="archive-") as name,
        checked_out(given.against) as other,
    ):
        folder = Path(name)
        if "show" in parts:
            showing(table, other, folder, 1000)
        if "tiny" in parts:
            tiny(table, folder, given.files or (500 if quick else 5_000), quick=quick)
        if "write" in parts:
            archiving(table, other, 5_000 if quick else 20_000)
        if "verify" in parts:
            verifying(table, other, 24_000 if quick else 100_000)
        if "train" in parts:
            training.add_rows(table, 20_000 if quick else 200_000)
        if "evaluate" in parts:
            evaluation(table, other, folder, decisions, quick=quick)
        if "windows" in parts:
            windows.add_rows(table, 100_000 if quick else 1_000_000, 16_000 if quick else 32_000)
    return table.finish(given.out, decisions=decisions, against=given.against)


if __name__ == "__main__":
    sys.exit(main())
