"""Do layers find more than a product does? NCF, its product alone, two towers and ALS, on two data sets.

    python -m benchmarks.sources.products_and_layers
    python -m benchmarks.sources.products_and_layers --seeds 1 --data shop --epochs 5

He et al. 2017 replaced the product of matrix factorisation by layers; Rendle et al. 2020 found that
a product, tuned as well, is better, and far cheaper to search. Here all see the same histories of
the frozen shop and of MovieLens 100K, each split by time (family_data.py), and are asked for the
ten best items of every user of the second part. `product` is NCF without its layers: the same rows,
drawn items, loss and course. Seconds are the processor's; a request's are of the raw scores of all
items. No peer is needed.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks.sources.family_data import Trial, movielens, shop
from benchmarks.table import Table
from policies.artifacts.source_artifact import TrainedSource
from policies.sources import ItemOrder, LocalSource, SourceRequest, load_model
from policies.training.fits import FITS, TrainConfig
from policies.training.training_data import Course

KINDS: Final[Mapping[str, Callable[[TrainConfig], TrainConfig]]] = {
    "als": lambda config: config,
    "ncf": lambda config: config,
    "product": lambda config: replace(config, ncf=replace(config.ncf, factors=64, hidden=())),
    "towers": lambda config: config,
}
ASKED: Final = 200
"""Requests that are timed."""


def main() -> int:
    """Print nDCG@10, the seconds of the fit and the milliseconds of a request."""
    parser = argparse.ArgumentParser(description="NCF beside the dot product")
    parser.add_argument("--data", nargs="+", choices=("movielens", "shop"), default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="also of the shop")
    parser.add_argument("--epochs", type=int, help="of the networks, at most; default: their own")
    parser.add_argument("--out", type=Path, help="the JSON file that is written")
    asked = parser.parse_args()

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    config = TrainConfig()
    if asked.epochs is not None:
        config = replace(
            config,
            ncf=replace(config.ncf, epochs=asked.epochs),
            towers=replace(config.towers, epochs=asked.epochs),
        )
    print(f"$ python {' '.join(sys.argv)}", flush=True)

    table = Table()
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.data or ("movielens", "shop"):
            trial = movielens() if name == "movielens" else shop(Path(folder), seed=seeds[0])
            for kind, changed in KINDS.items():
                _measure(table, trial, kind, changed(config), seeds)
    return table.finish(asked.out)


def _measure(table: Table, trial: Trial, kind: str, config: TrainConfig, seeds: range) -> None:
    """Add the rows of one kind on a data set."""
    name = "ncf" if kind == "product" else kind
    found, seconds, milliseconds = [], [], []
    for seed in seeds if name != "als" else seeds[:1]:
        began = time.process_time()
        source = FITS[name].fit(trial.training, config, Course(seed))
        seconds.append(time.process_time() - began)
        found.append(_ndcg(trial, source))
        milliseconds.append(_milliseconds(trial, source))

    spread = np.std(found, ddof=1) / len(found) ** 0.5 if len(found) > 1 else 0.0
    table.add(
        f"{trial.name}: {kind}, nDCG@10",
        f"{np.mean(found):.4f} ± {spread:.4f}; fit {np.mean(seconds):.1f} s,"
        f" request {np.min(milliseconds):.2f} ms",
        float(np.mean(found)),
    )


def _ndcg(trial: Trial, source: TrainedSource) -> float:
    """Return the mean nDCG@10 of what a request of each test user gets."""
    items = ItemOrder(trial.histories.items)
    served = LocalSource(source.kind, load_model(source, len(items)), items, source.scale)
    gains, found = 1 / np.log2(np.arange(2, 12)), []
    for user, wanted in trial.liked.items():
        asked = SourceRequest(profile=trial.histories.profile(user))
        hits = np.array([item in wanted for item in served.propose(asked, 10).ids], np.float64)
        found.append(gains[: hits.size] @ hits / gains[: len(wanted)].sum())
    return float(np.mean(found))


def _milliseconds(trial: Trial, source: TrainedSource) -> float:
    """Return the processor's time of the raw scores for one user, the best of five tries."""
    model = load_model(source, len(trial.histories.items))
    rows = [trial.histories.row(user) for user in range(min(ASKED, len(trial.histories.users)))]
    rows = [row for row in rows if row[1].any()]
    best = np.inf
    for _ in range(5):
        began = time.process_time()
        for indices, weights in rows:
            model.raw(indices, weights)
        best = min(best, time.process_time() - began)
    return 1000 * best / len(rows)


if __name__ == "__main__":
    sys.exit(main())
