"""What it costs that items come, go and change while they are proposed, at 10^6 items.

    python -m benchmarks.sources.offering [--items 1000000]

An ALS model as in ``benchmarks.sources.retrieval``, popularity over the same items, and ``fresh``
over the catalogue of them (three texts each). In one process: what one change costs (an item is
hidden, shown, deleted, put) from the timeline's newest version to all sources; what a request costs
while nothing is closed, with the sources as they were loaded and over the catalogue in turn, and
while a tenth is closed; what is similar to an item, also with a filter that admits one in twenty;
what ``fresh`` proposes. Medians of processor time, one thread.

Goals: 50 us a change; a request that pays nothing while nothing is closed (1.03 x); similar 3 ms;
fresh 1 ms.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np

from bandits.log.records import ItemChange, ItemsRecord, LogEntry
from benchmarks.sources.retrieval import TOP, make_items, make_requests
from benchmarks.table import Table
from policies.artifacts.source_artifact import Artifact, TrainedSource
from policies.items.catalogue import Catalogue, Item
from policies.items.changes import encode_item
from policies.items.timeline import ItemTimeline
from policies.proposers import Proposers
from policies.rules.filters import FilterRule
from policies.sources import SourceRequest, load_sources
from policies.sources.source_set import SourceSet
from policies.spec import ArtifactSource, FreshSource, PolicySpec
from policies.training.blocks import arrange

GOALS = {"change": 50.0, "request": 1.03, "similar": 3.0, "fresh": 1.0}
CHANGES, ROUNDS, GENRES = 2_000, 200, 40
FILTER = '"g1" in item.genre'


def item(number: int, rng: np.random.Generator, **fields: Any) -> Item:
    """An item with three texts."""
    genres = [f"g{genre}" for genre in rng.integers(GENRES, size=2).tolist()]
    return Item(str(number), {"genre": genres, "brand": f"b{number % 1000}"}, **fields)


def median_us(run: Callable[[Any], object], asked: list[Any]) -> float:
    """Median microseconds of each call."""
    taken = []
    for each in asked:
        began = time.thread_time()
        run(each)
        taken.append(time.thread_time() - began)
    return float(np.median(taken)) * 1e6


class Bench:
    """The sources over a timeline of items."""

    def __init__(self, count: int) -> None:
        self.count, self.rng = count, np.random.default_rng(count)
        factors, centre = make_items(count, self.rng)
        self.requests = make_requests(centre, self.rng)
        ids = tuple(map(str, range(count)))
        artifact = Artifact(
            (),
            ids,
            {
                "als": TrainedSource(
                    "als",
                    {"item_factors": factors, **arrange(factors, seed=0)},
                    {"alpha": 5.0, "regularization": 30.0},
                ),
                "popular": TrainedSource(
                    "popular", {"counts": self.rng.integers(1, 90, count).astype(np.float32)}
                ),
            },
        )
        configs = [ArtifactSource("als"), ArtifactSource("popular"), FreshSource("fresh")]
        self.loaded = load_sources(artifact, configs)
        self.timeline = ItemTimeline(Catalogue(item(n, self.rng) for n in range(count)))
        sources = SourceSet.of(list(self.loaded.values()))
        self.proposers = Proposers(PolicySpec("p", limit=TOP), sources)
        self._entries = 0

    def offer_all(self) -> float:
        """Offer everything; return the seconds that took."""
        began = time.thread_time()
        self.proposers.offer(self.timeline.newest, self.timeline)
        return time.thread_time() - began

    def filtered(self) -> Proposers:
        """Return proposers of a policy that takes filters, over the same items and sources."""
        spec = PolicySpec("p", limit=TOP, filter=FilterRule("true", fields=["genre"]))
        proposers = Proposers(spec, SourceSet.of([self.loaded["als"]]))
        proposers.offer(self.timeline.newest, self.timeline)
        return proposers

    def apply(self, *changes: ItemChange) -> None:
        """Append an entry to the timeline."""
        self._entries += 1
        entry = LogEntry(f"{self._entries}-0", ItemsRecord([*changes]))
        self.timeline.apply(entry, {}.__getitem__)

    def change_us(self) -> float:
        """Median microseconds to offer one change, without that of the timeline."""
        taken = []
        for number in self.rng.integers(self.count, size=CHANGES).tolist():
            fields = {0: {"hidden": True}, 1: {}}.get(number % 3)
            change = ItemChange("delete", str(number))
            if fields is not None:
                made = item(number, self.rng, **fields)
                change = ItemChange("put", made.id, encode_item(made))
            self.apply(change)
            newest = self.timeline.newest
            began = time.thread_time()
            self.proposers.offer(newest, self.timeline, {change.id})
            taken.append(time.thread_time() - began)
        return float(np.median(taken)) * 1e6

    def over(self, name: str) -> Any:
        """The source over what is offered now."""
        by_name = {each.name: each for each in self.proposers.offered.sources.proposing}
        return by_name[name]

    def request_us(self, name: str) -> tuple[float, float]:
        """Median microseconds of a request: of the source as loaded, and over what is offered."""
        sources: list[Any] = [self.loaded[name], self.over(name)]
        taken: list[list[float]] = [[], []]
        for turn in range(2 * ROUNDS):
            request = self.requests[turn % len(self.requests)]
            for which in (0, 1) if turn % 2 else (1, 0):
                began = time.thread_time()
                sources[which].propose(request, TOP)
                taken[which].append(time.thread_time() - began)
        return float(np.median(taken[0])) * 1e6, float(np.median(taken[1])) * 1e6


def main() -> int:
    """Measure, print, exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    arguments = parser.parse_args()
    bench, table = Bench(arguments.items), Table()
    of = f"{arguments.items:,} items"

    seconds = bench.offer_all()
    table.add(f"everything offered anew, {of}, s", f"{seconds:.2f}", seconds)
    for name in ("als", "popular"):
        before, after = bench.request_us(name)
        ratio, written = after / before, f"{after:,.0f} / {before:,.0f} us = {after / before:.3f} x"
        table.add(f"{name}, nothing closed / as loaded", written, ratio, at_most=GOALS["request"])

    us = bench.change_us()
    table.add(f"one change, {of}, us", f"{us:.1f}", us, at_most=GOALS["change"])
    closed = [str(number) for number in range(0, arguments.items, 10)]
    bench.apply(*(ItemChange("delete", each) for each in closed))
    bench.proposers.offer(bench.timeline.newest, bench.timeline, closed)
    for name in ("als", "popular"):
        before, after = bench.request_us(name)
        written = f"{after:,.0f} / {before:,.0f} us = {after / before:.3f} x"
        table.add(f"{name}, a tenth closed / as loaded", written, after / before)

    similar = bench.filtered()
    # Some are deleted by now.
    drawn = map(str, bench.rng.integers(arguments.items, size=2 * ROUNDS).tolist())
    asked = [each for each in drawn if bench.timeline.item(each) is not None][:ROUNDS]
    ms = median_us(lambda each: bench.over("als").similar(each, 20), asked) / 1000
    table.add(f"similar by factors, {of}, ms", f"{ms:.2f}", ms, at_most=GOALS["similar"])
    ms = median_us(lambda each: similar.similar(each, "als", 20, FILTER), asked) / 1000
    table.add(f"… with a filter, {of}, ms", f"{ms:.2f}", ms, at_most=GOALS["similar"])
    requests = [SourceRequest(None, each.history) for each in bench.requests]
    ms = median_us(lambda each: bench.over("fresh").propose(each, 30), requests) / 1000
    table.add(f"fresh, {of}, ms", f"{ms:.2f}", ms, at_most=GOALS["fresh"])
    return table.finish(arguments.out)


if __name__ == "__main__":
    sys.exit(main())
