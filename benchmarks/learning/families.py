"""What all kinds of models together earn, against the sources that training makes by default: the frozen shop.

    python -m benchmarks.learning.families                         5 seeds of 20,000 visits, 2 processes
    python -m benchmarks.learning.families --seeds 1 --first-seed 7 --rounds 5000 --set events=60000
    python -m benchmarks.learning.families --chosen als,ease,popular,sasrec
    python -m benchmarks.learning.families --strength 0.1 --crossed             as training wrote specs before
    python -m benchmarks.learning.families --sources als,item_knn,popular,trending,content --components 4
    python -m benchmarks.learning.families --limit 17           so many candidates of each of all sources

The shop (``banditloop worlds tables shop``) exports its tables; sources are trained on them, and blends of these
sources meet the visits that come after the export, in one process (simulator/worlds/loop.py), the same users with the
same luck:

- default: every source that training fits where nobody says which.
- all: every source that can be fitted. It has order effects that histories without an order hide.
- chosen: those of ``--chosen``, such as a table of ``banditloop evaluate --blend`` would leave.
- described: the default's, and items have the first ``--components`` principal components of their texts' vectors
  (those of the source content) as features.

Each has a prior of its own sources, as ``banditloop train`` makes it. Reward is the exact mean of what was chosen, so
that only the choice is luck; regret is what the best item on offer at each visit would have earned more. Processor time
is of ``rank`` alone, for users who come with the pages of their visit, each blend in turn. Exits 0 when the goals are
reached.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec
import numpy as np

from benchmarks.table import Table
from policies.artifacts.profiles import Profiles
from policies.artifacts.source_artifact import Artifact, TrainedSource
from policies.data.data_set import DataSet
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.requests import Item, RankRequest
from policies.sources import load_sources
from policies.sources.live.item_encoder import ItemEncoder
from policies.spec import PolicySpec, spec_of
from policies.training.content.components import principal_directions
from policies.training.fits import EVERY, FITS
from policies.training.prior import contexts_of, make_prior
from policies.training.train import Progress, SourceTask, run_training
from serve_app.cli.train.specs import LEARNER, USUAL
from simulator.imports import import_data
from simulator.worlds.frozen.committed import changes_from
from simulator.worlds.frozen.make import frozen_world
from simulator.worlds.frozen.play import FrozenVisitors
from simulator.worlds.frozen.tables import write_tables
from simulator.worlds.loop import Timing, run_loop

TIMED = 400
"""Requests by which processor time is measured."""
LIMIT = 30
"""Candidates of each source."""


class Fitted:
    """Sources that were fitted once, whichever blends they are in.

    ``seconds``: processor time that each took.
    """

    def __init__(self) -> None:
        self.sources: dict[str, TrainedSource] = {}
        self.seconds: dict[str, float] = {}

    def __call__(
        self, fit: SourceTask, names: Sequence[str], _say: Progress
    ) -> list[TrainedSource]:
        """As a ``map`` of ``run_training``."""
        for name in names:
            if name not in self.sources:
                began = time.process_time()
                self.sources[name] = fit(name)
                self.seconds[name] = time.process_time() - began
        return [self.sources[name] for name in names]


def one_seed(
    seed: int,
    *,
    rounds: int,
    changes: Sequence[str],
    every: Sequence[str],
    chosen: Sequence[str],
    fields: Mapping[str, Any],
    components: int = 0,
    limit: int = LIMIT,
) -> dict[str, Any]:
    """What each blend earned in one shop, and what its decisions took."""
    world = frozen_world("shop", seed=seed, **changes_from(changes))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tables = write_tables(world, folder / "tables")
        data = import_data(
            folder / "data",
            [str(folder / "tables" / "events.csv")],
            items=[str(folder / "tables" / "items.csv")],
            users=[str(folder / "tables" / "users.csv")],
        )
        return _play(
            world, data, tables.visits, seed, rounds, every, chosen, fields, components, limit
        )


def _play(
    world: Any,
    data: DataSet,
    first: int,
    seed: int,
    rounds: int,
    every: Sequence[str],
    chosen: Sequence[str],
    fields: Mapping[str, Any],
    components: int,
    limit: int,
) -> dict[str, Any]:
    rounds = min(rounds, world.visits - first)
    events, items, contexts = data.coded(), data.items(), contexts_of(data)
    whole, earlier = Fitted(), Fitted()
    asked: list[str] = list(every) or [EVERY]
    run = run_training(events, items, sources=asked, contexts=contexts, seed=seed, map_tasks=whole)
    names = list(run.artifact.sources)
    blends = {"default": [name for name in names if FITS[name].usual], "all": names}
    if blends["default"] == names:
        del blends["all"]
    if chosen:
        blends["chosen"] = [name for name in names if name in chosen]
    if components:
        blends["described"] = blends["default"]

    salt = f"seed {seed}".encode()
    profiles = Profiles.of(run.histories, salt)
    plain = Catalogue.of([_timeless(item) for item in items])
    described = Catalogue.of(
        _with_components([_timeless(item) for item in items], run.artifact, components)
        if components
        else []
    )
    best = [float(world.expected(first + at).max()) for at in range(rounds)]
    found: dict[str, Any] = {"seed": seed, "rounds": rounds, "best": float(np.mean(best))}
    found["fit_s"] = whole.seconds

    rankers: dict[str, Ranker] = {}
    for name, sources in blends.items():
        catalogue = described if name == "described" else plain
        candidates = limit if name == "all" else LIMIT
        prior = make_prior(
            events,
            items,
            sources=sources,
            limit=candidates,
            contexts=contexts,
            seed=seed,
            map_tasks=earlier,
        )
        spec, began = _spec(sources, candidates, fields), time.process_time()
        played = run_loop(
            FrozenVisitors(world, first),
            spec,
            rounds=rounds,
            seed=seed,
            sources=list(load_sources(run.artifact, spec.sources).values()),
            catalogue=catalogue,
            prior=prior.rows,
            profiles=profiles,
            timing=Timing(round_ms=1000),
            salt=salt,
        )
        expected = _expected(world, first, played)
        found[name] = {
            "sources": sources,
            "reward": float(expected.mean()),
            "second half": float(expected[rounds // 2 :].mean()),
            "earned": float(played.rewards.mean()),
            "round_ms": 1000 * (time.process_time() - began) / rounds,
            "mb": sum(_bytes(run.artifact, source) for source in sources) / 1e6,
        }
        rankers[name] = Ranker(
            spec,
            list(load_sources(run.artifact, spec.sources).values()),
            salt=salt,
            profiles=profiles,
        )
        rankers[name].serve("learned", played.fold.snapshot())
        rankers[name].offer(catalogue)
        print(f"seed {seed}, {name}: {found[name]}", file=sys.stderr, flush=True)

    for name, ms in _rank_ms(world, first, rankers).items():
        found[name]["rank_ms"] = ms
    return found


def _spec(sources: Sequence[str], limit: int, fields: Mapping[str, Any]) -> PolicySpec:
    return spec_of(
        {
            "name": "shop",
            "sources": [{"kind": "artifact", "name": source} for source in sources],
            "artifact": "measured",
            "limit": limit,
            "learner": LEARNER,
            **USUAL,
            **fields,
        }
    )


def _timeless(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item without its times: the world says what is on offer at each visit."""
    return {name: value for name, value in item.items() if not name.startswith("available_")}


