"""Does blending earn its keep? The bandit against its own sources, and against itself with features removed.

    python -m benchmarks.learning.blend_quality                 5 seeds, 50,000 rounds each: the README's table
    python -m benchmarks.learning.blend_quality --variants      one seed per learner and exploration: what was tried

MovieLens-100K in one process (simulator/worlds/loop.py), the policy of examples/movielens.yaml, the same
pool of candidates for every row. A seed decides the users drawn, the delays, the exploration and
the training of the sources.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec
import numpy as np

from bandits.exploration import EpsilonGreedy, LinTs, LinUcb, SquareCB
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.spec import PolicySpec, load_spec
from simulator.worlds.demo import DemoBench, load_world, make_bench, train_movielens
from simulator.worlds.loop import run_loop

SPEC = Path(__file__).resolve().parents[2] / "examples" / "movielens.yaml"
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
ROWS = {
    "bandit": ("context", "item", "features", "scores"),
    "ids_only": ("context", "item", "features"),
    "scores_only": ("context", "scores"),
}
CS, CF = ("context", "scores"), ("context", "features")
VW = "--cb_explore_adf --cb_type mtr"
PLAIN: dict[str, Any] = {
    "learner": RidgeConfig(bias_l2=10.0),
    "exploration": LinTs(scale=0.3, draws=64),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "lints, scale 0.3": {},
    "lints, scale 0.1": {"exploration": LinTs(scale=0.1, draws=64)},
    "lints, bias_l2 2": {"learner": RidgeConfig(bias_l2=2.0)},
    "lints, bias_l2 30": {"learner": RidgeConfig(bias_l2=30.0)},
    "lints, context x scores": {"learner": RidgeConfig(interactions=[CS])},
    "lints, context x scores, context x features": {
        "learner": RidgeConfig(interactions=[CS, CF], max_features=512)
    },
    "linucb, alpha 0.3": {"exploration": LinUcb(alpha=0.3)},
    "ridge, squarecb": {"exploration": SquareCB()},
    "ridge, epsilon 0.05": {"exploration": EpsilonGreedy(0.05)},
    "vw, epsilon 0.05": {"learner": VwConfig(VW), "exploration": EpsilonGreedy(0.05)},
    "vw -q cs, epsilon 0.05": {
        "learner": VwConfig(f"{VW} -q cs"),
        "exploration": EpsilonGreedy(0.05),
    },
    "vw, squarecb": {"learner": VwConfig(VW), "exploration": SquareCB(gamma_scale=100)},
}


def last_quarter(rewards: np.ndarray[Any, Any]) -> float:
    """Mean reward of the last quarter of the rounds."""
    return float(rewards[-len(rewards) // 4 :].mean())


def prepared(seed: int, folder: Path) -> tuple[DemoBench, PolicySpec]:
    """The world with sources trained under ``seed``."""
    world = load_world()
    train_movielens(world, folder, seed=seed)
    spec = msgspec.structs.replace(load_spec(SPEC), artifact=str(folder))
    return make_bench(world, spec), spec


def one_seed(seed: int, rounds: int) -> dict[str, float]:
    """Last-quarter reward of every row under one seed."""
    with tempfile.TemporaryDirectory() as folder:
        bench, _ = prepared(seed, Path(folder))
    out = {
        name: last_quarter(bench.ablation(use, rounds=rounds, seed=seed))
        for name, use in ROWS.items()
    }
    rng = np.random.default_rng(seed)
    users = [str(bench.requests.request(rng).user_id) for _ in range(rounds)]
    return out | {
        name: last_quarter(rewards) for name, rewards in bench.baselines(users, seed).items()
    }


def one_variant(name: str, rounds: int) -> tuple[str, float, float, float]:
    """Overall and last-quarter reward of a variant under seed 0, and milliseconds per round."""
    with tempfile.TemporaryDirectory() as folder:
        bench, spec = prepared(0, Path(folder))
    changed = msgspec.structs.replace(spec, **(PLAIN | VARIANTS[name]))
    began = time.perf_counter()
    run = run_loop(
        bench.requests, changed, rounds=rounds, seed=0, pools=bench.pools, catalogue=bench.catalogue
    )
    spent = 1000 * (time.perf_counter() - began) / rounds
    return name, float(run.rewards.mean()), last_quarter(run.rewards), spent


def interval(values: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Mean and 95% t-interval over seeds."""
    half = T95[values.size] * values.std(ddof=1) / np.sqrt(values.size)
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def compare(results: list[Mapping[str, float]]) -> dict[str, Any]:
    """The two lifts, paired by seed."""
    bandit = np.array([r["bandit"] for r in results])
    sources = [name for name in results[0] if name not in ROWS and name != "random"]
    best = np.array([max(r[name] for name in sources) for r in results])
    ids = np.array([r["ids_only"] for r in results])
    lifts = {
        "lift_over_best_source": interval(bandit / best),
        "lift_over_ids_only": interval(bandit / ids),
    }
    rows = {name: interval(np.array([r[name] for r in results])) for name in results[0]}
    return {"last_quarter": rows, **lifts}


def main() -> int:
    """Run, print, store; exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, default=5, choices=range(2, 11))
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy"
        f" {np.__version__}"
    )
    load_world()  # fetch once, before the processes need it
    with ProcessPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        if arguments.variants:
            print(f"{'variant, seed 0':44} overall  last quarter  ms/round")
            for name, overall, last, spent in pool.map(
                one_variant, VARIANTS, [arguments.rounds] * len(VARIANTS)
            ):
                print(f"{name:44} {overall:.4f}   {last:.4f}        {spent:.2f}", flush=True)
            return 0
        results = list(
            pool.map(one_seed, range(arguments.seeds), [arguments.rounds] * arguments.seeds)
        )
    table = compare(results)
    print(f"{'last-quarter reward':24} mean    95% interval over {arguments.seeds} seeds")
    for name, (mean, low, high) in sorted(
        table["last_quarter"].items(), key=lambda row: -row[1][0]
    ):
        print(f"{name:24} {mean:.4f}  [{low:.4f}, {high:.4f}]")
    reached = True
    for name, goal, bound in (
        ("lift_over_best_source", 1.10, 1.05),
        ("lift_over_ids_only", 1.05, 1.0),
    ):
        mean, low, high = table[name]
        passed = mean >= goal and low > bound
        reached &= passed
        print(
            f"{name:24} {mean:.3f}   [{low:.3f}, {high:.3f}]  goal {goal}, above {bound}:"
            f" {'yes' if passed else 'NO'}"
        )
    if arguments.out:
        arguments.out.write_text(json.dumps({"results": results, **table}, indent=2))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
