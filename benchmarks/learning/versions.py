"""Learning beside items that change: what versions of a catalogue cost, in time and in memory.

    python -m benchmarks.learning.versions

learning    decisions of which each tenth sees a new version (100 changes of items a second, 1,000
            decisions), beside the same decisions of one version: processor time, in turn, least of
            several; and of an items log that has to be read from its base
memory      the catalogues of 10^6 items, and 60,000 changes later with all versions at hand
"""

import argparse
import contextlib
import ctypes
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np

from bandits.exploration import EpsilonGreedy
from bandits.log.codec import encode
from bandits.log.encoded_decisions import read_entries
from bandits.log.join import JoinRule
from bandits.log.positions import has_reached, is_after
from bandits.log.records import (
    DecisionRecord,
    ItemChange,
    ItemsBaseRecord,
    ItemsRecord,
    LogEntry,
    LogRecord,
    RewardRecord,
    SpecRecord,
    TickRecord,
)
from bandits.ridge.config import RidgeConfig
from benchmarks.table import Table
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.items.changes import encode_item
from policies.items.past import ItemsPast
from policies.items.timeline import version_after
from policies.requests import Item
from policies.spec import PolicySpec

SALT = b"benchmark"
DECISIONS, ACTIONS, CHANGE_EVERY = 20_000, 100, 10
ITEMS, MANY_ITEMS, CHANGES = 1_000, 1_000_000, 60_000
FEATURES = 8
ROUNDS = 7
READ = 1_000
"""Entries that are read at a time, as from Redis."""
SPEC = PolicySpec(
    "home",
    learner=RidgeConfig(interactions=[("context", "features")]),
    exploration=EpsilonGreedy(),
    join=JoinRule(window_s=60.0),
)


