"""Learning to order a page whose lower slots are seldom looked at: the ``positions`` world.

    python -m benchmarks.learning.positions --visits 20000

The world's logging policy shows lists of 10 of 30 items, some of them high out of habit. A ridge
model of context, item and their products learns from that log, a slot a row, in five ways: slots are
all alike; the slot is a feature of the context; it is a feature that is crossed with nothing; each
slot's examination is what method slates of replay makes of the log; it is what the world has. Each
model then orders the items for visits that are not in the log. A row of the table is what these
orders earn as a share of what the world's best lists earn.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

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
Slot = Literal["none", "context", "apart"]
"""Of what the slot is a feature."""
RIDGE = RidgeConfig(interactions=[("context", "item")], max_features=1024)


def share_of_best(
    world: FrozenWorld,
    rows: Sequence[LoggedDecision],
    config: RidgeConfig,
    slot: Slot = "none",
) -> float:
    """Return what the order of a model earns, as a share of what the best lists earn.

    Args:
        world: The world.
        rows: The log.
        config: The learner's.
        slot: Of what the slot is a feature.
    """
    spec = PolicySpec("p", learner=config, use=["context", "item", "features"])
    learner = make_learner(spec, salt=b"")
    rows = [_with_slot(row, slot) for row in rows]
    for start in range(0, len(rows), AT_ONCE):
        learner.learn_rows(rows_to_learn(spec, batch_of(rows[start : start + AT_ONCE])))

    model, ids = RidgeModel(learner.snapshot(f"{len(rows)}-0")), world.people.item_ids
    earned = best = 0.0
    for number in range(world.visits - ASKED, world.visits):
        row = LoggedDecision(f"v{number}", world.visit(number).context, ids, 0, 1.0, 0.0)
        scores = model.scores(*featurise_row(spec, _with_slot(row, slot)))
        order = np.argsort(-scores, kind="stable")
        earned += value_of_list(world, number, [ids[at] for at in order[: world.slots]])
        best += value_of_list(world, number, best_list(world, number))
    return earned / best


def _with_slot(row: LoggedDecision, slot: Slot) -> LoggedDecision:
    """Return a row that says which slot it is of."""
    said = {"slot": f"s{row.slot}"}
    if slot == "context":
        return replace(row, context={**row.context, **said})
    return replace(row, features=[said] * len(row.action_ids)) if slot == "apart" else row


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
        ways: dict[str, tuple[RidgeConfig, Slot]] = {
            "all slots alike": (RIDGE, "none"),
            "the slot crossed with items": (RIDGE, "context"),
            "the slot, crossed with nothing": (RIDGE, "apart"),
            "examination, estimated": (msgspec.structs.replace(RIDGE, examination=found), "none"),
            "examination, the world's": (msgspec.structs.replace(RIDGE, examination=truth), "none"),
        }
        for name, (config, slot) in ways.items():
            shares.setdefault(name, []).append(share_of_best(world, rows, config, slot))

    print(f"{given.visits:,} visits of the log, {given.seeds} worlds")
    print("what the model knows            share of the best lists' reward, mean and least")
    for name, each in shares.items():
        print(f"{name:30s}  {np.mean(each):.4f}  {min(each):.4f}")
    return 0 if min(shares["examination, estimated"]) >= REACHED else 1


if __name__ == "__main__":
    sys.exit(main())
