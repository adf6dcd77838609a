"""Is each family as good as a named library's, and as fast? The same parts of data, sizes and epochs.

    python -m benchmarks.sources.family_peers                          all families, both data sets, 3 seeds
    python -m benchmarks.sources.family_peers --families sasrec --data shop --seeds 1
    python -m benchmarks.sources.family_peers --epochs 2               a quick look
    python -m benchmarks.sources.family_peers --keep theirs            asks the libraries once, and keeps the answers

The frozen shop and MovieLens 100K (from a wheel of the package index), each split by time
(family_data.py). The libraries have an environment of their own, made the first time (2 GB in the
user's cache), with the versions that they ask for; torch is ours. Both sides are fitted on the same
interactions, each item once for a user, with one thread. Ours is what a request gets: numpy, no
torch. Seconds are the processor's, of the fit alone. nDCG@10 is over all items that the user has
not had; the last events of 1,000 users, which ours holds out to stop early, are nobody's but ours.

Exits 0 when the goals are reached. A family that this build does not fit is left out, and said so.
"""

import argparse
import hashlib
import json
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.replay.peers_env import Peers, peers, peers_python
from benchmarks.sources.family_data import (
    Questions,
    Trial,
    movielens,
    questions_of,
    shop,
    write_for_peers,
    write_rows,
)
from benchmarks.table import Table
from policies.artifacts.source_artifact import TrainedSource
from policies.sources import ItemOrder, LocalSource, SourceRequest, load_model
from policies.sources.scorers.artifact_scorer import CataloguedScorer, load_scorer
from policies.training.fits import FITS, TrainConfig
from policies.training.training_data import Course

WORKER = Path(__file__).with_name("family_peers_worker.py")
LIBRARIES = ("recbole==1.2.1", "torch-rechub==0.9.0", "wsknn==1.2.3")
"""RecBole asks for an old ray, to search hyperparameters with: without it all else works."""
NEEDS = (
    f"torch=={torch.__version__.partition('+')[0]}",
    "rectools[torch]==0.19.0",
    "numpy==1.26.4",
    "pandas==2.3.3",
    "scipy==1.17.1",
    "pytorch-lightning==2.5.2",
    "scikit-learn==1.9.1",
    "colorlog==4.7.2",
    "colorama==0.4.4",
    "tabulate",
    "texttable",
    "psutil",
    "plotly",
    "tensorboard",
    "thop",
    "more-itertools",
)
SETTINGS = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
"""Without them a third of RecTools' time is the kernel's, which clears memory for every batch."""
DATA = ("movielens", "shop")


@dataclass(frozen=True, slots=True)
class Family:
    """One of ours beside one of a library's.

    ``run``: of family_peers_worker.py. ``theirs`` and ``ours``: what is not left as it is by
    default; both get ``epochs``, under the names that they have for it. ``scorer``: it answers
    questions, and is judged by their AUC, not by the nDCG@10 of lists. ``ratio``: ours is to be at
    least so many times as good; ``time``: and to take at most so many times as long.
    """

    library: str
    run: str
    theirs: Mapping[str, Any] = field(default_factory=dict)
    ours: Mapping[str, Any] = field(default_factory=dict)
    epochs: tuple[str, int] | None = None
    scorer: bool = False
    ratio: float = 0.97
    time: float | None = None


