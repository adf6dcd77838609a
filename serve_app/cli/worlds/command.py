"""``banditloop worlds``: how policies and estimators do where the truth is known."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from bandits.errors import InvalidFieldError
from serve_app.cli.options import Address, AsJson, Jobs, ReportFile, RewardModels, command_group
from serve_app.cli.terminal import empty_table, print_report, progress_bar, ray_kept_quiet

if TYPE_CHECKING:
    from simulator.worlds.experiment import Experiment, WorldsReport
    from simulator.worlds.scores import Figure

app = command_group("Test policies and estimators where the truth is known.", runs_alone=True)


@app.callback(invoke_without_command=True)
def worlds(
    context: typer.Context,
    world: Annotated[
        list[str] | None,
        typer.Option(
            help="steady, drift, delayed, missing or skewed; may be repeated [default: all]"
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="ridge-epsilon, ridge-lints, vw-epsilon, or a spec (YAML); may be repeated"
            " [default: these three]"
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="uniform, softmax, best, or {kind: best, epsilon: 0.2}; may be repeated"
            " [default: these three]"
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every policy in every world")] = 20,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of the seeds")] = 0,
    rounds: Annotated[int, typer.Option(min=4, help="Decisions of a run")] = 1000,
    reward_model: RewardModels = None,
    address: Address = None,
    jobs: Jobs = 1,
    out: ReportFile = None,
    as_json: AsJson = False,
) -> None:
    """Test policies and estimators in worlds whose truth is known.

    Reports what policies earn there, and how far the estimators of replay are from that truth.
    """
    if context.invoked_subcommand is not None:
        return

    from serve_app.host.environment import join_clusters

    # Before Ray is imported, which reads it from the environment.
    if address not in {None, "local"}:
        join_clusters()

    from simulator.ope.reward_model import DEFAULT_KINDS
    from simulator.worlds.experiment import Experiment
    from simulator.worlds.presets import POLICIES, WORLDS, policy_named, world_named
    from simulator.worlds.targets import TARGETS, target_named

    experiment = Experiment(
        worlds=[world_named(name) for name in world or WORLDS],
        policies=[policy_named(text) for text in policy or POLICIES],
        targets=[target_named(text) for text in target or ()] or TARGETS,
        seeds=seeds,
        first_seed=first_seed,
        rounds=rounds,
        models=tuple(reward_model or ()) or DEFAULT_KINDS,
    )
    with ray_kept_quiet(address):
        report = _run(experiment, jobs=jobs, address=address)
    print_report(report, _tables(report), out, as_json=as_json)


def _run(experiment: "Experiment", *, jobs: int, address: str | None) -> "WorldsReport":
    """Run the experiment in ``jobs`` processes, or on the Ray cluster at ``address``."""
    from serve_app.host.placement import on_node_for
    from simulator.parallel import OnRay, in_processes
    from simulator.worlds.experiment import run_experiment

    if address is not None and jobs != 1:
        raise InvalidFieldError(
            "--jobs: the Ray cluster at --address decides how many; give one of the two", "jobs"
        )

    # The experiment only needs something that applies a function to all its cells.
    run_all: Any = in_processes(jobs)
    if address is not None:
        run_all = OnRay(address, lambda: on_node_for("replay"))

    with progress_bar() as progress:

        def run_and_count(function: Any, cells: Sequence[Any]) -> Iterable[Any]:
            task = progress.add_task("running", total=len(cells))
            for result in run_all(function, cells):
                progress.advance(task)
                yield result

        return run_experiment(experiment, run_and_count)


def _tables(report: "WorldsReport") -> list[Table]:
    worlds = dict.fromkeys(score.world for score in report.scores)
    return [_loops_table(report), *(_scores_table(report, world) for world in worlds)]


def _loops_table(report: "WorldsReport") -> Table:
    table = empty_table(
        *("world", "policy", "mean reward", "regret", "reward by quarter"),
        title=f"closed loop · {report.rounds} rounds, {len(report.seeds)} seeds"
        " · ± standard error over seeds",
    )
    for loop in report.loops:
        quarters = "  ".join(f"{quarter.value:.3f}" for quarter in loop.quarters)
        reward, regret = _cell(loop.mean_reward), _cell(loop.regret)
        table.add_row(loop.world, loop.policy, reward, regret, quarters)
    return table


def _scores_table(report: "WorldsReport", world: str) -> Table:
    scores = [score for score in report.scores if score.world == world]
    verdict_head = "reliable\nweak\nunreliable"
    table = empty_table(
        *("estimator", "bias", "RMSE", "coverage", "… if reliable", verdict_head),
        title=f"{world} · {scores[0].estimates} estimates of each estimator",
        numbers=(verdict_head,),
        whole=("estimator",),
    )

    for score in scores:
        joined = score.rewards == "as joined"
        name = score.estimator if joined else f"{score.estimator}, {score.rewards}"
        figures = (score.bias, score.rmse, score.coverage, score.trusted_coverage)
        shares = (score.reliable, score.weak, score.unreliable)
        verdicts = " ".join(f"{share.value:.0%}" for share in shares)
        table.add_row(name, *map(_cell, figures), verdicts)
    return table


def _cell(figure: "Figure") -> str:
    """Return a figure and its standard error; either is left out where it is unknown."""
    if math.isnan(figure.value):
        return ""
    return f"{figure.value:.3f}" + ("" if math.isnan(figure.stderr) else f" ± {figure.stderr:.3f}")
