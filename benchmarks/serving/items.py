"""Items that change while they are served: how soon all replicas propose what was put, and nothing that was removed.

    python -m benchmarks.serving.items [--quick] [--out items.json]         (40 minutes; quick: five)
    python -m benchmarks.serving.items --items 200000 --changes 30 --seconds 120     (12 minutes)
    python -m benchmarks.serving.items --only waits --items 20000                    (one minute)

Two rank replicas, one learner, the embedded Valkey with every entry synced to disk, the archive, all
on this machine together with the load. The policy's one source is `content`, by a vector of 16
numbers that items bring: forty items are like each other and like no other, so that whoever has one
of them in the history is proposed the rest.

*Freshness*: one of the forty is put, or removed; from the moment of its acknowledgement on decisions
are asked for on several connections, so that both replicas answer. Counted is when the last decision
was asked for that was not as the change wants it. Meanwhile the service is under half of the load
that it can bear, by requests with such a history.

*Upserts*: so many puts a second of items that there are, one a request, for so long, at 1,000 items
and at many. Bytes are those of the log of items, whole catalogues included; processor time is that
of all processes of the service, without what it uses while nobody asks. Before, what filling the
service made due is over: its whole catalogue is written, and the processes rest.

*Waits*: how long `rank` takes, one request after the other, while 10,000 items are put by one
request, and when the time of 10,000 is over at one moment; one replica.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Self

import httpx
import numpy as np
import redis

from bandits.log.codec import decode
from bandits.log.records import ItemsBaseRecord, ItemsRecord
from benchmarks.serving.load import closed_loop, open_loop
from benchmarks.serving.services import Service, banditloop
from benchmarks.soak.service import descendants
from benchmarks.table import Table
from serve_app.store.event_log import FIELD
from serve_app.store.items.bases import read_base
from serve_app.store.keys import ItemsKeys
from serve_app.workers.items_leader import LEAST_CHANGES

POLICY = "shop"
SPEC = """
learner: {kind: ridge, interactions: [[context, features]]}
join: {window_s: 2}
sources: [{kind: content, name: looks, vector: image}]
limit: 40
"""
NUMBERS, APART = 16, 0.05
"""Numbers of a vector, and how far those of the forty are from each other."""
PROPOSED = [f"fresh-{number}" for number in range(20)] + [f"old-{number}" for number in range(20)]
WATCHED = "fresh-0"
WATCHERS, WATCH_S, PAUSE_S = 4, 1.5, 0.01
"""How many ask for decisions meanwhile, for how long, and how long each waits between two."""
PUT, BEGUN_S = 10_000, 60.0
SPELL_S = 8.0
"""Seconds for which decisions are asked for that nothing holds up."""
LOAD_S = 2.0
"""Seconds of load at a time, before it is looked whether there has been enough."""
REST_S, LONGEST_REST_S, RESTING = 5.0, 300.0, 0.5
"""Spells of rest, after how many seconds of them the benchmark gives up, and how much of a processor
is used at rest."""
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
rng = np.random.default_rng(0)


def item(name: str) -> dict[str, object]:
    """An item with eight features, a text, and a vector that says whether it is of the forty."""
    features = {f"f{j}": round(float(value), 4) for j, value in enumerate(rng.normal(size=8))}
    vector = rng.normal(size=NUMBERS)
    if name in PROPOSED:
        vector = APART * vector + np.eye(NUMBERS)[0]
    else:
        vector[0] = 0.0
    return {
        "id": name,
        "features": features,
        "metadata": {"title": f"The item {name}"},
        "vectors": {"image": [round(float(value), 4) for value in vector]},
    }


def filled(service: Service, count: int) -> Service:
    """The service with so many items, the proposed ones among them."""
    names = [*PROPOSED, *(f"item{number}" for number in range(count - len(PROPOSED)))]
    url = f"{service.url}/v1/policies/{POLICY}/items"
    for first in range(0, count, PUT):
        part = {"items": [item(name) for name in names[first : first + PUT]]}
        began, answer = time.monotonic(), httpx.post(url, json=part, timeout=60)
        # Until the log of items has begun, changes are refused.
        while answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            if time.monotonic() - began > BEGUN_S:
                break
            time.sleep(1.0)
            answer = httpx.post(url, json=part, timeout=60)
        answer.raise_for_status()
    return service


async def _change(http: httpx.AsyncClient, *, there: bool) -> None:
    path = f"/v1/policies/{POLICY}/items/{WATCHED}"
    answer = await (http.put(path, json=item(WATCHED)) if there else http.delete(path))
    answer.raise_for_status()


async def _until_as_wanted(http: httpx.AsyncClient, *, there: bool) -> float:
    """Change the watched item; return the seconds until every decision is as the change wants it."""
    await _change(http, there=there)
    began, last = time.perf_counter(), 0.0

    async def watch() -> None:
        nonlocal last
        while (asked := time.perf_counter() - began) < WATCH_S:
            answer = await http.post(
                f"/v1/policies/{POLICY}/rank", json={"history": ["old-1"], "return_pmf": True}
            )
            answer.raise_for_status()
            ids = {each["id"] for each in answer.json()["pmf"]}
            if (WATCHED in ids) != there:
                last = max(last, asked)
            await asyncio.sleep(PAUSE_S)

    await asyncio.gather(*(watch() for _ in range(WATCHERS)))
    return last


async def _freshness(service: Service, changes: int) -> tuple[list[float], list[float]]:
    put: list[float] = []
    removed: list[float] = []
    # A connection of its own for each request: all replicas are to answer some.
    alone = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=service.url, timeout=30, limits=alone) as http:
        for _ in range(changes):
            removed.append(await _until_as_wanted(http, there=False))
            put.append(await _until_as_wanted(http, there=True))
    return put, removed


@contextlib.contextmanager
def half_loaded(service: Service) -> Iterator[float]:
    """Under half of the load that it can bear, of which nothing is left behind it; gives requests per second."""
    url = f"{service.url}/v1/policies/{POLICY}/rank"
    bodies = [json.dumps({"history": [name]}) for name in PROPOSED if name != WATCHED]
    per_s = closed_loop(url, bodies, 3.0).per_s / 2
    over = threading.Event()

    def load() -> None:
        while not over.is_set():
            open_loop(url, bodies, per_s, LOAD_S)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    try:
        yield per_s
    finally:
        over.set()
        thread.join()


def report_freshness(table: Table, service: Service, count: int, changes: int) -> float:
    """Measure freshness; return the larger p99, in seconds."""
    with half_loaded(service) as per_s:
        put, removed = asyncio.run(_freshness(service, changes))
    worst = 0.0
    for what, taken in (
        ("put → proposed by every replica", put),
        ("removed → never again", removed),
    ):
        p50, p99 = (float(np.quantile(taken, q)) for q in (0.5, 0.99))
        table.add(
            f"{what}, {count:,} items, {per_s:,.0f} ranks/s",
            f"p50 {1e3 * p50:,.0f} ms, p99 {1e3 * p99:,.0f} ms of {len(taken)}",
            p99,
            at_most=1.0,
        )
        worst = max(worst, p99)
    return worst


@dataclass(frozen=True, slots=True)
class Upserts:
    """What a stretch of upserts has cost."""

    count: int
    bytes: int
    cpu_s: float
    p99_s: float


def cpu_s(service: Service) -> float:
    """Seconds of processor that the service's processes have used so far."""
    used = 0.0
    for pid in descendants(service.pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used += (int(fields[11]) + int(fields[12])) * TICK_S
    return used


def is_base_due(service: Service) -> bool:
    """Whether a whole catalogue is about to be written: a leader looks every other second."""
    keys, changes = ItemsKeys(POLICY), 0
    with redis.Redis.from_url(service.redis_url) as client:
        base = read_base(client, keys)
        if base is None or client.exists(keys.lease):
            return True
        for _, fields in client.xrange(keys.log, f"({base.begins}"):
            record = decode(fields[FIELD])
            changes += len(record.changes) if isinstance(record, ItemsRecord) else 0
    return changes >= max(LEAST_CHANGES, base.items)


def rested(service: Service) -> float:
    """Wait until what was put is dealt with; return what the service uses a second then."""
    began, last = time.perf_counter(), float("inf")
    while True:
        before = cpu_s(service)
        time.sleep(REST_S)
        used = (cpu_s(service) - before) / REST_S
        if max(used, last) <= RESTING and not is_base_due(service):
            return (used + last) / 2
        if time.perf_counter() - began > LONGEST_REST_S:
            raise SystemExit(f"the service does not rest: {used:.2f} s of processor a second")
        last = used


def logged_bytes(service: Service, after: str) -> tuple[int, str]:
    """Bytes of the log of items past a position, whole catalogues included; and its end."""
    keys, size = ItemsKeys(POLICY), 0
    with redis.Redis.from_url(service.redis_url) as client:
        while entries := client.xrange(keys.log, f"({after}", count=100):
            for entry_id, fields in entries:
                size += len(fields[FIELD])
                record = decode(fields[FIELD])
                if isinstance(record, ItemsBaseRecord):
                    size += client.strlen(keys.blob(record.digest))
                after = entry_id.decode()
    return size, after


async def _upsert(service: Service, count: int, per_s: float, seconds: float) -> list[float]:
    taken: list[float] = []
    names = [f"item{k}" for k in rng.integers(0, count - len(PROPOSED), int(per_s * seconds))]

    async def one(http: httpx.AsyncClient, name: str, due: float) -> None:
        answer = await http.put(f"/v1/policies/{POLICY}/items/{name}", json=item(name))
        answer.raise_for_status()
        taken.append(time.perf_counter() - due)

    async with (
        httpx.AsyncClient(base_url=service.url, timeout=30) as http,
        asyncio.TaskGroup() as group,
    ):
        began = time.perf_counter()
        for number, name in enumerate(names):
            due = began + number / per_s
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(http, name, due))
    return taken


