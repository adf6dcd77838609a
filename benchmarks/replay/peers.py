"""Replay beside other libraries, at the same tasks on the same rows, one core.

    python -m benchmarks.replay.peers

The first time it installs them in an environment of their own in the user's cache (1.4 GB). Rounds
alternate, ours, theirs; a ratio is of the medians, its range that of single rounds. Goals: 10 x
Open Bandit Pipeline at its whole set of estimators with intervals; 5 x coba's and MABWiser's
simulators at a VW policy; 0.2 x VW's own driver. Their numbers have to be ours: estimates within
1e-6, relative. scikit-learn's digits, of which the truth is known: IPS and DR within 5% of it.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

# read when numpy is imported, here and by the peers
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from bandits.vw.log_reader import LogFormat
from benchmarks.replay.peers_env import Peers, peers, peers_python
from benchmarks.replay.peers_tasks import (
    BATCH,
    COBA_ARGS,
    LOGGED,
    OPE_ROWS,
    PARAMETERS,
    SHORT,
    digits_error,
    driver_loss,
    ours_ope,
    ours_progressive,
    vw_loss,
    vw_value,
    write_tasks,
)
from simulator.data.datasets import default_cache_dir

SAME = 1e-6
DIGITS = 0.05
REPLICATES = 200
Found = Any
Timed = Callable[[], tuple[float, Found]]


@dataclass(frozen=True)
class Case:
    """``ours``, ``theirs``: run once, and say seconds and what was found.

    ``goal``: of the ratio of speeds; None where none is set. ``same``: the largest relative
    difference of what was found; None: it is printed, and no more. ``times``: rounds in place of
    one, of tasks that take a moment only.
    """

    name: str
    rows: int
    ours: Timed
    theirs: Timed
    goal: float | None
    same: float | None = None
    times: int = 1


@dataclass(frozen=True)
class Outcome:
    """Rows a second by round, the ratio of the medians, and the largest relative difference of what was found."""

    name: str
    rows: int
    ours: list[float]
    theirs: list[float]
    ratio: float
    low: float
    high: float
    goal: float | None
    reached: bool
    difference: float | None
    same: bool

    def __str__(self) -> str:
        said = (
            f"goal {self.goal:g}: {'reached' if self.reached else 'MISSED'}"
            if self.goal
            else "no goal"
        )
        found = "" if self.difference is None else f"   largest difference {self.difference:.1e}"
        return (
            f"{self.name:62s} {np.median(self.ours):9,.0f} {np.median(self.theirs):9,.0f} rows/s"
            f"   x {self.ratio:5.2f} ({self.low:.2f} to {self.high:.2f})   {said}{found}"
            f"{'' if self.same else ' NOT THE SAME'}"
        )


def timed(run: Callable[[], Found]) -> tuple[float, Found]:
    """Seconds, and what was found."""
    began = time.perf_counter()
    found = run()
    return time.perf_counter() - began, found


def measure(case: Case, rounds: int) -> Outcome:
    """Both once untimed, whose findings are compared; then in turn."""
    difference = difference_of(case.ours()[1], case.theirs()[1])
    seconds = np.array([[case.ours()[0], case.theirs()[0]] for _ in range(rounds * case.times)])
    median, ratios = np.median(seconds, axis=0), seconds[:, 1] / seconds[:, 0]
    ours, theirs = (case.rows / seconds).T.tolist()
    ratio = float(median[1] / median[0])
    return Outcome(
        name=case.name,
        rows=case.rows,
        ours=ours,
        theirs=theirs,
        ratio=ratio,
        low=float(ratios.min()),
        high=float(ratios.max()),
        goal=case.goal,
        reached=case.goal is None or ratio >= case.goal,
        difference=difference,
        same=case.same is None or (difference is not None and difference <= case.same),
    )


def difference_of(ours: Found, theirs: Found) -> float | None:
    """The largest relative difference of the numbers that both found; None where they are of different kinds."""
    if isinstance(ours, float) and isinstance(theirs, float):
        return abs(ours - theirs) / max(abs(theirs), 1e-300)
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        pairs = ((ours[name], theirs[name]) for name in theirs)
        return max(
            difference_of(mine, its) or 0.0
            for left, right in pairs
            for mine, its in zip(left, right, strict=False)
        )
    return None


def estimator_cases(folder: Path, asked: Peers) -> Iterator[Case]:
    """All eight estimators; after the colon how each side, ours first, makes its intervals.

    Our normal intervals are in closed form; OBP knows only the bootstrap, by default of 100 draws.
    Two bootstraps draw differently, so of OBP's only values are compared.
    """
    for actions in (10, 100):
        file = f"ope_{actions}.safetensors"
        ours = partial(timed, ours_ope(folder / file, bounds=False))
        drawing = partial(timed, ours_ope(folder / file, replicates=REPLICATES, bounds=False))
        theirs = partial(asked.run, "obp", rows=file, parameters=PARAMETERS)
        few, many = (
            partial(only_values, partial(theirs, intervals=count)) for count in (100, REPLICATES)
        )
        task = f"OBP: 8 estimators, {actions} actions"
        yield Case(f"{task}, intervals: normal; bootstrap", OPE_ROWS, ours, few, 10.0, SAME, 3)
        yield Case(
            f"{task}, intervals: bootstrap, {REPLICATES}; same",
            OPE_ROWS,
            drawing,
            many,
            10.0,
            SAME,
            3,
        )
        yield Case(
            f"{task}, intervals: normal; none",
            OPE_ROWS,
            ours,
            partial(theirs, intervals=0),
            None,
            SAME,
            3,
        )
    file = "ope_10.safetensors"
    ours = partial(timed, ours_ope(folder / file, names=("ips", "snips")))
    theirs = partial(asked.run, "vw_estimators", rows=file)
    yield Case(
        "vw-estimators: IPS with normal interval, SNIPS", OPE_ROWS, ours, theirs, None, SAME, 3
    )


def only_values(run: Timed) -> tuple[float, Found]:
    """Without the bounds of intervals."""
    seconds, found = run()
    return seconds, {name: numbers[:1] for name, numbers in found.items()}


def progressive_cases(folder: Path, asked: Peers) -> Iterator[Case]:
    """LinUCB that learns from a log, a ridge of this project, for which no goal is set.

    coba's has the same features and prior, MABWiser's has a ridge for each arm.

    Of coba's, IPS is the same number as ours once every feature has been met, so it is compared
    where that is so from the second model on and all actions tie before it. Ours differs before: a
    feature not met yet adds nothing to an action's bound, where coba counts the variance of its
    prior. MABWiser does not weigh by propensities: it counts an arm's mean reward where the log
    chose another.
    """
    for peer, actions, every, count in (
        ("coba", 10, 1, 500),
        ("coba", 10, BATCH, 2000),
        ("coba", 100, 1, 200),
        ("coba", 100, BATCH, 500),
        ("mabwiser", 10, 1, 500),
        ("mabwiser", 10, BATCH, 2000),
    ):
        file = f"linear_{actions}.safetensors"
        updates = "a model per row" if every == 1 else f"a model per {every} rows"
        yield Case(
            f"{peer}: LinUCB, {actions} actions, {updates}",
            count,
            partial(timed, ours_progressive(folder / file, count, every)),
            partial(asked.run, peer, rows=file, count=count, publish_every=every),
            None,
            SAME if (peer, actions, every) == ("coba", 10, BATCH) else None,
        )


def vw_cases(folder: Path, asked: Peers) -> Iterator[Case]:
    """Replay of a VW policy, epsilon-greedy and linear, that learns row by row, on the same rows as an equivalent one.

    coba's is VW itself, with the same namespaces and interactions; it predicts and learns from
    objects that are in memory, ours reads the file. MABWiser's is its LinGreedy, a ridge for each
    arm. Their values are others: coba's VW is a later version, and gets costs that coba makes of
    rewards; MABWiser does not weigh by propensities.
    """
    coba = partial(asked.run, "coba_vw", rows="log.json", count=LOGGED, args=COBA_ARGS)
    mabwiser = partial(
        asked.run,
        "mabwiser",
        rows="short.safetensors",
        count=SHORT,
        publish_every=1,
        policy="LinGreedy",
        parameters={"epsilon": 0.1, "l2_lambda": 1.0},
    )
    kinds: tuple[tuple[str, LogFormat], ...] = (("txt", "text"), ("json", "dsjson"))
    for ending, log_format in kinds:
        ours, short = (
            partial(timed, partial(vw_value, folder / f"{name}.{ending}", log_format))
            for name in ("log", "short")
        )
        task = f"10 actions; ours from {log_format}"
        yield Case(f"coba: VW --cb_explore_adf, {task}", LOGGED, ours, coba, 5.0)
        yield Case(f"mabwiser: LinGreedy, VW here, {task}", SHORT, short, mabwiser, 5.0)


def driver_cases(folder: Path) -> Iterator[Case]:
    """A VW policy on VW's own logs.

    The average loss has to be the one that VW prints, to its six digits.
    """
    kinds: tuple[tuple[str, LogFormat], ...] = (("log.txt", "text"), ("log.json", "dsjson"))
    for name, log_format in kinds:
        yield Case(
            f"VW's driver: --cb_explore_adf on {log_format}, 10 actions",
            LOGGED,
            partial(timed, partial(vw_loss, folder / name, log_format)),
            partial(timed, partial(driver_loss, folder / name, log_format)),
            0.2,
            1e-5,
        )


def run(
    rounds: int, only: str
) -> tuple[list[Outcome], dict[str, tuple[float, float]], dict[str, str]]:
    """Outcomes, the relative errors on the digits, and the peers' versions."""
    python = peers_python()
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tasks(folder)
        with peers(python, folder) as asked:
            versions = asked.run("versions")[1]
            errors = digits_error(asked.run("digits")[1])
            cases = estimator_cases, vw_cases, progressive_cases
            for case in (
                *(each for kind in cases for each in kind(folder, asked)),
                *driver_cases(folder),
            ):
                if only in case.name:
                    outcomes.append(measure(case, rounds))
                    print(outcomes[-1], flush=True)
    return outcomes, errors, versions


