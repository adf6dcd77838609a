"""What refreshes and forgetting are worth together in the frozen shop: a curve over how much moves.

    python -m benchmarks.learning.drifting_shop                       4 drifts, 5 seeds, 2 processes
    python -m benchmarks.learning.drifting_shop --seeds 1 --drifts 1 --visits 300        (a look)

Sources (als, popular, content) and a prior are trained on the shop's events of seven days. Two
policies then meet the same users with the same luck for three days, in which both learn, and both
train their sources anew at the end of them. The ten days after that are those that count. *adapts*
goes on learning, with a half-life, and trains its sources anew each night (simulator/refresh: the
new artifact is served unless it is measured to be worse), on its log and on the pages that users
open. *frozen* keeps what it has then: sources, weights and what it knows of users.

Drift goes from 0 to the most: how far seasons swing, how many items come and how many sell out. Both
policies choose among all that is on offer that day. What a policy earns is its expected reward,
exactly; regret is against the best item on offer. Intervals are 95% t-intervals over seeds. Exits 0
when the goals are reached.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from bisect import bisect_left
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec
import numpy as np

from bandits.exploration import LinTs
from bandits.log.codec import encode
from bandits.log.encoded_decisions import read_entries
from bandits.log.join_rule import JoinRule
from bandits.log.positions import position_ms
from bandits.log.records import (
    BuildRecord,
    DecisionRecord,
    LogEntry,
    LogRecord,
    PriorRecord,
    RewardRecord,
    SpecRecord,
    TickRecord,
)
from bandits.log.versions import FOLD
from bandits.ridge.config import RidgeConfig
from bandits.types import Snapshot
from benchmarks.learning.drift import TWO_THIRDS, interval
from benchmarks.table import Table
from policies.artifacts.prior import PriorRows
from policies.artifacts.source_artifact import Artifact
from policies.data.coded import CodedEvents
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.items.timeline import ItemTimeline
from policies.pseudonyms import pseudonym
from policies.ranker import Ranker
from policies.requests import RankRequest
from policies.sources import load_sources
from policies.spec import PRIOR_STRENGTH, ArtifactSource, PolicySpec
from policies.training.histories import histories_of
from policies.training.prior import contexts_of, make_prior
from policies.training.train import run_training
from simulator.imports import import_data
from simulator.refresh.course import PolicyState, RefreshOptions, refresh_sources
from simulator.refresh.rescoring import under_pseudonyms
from simulator.refresh.rewarded import coded_events, joined_decisions
from simulator.refresh.trainer import EVENTS_UNTIL, TrainingRequest
from simulator.refresh.training_data import before, catalogue_for, joined_events
from simulator.refresh.user_comparison import profiles_over
from simulator.worlds.frozen.make import frozen_world
from simulator.worlds.frozen.tables import write_tables

TRAINED, LEARNED, COUNTED = 7, 3, 10
"""Days of events, days in which both learn, and days that count."""
DAYS = TRAINED + LEARNED + COUNTED
DAY_MS = 86_400_000
DELAY_MS = 30_000
PUBLISH_EVERY = 50
HALF_LIFE = "3d"
SALT = b"a shop that moves"
SOURCES = ("als", "popular", "content")
SPEC = PolicySpec(
    "shop",
    sources=[ArtifactSource(name) for name in SOURCES],
    artifact="none",
    limit=30,
    learner=RidgeConfig(
        l2=30.0,
        bias_l2=10.0,
        interactions=[("context", "scores"), ("context", "features")],
        max_features=512,
    ),
    exploration=LinTs(scale=0.12, draws=32),
    floor=0.01,
    join=JoinRule(window_s=3600),
)


class DriftingShop:
    """A frozen shop, by day: its visits, its items, and the pages that users open."""

    def __init__(self, drift: float, seed: int, visits_a_day: int) -> None:
        self.world = frozen_world(
            "shop",
            seed,
            days=float(DAYS),
            visits=DAYS * visits_a_day,
            events=DAYS * visits_a_day,
            items=600,
            users=1_500,
            season=2.0 * drift,
            season_days=float(DAYS),
            new_share=0.6 * drift,
            sold_out_share=0.4 * drift,
            sold_out_days=float(DAYS) / 2,
        )
        self.people = self.world.people
        midnight = int(self.people.times[0]) // DAY_MS * DAY_MS
        self.nights = [midnight + day * DAY_MS for day in range(DAYS + 1)]
        self.places = {item: at for at, item in enumerate(self.people.item_ids)}

    def visits(self, day: int) -> range:
        """Numbers of the visits of a day."""
        times = self.people.times
        return range(bisect_left(times, self.nights[day]), bisect_left(times, self.nights[day + 1]))

    def stock(self, day: int) -> list[dict[str, Any]]:
        """What is on offer on a day."""
        visits, people = self.visits(day), self.people
        return [
            {
                "id": people.item_ids[at],
                "features": people.features[at],
                "metadata": {"text": people.items["text"][at]},
            }
            for at in self.world.offered(visits.start).tolist()
        ]

    def opened(self, first: int, last: int) -> CodedEvents:
        """The pages that users open from one day to before another."""
        visits = np.arange(self.visits(first).start, self.visits(last - 1).stop)
        count, views = len(visits), self.people.views
        if views is None:
            raise TypeError(f"nobody opens a page of {self.world.name}")
        return coded_events(
            list(self.people.user_ids),
            list(self.people.item_ids),
            ("view",),
            self.people.users[visits],
            views[visits],
            np.zeros(count, np.int64),
            self.people.times[visits],
            np.full(count, np.nan),
            np.ones(count),
        ).compact()

    def request(self, number: int) -> RankRequest:
        """A visit's request, for the policy's sources."""
        visit = self.world.visit(number)
        return RankRequest(
            event_id=f"{number}",
            user_id=visit.user_id,
            context=visit.context,
            history=list(visit.recent),
        )

    def value(self, number: int, record: DecisionRecord) -> float:
        """The expected reward of a decision."""
        items = np.array([self.places[item] for item in record.action_ids])
        return float(record.pmfs()[0] @ self.world.expected(number, items))


class ShopPolicy:
    """A policy with its log, its model and its artifact, all in memory."""

    def __init__(self, shop: DriftingShop, spec: PolicySpec, prior: PriorRows | None) -> None:
        self.shop, self.spec = shop, spec
        self.entries: list[LogEntry] = []
        self.snapshots: list[Snapshot] = []
        self.refused, self.accepted, self.learns = 0, 0, True
        self.blobs = {spec.digest: spec.encoded}
        self.fold = Fold(self.blobs.__getitem__, salt=SALT)
        records: list[LogRecord] = [
            BuildRecord({"fold": str(FOLD)}),
            SpecRecord(spec.digest, "salt"),
        ]
        if prior is not None:
            self.blobs[prior.digest] = prior.encoded
            records.append(PriorRecord(prior.digest, PRIOR_STRENGTH))
        self.log(shop.nights[TRAINED], *records)

    def equip(self, artifact: Artifact, known: CodedEvents, day: int) -> None:
        """Serve an artifact, with what is known of users, from a day on."""
        self.artifact = artifact
        histories = histories_of(known)
        names = {pseudonym(SALT, user): user for user in self.shop.people.user_ids}
        histories = replace(histories, users=tuple(names[user] for user in histories.users))
        self.ranker = Ranker(
            self.spec,
            list(load_sources(artifact, self.spec.sources).values()),
            salt=SALT,
            profiles=profiles_over(histories, artifact.items, SALT),
        )
        self.offer(day)
        self.publish()

    def offer(self, day: int) -> None:
        """Offer what is on offer on a day."""
        catalogue = Catalogue.of(self.shop.stock(day))
        self.blobs[catalogue.digest] = catalogue.encoded
        self.items = ItemTimeline(catalogue)
        self.ranker.offer(catalogue, self.items)

    def publish(self) -> None:
        """Serve what was learned."""
        if self.learns or not self.snapshots:
            self.snapshots.append(self.fold.snapshot())
        self.ranker.serve(f"s{len(self.snapshots)}", self.snapshots[-1])

    def log(self, at_ms: int, *records: LogRecord) -> None:
        """Append to the log, and learn."""
        if not self.learns:
            return
        last_ms, last = map(int, self.entries[-1].id.split("-")) if self.entries else (0, 0)
        at_ms, first = max(at_ms, last_ms), last + 1 if at_ms <= last_ms else 0
        fresh = [(f"{at_ms}-{first + n}", encode(record)) for n, record in enumerate(records)]
        read = list(read_entries(fresh, lambda *_: None))
        self.entries += read
        self.fold.apply(read)

    def refresh(self, day: int, data: CodedEvents) -> None:
        """Train anew at the beginning of a day, and serve it unless it is refused."""
        state = PolicyState(
            spec=self.spec,
            salt=SALT,
            snapshot=self.fold.snapshot(),
            snapshot_before=self._snapshot_before,
            serving=self.artifact,
            items=self.items,
            catalogue_of=lambda name: Catalogue.decode(self.blobs[name]),
            decisions=lambda: joined_decisions(self.entries, self.spec, lambda _: self.spec),
            data=data,
        )
        made = refresh_sources(state, RefreshOptions(most_lacking=1.0), train=_train)
        if made.report.outcome == "refused":
            self.refused += 1
            return
        self.accepted += 1
        if made.model is not None:
            self.fold.learner = self.spec.learner.make(
                self.spec.exploration, salt=SALT, checkpoint=made.model.checkpoint
            )
        self.equip(made.artifact, made.events, day)

    def _snapshot_before(self, cut_ms: int) -> Snapshot | None:
        earlier = [each for each in self.snapshots if position_ms(each.position) < cut_ms]
        return earlier[-1] if earlier else None


def _train(request: TrainingRequest, events: CodedEvents, items: Any, **_: Any) -> Artifact:
    made = run_training(events, items, sources=request.sources).artifact
    stamped = {**made.created_with, EVENTS_UNTIL: str(request.events_until_ms)}
    return replace(made, created_with=stamped, version=made.data[:16])


def one_shop(task: tuple[float, int], *, visits_a_day: int, half_life: str) -> dict[str, float]:
    """What each policy earns a visit in a shop of one drift and seed, over the days that count."""
    shop = DriftingShop(*task, visits_a_day)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tables(shop.world, folder)
        files = {each: [str(folder / f"{each}.csv")] for each in ("items", "users")}
        data = import_data(folder / "data", [str(folder / "events.csv")], **files)
        events, contexts = before(data.coded(), shop.nights[TRAINED]), contexts_of(data)
    stock = catalogue_for(shop.stock(TRAINED - 1), events)[0]
    artifact = run_training(events, stock, sources=SOURCES).artifact
    prior = make_prior(events, stock, sources=SOURCES, contexts=contexts).rows

    forgets = msgspec.structs.replace(SPEC.learner, half_life=half_life)
    policies = {
        "adapts": ShopPolicy(shop, msgspec.structs.replace(SPEC, learner=forgets), prior),
        "frozen": ShopPolicy(shop, SPEC, prior),
    }
    for each in policies.values():
        each.equip(artifact, under_pseudonyms(events, SALT), TRAINED)
    found = _play(shop, policies, events)
    found["refused"] = float(policies["adapts"].refused)
    return found


def _play(
    shop: DriftingShop, policies: dict[str, ShopPolicy], events: CodedEvents
) -> dict[str, float]:
    earned = dict.fromkeys([*policies, "oracle", "random"], 0.0)
    counted = 0
    with asyncio.Runner() as runner:
        rank = runner.get_loop().run_until_complete
        for day in range(TRAINED, DAYS):
            if day > TRAINED:
                _begin_day(shop, policies, events, day)
            for number in shop.visits(day):
                request = shop.request(number)
                records = {name: rank(each.ranker.rank(request)) for name, each in policies.items()}
                for name, record in records.items():
                    _let_learn(shop, policies[name], number, record)
                if day >= TRAINED + LEARNED:
                    counted += 1
                    expected = shop.world.expected(number)
                    earned["oracle"] += float(expected.max())
                    earned["random"] += float(expected.mean())
                    for name, record in records.items():
                        earned[name] += shop.value(number, record)
    return {name: value / counted for name, value in earned.items()}


def _begin_day(
    shop: DriftingShop, policies: dict[str, ShopPolicy], events: CodedEvents, day: int
) -> None:
    data = joined_events([events, shop.opened(TRAINED, day)])
    for name, policy in policies.items():
        policy.log(shop.nights[day], TickRecord())
        policy.offer(day)
        if day == TRAINED + LEARNED or (name == "adapts" and day > TRAINED + LEARNED):
            policy.refresh(day, data)
        policy.publish()
        policy.learns = name == "adapts" or day < TRAINED + LEARNED


def _let_learn(shop: DriftingShop, policy: ShopPolicy, number: int, record: DecisionRecord) -> None:
    """Log a decision and what it earned.

    A reward of one visit comes before the decision of the next: the loop of a benchmark, not a race.
    """
    at_ms = int(shop.people.times[number])
    policy.log(at_ms, record)
    reward = shop.world.reward(shop.world.outcome(number, [record.action_ids[record.chosen[0]]]))
    if reward:
        policy.log(at_ms + DELAY_MS, RewardRecord(record.event_id, reward))
    if number % PUBLISH_EVERY == 0 and policy.learns:
        policy.publish()


def report(results: dict[float, list[dict[str, float]]], table: Table) -> None:
    """Print the curve, and the rows of the goals."""
    for drift, found in results.items():
        mean = {key: float(np.mean([each[key] for each in found])) for key in found[0]}
        print(
            f"drift {drift:.2f}: oracle {mean['oracle']:.4f}, random {mean['random']:.4f}, adapts"
            f" {mean['adapts']:.4f}, frozen {mean['frozen']:.4f}; regret: adapts"
            f" {mean['oracle'] - mean['adapts']:.4f}, frozen {mean['oracle'] - mean['frozen']:.4f};"
            f" {mean['refused']:.1f} of {COUNTED} refreshes refused"
        )
        ratios = np.array([each["adapts"] / each["frozen"] for each in found])
        _add(table, f"drift {drift:.2f}: adapts / frozen", ratios, None if drift else 0.99)

    # Of the strongest third each seed counts once.
    strongest = [found for drift, found in results.items() if drift > TWO_THIRDS]
    if strongest:
        ratios = np.mean(
            [[each["adapts"] / each["frozen"] for each in found] for found in strongest], axis=0
        )
        _add(table, "strongest third: adapts / frozen", ratios, 1.25)


def _add(table: Table, what: str, ratios: np.ndarray[Any, Any], at_least: float | None) -> None:
    mean, low, high = interval(ratios)
    table.add(what, f"x {mean:.3f} [{low:.3f}, {high:.3f}]", mean, at_least=at_least)


def main() -> int:
    """Run, print, store; exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--visits", type=int, default=1_000, help="a day")
    parser.add_argument("--drifts", type=float, nargs="+", default=[0.0, 0.5, 0.83, 1.0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--half-life", default=HALF_LIFE)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()

    seeds = range(given.first_seed, given.first_seed + given.seeds)
    task = partial(one_shop, visits_a_day=given.visits, half_life=given.half_life)
    results: dict[float, list[dict[str, float]]] = {drift: [] for drift in given.drifts}
    tasks: Sequence[tuple[float, int]] = list(product(given.drifts, seeds))
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        for (drift, seed), found in zip(tasks, pool.map(task, tasks), strict=True):
            results[drift].append(found)
            said = " ".join(f"{key} {value:.4f}" for key, value in found.items())
            print(f"drift {drift:.2f}, seed {seed}: {said}", file=sys.stderr, flush=True)

    table = Table()
    report(results, table)
    everything = {f"{drift:g}": found for drift, found in results.items()}
    return table.finish(given.out, results=everything)


if __name__ == "__main__":
    sys.exit(main())
