"""What a refresh of the sources is worth where items come and go: a small shop.

    python -m benchmarks.learning.refresh
    python -m benchmarks.learning.refresh --seeds 1 --days 3 --moves 0.15

Users like one of ten genres, and want no item twice. Each day a share of the items (``moves``) is
replaced by new ones, which the source ``fresh`` proposes to all alike. Sources are trained on what
users did before the first day. Two services meet the same users with the same luck: one keeps its
artifact, the other trains anew each night (simulator/refresh), compares, and serves what is not
refused. Both learn on all the time.
"""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bandits.exploration import LinTs
from bandits.log.codec import encode
from bandits.log.encoded_decisions import read_entries
from bandits.log.join import JoinRule
from bandits.log.records import LogEntry, LogRecord, RewardRecord, SpecRecord, TickRecord
from bandits.ridge.config import RidgeConfig
from policies.artifacts.source_artifact import Artifact
from policies.data.coded import CodedEvents
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.items.timeline import ItemTimeline
from policies.pseudonyms import pseudonym
from policies.ranker import Ranker
from policies.requests import RankRequest
from policies.sources import load_sources
from policies.spec import ArtifactSource, FreshSource, PolicySpec
from policies.training.histories import histories_of
from policies.training.train import run_training
from simulator.refresh.course import PolicyState, RefreshOptions, refresh_sources
from simulator.refresh.rescoring import under_pseudonyms
from simulator.refresh.rewarded import coded_events, joined_decisions
from simulator.refresh.trainer import EVENTS_UNTIL, TrainingRequest
from simulator.refresh.user_comparison import profiles_over

USERS, ITEMS, GENRES = 150, 200, 10
LIKED, OTHER = 0.6, 0.03
DAY_MS, GAP_MS = 86_400_000, 20_000
SALT = b"a shop of a benchmark"
SOURCES = ("item_knn", "als", "popular")
SPEC = PolicySpec(
    "shop",
    sources=[*(ArtifactSource(name) for name in SOURCES), FreshSource("fresh")],
    artifact="none",
    limit=20,
    use=["scores"],
    learner=RidgeConfig(),
    exploration=LinTs(draws=16, scale=0.12),
    floor=0.05,
    join=JoinRule(window_s=10.0),
)


class Shop:
    """Users, items, and what is in store on each day."""

    def __init__(self, seed: int, moves: float) -> None:
        self.rng, self.moves = np.random.default_rng(seed), moves
        self.likes = self.rng.integers(GENRES, size=USERS)
        self.genre = {f"i{number}": number % GENRES for number in range(ITEMS)}
        self.stock = list(self.genre)

    def night(self) -> None:
        """Let items go and come."""
        for at in np.flatnonzero(self.rng.random(ITEMS) < self.moves).tolist():
            new = f"i{len(self.genre)}"
            self.genre[new] = int(self.rng.integers(GENRES))
            self.stock[at] = new

    def history(self) -> CodedEvents:
        """Eight items of each user, long before."""
        rows = [(u, i) for u in range(USERS) for i in self._taken(u)]
        user, item = (np.array(column) for column in zip(*rows, strict=True))
        count = len(rows)
        return coded_events(
            [f"u{number}" for number in range(USERS)],
            list(self.stock),
            ("event",),
            user,
            item,
            np.zeros(count),
            np.full(count, 1000),
            np.full(count, np.nan),
            np.ones(count),
        )

    def _taken(self, user: int) -> Sequence[int]:
        own = [at for at, item in enumerate(self.stock) if self.genre[item] == self.likes[user]]
        taken: list[int] = self.rng.choice(own, 8, replace=False).tolist()
        return taken


