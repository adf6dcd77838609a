"""Are the sources as good as the libraries they are trained with? Prints the tables of docs/benchmarks/sources.md.

    python -m benchmarks.sources.source_quality               test part: peers and ours, ratio, hit rates, times
    python -m benchmarks.sources.source_quality --validate    validation part: every configuration tried, ours and the peers'
    python -m benchmarks.sources.source_quality --scores      validation part: are scores comparable across users?

The validation part is the last 20% of each user's training ratings. The test part decides nothing.
A peer is `implicit`'s own model.recommend, LensKit's EASE (pip install lenskit==2025.8.1), or the
torch model's own forward pass, each with the best configuration of its grid; ours is what a request gets: numpy, through a written and reloaded
artifact.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]
import torch
from implicit.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks.sources.quality_peers import (
    BEST_PEER_EASE,
    BEST_PEER_KNN,
    PEER_EASE,
    PEER_KNN,
    has_ease,
    peer_ease,
    peer_knn,
)
from policies.artifacts import source_artifact as artifact
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.sources import ItemOrder, LocalSource, SourceRequest, load_model, load_sources
from policies.training.cf import AlsConfig, KnnConfig, fit_als, fit_item_knn, user_items
from policies.training.deep import DeepConfig, fit_autoencoder, fit_deep
from policies.training.ease import EaseConfig, fit_ease
from policies.training.histories import histories_of
from policies.training.popular import fit_popular
from policies.training.rp3beta import Rp3betaConfig, fit_rp3beta
from policies.training.train import run_training
from policies.training.training_data import Course
from policies.training.trending import TrendingConfig, fit_trending
from simulator.worlds.movielens import (
    LIKED,
    MovieLensWorld,
    movielens_data,
    rating_events,
    split_by_time,
)

SEEDS = (0, 1, 2)
Ranking = Callable[[str], list[str]]
"""A user's best ten items, best first."""


