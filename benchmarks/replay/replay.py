"""How fast a log is evaluated: from columns of numbers, from PMFs of 100 actions, and from a CSV of any size.

    python -m benchmarks.replay.replay

One core. Goals: 1,000,000 rows/s of IPS, clipped IPS and SNIPS from reward, propensity and target
propensity; 100,000 rows/s with the PMFs of 100 actions. Peak memory while a CSV is read does not
grow with it: at most 1 GiB (``--rows``; 50,000,000 rows are a file of 1.4 GB). Without a goal: from
an archive to the report. Beside them a plain loop of additions, as a measure of the machine.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import groupby
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np

from bandits.log.codec import digest, encode
from bandits.log.join import JoinRule
from bandits.log.records import DecisionRecord, RewardRecord, SpecRecord, TickRecord
from policies.archive.archive import ArchiveWriter
from policies.archive.range_file import Range, hour_of
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from simulator.logs.csv_columns import CsvColumns
from simulator.logs.formats import open_log
from simulator.ope.batch import OpeBatch, ope_batch_from_pmfs
from simulator.ope.estimators import make_estimator
from simulator.ope.targets import ColumnTarget, LoggingTarget, UniformTarget
from simulator.replay.evaluate import OpeQuestion, evaluate

WEIGHED = ("ips", "clipped_ips", "snips")
GOALS = {"columns": 1_000_000, "pmfs of 100 actions": 100_000}
MAX_MIB = 1024
ROUNDS = 5


def columns_rate(rng: np.random.Generator, rows: int = 100_000) -> float:
    """Rows a second of the IPS family, from arrays: the median of some rounds."""
    keys = rng.integers(0, 2**63, rows).astype(np.uint64)
    propensity = rng.uniform(0.05, 1.0, rows)
    reward, target = (rng.random(rows) < 0.1).astype(float), rng.random(rows) * propensity

    def run() -> None:
        batch = OpeBatch(keys, reward, propensity, target)  # a batch keeps what it has computed
        for name in WEIGHED:
            make_estimator(name).update(batch)

    return _median_rate(rows, run)


def pmfs_rate(rng: np.random.Generator, rows: int = 10_000, actions: int = 100) -> float:
    """The same from the logging and the target policy's PMFs."""
    keys = rng.integers(0, 2**63, rows).astype(np.uint64)
    logging, target = (
        pmfs / pmfs.sum(axis=1, keepdims=True) for pmfs in rng.random((2, rows, actions)) + 0.01
    )
    chosen, reward = rng.integers(0, actions, rows), (rng.random(rows) < 0.1).astype(float)

    def run() -> None:
        batch = ope_batch_from_pmfs(keys, reward, chosen, logging, target)
        for name in WEIGHED:
            make_estimator(name).update(batch)

    return _median_rate(rows, run)


def _median_rate(rows: int, run) -> float:  # noqa: ANN001 - a callable
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return rows / float(np.median(seconds))


def write_csv(path: Path, rows: int) -> None:
    """Rows of reward, propensity and target propensity; the same million again and again."""
    rng = np.random.default_rng(0)
    block = min(rows, 1_000_000)
    propensity, target = rng.uniform(0.05, 1.0, block), rng.random(block)
    reward = rng.random(block) < 0.1
    text = "".join(
        f"{r:d},{p:.6f},{t:.6f}\n"
        for r, p, t in zip(reward, propensity, propensity * target, strict=True)
    ).encode()
    with path.open("wb") as file:
        file.write(b"reward,propensity,new\n")
        for _ in range(-(-rows // block)):
            file.write(text)


def write_archive(root: Path, rows: int, actions: int = 20) -> None:
    """Decisions 20 ms apart, three in ten with a reward, in the files that the service would write."""
    rng, spec, catalogue = (
        np.random.default_rng(0),
        PolicySpec("home", join=JoinRule(window_s=2)),
        Catalogue(),
    )
    blobs = {digest(spec.encoded): spec.encoded, catalogue.digest: catalogue.encoded}
    ids, start = [f"item{k}" for k in range(actions)], 1_700_000_000_000
    entries: list[tuple[str, bytes]] = [
        (f"{start}-0", encode(SpecRecord(digest(spec.encoded), "s")))
    ]
    for number in range(rows):
        pmf, at = rng.dirichlet(np.ones(actions)), start + 20 * (number + 1)
        record = DecisionRecord(
            *(
                f"e{number}",
                "home",
                digest(spec.encoded),
                "0-0",
                catalogue.digest,
                {"hour": 3.0, "device": "web"},
                ids,
            ),
            features=None,
            scores={},
            pmf=pmf.astype("<f8").tobytes(),
            chosen=[int(rng.choice(actions, p=pmf))],
        )
        entries.append((f"{at}-0", encode(record)))
        if rng.random() < 0.3:
            entries.append((f"{at + 1}-0", encode(RewardRecord(f"e{number}", 1.0))))
    entries.append((f"{start + 20 * rows + 60_000}-0", encode(TickRecord())))
    writer, previous = ArchiveWriter(root, "home"), "0-0"
    for _, group in groupby(entries, lambda entry: hour_of(entry[0])):
        held = list(group)
        writer.write(Range(previous, held[0][0], held[-1][0], len(held)), held, blobs.get)
        previous = held[-1][0]


def archive_rate(rows: int = 20_000) -> float:
    """Rows a second of the same estimators for two policies, from the files of an archive to the report."""
    with tempfile.TemporaryDirectory() as folder:
        write_archive(Path(folder), rows)
        question = OpeQuestion([LoggingTarget(), UniformTarget()], estimators=WEIGHED)
        return _median_rate(rows, lambda: evaluate(question, open_log(folder, "archive")))


def read_csv(path: Path) -> None:
    """Evaluate the file, and say how fast and with how much memory. Run in a process of its own."""
    began = time.perf_counter()
    question = OpeQuestion([ColumnTarget("new")], estimators=WEIGHED)
    report = evaluate(question, open_log(str(path), "csv", columns=CsvColumns(), extra=["new"]))
    seconds = time.perf_counter() - began
    print(
        report.log.rows,
        report.log.rows / seconds,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def main() -> int:
    """Run all; exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        read_csv(arguments.read)
        return 0
    rng = np.random.default_rng(0)
    began, total = time.perf_counter(), 0
    for i in range(10_000_000):
        total += i
    print(f"10 million additions in a loop: {time.perf_counter() - began:.2f} s")
    rates = {"columns": columns_rate(rng), "pmfs of 100 actions": pmfs_rate(rng)}
    good = all(rates[name] >= goal for name, goal in GOALS.items())
    for name, per_s in rates.items():
        print(f"{name:20s} {per_s:12,.0f} rows/s   goal {GOALS[name]:,}")
    print(
        f"{'archive, 20 actions':20s} {archive_rate():12,.0f} rows/s   no goal: records are"
        " decoded and joined singly"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        write_csv(path, arguments.rows)
        command = [sys.executable, "-m", "benchmarks.replay.replay", "--read", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this script
    rows, per_s, mib = (float(text) for text in done.stdout.split())
    good &= mib <= MAX_MIB
    print(
        f"{'CSV':20s} {per_s:12,.0f} rows/s   {rows:,.0f} rows, peak memory {mib:,.0f} MiB (at"
        f" most {MAX_MIB:,})"
    )
    print(f"goals: {'reached' if good else 'NOT reached'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