class Service:
    """A policy with its log, its model and its artifact, all in memory."""

    def __init__(self, artifact: Artifact, events: CodedEvents, stock: Sequence[str]) -> None:
        self.entries: list[LogEntry] = []
        self.blobs = {SPEC.digest: SPEC.encoded}
        self.fold = Fold(self.blobs.__getitem__, salt=SALT)
        self.data, self.earned, self.refused, self.accepted = events, 0.0, 0, 0
        self.had: set[tuple[int, str]] = set()
        self.log(1, SpecRecord(SPEC.digest, "salt"))
        self.equip(artifact, under_pseudonyms(events, SALT), stock)

    def equip(self, artifact: Artifact, known: CodedEvents, stock: Sequence[str]) -> None:
        """Serve an artifact, with what is known of users."""
        self.artifact, self.known = artifact, known
        histories = histories_of(known)
        names = {pseudonym(SALT, f"u{number}"): f"u{number}" for number in range(USERS)}
        histories = replace(histories, users=tuple(names[user] for user in histories.users))
        self.ranker = Ranker(
            SPEC,
            list(load_sources(artifact, SPEC.sources).values()),
            salt=SALT,
            profiles=profiles_over(histories, artifact.items, SALT),
        )
        self.offer(stock)
        self.publish()

    def offer(self, stock: Sequence[str]) -> None:
        """Offer what is in store."""
        catalogue = Catalogue.of([{"id": item, "features": {}} for item in stock])
        self.blobs[catalogue.digest] = catalogue.encoded
        self.items = ItemTimeline(catalogue)
        self.ranker.offer(catalogue, self.items)

    def publish(self) -> None:
        """Serve what was learned."""
        self.ranker.serve("s", self.fold.snapshot())

    def log(self, at_ms: int, *records: LogRecord) -> None:
        """Append to the log, and learn."""
        fresh = [(f"{at_ms}-{n}", encode(record)) for n, record in enumerate(records)]
        read = list(read_entries(fresh, lambda *_: None))
        self.entries += read
        self.fold.apply(read)

    def refresh(self, stock: Sequence[str]) -> None:
        """Train anew, and serve it unless it is refused."""
        state = PolicyState(
            spec=SPEC,
            salt=SALT,
            snapshot=self.fold.snapshot(),
            serving=self.artifact,
            items=self.items,
            catalogue_of=lambda name: Catalogue.decode(self.blobs[name]),
            decisions=lambda: joined_decisions(self.entries, SPEC, lambda _: SPEC),
            data=self.data,
        )
        made = refresh_sources(state, RefreshOptions(most_lacking=1.0), train=_train)
        if made.report.outcome == "refused":
            self.refused += 1
            return
        self.accepted += 1
        if made.model is not None:
            self.fold.learner = SPEC.learner.make(
                SPEC.exploration, salt=SALT, checkpoint=made.model.checkpoint
            )
        self.equip(made.artifact, made.events, stock)


def _train(request: TrainingRequest, events: CodedEvents, items: Any, **_: Any) -> Artifact:
    made = run_training(events, items, sources=request.sources).artifact
    stamped = {**made.created_with, EVENTS_UNTIL: str(request.events_until_ms)}
    return replace(made, created_with=stamped, version=made.data[:16])


def one_shop(seed: int, moves: float, days: int, visits: int) -> tuple[float, float, int, int]:
    """Return what the kept and the refreshed artifact earned a visit, and what was refused."""
    shop = Shop(seed, moves)
    events, stock = shop.history(), list(shop.stock)
    first = run_training(
        events, [{"id": item, "features": {}} for item in stock], sources=SOURCES
    ).artifact
    services = [Service(first, events, stock) for _ in range(2)]
    with asyncio.Runner() as runner:
        rank = runner.get_loop().run_until_complete
        for day in range(days):
            for visit in range(visits):
                at = (day + 1) * DAY_MS + visit * GAP_MS
                user, luck = int(shop.rng.integers(USERS)), float(shop.rng.random())
                for service in services:
                    request = RankRequest(user_id=f"u{user}", event_id=f"{day}.{visit}")
                    record = rank(service.ranker.rank(request))
                    item = record.action_ids[record.chosen[0]]
                    wanted = (
                        shop.genre[item] == shop.likes[user] and (user, item) not in service.had
                    )
                    chance = LIKED if wanted else OTHER
                    service.earned += chance
                    service.log(at, record)
                    if luck < chance:
                        service.had.add((user, item))
                        service.log(at + 1000, RewardRecord(record.event_id, 1.0))
                    if visit % 100 == 0:
                        service.publish()

            shop.night()
            for service in services:
                service.log((day + 1) * DAY_MS + visits * GAP_MS + 60_000, TickRecord())
                service.offer(shop.stock)
            services[1].refresh(shop.stock)
            for service in services:
                service.publish()
    kept, fresh = (service.earned / (days * visits) for service in services)
    return kept, fresh, services[1].accepted, services[1].refused


def main() -> None:
    """Print a row for each degree of change."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--visits", type=int, default=700)
    parser.add_argument("--moves", type=float, nargs="*", default=[0.0, 0.05, 0.15])
    options = parser.parse_args()
    print("moves a day | kept | refreshed | ratio | accepted, refused")
    for moves in options.moves:
        rows = np.array(
            [one_shop(s, moves, options.days, options.visits) for s in range(options.seeds)]
        )
        kept, fresh, accepted, refused = rows.mean(axis=0)
        ratios = rows[:, 1] / rows[:, 0]
        print(
            f"{moves:.2f} | {kept:.4f} | {fresh:.4f} | {fresh / kept:.3f}"
            f" ({ratios.min():.3f} to {ratios.max():.3f}) | {accepted:.1f}, {refused:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
