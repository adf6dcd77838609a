"""Do quotas hold, and what do they cost? A day on a simulated clock, with a learner that learns.

    python -m benchmarks.learning.quotas

A world of 20 items of five providers: the new season is best for 2% of the visitors, and so is one
provider. The spec wants 20% for the season (`quota`), and 10% for each provider (`exposure`). Visits
come over 24 hours, by night a third as often as by day; a linear model learns from rewards that come
when a window closes, a replica follows it, and the controller of quotas, as the learner's process
runs it: prices are said at most once a second, and obeyed a second later.

Shares are those of the mass of the PMFs. What is lost is compared with the best that anybody could
do who knew every expected reward: the value of the linear program "as much reward as possible,
every share within its bound", by its dual.
"""

import argparse
import asyncio
import os
import sys
import time
from dataclasses import dataclass

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec
import numpy as np

from bandits.log.join import JoinRule
from bandits.log.records import (
    BuildRecord,
    CatalogueRecord,
    ControlRecord,
    DecisionRecord,
    LogEntry,
    LogRecord,
    RewardRecord,
    SpecRecord,
)
from bandits.log.versions import FOLD
from bandits.ridge.config import RidgeConfig
from benchmarks.machine import describe
from policies.candidate_pool import explicit_pool
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.items.timeline import ItemTimeline
from policies.ranker import Ranker
from policies.requests import ActionRequest, Item, RankRequest
from policies.rules.quotas.compiled import Quotas
from policies.rules.quotas.controller import Controller
from policies.rules.quotas.measure import ShareMeter
from policies.rules.quotas.quota import Control, Exposure, Quota
from policies.spec import PolicySpec

SALT = b"quotas"
NEW, RARE = "item.season == 'new'", "e"
QUOTA, FLOOR, NATURAL = 0.2, 0.1, 0.02
ITEMS, FEATURES = 20, 5
DAY_S = 86_400
PUBLISH_S = 120.0
OFF_DAY, OFF_HOUR, EXTRA_LOSS = 0.01, 0.03, 0.01


