"""What Redis holds during a day of decisions: it must stay bounded, and nothing of the log may be lost. Simulated.

    python -m benchmarks.soak.a_day                 (a day in about five minutes, on one or two cores)
    python -m benchmarks.soak.a_day --hours 2

The service's own Valkey, learner and archiver run in this process; decisions among 10 of 200 items
of a catalogue, and rewards of half of them, are written to the log as the replicas write them,
except that no event_id is remembered for retries. Time runs ``--speedup`` times as fast: every
duration of "simulated" below is divided by it, those of SCALED too. Not divided are the archiver's
pause of 1 s when nothing is due, the learner's 250 ms between snapshots, and whole hours (the
archive's, and those of which a checkpoint is kept), so a little more is held than a real day would
hold.

Exit status 1: the last quarter's peak of used_memory is above 1.25 times that of the second (the
first one fills what is retained), or what archive and stream hold together is not, in order, what
was written.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec
import numpy as np
import redis

from bandits.log.codec import encode
from bandits.log.encoded_decisions import DECISIONS
from bandits.log.join import JoinRule
from bandits.log.records import CatalogueRecord, DecisionRecord, RewardRecord
from bandits.ridge.config import RidgeConfig
from policies.archive.archive import ArchiveReader
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from serve_app.host.embedded import embedded_valkey
from serve_app.store.event_log import FIELD, RedisLog
from serve_app.store.history import History
from serve_app.store.keys import Keys
from serve_app.store.stats import Stats
from serve_app.workers.archiver import Archiver
from serve_app.workers.learner import LearnerLoop
from serve_app.workers.learner_factory import learner_of_log

SCALED = {"retain": 900.0, "window": 600.0, "archive_age": 60.0, "checkpoint": 60.0}
"""Seconds, the service's defaults."""
SAMPLE_S = 600.0
REWARD_DELAY_S = 120.0
PUBLISH_S = 0.25
STEP_S = 0.02
SALT = b"a day's benchmark"
ITEMS, ACTIONS, TOPICS = 200, 10, 8
GROWTH = 1.25


