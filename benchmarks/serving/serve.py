"""`rank` over HTTP: against an empty endpoint of the same Ray Serve, and against Serve's default settings.

    python -m benchmarks.serving.serve [--out serving.json]            (about ten minutes)

One rank replica, one learner, the embedded Valkey with every decision synced to disk before it is
answered, the archive, all on this machine together with the load generator (wrk, 8 connections;
Debian package `wrk`). 100 actions of a catalogue of 1,000 items with 8 features each, 8 features of
the context, all crossed. `vw` is epsilon-greedy on VW's weights, `lints` Thompson sampling on ridge
with 100 draws. Each ratio is the median over rounds, in each of which the two were loaded one after
the other.

The learner is flat out while it has a backlog: decisions and rewards put into the log at once,
which the archiver has to write as well. p99 is pooled over many turns of TURN_S, in which both are
stopped, the learner alone works, both work, and, to tell what this machine does to p99 by itself, a
process that does nothing but loop works in the learner's place, at its niceness. Loads begin when
what was logged before is learned, and when Valkey has done with rewriting its file, which it does
whenever that has doubled. Freshness is from the end of a decision's window until every replica
served a model that had learned it. Ready is the median of STARTS starts, in turn with those of an
empty application, each alone on the machine.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import msgspec
import numpy as np
import redis

from bandits.log.codec import decode, encode
from bandits.log.positions import log_order
from bandits.log.records import DecisionRecord, RewardRecord
from benchmarks.serving.load import Measured, closed_loop, open_loop, open_loop_each
from benchmarks.serving.processor import by_process, looping, per_request_us
from benchmarks.serving.services import Service, banditloop, empty, put_catalogue
from benchmarks.soak.service import descendants, rss_of
from benchmarks.table import Table
from serve_app.admin.freshness import freshness_ms, read_all
from serve_app.settings import Settings
from serve_app.store.event_log import FIELD
from serve_app.store.keys import Keys

WINDOW_S = 2
REST = f"join: {{window_s: {WINDOW_S}}}\nuse: [context, features]\n"
SPECS = {
    "vw": "learner: {kind: vw, args: '--cb_explore_adf --cb_type mtr -q cf'}\nexploration: {kind:"
    " epsilon_greedy}\n" + REST,
    "lints": "learner: {kind: ridge, interactions: [[context, features]]}\n" + REST,
}
SLOW = {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "0"}
ITEMS, ACTIONS, FEATURES, BATCH, BODIES = 1000, 100, 8, 64, 48
BACKLOG = 500_000
TURN_S, SETTLED_S = 1.0, 0.2
SETTLING_S = 120.0
STARTS = 3
RANK = "ServeReplica:banditloop:rank"
LEARNER, ARCHIVER = "ray::LearnerActor", "ray::ArchiverActor"
STOPPED, ALONE, BOTH, LOOP = (
    "stopped",
    "learner",
    "learner and archiver",
    "an empty loop in the learner's place",
)
TURNS = STOPPED, ALONE, BOTH, LOOP
rng = np.random.default_rng(0)


def numbers(prefix: str) -> dict[str, float]:
    """Numeric features."""
    return {f"{prefix}{j}": round(float(rng.normal()), 4) for j in range(FEATURES)}


def rank_request(*, inline: bool = False) -> dict[str, object]:
    """100 actions, by catalogue id or with their features."""
    ids = rng.choice(ITEMS, ACTIONS, replace=False)
    return {
        "context": numbers("c"),
        "actions": [
            {"id": f"item{k}", **({"features": numbers("f")} if inline else {})} for k in ids
        ],
    }


def bodies(*, inline: bool = False) -> list[str]:
    """Some requests to be sent in turn."""
    return [json.dumps(rank_request(inline=inline)) for _ in range(BODIES)]


def url_of(service: Service, policy: str = "vw", what: str = "rank") -> str:
    """Where requests go."""
    return f"{service.url}/v1/policies/{policy}/{what}"


def warmed(service: Service) -> Service:
    """With a catalogue, and models that have learned a thousand decisions."""
    items = [{"id": f"item{k}", "features": numbers("f")} for k in range(ITEMS)]
    for policy in SPECS:
        put_catalogue(service, policy, items)
        for _ in range(16):
            asked = {"requests": [rank_request() for _ in range(BATCH)]}
            answer = httpx.post(
                url_of(service, policy, "rank:batch"), json=asked, timeout=60
            ).json()
            events = [
                {"event_id": each["event_id"], "value": float(rng.random())}
                for each in answer["results"]
            ]
            httpx.post(
                url_of(service, policy, "rewards"), json={"rewards": events}, timeout=60
            ).raise_for_status()
        deadline = time.monotonic() + 60
        while (
            httpx.get(f"{service.url}/v1/policies/{policy}", timeout=10).json()["learned"]
            < 16 * BATCH
        ):
            if time.monotonic() > deadline:
                raise SystemExit(f"{policy} does not learn")
            time.sleep(0.2)
    return service


def starts(folder: Path) -> tuple[float, float]:
    """Median seconds until ready, and an empty application's."""
    ours, others = [], []
    for number in range(STARTS):
        with banditloop(folder / f"ours{number}", SPECS) as service:
            ours.append(service.ready_s)
        with empty(folder / f"empty{number}") as service:
            others.append(service.ready_s)
    return statistics.median(ours), statistics.median(others)