def main(argv: Sequence[str] | None = None) -> int:
    """Run all; exit 1 if a goal is missed or a number differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument(
        "--out",
        type=Path,
        default=default_cache_dir() / "replay_peers.json",
        help="figures as JSON",
    )
    given = parser.parse_args(argv)
    print(
        f"{'task':62s} {'ours':>9s} {'theirs':>9s}, medians of {given.rounds} rounds (estimators:"
        " 3 x); ratio, range"
    )
    outcomes, errors, versions = run(given.rounds, given.only)
    for name, (error, stderr) in errors.items():
        print(
            f"digits: relative error of {name:4s} {error:.4f}, standard error {stderr:.4f}   goal"
            f" below {DIGITS:g}"
        )
    good = all(each.reached and each.same for each in outcomes) and all(
        error < DIGITS for error, _ in errors.values()
    )
    versions |= {name: version(name) for name in ("vowpal-wabbit-next",)} | {
        "python": platform.python_version()
    }
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}"
    print(f"{machine}; {', '.join(f'{name} {each}' for name, each in versions.items())}")
    report = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine,
        "versions": versions,
        "outcomes": [asdict(each) for each in outcomes],
        "digits": errors,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"figures: {given.out}")
    if not outcomes:
        print(f"nothing to check: no case's name holds {given.only!r}")
        return 3
    print(f"goals: {'reached' if good else 'NOT reached'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