def _with_components(
    items: Sequence[Mapping[str, Any]], artifact: Artifact, count: int
) -> list[dict[str, Any]]:
    """The items with the first principal components of what is said of them, of deviation 1."""
    encoder = ItemEncoder.load(artifact.sources["content"])
    made = [encoder.of(msgspec.convert(item, Item)) for item in items]
    vectors = np.stack(
        [np.zeros(encoder.size, np.float32) if each is None else each for each in made]
    )
    places = vectors @ principal_directions(vectors, count)
    places /= places.std(axis=0)
    return [
        {**item, "features": {**item["features"], **_named(row)}}
        for item, row in zip(items, places.tolist(), strict=True)
    ]


def _named(places: Sequence[float]) -> dict[str, float]:
    return {f"component_{number}": place for number, place in enumerate(places, 1)}


def _bytes(artifact: Artifact, source: str) -> int:
    return sum(array.nbytes for array in artifact.sources[source].arrays.values())


def _expected(world: Any, first: int, played: Any) -> Any:
    """What each choice of a run earns on average, float64[rounds]."""
    records = [getattr(entry.record, "whole", entry.record) for entry in played.log]
    shown = [each.action_ids[each.chosen[0]] for each in records if hasattr(each, "action_ids")]
    return np.array(
        [world.expected(first + at, world.indexes([item]))[0] for at, item in enumerate(shown)]
    )


