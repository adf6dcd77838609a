"""Estimators of pages: how often their intervals hold the truth, on the frozen ``positions`` world.

    python -m benchmarks.replay.slates [--logs 600] [--visits 1000] [--first 1000] [--estimators sips,iips] [--policies uniform]

Every log is so many visits of a world of its own (seeds 0, 1, ..., or from --first on), with the lists that the world's
logging policy shows. Each estimator says what another policy would have earned on these pages; the
truth is what its pages earn on average, computed from the world's parameters by filling many pages
of each visit. A row of the table is one policy and one estimator: how many of the logs' 95%
intervals hold the truth, and how wide they are. A log takes some 5 s, nearly all of it for pi and snpi;
with --policies uniform a second. `pi` calls a third of the logs usable: of 200 logs the share of those
that hold the truth has a standard error of 0.03, of 1,100 one of 0.01. So the last column says how
likely so few hold it by chance where COVERED of them do.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from bandits.types import Float64
from benchmarks.machine import describe
from simulator.logs.actions.columns import Places
from simulator.logs.rows import LoggedDecision, MemoryPiece
from simulator.ope.slates.formulas import SLATE_FORMULAS
from simulator.ope.targets import RowTarget, UniformTarget
from simulator.replay.evaluate_slates import SlateQuestion, evaluate_slates
from simulator.worlds.frozen.base import FrozenWorld
from simulator.worlds.frozen.make import frozen_world
from simulator.worlds.frozen.tables import logged_lists

COVERED = 0.93
ENOUGH = 30
"""Logs from which on the share of intervals that hold the truth says something."""
FILLED = 50
"""Pages of a visit that are filled for the truth."""


class ByWeights(RowTarget):
    """Fills pages in proportion to weights that depend on visit and item.

    Args:
        name: The policy's name.
        weights: float64[visits, items].
    """

    def __init__(self, name: str, weights: Float64) -> None:
        super().__init__(name)
        self.weights = weights

    def pmf(self, row: LoggedDecision) -> Float64:
        """Return the weights of the items that are left, normalised."""
        pmf: Float64 = self.after(row)(slice(None))
        return pmf

    def after(self, row: LoggedDecision) -> Callable[[Places], Float64]:
        """Return the same of what is left."""
        weights = self.weights[int(row.event_id[1:]), [int(each[1:]) for each in row.action_ids]]

        def pmf(left: Places) -> Float64:
            some = weights[left]
            out: Float64 = some / some.sum()
            return out

        return pmf


def rows_of(world: FrozenWorld, count: int) -> list[LoggedDecision]:
    """Return the first visits as the logging policy's pages, with PMFs.

    Args:
        world: The world.
        count: How many visits.
    """
    visits = np.arange(count)
    shown, ids = logged_lists(world, visits).items, world.people.item_ids
    slots, uniform = world.slots, world.log_uniform
    weights = world.log_weights(np.arange(len(ids)))
    draws = world.draws(np.repeat(visits, slots), np.tile(np.arange(slots), count), shown.ravel())
    rewards = world.rewards(draws).reshape(count, slots)
    rows = []
    for visit in range(count):
        left = list(range(len(ids)))
        for slot in range(slots):
            mine = weights[left]
            pmf = (1.0 - uniform) * mine / mine.sum() + uniform / len(left)
            chosen = left.index(int(shown[visit, slot]))
            rows.append(
                LoggedDecision(
                    event_id=f"v{visit}",
                    context={},
                    action_ids=[ids[at] for at in left],
                    chosen=chosen,
                    propensity=float(pmf[chosen]),
                    reward=float(rewards[visit, slot]),
                    pmf=pmf,
                    slot=slot,
                )
            )
            del left[chosen]
    return rows


def targets_of(world: FrozenWorld, count: int) -> list[tuple[RowTarget, Float64]]:
    """Return policies of pages and the weights they fill them by, float64[visits, items].

    Args:
        world: The world.
        count: How many visits.
    """
    items = np.arange(len(world.people.item_ids))
    means = world.means(np.arange(count)[:, None], items[None, :])
    habits = np.broadcast_to(world.log_weights(items), means.shape)
    weights = {
        "near the log": habits * np.exp(2.0 * means),
        "half way": np.sqrt(habits) * np.exp(3.0 * means),
    }
    made: list[tuple[RowTarget, Float64]] = [
        (ByWeights(name, each), each) for name, each in weights.items()
    ]
    return [*made, (UniformTarget(), np.ones(means.shape))]


def true_value(world: FrozenWorld, weights: Float64, horizon: int) -> float:
    """Return what pages drawn by weights earn a visit, from many pages of each.

    Args:
        world: The world.
        weights: float64[visits, items].
        horizon: Slots that count.
    """
    count, items = weights.shape
    visits = np.arange(count)
    earned = world.means(visits[:, None], np.arange(items)[None, :])
    rng, total = np.random.default_rng(0), 0.0
    for _ in range(FILLED):
        # The order of exponential arrivals is that of draws without replacement.
        order = np.argsort(rng.exponential(size=weights.shape) / weights, axis=1)[:, :horizon]
        shown = np.take_along_axis(earned, order, axis=1)
        total += float((shown * world.examination[:horizon]).sum(axis=1).mean())
    return total / FILLED


class Row(NamedTuple):
    """One estimate beside the truth."""

    error: float
    stderr: float
    held: bool
    verdict: str


def main() -> int:
    """Log, evaluate, print.

    Exit 1 if the intervals of an estimator that are not called unreliable hold the truth in less than
    COVERED of the logs; ENOUGH of them say something.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", type=int, default=600)
    parser.add_argument("--first", type=int, default=0, help="seed of the first log")
    parser.add_argument("--visits", type=int, default=1000)
    parser.add_argument("--horizon", type=int, default=10)
    parser.add_argument(
        "--estimators",
        type=lambda text: tuple(text.split(",")),
        default=tuple(SLATE_FORMULAS),
        help="some of them, with commas; pi and snpi take most of the time",
    )
    parser.add_argument(
        "--policies", type=lambda text: text.split(","), help="some of them, with commas"
    )
    given = parser.parse_args()
    print(describe())

    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for seed in range(given.first, given.first + given.logs):
        world = frozen_world("positions", seed, visits=given.visits)
        targets = [
            (target, weights)
            for target, weights in targets_of(world, given.visits)
            if given.policies is None or target.name in given.policies
        ]
        question = SlateQuestion(
            [target for target, _ in targets], given.estimators, horizon=given.horizon
        )
        pieces = [MemoryPiece(rows_of(world, given.visits))]
        for (target, weights), result in zip(
            targets, evaluate_slates(question, pieces).results, strict=True
        ):
            truth = true_value(world, weights, given.horizon)
            for name, each in result.estimates.items():
                low, high = each.interval
                found[target.name, name].append(
                    Row(each.value - truth, each.stderr, low <= truth <= high, each.verdict)
                )
        print(f"{seed - given.first + 1} of {given.logs} logs", end="\r", file=sys.stderr)

    print(f"{given.logs} logs of {given.visits:,} pages of {given.horizon} slots")
    print(
        "policy        estimator    holds    bias  spread  stderr  reliable weak unreliable  used"
        "          chance"
    )
    honest = True
    for (policy, name), rows in found.items():
        errors = np.array([row.error for row in rows])
        used = [row.held for row in rows if row.verdict != "unreliable"]
        verdicts = [row.verdict for row in rows]
        chance = float(binom.cdf(sum(used), len(used), COVERED))
        print(
            f"{policy:13s} {name:9s} {np.mean([row.held for row in rows]):8.3f}"
            f" {errors.mean():7.4f} {errors.std():7.4f}"
            f" {np.median([row.stderr for row in rows]):7.4f}"
            f" {verdicts.count('reliable'):8d} {verdicts.count('weak'):5d}"
            f" {verdicts.count('unreliable'):8d}  {np.mean(used) if used else float('nan'):.3f}"
            f" {f'{sum(used)} of {len(used)}':>12s} {chance:6.3f}"
        )
        honest &= len(used) < ENOUGH or float(np.mean(used)) >= COVERED
    return 0 if honest else 1


if __name__ == "__main__":
    sys.exit(main())
