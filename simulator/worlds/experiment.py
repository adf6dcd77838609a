"""An experiment: worlds x policies x seeds.

Cells know nothing of each other: the answer is the same wherever they are run.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from bandits.errors import InvalidFieldError
from policies.spec import PolicySpec
from simulator.ope.reward_model import DEFAULT_KINDS, RewardModel
from simulator.worlds.cell import WorldCell, WorldCellResult, run_world_cell
from simulator.worlds.presets import POLICIES, WORLDS, WorldPreset
from simulator.worlds.scores import LoopScore, Score, loop_scores, scores
from simulator.worlds.targets import TARGETS, KnownTargetKind

RunCells = Callable[
    [Callable[[WorldCell], WorldCellResult], Sequence[WorldCell]], Iterable[WorldCellResult]
]
"""Applies a function to every cell, here or elsewhere, and yields results in the cells' order."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment: every policy in every world with every seed.

    Attributes:
        seeds: How many seeds, from ``first_seed`` on.
        rounds: Rounds of each run.
        models: Names of the reward models that DM and DR try.
    """

    worlds: Sequence[WorldPreset] = tuple(WORLDS.values())
    policies: Sequence[PolicySpec] = tuple(POLICIES.values())
    targets: Sequence[KnownTargetKind] = TARGETS
    seeds: int = 20
    first_seed: int = 0
    rounds: int = 1000
    models: Sequence[str] = DEFAULT_KINDS

    def __post_init__(self) -> None:
        """Raise InvalidFieldError for what is empty, or could not be told apart in a report."""
        RewardModel(kinds=self.models)  # refuses unknown names

        # Results are keyed by name, so each name has to be there once.
        for option, names in (
            ("world", [world.name for world in self.worlds]),
            ("policy", [spec.name for spec in self.policies]),
            ("target", [kind.name for kind in self.targets]),
        ):
            if not names or len(set(names)) != len(names):
                raise InvalidFieldError(
                    f"--{option}: name at least one, and each once, not {names}", option
                )

        for option, number, least in (
            ("seeds", self.seeds, 1),
            ("first-seed", self.first_seed, 0),
            ("rounds", self.rounds, 4),
        ):
            if number < least:
                raise InvalidFieldError(
                    f"--{option}: {number} is too few; give {least} or more", option
                )

    def cells(self) -> list[WorldCell]:
        """Return the cells, by world, seed and policy."""
        return [
            WorldCell(world, spec, seed, self.rounds, tuple(self.targets), tuple(self.models))
            for world in self.worlds
            for seed in range(self.first_seed, self.first_seed + self.seeds)
            for spec in self.policies
        ]


class WorldsReport(msgspec.Struct, frozen=True):
    """The results of an experiment.

    Attributes:
        loops: How every policy did in every world.
        scores: How every estimator did in every world.
        details: The same for each policy and target by itself.
        cells: What the others are computed from.
    """

    rounds: int
    seeds: list[int]
    loops: list[LoopScore]
    scores: list[Score]
    details: list[Score]
    cells: list[WorldCellResult]


def run_experiment(experiment: Experiment, run_cells: RunCells = map) -> WorldsReport:
    """Run every cell and score what came out.

    Args:
        experiment: What is to be run.
        run_cells: Where the cells are run; in this process by default.
    """
    done = list(run_cells(run_world_cell, experiment.cells()))
    seeds = list(range(experiment.first_seed, experiment.first_seed + experiment.seeds))
    return WorldsReport(
        experiment.rounds, seeds, loop_scores(done), scores(done), scores(done, detailed=True), done
    )
