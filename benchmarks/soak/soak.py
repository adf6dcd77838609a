"""Runs the service at half its capacity for a while, and asks whether anything grows.

    python -m benchmarks.soak.soak [--warm-up 25] [--minutes 30] [--out soak.json]      (an hour, or less than two)

``banditloop serve`` with 2 replicas, a learner and a standby, the embedded Valkey and the archive.
20 s of closed loop on 16 connections measure how many decisions with their rewards it takes per
second (client and service share the machine). 20 s of closed loop on 256 connections follow, the
most that the open loop has; every third request of theirs is too large. Then half of the measured
rate, open loop, 1% of it faulty: malformed, of wrong types, for an unknown policy or event, too
large, a retry, the event_id of another request, a client that hangs up. Each decision has 20
actions of a catalogue. Every 5 s: the resident memory of every process of the service, what Redis
says of its own, the length of the log.

Valkey holds what is retained by design: the stream's last 601 s (archive_retain_s, the least that
the service takes; its default is 900), each event_id for 600 s. It grows until the first of them
go, so the same load runs for a while (--warm-up) before it counts; a warm-up that is shorter than
what Valkey retains is told of, and the slope of valkey then means nothing. It also keeps the last
checkpoint of each of 24 hours and 30 days, so it grows by one, half a megabyte here, soon after
every full hour: less than an hour that counts lies within one of the clock's, and the warm-up goes
on until it can.

Other processes reach their largest size in steps: the crowd of 256 is there to have those come
early that are of how much goes on at once. Of HAProxy's buffers, 16 KB each, only those pages are
resident that some request has filled: hence the requests that are too large. Without those it grew
for minutes, with them not at all. Raylet and GCS grew by 0.7 and 0.6 MB within an hour while each
of their threads kept a cache of freed memory (serve_app/host/environment.py).

A slope is that of least squares over the minutes that count, of the sum over a kind's processes.
Its standard error takes samples for independent, which neighbours are not: it is too small, so the
verdict errs towards "no". "flat: yes" when no kind of process, nor used_memory, has a slope above 3
standard errors AND above 1% of its size per hour. Exit status 0 when it is flat, no status was 500
or more but 503, and no process was replaced.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import msgspec
import numpy as np
import redis

from benchmarks.soak.load import SERVER_ERROR, UNAVAILABLE, Load
from benchmarks.soak.service import POLICY, SETTINGS, Sample, Service

SAMPLE_S = 5.0
ENOUGH = 10
"""Samples after the warm-up, below which nothing is said of their slope."""
CAPACITY_S, CROWD_S = 20.0, 20.0
PROGRESS_S = 60.0
RETAIN_S = float(SETTINGS["ARCHIVE_RETAIN_S"])
HOUR_S = 3600.0
HOURLY_S = 180.0
"""After a full hour, until the checkpoint that is kept of it is no longer one of the newest."""
ERRORS, SHARE_PER_HOUR = 3.0, 0.01
MB = 1e6


@dataclass(frozen=True, slots=True)
class Trend:
    """Of one quantity: first and last value, the slope per hour and its standard error."""

    first: float
    last: float
    slope: float
    error: float

    @classmethod
    def of(cls, hours: list[float], values: list[float]) -> "Trend":
        """Least squares over all of them."""
        x, y = np.array(hours), np.array(values)
        x = x - x.mean()
        slope = float(x @ y / (x @ x))
        residuals = y - y.mean() - slope * x
        error = float(np.sqrt(residuals @ residuals / (len(x) - 2) / (x @ x)))
        return cls(values[0], values[-1], slope, error)

    @property
    def grows(self) -> bool:
        """The rule at the top."""
        return self.slope > ERRORS * self.error and self.slope > SHARE_PER_HOUR * self.last


@dataclass(frozen=True, slots=True)
class Run:
    """``capacity``: decisions with their rewards per second.

    ``warm_up_s``: how long before samples count.
    """

    capacity: float
    warm_up_s: float
    samples: list[Sample]


def warm_up_s(now_s: float, least_s: float, counted_s: float) -> float:
    """At least so many seconds from ``now_s`` (Unix time), so that what counts then lies within an hour if it can."""
    if counted_s + HOURLY_S > HOUR_S:
        return least_s
    into = (now_s + least_s) % HOUR_S
    if into < HOURLY_S:
        return least_s + HOURLY_S - into
    return least_s if into + counted_s <= HOUR_S else least_s + HOUR_S - into + HOURLY_S


def main() -> int:
    """Run, print; exit 1 when something grows, fails or was replaced."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="that count (30)")
    parser.add_argument(
        "--warm-up", type=float, default=25.0, help="minutes before them, at least (25)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write everything as JSON")
    given = parser.parse_args()
    if given.minutes < 1:
        parser.error("--minutes: at least 1, to have enough samples")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the service is stopped on the way out
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, Service(Path(folder)) as service:
        load = Load(service.url, POLICY, given.seed)
        run = asyncio.run(_run(service, load, given.warm_up * 60, given.minutes * 60))
    return _report(run, load, given)


