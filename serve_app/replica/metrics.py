"""Counters of one process, pushed to Redis each second, so that any replica can answer for all of them.

A scrape through the load balancer reaches one replica only; merging in Redis, with a ``process``
label on every sample, keeps each series monotonic and lets Prometheus add them up.
"""

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from banditloop_client.schemas import Trouble
from bandits.log.positions import position_ms
from serve_app.store.clients import FAILURES, AsyncRedis, clock_ms
from serve_app.store.keys import PROCESSES, Keys, process_metrics
from serve_app.store.keys import partitions as key_names
from serve_app.store.progress import LearningHealth
from serve_app.store.stats import Stats, summed

BUCKETS_S = (
    0.0001,
    0.0002,
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
)
EXPIRE_S = 30
PUSH_S = 1.0
SCRAPE_S = 2.0

COUNTERS = {
    "requests": ("HTTP requests by route and status", ("route", "status")),
    "decisions": (
        "Decisions answered, by whether they are known to be logged",
        ("policy", "logged"),
    ),
    "reward_events": ("Reward events accepted", ("policy",)),
    "source_failures": ("Requests a source fell out of", ("policy", "source")),
    "source_partial": (
        "Answers of a source of which only a part could be used",
        ("policy", "source"),
    ),
    "snapshot_failures": (
        "Failed attempts to load a snapshot; the previous one served on",
        ("policy", "reason"),
    ),
    "log_failures": ("Writes not known to be in the log", ("reason",)),
    "keys_file_failures": ("Changes of the keys file refused; the previous keys kept holding", ()),
}
GAUGES = {"snapshot_age_seconds": ("Time since the served snapshot was loaded", ("policy",))}
LATENCY = ("rank_latency_seconds", "Time to answer a rank request inside the replica")


class Sample(msgspec.Struct, array_like=True):
    """Everything one process has measured.

    ``troubles``: policy, source, what was last wrong with it, and when.
    """

    process: str
    counters: list[tuple[str, list[str], float]]
    gauges: list[tuple[str, list[str], float]]
    latency: list[tuple[str, list[int], float]]
    troubles: list[tuple[str, str, Trouble]] = []


class Metrics:
    """What one process measures. Adding is a dictionary update; nothing here blocks."""

    def __init__(self, process: str) -> None:
        self.process = process
        self.counts: Counter[tuple[str, ...]] = Counter()
        self._latency: dict[str, list[int]] = {}
        self._latency_sum: Counter[str] = Counter()
        self.gauges: Callable[[], Iterable[tuple[str, list[str], float]]] = lambda: ()
        self.troubles: Callable[[], Iterable[tuple[str, str, Trouble]]] = lambda: ()
        self.refresh: Callable[[], None] = lambda: None

    def count(self, name: str, *labels: str, by: int = 1) -> None:
        """Add to a counter of COUNTERS."""
        self.counts[(name, *labels)] += by

    def observe(self, policy: str, seconds: float) -> None:
        """One rank latency, in seconds."""
        buckets = self._latency.setdefault(policy, [0] * (len(BUCKETS_S) + 1))
        buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self._latency_sum[policy] += seconds  # type: ignore[assignment]

    def sample(self) -> Sample:
        """A copy, as of now."""
        self.refresh()
        return Sample(
            self.process,
            [(name, list(labels), float(value)) for (name, *labels), value in self.counts.items()],
            list(self.gauges()),
            [
                (policy, list(buckets), float(self._latency_sum[policy]))
                for policy, buckets in self._latency.items()
            ],
            list(self.troubles()),
        )

    async def push_forever(self, client: AsyncRedis) -> None:
        """Push until cancelled; a failed push is made good by the next."""
        while True:
            try:
                pipeline = client.pipeline(transaction=False)
                pipeline.set(
                    process_metrics(self.process),
                    msgspec.msgpack.encode(self.sample()),
                    ex=EXPIRE_S,
                )
                pipeline.zadd(PROCESSES, {self.process: time.time()})
                pipeline.zremrangebyscore(PROCESSES, 0, time.time() - EXPIRE_S)
                await pipeline.execute()
            except FAILURES:
                pass
            await asyncio.sleep(PUSH_S)


