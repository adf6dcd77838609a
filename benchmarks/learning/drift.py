"""What forgetting is worth where tastes move: a curve over how much, in the frozen worlds drift and shop.

    python -m benchmarks.learning.drift                         both worlds, 5 seeds, 10 simulated days
    python -m benchmarks.learning.drift --world drift --drifts 0 0.8333 1
    python -m benchmarks.learning.drift --world drift --seeds 2 --visits 4000
    python -m benchmarks.learning.drift --sweep                 half-lives, on other seeds

Ten days to learn in, then ten that count. Three policies meet the same users with the same luck. *keeps* learns on and
forgets nothing; *forgets* has a half-life; *frozen* is what keeps knew when the ten days began, and learns no more.
Drift goes from 0 to the most. In drift the ten days before are still, and then every item turns, at the most to one that
has nothing to do with the first. In shop seasons, new items and items that sell out, together, are there all the time.
What a policy earns is its expected reward, exactly, over what it could have chosen. Regret is against the best item of
each visit's pool; *stale*, in drift, is what the best items of the still days earn, so oracle / stale is what there is to
gain over somebody who knew all and learns no more. Intervals are 95% t-intervals over seeds, paired. Exits 0 when the
goals are reached.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec
import numpy as np
from scipy import stats

from bandits.exploration import LinTs
from bandits.log.join_rule import JoinRule
from bandits.log.positions import position_ms
from bandits.log.records import DecisionRecord
from bandits.ridge.config import RidgeConfig
from bandits.types import Snapshot
from benchmarks.table import Table
from policies.candidate_pool import explicit_pool
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.requests import RankRequest
from policies.spec import PolicySpec
from simulator.worlds.frozen.base import FrozenWorld
from simulator.worlds.frozen.make import frozen_world
from simulator.worlds.frozen.play import FrozenRequests
from simulator.worlds.loop import Timing, run_loop

DAYS = 10
DAY_MS = 86_400_000
HALF_LIFE = {"drift": "2d", "shop": "3d"}
SWEEP = ("6h", "12h", "1d", "2d", "3d", "5d", "10d", "30d")
TWO_THIRDS = 0.667
SWEEP_SEEDS = 100
"""The first seed of a sweep: none of those that are reported."""
COMMON: dict[str, Any] = {
    "exploration": LinTs(scale=0.1, draws=32),
    "floor": 0.01,
    "join": JoinRule(window_s=3600),
}
SPECS = {
    "drift": PolicySpec(
        "drift",
        use=["context", "item"],
        learner=RidgeConfig(interactions=[("context", "item")], max_features=128),
        **COMMON,
    ),
    "shop": PolicySpec(
        "shop",
        use=["context", "features"],
        learner=RidgeConfig(bias_l2=3.0, max_features=256),
        **COMMON,
    ),
}


class Days:
    """Visits of one world after those of another: the days before, and those that count."""

    def __init__(self, before: FrozenWorld, counted: FrozenWorld, first: int) -> None:
        self.before, self.counted, self.first = before, counted, first
        self._visitors = iter((FrozenRequests(before), FrozenRequests(counted, first)))
        self._now, self._left = next(self._visitors), before.visits if first == 0 else first

    def request(self, rng: np.random.Generator) -> RankRequest:
        """The next visit's."""
        if not self._left:
            self._now, self._left = next(self._visitors), sys.maxsize
        self._left -= 1
        return self._now.request(rng)

    def reward(self, request: RankRequest, action_id: str, rng: np.random.Generator) -> float:
        """What the choice earns."""
        return self._now.reward(request, action_id, rng)


def days_of(name: str, drift: float, seed: int, visits: int) -> Days:
    """So many visits before, and as many with so much drift, between 0 and 1."""
    if name == "drift":
        still, turning = (
            frozen_world("drift", seed, days=float(DAYS), visits=visits, strength=strength)
            for strength in (0.0, drift)
        )
        return Days(still, turning, 0)
    shop = frozen_world(
        "shop",
        seed,
        days=2.0 * DAYS,
        visits=2 * visits,
        events=1,
        items=400,
        season=2.0 * drift,
        season_days=2.0 * DAYS,
        new_share=0.6 * drift,
        sold_out_share=0.4 * drift,
        sold_out_days=float(DAYS),
    )
    return Days(shop, shop, visits)