FAMILIES: Final[Mapping[str, Family]] = {
    "slit": Family(
        "wsknn",
        "sessions",
        {"number_of_neighbors": 100, "sample_size": 1000, "sampling_strategy": "recent"},
    ),
    "sasrec": Family(
        "RecTools",
        "sasrec",
        {
            "n_blocks": 2,
            "n_heads": 1,
            "n_factors": 64,
            "dropout_rate": 0.2,
            "session_max_len": 50,
            "loss": "sampled_softmax",
            "n_negatives": 256,
            "batch_size": 128,
            "lr": 1e-3,
        },
        {"blocks": 2, "heads": 1, "factors": 64, "dropout": 0.2, "length": 50, "negatives": 256},
        ("epochs", 20),
        ratio=0.98,
        time=1.2,
    ),
    "gru4rec": Family(
        "RecBole",
        "gru4rec",
        {
            "embedding_size": 64,
            "hidden_size": 64,
            "num_layers": 1,
            "dropout_prob": 0.2,
            "loss_type": "CE",
            "MAX_ITEM_LIST_LENGTH": 50,
            "train_batch_size": 2048,
            "train_neg_sample_args": None,
        },
        # 41 histories of 50 events are a batch of 2,048.
        {"factors": 64, "length": 50, "dropout": 0.2, "batch": 41},
        ("epochs", 10),
    ),
    "towers": Family(
        # An epoch shows it one item of each user.
        "RecTools",
        "dssm",
        {"n_factors": 64, "batch_size": 128, "max_epochs": 200},
    ),
    "ncf": Family("RecBole", "neumf", epochs=("epochs", 20)),
    "deep": Family(
        "RecBole",
        "multidae",
        {
            "mlp_hidden_dimension": [],
            "latent_dimension": 200,
            "dropout_prob": 0.5,
            "train_batch_size": 128,
            "train_neg_sample_args": None,
        },
        {"hidden": 200, "dropout": 0.5},
        ("epochs", 50),
    ),
    "fm": Family(
        "torch-rechub",
        "deepfm",
        {"factors": 16, "hidden": [], "dropout": 0.0, "rate": 3e-3, "batch": 1024},
        {"history": 20},
        ("epochs", 5),
        scorer=True,
    ),
    "deepfm": Family(
        "torch-rechub",
        "deepfm",
        {"factors": 16, "hidden": [64, 32], "dropout": 0.0, "rate": 3e-3, "batch": 1024},
        {"history": 20},
        ("epochs", 5),
        scorer=True,
    ),
    "wide_deep": Family(
        "torch-rechub",
        "widedeep",
        {"factors": 16, "hidden": [64, 32], "dropout": 0.0, "rate": 3e-3, "batch": 1024},
        {"history": 20},
        ("epochs", 5),
        scorer=True,
    ),
}
"""Ours by name."""


class Library:
    """What the libraries answer: asked for once, where answers are kept."""

    def __init__(self, process: Peers, folder: Path, kept: Path | None) -> None:
        self._process = process
        self._folder = folder
        self._kept = kept

    def run(self, name: str, data: str, **arguments: Any) -> tuple[float, Any]:
        """Return the seconds of a fit, and the ten best items of each test user.

        Args:
            name: of family_peers_worker.py.
            data: the name of a trial that is written in the folder.
            arguments: of the run.
        """
        if self._kept is None:
            return self._process.run(name, data=data, **arguments)
        digest = hashlib.sha256((self._folder / f"{data}.safetensors").read_bytes())
        digest.update(json.dumps([name, arguments, LIBRARIES, NEEDS], sort_keys=True).encode())
        file = self._kept / f"{data}-{name}-{digest.hexdigest()[:12]}.json"
        if not file.exists():
            answer = self._process.run(name, data=data, **arguments)
            self._kept.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(answer))
        seconds, lists = json.loads(file.read_text())
        return seconds, lists


def main() -> int:
    """Print a table, and which goals were missed."""
    parser = argparse.ArgumentParser(description="Families of sources beside named libraries")
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="of both sides; default: each family's own")
    parser.add_argument("--keep", type=Path, help="folder of what the libraries have answered")
    parser.add_argument("--out", type=Path, help="the JSON file that is written")
    asked = parser.parse_args()

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    python = peers_python(LIBRARIES, NEEDS, ours=False)
    table = Table()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with peers(python, folder, worker=WORKER, settings=SETTINGS) as process:
            library = Library(process, folder, asked.keep)
            print(f"{platform.machine()}, Python {platform.python_version()}; ours: torch", end=" ")
            print(f"{torch.__version__}, numpy {np.__version__}; theirs: ", end="")
            print(", ".join(f"{name} {it}" for name, it in process.run("versions")[1].items()))
            print(f"$ python {' '.join(sys.argv)}", flush=True)

            for name in asked.data:
                trial = movielens() if name == "movielens" else shop(folder)
                write_for_peers(trial, folder)
                write_rows(trial, questions_of(trial), folder, seed=0)
                print(_sentence(trial), flush=True)
                for family in asked.families:
                    _compare(table, trial, family, library, range(asked.seeds), asked.epochs)
    return table.finish(asked.out)


