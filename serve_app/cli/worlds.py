"""``banditloop worlds``: what policies earn where the truth is known, and how far estimators on their logs are off."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from bandits.errors import InvalidFieldError
from serve_app.cli.terminal import table, words
from serve_app.host.placement import on_node_for
from simulator.ope.reward_model import DEFAULT_KINDS
from simulator.parallel import OnRay, in_processes
from simulator.worlds.experiment import Experiment, RunCells, WorldsReport, run_experiment
from simulator.worlds.presets import POLICIES, WORLDS, policy_named, world_named
from simulator.worlds.scores import Figure
from simulator.worlds.targets import TARGETS, target_named


def experiment_of(
    worlds: Sequence[str],
    policies: Sequence[str],
    targets: Sequence[str],
    *,
    seeds: int,
    first_seed: int,
    rounds: int,
    models: Sequence[str] = (),
) -> Experiment:
    """What the options say; of none, all that there are.

    Raises:
        InvalidFieldError, SpecError: names the option and what it may be.
    """
    return Experiment(
        worlds=[world_named(name) for name in worlds or WORLDS],
        policies=[policy_named(text) for text in policies or POLICIES],
        targets=[target_named(text) for text in targets] or TARGETS,
        seeds=seeds,
        first_seed=first_seed,
        rounds=rounds,
        models=tuple(models) or DEFAULT_KINDS,
    )


def run_worlds(
    experiment: Experiment, console: Console, *, jobs: int, address: str | None
) -> WorldsReport:
    """Run it, with a progress bar on ``console``: in so many processes, or as tasks of the Ray cluster at ``address``.

    Raises:
        BanditloopError: names the option at fault.
    """
    if address is not None and jobs != 1:
        raise InvalidFieldError(
            "--jobs: the Ray cluster at --address decides how many; give one of the two", "jobs"
        )
    fan: RunCells = (
        OnRay(address, lambda: on_node_for("replay")) if address is not None else in_processes(jobs)
    )
    columns = (
        words("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:

        def watched(function: Any, cells: Sequence[Any]) -> Iterable[Any]:
            task = progress.add_task("running", total=len(cells))
            for result in fan(function, cells):
                progress.advance(task)
                yield result

        return run_experiment(experiment, watched)


def tables(report: WorldsReport) -> list[Table]:
    """The report for a terminal."""
    return [
        _loops(report),
        *(_scores(report, world) for world in dict.fromkeys(each.world for each in report.scores)),
    ]


def _loops(report: WorldsReport) -> Table:
    title = f"closed loop · {report.rounds} rounds, {len(report.seeds)} seeds · ± standard error over seeds"
    made = table("world", "policy", "mean reward", "regret", "reward by quarter", title=title)
    for each in report.loops:
        quarters = "  ".join(f"{quarter.value:.3f}" for quarter in each.quarters)
        made.add_row(
            each.world, each.policy, _shown(each.mean_reward), _shown(each.regret), quarters
        )
    return made


def _scores(report: WorldsReport, world: str) -> Table:
    mine = [each for each in report.scores if each.world == world]
    figures, verdicts_ = ("bias", "RMSE", "coverage", "… if reliable"), "reliable\nweak\nunreliable"
    title = f"{world} · {mine[0].estimates} estimates of each estimator"
    made = table(
        "estimator", *figures, verdicts_, title=title, numbers=(verdicts_,), whole=("estimator",)
    )
    for each in mine:
        verdicts = " ".join(
            f"{figure.value:.0%}" for figure in (each.reliable, each.weak, each.unreliable)
        )
        shown = map(_shown, (each.bias, each.rmse, each.coverage, each.trusted_coverage))
        name = (
            each.estimator if each.rewards == "as joined" else f"{each.estimator}, {each.rewards}"
        )
        made.add_row(name, *shown, verdicts)
    return made


def _shown(figure: Figure) -> str:
    """Nothing where it cannot be told."""
    if math.isnan(figure.value):
        return ""
    return f"{figure.value:.3f}" + ("" if math.isnan(figure.stderr) else f" ± {figure.stderr:.3f}")