async def collect(
    client: AsyncRedis,
    own: Sample,
    policies: Iterable[str],
    partitions: Mapping[str, int] | None = None,
    learning: Mapping[str, LearningHealth] | None = None,
) -> bytes:
    """Prometheus text: this process as of now, the others as of their last push, and what the learners have counted.

    ``partitions``: how many a policy has, if not one. ``learning``: how that of each policy stands.

    When Redis cannot be reached, or takes longer than SCRAPE_S, it is this process alone.
    """
    samples = [own]
    stats: dict[str, Stats] = {}
    lags: dict[str, float] = {}
    logs: dict[str, LogState] = {}
    try:
        async with asyncio.timeout(SCRAPE_S):
            samples += [each for each in await _pushed(client) if each.process != own.process]
            for name in policies:
                every = key_names(name, (partitions or {}).get(name, 1))
                found = [(keys, await _stats_of(client, keys)) for keys in every]
                known = [(keys, each) for keys, each in found if each is not None]
                if known and known[0][0].partition == 0:
                    stats[name] = summed([each for _, each in known])
                    lags[name] = max([await _lag_s(client, keys, each) for keys, each in known])
                logs[name] = _all_logs([await _log_state(client, keys) for keys in every])
    except (*FAILURES, msgspec.MsgspecError):
        pass
    registry = CollectorRegistry()
    registry.register(_Collector(samples, stats, lags, logs, learning or {}))
    return generate_latest(registry)


async def _all(client: AsyncRedis, names: list[str]) -> list[bytes | None]:
    """Values of keys that may be on different nodes."""
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.get(name)
    found: list[bytes | None] = await pipeline.execute() if names else []
    return found


async def _pushed(client: AsyncRedis) -> list[Sample]:
    """What every process that runs has pushed last."""
    processes: Any = await client.zrange(PROCESSES, 0, -1)
    raw = await _all(client, [process_metrics(name.decode()) for name in processes])
    return [msgspec.msgpack.decode(each, type=Sample) for each in raw if each is not None]


async def read_troubles(
    client: AsyncRedis, policy: str, own: Mapping[str, Trouble]
) -> dict[str, Trouble]:
    """What was last wrong with each source of a policy, in this process or any other."""
    found = dict(own)
    for sample in await _pushed(client):
        for name, source, trouble in sample.troubles:
            if name == policy and (source not in found or trouble.at_s > found[source].at_s):
                found[source] = trouble
    return found


async def read_stats(client: AsyncRedis, policy: str, partitions: int) -> Stats | None:
    """What the learners of a policy published last, those of its partitions together."""
    found = [await _stats_of(client, keys) for keys in key_names(policy, partitions)]
    return None if found[0] is None else summed([each for each in found if each is not None])


async def _stats_of(client: AsyncRedis, keys: Keys) -> Stats | None:
    raw: Any = await client.get(keys.stats)
    return None if raw is None else msgspec.msgpack.decode(raw, type=Stats)


async def _lag_s(client: AsyncRedis, keys: Keys, stats: Stats) -> float:
    """Seconds since the learner's position, if the log goes on: one that has died cannot say that it is behind."""
    newest: Any = await client.xrevrange(keys.log, count=1)
    if not newest or newest[0][0].decode() == stats.position:
        return 0.0
    return max(0.0, (await clock_ms(client, keys.log) - position_ms(stats.position)) / 1000)


class LogState(msgspec.Struct, frozen=True):
    """Of one policy's log or logs: entries in Redis, and, if ever archived, how the archiver keeps up."""

    entries: int
    unarchived_s: float | None
    failures: int


async def _log_state(client: AsyncRedis, keys: Keys) -> LogState:
    entries: Any = await client.xlen(keys.log)
    held: Any = await client.hmget(keys.archive, "written", "failures", "end")
    written, failures, end = held
    if failures is None and end is None:
        return LogState(int(entries), None, 0)
    oldest: Any = await client.xrange(keys.log, f"({written.decode()}" if written else "-", count=1)
    age = (
        (await clock_ms(client, keys.log) - int(oldest[0][0].partition(b"-")[0])) / 1000
        if oldest
        else 0.0
    )
    return LogState(int(entries), max(0.0, age), int(failures or 0))


def _all_logs(states: list[LogState]) -> LogState:
    ages = [each.unarchived_s for each in states if each.unarchived_s is not None]
    failures = sum(each.failures for each in states)
    return LogState(sum(each.entries for each in states), max(ages, default=None), failures)