class ItemsInMemory:
    """A log of items that begins with a whole catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.blobs = {catalogue.digest: catalogue.encoded}
        self.stored = [("1-0", encode(ItemsBaseRecord(catalogue.digest)))]
        self.blob = self.blobs.__getitem__

    def encoded(self, after: str, through: str | None = None) -> Iterator[LogEntry]:
        """Yield the entries; positions are their places, so none is looked for."""
        for at in range(int(after.partition("-")[0]), len(self.stored), READ):
            for entry in read_entries(self.stored[at : at + READ], _no):
                if through is not None and is_after(entry.id, through):
                    return
                yield entry

    def bases(self, through: str) -> Iterator[LogEntry]:
        """Yield the one whole catalogue."""
        yield from read_entries(self.stored[:1] if has_reached(through, "1-0") else [], _no)


def item(number: int, rng: np.random.Generator) -> Item:
    """An item of the shop: numbers, and a category."""
    features = {f"f{n}": float(value) for n, value in enumerate(rng.random(FEATURES - 1).round(3))}
    return Item(f"item{number}", {**features, "category": f"c{number % 40}"}, {"title": "A title"})


def changing(count: int, changes: int) -> tuple[ItemsInMemory, list[str]]:
    """A log of so many items and changes of their prices; and its versions."""
    rng = np.random.default_rng(0)
    log = ItemsInMemory(Catalogue([item(number, rng) for number in range(count)]))
    version = next(iter(log.blobs))
    versions = [version]
    for place in range(changes):
        changed = item(int(rng.integers(count)), rng)
        record = ItemsRecord([ItemChange("put", changed.id, encode_item(changed))])
        log.stored.append((f"{place + 2}-0", encode(record)))
        version = version_after(version, log.stored[-1][0], record)
        versions.append(version)
    return log, versions


def decisions_of(versions: Sequence[str]) -> list[tuple[str, bytes]]:
    """The log of decisions, as it is stored; each tenth is rewarded, and each tenth sees a new version."""
    rng = np.random.default_rng(1)
    pmf = np.full(ACTIONS, 1 / ACTIONS).tobytes()
    records: list[tuple[int, LogRecord]] = [(1, SpecRecord(SPEC.digest, "salt"))]
    for number in range(DECISIONS):
        ids = [f"item{n}" for n in rng.choice(ITEMS, ACTIONS, replace=False)]
        record = DecisionRecord(
            event_id=f"event{number}",
            policy="home",
            spec=SPEC.digest,
            snapshot_id="0" * 32,
            catalogue=versions[min(number // CHANGE_EVERY, len(versions) - 1)],
            context={"hour": float(number % 24), "device": "phone"},
            action_ids=ids,
            features=None,
            scores={},
            pmf=pmf,
            chosen=[number % ACTIONS],
        )
        records.append((1000 + number, record))
        if number % 10 == 0:
            records.append((1000 + number, RewardRecord(f"event{number}", 1.0, "r")))
    records.append((1000 + DECISIONS + 200_000, TickRecord()))
    return [(f"{at}-{place}", encode(record)) for place, (at, record) in enumerate(records)]


def learning_s(stored: Sequence[tuple[str, bytes]], log: ItemsInMemory) -> tuple[float, bytes]:
    """Read and fold a log; return the processor time and the model."""
    blobs = {SPEC.digest: SPEC.encoded, **log.blobs}
    fold = Fold(blobs.__getitem__, salt=SALT, items=ItemsPast(log))
    gc.collect()
    began = time.process_time()
    for at in range(0, len(stored), READ):
        fold.apply(read_entries(stored[at : at + READ], _no))
    model = fold.snapshot().payload
    seconds = time.process_time() - began
    assert fold.learned == DECISIONS  # noqa: S101
    return seconds, model


def add_learning(table: Table) -> None:
    """Compare one version with many, in turn."""
    log, versions = changing(ITEMS, DECISIONS // CHANGE_EVERY)
    plain, many = decisions_of(versions[:1]), decisions_of(versions)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for own, entries in zip(times, (plain, many), strict=True):
            own.append(learning_s(entries, log)[0])
    one, several = map(min, times)
    table.add("learning from one version", f"{1e6 * one / DECISIONS:.1f} us a decision", one)
    table.add(
        f"learning, each {CHANGE_EVERY}th decision a new version, to one version",
        f"{1e6 * several / DECISIONS:.1f} us a decision, {several / one:.2f} x",
        several / one,
        at_most=1.25,
    )


def measure_memory(changes: int) -> tuple[float, float, float]:
    """Return MB of a catalogue and of its changes, and seconds to read these."""
    log, versions = changing(MANY_ITEMS, changes)
    before = resident_mb()
    past = ItemsPast(log)
    past.catalogue(versions[1]).rows(["item0"])
    whole = resident_mb()
    began = time.process_time()
    last = past.catalogue(versions[-1])
    assert last.rows(["item0"])[0] >= 0  # noqa: S101
    assert past.catalogue(versions[1]).rows(["item0"])[0] >= 0  # noqa: S101
    seconds = time.process_time() - began
    return whole - before, resident_mb() - whole, seconds


def _no(_entry_id: str, _error: Exception) -> None:
    """Each entry decodes."""


def resident_mb() -> float:
    """Memory that this process uses."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # of glibc: what was freed is given back
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    """Run all; exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--changes", type=int, default=CHANGES)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    table = Table()
    add_learning(table)
    # In a process of its own, whose memory nobody else has used.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        whole, more, seconds = alone.submit(measure_memory, arguments.changes).result()
    table.add(f"a learner's {MANY_ITEMS:,} items", f"{whole:,.0f} MB", whole)
    table.add(
        f"and {arguments.changes:,} changes, all versions at hand, kB a change",
        f"{more:,.0f} MB, {1000 * more / arguments.changes:.2f} kB",
        1000 * more / arguments.changes,
        at_most=2.0,
    )
    each = 1e6 * seconds / arguments.changes
    table.add("reading a change", f"{each:.0f} us", each, at_most=200)
    return table.finish(arguments.out)


if __name__ == "__main__":
    sys.exit(main())
