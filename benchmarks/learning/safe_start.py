"""Is the start safe? A fresh model with the artifact's prior, against none, and against the best source.

    python -m benchmarks.learning.safe_start                    MovieLens, 20 seeds of 50,000 rounds, 2 processes
    python -m benchmarks.learning.safe_start --world shop       the frozen shop: its tables as the data set, the visits
                                                                after them as the world
    python -m benchmarks.learning.safe_start --specs            other policies with the prior: VW, a mixture, LinUCB
    python -m benchmarks.learning.safe_start --sweep            strengths of the prior and scales of LinTS, on other seeds

In one process a run (simulator/worlds/loop.py). Both builds of a seed meet the same users in the same order; the one
before the prior is examples/movielens.yaml as it was then, LinTS at scale 0.3. The best source is the one whose best
candidates earn most over all rounds. Intervals are 95% t-intervals over seeds, paired. Exits 0 when the goals are
reached.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec
import numpy as np
from scipy import stats

from bandits.exploration import LinTs, LinUcb, SquareCB
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from benchmarks.table import Table
from policies.artifacts import source_artifact
from policies.artifacts.prior import PriorRows, decode_prior
from policies.artifacts.profiles import Profiles
from policies.data.data_set import DataSet
from policies.items.catalogue import Catalogue
from policies.requests import RankRequest
from policies.sources import load_sources
from policies.spec import PolicySpec, Prior, load_spec
from policies.training.histories import histories_of
from policies.training.prior import contexts_of, make_prior
from policies.training.train import progress_bars, run_training
from simulator.imports import import_data
from simulator.worlds.demo import CONTEXT_FIELDS, load_world, make_bench, train_movielens
from simulator.worlds.frozen.make import frozen_world
from simulator.worlds.frozen.play import FrozenVisitors
from simulator.worlds.frozen.tables import write_tables
from simulator.worlds.loop import Run, run_loop
from simulator.worlds.movielens import MovieLensWorld

SPEC = Path(__file__).resolve().parents[2] / "examples" / "movielens.yaml"
BEFORE: dict[str, Any] = {
    "learner": RidgeConfig(
        bias_l2=10.0,
        interactions=[("context", "scores"), ("context", "features")],
        max_features=512,
    ),
    "exploration": LinTs(scale=0.3, draws=64),
    "floor": 0.02,
}
"""The example as it was before there was a prior."""
STARTS = (2_000, 10_000)
SWEEP = [(s, scale) for s in (0.03, 0.1, 0.3, 1.0) for scale in (0.03, 0.1, 0.15, 0.3)]
SWEEP_SEEDS = 100
"""The first seed of a sweep: none of those that are reported."""
INSTEAD = "popular"
"""The source whose best candidate counts where another knows nothing of a visitor."""
Rewards = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Build:
    """A policy, and whether it begins with the prior."""

    spec: PolicySpec
    prior: bool


class SameUsers:
    """MovieLens users in an order that is the seed's alone, whatever their choices earn."""

    def __init__(self, world: MovieLensWorld, seed: int, rounds: int) -> None:
        rng = np.random.default_rng([seed, 2])
        self.world = world
        self.users = [world.users[at] for at in rng.integers(len(world.users), size=rounds)]
        self._next = iter(self.users)

    def request(self, rng: np.random.Generator) -> RankRequest:  # noqa: ARG002 - see the class
        """The next user's."""
        user = next(self._next)
        known = self.world.context(user)
        return RankRequest(user_id=user, context={name: known[name] for name in CONTEXT_FIELDS})

    def reward(self, request: RankRequest, action_id: str, rng: np.random.Generator) -> float:  # noqa: ARG002
        """1 if the user turns out to like the item."""
        return self.world.reward(str(request.user_id), action_id)


def example(folder: Path, **changes: Any) -> PolicySpec:
    """The example policy over the artifact in ``folder``."""
    spec = msgspec.structs.replace(load_spec(SPEC), artifact=str(folder), profiles=None)
    return msgspec.structs.replace(spec, **changes)


def prior_of(folder: Path) -> PriorRows:
    """The prior of the artifact in ``folder``."""
    blob = source_artifact.load(folder).prior
    if blob is None:
        raise SystemExit(f"{folder} has no prior")
    return decode_prior(blob)


def movielens(
    seed: int, folder: Path, rounds: int, builds: Mapping[str, Build]
) -> dict[str, Rewards]:
    """The rewards of each build and of each source, round by round."""
    world = load_world()
    limits = {build.spec.limit for build in builds.values()}
    benches = {limit: make_bench(world, example(folder, limit=limit)) for limit in limits}
    prior = prior_of(folder)
    out: dict[str, Rewards] = {}
    for name, build in builds.items():
        bench = benches[build.spec.limit]
        requests = SameUsers(bench.requests.world, seed, rounds)
        run = run_loop(
            requests,
            build.spec,
            rounds=rounds,
            seed=seed,
            pools=bench.pools,
            catalogue=bench.catalogue,
            prior=prior if build.prior else None,
            salt=f"seed {seed}".encode(),
        )
        out[name] = run.rewards
        out |= {
            source: np.array([best[user] for user in requests.users])
            for source, best in bench.best.items()
        }
    return out