def position(service: Service, policy: str) -> tuple[int, int]:
    """Up to where the learner says that it has read."""
    with redis.Redis.from_url(service.redis_url) as client:
        stats = client.get(Keys(policy).stats)
        return log_order(msgspec.msgpack.decode(stats)["position"] if stats else "0-0")


def behind(service: Service, policy: str) -> bool:
    """Whether the learner still has entries to read."""
    with redis.Redis.from_url(service.redis_url) as client:
        last = log_order(client.xinfo_stream(Keys(policy).log)["last-generated-id"].decode())
    return last[0] - position(service, policy)[0] > 1000


def rewriting(service: Service) -> bool:
    """Whether Valkey is rewriting its append-only file."""
    with redis.Redis.from_url(service.redis_url) as client:
        found = client.info("persistence")
        return bool(found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"])


def settle(services: Sequence[Service]) -> None:
    """Wait until everything is learned, and no Valkey rewrites its file."""
    deadline = time.monotonic() + SETTLING_S
    for service in services:
        while any(behind(service, policy) for policy in SPECS) or rewriting(service):
            if time.monotonic() > deadline:
                raise SystemExit("what was logged is not learned: see the service's log")
            time.sleep(0.2)


def of_service(service: Service, *titles: str) -> list[int]:
    """Processes of a service, by words in their titles."""
    found = [
        pid
        for pid, title in descendants(service.pid).items()
        if any(each in title for each in titles)
    ]
    if not found:
        raise SystemExit(f"no process is called {' or '.join(titles)}")
    return found


def in_turn(
    services: Sequence[Service], rounds: int, seconds: float, *loads: tuple[str, str, Sequence[str]]
) -> dict[str, list[Measured]]:
    """Load one after the other, round after round; by name. The first round only warms up."""
    found: dict[str, list[Measured]] = {name: [] for name, _, _ in loads}
    for number in range(rounds + 1):
        for name, url, sent in loads:
            settle(services)
            measured = closed_loop(url, sent, seconds if number else min(seconds, 3.0))
            if number:
                found[name].append(measured)
    return found


def ratio(found: dict[str, list[Measured]], one: str, other: str, by: float = 1.0) -> float:
    """Median over the rounds."""
    return statistics.median(
        by * a.per_s / b.per_s for a, b in zip(found[one], found[other], strict=True)
    )


def rate(found: dict[str, list[Measured]], name: str) -> float:
    """Median requests a second."""
    return statistics.median(each.per_s for each in found[name])


def compared(found: dict[str, list[Measured]], one: str, other: str) -> str:
    """Both rates, in words."""
    return f"{rate(found, one):,.0f} / {rate(found, other):,.0f} per s"


def pile_up(service: Service, policy: str, count: int) -> tuple[int, int]:
    """Put decisions like those in the log, every other one rewarded, into the log.

    The position of the last.
    """
    keys = Keys(policy)
    with redis.Redis.from_url(service.redis_url) as client:
        seen = [decode(fields[FIELD]) for _, fields in client.xrevrange(keys.log, count=2000)]
        known = [each for each in seen if isinstance(each, DecisionRecord)]
        pipeline = client.pipeline(transaction=False)
        for number in range(count):
            event_id = f"backlog-{time.time_ns()}-{number}"
            record = msgspec.structs.replace(known[number % len(known)], event_id=event_id)
            pipeline.xadd(keys.log, {FIELD: encode(record)})
            if number % 2:
                pipeline.xadd(keys.log, {FIELD: encode(RewardRecord(event_id, 1.0, "r"))})
            if len(pipeline) > 1000:
                pipeline.execute()
        pipeline.execute()
        return log_order(client.xinfo_stream(keys.log)["last-generated-id"].decode())


def tails(service: Service, capacity: float, seconds: float) -> dict[str, float]:
    """p99 of rank at 30% of capacity, ms, by who works on a backlog meanwhile.

    Turns are as long as a learner may be away and still lead.
    """
    settle([service])
    last = pile_up(service, "vw", BACKLOG)
    time.sleep(0.2)  # it looks ten times a second whether to rewrite
    while rewriting(service):
        time.sleep(0.2)
    busy: list[tuple[float, str]] = []  # from when on, and who
    ended = threading.Event()

    def let(pids: Sequence[int], *, work: bool) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT if work else signal.SIGSTOP)

    def turns() -> None:
        for who in itertools.cycle(TURNS):
            if ended.wait(TURN_S):
                return
            let(learners, work=who in (ALONE, BOTH))
            let(archivers, work=who == BOTH)
            let([loop], work=who == LOOP)
            busy.append((time.perf_counter(), who))

    learners, archivers = of_service(service, LEARNER), of_service(service, ARCHIVER)
    turning = threading.Thread(target=turns)
    with looping(Settings().learner_niceness) as loop:
        turning.start()
        try:
            taken = open_loop_each(url_of(service), bodies(), 0.3 * capacity, seconds)
        finally:
            ended.set()
            turning.join()
            let(learners + archivers, work=True)
    time.sleep(2 * TURN_S)  # what it has learned is said once a second
    if position(service, "vw") >= last or {*learners, *archivers} != set(
        of_service(service, LEARNER, ARCHIVER)
    ):
        raise SystemExit(
            "the backlog was learned before the measurement ended, or a learner died: enlarge"
            " BACKLOG"
        )
    found: dict[str, list[float]] = {who: [] for who in TURNS}
    for due, took in taken:
        begun, who = next((turn for turn in reversed(busy) if turn[0] <= due), (math.inf, STOPPED))
        if due >= begun + SETTLED_S:
            found[who].append(1e3 * took)
    return {who: float(np.quantile(each, 0.99)) for who, each in found.items()}


