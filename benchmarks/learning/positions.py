"""Learning to order a page whose lower slots are seldom looked at: the ``positions`` world.

    python -m benchmarks.learning.positions --visits 20000

The world's logging policy shows lists of 10 of 30 items, some of them high out of habit. A ridge
model of context, item and their products learns from that log, a slot a row, in five ways: slots are
all alike; the slot is a feature of the context; each has a bias (``slot_biases``); each
slot's examination is what method slates of replay makes of the log; it is what the world has. Each
model then orders the items for visits that are not in the log. A row of the table is what these
orders earn as a share of what the world's best lists earn.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np

from bandits.ridge.config import RidgeConfig
from bandits.ridge.model import RidgeModel
from benchmarks.machine import describe
from benchmarks.replay.slates import rows_of
from policies.blend import make_learner
from policies.spec import PolicySpec
from simulator.learners.online import featurise_row
from simulator.learners.trained import rows_to_learn
from simulator.logs.rows import LoggedDecision, MemoryPiece, batch_of
from simulator.ope.targets import LoggingTarget
from simulator.replay.evaluate_slates import SlateQuestion, evaluate_slates
from simulator.worlds.frozen.base import FrozenWorld
from simulator.worlds.frozen.make import frozen_world
from simulator.worlds.frozen.oracle import best_list, value_of_list

REACHED = 0.95
ASKED = 2000
"""Visits for which the items are ordered, the last ones of the world."""
AT_ONCE = 10_000
RIDGE = RidgeConfig(interactions=[("context", "item")], max_features=1024)


def share_of_best(
    world: FrozenWorld,
    rows: Sequence[LoggedDecision],
    config: RidgeConfig,
    *,
    slot: bool = False,
) -> float:
    """Return what the order of a model earns, as a share of what the best lists earn.

    Args:
        world: The world.
        rows: The log.
        config: The learner's.
        slot: Whether the slot is a feature of the context.
    """
    spec = PolicySpec("p", learner=config, use=["context", "item"])
    learner = make_learner(spec, salt=b"")
    if slot:
        rows = [replace(row, context={**row.context, "slot": f"s{row.slot}"}) for row in rows]
    for start in range(0, len(rows), AT_ONCE):
        learner.learn_rows(rows_to_learn(spec, batch_of(rows[start : start + AT_ONCE])))

    model, ids = RidgeModel(learner.snapshot(f"{len(rows)}-0")), world.people.item_ids
    earned = best = 0.0
    for number in range(world.visits - ASKED, world.visits):
        context = {**world.visit(number).context, **({"slot": "s0"} if slot else {})}
        row = LoggedDecision(f"v{number}", context, ids, 0, 1.0, 0.0)
        order = np.argsort(-model.scores(*featurise_row(spec, row)), kind="stable")
        earned += value_of_list(world, number, [ids[at] for at in order[: world.slots]])
        best += value_of_list(world, number, best_list(world, number))
    return earned / best


def main() -> int:
    """Log, learn, print.

    Exit 1 if what learned with the log's own examination is short of the goal.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--visits", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    print(describe())

    shares: dict[str, list[float]] = {}
    for seed in range(given.seeds):
        world = frozen_world("positions", seed)
        rows = [
            replace(row, context=world.visit(int(row.event_id[1:])).context)
            for row in rows_of(world, given.visits)
        ]
        report = evaluate_slates(SlateQuestion([LoggingTarget()]), [MemoryPiece(rows)])
        found = [min(max(each.value, 0.001), 1.0) for each in report.examination]
        print(f"seed {seed}: looked at {np.array(world.examination).round(3).tolist()}")
        print(f"        estimated {np.array(found).round(3).tolist()}")

        truth = world.examination.tolist()
        biases = msgspec.structs.replace(RIDGE, slot_biases=world.slots - 1)
        ways = {
            "all slots alike": (RIDGE, False),
            "the slot crossed with items": (RIDGE, True),
            "slot_biases": (biases, False),
            "examination, estimated": (msgspec.structs.replace(RIDGE, examination=found), False),
            "examination, the world's": (msgspec.structs.replace(RIDGE, examination=truth), False),
        }
        for name, (config, slot) in ways.items():
            shares.setdefault(name, []).append(share_of_best(world, rows, config, slot=slot))

    print(f"{given.visits:,} visits of the log, {given.seeds} worlds")
    print("what the model knows            share of the best lists' reward, mean and least")
    for name, each in shares.items():
        print(f"{name:30s}  {np.mean(each):.4f}  {min(each):.4f}")
    return 0 if min(shares["examination, estimated"]) >= REACHED else 1


if __name__ == "__main__":
    sys.exit(main())
