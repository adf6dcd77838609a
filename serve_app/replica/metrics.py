"""The measurements of one process, pushed to Redis each second so that any replica has all.

A scrape through the load balancer reaches one replica only; merging in Redis, with a ``process``
label on every sample, keeps each series monotonic and lets Prometheus add them up.
"""

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from banditloop_client.schemas import Trouble
from serve_app.store.clients import FAILURES, AsyncRedis
from serve_app.store.keys import PROCESSES, process_metrics

# fmt: off
BUCKETS_S = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
)
# fmt: on
EXPIRE_S = 30
PUSH_S = 1.0

COUNTERS = {
    "requests": ("HTTP requests by route and status", ("route", "status")),
    "decisions": (
        "Decisions answered, by whether they are known to be logged",
        ("policy", "logged"),
    ),
    "profiles_unread": (
        "Decisions made without all that is known of the user, or of the visit",
        ("policy",),
    ),
    "reward_events": ("Reward events accepted", ("policy",)),
    "activity_events": ("Events of activity accepted", ("space",)),
    "source_failures": ("Requests a source fell out of", ("policy", "source")),
    "source_partial": (
        "Answers of a source of which only a part could be used",
        ("policy", "source"),
    ),
    "snapshot_failures": (
        "Failed attempts to load a snapshot; the previous one served on",
        ("policy", "reason"),
    ),
    "artifact_failures": (
        "Failed attempts to load an artifact; the previous one served on",
        ("policy",),
    ),
    "log_failures": ("Writes not known to be in the log", ("reason",)),
    "keys_file_failures": ("Changes of the keys file refused; the previous keys kept holding", ()),
}
GAUGES = {
    "snapshot_age_seconds": ("Time since the served snapshot was loaded", ("policy",)),
    "artifact_behind": (
        "Whether the artifact that the log says cannot be loaded, and another serves: 1, or 0",
        ("policy",),
    ),
}
KNOWN_OUTCOMES = (
    *("decisions", "duplicate_decision", "closed", "not_activated", "joined", "placed", "late"),
    *("duplicate", "orphan", "orphan_activation", "unactivated", "invalid", "unknown_signal"),
    *("undecodable", "refused_in_inbox", "refused_decision", "refused_spec", "refused_catalogue"),
    *("refused_artifact", "refused_prior", "refused_rollback", "refused_warm_start"),
)
"""Outcomes of the log that are said from the start, though there was none: what Prometheus sees
appear with 1 did not increase."""
REFRESH_OUTCOMES = ("accepted", "refused", "stored", "failed")
"""The same of refreshes."""
INBOX_OUTCOMES = ("moved", "refused")
"""The same of a space's inbox."""
LATENCY = ("rank_latency_seconds", "Time to answer a rank request inside the replica")


class ProcessSample(msgspec.Struct, array_like=True):
    """Everything one process has measured.

    Attributes:
        process: its name, the label of every sample.
        counters: name, labels and value of each.
        gauges: the same.
        latency: policy, counts between the bounds of BUCKETS_S, and their sum in seconds.
        troubles: policy, source, and what was last wrong with it.
    """

    process: str
    counters: list[tuple[str, list[str], float]]
    gauges: list[tuple[str, list[str], float]]
    latency: list[tuple[str, list[int], float]]
    troubles: list[tuple[str, str, Trouble]] = []


class Metrics:
    """The measurements of one process. Adding is a dictionary update; nothing here blocks.

    Attributes:
        process: its name.
        counts: by name and labels.
        gauges: called for a sample; gives name, labels and value of each.
        troubles: called for a sample; gives policy, source, and what was last wrong with it.
        refresh: called before a sample, to take over counters that others keep.
    """

    def __init__(self, process: str) -> None:
        self.process = process
        self.counts: Counter[tuple[str, ...]] = Counter()
        self._latency: dict[str, list[int]] = {}
        self._latency_sum: Counter[str] = Counter()
        self.gauges: Callable[[], Iterable[tuple[str, list[str], float]]] = lambda: ()
        self.troubles: Callable[[], Iterable[tuple[str, str, Trouble]]] = lambda: ()
        self.refresh: Callable[[], None] = lambda: None

    def begin(self, name: str, *labels: str) -> None:
        """Say that a counter is there, at 0 if it was not: then its first increase is one.

        Args:
            name: one of COUNTERS.
            labels: its labels' values, in their order.
        """
        self.counts[(name, *labels)] += 0

    def count(self, name: str, *labels: str, by: int = 1) -> None:
        """Add to a counter.

        Args:
            name: one of COUNTERS.
            labels: its labels' values, in their order.
            by: how much.
        """
        self.counts[(name, *labels)] += by

    def observe(self, policy: str, seconds: float, count: int = 1) -> None:
        """Add the latency of one rank, or of several that were asked for together.

        Args:
            policy: its name.
            seconds: how long the answer took.
            count: how many decisions it holds.
        """
        buckets = self._latency.setdefault(policy, [0] * (len(BUCKETS_S) + 1))
        buckets[bisect_left(BUCKETS_S, seconds)] += count
        self._latency_sum[policy] += count * seconds  # type: ignore[assignment]

    def sample(self) -> ProcessSample:
        """Return a copy, as of now."""
        self.refresh()
        return ProcessSample(
            process=self.process,
            counters=[
                (name, list(labels), float(value)) for (name, *labels), value in self.counts.items()
            ],
            gauges=list(self.gauges()),
            latency=[
                (policy, list(buckets), float(self._latency_sum[policy]))
                for policy, buckets in self._latency.items()
            ],
            troubles=list(self.troubles()),
        )

    async def push_forever(self, client: AsyncRedis) -> None:
        """Push until cancelled; the next push makes good one that failed."""
        while True:
            try:
                pipeline = client.pipeline(transaction=False)
                sample = msgspec.msgpack.encode(self.sample())
                pipeline.set(process_metrics(self.process), sample, ex=EXPIRE_S)

                # A process that has not pushed for EXPIRE_S is gone: its name goes with its sample.
                pipeline.zadd(PROCESSES, {self.process: time.time()})
                pipeline.zremrangebyscore(PROCESSES, 0, time.time() - EXPIRE_S)
                await pipeline.execute()
            except FAILURES:
                pass
            await asyncio.sleep(PUSH_S)
