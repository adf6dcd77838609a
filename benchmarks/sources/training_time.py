"""How long does each source train, and how much memory does it take? Synthetic events, sparse, seeded.

    python -m benchmarks.sources.training_time                                  1M events: the usual ones
    python -m benchmarks.sources.training_time --sources all                    1M events: every one
    python -m benchmarks.sources.training_time --sources slit towers            1M events: these
    pip install lenskit==2025.8.1
    python -m benchmarks.sources.training_time --peers                          1M events: ours beside the libraries'
    python -m benchmarks.sources.training_time --events 1000000 10000000 --items 10000 50000

A user has 20 events on average, log-normally spread; 70% of them are with items of the user's own
of 50 tastes, and popularity falls as in a catalogue. An item's taste is said, it has a title of
eight words, half of them its taste's, and one of ten groups is said of each user. Every source has
one BLAS thread, as in training; so has a peer, by whose fit ours is divided. Seconds are the
processor's, of all threads. The memory is the highest of the process so far, the events included.

Exits 0 when each source of each table is fitted and calibrated in ten minutes and 4 GiB.
"""

import argparse
import os
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]

from benchmarks.sources.quality_peers import lenskit_data
from benchmarks.table import Table
from policies.artifacts.histories import Histories
from policies.training.calibration import calibrate
from policies.training.cf import user_items
from policies.training.content.descriptions import describe
from policies.training.fits import FITS, TrainConfig, choose_sources
from policies.training.training_data import Course, TrainingData, features_of

EVENTS_BY_USER = 20
TASTES = 50
WORDS = 200
"""Words of each taste, and words of none."""
MOST_S, MOST_GIB = 600.0, 4.0
DAY_MS = 86_400_000
Taken = tuple[float, float]
"""Seconds on the clock, and of the processor."""


