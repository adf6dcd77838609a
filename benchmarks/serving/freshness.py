"""How soon after what a user did is acknowledged something similar is proposed, by a named source.

    python -m benchmarks.serving.freshness [--quick] [--out freshness.json]       (4 minutes; quick: one)

One replica, one learner, the embedded Valkey with every entry synced to disk, all on this machine
together with the load. The shop's items are of a hundred kinds, and whoever took to some took to
others of that kind, so `item_knn` proposes these; `popular` proposes the same items to everybody.
Each user is a new one, of whom nothing is known.

*Activity*: a user views an item. *Reward*: a user's chosen item is rewarded. From the moment of the
acknowledgement on decisions are asked for, one after the other, until one can choose an item of the
same kind that none could before; counted is when its answer has come. Of each such decision the log
says which source proposed the item. Meanwhile the service is under half of the load that it can
bear, by ranks of users that it knows.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import redis

from bandits.log.codec import decode
from bandits.log.records import DecisionRecord
from benchmarks.serving.load import closed_loop, open_loop
from benchmarks.serving.services import Service, banditloop
from benchmarks.table import Table
from policies.artifacts.source_artifact import write
from policies.training.train import run_training
from serve_app.store.event_log import FIELD
from serve_app.store.keys import Keys
from simulator.refresh.rewarded import coded_events

POLICY = "shop"
SPEC = """
sources: [{{kind: artifact, name: item_knn}}, {{kind: artifact, name: popular}}]
artifact: {artifact}
limit: {limit}
profile: {{}}
learner: {{kind: ridge}}
join: {{window_s: 600}}
"""
KINDS, OF_A_KIND, USERS, TAKEN = 100, 20, 2_000, 8
LIMIT = 30
GIVE_UP_S = 10.0
KNOWN = 200
rng = np.random.default_rng(0)


def item_id(kind: int, number: int) -> str:
    """The name of an item, which tells its kind."""
    return f"k{kind}-{number}"


def kind_of(item: str) -> str:
    """The kind of an item."""
    return item.partition("-")[0]


def trained(folder: Path) -> Path:
    """Train both sources on what users took, each of one kind; return where the artifact is."""
    kinds = np.repeat(rng.integers(KINDS, size=USERS), TAKEN)
    numbers = np.concatenate([rng.permutation(OF_A_KIND)[:TAKEN] for _ in range(USERS)])
    ids = [item_id(kind, number) for kind in range(KINDS) for number in range(OF_A_KIND)]
    count = USERS * TAKEN
    events = coded_events(
        [f"past-{number}" for number in range(USERS)],
        ids,
        ("view",),
        np.repeat(np.arange(USERS), TAKEN),
        kinds * OF_A_KIND + numbers,
        np.zeros(count),
        np.full(count, 1000),
        np.full(count, np.nan),
        np.ones(count),
    )
    items = [{"id": each, "features": {"kind": kind_of(each)}} for each in ids]
    write(run_training(events, items, sources=("item_knn", "popular")).artifact, folder)
    return folder


class Asker:
    """Asks one service for decisions and tells it what users do, on one connection."""

    def __init__(self, service: Service, http: httpx.Client) -> None:
        self._service, self._http = service, http
        self._policy = f"/v1/policies/{POLICY}"

    def _post(self, path: str, body: Any) -> Any:
        answer = self._http.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    def rank(self, user: str, event_id: str | None = None) -> tuple[str, list[str]]:
        """Return the item that was chosen for a user, and all that could have been."""
        body = {"user_id": user, "return_pmf": True}
        answer = self._post(
            f"{self._policy}/rank", body | ({"event_id": event_id} if event_id else {})
        )
        return answer["chosen"][0]["id"], [each["id"] for each in answer["pmf"]]

    def view(self, user: str, item: str) -> None:
        """Say that a user views an item."""
        event = {"user_id": user, "item_id": item, "type": "view"}
        self._post(f"/v1/spaces/{POLICY}/activity", {"events": [event]})

    def reward(self, event_id: str) -> None:
        """Reward what was chosen."""
        self._post(f"{self._policy}/events/{event_id}/reward", {"value": 1.0})

    def until_similar(self, user: str, item: str, before: Sequence[str]) -> tuple[float, str, str]:
        """Return the seconds until a similar item is proposed, the item, and the decision's name."""
        began, number = time.perf_counter(), 0
        while time.perf_counter() - began < GIVE_UP_S:
            event_id, number = f"{user}-{number}", number + 1
            _, ids = self.rank(user, event_id)
            new = [each for each in ids if kind_of(each) == kind_of(item) and each not in before]
            if new:
                return time.perf_counter() - began, new[0], event_id
        return GIVE_UP_S, "", ""


