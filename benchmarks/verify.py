"""How fast a log is folded again: what `banditloop snapshots verify` does, from an archive, for each kind of learner.

    python benchmarks/verify.py

Decisions over 10 actions of a catalogue of 1,000 items with three features each, two context features, every third
rewarded. The archive's files are read, decoded and checked, joined and learned; every 10,000th position is compared
with the snapshot of a first fold, byte for byte. Goal: 20,000 interactions/s for ridge. Beside it, one Python loop of
additions, as a measure of the machine.
"""

import argparse
import os
import sys
import tempfile
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np

from bandits.codec import encode
from bandits.exploration import EpsilonGreedy, LinTs, LinUcb
from bandits.join import JoinRule
from bandits.records import CatalogueRecord, DecisionRecord, LogEntry, LogRecord, RewardRecord, SpecRecord, TickRecord
from bandits.ridge import RidgeConfig
from policies.archive import ArchiveReader, ArchiveWriter
from policies.catalogue import Catalogue, Item
from policies.fold import START, Fold
from policies.ranges import Range, hour_of
from policies.spec import PolicySpec, VwConfig
from policies.verify import Replay, Served, verify

SALT = b"benchmark"
GOAL = 20_000
ACTIONS, ITEMS, EVERY = 10, 1000, 10_000
BUILD = {"machine": "this one"}
RIDGE = RidgeConfig(interactions=[("context", "features")])
SPECS = {
    "LinTS": PolicySpec("lints", learner=RIDGE, exploration=LinTs(), join=JoinRule(window_s=60.0)),
    "LinUCB": PolicySpec("linucb", learner=RIDGE, exploration=LinUcb(), join=JoinRule(window_s=60.0)),
    "VW mtr": PolicySpec(
        "vw",
        learner=VwConfig("--cb_explore_adf --cb_type mtr -q cf"),
        exploration=EpsilonGreedy(),
        join=JoinRule(window_s=60.0),
    ),
}


def make_log(spec: PolicySpec, catalogue: Catalogue, count: int) -> list[LogEntry]:
    """``count`` decisions at 200 a second, and their rewards."""
    rng = np.random.default_rng(0)
    pmf = np.full((1, ACTIONS), 1 / ACTIONS).tobytes()
    records: list[tuple[int, LogRecord]] = [
        (1, SpecRecord(spec.digest, "s")),
        (1, CatalogueRecord(catalogue.digest)),
    ]
    for i in range(count):
        ids = [f"item{k}" for k in rng.choice(ITEMS, ACTIONS, replace=False)]
        context = {"hour": (i % 24) / 24, "device": "phone" if i % 2 else "web"}
        event_id, chosen, at = f"{i:032x}", [int(rng.integers(ACTIONS))], 1000 + 5 * i
        records.append(
            (
                at,
                DecisionRecord(
                    event_id, spec.name, spec.digest, "s", catalogue.digest, context, ids, None, {}, pmf, chosen
                ),
            )
        )
        if i % 3 == 0:
            records.append((at, RewardRecord(event_id, 1.0, "r")))
    records.append((1000 + 5 * count + 120_000, TickRecord()))
    return [LogEntry(f"{at}-{number}", record) for number, (at, record) in enumerate(records)]


def archive(root: str, spec: PolicySpec, log: list[LogEntry], blobs: dict[str, bytes]) -> None:
    """The log as the archiver writes it: one file per hour of the log."""
    writer, previous = ArchiveWriter(root, spec.name), START
    hours: dict[object, list[LogEntry]] = {}
    for entry in log:
        hours.setdefault(hour_of(entry.id), []).append(entry)
    for entries in hours.values():
        writer.write(
            Range(previous, entries[0].id, entries[-1].id, len(entries)),
            ((entry.id, encode(entry.record)) for entry in entries),
            blobs.get,
        )
        previous = entries[-1].id


def rate(spec: PolicySpec, catalogue: Catalogue, count: int) -> tuple[float, int]:
    """Interactions a second, and how many snapshots were the same."""
    log = make_log(spec, catalogue, count)
    blobs = {spec.digest: spec.encoded, catalogue.digest: catalogue.encoded}
    with tempfile.TemporaryDirectory() as root:
        archive(root, spec, log, blobs)
        reader = ArchiveReader(root, spec.name)
        first, served = Fold(reader.blob, salt=SALT), []
        for low in range(0, len(log), EVERY):
            first.apply(log[low : low + EVERY])
            snapshot = first.snapshot()
            served.append(Served(str(low), snapshot, spec.digest, first.catalogue.digest, BUILD))
        fold = Fold(reader.blob, salt=SALT, past=Replay(reader.entries))
        began = time.perf_counter()
        results = list(verify(fold, reader.entries(START, None), served, build=BUILD))
        seconds = time.perf_counter() - began
    return fold.learned / seconds, sum(each.verdict == "identical" for each in results)


def additions_s() -> float:
    """Seconds for 10 million additions in a plain loop: how fast this machine is now."""
    began, total = time.perf_counter(), 0
    for i in range(10_000_000):
        total += i
    return time.perf_counter() - began


def main() -> int:
    """Run all; exit 1 if ridge misses the goal or a snapshot differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=60_000)
    count = parser.parse_args().decisions
    catalogue = Catalogue(
        [Item(f"item{k}", {"genre": f"g{k % 7}", "price": k / ITEMS, "new": k % 3 == 0}) for k in range(ITEMS)]
    )
    print(f"10 million additions in a loop: {additions_s():.2f} s")
    good = True
    for name, spec in SPECS.items():
        size = count if isinstance(spec.learner, RidgeConfig) else count // 6
        per_s, same = rate(spec, catalogue, size)
        expected = -(-len(make_log(spec, catalogue, size)) // EVERY)
        good &= same == expected and (per_s >= GOAL or not isinstance(spec.learner, RidgeConfig))
        print(f"{name:7s} {per_s:8,.0f} interactions/s   {same} of {expected} snapshots identical")
    print(f"goal: {GOAL:,}/s for ridge: {'reached' if good else 'NOT reached'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