def main() -> int:
    """Print a table for each number of events; return 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description="Training time of the candidate sources")
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000])
    parser.add_argument("--sources", nargs="+", help="by default all that can be fitted")
    parser.add_argument("--peers", action="store_true", help="time the libraries' own fits, too")
    parser.add_argument("--out", type=Path, help="the JSON file that is written")
    asked = parser.parse_args()

    names = ("numpy", "scipy", "implicit", "torch", "lenskit")
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; "
        + ", ".join(f"{name} {_version(name)}" for name in names)
    )
    print(f"$ python {' '.join(sys.argv)}")
    items = asked.items * len(asked.events) if len(asked.items) == 1 else asked.items
    goals = Table()
    with threadpoolctl.threadpool_limits(1, "blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n_events, n_items in zip(asked.events, items, strict=True):
            _table(goals, n_events, n_items, asked.sources, peers=asked.peers)
    return goals.finish(asked.out)


def make_histories(n_events: int, n_items: int, *, seed: int = 0) -> Histories:
    """Interactions of users with tastes, over a year; about so many, since nobody has an item twice."""
    rng = np.random.default_rng(seed)
    n_users = n_events // EVENTS_BY_USER
    activity = rng.lognormal(0, 1, n_users)
    per_user = rng.poisson(activity * n_events / activity.sum())
    user = np.repeat(np.arange(n_users), per_user)

    # The rank of an item within its taste falls off like 1 / (rank + 5).
    own = rng.integers(TASTES, size=n_users)[user]
    taste = np.where(rng.random(user.size) < 0.7, own, rng.integers(TASTES, size=user.size))
    ranks = n_items // TASTES
    rank = (5 * ((1 + ranks / 5) ** rng.random(user.size) - 1)).astype(np.int64)
    cells, first = np.unique(user * n_items + rank * TASTES + taste, return_index=True)
    return Histories(
        items=tuple(map(str, range(n_items))),
        users=tuple(map(str, range(n_users))),
        starts=np.searchsorted(cells, np.arange(n_users + 1) * n_items),
        indices=(cells % n_items).astype(np.int32),
        weights=rng.choice(np.array([1, 1, 1, 3], np.float32), cells.size),
        times=rng.integers(365 * DAY_MS, size=user.size)[first],
    )


def make_catalogue(items: Sequence[str], *, seed: int = 0) -> list[dict[str, Any]]:
    """Return what is said of items: a taste, and a title."""
    rng = np.random.default_rng([seed, 1])
    own, any_taste = rng.integers(WORDS, size=(2, len(items), 4)).tolist()
    return [
        {
            "id": item,
            "features": {"taste": f"t{int(item) % TASTES}"},
            "metadata": {
                "title": " ".join(
                    [f"taste{int(item) % TASTES}word{number}" for number in own[at]]
                    + [f"word{number}" for number in any_taste[at]]
                )
            },
        }
        for at, item in enumerate(items)
    ]


def _table(
    goals: Table, n_events: int, n_items: int, names: list[str] | None, *, peers: bool
) -> None:
    started = time.perf_counter()
    histories = make_histories(n_events, n_items)
    print(
        f"\n{n_events:,} events, {histories.indices.size:,} of them a user's first with the item;"
        f" {n_items:,} items, {len(histories.users):,} users"
        f" (made in {time.perf_counter() - started:.0f} s, {_peak_gib():.2f} GiB)\n"
    )

    config, catalogue = TrainConfig(), tuple(make_catalogue(histories.items))
    data = TrainingData(
        histories,
        describe(catalogue, config.content),
        features_of(catalogue),
        {user: {"group": f"g{int(user) % 10}"} for user in histories.users},
    )
    chosen, left_out = choose_sources(names, data, config)
    print("| source | fit s | calibration s | µs per event | peer s | ours / peer | peak GiB |")
    print("|---|---|---|---|---|---|---|")
    total = clock = 0.0
    longest = (0.0, "none")
    for name in chosen:
        fit, fitted = _timed(partial(FITS[name].fit, data, config, Course()))
        calibration, _ = _timed(partial(calibrate, fitted, histories, data.items))
        both, peak = fit[1] + calibration[1], _peak_gib()
        total += both
        longest = max(longest, (both, name))
        clock += fit[0] + calibration[0]

        peer = PEERS[name](histories, config) if peers and name in PEERS else None
        beside = " | " if peer is None else f"{peer[1]:.1f} | {fit[1] / peer[1]:.2f}"
        print(
            f"| {name} | {fit[1]:.1f} | {calibration[1]:.1f} | {both / n_events * 1e6:.1f} |"
            f" {beside} | {peak:.2f} |",
            flush=True,
        )
    print(f"| all | {total:.1f} | | {total / n_events * 1e6:.1f} | | | {_peak_gib():.2f} |\n")
    print(f"{clock:.0f} s on the clock", flush=True)
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    of = f"{n_events:,} events, {len(chosen)} sources"
    said = f"{longest[0]:.0f} s of the processor ({longest[1]})"
    goals.add(f"{of}: the longest fit and calibration", said, longest[0], at_most=MOST_S)
    goals.add(f"{of}: peak memory", f"{_peak_gib():.2f} GiB", _peak_gib(), at_most=MOST_GIB)


def _peer_als(histories: Histories, config: TrainConfig) -> Taken:
    from implicit.als import AlternatingLeastSquares  # noqa: PLC0415

    interactions = user_items(histories)
    model = AlternatingLeastSquares(**asdict(config.als), random_state=0)
    return _timed(lambda: model.fit(interactions, show_progress=False))[0]


def _peer_item_knn(histories: Histories, config: TrainConfig) -> Taken:
    from implicit.nearest_neighbours import TFIDFRecommender  # noqa: PLC0415

    interactions = user_items(histories)
    model = TFIDFRecommender(K=config.item_knn.neighbours)
    return _timed(lambda: model.fit(interactions, show_progress=False))[0]


def _peer_ease(histories: Histories, config: TrainConfig) -> Taken | None:
    if find_spec("lenskit") is None:
        return None
    from lenskit.knn import EASEScorer  # noqa: PLC0415

    rows = np.repeat(np.arange(len(histories.users)), np.diff(histories.starts))
    data = lenskit_data(rows, histories.indices)
    model = EASEScorer(regularization=config.ease.regularization)
    return _timed(lambda: model.train(data))[0]


PEERS: dict[str, Callable[[Histories, TrainConfig], Taken | None]] = {
    "als": _peer_als,
    "item_knn": _peer_item_knn,
    "ease": _peer_ease,
}


def _timed(run: Callable[[], Any]) -> tuple[Taken, Any]:
    wall, processor = time.perf_counter(), time.process_time()
    made = run()
    return (time.perf_counter() - wall, time.process_time() - processor), made


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _quiet(_done: int, _total: int) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
