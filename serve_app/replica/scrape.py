"""The metrics of the whole service, as Prometheus text: every process, learner and archiver."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from banditloop_client.schemas import RefreshInfo, Trouble
from bandits.log.positions import position_ms
from serve_app.admin.refreshes import follow_refresh
from serve_app.replica.metrics import (
    BUCKETS_S,
    COUNTERS,
    GAUGES,
    KNOWN_OUTCOMES,
    LATENCY,
    REFRESH_OUTCOMES,
    ProcessSample,
)
from serve_app.replica.space_metrics import SpaceState, read_states, space_families
from serve_app.store.clients import FAILURES, AsyncRedis, clock_ms
from serve_app.store.keys import PROCESSES, Keys, process_metrics
from serve_app.store.keys import partitions as key_names
from serve_app.store.progress import LearningHealth
from serve_app.store.replicas.shadow_progress import read_shadow_lags
from serve_app.store.stats import Stats, summed

SCRAPE_S = 2.0


async def collect(
    client: AsyncRedis,
    own: ProcessSample,
    policies: Iterable[str],
    partitions: Mapping[str, int] | None = None,
    learning: Mapping[str, LearningHealth] | None = None,
    spaces: Iterable[str] = (),
) -> bytes:
    """Return Prometheus text: this process as of now, the others as of their last push.

    When Redis cannot be reached, or takes longer than SCRAPE_S, it tells of this process alone.

    Args:
        client: of the Redis that all processes push to.
        own: what this process has measured.
        policies: their names.
        partitions: how many a policy has, if not one.
        learning: how the learning of each policy stands.
        spaces: the names of those in which profiles are kept.
    """
    samples = [own]
    states: dict[str, SpaceState] = {}
    stats: dict[str, Stats] = {}
    lags: dict[str, float] = {}
    logs: dict[str, LogState] = {}
    refreshed: dict[str, RefreshInfo] = {}
    shadows: dict[str, dict[str, float]] = {}
    try:
        async with asyncio.timeout(SCRAPE_S):
            pushed = await _pushed_samples(client)
            samples += [sample for sample in pushed if sample.process != own.process]

            for name in policies:
                keys_of_all = key_names(name, (partitions or {}).get(name, 1))
                published = [(keys, await _stats_of(client, keys)) for keys in keys_of_all]
                present = [(keys, counts) for keys, counts in published if counts is not None]

                # The counts of a policy begin with partition 0: without it they are no sum yet.
                if present and present[0][0].partition == 0:
                    stats[name] = summed([counts for _, counts in present])
                    lags[name] = max(
                        [await _lag_s(client, keys, counts) for keys, counts in present]
                    )
                logs[name] = _all_logs([await _log_state(client, keys) for keys in keys_of_all])
                shadows[name] = await read_shadow_lags(client, keys_of_all)
                last = await follow_refresh(client, keys_of_all[0])
                if last is not None:
                    refreshed[name] = last
            states = await read_states(client, spaces)
    except (*FAILURES, msgspec.MsgspecError):
        pass

    registry = CollectorRegistry()
    registry.register(
        ServiceCollector(samples, stats, lags, logs, learning or {}, refreshed, states, shadows)
    )
    return generate_latest(registry)


async def read_troubles(
    client: AsyncRedis, policy: str, own: Mapping[str, Trouble]
) -> dict[str, Trouble]:
    """Return what was last wrong with each source of a policy, in this process or any other.

    Args:
        client: of the Redis that all processes push to.
        policy: its name.
        own: what was last wrong in this process, by source.
    """
    latest = dict(own)
    for sample in await _pushed_samples(client):
        for name, source, trouble in sample.troubles:
            if name == policy and (source not in latest or trouble.at_s > latest[source].at_s):
                latest[source] = trouble
    return latest


async def read_learner_stats(client: AsyncRedis, policy: str, partitions: int) -> Stats | None:
    """Return what the learners of a policy published last, summed; None before partition 0 has.

    Args:
        client: of the Redis with the policy's keys.
        policy: its name.
        partitions: how many it has.
    """
    published = [await _stats_of(client, keys) for keys in key_names(policy, partitions)]
    if published[0] is None:
        return None
    return summed([counts for counts in published if counts is not None])


async def _pushed_samples(client: AsyncRedis) -> list[ProcessSample]:
    """Return what every process that runs has pushed last."""
    processes: Any = await client.zrange(PROCESSES, 0, -1)
    if not processes:
        return []

    # The keys may be on different nodes of a cluster.
    pipeline = client.pipeline(transaction=False)
    for name in processes:
        pipeline.get(process_metrics(name.decode()))
    values: list[bytes | None] = await pipeline.execute()
    return [
        msgspec.msgpack.decode(value, type=ProcessSample) for value in values if value is not None
    ]


async def _stats_of(client: AsyncRedis, keys: Keys) -> Stats | None:
    raw: Any = await client.get(keys.stats)
    return None if raw is None else msgspec.msgpack.decode(raw, type=Stats)


async def _lag_s(client: AsyncRedis, keys: Keys, stats: Stats) -> float:
    """Return the age of the oldest entry past the learner's position, in seconds; 0: there is none.

    Measured here, because a learner that has died cannot say that it is behind.
    """
    unread: Any = await client.xrange(keys.log, f"({stats.position}", count=1)
    if not unread:
        return 0.0
    now_ms = await clock_ms(client, keys.log)
    return max(0.0, (now_ms - position_ms(unread[0][0].decode())) / 1000)


class LogState(msgspec.Struct, frozen=True):
    """How much of a policy's log is in Redis, and how the archiver keeps up with it.

    Attributes:
        entries: in Redis.
        unarchived_s: the age of the oldest entry that is not archived; None if none ever was.
        failures: of attempts to archive.
    """

    entries: int
    unarchived_s: float | None
    failures: int


async def _log_state(client: AsyncRedis, keys: Keys) -> LogState:
    entries: Any = await client.xlen(keys.log)
    archive: Any = await client.hmget(keys.archive, "written", "failures", "end")
    written, failures, end = archive
    if failures is None and end is None:
        return LogState(int(entries), None, 0)

    oldest: Any = await client.xrange(keys.log, f"({written.decode()}" if written else "-", count=1)
    age = 0.0
    if oldest:
        age = (await clock_ms(client, keys.log) - position_ms(oldest[0][0].decode())) / 1000
    return LogState(int(entries), max(0.0, age), int(failures or 0))


def _all_logs(states: list[LogState]) -> LogState:
    ages = [state.unarchived_s for state in states if state.unarchived_s is not None]
    failures = sum(state.failures for state in states)
    return LogState(sum(state.entries for state in states), max(ages, default=None), failures)


class ServiceCollector:
    """Gives prometheus_client the families of a scrape, each with the samples of all processes.

    Args:
        samples: one of each process.
        stats: what the learners of each policy have counted.
        lags: in seconds, by policy.
        logs: how each policy's log stands.
        learning: how each policy's learning stands.
        refreshed: the last refresh of each policy that had one.
        spaces: how each space stands.
        shadows: how far each policy's shadows are behind, in seconds.
    """

    def __init__(
        self,
        samples: list[ProcessSample],
        stats: Mapping[str, Stats],
        lags: Mapping[str, float],
        logs: Mapping[str, LogState],
        learning: Mapping[str, LearningHealth],
        refreshed: Mapping[str, RefreshInfo] | None = None,
        spaces: Mapping[str, SpaceState] | None = None,
        shadows: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        self._samples = samples
        self._stats = stats
        self._lags = lags
        self._logs = logs
        self._learning = learning
        self._refreshed = refreshed or {}
        self._spaces = spaces or {}
        self._shadows = shadows or {}

    def collect(self) -> Iterator[Metric]:
        """Give every family, also those that have no sample yet."""
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
        yield from self._refreshes()
        yield self._shadow_lags()
        yield from space_families(self._spaces)

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
                # Prometheus counts everything up to a bound; a process counts between two.
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
        early = _gauge("early_rewards", "Rewards waiting for their decision")
        learned = _counter("learned", "Interactions learned")
        published = _counter("snapshots_published", "Snapshots published")
        lag = _gauge("learner_lag_seconds", "Age of the oldest entry that the learner has not read")
        merges = _counter("merges", "Merges of a policy's partitions")
        late = _gauge("late_partitions", "Partitions without which the newest merge was made")
        free = _gauge(
            "free_columns",
            "Columns that a ridge model has left; at 0 a new feature is not learned",
        )
        prior = _gauge(
            "prior_rows", "Rows of a prior that the model was taught, if the log has one"
        )

        named = CounterMetricFamily(
            "banditloop_signal_rewards",
            "Rewards that counted, of policies that weigh signals",
            labels=["policy", "signal"],
        )
        means = GaugeMetricFamily(
            "banditloop_signal_mean",
            "Mean value of the rewards of a signal that counted",
            labels=["policy", "signal"],
        )

        for policy, stats in self._stats.items():
            for signal, (count, total) in sorted(stats.signals.items()):
                named.add_metric([policy, signal], count)
                means.add_metric([policy, signal], total / count)

            # Only a ridge model has columns, and only a policy with partitions merges.
            if stats.max_columns:
                free.add_metric([policy], stats.max_columns - stats.columns)
            if stats.merge:
                merges.add_metric([policy], stats.merge)
                late.add_metric([policy], len(stats.late))

            if stats.prior is not None:
                taught = stats.prior.taught
                prior.add_metric([policy], 0 if taught is None else taught.rows)

            # Rewards that wait for their decision go down again: they are a gauge, not a counter.
            counts = {**dict.fromkeys(KNOWN_OUTCOMES, 0), **stats.outcomes}
            for outcome, value in sorted(counts.items()):
                if outcome not in {"early", "early_activation"}:
                    outcomes.add_metric([policy, outcome], value)
            early.add_metric([policy], stats.outcomes.get("early", 0))

            learned.add_metric([policy], stats.learned)
            published.add_metric([policy], stats.snapshots)
            lag.add_metric([policy], self._lags.get(policy, 0.0))
        yield from (outcomes, early, learned, published, lag, merges, late, free, prior)
        yield from (named, means)
        yield from self._quotas()

    def _quotas(self) -> Iterator[Metric]:
        share, price = (
            GaugeMetricFamily(f"banditloop_quota_{name}", text, labels=["policy", "quota"])
            for name, text in (
                ("share", "Share of what was shown in the last while, of a quota or a group"),
                ("price", "What a quota adds to the scores of its items"),
            )
        )
        for policy, stats in self._stats.items():
            for quota, state in stats.quotas.items():
                price.add_metric([policy, quota], state.price)
                if state.share is not None:
                    share.add_metric([policy, quota], state.share)
        yield from (share, price)

    def _stalled(self) -> Metric:
        text = "Whether a policy's learning stands still while entries wait: 1, or 0"
        stalled = GaugeMetricFamily("banditloop_learning_stalled", text, labels=["policy", "kind"])
        for policy, learning in self._learning.items():
            # What is not known is not said: an alert on absence finds it.
            if learning.state != "unknown":
                kind = learning.stall.kind if learning.stall else ""
                stalled.add_metric([policy, kind], float(bool(learning.stall)))
        return stalled

    def _archivers(self) -> Iterator[Metric]:
        entries = _gauge("log_entries", "Entries of the log in Redis")
        lag = _gauge("archive_lag_seconds", "Age of the oldest entry that is not archived")
        failures = _counter("archive_failures", "Attempts to archive that failed and were repeated")
        for policy, state in self._logs.items():
            entries.add_metric([policy], state.entries)
            if state.unarchived_s is not None:
                lag.add_metric([policy], state.unarchived_s)
                failures.add_metric([policy], state.failures)
        yield from (entries, lag, failures)

    def _refreshes(self) -> Iterator[Metric]:
        ended = CounterMetricFamily(
            "banditloop_refreshes",
            "Refreshes of a policy's sources, by what became of the new artifact",
            labels=["policy", "outcome"],
        )
        last = GaugeMetricFamily(
            "banditloop_refresh_timestamp_seconds",
            "When the last refresh ended, how, and by which error",
            labels=["policy", "outcome", "code"],
        )
        for policy in sorted({*self._logs, *self._refreshed}):
            info = self._refreshed.get(policy)
            counts = {} if info is None else info.counts
            for outcome, count in {**dict.fromkeys(REFRESH_OUTCOMES, 0), **counts}.items():
                ended.add_metric([policy, outcome], count)
            if info is not None:
                last.add_metric([policy, info.outcome, info.code], info.ended_ms / 1000)
        yield from (ended, last)

    def _shadow_lags(self) -> Metric:
        lag = GaugeMetricFamily(
            "banditloop_shadow_lag_seconds",
            "Age of the oldest entry that a shadow has not followed",
            labels=["policy", "shadow"],
        )
        for policy, by_name in self._shadows.items():
            for name, seconds in by_name.items():
                lag.add_metric([policy, name], seconds)
        return lag


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"banditloop_{name}", text, labels=["policy"])


def _counter(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"banditloop_{name}", text, labels=["policy"])
