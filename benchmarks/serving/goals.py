"""The rows of `cost.py` beside the cost of a rank: throughput beside an empty endpoint, latency, batches.

    python -m benchmarks.serving.cost --only throughput,lints,inline,latency,batch

This build, the other one and an empty application of the same Serve run side by side, and are
loaded one after the other, round after round, by wrk. Each ratio is the median over the rounds of
what two of them did beside each other; the least and the greatest stand behind it. A load begins
when what was logged before is learned. Rates and latencies need a machine that nobody else uses.

The row of the latency has a second one, which is its limit: the way to a replica of this build and
back (its liveness), and an entry appended to this build's log and synced, with nothing decided.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import redis

from benchmarks.serving.builds import HERE, build
from benchmarks.serving.load import Measured, closed_loop
from benchmarks.serving.serve import BATCH, bodies, settle, url_of
from benchmarks.serving.services import Service, empty
from benchmarks.table import Table

OURS, OTHER, EMPTY = "this build", "the other build", "an empty endpoint"
WARM_UP_S = 3.0


@dataclass(frozen=True, slots=True)
class Goal:
    """A row: what two services do, divided.

    Attributes:
        row: what `--only` calls it.
        what: in words.
        beside: the one that this build is divided by.
        most: it is to be at most that; None: there is a ``least``.
        least: the same of at least.
        policy: whose requests are sent; an empty endpoint has none.
        body: catalogue, inline or batch.
        connections: of wrk.
        by: what is measured: answers per second, or the median latency.
    """

    row: str
    what: str
    beside: str
    most: float | None = None
    least: float | None = None
    policy: str = "vw"
    body: str = "catalogue"
    connections: int = 8
    by: str = "per_s"


GOALS = (
    Goal("throughput", "rank, 8 connections", EMPTY, least=0.60),
    Goal("throughput", "rank, 64 connections", EMPTY, least=0.70, connections=64),
    Goal("inline", "rank of 100 inline actions x 8 features", EMPTY, least=0.30, body="inline"),
    Goal("lints", "rank by LinTS", EMPTY, least=0.50, policy="lints"),
    Goal("latency", "rank, one connection, p50", OTHER, most=0.6, connections=1, by="p50_ms"),
    Goal("batch", f"rank:batch of {BATCH}, decisions/s", OTHER, least=2.5, body="batch"),
)
ROWS = tuple(dict.fromkeys(goal.row for goal in GOALS))
FOOTPRINT = "footprint"
APPENDS, ENTRY_BYTES = 400, 700
"""How many entries are appended in a round to see how long that takes, and of how many bytes."""


def requests() -> dict[str, list[str]]:
    """The bodies by kind; those of `serve.py`."""
    by_id = bodies()
    one = [json.loads(each) for each in (*by_id, *bodies())]
    batches = [json.dumps({"requests": one[at : at + BATCH]}) for at in range(4)]
    return {"catalogue": by_id, "inline": bodies(inline=True), "batch": batches}


def load(goal: Goal, service: Service, who: str, sent: Sequence[str], seconds: float) -> Measured:
    """Load one of the services as a goal says."""
    what = "rank:batch" if goal.body == "batch" else "rank"
    url = service.url + "/rank" if who == EMPTY else url_of(service, goal.policy, what)
    if who != EMPTY:
        settle([service])
    return closed_loop(url, sent, seconds, goal.connections)


def measure(
    table: Table, other: Path, folder: Path, rows: Sequence[str], *, rounds: int, seconds: float
) -> None:
    """Add the rows that are asked for.

    Args:
        table: to which they are added.
        other: the code of the other build.
        folder: where the services keep their data.
        rows: of ROWS.
        rounds: how often each is measured; a first one warms up.
        seconds: of a load.
    """
    goals = [goal for goal in GOALS if goal.row in rows]
    wanted = {OURS, *(goal.beside for goal in goals)}
    sent = requests()
    with contextlib.ExitStack() as stack:
        services = {OURS: stack.enter_context(build(HERE, folder / "ours"))}
        if OTHER in wanted:
            services[OTHER] = stack.enter_context(build(other, folder / "other"))
        if EMPTY in wanted:
            services[EMPTY] = stack.enter_context(empty(folder / "empty"))

        found: dict[tuple[Goal, str], list[Measured]] = {}
        ways: list[tuple[float, float]] = []
        for number in range(rounds + 1):
            for goal in goals:
                pair = (OURS, goal.beside) if number % 2 else (goal.beside, OURS)
                for who in pair:
                    length = seconds if number else min(seconds, WARM_UP_S)
                    one = load(goal, services[who], who, sent[goal.body], length)
                    if number:
                        found.setdefault((goal, who), []).append(one)
                if number and goal.row == "latency":
                    ways.append(way_alone(services[OURS], min(seconds, WARM_UP_S)))

    for goal in goals:
        mine, theirs = (
            [getattr(each, goal.by) for each in found[goal, who]] for who in (OURS, goal.beside)
        )
        ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
        middle, a, b = (statistics.median(each) for each in (ratios, mine, theirs))
        times = BATCH if goal.body == "batch" else 1
        figures = (
            f"{times * a:,.2f} / {times * b:,.2f}"
            if goal.by == "p50_ms"
            else (f"{times * a:,.0f} / {times * b:,.0f}")
        )
        said = f"{figures} = {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        what = f"{goal.what}, {OURS} / {goal.beside}"
        table.add(what, said, middle, at_most=goal.most, at_least=goal.least)
        if goal.row == "latency":
            answers, appends = map(statistics.median, zip(*ways, strict=True))
            alone = (answers + appends) / b
            said = f"({answers:.2f} + {appends:.2f}) / {b:.2f} = {alone:.2f}"
            table.add(f"the way and a synced entry, nothing decided, / {goal.beside}", said, alone)


def way_alone(service: Service, seconds: float) -> tuple[float, float]:
    """Return the median ms of an answer in which nothing is decided, and of an entry on disk."""
    answers = closed_loop(service.url + "/livez", [], seconds, 1)
    took = []
    with redis.Redis.from_url(service.redis_url) as client:
        for _ in range(APPENDS):
            began = time.perf_counter()
            client.xadd("benchmark:way", {"r": b"x" * ENTRY_BYTES}, maxlen=1000)
            took.append(1e3 * (time.perf_counter() - began))
    return answers.p50_ms, statistics.median(took)


def footprint(table: Table, against: str, folder: Path, starts: int) -> None:
    """Add the rows of `benchmarks/soak/footprint.py`.

    Args:
        table: to which they are added.
        against: the commit of the other build.
        folder: where it leaves what it has measured.
        starts: of each build.
    """
    out = folder / "footprint.json"
    command = [sys.executable, "-m", "benchmarks.soak.footprint", "--against", against]
    command += ["--starts", str(starts), "--out", str(out)]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, cwd=HERE)  # noqa: S603 - this project's own
    if not out.exists():
        raise SystemExit("benchmarks.soak.footprint has measured nothing: run it by itself")
    for row in msgspec.json.decode(out.read_bytes())["rows"]:
        bound = float(row["goal"][2:].replace(",", "")) if row["goal"] else None
        least = bound if row["goal"].startswith("≥") else None
        most = bound if row["goal"].startswith("≤") else None
        table.add(row["what"], row["measured"], row["value"], at_most=most, at_least=least)