def fresh_ms(service: Service, capacity: float, seconds: float) -> tuple[float, float]:
    """Median and p99 under half of the capacity, for every decision of that time."""
    with redis.Redis.from_url(service.redis_url) as client:
        before = client.xinfo_stream(Keys("vw").log)["last-generated-id"].decode()
        open_loop(url_of(service), bodies(), 0.5 * capacity, seconds)
        time.sleep(2 * WINDOW_S)
        entries = (
            each
            for each in read_all(client, Keys("vw"))
            if each.time_ms > int(before.split("-")[0])
        )
        lags = freshness_ms(client, Keys("vw"), entries, 1000 * WINDOW_S)
    p50, p99 = np.quantile(lags, (0.5, 0.99))
    return float(p50), float(p99)


def processor_us(url: str, sent: Sequence[str], seconds: float) -> dict[str, float]:
    """Microseconds of processor per request, by process of this machine."""
    before = by_process()
    measured = closed_loop(url, sent, seconds)
    return per_request_us(before, by_process(), measured.per_s * seconds)


def main() -> int:
    """Measure, print, exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    arguments = parser.parse_args()
    rounds, seconds = arguments.rounds, arguments.seconds
    table = Table()
    with tempfile.TemporaryDirectory(prefix="serving-") as name:
        folder = Path(name)
        ready, empty_ready = starts(folder)
        table.add(
            f"ready from cold - an empty application's time, medians of {STARTS}, s",
            f"{ready:.1f} - {empty_ready:.1f}",
            ready - empty_ready,
            at_most=5.0,
        )
        with banditloop(folder / "ours", SPECS) as ours:
            warmed(ours)
            by_id, inline = bodies(), bodies(inline=True)
            batches = [
                json.dumps(
                    {"requests": [json.loads(each) for each in bodies()[:BATCH] + by_id][:BATCH]}
                )
                for _ in range(4)
            ]
            with empty(folder / "empty") as nothing:
                found = in_turn(
                    [ours],
                    rounds,
                    seconds,
                    ("ours", url_of(ours), by_id),
                    ("empty", nothing.url + "/rank", by_id),
                    ("lints", url_of(ours, "lints"), by_id),
                    ("inline", url_of(ours), inline),
                )
                table.add(
                    "rank of 100 actions by id / empty endpoint",
                    f"{compared(found, 'ours', 'empty')} = {ratio(found, 'ours', 'empty'):.2f}",
                    ratio(found, "ours", "empty"),
                    at_least=0.6,
                )
                for each in ("lints", "inline"):
                    what = (
                        "the same, LinTS"
                        if each == "lints"
                        else "the same, 100 inline actions x 8 features"
                    )
                    table.add(
                        what,
                        f"{rate(found, each):,.0f} per s = {ratio(found, each, 'empty'):.2f}",
                        ratio(found, each, "empty"),
                    )
                for which, url in (("ours", url_of(ours)), ("empty", nothing.url + "/rank")):
                    settle([ours])
                    used = processor_us(url, by_id, seconds)
                    written = ", ".join(f"{who} {us:,.0f}" for who, us in used.items())
                    table.add(
                        f"processor time of a request, {which}, us", written, sum(used.values())
                    )
            capacity = rate(found, "ours")
            settle([ours])
            p50, p99 = fresh_ms(ours, capacity, 2 * seconds)
            table.add(
                "learnable until served by every replica, under load, ms",
                f"p50 {p50:,.0f}, p99 {p99:,.0f}",
                p99,
                at_most=1000,
            )
            p99_ms = tails(ours, capacity, 10 * seconds)
            for who, most in ((ALONE, 1.5), (BOTH, None), (LOOP, None)):
                times = p99_ms[who] / p99_ms[STOPPED]
                table.add(
                    f"p99 of rank at 30%: {who} flat out / stopped",
                    f"{p99_ms[who]:.1f} / {p99_ms[STOPPED]:.1f} ms = {times:.2f}",
                    times,
                    at_most=most,
                )
            found = in_turn(
                [ours],
                rounds,
                seconds,
                ("ours", url_of(ours), by_id),
                ("batch", url_of(ours, "vw", "rank:batch"), batches),
            )
            batch = ratio(found, "batch", "ours", by=BATCH)
            table.add(
                "rank:batch of 64 / single rank",
                f"{BATCH * rate(found, 'batch'):,.0f} decisions per s = {batch:.1f} x",
                batch,
                at_least=4.0,
            )
            table.add(
                "rank:batch of 64, decisions per s",
                f"{BATCH * rate(found, 'batch'):,.0f}",
                BATCH * rate(found, "batch"),
                at_least=6000,
            )
            resident = sum(rss_of(pid) for pid in of_service(ours, RANK)) / 1e6
            table.add(
                "memory of a rank replica, MB",
                f"{resident:,.0f}",
                resident,
            )
            with banditloop(folder / "default", SPECS, environment=SLOW) as default:
                warmed(default)
                slow = in_turn(
                    [ours, default],
                    max(2, rounds // 2),
                    seconds,
                    ("ours", url_of(ours), by_id),
                    ("default", url_of(default), by_id),
                )
                table.add(
                    "rank of 100 actions by id / Serve's default settings",
                    f"{compared(slow, 'ours', 'default')} = {ratio(slow, 'ours', 'default'):.1f} x",
                    ratio(slow, "ours", "default"),
                    at_least=5.0,
                )
    return table.finish(arguments.out)


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.exit(main())
