"""Are new items shown, and to whom? The frozen shop, in which new items come every day.

    python -m benchmarks.learning.new_items                 3 seeds of 30,000 visits, 2 processes
    python -m benchmarks.learning.new_items --seeds 1 --rounds 10000
    python -m benchmarks.learning.new_items --content content_tuned

In one process a run (simulator/worlds/loop.py). Training sees the shop's tables as exported; the visits after them are
the run, and the items that come meanwhile are new: no event names them, and what makes vectors of texts was fitted
without theirs. Four policies meet the same users with the same luck:

- content: als, popular, the newest items, and content (or what --content names).
- alone: the same without the newest items: content proposes the new ones.
- newest: content's without content. The newest items are how a shop shows new ones to everybody.
- without: als and popular alone, which is what a policy has that lacks content. They never propose a new item.

A good item is one of the quarter that earns most, shown to everybody. Its share of impressions is that of the requests
while it is on offer; all good new items together. Exits 0 when the goals are reached.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec
import numpy as np

from bandits.types import Float32, frozen
from benchmarks.table import Table
from policies.artifacts.profiles import Profiles
from policies.data.data_set import DataSet
from policies.items.catalogue import Catalogue
from policies.sources import load_sources
from policies.sources.base import Candidates, SourceRequest
from policies.spec import ArtifactSource, PolicySpec, load_spec
from policies.training.histories import histories_of
from policies.training.prior import contexts_of, make_prior
from policies.training.train import run_training
from simulator.imports import import_data
from simulator.worlds.frozen.make import frozen_world
from simulator.worlds.frozen.oracle import appeal_to_all
from simulator.worlds.frozen.play import FrozenVisitors
from simulator.worlds.frozen.tables import write_tables
from simulator.worlds.loop import run_loop

SPEC = Path(__file__).resolve().parents[2] / "examples" / "movielens.yaml"
KNOWN = ["als", "popular"]
EARLY = 1_000
"""Requests since an item came after which its share is looked at, and for how many."""
IMPRESSIONS = 1_000
"""Impressions of new items, all together, of which the rewards are added up."""
GOOD = 0.25
POLICIES = "content", "alone", "newest", "without"
WITH_NEWEST = {"content", "newest"}


class Newest:
    """Proposes what has come last, of what is not excluded; all score alike."""

    name = "newest"

    def __init__(self, ids: Sequence[str], first_days: np.ndarray[Any, Any]) -> None:
        order = np.argsort(-first_days, kind="stable")
        self._ids = [ids[at] for at in order.tolist()]

    async def candidates(self, request: SourceRequest, limit: int) -> Candidates:
        """The newest first."""
        open_ids = (each for each in self._ids if each not in request.exclude)
        ids = tuple(each for each, _ in zip(open_ids, range(limit), strict=False))
        return Candidates(ids, frozen(np.zeros(len(ids), np.float32)), self._score)

    def _score(self, ids: Sequence[str]) -> Float32:
        return np.zeros(len(ids), np.float32)


def one_seed(seed: int, *, rounds: int, content: Sequence[str]) -> dict[str, Any]:
    """What each policy made of the new items of one shop."""
    world = frozen_world("shop", seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tables = write_tables(world, folder / "tables")
        data = import_data(
            folder / "data",
            [str(folder / "tables" / "events.csv")],
            items=[str(folder / "tables" / "items.csv")],
            users=[str(folder / "tables" / "users.csv")],
        )
        return _play(world, data, tables.visits, seed, rounds, content)


def _play(
    world: Any, data: DataSet, first: int, seed: int, rounds: int, content: Sequence[str]
) -> dict[str, Any]:
    rounds = min(rounds, world.visits - first)
    ids, first_days = world.people.item_ids, world.items.first_days
    today = int(world.plan.days[first])
    came = np.searchsorted(world.plan.days, first_days) - first
    new = np.flatnonzero((first_days > today) & (came < rounds))

    # What the shop knows of items on the day of the training.
    events, items = data.coded(), data.items()
    unborn = {ids[at] for at in np.flatnonzero(first_days > today).tolist()}
    known = [item for item in items if item["id"] not in unborn]
    with_content = [*KNOWN, *content]
    policies = {"content": with_content, "alone": with_content, "newest": KNOWN, "without": KNOWN}
    run = run_training(events, known, sources=policies["content"], seed=0)
    salt = f"seed {seed}".encode()
    profiles = Profiles.of(histories_of(events), salt)
    catalogue = Catalogue.of([_timeless(item) for item in items])

    appeal = appeal_to_all(world, np.arange(first, first + rounds, 50))
    good = new[appeal[new] >= np.quantile(appeal[appeal > 0], 1 - GOOD)]
    found: dict[str, Any] = {"new": len(new), "good": len(good), "rounds": rounds}
    for name, sources in policies.items():
        prior = make_prior(events, known, sources=sources, contexts=contexts_of(data), seed=0)
        artifact = replace(run.artifact, prior=None if prior.rows is None else prior.rows.encoded)
        spec = _spec(sources)
        loaded = list(load_sources(artifact, spec.sources).values())
        if name in WITH_NEWEST:
            loaded.append(Newest(ids, first_days))
        played = run_loop(
            FrozenVisitors(world, first),
            spec,
            rounds=rounds,
            seed=seed,
            sources=loaded,
            catalogue=catalogue,
            prior=prior.rows,
            profiles=profiles,
            salt=salt,
        )
        numbers = {item_id: at for at, item_id in enumerate(ids)}
        shown = np.array([numbers[each] for each in _shown(played)])
        found[name] = {
            **_rewards(shown, played.rewards, new),
            **_shares(shown, came, good, world.items.last_days, world.plan.days[first:], rounds),
            "reward": float(played.rewards.mean()),
        }
    return found


def _spec(sources: Sequence[str]) -> PolicySpec:
    return msgspec.structs.replace(
        load_spec(SPEC), sources=[ArtifactSource(name) for name in sources], profiles=None
    )


def _timeless(item: dict[str, Any]) -> dict[str, Any]:
    """The item without its times: the world says what is on offer at each visit."""
    return {name: value for name, value in item.items() if not name.startswith("available_")}


def _shown(played: Any) -> list[str]:
    records = [getattr(entry.record, "whole", entry.record) for entry in played.log]
    return [each.action_ids[each.chosen[0]] for each in records if hasattr(each, "action_ids")]


def _rewards(shown: Any, rewards: Any, new: Any) -> dict[str, float]:
    """Rewards of the first impressions of new items."""
    places = np.flatnonzero(np.isin(shown, new))
    first = places[:IMPRESSIONS]
    return {
        "impressions of new items": len(places),
        "first rewards": float(rewards[first].sum()),
        "first impressions": len(first),
    }


def _shares(
    shown: Any, came: Any, good: Any, last_days: Any, days: Any, rounds: int
) -> dict[str, float]:
    """The share of good new items early, and at the end."""
    early = late = early_requests = late_requests = 0
    for item in good.tolist():
        begin = int(came[item])
        end = min(rounds, int(np.searchsorted(days, last_days[item])))
        # The end is as long a part again, and does not overlap.
        if end - begin < 4 * EARLY:
            continue
        at = shown == item
        early += int(at[begin + EARLY : begin + 2 * EARLY].sum())
        early_requests += EARLY
        late += int(at[end - 2 * EARLY : end].sum())
        late_requests += 2 * EARLY
    return {
        "early share": early / max(1, early_requests),
        "final share": late / max(1, late_requests),
        "early impressions": early,
        "final impressions": late,
    }


def report(results: Sequence[dict[str, Any]], table: Table) -> None:
    """Print the rows of the goals: all seeds together."""

    def total(policy: str, what: str) -> float:
        return float(sum(each[policy][what] for each in results))

    new, good = (sum(each[what] for each in results) for what in ("new", "good"))
    print(f"{new} new items, {good} of them good, in {len(results)} shops")
    for name in POLICIES:
        earned = total(name, "first rewards") / max(1.0, total(name, "first impressions"))
        print(
            f"{name:8} reward {np.mean([each[name]['reward'] for each in results]):.4f};"
            f" new items: {total(name, 'impressions of new items'):,.0f} impressions,"
            f" {earned:.4f} for each of the first {IMPRESSIONS:,};"
            f" good ones: {total(name, 'early impressions'):.0f} early,"
            f" {total(name, 'final impressions'):.0f} at the end"
        )

    early, final = (total("content", f"{when} share") for when in ("early", "final"))
    said = f"{early / len(results):.2%} of {final / len(results):.2%}"
    what = f"a good new item's share after {EARLY:,} requests, of its final one"
    table.add(what, said, early / max(final, 1e-9), at_least=0.5)

    rewards = {name: total(name, "first rewards") for name in POLICIES}
    said = f"{rewards['content']:.1f} against {rewards['without']:.1f}"
    what = f"reward of the first {IMPRESSIONS:,} impressions of new items, of that without content"
    table.add(what, said, rewards["content"] / max(rewards["without"], 1e-9), at_least=2.0)

    each = {name: rewards[name] / max(1.0, total(name, "first impressions")) for name in POLICIES}
    for name, beside in (("content", "beside them"), ("alone", "alone")):
        said = f"{each[name]:.4f} against {each['newest']:.4f} an impression"
        what = f"the same, content {beside}, of that with the newest items"
        table.add(what, said, each[name] / max(each["newest"], 1e-9))


def main() -> int:
    """Run, print, store; exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--content", nargs="+", default=["content"], metavar="SOURCE")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()

    results: list[dict[str, Any]] = []
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        play = partial(one_seed, rounds=arguments.rounds, content=arguments.content)
        for seed, result in zip(seeds, pool.map(play, seeds), strict=True):
            results.append(result)
            print(f"seed {seed}: {result}", file=sys.stderr, flush=True)

    table = Table()
    report(results, table)
    return table.finish(arguments.out, results=results)


if __name__ == "__main__":
    sys.exit(main())