def upserted(service: Service, count: int, per_s: float, seconds: float) -> Upserts:
    """What so many upserts a second cost, for so long."""
    idle_per_s = rested(service)
    _, end = logged_bytes(service, "0-0")
    before, began = cpu_s(service), time.perf_counter()
    taken = asyncio.run(_upsert(service, count, per_s, seconds))
    time.sleep(5.0)  # what is put off counts as well
    used = cpu_s(service) - before - idle_per_s * (time.perf_counter() - began)
    size, _ = logged_bytes(service, end)
    return Upserts(len(taken), size, used, float(np.quantile(taken, 0.99)))


def report_upserts(table: Table, few: Upserts, many: Upserts, counts: tuple[int, int]) -> None:
    """Add what the two stretches have cost, the larger against the smaller."""
    for count, each in zip(counts, (few, many), strict=True):
        table.add(
            f"{each.count:,} upserts at {count:,} items",
            f"{each.bytes / each.count:,.0f} B, {1e3 * each.cpu_s / each.count:,.2f} ms of"
            f" processor each; p99 {1e3 * each.p99_s:,.0f} ms",
            each.p99_s,
        )
    pairs = {
        "bytes logged": (few.bytes, many.bytes),
        "processor time": (few.cpu_s, many.cpu_s),
        "p99 of an upsert": (few.p99_s, many.p99_s),
    }
    for what, (small, large) in pairs.items():
        ratio = large / small if min(small, large) > 0 else float("inf")
        name = f"{what}, {counts[1]:,} items against {counts[0]:,}"
        table.add(name, f"{ratio:.2f} times", ratio, at_most=2.0)


