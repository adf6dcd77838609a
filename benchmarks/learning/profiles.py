"""Is it worth it to know what users did a moment ago? The frozen shop, five days after an import.

    python -m benchmarks.learning.profiles                5 seeds of 5 days, 2,000 users, 2 processes
    python -m benchmarks.learning.profiles --seeds 1 --days 1
    python -m benchmarks.learning.profiles --users 5000   all users of the shop

In one process a run (simulator/worlds/loop.py). Sources are trained on the shop's tables as they
are exported, and the visits after them are the run. No request says what its user did: that is
known by the user's id alone. Policies meet the same users with the same luck:

- frozen: what is known of users is what the tables said of them; it is not offered again.
- again: the same, but may be offered again, as in the policies below.
- live: beside that, each page that a user opens is activity before recommendations are asked for,
  and what comes of these is known once it has come.
- three, fifty: live without the tables, but every user's activity reaches back to before the
  import; the newest three of their items are used, or fifty. On the same users and visits (of the
  first days): who has done little is not another kind of user.

The reward is the expected one of what is shown, exactly. Exits 0 when the goals are reached.
"""

import argparse
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from heapq import heappop, heappush
from itertools import groupby
from multiprocessing import get_context
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec
import numpy as np

from benchmarks.table import Table
from policies.artifacts.profiles import Profiles
from policies.data.coded import CodedEvents
from policies.items.catalogue import Catalogue
from policies.profiles.known_user import KnownUser
from policies.profiles.options import ProfileOptions
from policies.profiles.part import EMPTY, CutRule, Part, ProfileEvent, encode_part, join_parts
from policies.profiles.user_profile import read_profile
from policies.requests import RankRequest
from policies.sources import load_sources
from policies.spec import ArtifactSource, PolicySpec, load_spec
from policies.training.histories import histories_of
from policies.training.prior import contexts_of, make_prior
from policies.training.train import run_training
from simulator.imports import import_data
from simulator.worlds.frozen.base import FrozenWorld
from simulator.worlds.frozen.make import frozen_world
from simulator.worlds.frozen.parts import DAY_MS
from simulator.worlds.frozen.play import FrozenVisitors
from simulator.worlds.frozen.tables import write_tables
from simulator.worlds.loop import run_loop

SPEC = Path(__file__).resolve().parents[2] / "examples" / "movielens.yaml"
SOURCES = ("als", "item_knn", "popular", "content")
LEAST_GAIN, LEAST_OF_FIFTY = 1.15, 0.8
PUBLISH_EVERY = 500
"""Visits from one snapshot to the next: a few hours; more often would cost more than all else."""
ACTIVITY, EVENTS = b"activity", b"shop.0"
"""The logs that speak of users: what they open, and what comes of recommendations."""


class Contender(NamedTuple):
    """What a policy knows of its users."""

    profile: ProfileOptions | None
    tables: bool
    """Whether it knows what the tables say, as a file beside the artifact does."""
    activity: bool = True
    """Whether what they do is known at once."""
    past: bool = False
    """Whether all activity of before the import is known, too."""
    days: float = np.inf
    """For how long it is played, at most."""


CONTENDERS = {
    "frozen": Contender(None, tables=True),
    "again": Contender(ProfileOptions(), tables=True, activity=False),
    "live": Contender(ProfileOptions(), tables=True),
    "three": Contender(ProfileOptions(items=3), tables=False, past=True, days=2),
    "fifty": Contender(ProfileOptions(items=50), tables=False, past=True, days=2),
}


class Users:
    """What is known of the users of one run, as a service keeps it: parts of two logs, joined."""

    def __init__(self, rule: CutRule) -> None:
        self._rule = rule
        self._parts: dict[str, dict[bytes, Part]] = defaultdict(dict)
        self._bytes: dict[str, dict[bytes, bytes]] = defaultdict(dict)
        self._due: list[tuple[int, int, str, str, str]] = []
        self._number = 0

    def did(self, log: bytes, user: str, *done: tuple[int, str, str]) -> None:
        """Take in what a user did: when, with which item, and what."""
        self._number += 1
        news = [Part((ProfileEvent(at, at, self._number, *what),)) for at, *what in done]
        before = self._parts[user].get(log, EMPTY)
        part = self._parts[user][log] = join_parts([before, *news], self._rule)
        self._bytes[user][log] = encode_part(part)

    def will_do(self, user: str, time_ms: int, item: str, kind: str) -> None:
        """Take in at a later time what a user does then."""
        self._number += 1
        heappush(self._due, (time_ms, self._number, user, item, kind))

    def known(self, user: str, now_ms: int) -> KnownUser:
        """What is known of a user now."""
        while self._due and self._due[0][0] <= now_ms:
            time_ms, _, who, item, kind = heappop(self._due)
            self.did(EVENTS, who, (time_ms, item, kind))
        return KnownUser(user, read_profile([self._bytes[user]], self._rule))


