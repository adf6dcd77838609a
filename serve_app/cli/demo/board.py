"""The display of the demo while its traffic runs."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from serve_app.cli.terminal import empty_table, messages, text_column
from serve_app.store.clients import Redis
from serve_app.store.keys import Keys
from serve_app.store.stats import Stats
from simulator.worlds.demo import DemoBench, Traffic, percentiles

OUTCOMES = ("joined", "late", "duplicate", "orphan", "early")
"""What becomes of the demo's rewards: each has one of these."""
RECENT = 2000
"""Rounds of which the board shows means and latencies."""
REPORT_NAMES = {"als": "cf"}
"""Sources that are called otherwise in the report."""


class Board:
    """Progress, and the bandit's rewards beside those of fixed policies for the same users."""

    def __init__(
        self, rounds: int, bench: DemoBench, seed: int, client: Redis, policy: str
    ) -> None:
        self.traffic = Traffic()
        self._rounds = rounds
        self._bench = bench
        self._seed = seed
        self._client = client
        self._keys = Keys(policy)
        self._started = time.monotonic()
        self._live: Live | None = None
        self._bar = Progress(
            text_column("decisions"),
            BarColumn(40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("", total=rounds)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the board until the context ends."""
        self._started = time.monotonic()
        with Live(self._view(), console=messages, refresh_per_second=2) as self._live:
            yield

    def refresh(self) -> None:
        """Show what has happened by now."""
        self._bar.update(self._task, completed=len(self.traffic.rewards))
        if self._live is not None:
            self._live.update(self._view())

    async def wait_until_learned(self, *, timeout_s: float) -> None:
        """Wait until all is learned and counted, and then a moment for the replicas to load it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            stats = latest_stats(self._client, self._keys)
            if stats is not None and stats.learned >= self._rounds and self._counted(stats):
                break
            await asyncio.sleep(0.1)

        await asyncio.sleep(1.0)

    def _counted(self, stats: Stats) -> bool:
        """Whether every reward that was acknowledged has its outcome, also one that came late."""
        return sum(stats.outcomes.get(name, 0) for name in OUTCOMES) >= self.traffic.acknowledged

    def _view(self) -> Group:
        parts: list[RenderableType] = [self._bar]

        # Traffic goes on meanwhile: a round counts once both its lists have it.
        done = min(len(self.traffic.rewards), len(self.traffic.users))
        if done:
            parts.append(self._reward_row(done))

        stats = latest_stats(self._client, self._keys)
        if stats is not None and done:
            parts.append(self._service_row(done, stats))
        return Group(*parts)

    def _reward_row(self, done: int) -> Table:
        recent = slice(max(0, done - RECENT), done)
        fixed = self._bench.baselines(self.traffic.users[recent], self._seed)
        rewards = {
            "bandit": np.array(self.traffic.rewards[recent]),
            **under_report_names(fixed),
        }
        means = {name: f"{values.mean():.3f}" for name, values in rewards.items()}
        return one_row_table(f"mean reward of the last {RECENT:,} rounds", means)

    def _service_row(self, done: int, stats: Stats) -> Table:
        p50, p99 = percentiles(self.traffic.latencies_ms[-RECENT:]).values()
        # The age is by the clock of Redis, which dates what is published.
        seconds: Any = self._client.time()
        age = seconds[0] + seconds[1] / 1e6 - stats.published_ms / 1000
        facts = {
            "requests/s": f"{done / (time.monotonic() - self._started):.0f}",
            "p50/p99 ms": f"{p50:.1f}/{p99:.1f}",
            "learned": f"{stats.learned:,}",
            "snapshot age": f"{age:.1f} s",
        }
        return one_row_table("the service", facts)


def one_row_table(title: str, cells: Mapping[str, str]) -> Table:
    """Return a table of one row, narrow enough for any terminal.

    Args:
        title: Line above the table.
        cells: By head, what stands below it.
    """
    table = empty_table(*cells, title=title, numbers=cells)
    table.add_row(*cells.values())
    return table


def latest_stats(client: Redis, keys: Keys) -> Stats | None:
    """Return what the learner published last, None if it has published nothing.

    Args:
        client: Redis of the service.
        keys: Keys of the policy.
    """
    raw: Any = client.get(keys.stats)
    return None if raw is None else msgspec.msgpack.decode(raw, type=Stats)


def under_report_names(rewards: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rewards of sources under the names that the report gives them."""
    return {REPORT_NAMES.get(name, name): values for name, values in rewards.items()}