class Asking:
    """Asks for decisions, one after the other, in a thread; remembers when and how long each took."""

    def __init__(self, service: Service) -> None:
        self._url = f"{service.url}/v1/policies/{POLICY}/rank"
        self._taken: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(timeout=30) as http:
            while not self._over.is_set():
                began = time.perf_counter()
                http.post(self._url, json={"history": ["old-1"]}).raise_for_status()
                self._taken.append((began, time.perf_counter() - began))

    def add_since(self, table: Table, what: str, began: float) -> None:
        """Add how long those took that were asked for since."""
        ms = np.array([1e3 * taken for at, taken in list(self._taken) if at >= began])
        p50, p99 = np.quantile(ms, [0.5, 0.99])
        written = f"p50 {p50:.1f}, p99 {p99:.1f}, at most {ms.max():.1f} ms of {ms.size}"
        table.add(what, written, float(ms.max()))


def report_waits(table: Table, service: Service, count: int) -> None:
    """Measure what `rank` takes while many items are put, and when their time is over."""
    url = f"{service.url}/v1/policies/{POLICY}/items"
    many = [item(f"item{number}") for number in range(PUT)]
    body = json.dumps({"items": many})
    with Asking(service) as asking:
        time.sleep(5.0)
        began = time.perf_counter()
        time.sleep(SPELL_S)
        asking.add_since(table, f"rank, {count:,} items, nothing else asked for", began)

        began = time.perf_counter()
        httpx.post(url, content=body, timeout=60).raise_for_status()
        asking.add_since(table, f"… while {PUT:,} are put ({len(body) >> 10:,} KiB)", began)

        end = datetime.now(UTC) + timedelta(seconds=SPELL_S + 10)
        ending = [{**each, "available_until": end.isoformat()} for each in many]
        httpx.post(url, json={"items": ending}, timeout=60).raise_for_status()
        time.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds()))
        began = time.perf_counter()
        time.sleep(SPELL_S / 4)
        asking.add_since(table, f"… from when the time of {PUT:,} is over", began)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer items and changes")
    parser.add_argument("--items", type=int, help="many items [default: 1,000,000]")
    parser.add_argument("--changes", type=int, help="how often one is put and removed [100]")
    parser.add_argument("--seconds", type=float, help="how long there are upserts [600]")
    parser.add_argument("--only", choices=["waits"], help="measure nothing else")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    usual = (20_000, 3, 10.0) if given.quick else (1_000_000, 100, 600.0)
    counts = (1_000, given.items or usual[0])
    changes, seconds = given.changes or usual[1], given.seconds or usual[2]

    table, costs, freshness = Table(), [], []
    spec = {POLICY: SPEC}
    with (
        tempfile.TemporaryDirectory(prefix="items-") as folder,
        banditloop(Path(folder), spec) as service,
    ):
        some = min(counts[1], 2 * PUT)
        report_waits(table, filled(service, some), some)
    if given.only:
        return table.finish(given.out)
    for count in counts:
        with (
            tempfile.TemporaryDirectory(prefix="items-") as folder,
            banditloop(Path(folder), spec, "--replicas", "2") as service,
        ):
            filled(service, count)
            freshness.append(report_freshness(table, service, count, changes))
            costs.append(upserted(service, count, 100.0, seconds))
    report_upserts(table, costs[0], costs[1], counts)
    ratio = freshness[1] / max(freshness[0], 0.01)
    table.add("the p99 of freshness, likewise", f"{ratio:.2f} times", ratio, at_most=2.0)
    return table.finish(given.out)


if __name__ == "__main__":
    sys.exit(main())