@dataclass(frozen=True)
class World:
    """Items with groups, and expected rewards that are linear in the context."""

    weights: np.ndarray  # [ITEMS, FEATURES]
    bias: np.ndarray  # [ITEMS]
    is_new: np.ndarray  # bool[ITEMS]
    provider: np.ndarray  # int[ITEMS]

    @classmethod
    def make(cls, seed: int) -> "World":
        """Draw a world, and make two groups so bad that each is best for NATURAL of the visits."""
        rng = np.random.default_rng(seed)
        weights = 0.06 * rng.standard_normal((ITEMS, FEATURES))
        provider = np.arange(ITEMS) % 5
        is_new = np.arange(ITEMS) % 7 == 0
        bias = 0.3 + 0.02 * rng.standard_normal(ITEMS)
        x = contexts(rng, 20_000)
        for _ in range(6):  # each changes the other a little
            for group in (is_new, provider == 4):
                low, high = -0.5, 0.5
                for _ in range(30):
                    middle = (low + high) / 2
                    means = x @ weights.T + bias + middle * group
                    low, high = (
                        (low, middle)
                        if group[means.argmax(axis=1)].mean() > NATURAL
                        else (middle, high)
                    )
                bias = bias + low * group
        return cls(weights, bias, is_new, provider)

    def means(self, x: np.ndarray) -> np.ndarray:
        """Expected rewards, [n, ITEMS]."""
        return np.clip(x @ self.weights.T + self.bias, 0.0, 1.0)

    def items(self) -> list[Item]:
        """The catalogue."""
        return [
            Item(
                f"i{n}",
                {
                    "season": "new" if self.is_new[n] else "old",
                    "provider": "abcde"[self.provider[n]],
                },
            )
            for n in range(ITEMS)
        ]

    def groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Members, [G, ITEMS], and the least share of each, [G]."""
        members = [self.is_new, *(self.provider == each for each in range(5))]
        return np.array(members, float), np.array([QUOTA, *[FLOOR] * 5])


def contexts(rng: np.random.Generator, count: int) -> np.ndarray:
    """What visitors are like."""
    return rng.standard_normal((count, FEATURES))


def best(world: World, x: np.ndarray) -> tuple[float, float]:
    """The most that can be earned without and with the shares, by subgradient steps on the dual."""
    means = world.means(x)
    members, least = world.groups()
    prices, lowest = np.zeros(len(least)), np.inf
    for step in range(4_000):
        priced = means + prices @ members
        chosen = priced.argmax(axis=1)
        lowest = min(lowest, priced.max(axis=1).mean() - prices @ least)
        shares = members[:, chosen].mean(axis=1)
        prices = np.maximum(0.0, prices + 0.5 / (10 + step) * (least - shares))
    return float(means.max(axis=1).mean()), float(lowest)


@dataclass
class Day:
    """What a day came to, visit by visit."""

    seconds: np.ndarray
    earned: np.ndarray
    new: np.ndarray
    providers: np.ndarray
    states: int


def visits(rng: np.random.Generator, hours: int, rate: float) -> np.ndarray:
    """When visitors come, in seconds: more by day than by night."""
    count = rng.poisson(rate * 3600, hours * 3)
    return np.sort(
        np.concatenate(
            [
                rng.uniform(part * 1200, part * 1200 + 1200, int(n * relative(part * 1200) / 3))
                for part, n in enumerate(count)
            ]
        )
    )


def relative(second: float) -> float:
    """How busy it is, 1 on average."""
    return 1.0 - 0.5 * float(np.cos(2 * np.pi * second / DAY_S))


class Log:
    """The log, folded as it is written."""

    def __init__(self, spec: PolicySpec, catalogue: Catalogue) -> None:
        blobs = {spec.digest: spec.encoded, catalogue.digest: catalogue.encoded}
        self.fold = Fold(blobs.__getitem__, salt=SALT)
        self._last = (0, 0)
        for record in (
            BuildRecord({"fold": str(FOLD)}),
            SpecRecord(spec.digest, ""),
            CatalogueRecord(catalogue.digest),
        ):
            self.append(1, record)

    def append(self, time_ms: int, record: LogRecord) -> str:
        """Append an entry; its position."""
        before, number = self._last
        self._last = time_ms, number + 1 if time_ms == before else 0
        entry = LogEntry(f"{time_ms}-{self._last[1]}", record)
        self.fold.apply([entry])
        return entry.id


class Keeper:
    """Holds the quotas as the learner's process does: states a second apart, obeyed a second later."""

    def __init__(self, spec: PolicySpec, log: Log, timeline: ItemTimeline) -> None:
        rules = spec.rules
        quotas = Quotas([]) if rules is None or rules.quotas is None else rules.quotas
        self.controller, self._meter = Controller(quotas), ShareMeter(quotas)
        self.states = 0
        self._log, self._timeline = log, timeline
        self._said: dict[str, float] = {}
        self._said_at = -1.0
        self._waiting: list[tuple[float, Control]] = []

    def measure(self, now: float, record: DecisionRecord) -> None:
        """Measure a decision; say what has changed."""
        now_ms, items = _ms(now), self._timeline
        shares = self._meter.measure(record, items.newest, items.item)
        self.controller.measured(now_ms, shares)
        if now - self._said_at >= 1.0 and self.controller.changed_from(self._said):
            self._said, self._said_at = self.controller.prices, now
            entry = self._log.append(now_ms, ControlRecord(self._said))
            self._waiting.append((now + 1.0, Control(entry, self._said)))
            self.states += 1

    def serve(self, now: float, ranker: Ranker) -> None:
        """Have what was said be obeyed."""
        while self._waiting and self._waiting[0][0] <= now:
            ranker.steer(self._waiting.pop(0)[1])


def _ms(seconds: float) -> int:
    return int(1000 * seconds) + 2


