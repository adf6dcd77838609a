"""Does it pay to look further than one reward? The experiment of docs/benchmarks/sessions.md.

    python -m benchmarks.learning.sessions --out build/sessions      # 15 minutes on two free cores
    python -m benchmarks.learning.sessions --smoke       # one small cell of each world, a minute or two

In each world and for each seed, PPO and a bandit are trained on the same number of decisions from
the same features; then both play the same sessions. Cells whose result is in --out already are not
run again, so it can be stopped and gone on with, and cells can be run one by one (--world, --seed,
--policy). Prints the ratios, exits with 1 when a goal is missed: in the satiation world a return of
1.10 times the bandit's with an interval above 1, in the world without carry-over within 3% of it.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from rich.progress import Progress

from benchmarks.machine import describe
from simulator.parallel import OnRay, in_processes
from simulator.rl.experiment import (
    BANDIT,
    MYOPIC,
    RL,
    ReturnRatio,
    SessionCell,
    SessionCellResult,
    ratios,
    run_session_cell,
    tune_bandits,
)

STEPS = {"satiation": 40_000, "steady": 40_000, "small": 25_000, "movielens": 25_000}
SEEDS = {"satiation": 5, "steady": 5, "small": 3, "movielens": 1}
GAMMAS = (0.0, 0.8)
"""Beside the default, in the satiation world, with seed 0."""
GOAL, EVEN = 1.10, 0.03
SESSIONS = 600
TUNE_SEEDS = (100, 101)


def cells() -> list[SessionCell]:
    """The whole experiment."""
    main = [
        SessionCell(world, seed, policy, STEPS[world], SESSIONS)
        for world in STEPS
        for seed in range(SEEDS[world])
        for policy in (RL, BANDIT, MYOPIC)
        if not (world == "movielens" and policy == MYOPIC)
    ]
    return [
        *main,
        *(SessionCell("satiation", 0, RL, STEPS["satiation"], SESSIONS, gamma) for gamma in GAMMAS),
    ]


def smoke() -> list[SessionCell]:
    """Enough to see that every part works; too little to learn much."""
    return [
        SessionCell(world, 0, policy, 4096, 20)
        for world in ("satiation", "steady")
        for policy in (RL, BANDIT, MYOPIC)
    ]


def path_of(out: Path, cell: SessionCell) -> Path:
    """Where a cell's result is."""
    name = cell.policy.replace(" ", "-")
    return out / f"{cell.world}-{cell.seed}-{name}-{cell.gamma:g}-{cell.steps}-{cell.sessions}.json"


def run(wanted: Sequence[SessionCell], out: Path, jobs: int) -> list[SessionCellResult]:
    """What is in ``out``, and what is missing there."""
    out.mkdir(parents=True, exist_ok=True)
    missing = [cell for cell in wanted if not path_of(out, cell).exists()]
    fan = OnRay("local") if jobs > 1 and len(missing) > 1 else in_processes(1)
    with Progress() as progress:
        task = progress.add_task("cells", total=len(wanted), completed=len(wanted) - len(missing))
        for result in fan(run_session_cell, missing):
            path_of(out, result.cell).write_bytes(msgspec.json.format(msgspec.json.encode(result)))
            progress.advance(task)
    return [
        msgspec.json.decode(path_of(out, cell).read_bytes(), type=SessionCellResult)
        for cell in wanted
    ]


def show(results: Sequence[SessionCellResult], found: Sequence[ReturnRatio]) -> None:
    """Print what came out."""
    print("\nmean return of a session, decisions; seconds of one core to train and to play")
    for each in results:
        cell = each.cell
        gamma = f" gamma {cell.gamma:g}" if cell.policy == RL else ""
        print(
            f"  {cell.world} {cell.seed} {cell.policy + gamma:14s} {each.mean:7.3f}"
            f" {each.length:6.1f}"
            f" {each.trained_s:6.0f} {each.played_s:6.0f}"
        )
        if each.exact:
            print(
                "    exactly: "
                + "  ".join(f"{name} {value:.3f}" for name, value in each.exact.items())
            )
    print("\nreturn of RL, against")
    for ratio in found:
        interval = f"[{ratio.low:.3f}, {ratio.high:.3f}]" if ratio.seeds > 1 else "one seed"
        print(
            f"  {ratio.world} gamma {ratio.gamma:g} {ratio.against:13s} x {ratio.value:.3f}"
            f" {interval} {ratio.seeds}"
        )
    trained = sum(each.trained_s for each in results)
    print(f"\ntraining: {trained / 60:.1f} minutes of one core in all, {trained / 120:.1f} on two")