def _compare(
    table: Table,
    trial: Trial,
    name: str,
    library: Library,
    seeds: Iterable[int],
    epochs: int | None,
) -> None:
    """Add a family's rows on a data set, or say why there are none."""
    family, config = FAMILIES[name], TrainConfig()
    if name not in FITS:
        print(f"{name} is left out: this build does not fit it")
        return
    if why := FITS[name].why_not(trial.training, config):
        print(f"{name} is left out on {trial.name}: {why}")
        return

    theirs, mine = dict(family.theirs), dict(family.ours)
    if family.epochs is not None:
        theirs[family.epochs[0]] = mine["epochs"] = epochs or family.epochs[1]
    known = {each.name for each in fields(getattr(config, name))}
    config = replace(
        config,
        **{name: replace(getattr(config, name), **{k: v for k, v in mine.items() if k in known})},
    )
    print(f"{family.library}: {json.dumps(theirs)}")
    print(f"ours: {json.dumps(asdict(getattr(config, name)), default=str)}", flush=True)

    found: list[tuple[float, float, float, float]] = []
    for seed in seeds:
        # In turn, so that both meet the machine as it is.
        seconds, answer = library.run(family.run, trial.name, seed=seed, **theirs)
        started = time.process_time()
        source = FITS[name].fit(trial.training, config, Course(seed))
        took = time.process_time() - started

        if family.scorer:
            asked = questions_of(trial)
            quality = auc(_our_answers(source, trial, asked), asked.label > 0)
            their_quality = auc(np.array(answer), asked.label > 0)
        else:
            names = trial.histories.items
            quality = _ndcg(trial, _our_lists(source, trial))
            their_quality = _ndcg(trial, [[names[at] for at in row] for row in answer])
        found.append((quality, their_quality, took, seconds))
        print(
            f"  seed {seed}: {_measure(family)} {found[-1][0]:.4f}, theirs {their_quality:.4f};"
            f" {took:.1f} s, theirs {seconds:.1f} s",
            flush=True,
        )

    quality, their_quality, took, seconds = np.mean(found, axis=0)
    _row(table, trial, name, (quality, their_quality), (took, seconds))


def _row(
    table: Table, trial: Trial, name: str, quality: tuple[float, float], took: tuple[float, float]
) -> None:
    family = FAMILIES[name]
    table.add(
        f"{trial.name}: {name}, {_measure(family)} beside {family.library}",
        f"{quality[0] / quality[1]:.3f} x ({quality[0]:.4f}, {quality[1]:.4f})",
        quality[0] / quality[1],
        at_least=family.ratio,
    )
    table.add(
        f"{trial.name}: {name}, time of the fit beside {family.library}",
        f"{took[0] / took[1]:.2f} x ({took[0]:.1f} s, {took[1]:.1f} s)",
        took[0] / took[1],
        at_most=family.time,
    )


def _measure(family: Family) -> str:
    return "AUC" if family.scorer else "nDCG@10"


def _our_lists(source: TrainedSource, trial: Trial) -> list[list[str]]:
    """Return what a request of each test user gets."""
    histories, items = trial.histories, ItemOrder(trial.histories.items)
    served = LocalSource(source.kind, load_model(source, len(items)), items, source.scale)
    return [
        list(served.propose(SourceRequest(profile=histories.profile(user)), 10).ids)
        for user in trial.liked
    ]


def _our_answers(source: TrainedSource, trial: Trial, asked: Questions) -> NDArray[np.float64]:
    """Return what a scorer says to each question, the user's context being said."""
    histories = trial.histories
    model = CataloguedScorer(
        load_scorer(source, len(histories.items)), histories.items, trial.training.items
    )
    found = np.empty(len(asked.user))
    starts = np.flatnonzero(np.diff(asked.user, prepend=-1, append=-1))
    for first, stop in pairwise(starts.tolist()):
        user = int(asked.user[first])
        said = trial.training.contexts.get(histories.users[user], {})
        found[first:stop] = model.raw_in(said, *histories.row(user))[asked.item[first:stop]]
    return found


def _ndcg(trial: Trial, lists: Iterable[list[str]]) -> float:
    """Return the mean nDCG@10 of lists, one for each test user, with gains of one."""
    gains = 1 / np.log2(np.arange(2, 12))
    found = []
    for wanted, best in zip(trial.liked.values(), lists, strict=True):
        hits = [item in wanted for item in best[:10]]
        found.append(gains[: len(hits)] @ hits / gains[: len(wanted)].sum())
    return float(np.mean(found))


def auc(scores: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Return the chance that a positive outscores a negative, ties counted half (Mann and Whitney).

    Args:
        scores: float[n].
        positive: bool[n].
    """
    _, rank, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    wins = middle[rank][positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    return float(wins / (positive.sum() * (~positive).sum()))


def _sentence(trial: Trial) -> str:
    histories = trial.histories
    return (
        f"\n{trial.name}: {trial.split}. {histories.indices.size:,} interactions of"
        f" {len(histories.users):,} users with {len(histories.items):,} items train;"
        f" {len(trial.liked):,} users test"
    )


if __name__ == "__main__":
    sys.exit(main())
