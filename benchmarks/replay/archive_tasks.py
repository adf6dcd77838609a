"""The tasks of archive.py that both builds do, each in a process of its own.

    python benchmarks/replay/archive_tasks.py TASK FOLDER [N]

The packages are those of PYTHONPATH, so this uses only what both builds have. A task prints one
line of JSON.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

import long_log as logs  # this file's neighbour, whichever build PYTHONPATH says

from policies.archive.archive import ArchiveWriter
from policies.archive.range_file import Range
from serve_app.admin.archives import archive_summary
from simulator.logs.formats import open_log
from simulator.ope.targets import SourceTarget, UniformTarget
from simulator.replay.evaluate import OpeQuestion, evaluate

IPS, DR = ("ips", "clipped_ips", "snips"), ("dm", "dr", "sndr")
PER_FILE = 20


def write(folder: str, decisions: int) -> dict[str, Any]:
    """Write a long log as an archive."""
    logs.write_long_archive(Path(folder), decisions)
    return {}


def write_small_files(folder: str, files: int) -> dict[str, Any]:
    """Write an archive of so many small files."""
    spec = logs.long_spec()
    writer, previous = ArchiveWriter(folder, logs.POLICY), "0-0"
    entries = list(logs.long_log(PER_FILE * files))
    size = -(-len(entries) // files)
    for at in range(0, len(entries), size):
        part = entries[at : at + size]
        committed = Range(previous, part[0][0], part[-1][0], len(part))
        writer.write(committed, part, {spec.digest: spec.encoded}.get)
        previous = part[-1][0]
    return {}


def show(folder: str, _: int) -> dict[str, Any]:
    """Summarise the archive, as `banditloop archive show` does."""
    began = time.perf_counter()
    summary = archive_summary(folder, logs.POLICY)
    return {"s": time.perf_counter() - began, "ranges": summary.ranges}


def evaluated(folder: str, estimators: tuple[str, ...]) -> dict[str, Any]:
    """Evaluate two policies, from the files to the report."""
    question = OpeQuestion([UniformTarget(), SourceTarget("cf", "cf")], estimators=estimators)
    began = time.process_time()
    report = evaluate(question, open_log(folder, "archive"))
    seconds = time.process_time() - began
    values = [estimate.value for result in report.results for estimate in result.estimates.values()]
    return {"per_s": report.log.rows / seconds, "rows": report.log.rows, "values": values}


TASKS: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "write": write,
    "write-small-files": write_small_files,
    "show": show,
    "ips": lambda folder, _: evaluated(folder, IPS),
    "dr": lambda folder, _: evaluated(folder, DR),
}


def main() -> None:
    """Run one task, and print what it measured."""
    task, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    measured = TASKS[task](folder, count)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**measured, "peak_mib": peak}))


if __name__ == "__main__":
    main()