def by_activity(asker: Asker, user: str) -> tuple[float, str, str]:
    """Let a new user view an item, and see how soon that tells."""
    _, before = asker.rank(user)
    item = item_id(int(rng.integers(KINDS)), int(rng.integers(OF_A_KIND)))
    asker.view(user, item)
    return asker.until_similar(user, item, before)


def by_reward(asker: Asker, user: str) -> tuple[float, str, str]:
    """Reward what was chosen for a new user, and see how soon that tells."""
    chosen, before = asker.rank(user, f"{user}-first")
    asker.reward(f"{user}-first")
    return asker.until_similar(user, chosen, before)


def sources_of(service: Service, found: dict[str, str]) -> Counter[str]:
    """Count the sources that proposed the items found, as the records of their decisions say.

    A source has proposed the best of what is in a decision, as many as the spec lets it.

    Args:
        service: asked for its log.
        found: items by the names of the decisions that could choose them.
    """
    names: Counter[str] = Counter()
    with redis.Redis.from_url(service.redis_url) as client:
        for _, fields in client.xrange(Keys(POLICY).log):
            record = decode(fields[FIELD])
            if isinstance(record, DecisionRecord) and record.event_id in found:
                at = record.action_ids.index(found[record.event_id])
                for name, scores in record.source_scores().items():
                    best = np.isfinite(scores[at]) and (scores > scores[at]).sum() < LIMIT
                    names[name] += bool(best)
    return names


@contextmanager
def half_loaded(service: Service) -> Iterator[float]:
    """Under half of the load that it can bear, by users that it knows; gives requests a second."""
    url = f"{service.url}/v1/policies/{POLICY}/rank"
    bodies = [json.dumps({"user_id": f"known-{number}"}) for number in range(KNOWN)]
    per_s = closed_loop(url, bodies, 3.0).per_s / 2
    over = threading.Event()

    def load() -> None:
        while not over.is_set():
            open_loop(url, bodies, per_s, 2.0)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield per_s
    finally:
        over.set()
        thread.join()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer users")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    count = 30 if given.quick else 200

    table = Table()
    with tempfile.TemporaryDirectory(prefix="freshness-") as name:
        folder = Path(name)
        spec = {POLICY: SPEC.format(artifact=trained(folder / "artifact"), limit=LIMIT)}
        with banditloop(folder / "service", spec, "--replicas", "1") as service:
            measure(service, count, table)
    return table.finish(given.out)


def measure(service: Service, count: int, table: Table) -> None:
    """Add a row for what users do, and one for what is rewarded."""
    with httpx.Client(base_url=service.url, timeout=30) as http:
        asker = Asker(service, http)
        for number in range(KNOWN):
            asker.view(f"known-{number}", item_id(number % KINDS, 0))

        with half_loaded(service) as per_s:
            for what, see in (("activity", by_activity), ("reward", by_reward)):
                each = [see(asker, f"{what}-{number}") for number in range(count)]
                taken = [took for took, _, _ in each]
                named = sources_of(service, {event_id: item for _, item, event_id in each})
                p50, p99 = (float(np.quantile(taken, q)) for q in (0.5, 0.99))
                table.add(
                    f"{what} acknowledged → a similar item, {per_s:,.0f} ranks/s",
                    f"p50 {1e3 * p50:,.0f} ms, p99 {1e3 * p99:,.0f} ms of {count}",
                    p99,
                    at_most=1.0,
                )
                share = named["item_knn"] / count
                table.add(f"{what}: of these by item_knn", f"{share:.1%}", share, at_least=1.0)


if __name__ == "__main__":
    sys.exit(main())