class _Collector:
    def __init__(
        self,
        samples: list[Sample],
        stats: Mapping[str, Stats],
        lags: Mapping[str, float],
        logs: Mapping[str, LogState],
        learning: Mapping[str, LearningHealth],
    ) -> None:
        self._logs = logs
        self._learning = learning
        self._samples = samples
        self._stats = stats
        self._lags = lags

    def collect(self) -> Iterator[Metric]:
        for name, (text, labels) in COUNTERS.items():
            counter = CounterMetricFamily(f"banditloop_{name}", text, labels=[*labels, "process"])
            for sample in self._samples:
                for key, values, value in sample.counters:
                    if key == name:
                        counter.add_metric([*values, sample.process], value)
            yield counter
        for name, (text, labels) in GAUGES.items():
            gauge = GaugeMetricFamily(f"banditloop_{name}", text, labels=[*labels, "process"])
            for sample in self._samples:
                for key, values, value in sample.gauges:
                    if key == name:
                        gauge.add_metric([*values, sample.process], value)
            yield gauge
        yield self._troubles()
        yield self._histogram()
        yield from self._learners()
        yield self._stalled()
        yield from self._archivers()

    def _troubles(self) -> Metric:
        trouble = GaugeMetricFamily(
            "banditloop_source_trouble_timestamp_seconds",
            "When something was last wrong with a source, and what",
            labels=["policy", "source", "reason", "process"],
        )
        for sample in self._samples:
            for policy, source, last in sample.troubles:
                trouble.add_metric([policy, source, last.reason, sample.process], last.at_s)
        return trouble

    def _histogram(self) -> Metric:
        histogram = HistogramMetricFamily(
            f"banditloop_{LATENCY[0]}", LATENCY[1], labels=["policy", "process"]
        )
        for sample in self._samples:
            for policy, buckets, total in sample.latency:
                cumulative, rows = 0, []
                for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), buckets, strict=True):
                    cumulative += count
                    rows.append((bound, float(cumulative)))
                histogram.add_metric([policy, sample.process], rows, total)
        return histogram

    def _learners(self) -> Iterator[Metric]:
        outcomes = CounterMetricFamily(
            "banditloop_log_outcomes",
            "Rewards and decisions of the log by outcome of the join",
            labels=["policy", "outcome"],
        )
        early = GaugeMetricFamily(
            "banditloop_early_rewards", "Rewards waiting for their decision", labels=["policy"]
        )
        learned = CounterMetricFamily(
            "banditloop_learned", "Interactions learned", labels=["policy"]
        )
        published = CounterMetricFamily(
            "banditloop_snapshots_published", "Snapshots published", labels=["policy"]
        )
        lag = GaugeMetricFamily(
            "banditloop_learner_lag_seconds",
            "Time since the learner's position, if the log goes on",
            labels=["policy"],
        )
        merges = CounterMetricFamily(
            "banditloop_merges", "Merges of a policy's partitions", labels=["policy"]
        )
        late = GaugeMetricFamily(
            "banditloop_late_partitions",
            "Partitions without which the newest merge was made",
            labels=["policy"],
        )
        free = GaugeMetricFamily(
            "banditloop_free_columns",
            "Columns that a ridge model has left; at 0 a new feature is not learned",
            labels=["policy"],
        )
        for policy, stats in self._stats.items():
            if stats.max_columns:
                free.add_metric([policy], stats.max_columns - stats.columns)
            if stats.merge:
                merges.add_metric([policy], stats.merge)
                late.add_metric([policy], len(stats.late))
            for outcome, value in sorted(stats.outcomes.items()):
                if outcome not in {"early", "early_activation"}:  # those go down again
                    outcomes.add_metric([policy, outcome], value)
            early.add_metric([policy], stats.outcomes.get("early", 0))
            learned.add_metric([policy], stats.learned)
            published.add_metric([policy], stats.snapshots)
            lag.add_metric([policy], self._lags.get(policy, 0.0))
        yield from (outcomes, early, learned, published, lag, merges, late, free)

    def _stalled(self) -> Metric:
        text = "Whether a policy's learning stands still while entries wait: 1, or 0"
        stalled = GaugeMetricFamily("banditloop_learning_stalled", text, labels=["policy", "kind"])
        for policy, learning in self._learning.items():
            if learning.state != "unknown":
                stalled.add_metric(
                    [policy, learning.stall.kind if learning.stall else ""],
                    float(bool(learning.stall)),
                )
        return stalled

    def _archivers(self) -> Iterator[Metric]:
        entries = GaugeMetricFamily(
            "banditloop_log_entries", "Entries of the log in Redis", labels=["policy"]
        )
        lag = GaugeMetricFamily(
            "banditloop_archive_lag_seconds",
            "Age of the oldest entry that is not archived",
            labels=["policy"],
        )
        failures = CounterMetricFamily(
            "banditloop_archive_failures",
            "Attempts to archive that failed and were repeated",
            labels=["policy"],
        )
        for policy, state in self._logs.items():
            entries.add_metric([policy], state.entries)
            if state.unarchived_s is not None:
                lag.add_metric([policy], state.unarchived_s)
                failures.add_metric([policy], state.failures)
        yield from (entries, lag, failures)
