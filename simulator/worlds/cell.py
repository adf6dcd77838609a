"""One world, one policy, one seed: the loop, and what every estimator says on the log that it made."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import msgspec
import numpy as np

from bandits.log.join import Join
from bandits.log.records import LogEntry
from policies.spec import PolicySpec
from simulator.logs.archive import decision_rows, evaluation_rule
from simulator.logs.rows import BATCH_ROWS, LogBatch, LoggedDecision, batch_of
from simulator.ope.reward_model import DEFAULT_KINDS
from simulator.ope.verdict import Verdict
from simulator.replay.evaluate import OpeQuestion, evaluate
from simulator.worlds.loop import run_loop
from simulator.worlds.presets import WorldPreset
from simulator.worlds.synthetic import SyntheticWorld
from simulator.worlds.targets import KnownTarget, KnownTargetKind, Truth, truth_of

Rewards = Literal["as joined", "rescaled"]
"""Of a log: as the join has them, or those that came divided by the share that comes."""


@dataclass(frozen=True, slots=True)
class WorldCell:
    """A piece of an experiment, independent of all others."""

    world: WorldPreset
    policy: PolicySpec
    seed: int
    rounds: int
    targets: Sequence[KnownTargetKind]
    models: Sequence[str] = DEFAULT_KINDS


class TargetEstimate(msgspec.Struct, frozen=True):
    """What one estimator says of one target."""

    target: str
    estimator: str
    rewards: Rewards
    value: float
    stderr: float
    interval: tuple[float, float]
    verdict: Verdict


class WorldCellResult(msgspec.Struct, frozen=True):
    """``mean_reward``: earned per round, whether or not the reward came.

    ``quarters``: the same, by quarter of the run.

    ``regret``: per round, the expected reward of the best action of that round and context less
    that of the choice. ``truths``: by target.
    """

    world: str
    policy: str
    seed: int
    mean_reward: float
    regret: float
    quarters: list[float]
    truths: dict[str, Truth]
    findings: list[TargetEstimate]


@dataclass(slots=True)
class MemoryPiece:
    """Rows that are in memory already, as a piece of a log."""

    rows: Sequence[LoggedDecision]
    skipped: int = 0

    def batches(self) -> Iterator[LogBatch]:
        """See Piece."""
        for start in range(0, len(self.rows), BATCH_ROWS):
            yield batch_of(self.rows[start : start + BATCH_ROWS])


def run_world_cell(cell: WorldCell) -> WorldCellResult:
    """Let the policy choose in the world, then evaluate the targets on its log."""
    world, spec = cell.world.made(cell.seed, cell.rounds), cell.world.policy(cell.policy)
    run = run_loop(
        world, spec, rounds=cell.rounds, seed=cell.seed, timing=cell.world.timing, settle=True
    )
    rows = rows_of_log(run.log, spec)
    targets = [KnownTarget(kind, world) for kind in cell.targets]
    said = estimate_targets(rows, targets, "as joined", cell.models)
    lost = cell.world.timing.lost
    if lost:
        said += estimate_targets(rescaled(rows, 1.0 - lost), targets, "rescaled", cell.models)
    return WorldCellResult(
        world=cell.world.name,
        policy=spec.name,
        seed=cell.seed,
        mean_reward=float(run.rewards.mean()),
        regret=regret_of(rows, world),
        quarters=[float(part.mean()) for part in np.array_split(run.rewards, 4)],
        truths=dict(_truths(cell.world, cell.seed, cell.rounds, tuple(cell.targets))),
        findings=said,
    )


@lru_cache(maxsize=8)
def _truths(
    world: WorldPreset, seed: int, rounds: int, kinds: tuple[KnownTargetKind, ...]
) -> Mapping[str, Truth]:
    """By target. The policies of a seed follow each other, and have them in common."""
    made = world.made(seed, rounds)
    return {kind.name: truth_of(KnownTarget(kind, made), made, rounds, seed) for kind in kinds}


def rows_of_log(log: Iterable[LogEntry], spec: PolicySpec) -> list[LoggedDecision]:
    """A run's decisions in their order, as the archive of that log would give them to an evaluation."""
    rule = evaluation_rule(spec.join)
    join = Join(lambda _: rule, rule=rule)
    return [row for entry in log for joined in join.apply(entry) for row in decision_rows(joined)]


def rescaled(rows: Iterable[LoggedDecision], arriving: float) -> list[LoggedDecision]:
    """The rows with rewards divided by the share that arrives.

    Inverse probability weighting of what is observed (Horvitz & Thompson 1952): unbiased where
    losses are at random and only rewards of 0 look like lost ones.
    """
    return [replace(row, reward=row.reward / arriving) for row in rows]


def estimate_targets(
    rows: Sequence[LoggedDecision],
    targets: Sequence[KnownTarget],
    rewards: Rewards,
    models: Sequence[str] = DEFAULT_KINDS,
) -> list[TargetEstimate]:
    """What every estimator says of every target, with normal 95% intervals.

    ``models``: of rewards, by name.
    """
    report = evaluate(OpeQuestion(targets, models=models), [MemoryPiece(rows)])
    return [
        TargetEstimate(
            result.policy, name, rewards, each.value, each.stderr, each.interval, each.verdict
        )
        for result in report.results
        for name, each in result.estimates.items()
    ]


def regret_of(rows: Sequence[LoggedDecision], world: SyntheticWorld) -> float:
    """Per round, exact but for the contexts and choices of the run.

    ``rows``: of all rounds, in their order.
    """
    means = world.means(world.vectors([row.context for row in rows]), np.arange(1, len(rows) + 1))
    chosen = means[np.arange(len(rows)), [row.chosen for row in rows]]
    return float((means.max(axis=1) - chosen).mean())
