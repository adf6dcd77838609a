"""Do two workers find networks as good as one does? By what users of a data set did later.

    python -m benchmarks.sources.workers [--data movielens] [--sources deep towers] [--workers 2] [--seeds 5]

Each network is fitted with as many seeds by this process alone, and by workers of a Ray cluster of this
machine, as by ``banditloop train --workers``. nDCG@10 over all items; SE is the standard error, over the
seeds, of the difference of the means. Seconds are on the clock; those of workers include the start of a
team, so ``steps`` says how many they take.
"""

import argparse
import platform
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.sources.family_data import Trial, movielens, shop
from policies.artifacts.source_artifact import TrainedSource
from policies.sources import model_of
from policies.sources.base import SourceRequest
from policies.sources.local import LocalSource
from policies.sources.places import ItemOrder
from policies.training.fits import FITS, TrainConfig
from policies.training.train import SourceTask
from policies.training.training_data import Course
from serve_app.cli.terminal import ray_kept_quiet
from serve_app.host.environment import prepare_environment
from simulator.training.place import training_place

NETWORKS = tuple(name for name, fit in FITS.items() if fit.network)
GAINS = 1 / np.log2(np.arange(2, 12))


def quality(source: TrainedSource, trial: Trial) -> float:
    """nDCG@10 of the lists that are served to those who test; a scorer's are of all items."""
    histories = trial.histories
    model = model_of(source, histories.items, trial.training.items)
    served = LocalSource(source.kind, model, ItemOrder(histories.items), source.scale)
    found = []
    for user, wanted in trial.liked.items():
        asked = SourceRequest(
            profile=histories.profile(user), context=trial.training.contexts.get(user, {})
        )
        hits = np.array([item in wanted for item in served.propose(asked, 10).ids])
        found.append(GAINS[: hits.size][hits].sum() / GAINS[: len(wanted)].sum())
    return float(np.mean(found))


def compare(name: str, trial: Trial, workers: int, seeds: int) -> None:
    """Fit a network by one and by several, with each seed; print a row."""
    quality_of: dict[int, list[float]] = {1: [], workers: []}
    seconds_of: dict[int, list[float]] = {1: [], workers: []}
    steps = 0

    def told(_done: int, total: int) -> None:
        nonlocal steps
        steps = total

    for seed in range(seeds):
        for team in (1, workers):
            began = time.perf_counter()
            with ray_kept_quiet("local"), training_place(workers=team) as place:
                course = Course(seed)
                if place.checkpoints is not None:
                    course = replace(course, checkpoints=place.checkpoints(f"{name}-{seed}"))
                task = SourceTask(trial.training, TrainConfig(), course)
                if place.map_tasks is None:
                    fitted = replace(task, course=replace(course, step=told))(name)
                else:
                    (fitted,) = place.map_tasks(task, [name], lambda *_: None)
            seconds_of[team].append(time.perf_counter() - began)
            quality_of[team].append(quality(fitted, trial))
            print(name, seed, team, f"{quality_of[team][-1]:.4f}", file=sys.stderr, flush=True)

    one, several = np.array(quality_of[1]), np.array(quality_of[workers])
    error = np.sqrt((one.var(ddof=1) + several.var(ddof=1)) / seeds)
    difference = several.mean() - one.mean()
    verdict = "within" if abs(difference) <= 2 * error else "beyond"
    seconds = " | ".join(f"{np.mean(each):.1f}" for each in seconds_of.values())
    print(
        f"| {name} | {one.mean():.4f} | {several.mean():.4f} | {difference:+.4f} | {error:.4f} |"
        f" {verdict} | {steps:,} | {seconds} |",
        flush=True,
    )


def main() -> None:
    """Print a table: a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=("movielens", "shop"), default="movielens")
    parser.add_argument("--sources", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()

    prepare_environment()
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "ray", "torch"))
    print(f"{platform.machine()}, Python {platform.python_version()}; {versions}")
    print(f"$ python {' '.join(sys.argv)}\n")
    with tempfile.TemporaryDirectory() as folder:
        trial = movielens() if asked.data == "movielens" else shop(Path(folder))
        print(f"{trial.name}: {trial.split}; {len(trial.liked):,} users test\n")
        print(
            f"| network | nDCG@10, 1 worker | {asked.workers} workers | difference | SE"
            " | 2 SE | steps | s, 1 worker | s |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for name in asked.sources:
            if why := FITS[name].why_not(trial.training, TrainConfig()):
                print(f"left out: {name}: {why}")
                continue
            compare(name, trial, asked.workers, asked.seeds)


if __name__ == "__main__":
    main()