def main() -> int:
    """Run, print; exit 1 when memory grows or an entry is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=24.0, help="simulated")
    parser.add_argument(
        "--per-second", type=float, default=3.0, help="decisions per simulated second"
    )
    parser.add_argument("--speedup", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.hours < 2:
        parser.error("--hours: at least 2, for the first quarter to fill what is retained")
    with (
        tempfile.TemporaryDirectory(prefix="a-day-") as folder,
        embedded_valkey(Path(folder) / "valkey") as url,
    ):
        return Day(url, str(Path(folder) / "archive"), given).run()


@dataclass(slots=True)
class Sampled:
    """What Redis held, by the share of the day that had passed."""

    at: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    entries: list[int] = field(default_factory=list)

    def quarter(self, number: int) -> tuple[list[int], list[int]]:
        """Memory in bytes, and entries, of one quarter, 0 to 3."""
        held = [i for i, at in enumerate(self.at) if number < 4 * at <= number + 1]
        return [self.memory[i] for i in held], [self.entries[i] for i in held]


class Writer:
    """Appends decisions and their rewards at a steady rate, and remembers the ids of their entries."""

    def __init__(
        self, client: "redis.Redis", keys: Keys, spec: PolicySpec, catalogue: Catalogue, seed: int
    ) -> None:
        self.ids: list[bytes] = []
        self.decisions = 0
        self._client = client
        self._log = keys.log
        self._rng = np.random.default_rng(seed)
        self._pending: list[tuple[float, str]] = []
        self._template = DecisionRecord(
            event_id="",
            policy=spec.name,
            spec=spec.digest,
            snapshot_id="0" * 32,
            catalogue=catalogue.digest,
            context={},
            action_ids=[],
            features=None,
            scores={},
            pmf=np.full(ACTIONS, 1 / ACTIONS).tobytes(),
            chosen=[0],
        )
        self._names = np.array(catalogue.ids)

    def write(self, count: int, now_s: float, delay_s: float) -> None:
        """That many decisions, and the rewards that are due, in one pipeline.

        ``delay_s``: the rewards' mean delay.
        """
        pipeline = self._client.pipeline(transaction=False)
        for number in range(self.decisions, self.decisions + count):
            event_id = f"{number:032x}"
            record = msgspec.structs.replace(
                self._template,
                event_id=event_id,
                context={
                    "hour": float(number % 24),
                    "device": ("phone", "desktop", "tablet")[number % 3],
                },
                action_ids=self._rng.choice(self._names, ACTIONS, replace=False).tolist(),
                chosen=[int(self._rng.integers(ACTIONS))],
            )
            pipeline.xadd(self._log, {FIELD: encode(record)})
            if self._rng.random() < 0.5:
                self._pending.append((now_s + self._rng.exponential(delay_s), event_id))
        due = [event_id for at, event_id in self._pending if at <= now_s]
        self._pending = [each for each in self._pending if each[0] > now_s]
        for event_id in due:
            reward = RewardRecord(event_id, float(self._rng.random()), f"r{event_id}")
            pipeline.xadd(self._log, {FIELD: encode(reward)})
        self.decisions += count
        self.ids += pipeline.execute()


class Day:
    """One run. ``given``: the command line's."""

    def __init__(self, url: str, root: str, given: argparse.Namespace) -> None:
        self._url = url
        self._root = root
        self._given = given
        self._scaled = {name: seconds / given.speedup for name, seconds in SCALED.items()}
        self._real_s = given.hours * 3600 / given.speedup
        self._rate = given.per_second * given.speedup
        rule = JoinRule(window_s=self._scaled["window"])
        self._spec = PolicySpec(
            "day", learner=RidgeConfig(interactions=[("context", "features")]), join=rule
        )
        self._keys = Keys(self._spec.name)
        self._client = redis.Redis.from_url(url)
        self._sampled = Sampled()
        self._entry_bytes = 0.0

    def run(self) -> int:
        """Live through the day, then count; the exit status."""
        stop = threading.Event()
        threads = [
            threading.Thread(target=part.run, args=(stop,))
            for part in (self._learner(), self._archiver())
        ]
        for thread in threads:
            thread.start()
        try:
            writer = self._write_all()
            learned = self._wait_until_learned(writer.decisions)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        history = History(self._client, self._keys, ArchiveReader(self._root, self._spec.name))
        held = [entry.id.encode() for entry in history.encoded("0-0") if _is_traffic(entry.record)]
        return self._report(writer, learned, held)

    def _learner(self) -> LearnerLoop:
        return learner_of_log(
            redis.Redis.from_url(self._url),
            self._spec,
            salt=SALT,
            publish_interval_s=PUBLISH_S,
            checkpoint_interval_s=self._scaled["checkpoint"],
            archive=ArchiveReader(self._root, self._spec.name),
        )

    def _archiver(self) -> Archiver:
        return Archiver(
            redis.Redis.from_url(self._url),
            self._spec.name,
            self._root,
            max_age_s=self._scaled["archive_age"],
            retain_s=self._scaled["retain"],
        )

    def _write_all(self) -> Writer:
        catalogue = _catalogue()
        while self._stats() is None:  # the learner has said in the log what the policy is
            time.sleep(0.05)
        log = RedisLog(self._client, self._keys)
        log.put_blob(catalogue.digest, catalogue.encoded)
        log.append(CatalogueRecord(catalogue.digest))
        writer = Writer(self._client, self._keys, self._spec, catalogue, self._given.seed)
        sample_s, delay_s = SAMPLE_S / self._given.speedup, REWARD_DELAY_S / self._given.speedup
        began, total, sampled = time.monotonic(), round(self._rate * self._real_s), 0
        while writer.decisions < total:
            passed = time.monotonic() - began
            due = min(total, round(passed * self._rate)) - writer.decisions
            writer.write(min(due, 1000), passed, delay_s)
            if writer.decisions >= (sampled + 1) * sample_s * self._rate:
                sampled += 1
                self._sample(writer.decisions / total)
            if due < 1000:
                time.sleep(STEP_S)
        late_s = time.monotonic() - began - self._real_s
        print(
            f"written in             {time.monotonic() - began:.0f} s, {late_s:.1f} s later than"
            " planned"
        )
        return writer

    def _sample(self, at: float) -> None:
        info: Any = self._client.info("memory")
        entries = int(self._client.xlen(self._keys.log))
        self._sampled.at.append(at)
        self._sampled.memory.append(int(info["used_memory"]))
        self._sampled.entries.append(entries)
        self._entry_bytes = int(self._client.memory_usage(self._keys.log, samples=0) or 0) / max(
            entries, 1
        )

    def _stats(self) -> Stats | None:
        raw: Any = self._client.get(self._keys.stats)
        return None if raw is None else msgspec.msgpack.decode(raw, type=Stats)

    def _wait_until_learned(self, decisions: int) -> int:
        """The number of decisions learned, once all are, or 30 s later."""
        deadline = time.monotonic() + 30 + self._scaled["window"]
        while time.monotonic() < deadline:
            stats = self._stats()
            if stats is not None and stats.learned >= decisions:
                break
            time.sleep(0.1)
        stats = self._stats()
        return stats.learned if stats else 0

    def _report(self, writer: Writer, learned: int, held: list[bytes]) -> int:
        peaks = []
        print("quarter   used_memory peak, mean (MB)   entries in the stream, peak")
        for number in range(4):
            memory, entries = self._sampled.quarter(number)
            peaks.append(max(memory, default=0))
            mean = sum(memory) / max(len(memory), 1)
            most = max(entries, default=0)
            print(
                f"{number + 1}         {peaks[-1] / 1e6:8.1f} {mean / 1e6:8.1f}            "
                f" {most:10,}"
            )
        missing = len(set(writer.ids) - set(held))
        same = held == writer.ids
        growth = peaks[3] / peaks[1] if peaks[1] else float("inf")
        print(f"decisions              {writer.decisions:,}, learned {learned:,}")
        print(f"written                {len(writer.ids):,} entries")
        print(
            f"in archive or stream   {len(held):,} entries, {missing} missing, in order and each"
            f" once: {same}"
        )
        print(
            f"untrimmed              {self._entry_bytes * len(writer.ids) / 1e6:,.0f} MB of stream"
        )
        print(f"last quarter's peak    x {growth:.3f} of the second's (at most {GROWTH})")
        return 0 if growth <= GROWTH and same else 1


def _is_traffic(record: object) -> bool:
    return isinstance(record, (*DECISIONS, RewardRecord))


def _catalogue() -> Catalogue:
    return Catalogue.of(
        [
            {
                "id": f"item{k}",
                "features": {
                    "topic": f"topic{k % TOPICS}",
                    "price": k / ITEMS,
                    "age": float(k % 7),
                },
            }
            for k in range(ITEMS)
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
