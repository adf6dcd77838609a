"""One world, one policy, one seed: the loop, and what every estimator says of its log."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import msgspec
import numpy as np

from bandits.log.join import Join
from bandits.log.records import LogEntry
from policies.spec import PolicySpec
from simulator.logs.archive.rows import decision_rows
from simulator.logs.archive.rules import evaluation_rule
from simulator.logs.rows import LoggedDecision, MemoryPiece
from simulator.ope.reward_model import DEFAULT_KINDS
from simulator.ope.verdict import Verdict
from simulator.replay.evaluate import OpeQuestion, evaluate
from simulator.worlds.loop import run_loop
from simulator.worlds.presets import WorldPreset
from simulator.worlds.synthetic import SyntheticWorld
from simulator.worlds.targets import KnownTarget, KnownTargetKind, Truth, truth_of

Rewards = Literal["as joined", "rescaled"]
"""A log's rewards as the join has them, or those that came divided by the share that comes."""


@dataclass(frozen=True, slots=True)
class WorldCell:
    """A part of an experiment, independent of all others."""

    world: WorldPreset
    policy: PolicySpec
    seed: int
    rounds: int
    targets: Sequence[KnownTargetKind]
    models: Sequence[str] = DEFAULT_KINDS


class TargetEstimate(msgspec.Struct, frozen=True):
    """The estimate of one target by one estimator."""

    target: str
    estimator: str
    rewards: Rewards
    value: float
    stderr: float
    interval: tuple[float, float]
    verdict: Verdict


class WorldCellResult(msgspec.Struct, frozen=True):
    """The results of a cell.

    Attributes:
        mean_reward: Mean reward earned per round, whether or not the reward came.
        regret: Mean per round of the expected reward of the best action of that round and context
            less that of the choice.
        quarters: ``mean_reward`` by quarter of the run.
        truths: The true values by target.
        findings: What every estimator says of every target.
    """

    world: str
    policy: str
    seed: int
    mean_reward: float
    regret: float
    quarters: list[float]
    truths: dict[str, Truth]
    findings: list[TargetEstimate]


def run_world_cell(cell: WorldCell) -> WorldCellResult:
    """Let the policy choose in the world, then evaluate the targets on its log."""
    world, spec = cell.world.build(cell.seed, cell.rounds), cell.world.policy(cell.policy)
    run = run_loop(
        world, spec, rounds=cell.rounds, seed=cell.seed, timing=cell.world.timing, settle=True
    )

    rows = rows_of_log(run.log, spec)
    targets = [KnownTarget(kind, world) for kind in cell.targets]
    findings = estimate_targets(rows, targets, "as joined", cell.models)

    # A lost reward looks like a reward of 0, which biases every estimate unless it is corrected.
    lost = cell.world.timing.lost
    if lost:
        findings += estimate_targets(rescaled(rows, 1.0 - lost), targets, "rescaled", cell.models)

    return WorldCellResult(
        world=cell.world.name,
        policy=spec.name,
        seed=cell.seed,
        mean_reward=float(run.rewards.mean()),
        regret=regret_of(rows, world),
        quarters=[float(part.mean()) for part in np.array_split(run.rewards, 4)],
        truths=dict(_truths(cell.world, cell.seed, cell.rounds, tuple(cell.targets))),
        findings=findings,
    )


@lru_cache(maxsize=8)
def _truths(
    preset: WorldPreset, seed: int, rounds: int, kinds: tuple[KnownTargetKind, ...]
) -> Mapping[str, Truth]:
    """Return the true values by target; the policies of a seed share them, one after the other."""
    world = preset.build(seed, rounds)
    return {kind.name: truth_of(KnownTarget(kind, world), world, rounds, seed) for kind in kinds}


def rows_of_log(log: Iterable[LogEntry], spec: PolicySpec) -> list[LoggedDecision]:
    """Return a run's decisions in order, as the archive of that log would give them.

    Args:
        log: The entries of the run.
        spec: The policy that ran.
    """
    rule = evaluation_rule(spec.rule)
    join = Join(lambda _: rule, rule=rule)
    return [row for entry in log for joined in join.apply(entry) for row in decision_rows(joined)]


def rescaled(rows: Iterable[LoggedDecision], arriving: float) -> list[LoggedDecision]:
    """Return the rows with rewards divided by the share that arrives.

    Inverse probability weighting of what is observed (Horvitz & Thompson 1952): unbiased where
    losses are at random and only rewards of 0 look like lost ones.

    Args:
        rows: Decisions with their rewards.
        arriving: The share of rewards that arrives, in (0, 1].
    """
    return [replace(row, reward=row.reward / arriving) for row in rows]


def estimate_targets(
    rows: Sequence[LoggedDecision],
    targets: Sequence[KnownTarget],
    rewards: Rewards,
    models: Sequence[str] = DEFAULT_KINDS,
) -> list[TargetEstimate]:
    """Return what every estimator says of every target, with normal 95% intervals.

    Args:
        rows: The log.
        targets: The policies whose values are asked for.
        rewards: What the rewards of the rows are.
        models: Names of the reward models that DM and DR try.
    """
    report = evaluate(OpeQuestion(targets, models=models), [MemoryPiece(rows)])
    return [
        TargetEstimate(
            target=result.policy,
            estimator=name,
            rewards=rewards,
            value=estimate.value,
            stderr=estimate.stderr,
            interval=estimate.interval,
            verdict=estimate.verdict,
        )
        for result in report.results
        for name, estimate in result.estimates.items()
    ]


def regret_of(rows: Sequence[LoggedDecision], world: SyntheticWorld) -> float:
    """Return the mean regret per round, exact but for the contexts and choices of the run.

    Args:
        rows: All rounds, in their order.
        world: The world in which they were played.
    """
    means = world.means(world.vectors([row.context for row in rows]), np.arange(1, len(rows) + 1))
    chosen = means[np.arange(len(rows)), [row.chosen for row in rows]]
    return float((means.max(axis=1) - chosen).mean())