def goals(found: Sequence[ReturnRatio], gamma: float = 0.97) -> bool:
    """Whether they are reached, said."""
    at = {(each.world, each.against): each for each in found if each.gamma == gamma}
    longer, even = at["satiation", BANDIT], at["steady", BANDIT]
    reached = longer.value >= GOAL and longer.low > 1.0, abs(even.value - 1.0) <= EVEN
    for name, ratio, good in zip(
        ("at least 1.10, interval above 1", "within 3%"), (longer, even), reached, strict=True
    ):
        print(f"{ratio.world}: x {ratio.value:.3f}, goal {name}: {'reached' if good else 'MISSED'}")
    return all(reached)


def draw(results: Sequence[SessionCellResult], path: Path) -> None:
    """Curves: the return of RL while it trains, beside what the others earn in the end."""
    import matplotlib as mpl  # noqa: PLC0415 - only here

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    shown = [
        world
        for world in ("satiation", "steady")
        if any(each.cell.world == world for each in results)
    ]
    figure, axes = plt.subplots(1, len(shown), figsize=(4.6 * len(shown), 3.2), squeeze=False)
    for axis, world in zip(axes[0], shown, strict=True):
        mine = [each for each in results if each.cell.world == world]
        for gamma in sorted({each.cell.gamma for each in mine}):
            curves = [
                np.array(each.curve) for each in mine if each.cell.gamma == gamma and each.curve
            ]
            length = min(map(len, curves))
            steps = curves[0][:length, 0] / 1000
            axis.plot(
                steps,
                np.mean([curve[:length, 1] for curve in curves], axis=0),
                label=f"RL, gamma {gamma:g}",
            )
        for name, style in ((BANDIT, "--"), (MYOPIC, ":")):
            level = np.mean([each.mean for each in mine if each.cell.policy == name])
            axis.axhline(level, color="black", linestyle=style, linewidth=1, label=name)
        axis.set(
            title=world, xlabel="thousand decisions", ylabel="return of a session", ylim=(0, None)
        )
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main() -> int:
    """Run what is missing, print, exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/sessions"), help="folder of the results"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=2,
        help="1: here, one after another; else on a Ray of this machine",
    )
    parser.add_argument("--world", help="only cells of this world")
    parser.add_argument("--seed", type=int, help="only cells of this seed")
    parser.add_argument("--policy", help="only cells of this policy")
    parser.add_argument("--gamma", type=float, help="only cells of this gamma")
    parser.add_argument("--draw", type=Path, help="write the curves (PNG)")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument(
        "--tune",
        metavar="WORLD",
        help="only say what the bandits of the grid earn, with other seeds",
    )
    given = parser.parse_args()
    if given.tune:
        for name, earned in tune_bandits(given.tune, STEPS[given.tune], SESSIONS, TUNE_SEEDS):
            print(f"{given.tune}  {name:32s} {earned:.3f}", flush=True)
        return 0
    wanted = smoke() if given.smoke else cells()
    chosen = [
        cell
        for cell in wanted
        if given.world in {None, cell.world}
        and given.seed in {None, cell.seed}
        and given.policy in {None, cell.policy}
        and given.gamma in {None, cell.gamma}
    ]
    out = Path(tempfile.mkdtemp()) if given.smoke else given.out
    print(describe())
    results = run(chosen, out, given.jobs)
    found = ratios(results)
    show(results, found)
    if given.draw:
        draw(results, given.draw)
    if given.smoke or len(chosen) < len(wanted):
        return 0
    return 0 if goals(found) else 1


if __name__ == "__main__":
    sys.exit(main())