def run(world: World, spec: PolicySpec, *, hours: int, rate: float, seed: int, title: str) -> Day:
    """Serve and learn for some hours."""
    rng = np.random.default_rng(seed)
    seconds = visits(rng, hours, rate)
    x = contexts(rng, len(seconds))
    means, lucky = world.means(x), rng.random(len(seconds))
    timeline = ItemTimeline(Catalogue.put(world.items()))
    log, ranker = Log(spec, Catalogue.put(world.items())), Ranker(spec, (), salt=SALT)
    ranker.offer(timeline.newest, timeline)
    keeper = Keeper(spec, log, timeline)

    pool = explicit_pool([ActionRequest(item.id) for item in world.items()], frozenset())
    pmfs = np.zeros((len(seconds), ITEMS))
    published, began = -PUBLISH_S, time.monotonic()
    for at, now in enumerate(seconds.tolist()):
        if now - published >= PUBLISH_S:
            ranker.serve(f"s{at}", log.fold.snapshot())
            published = now
        keeper.serve(now, ranker)

        context = {f"x{n}": float(value) for n, value in enumerate(x[at])}
        record = ranker.decide(RankRequest(event_id=f"{seed}.{at}", context=context), pool)
        log.append(_ms(now), record)
        pmfs[at] = record.pmfs()[0]
        if lucky[at] < means[at, record.chosen[0]]:
            log.append(_ms(now), RewardRecord(record.event_id, 1.0))
        keeper.measure(now, record)
        if at % 5_000 == 0:
            done = time.monotonic() - began
            print(f"\r{title}: {now / 3600:4.1f} h, {done:.0f} s", end="", file=sys.stderr)
    print(file=sys.stderr)

    new = pmfs @ world.is_new
    providers = np.stack([pmfs @ (world.provider == each) for each in range(5)], axis=1)
    return Day(seconds, (pmfs * means).sum(axis=1), new, providers, keeper.states)


def main() -> int:
    """Run, print; exit 1 where a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--rate", type=float, default=1.0, help="visits a second, on average")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    asyncio.set_event_loop(asyncio.new_event_loop())

    world = World.make(arguments.seed)
    bare = PolicySpec(
        "home",
        learner=RidgeConfig(interactions=[("context", "item")]),
        join=JoinRule(window_s=60.0),
    )
    held = msgspec.structs.replace(
        bare, quota=[Quota(NEW, at_least=QUOTA)], exposure=Exposure("provider", FLOOR)
    )
    given = {"hours": arguments.hours, "rate": arguments.rate, "seed": arguments.seed}
    without = run(world, bare, title="without", **given)
    day = run(world, held, title="with", **given)

    x = contexts(np.random.default_rng(99), 20_000)
    most, most_held = best(world, x)
    lost_by_best = 1.0 - most_held / most
    lost = 1.0 - day.earned.mean() / without.earned.mean()

    print(" ".join(f"{name} {value};" for name, value in describe().items()))
    print(f"visits                       {len(day.seconds):,} in {arguments.hours} h")
    goals = []
    for name, share, series, before in (
        ("season, quota", QUOTA, day.new, without.new),
        ("provider, floor", FLOOR, day.providers[:, 4], without.providers[:, 4]),
    ):
        hour = (day.seconds // 3600).astype(int)
        hours = np.array([series[hour == each].mean() for each in range(arguments.hours)])
        least, most_off = float(hours.min()), float(np.abs(hours - share).max())
        print(
            f"{name:28} {share:.0%}: {before.mean():.1%} without, {series.mean():.2%} over the day,"
            f" {least:.2%} to {hours.max():.2%} in an hour"
        )
        goals += [abs(series.mean() - share) <= OFF_DAY, most_off <= OFF_HOUR]
    print(
        f"reward                       {without.earned.mean():.4f} without, {day.earned.mean():.4f} with: {lost:.2%} lost"
    )
    print(
        f"the best that can be done    {most:.4f} without, {most_held:.4f} with: {lost_by_best:.2%} lost"
    )
    print(
        f"states of the controller     {day.states:,}, {day.states / (arguments.hours * 3600):.2f} a second"
    )
    goals.append(lost <= lost_by_best + EXTRA_LOSS)
    print("goals reached:", f"{sum(map(bool, goals))} of {len(goals)}")
    return 0 if all(goals) else 1


if __name__ == "__main__":
    sys.exit(main())
