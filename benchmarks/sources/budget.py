"""What each family costs a replica: memory, processor time of a request, and the cores of 1,000 requests a second.

    python -m benchmarks.sources.budget                                 2,000 items
    python -m benchmarks.sources.budget --items 2000 20000 --events 200000
    python -m benchmarks.sources.budget --sources als slit sasrec

Synthetic events as those of training_time; items have three features and a text of eight words, callers send a device.
Every family is fitted for one epoch: what it costs to serve does not depend on how good it is. Milliseconds are the
processor's, of one thread, the median of users with 20 items:

- sent: the history comes with the request, so nothing of an earlier one can be used.
- known: the history is a profile that the source was asked for before, as of a user who returns.

A scorer scores the 200 candidates of a decision. Memory is that of the arrays, and of what is made of them to serve;
what is kept of users comes to it (at most 32 MiB a source).
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np

from benchmarks.sources.training_time import make_histories
from benchmarks.table import Table
from policies.artifacts.histories import Histories, Profile
from policies.artifacts.source_artifact import Artifact
from policies.items.catalogue import Catalogue
from policies.sources import load_sources
from policies.sources.base import ContextScorer, SourceRequest
from policies.training.content.descriptions import describe
from policies.training.fits import EVERY, TrainConfig, choose_sources, fit_source
from policies.training.training_data import Course, TrainingData, features_of
from simulator.ranking.blending.measure import megabytes_of

LIMIT, ACTIONS, HISTORY, USERS, WARM = 30, 200, 20, 300, 50
DEVICES = ("phone", "desktop", "tablet")
WORDS = 400


def main() -> int:
    """Print a table for each number of items; exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[2_000])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--sources", nargs="+", default=[EVERY])
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()

    table, rows = Table(), []
    for n_items in given.items:
        rows += _table(given.events, n_items, given.sources, table)
    return table.finish(given.out, families=rows)


def once(config: TrainConfig) -> TrainConfig:
    """The hyperparameters of fits that see everything once."""
    short: dict[str, Any] = {}
    for field in fields(config):
        one = getattr(config, field.name)
        for name in ("epochs", "iterations"):
            if hasattr(one, name):
                one = replace(one, **{name: 1})
        short[field.name] = one
    return replace(config, **short)


def _table(
    n_events: int, n_items: int, names: list[str], table: Table
) -> list[dict[str, float | str]]:
    histories = make_histories(n_events, n_items)
    rng = np.random.default_rng(0)
    catalogue = tuple(
        {
            "id": item,
            "features": {"brand": f"b{at % 40}", "topic": f"t{at % 20}", "price": float(at % 90)},
            "metadata": {"title": " ".join(f"w{word}" for word in rng.integers(WORDS, size=8))},
        }
        for at, item in enumerate(histories.items)
    )
    contexts = {user: {"device": DEVICES[at % 3]} for at, user in enumerate(histories.users)}
    config = once(TrainConfig())
    data = TrainingData(
        histories, describe(catalogue, config.content), features_of(catalogue), contexts
    )
    chosen, left_out = choose_sources(names, data, config)
    fitted = {name: fit_source(name, data, config, Course()) for name in chosen}

    artifact = Artifact(catalogue, histories.items, fitted)
    sizes = megabytes_of(artifact)
    loaded = load_sources(artifact)
    items = Catalogue.of(catalogue)
    asked = _requests(histories)

    print(f"\n{n_items:,} items, limit {LIMIT}; a scorer has {ACTIONS} actions")
    print("| family | MB | ms, sent | ms, known | cores for 1,000 requests/s, sent, known |")
    print("|---|---|---|---|---|")
    rows: list[dict[str, float | str]] = []
    for name, source in loaded.items():
        if isinstance(source, ContextScorer):
            sent, known = (
                _ms(_scoring(source, items, artifact.items, each), each) for each in asked
            )
        else:
            propose: Any = getattr(source, "propose")  # noqa: B009 - of every immediate source
            sent, known = (_ms(lambda one, p=propose: p(one, LIMIT), each) for each in asked)
        print(
            f"| {name} | {sizes[name]:.1f} | {sent:.2f} | {known:.2f} | {sent:.1f}, {known:.1f} |",
            flush=True,
        )
        rows.append(
            {"family": name, "items": n_items, "mb": sizes[name], "ms": sent, "known_ms": known}
        )
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    slowest = max(rows, key=lambda row: float(row["ms"]))
    table.add(
        f"the slowest family on {n_items:,} items, ms of a user who was never asked for",
        f"{slowest['ms']:.2f}: {slowest['family']}",
        float(slowest["ms"]),
    )
    return rows


def _requests(histories: Histories) -> tuple[list[SourceRequest], list[SourceRequest]]:
    """Requests of the same users, with the history sent, and with it known."""
    longest = np.argsort(-np.diff(histories.starts), kind="stable")[:USERS]
    sent, known = [], []
    for user in longest.tolist():
        places, weights = (array[-HISTORY:] for array in histories.row(user))
        context = {"device": DEVICES[user % 3]}
        items = tuple(histories.items[place] for place in places.tolist())
        sent.append(SourceRequest(history=items, context=context))
        known.append(
            SourceRequest(profile=Profile(f"{user:032x}", places, weights), context=context)
        )
    return sent, known


def _scoring(
    source: ContextScorer,
    items: Catalogue,
    ids: tuple[str, ...],
    requests: list[SourceRequest],
) -> Callable[[SourceRequest], Any]:
    rng = np.random.default_rng(1)
    pools = {
        id(request): tuple(ids[at] for at in rng.choice(len(ids), ACTIONS, replace=False).tolist())
        for request in requests
    }
    return lambda one: source.score_actions(items, one, pools[id(one)], None, {})


def _ms(ask: Callable[[SourceRequest], Any], requests: list[SourceRequest]) -> float:
    """The median milliseconds of a request, once all code is warm.

    Those with a profile have been asked before; those that send a history never have.
    """
    warm, timed = requests, requests
    if requests[0].history:
        warm, timed = requests[:WARM], requests[WARM:]
    for one in warm:
        ask(one)
    spent = []
    for one in timed:
        began = time.process_time()
        ask(one)
        spent.append(1000 * (time.process_time() - began))
    return float(np.median(spent))


if __name__ == "__main__":
    raise SystemExit(main())