async def _run(service: Service, load: Load, least_s: float, counted_s: float) -> Run:
    await load.put_catalogue()
    await asyncio.sleep(2.0)  # replicas serve it with the next snapshot
    capacity = await load.capacity(CAPACITY_S)
    await load.crowd(CROWD_S)
    warm_up = warm_up_s(time.time(), least_s, counted_s)
    print(
        f"capacity: {capacity:.0f} decisions with rewards per second; half of it for"
        f" {warm_up / 60:.0f} + {counted_s / 60:g} min",
        flush=True,
    )
    load.statuses.clear()
    samples: list[Sample] = []
    sampling = asyncio.create_task(_sample(service, load, samples))
    await load.drive(capacity / 2, warm_up + counted_s)
    sampling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sampling
    return Run(capacity, warm_up, samples)


async def _sample(service: Service, load: Load, samples: list[Sample]) -> None:
    """Every SAMPLE_S, until cancelled.

    A sample that Redis did not answer is counted and left out.
    """
    began = time.monotonic()
    for number in count():
        await asyncio.sleep(max(0.0, began + number * SAMPLE_S - time.monotonic()))
        try:
            newest = await asyncio.to_thread(service.sample)
        except redis.RedisError:
            load.statuses["sample no answer"] += 1
            continue
        samples.append(newest)
        if number and number * SAMPLE_S % PROGRESS_S == 0:
            print(
                f"{number * SAMPLE_S / 60:4.0f} min: {load.statuses['rank 200']:,} decisions,"
                " processes"
                f" {sum(newest.rss.values()) / MB:,.0f} MB, redis"
                f" {newest.redis['used_memory'] / MB:,.1f} MB in"
                f" {newest.log_entries:,} entries",
                flush=True,
            )


def _report(run: Run, load: Load, given: argparse.Namespace) -> int:
    samples = run.samples
    counted = [sample for sample in samples if sample.at_s - samples[0].at_s >= run.warm_up_s]
    hours = [sample.at_s / 3600 for sample in counted]
    kinds = sorted({kind for sample in samples for kind in sample.rss})
    trends = {
        kind: Trend.of(hours, [sample.rss.get(kind, 0) / MB for sample in counted])
        for kind in kinds
    }
    trends["redis used_memory"] = Trend.of(
        hours, [sample.redis["used_memory"] / MB for sample in counted]
    )
    length = Trend.of(hours, [float(sample.log_entries) for sample in counted])
    print(f"{'MB':20s} {'first':>9s} {'last':>9s} {'per hour':>9s} {'std err':>9s}")
    for name, trend in {**trends, "log entries": length}.items():
        row = (f"{value:9,.1f}" for value in (trend.first, trend.last, trend.slope, trend.error))
        print(f"{name:20s}", *row, "  grows" if trend.grows and name in trends else "")
    replaced = _replaced(samples)
    for kind in replaced:
        print(
            f"replaced while it ran: {kind} {samples[0].pids.get(kind, [])} ->"
            f" {samples[-1].pids.get(kind, [])}"
        )
    print("answers")
    for name, times in sorted(load.statuses.items()):
        print(f"  {name:40s} {times:10,}")
    bad = _server_errors(load.statuses)
    print(
        f"statuses of 500 or more other than 503: {sum(bad.values())}", *load.failures, sep="\n  "
    )
    if run.warm_up_s < RETAIN_S:
        print(
            f"a warm-up of {run.warm_up_s:.0f} s is less than the {RETAIN_S:.0f} s retained:"
            " valkey grows by design"
        )
    growing = [name for name, trend in trends.items() if trend.grows]
    nothing = len(counted) < ENOUGH or not load.statuses["rank 200"]
    print("flat:", "nothing to check, run it longer" if nothing else "no" if growing else "yes")
    if given.out is not None:
        fields = {
            "warm_up": run.warm_up_s / 60,
            "minutes": given.minutes,
            "seed": given.seed,
            "capacity_per_s": run.capacity,
            "growing": growing,
        }
        fields |= {
            "replaced": replaced,
            "trends": {**trends, "log entries": length},
            "statuses": load.statuses,
        }
        fields |= {"failures": load.failures, "samples": samples}
        given.out.write_bytes(msgspec.json.format(msgspec.json.encode(fields), indent=2) + b"\n")
    return 1 if growing or bad or replaced else 3 if nothing else 0


def _server_errors(statuses: Counter[str]) -> Counter[str]:
    last = {name: name.rpartition(" ")[2] for name in statuses}
    found = {name: int(status) for name, status in last.items() if status.isdigit()}
    return Counter(
        {
            name: statuses[name]
            for name, status in found.items()
            if status >= SERVER_ERROR and status != UNAVAILABLE
        }
    )


def _replaced(samples: list[Sample]) -> list[str]:
    """The kinds whose processes were not the same all the time; Ray's idle workers ("other") come and go."""
    kinds = {kind for sample in samples for kind in sample.pids} - {"other"}
    return sorted(
        kind
        for kind in kinds
        if any(sample.pids.get(kind) != samples[0].pids.get(kind) for sample in samples)
    )


if __name__ == "__main__":
    sys.exit(main())
