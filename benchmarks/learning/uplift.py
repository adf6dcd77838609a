"""The interval of the uplift in a report, where the truth is known: whether it holds at every look.

    python -m benchmarks.learning.uplift [--runs 400] [--jobs 2]

The frozen world ``segments``: 10,000 users, of whom a fifth is held out, with 100,000 visits; a look
after each 1,000 of them. Users differ in how often they buy, and keep that, so that their visits are
alike. The reward is bounded (bought or not) or skewed (what it cost). A run misses if its interval
lacks the truth at any look: the mean over the visits so far, exactly, of what either arm earns there.
The usual 95% interval beside it, of the same estimate, is what holds at one look only.

A true +10%: the visits at which it is found, beside those at which a test with one look (two-sided,
.05) finds it in 80% of the runs; 20,000 users and 200,000 visits, so that both are seen.

Six minutes on one core.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bandits.statistics.intervals import z_of
from bandits.types import Float64
from benchmarks.table import Table
from simulator.report.units import UnitSums
from simulator.report.uplift import SKEWED, compare_groups
from simulator.worlds.frozen.committed import frozen_parameters
from simulator.worlds.frozen.segments import NEW, USUAL, SegmentsWorld

BATCH = 1000
WORLDS: dict[str, dict[str, Any]] = {
    "no uplift": {"uplifts": [0.0] * 4},
    "as committed, from -10% to +30% by segment": {},
    "a large one, from +20% to +50%": {"uplifts": [0.3, 0.4, 0.5, 0.2]},
}
TEN_PERCENT: dict[str, Any] = {"uplifts": [0.1] * 4, "visits": 200_000, "users": 20_000}


class Run(NamedTuple):
    """One run, by look: float64[looks] each. ``low`` and ``high`` are infinite before the first."""

    difference: Float64
    stderr: Float64
    low: Float64
    high: Float64
    truth: Float64
    skewness: Float64

    @property
    def missed(self) -> bool:
        """Whether the truth lies outside of any look's interval."""
        return bool(((self.low > self.truth) | (self.high < self.truth)).any())

    @property
    def usual_missed(self) -> bool:
        """Whether it lies outside of any look's interval of the usual kind."""
        error = np.abs(self.difference - self.truth) / self.stderr
        return bool((error[np.isfinite(self.low)] > z_of(0.05)).any())

    @property
    def found(self) -> float:
        """The first look at which the interval does not hold 0; infinite if there is none."""
        looks = np.flatnonzero((self.low > 0.0) | (self.high < 0.0))
        return float(looks[0] + 1) if len(looks) else math.inf

    @property
    def begins(self) -> float:
        """The first look with an interval."""
        return float(np.flatnonzero(np.isfinite(self.low))[0] + 1)


def run_of(seed: int, *, changes: dict[str, Any], bounded: bool) -> Run:
    """Return one run.

    Args:
        seed: Of the world.
        changes: Of the world's parameters.
        bounded: Whether the reward is that somebody bought, not for how much.
    """
    parameters = frozen_parameters("segments", changes)
    world = SegmentsWorld(parameters, seed)
    visits, users = np.arange(world.visits), world.people.users
    held_out = world.log_chance(visits, 0) < parameters.holdout
    shown = np.where(held_out, USUAL, NEW)
    drawn = world.draws(visits, np.zeros_like(visits), shown)
    rewards = drawn.happened[0].astype(float) if bounded else world.rewards(drawn)

    usual, new = (
        world.reached(visits, np.array([arm]))[0]
        if bounded
        else world.means(visits, np.array([arm]))
        for arm in (USUAL, NEW)
    )
    truth = np.cumsum(new - usual) / (1 + visits)

    sums, looks = UnitSums(), []
    for start in range(0, len(visits), BATCH):
        part = slice(start, start + BATCH)
        sums.add(users[part], held_out[part], rewards[part])
        found = compare_groups(sums.policy(), sums.holdout())
        last = min(start + BATCH, len(visits)) - 1
        looks.append(
            (
                found.difference,
                math.sqrt(found.variance),
                *found.interval,
                truth[last],
                found.skewness,
            )
        )
    return Run(*np.array(looks).T)


def coverage(table: Table, name: str, runs: Sequence[Run], *, bounded: bool) -> None:
    """Add the coverage of some runs, beside that of the usual interval."""
    what = f"{name}; {'bought or not' if bounded else 'revenue'}"
    held = 1.0 - float(np.mean([run.missed for run in runs]))
    usual = 1.0 - float(np.mean([run.usual_missed for run in runs]))
    first = float(np.median([run.begins for run in runs]))
    said = f"{held:.2%}, the usual {usual:.1%}; from {first * BATCH:,.0f} visits on"
    table.add(f"holds at all looks: {what}", said, held, at_least=0.95)
    if not bounded:
        wider = float(np.median([(run.high - run.low)[-1] / (2 * run.stderr[-1]) for run in runs]))
        skewed = float(np.median([(run.skewness > SKEWED).sum() for run in runs]))
        said = f"{wider / z_of(0.05):.2f} times as wide; {skewed:.0f} looks skewed"
        table.add("  its price at the end, and looks with a caution", said, wider)


def finding(table: Table, runs: Sequence[Run]) -> None:
    """Add how soon a true +10% is found, beside a test with one look."""
    significant = np.mean(
        [np.abs(run.difference) > z_of(0.05) * run.stderr for run in runs], axis=0
    )
    enough = np.flatnonzero(significant >= 0.8)
    fixed = float(enough[0] + 1) if len(enough) else math.nan
    median = float(np.median([run.found for run in runs]))
    said = f"median {median * BATCH:,.0f} visits, one look {fixed * BATCH:,.0f}"
    table.add("+10% of buyers is found", said, median / fixed, at_most=2.0)


def main() -> int:
    """Measure, print; exit 0 when all goals are reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()

    table = Table()
    with ProcessPoolExecutor(asked.jobs, mp_context=get_context("spawn")) as pool:

        def runs(changes: dict[str, Any], *, bounded: bool) -> list[Run]:
            task = partial(run_of, changes=changes, bounded=bounded)
            return list(pool.map(task, range(asked.runs), chunksize=4))

        for name, changes in WORLDS.items():
            for bounded in (True, False):
                coverage(table, name, runs(changes, bounded=bounded), bounded=bounded)
        finding(table, runs(TEN_PERCENT, bounded=True))
    return table.finish(asked.out)


if __name__ == "__main__":
    sys.exit(main())