def _rank_ms(world: Any, first: int, rankers: Mapping[str, Ranker]) -> dict[str, float]:
    """The median processor time of ``rank``, each blend in turn on the same requests."""
    spent: dict[str, list[float]] = {name: [] for name in rankers}
    with asyncio.Runner() as runner:
        ask = runner.get_loop().run_until_complete
        for number in range(first, min(first + TIMED, world.visits)):
            visit = world.visit(number)
            request = RankRequest(
                user_id=visit.user_id, context=visit.context, history=list(visit.recent)
            )
            for name, ranker in rankers.items():
                began = time.process_time()
                ask(ranker.rank(request))
                spent[name].append(1000 * (time.process_time() - began))
    return {name: float(np.median(each)) for name, each in spent.items()}


def report(results: Sequence[Mapping[str, Any]], table: Table) -> None:
    """Print a row for each goal, all seeds together, and what stands beside it."""
    known = ("default", "all", "chosen", "described")
    names = [name for name in known if name in results[0]]

    def mean(name: str, what: str) -> float:
        return float(np.mean([each[name][what] for each in results]))

    best = float(np.mean([each["best"] for each in results]))
    for name in names:
        print(
            f"{name:8} {len(results[0][name]['sources'])} sources: reward {mean(name, 'reward'):.4f}"
            f" (second half {mean(name, 'second half'):.4f}, earned {mean(name, 'earned'):.4f}),"
            f" regret {best - mean(name, 'reward'):.4f} of {best:.4f}, rank"
            f" {mean(name, 'rank_ms'):.2f} ms, arrays {mean(name, 'mb'):.1f} MB"
        )
    for source, seconds in results[0]["fit_s"].items():
        print(f"  fitting {source}: {seconds:.1f} s of processor")

    for name in names[1:]:
        ratios = [each[name]["reward"] / each["default"]["reward"] for each in results]
        said = f"{np.mean(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        goal = None if name == "described" else 1.08
        table.add(f"reward of {name}, of default's", said, float(np.mean(ratios)), at_least=goal)
        times = [each[name]["rank_ms"] / each["default"]["rank_ms"] for each in results]
        said = f"{np.mean(times):.2f}"
        table.add(f"rank's time of {name}, of default's", said, float(np.mean(times)), at_most=1.6)


def main() -> int:
    """Run, print, store; exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], help="a parameter, users=1000")
    parser.add_argument("--sources", default="", help="fitted at all [default: every source]")
    parser.add_argument("--chosen", default="", help="sources of a third blend")
    parser.add_argument("--components", type=int, default=0, help="of texts, in a further blend")
    parser.add_argument(
        "--limit", type=int, default=LIMIT, help="candidates of each of all sources [%(default)s]"
    )
    parser.add_argument("--strength", type=float, help="what a row of the prior is worth")
    parser.add_argument("--scale", type=float, help="of LinTS")
    parser.add_argument(
        "--crossed", action="store_true", help="scores and features are crossed with the context"
    )
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    fields: dict[str, Any] = {}
    if given.strength is not None:
        fields["prior"] = {"strength": given.strength}
    if given.scale is not None:
        fields["exploration"] = {**USUAL["exploration"], "scale": given.scale}
    if given.crossed:
        fields["learner"] = {
            **LEARNER,
            "interactions": [["context", "scores"], ["context", "features"]],
        }

    play = partial(
        one_seed,
        rounds=given.rounds,
        changes=given.set,
        every=[name for name in given.sources.split(",") if name],
        chosen=[name for name in given.chosen.split(",") if name],
        fields=fields,
        components=given.components,
        limit=given.limit,
    )
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(play, seeds))

    table = Table()
    report(results, table)
    return table.finish(given.out, results=results)


if __name__ == "__main__":
    sys.exit(main())
