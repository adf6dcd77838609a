"""What it costs to look up who asks: `rank` by user_id against the same history in the request.

    python -m benchmarks.serving.known_users [--quick] [--out FILE]   (nine minutes; quick: two)

One service (embedded Valkey, every entry synced to disk), 2,000 items, a policy with two trained
sources (item_knn and popular), profiles of 50 items and rules of `repeat`. Each of 500 users has
done 50 things, sent as activity. In turn the same users ask by their user_id alone, and their
histories are sent with requests that name nobody.

*Processor time* is that of all processes of the service in a closed loop (8 connections), without
what it uses while nobody asks; the learner has a row of its own, since it also writes down what was
shown to a user who is named. The *latency* is that of an open loop at a tenth of the closed one's
rate, from when each request was due. Each ratio is the median over the turns.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.serving.cost import idle, used_s
from benchmarks.serving.load import closed_loop, open_loop
from benchmarks.serving.services import Service, banditloop, put_catalogue
from benchmarks.table import Table
from policies.artifacts.source_artifact import Artifact, TrainedSource, write

POLICY, ITEMS, USERS, EACH = "shop", 2_000, 500, 50
IDS = tuple(f"item{number}" for number in range(ITEMS))
SPEC = f"""
learner: {{kind: ridge, interactions: [[context, scores]]}}
join: {{window_s: 2}}
artifact: trained
sources: [{{kind: artifact, name: popular}}, {{kind: artifact, name: item_knn}}]
limit: 50
profile: {{items: {EACH}}}
repeat: {{purchased: never, shown: {{times: 100, within: 1d}}}}
"""
TYPES = ("view", "click", "cart", "purchase")
PER_REQUEST = 1_000
PATIENCE_S = 120.0
rng = np.random.default_rng(0)


def train(folder: Path) -> None:
    """Write an artifact with random arrays: what it was trained on does not matter here."""
    neighbours = np.stack([rng.choice(ITEMS, 100, replace=False) for _ in IDS]).astype(np.int32)
    similarities = rng.uniform(0.1, 1.0, neighbours.shape).astype(np.float32)
    counts = rng.integers(1, 1000, ITEMS).astype(np.float32)
    sources = {
        "popular": TrainedSource("popular", {"counts": counts}),
        "item_knn": TrainedSource(
            "item_knn", {"neighbours": neighbours, "similarities": similarities}
        ),
    }
    write(Artifact(tuple({"id": item, "features": {}} for item in IDS), IDS, sources), folder)


def histories() -> dict[str, list[str]]:
    """What each user did something with."""
    return {
        f"user{number}": [IDS[k] for k in rng.choice(ITEMS, EACH, replace=False)]
        for number in range(USERS)
    }


def known(service: Service, users: dict[str, list[str]]) -> None:
    """Send what the users did, and wait until it is in their profiles."""
    events: list[dict[str, Any]] = [
        {"user_id": user, "item_id": item, "type": TYPES[int(rng.integers(len(TYPES)))]}
        for user, items in users.items()
        for item in items
    ]
    for first in range(0, len(events), PER_REQUEST):
        part = {"events": events[first : first + PER_REQUEST]}
        url = f"{service.url}/v1/spaces/{POLICY}/activity"
        httpx.post(url, json=part, timeout=60).raise_for_status()

    # What the last user bought is no longer proposed, and all is whole.
    last, deadline = list(users)[-1], time.monotonic() + PATIENCE_S
    bought = {each["item_id"] for each in events[-EACH:] if each["type"] == "purchase"}
    asked = {"user_id": last, "return_pmf": True}
    while True:
        answer = httpx.post(rank_url(service), json=asked, timeout=60).json()
        proposed = {each["id"] for each in answer["pmf"]}
        if answer["profile"] and not proposed & bought:
            return
        if time.monotonic() > deadline:
            raise SystemExit("profiles are not made: see the service's log")
        time.sleep(0.2)


def rank_url(service: Service) -> str:
    """Where decisions are asked for."""
    return f"{service.url}/v1/policies/{POLICY}/rank"


def turn(
    service: Service, sent: Sequence[str], seconds: float, resting: dict[str, float]
) -> tuple[dict[str, float], float]:
    """Microseconds of processor per request, by process; and requests per second."""
    before, began = used_s(service.pid), time.monotonic()
    per_s = closed_loop(rank_url(service), sent, seconds).per_s
    time.sleep(3.0)  # what is put off counts as well
    after, took = used_s(service.pid), time.monotonic() - began
    return {
        name: 1e6 * (used - before[name] - resting.get(name, 0.0) * took) / (per_s * seconds)
        for name, used in after.items()
    }, per_s


def measure(service: Service, kinds: Sequence[Sequence[str]], turns: int, seconds: float) -> Any:
    """Return by turn and kind of request what it took; and the p50 in milliseconds, likewise."""
    (resting,) = idle([service], 3)
    used: list[list[dict[str, float]]] = []
    p50: list[list[float]] = []
    for number in range(turns):
        order = (0, 1) if number % 2 else (1, 0)
        of_turn, rate = dict.fromkeys(order, ({}, 0.0)), 0.0
        for kind in order:
            of_turn[kind] = turn(service, kinds[kind], seconds, resting)
            rate = max(rate, of_turn[kind][1])
        used.append([of_turn[kind][0] for kind in (0, 1)])
        late = {
            kind: open_loop(rank_url(service), kinds[kind], max(10.0, rate / 10), seconds).p50_ms
            for kind in order
        }
        p50.append([late[kind] for kind in (0, 1)])
    return used, p50


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    turns, seconds = (3, 4.0) if given.quick else (12, 8.0)

    table, users = Table(), histories()
    kinds = (
        [json.dumps({"user_id": user}) for user in users],
        [json.dumps({"history": items}) for items in users.values()],
    )
    with tempfile.TemporaryDirectory(prefix="profiles-") as name:
        folder = Path(name)
        train(folder / "trained")
        with banditloop(folder, {POLICY: SPEC}) as service:
            put_catalogue(service, POLICY, [{"id": item, "features": {}} for item in IDS])
            known(service, users)
            for sent in kinds:
                closed_loop(rank_url(service), sent, 3.0)
            used, p50 = measure(service, kinds, turns, seconds)

    totals = np.array([[sum(each.values()) for each in one] for one in used])
    learner = np.array([[each.get("learner", 0.0) for each in one] for one in used])
    for kind, what in enumerate(("by user_id", "with the history in the request")):
        means = {key: np.mean([one[kind].get(key, 0.0) for one in used]) for key in used[0][kind]}
        said = ", ".join(
            f"{key} {us:,.0f}" for key, us in sorted(means.items(), key=lambda m: -m[1]) if us >= 5
        )
        median = float(np.median(totals[:, kind]))
        table.add(f"processor time of a rank {what}, us", f"{median:,.0f}: {said}", median)
    answering = totals - learner
    ratio = float(np.median(answering[:, 0] / answering[:, 1]))
    table.add(
        "by user_id / with the history, all but the learner", f"{ratio:.3f}", ratio, at_most=1.15
    )
    whole = float(np.median(totals[:, 0] / totals[:, 1]))
    table.add("the same with the learner, which writes what was shown", f"{whole:.3f}", whole)
    late = np.array(p50)
    more = float(np.median(late[:, 0] - late[:, 1]))
    table.add(
        "p50 by user_id, more than with the history, ms",
        f"{more:+.2f} ({np.median(late[:, 0]):.2f} and {np.median(late[:, 1]):.2f})",
        more,
        at_most=0.5,
    )
    return table.finish(given.out, used=used, p50_ms=p50)


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.exit(main())