def forgetting(spec: PolicySpec, half_life: str) -> PolicySpec:
    """The same policy with a half-life."""
    return msgspec.structs.replace(
        spec, learner=msgspec.structs.replace(spec.learner, half_life=half_life)
    )


def value_of(days: Days, pmfs: Sequence[np.ndarray[Any, Any]]) -> float:
    """The mean expected reward of PMFs over the pools of the visits that count."""
    total = 0.0
    for number, pmf in enumerate(pmfs, days.first):
        total += float(pmf @ _expected(days, number))
    return total / len(pmfs)


def _expected(days: Days, number: int) -> np.ndarray[Any, Any]:
    world = days.counted
    return world.expected(number, world.pools(np.array([number]))[0])


def play(days: Days, spec: PolicySpec, seed: int, visits: int) -> tuple[float, Snapshot]:
    """What a policy that learns on earns, and what it knew when the days that count began."""
    known: list[Snapshot] = []

    def keep(_: str, snapshot: Snapshot) -> None:
        if not known or position_ms(snapshot.position) <= DAYS * DAY_MS:
            known[:] = [snapshot]

    run = run_loop(
        Days(days.before, days.counted, days.first),
        spec,
        rounds=2 * visits,
        seed=seed,
        timing=Timing(round_ms=DAYS * DAY_MS // visits, delay_ms=30_000.0),
        publish_every=20,
        salt=f"{spec.name} {seed}".encode(),
        on_snapshot=keep,
    )
    records = [each.record for each in run.log]
    pmfs = [each.pmfs()[0] for each in records if isinstance(each, DecisionRecord)]
    return value_of(days, pmfs[visits:]), known[0]


def stand_still(days: Days, spec: PolicySpec, snapshot: Snapshot, visits: int) -> float:
    """What a policy earns that learns no more."""
    ranker = Ranker(spec, [], salt=b"frozen")
    ranker.offer(Catalogue())
    ranker.serve("frozen", snapshot)
    visitors, pmfs = FrozenRequests(days.counted, days.first), []
    for number in range(visits):
        request = visitors.request(np.random.default_rng())
        named = msgspec.structs.replace(request, event_id=f"{number}")
        pool = explicit_pool(named.actions or [], frozenset())
        pmfs.append(ranker.decide(named, pool).pmfs()[0])
    return value_of(days, pmfs)


def bounds(days: Days, visits: int) -> dict[str, float]:
    """What the best item of each pool earns, the best of the still days, and a random one."""
    numbers = range(days.first, days.first + visits)
    found = [_expected(days, number) for number in numbers]
    earned = {"oracle": np.mean([each.max() for each in found]), "random": np.mean(found)}
    if days.before is not days.counted:
        still = Days(days.counted, days.before, days.first)
        best = [int(_expected(still, number).argmax()) for number in numbers]
        earned["stale"] = np.mean([each[at] for each, at in zip(found, best, strict=True)])
    return {name: float(value) for name, value in earned.items()}


def one_run(
    task: tuple[float, int], *, name: str, visits: int, half_lives: Sequence[str]
) -> dict[str, float]:
    """The value of every policy in a world of one drift and seed."""
    drift, seed = task
    days, spec = days_of(name, drift, seed, visits), SPECS[name]
    keeps, then = play(days, spec, seed, visits)
    found = {**bounds(days, visits), "keeps": keeps}
    found["frozen"] = stand_still(days, spec, then, visits)
    for half_life in half_lives:
        found[half_life] = play(days, forgetting(spec, half_life), seed, visits)[0]
    return found


def interval(values: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Mean and 95% t-interval over seeds."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


Results = dict[float, list[dict[str, float]]]


def measure(
    name: str, drifts: Sequence[float], seeds: Sequence[int], arguments: argparse.Namespace
) -> Results:
    """Every policy under every drift and seed, in processes of their own."""
    half_lives = SWEEP if arguments.sweep else (arguments.half_life or HALF_LIFE[name],)
    task = partial(one_run, name=name, visits=arguments.visits, half_lives=half_lives)
    results: Results = {drift: [] for drift in drifts}
    tasks = list(product(drifts, seeds))
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        for (drift, seed), found in zip(tasks, pool.map(task, tasks), strict=True):
            results[drift].append(found)
            said = " ".join(f"{key} {value:.4f}" for key, value in found.items())
            print(f"{name}, drift {drift:.2f}, seed {seed}: {said}", file=sys.stderr, flush=True)
    return results


def report(name: str, results: Results, half_life: str, table: Table) -> None:
    """Print the curve, and the rows of the goals."""
    for drift, found in results.items():
        mean = {key: float(np.mean([each[key] for each in found])) for key in found[0]}
        regret = ", ".join(
            f"{key} {mean['oracle'] - mean[of]:.4f}"
            for key, of in (("forgets", half_life), ("keeps", "keeps"), ("frozen", "frozen"))
        )
        known = ", ".join(
            f"{of} {mean[of]:.4f}" for of in ("oracle", "stale", "random") if of in mean
        )
        print(f"{name}, drift {drift:.2f}: {known}; regret: {regret}")
        for against in ("frozen", "keeps"):
            ratio = np.array([each[half_life] / each[against] for each in found])
            at_least = 0.99 if drift == 0.0 else None
            _add(table, f"{name}, drift {drift:.2f}: forgets / {against}", ratio, at_least)

    # Of the strongest third each seed counts once. Two thirds, rounded, are not of it.
    strongest = [found for drift, found in results.items() if drift > TWO_THIRDS]
    for against, at_least in (("frozen", 1.25), ("keeps", None)):
        ratios = [
            np.array([each[half_life] / each[against] for each in found]) for found in strongest
        ]
        what = f"{name}, strongest third: forgets / {against}"
        _add(table, what, np.mean(ratios, axis=0), at_least)


def _add(table: Table, what: str, ratios: np.ndarray[Any, Any], at_least: float | None) -> None:
    mean, low, high = interval(ratios)
    table.add(what, f"x {mean:.3f} [{low:.3f}, {high:.3f}]", mean, at_least=at_least)


def say_sweep(name: str, results: Results) -> None:
    """Print what each half-life earns, relative to a model that forgets nothing."""
    for drift, found in results.items():
        ratios: Mapping[str, float] = {
            key: float(np.mean([each[key] / each["keeps"] for each in found]))
            for key in (*SWEEP, "frozen", "oracle")
        }
        print(
            f"{name}, drift {drift:.2f}: "
            + "  ".join(f"{key} {ratio:.3f}" for key, ratio in ratios.items())
        )


def main() -> int:
    """Run, print, store; exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", choices=SPECS, action="append")
    parser.add_argument(
        "--visits", type=int, default=20_000, help="of ten days; the worlds have that"
    )
    parser.add_argument("--points", type=int, default=7, help="how many drifts from 0 to the most")
    parser.add_argument("--drifts", type=float, nargs="+", help="these drifts, between 0 and 1")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--half-life", default=None)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()

    first = arguments.first_seed or (SWEEP_SEEDS if arguments.sweep else 0)
    seeds = range(first, first + arguments.seeds)
    drifts = arguments.drifts or np.linspace(0.0, 1.0, arguments.points).round(4).tolist()

    table, everything = Table(), {}
    for name in arguments.world or SPECS:
        results = measure(name, drifts, seeds, arguments)
        everything[name] = {f"{drift:g}": found for drift, found in results.items()}
        if arguments.sweep:
            say_sweep(name, results)
        else:
            report(name, results, arguments.half_life or HALF_LIFE[name], table)
    return 0 if arguments.sweep else table.finish(arguments.out, results=everything)


if __name__ == "__main__":
    sys.exit(main())
