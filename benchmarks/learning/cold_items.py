"""Are items that nobody has seen shown to the right users? Fine-tuned on what users took next, against not.

    python -m benchmarks.learning.cold_items                            5 seeds
    python -m benchmarks.learning.cold_items --seeds 2 --first-seed 31

The frozen shop, in which new items come every day. Training sees the shop's tables as exported; no event names the
items that come later, and what makes vectors of texts was fitted without theirs. At 1,000 visits after the export, the
source alone chooses one of the new items that are on offer, by the user's profile and the session: its expected reward
is exact, so no luck is in it but that of the shop. Beside it: a new item at random, the vectors of words alone, and the
best that is possible for one who knows everything.

benchmarks/learning/new_items.py plays the same with blends that choose among all items. Exits 0 when the goal is
reached.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np

from benchmarks.table import Table
from policies.artifacts.profiles import Profiles
from policies.artifacts.source_artifact import Artifact, TrainedSource
from policies.items.catalogue import Catalogue
from policies.items.offering import Offering
from policies.pseudonyms import pseudonym
from policies.sources import load_sources
from policies.sources.base import SourceRequest
from policies.sources.live.content import LiveContent
from policies.training.histories import histories_of
from policies.training.train import run_training
from simulator.imports import import_data
from simulator.worlds.frozen.make import frozen_world
from simulator.worlds.frozen.tables import write_tables

SOURCES = ("words", "content", "content_tuned")
IMPRESSIONS = 1_000
SALT = b"cold items"


def one_seed(seed: int) -> dict[str, float]:
    """The mean reward of a decision for a new item, by who chooses it."""
    world: Any = frozen_world("shop", seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tables = write_tables(world, folder / "tables")
        data = import_data(
            folder / "data",
            [str(folder / "tables" / "events.csv")],
            items=[str(folder / "tables" / "items.csv")],
        )
        events, items = data.coded(), data.items()

    ids, first = world.people.item_ids, tables.visits
    today = int(world.plan.days[first])
    new = np.flatnonzero(world.items.first_days > today)
    unborn = {ids[at] for at in new.tolist()}
    known = [item for item in items if item["id"] not in unborn]
    made = run_training(events, known, sources=["content", "content_tuned"], seed=0).artifact
    timeless = [{k: v for k, v in each.items() if not k.startswith("available_")} for each in items]
    offering = Offering(Catalogue.of(timeless))
    loaded = {
        name: source.over(offering)
        for name, source in load_sources(_with_words(made)).items()
        if isinstance(source, LiveContent)
    }

    profiles = Profiles.of(histories_of(events), SALT)
    visits = np.arange(first, world.visits, max(1, (world.visits - first) // IMPRESSIONS))
    earned: dict[str, list[float]] = {name: [] for name in (*SOURCES, "random", "best")}
    for number in visits.tolist():
        offered = new[np.isin(new, world.offered(number))]
        if not offered.size:
            continue
        means = world.means(np.full(offered.size, number), offered)
        earned["random"].append(float(means.mean()))
        earned["best"].append(float(means.max()))
        visit = world.visit(number)
        profile = profiles.find(pseudonym(SALT, visit.user_id))
        request = SourceRequest(history=tuple(visit.recent), profile=profile)
        asked = [ids[at] for at in offered.tolist()]
        for name in SOURCES:
            found = loaded[name].propose(request, 1).score_items
            scores = np.zeros(len(asked)) if found is None else found(asked)
            earned[name].append(float(means[int(np.nanargmax(scores))]))
    return {name: float(np.mean(values)) for name, values in earned.items()}


def _with_words(made: Artifact) -> Artifact:
    """The artifact with the source content as it is without any look at what users did."""
    content = made.sources["content"]
    arrays = {k: v for k, v in content.arrays.items() if k != "projection"}
    size = len(arrays["mean"])
    arrays["vectors"] = np.zeros((len(made.items), size), np.float32)  # the catalogue has all texts
    words = TrainedSource("content", arrays, content.config)
    return replace(made, sources={**made.sources, "words": words})


def report(results: Sequence[dict[str, float]], table: Table) -> None:
    """Print who earned what, and the row of the goal."""
    means: dict[str, Any] = {
        name: float(np.mean([each[name] for each in results])) for name in results[0]
    }
    for name, value in means.items():
        print(
            f"{name:14} {value:.4f} a visit, {value / means['random']:.2f} times a new item at random"
        )
    for other in ("content", "words"):
        ratios = [each["content_tuned"] / each[other] for each in results]
        said = f"{means['content_tuned']:.4f} against {means[other]:.4f}, by shop {min(ratios):.2f}"
        what = f"reward of {IMPRESSIONS:,} impressions of new items, fine-tuned against {other}"
        ratio = means["content_tuned"] / means[other]
        table.add(what, f"{said} to {max(ratios):.2f}", ratio, at_least=1.15)


def main() -> int:
    """Run, print, store; exit 1 when the goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()

    results = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        results.append(one_seed(seed))
        print(f"seed {seed}: {results[-1]}", file=sys.stderr, flush=True)
    table = Table()
    report(results, table)
    return table.finish(arguments.out, results=results)


if __name__ == "__main__":
    sys.exit(main())