def shop(seed: int, folder: Path, rounds: int, builds: Mapping[str, Build]) -> dict[str, Rewards]:
    """The same in the shop; a seed begins some visits later, and has other exploration."""
    world = frozen_world("shop", seed=0)
    first = int((folder / "visits").read_text())
    first += (seed * 1009) % max(1, world.visits - first - rounds)
    trained = source_artifact.load(folder)
    prior = prior_of(folder)
    salt = f"seed {seed}".encode()
    profiles = Profiles.of(_histories(DataSet.open(folder / "data")), salt)

    out: dict[str, Rewards] = {}
    for name, build in builds.items():
        run = run_loop(
            FrozenVisitors(world, first),
            build.spec,
            rounds=rounds,
            seed=seed,
            sources=list(load_sources(trained, build.spec.sources).values()),
            catalogue=Catalogue.of(trained.catalogue),
            prior=prior if build.prior else None,
            profiles=profiles,
            salt=salt,
        )
        out[name] = run.rewards
        if name == next(iter(builds)):
            out |= _sources_in_shop(FrozenVisitors(world, first), run)
    return out


def _histories(data: DataSet) -> Any:
    return histories_of(data.coded())


def _sources_in_shop(requests: FrozenVisitors, run: Run) -> dict[str, Rewards]:
    """Return what each source's best candidate would have earned at the visits of a run.

    Where a source knows nothing to propose, a shop that has it alone shows what is popular.
    """
    earned: dict[str, list[float]] = {}
    for entry in run.log:
        record = getattr(entry.record, "whole", entry.record)
        if not hasattr(record, "action_ids"):
            continue
        requests.request(np.random.default_rng())
        sources = record.source_scores()
        for name, known in sources.items():
            scores = sources[INSTEAD] if np.isnan(known).all() else known
            best = record.action_ids[int(np.nanargmax(scores))]
            got = requests.reward(RankRequest(), best, np.random.default_rng())
            earned.setdefault(name, []).append(got)
    return {name: np.array(rewards) for name, rewards in earned.items()}


def prepare_movielens(folder: Path) -> None:
    """Train the sources and make the prior."""
    train_movielens(load_world(), folder, seed=0)


def prepare_shop(folder: Path) -> None:
    """Write the shop's tables, import them, train the sources and make the prior, as a user would."""
    tables = write_tables(frozen_world("shop", seed=0), folder / "tables")
    (folder / "visits").write_text(str(tables.visits))
    data = import_data(
        folder / "data",
        [str(folder / "tables" / "events.csv")],
        items=[str(folder / "tables" / "items.csv")],
        users=[str(folder / "tables" / "users.csv")],
    )
    events, items = data.coded(), data.items()
    names = [source.name for source in load_spec(SPEC).sources]
    with progress_bars() as progress:
        run = run_training(events, items, sources=names, seed=0, progress=progress)
        made = make_prior(
            events,
            items,
            sources=names,
            contexts=contexts_of(data),
            seed=0,
            progress=progress,
        )
    if made.rows is None:
        raise SystemExit(made.reason)
    print(f"prior: {len(made.rows):,} rows, {made.rewarded:.3f} rewarded, parted by {made.split}")
    source_artifact.write(replace(run.artifact, prior=made.rows.encoded), folder)


WORLDS = {"movielens": (prepare_movielens, movielens), "shop": (prepare_shop, shop)}