def main() -> None:
    """Print one of the three tables."""
    parser = argparse.ArgumentParser(
        description="Quality of the candidate sources on MovieLens 100K"
    )
    table = parser.add_mutually_exclusive_group()
    table.add_argument(
        "--validate", dest="show", action="store_const", const=_validate, default=_test
    )
    table.add_argument("--scores", dest="show", action="store_const", const=_scores, default=_test)
    parser.add_argument("--sources", nargs="+", help="rows of the table of the test part; else all")
    asked = parser.parse_args()
    show = partial(_test, names=asked.sources) if asked.show is _test else asked.show
    # The peers warn about BLAS threads; both sides get one.
    with threadpoolctl.threadpool_limits(1, "blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        torch.set_num_threads(1)
        world = MovieLensWorld.of(movielens_data())
        print(
            f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; "
            + _versions()
        )
        print(f"$ python {' '.join(sys.argv)}\n")
        show(world)


def quality(ranking: Ranking, liked: Mapping[str, frozenset[str]]) -> tuple[float, float]:
    """nDCG@10 (binary gains) and P@1, averaged over the users with at least one liked item."""
    gains = 1 / np.log2(np.arange(2, 12))
    ndcg, first = [], []
    for user, wanted in liked.items():
        if wanted:
            hits = [item in wanted for item in ranking(user)[:10]] + [False] * 10
            ndcg.append(gains @ hits[:10] / gains[: len(wanted)].sum())
            first.append(hits[0])
    return float(np.mean(ndcg)), float(np.mean(first))


def ours(source: TrainedSource, histories: Histories) -> Ranking:
    """The serving path of one trained source."""
    items = ItemOrder(histories.items)
    served = LocalSource("ours", load_model(source, len(items)), items, source.scale)
    return _ranking(served, histories)


def _ranking(source: LocalSource, histories: Histories) -> Ranking:
    def best(user: str) -> list[str]:
        return list(source.propose(SourceRequest(profile=histories.profile(user)), 10).ids)

    return best


# --- the peers, in their own words
# ------------------------------------------------------------------------------------


def binary(ratings: NDArray[Any], least: float) -> Histories:
    """Histories with weight 1 for a rating of at least ``least``, else 0: seen, but not liked."""
    events = rating_events(ratings)
    return histories_of(events.with_weight((events.value >= least).astype(np.float32)))


WEIGHTINGS: dict[str, Callable[[NDArray[Any]], Histories]] = {
    "all": lambda ratings: binary(ratings, 0),
    "liked": lambda ratings: binary(ratings, LIKED),
    "graded": lambda ratings: histories_of(rating_events(ratings)),
}


def peer_als(histories: Histories, config: AlsConfig, seed: int) -> Ranking:
    """What implicit itself does: fit and recommend."""
    shape = len(histories.users), len(histories.items)
    seen = csr_matrix(
        (np.ones_like(histories.weights), histories.indices, histories.starts), shape=shape
    )
    model = AlternatingLeastSquares(**asdict(config), random_state=seed)
    model.fit(user_items(histories), show_progress=False)
    ids, _ = model.recommend(
        np.arange(len(histories.users)), seen, N=10, filter_already_liked_items=True
    )
    return lambda user: [histories.items[i] for i in ids[histories.user_index[user]]]


def peer_autoencoder(histories: Histories, config: DeepConfig, seed: int) -> Ranking:
    """The torch model's own forward pass."""
    interactions = user_items(histories)
    matrix = torch.from_numpy(interactions.toarray())
    model = fit_autoencoder(interactions, config, Course(seed))
    with torch.no_grad():
        logits = model(matrix)
    for user in range(len(histories.users)):
        logits[user, torch.from_numpy(histories.row(user)[0].astype(np.int64))] = -torch.inf
    top = logits.topk(10).indices.tolist()
    return lambda user: [histories.items[i] for i in top[histories.user_index[user]]]


PEER_ALS = [
    AlsConfig(factors, regularization, alpha)
    for factors, regularization, alpha in [
        (32, 0.01, 1),
        (32, 10, 5),
        (32, 30, 5),
        (32, 30, 10),
        (64, 10, 5),
        (64, 50, 10),
    ]
]
PEER_DEEP = [
    DeepConfig(
        hidden=hidden, dropout=dropout, learning_rate=1e-3, weight_decay=1e-4, batch=128, epochs=80
    )
    for hidden, dropout in [(100, 0.5), (200, 0.5), (200, 0.7), (400, 0.5)]
]
# The best of the two grids on the validation part.
BEST_PEER_ALS = "graded", PEER_ALS[2]
BEST_PEER_DEEP = "graded", PEER_DEEP[1]

# --- what was tried for ours
# ------------------------------------------------------------------------------------------

OUR_ALS = [
    AlsConfig(factors, regularization, alpha)
    for factors, regularization, alpha in [
        (16, 10, 5),
        (32, 10, 3),
        (32, 20, 5),
        (32, 30, 5),
        (48, 20, 5),
        (64, 30, 3),
    ]
]
OUR_KNN = [
    *(KnnConfig(neighbours, "cosine") for neighbours in (50, 100, 200)),
    *(KnnConfig(neighbours, "tfidf") for neighbours in (50, 100, 200)),
    *(KnnConfig(neighbours, "bm25") for neighbours in (50, 100, 200)),
]
OUR_EASE = [
    *(EaseConfig(penalty) for penalty in (50, 100, 200, 300, 500)),
    *(EaseConfig(200, neighbours) for neighbours in (50, 100, 200, 800)),
]
OUR_RP3BETA = [
    *(Rp3betaConfig(alpha, beta) for alpha in (0.2, 0.4, 0.6, 1) for beta in (0.4, 0.5, 0.6)),
    *(Rp3betaConfig(neighbours=neighbours) for neighbours in (50, 200, 400)),
]
OUR_TRENDING = [TrendingConfig(days) for days in (None, 1, 7, 30, 90)]
OUR_DEEP = [
    DeepConfig(),
    DeepConfig(hidden=100),
    DeepConfig(hidden=300),
    DeepConfig(dropout=0.7),
    DeepConfig(epochs=30),
    DeepConfig(learning_rate=1e-3, epochs=100),
]


def _validate(world: MovieLensWorld) -> None:
    part, rest = split_by_time(world.train_ratings, 0.8)
    liked = _liked(world, rest)
    print(f"{'model':<12}{'weights':<9}{'nDCG@10':>8}{'P@1':>7}  configuration")

    def show(model: str, weighting: str, rankings: list[Ranking], config: object) -> None:
        ndcg, first = np.mean([quality(ranking, liked) for ranking in rankings], axis=0)
        print(f"{model:<12}{weighting:<9}{ndcg:>8.4f}{first:>7.3f}  {_text(config)}", flush=True)

    for weighting, make in WEIGHTINGS.items():
        _validate_matrices(make(part), weighting, show)
        _validate_peers(make(part), weighting, show)
    histories = histories_of(rating_events(part))
    for als in OUR_ALS:
        fits = [fit_als(histories, als, seed=seed, step=_quiet) for seed in SEEDS]
        show("als", "graded", [ours(fit, histories) for fit in fits], als)
    for deep in OUR_DEEP:
        show(
            "deep",
            "graded",
            [ours(fit_deep(histories, deep, Course()), histories)],
            deep,
        )


Show = Callable[[str, str, list[Ranking], object], None]
"""Prints a row: the model, its weights, its rankings with each seed, and its configuration."""


def _validate_matrices(histories: Histories, weighting: str, show: Show) -> None:
    """Our sources that take no seed."""
    fits = [
        ("popular", None, fit_popular(histories, step=_quiet)),
        *(("item_knn", knn, fit_item_knn(histories, knn, step=_quiet)) for knn in OUR_KNN),
        *(("ease", ease, fit_ease(histories, ease, step=_quiet)) for ease in OUR_EASE),
        *(("trending", age, fit_trending(histories, age, step=_quiet)) for age in OUR_TRENDING),
        *(("rp3beta", walk, fit_rp3beta(histories, walk, step=_quiet)) for walk in OUR_RP3BETA),
    ]
    for name, config, fit in fits:
        show(name, weighting, [ours(fit, histories)], config)


def _validate_peers(histories: Histories, weighting: str, show: Show) -> None:
    for neighbours in PEER_KNN:
        show("peer knn", weighting, [peer_knn(histories, neighbours)], {"K": neighbours})
    for penalty in PEER_EASE if has_ease() and weighting != "graded" else ():
        show("peer ease", weighting, [peer_ease(histories, penalty)], {"lambda": penalty})
    for als in PEER_ALS:
        show("peer als", weighting, [peer_als(histories, als, seed) for seed in SEEDS], als)
    for deep in PEER_DEEP:
        show("peer deep", weighting, [peer_autoencoder(histories, deep, 0)], deep)


def _test(world: MovieLensWorld, names: list[str] | None = None) -> None:
    liked = _liked(world, world.test_ratings)
    als, deep, knn, ease = (
        WEIGHTINGS[weighting](world.train_ratings)
        for weighting, _ in (BEST_PEER_ALS, BEST_PEER_DEEP, BEST_PEER_KNN, BEST_PEER_EASE)
    )
    rankings: dict[str, Callable[[int], Ranking]] = {
        "als": lambda seed: peer_als(als, BEST_PEER_ALS[1], seed),
        "deep": lambda seed: peer_autoencoder(deep, BEST_PEER_DEEP[1], seed),
        "item_knn": lambda _seed: peer_knn(knn, BEST_PEER_KNN[1]),
        "ease": lambda _seed: peer_ease(ease, BEST_PEER_EASE[1]),
    }
    peers = {
        name: [quality(ranking(seed), liked) for seed in SEEDS]
        for name, ranking in rankings.items()
        if (names is None or name in names) and (name != "ease" or has_ease())
    }
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    for seed in SEEDS:
        started = time.perf_counter()
        run = run_training(world.train_events, world.catalogue, sources=names, seed=seed)
        trained = run.artifact
        histories = histories_of(world.train_events)
        print(f"training with seed {seed}: {time.perf_counter() - started:.1f} s")
        with tempfile.TemporaryDirectory() as root:
            artifact.write(trained, Path(root))
            loaded = artifact.load(Path(root))
        for name, source in load_sources(loaded).items():
            assert isinstance(source, LocalSource)  # noqa: S101 - the artifact holds no other
            ranking = _ranking(source, histories)
            hits = np.mean([world.reward(user, ranking(user)[0]) for user in world.users])
            found.setdefault(name, []).append(
                (*quality(ranking, liked), float(hits), _request_ms(source, world))
            )
    print(f"\nmeans of seeds {SEEDS}; ratio = ours / peer\n")
    print(
        "| source | peer nDCG@10 | ours nDCG@10 | ratio | peer P@1 | ours P@1 | top-1 hit rate |"
        " ms per request |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, rows in found.items():
        ndcg, first, hits, ms = np.mean(rows, axis=0)
        if name in peers:
            peer_ndcg, peer_first = np.mean(peers[name], axis=0)
            peer = f"{peer_ndcg:.4f} | {ndcg:.4f} | {ndcg / peer_ndcg:.3f} | {peer_first:.3f}"
        else:
            peer = f"  | {ndcg:.4f} |  |  "
        print(f"| {name} | {peer} | {first:.3f} | {hits:.3f} | {ms:.3f} |")


def _scores(world: MovieLensWorld) -> None:
    """Pooled over all users' 30 best candidates: does a higher score mean a likelier reward? (AUC, 0.5 = no)."""
    part, rest = split_by_time(world.train_ratings, 0.8)
    liked = _liked(world, rest)
    fitted, histories = (
        run_training(rating_events(part), world.catalogue).artifact,
        histories_of(rating_events(part)),
    )
    activity = {
        user: np.log(histories.row(row)[1].sum()) for row, user in enumerate(histories.users)
    }
    print(f"{'source':<10}{'score':<24}{'AUC':>7}")
    for name, source in load_sources(fitted).items():
        served, without, rewarded = [], [], []
        for user, log_weight in activity.items():
            assert isinstance(source, LocalSource)  # noqa: S101 - the artifact holds no other
            found = source.propose(SourceRequest(profile=histories.profile(user)), 30)
            served.append(found.scores)
            without.append(found.scores * fitted.sources[name].scale.std - log_weight)
            rewarded += [item in liked[user] for item in found.ids]
        print(
            f"{name:<10}{'as served':<24}{_auc(np.concatenate(served), np.array(rewarded)):>7.3f}"
        )
        if name == "deep":
            print(
                f"{name:<10}{'log-probability alone':<24}{_auc(np.concatenate(without), np.array(rewarded)):>7.3f}"
            )


def _auc(scores: NDArray[Any], positive: NDArray[Any]) -> float:
    """Mann and Whitney's: the chance that a positive outscores a negative, ties counted half."""
    _, rank, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    wins = middle[rank][positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    return float(wins / (positive.sum() * (~positive).sum()))


def _request_ms(source: LocalSource, world: MovieLensWorld) -> float:
    """Median over requests of a user nobody knows, with a training user's history: nothing is cached. 50 candidates."""
    taken = []
    for user in world.users[:300]:
        request = SourceRequest(None, world.train_history(user))
        started = time.perf_counter()
        source.propose(request, 50)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken)) * 1e3


def _liked(world: MovieLensWorld, ratings: NDArray[Any]) -> dict[str, frozenset[str]]:
    liked: dict[str, set[str]] = {user: set() for user in world.users}
    for user, item in ratings[["user", "item"]][ratings["rating"] >= LIKED].tolist():
        liked[str(user)].add(str(item))
    return {user: frozenset(wanted) for user, wanted in liked.items()}


def _text(config: Any) -> str:
    values = config if isinstance(config, dict) else asdict(config) if config else {}
    return " ".join(f"{name}={value}" for name, value in values.items())


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in ("numpy", "implicit", "torch"))


def _quiet(_done: int, _total: int) -> None:
    pass


if __name__ == "__main__":
    main()
