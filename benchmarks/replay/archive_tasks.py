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
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

import long_log as logs  # this file's neighbour, whichever build PYTHONPATH says

from bandits.log.codec import encode
from bandits.log.records import TickRecord
from policies.archive.archive import ArchiveWriter
from policies.archive.range_file import Range, hour_of
from serve_app.admin.archives import archive_summary
from simulator.logs.formats import open_log
from simulator.ope.targets import SourceTarget, UniformTarget
from simulator.replay.evaluate import OpeQuestion, evaluate

IPS, DR = ("ips", "clipped_ips", "snips"), ("dm", "dr", "sndr")
PER_FILE = 20
"""Entries of a small file."""


def write(folder: str, decisions: int) -> dict[str, Any]:
    """Write a long log as an archive."""
    logs.write_long_archive(Path(folder), decisions)
    return {}


def write_small_files(folder: str, files: int) -> dict[str, Any]:
    """Write an archive of so many small files."""
    spec = logs.long_spec()
    writer, previous = ArchiveWriter(folder, logs.POLICY), "0-0"
    log = logs.long_log(PER_FILE * files)
    kept: list[tuple[str, bytes]] = []
    for _ in range(files):
        entries = kept + list(islice(log, PER_FILE - len(kept)))
        # No file spans an hour.
        hour = hour_of(entries[0][0])
        part = [entry for entry in entries if hour_of(entry[0]) == hour]
        kept = entries[len(part) :]
        committed = Range(previous, part[0][0], part[-1][0], len(part))
        writer.write(committed, part, {spec.digest: spec.encoded}.get)
        previous = part[-1][0]

    # All windows close.
    last = f"{int(previous.partition('-')[0]) + 3_600_000}-0"
    writer.write(Range(previous, last, last, 1), [(last, encode(TickRecord()))], {}.get)
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
    rows = report.log.rows
    return {"per_s": rows / seconds, "rows": rows, "values": values, "s": seconds}


def compact(folder: str, _: int) -> dict[str, Any]:
    """Write the small files of an archive as larger ones, as `banditloop archive compact` does."""
    from serve_app.admin.archives import compact_archive  # noqa: PLC0415 - of later builds

    began = time.perf_counter()
    compact_archive(folder, logs.POLICY)
    return {"s": time.perf_counter() - began}


TASKS: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "write": write,
    "write-small-files": write_small_files,
    "show": show,
    "ips": lambda folder, _: evaluated(folder, IPS),
    "dr": lambda folder, _: evaluated(folder, DR),
    "compact": compact,
}


def main() -> None:
    """Run one task, and print what it measured."""
    task, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    measured = TASKS[task](folder, count)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**measured, "peak_mib": peak}))


if __name__ == "__main__":
    main()