def windows(rewards: Rewards) -> dict[str, float]:
    """The mean reward of each stretch of a run."""
    found = {f"first {rounds:,}": float(rewards[:rounds].mean()) for rounds in STARTS}
    return {**found, "last quarter": float(rewards[-(len(rewards) // 4) :].mean())}


def one_seed(
    seed: int, *, world: str, folder: Path, rounds: int, builds: Mapping[str, Build]
) -> dict[str, dict[str, float]]:
    """The means of every row under one seed."""
    rewards = WORLDS[world][1](seed, folder, rounds, builds)
    return {
        name: {**windows(values), "all": float(values.mean())} for name, values in rewards.items()
    }


def interval(values: Rewards) -> tuple[float, float, float]:
    """Mean and 95% t-interval over seeds."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def best_source(results: Sequence[Mapping[str, Mapping[str, float]]], builds: Sequence[str]) -> str:
    """The source that earns most over all rounds and seeds."""
    sources = [name for name in results[0] if name not in builds]
    return max(sources, key=lambda name: float(np.mean([each[name]["all"] for each in results])))


def report(world: str, results: list[dict[str, dict[str, float]]], table: Table) -> None:
    """Print the rows of the goals."""
    best = best_source(results, ("prior", "before"))

    def ratio(window: str, to: str) -> Rewards:
        return np.array([each["prior"][window] / each[to][window] for each in results])

    for window in (*(f"first {rounds:,}" for rounds in STARTS), "last quarter"):
        means = {
            name: float(np.mean([each[name][window] for each in results])) for name in results[0]
        }
        print(f"{window}: " + ", ".join(f"{name} {mean:.4f}" for name, mean in means.items()))
        mean, low, high = interval(ratio(window, best))
        said = f"{mean:.3f} x {best} [{low:.3f}, {high:.3f}]"
        what = f"{world}, {window} rounds, against the best source"
        if world == "shop":
            goals = {"first 2,000": 0.95, "last quarter": 1.10}
            table.add(what, said, mean, at_least=goals.get(window))
        elif window == "first 2,000":
            table.add(f"{what}: mean", said, mean, at_least=1.0)
            table.add(f"{what}: lower bound", said, low, at_least=0.97)
        elif window == "first 10,000":
            table.add(f"{what}: lower bound", said, low, at_least=1.10)
        else:
            table.add(what, said, mean)

    change = ratio("last quarter", "before") - 1.0
    mean, low, high = interval(change)
    said = f"{100 * mean:+.2f}% [{100 * low:+.2f}%, {100 * high:+.2f}%]"
    what = f"{world}, last quarter, against the build before: lower bound"
    table.add(what, said, low, at_least=-0.01 if world == "movielens" else None)


def other_specs(folder: Path) -> dict[str, Build]:
    """Other policies, with and without the prior."""
    vw = VwConfig("--cb_explore_adf --cb_type mtr -q cs")
    specs: dict[str, dict[str, Any]] = {
        "VW": {"learner": vw, "exploration": SquareCB(gamma_scale=100)},
        "mixture": {
            "kind": "mixture",
            "learner": msgspec.structs.replace(example(folder).learner, interactions=[]),
        },
        "LinUCB, alpha 0.1": {"exploration": LinUcb(alpha=0.1)},
    }
    return {
        f"{name}, {'prior' if prior else 'none'}": Build(example(folder, **changes), prior)
        for name, changes in specs.items()
        for prior in (True, False)
    }


def main() -> int:
    """Run, print, store; exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", choices=WORLDS, default="movielens")
    parser.add_argument("--rounds", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--specs", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--strength", type=float, default=None)
    parser.add_argument("--scale", type=float, default=None)
    parser.add_argument("--limit", type=int, default=None, help="candidates of each source")
    parser.add_argument("--keep", type=Path, help="folder of the artifact, made if it is not there")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        folder = (arguments.keep or Path(scratch)).absolute()
        if not (folder / "current").exists():
            WORLDS[arguments.world][0](folder)
        changes: dict[str, Any] = {}
        if arguments.strength is not None:
            changes["prior"] = Prior(arguments.strength)
        if arguments.scale is not None:
            changes["exploration"] = LinTs(scale=arguments.scale, draws=64)
        if arguments.limit is not None:
            changes["limit"] = arguments.limit
        builds = {
            "prior": Build(example(folder, **changes), True),
            "before": Build(example(folder, **BEFORE), False),
        }
        first = arguments.first_seed
        if arguments.specs:
            builds = other_specs(folder)
        if arguments.sweep:
            first = first or SWEEP_SEEDS
            builds = {
                f"strength {strength:g}, scale {scale:g}": Build(
                    example(
                        folder, prior=Prior(strength), exploration=LinTs(scale=scale, draws=64)
                    ),
                    True,
                )
                for strength, scale in SWEEP
            }

        task = partial(
            one_seed, world=arguments.world, folder=folder, rounds=arguments.rounds, builds=builds
        )
        results = []
        with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
            for seed, result in enumerate(
                pool.map(task, range(first, first + arguments.seeds)), first
            ):
                results.append(result)
                found = {name: result[name] for name in builds}
                print(f"seed {seed}: {_line(found)}", file=sys.stderr, flush=True)

    table = Table()
    if arguments.specs or arguments.sweep:
        for name in results[0]:
            means = {w: np.mean([each[name][w] for each in results]) for w in results[0][name]}
            print(f"{name:36} " + "  ".join(f"{w} {mean:.4f}" for w, mean in means.items()))
        return 0
    report(arguments.world, results, table)
    return table.finish(arguments.out, results=results)


def _line(found: Mapping[str, Mapping[str, float]]) -> str:
    return "; ".join(
        f"{name} " + " ".join(f"{mean:.4f}" for mean in means.values())
        for name, means in found.items()
    )


if __name__ == "__main__":
    sys.exit(main())