class Visitors(FrozenVisitors):
    """Visits of a shop, of which a policy is told nothing but who comes, where and when."""

    def __init__(self, world: FrozenWorld, visits: Sequence[int], users: Users | None) -> None:
        super().__init__(world)
        self._users = users
        self._visits = iter(visits)
        self.earned: list[float] = []

    def request(self, rng: np.random.Generator) -> RankRequest:
        """The next visit's request, without a history."""
        self._next = next(self._visits)
        return msgspec.structs.replace(super().request(rng), history=[])

    def known(self, request: RankRequest) -> KnownUser | None:
        """What is known of who comes, of whom the page that they have opened is known first."""
        if self._users is None or request.user_id is None:
            return KnownUser(request.user_id)
        visit = self.world.visit(self.number)
        self._users.did(ACTIVITY, request.user_id, (visit.time_ms, visit.recent[-1], "view"))
        return self._users.known(request.user_id, visit.time_ms)

    def reward(self, request: RankRequest, action_id: str, rng: np.random.Generator) -> float:  # noqa: ARG002 - see FrozenVisitors
        """What the item earns; what was done with it is known once it has been."""
        visit = self.world.visit(self.number)
        shown = self.world.indexes([action_id])
        self.earned.append(float(self.world.expected(self.number, shown)[0]))

        signals = self.world.outcome(self.number, [action_id])
        for each in signals if self._users is not None else ():
            self._users.will_do(
                visit.user_id, visit.time_ms + each.delay_ms, each.item_id, each.kind
            )
        return self.world.reward(signals)


def one_seed(seed: int, *, days: float, users: int, contenders: Sequence[str]) -> dict[str, Any]:
    """What each policy earned in one shop, a visit: all days together, and day by day."""
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
        events, items, contexts = data.coded(), data.items(), contexts_of(data)

    # What the shop knows of items on the day of the import.
    first = tables.visits
    today = int(world.plan.days[first])
    later = {
        item
        for item, day in zip(world.people.item_ids, world.items.first_days.tolist(), strict=True)
        if day > today
    }
    listed = [item for item in items if item["id"] not in later]
    run = run_training(events, listed, sources=SOURCES, seed=0)
    prior = make_prior(events, listed, sources=SOURCES, contexts=contexts, seed=0)
    artifact = replace(run.artifact, prior=None if prior.rows is None else prior.rows.encoded)
    catalogue = Catalogue.of([_timeless(item) for item in items])
    salt = f"seed {seed}".encode()
    profiles = Profiles.of(histories_of(events), salt)

    # Some of the users, with all of their visits.
    ages = (world.people.times - world.people.times[first]) / DAY_MS
    visits = np.flatnonzero((ages >= 0) & (ages < days) & (world.people.users < users))
    visits = visits[visits >= first]
    out: dict[str, Any] = {"visits": len(visits)}
    for name in contenders:
        contender = CONTENDERS[name]
        spec = _spec(contender.profile)
        told = Users(CutRule(50)) if contender.activity and contender.profile is not None else None
        if told is not None and contender.past:
            _tell_past(told, events)
        played = visits[ages[visits] < contender.days]
        visitors = Visitors(world, played.tolist(), told)
        run_loop(
            visitors,
            spec,
            rounds=len(played),
            seed=seed,
            sources=list(load_sources(artifact, spec.sources).values()),
            catalogue=catalogue,
            prior=prior.rows,
            profiles=profiles if contender.tables else None,
            known=visitors.known,
            publish_every=PUBLISH_EVERY,
            salt=salt,
        )
        earned, day = np.array(visitors.earned), ages[played].astype(int)
        by_day = np.bincount(day, earned) / np.bincount(day)
        out[name] = {"reward": float(earned.mean()), "by day": by_day.round(5).tolist()}
    return out


def _spec(profile: ProfileOptions | None) -> PolicySpec:
    sources: list[Any] = [ArtifactSource(name) for name in SOURCES]
    spec = msgspec.structs.replace(load_spec(SPEC), sources=sources, profiles=None)
    return spec if profile is None else msgspec.structs.replace(spec, profile=profile)


def _timeless(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item without its times: the world says what is on offer at each visit."""
    return {name: value for name, value in item.items() if not name.startswith("available_")}


def _tell_past(users: Users, events: CodedEvents) -> None:
    """Tell of all that the tables say."""
    columns = (events.user, events.item, events.type, events.time)
    rows = zip(*(each.tolist() for each in columns), strict=True)
    for user, own in groupby(rows, itemgetter(0)):
        done = [(at, events.item_ids[item], events.types[kind]) for _, item, kind, at in own]
        users.did(ACTIVITY, events.user_ids[user], *done)


def report(results: Sequence[dict[str, Any]], table: Table) -> None:
    """Print the rows of the goals: the mean over all seeds, and their spread."""

    def ratios(one: str, other: str) -> Any:
        return np.array([each[one]["reward"] / each[other]["reward"] for each in results])

    def mean(name: str) -> float:
        return float(np.mean([each[name]["reward"] for each in results]))

    for name in CONTENDERS:
        if name in results[0]:
            by_day = np.mean([each[name]["by day"] for each in results], axis=0)
            print(f"{name:8} {mean(name):.4f}  by day: {' '.join(f'{x:.4f}' for x in by_day)}")

    for one, other, goal, what in (
        ("live", "frozen", LEAST_GAIN, "reward with live profiles, of that with frozen ones"),
        ("live", "again", None, "the same, where those may be offered again, too"),
        ("three", "fifty", LEAST_OF_FIFTY, "reward by three items of each user, of that by fifty"),
    ):
        if one in results[0] and other in results[0]:
            found = ratios(one, other)
            said = f"x {found.mean():.3f} ({found.min():.3f} to {found.max():.3f})"
            table.add(what, said, float(found.mean()), at_least=goal)


def main() -> int:
    """Run, print, store; exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=float, default=5.0)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--contenders", nargs="*", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()

    results: list[dict[str, Any]] = []
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    task = partial(one_seed, days=given.days, users=given.users, contenders=given.contenders)
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        for seed, result in zip(seeds, pool.map(task, seeds), strict=True):
            results.append(result)
            print(f"seed {seed}: {result}", file=sys.stderr, flush=True)

    table = Table()
    report(results, table)
    return table.finish(given.out, results=results)


if __name__ == "__main__":
    sys.exit(main())
