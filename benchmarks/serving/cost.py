"""The processor time of one `rank`: this build, another build and an empty endpoint, in turn.

    python -m benchmarks.serving.cost [--against COMMIT] [--quick] [--only ROWS] [--out cost.json]
                                            (33 minutes and the other rows; quick: six, and none)

`--only rank,throughput` measures these rows alone: the gate (a rank costs no more than in the other
build), rank (half as much), those of `goals.py` and the footprint. What follows is of the first two.

All three services run side by side and are loaded one after the other (wrk, 8 connections). A
process keeps the memory and the place among others that it began with, and costs a few per cent
more or less by it for as long as it lives: so the services are started many times, this build first
and the other build first in turn. Everything that a service has started counts: replicas, learner,
archiver, Valkey, HAProxy, Ray's processes. A turn counts from the start of its load until
everything that it logged is learned, so work that is put off counts as well. What the service uses
while nobody asks is measured first, and taken off: it depends on how long a turn takes, not on how
many ask; it has a row of its own, and so has the sum of both. It is the mean of the middle three of
five spells (quick: the middle one of three), so that what happens once does not count as if it went
on all the time. The requests are those of `serve.py`: 100 catalogue ids, 8 features each, every
decision synced to disk.

One start gives one ratio, the geometric mean over its turns, each against the other build's turn
beside it. The result is the geometric mean over the starts; its interval is Student's t of the
logarithms, 95%, with which build was started first as a factor of the model. The full form passes
when the interval ends at or below `--at-most`: the build is shown to cost no more. The quick form
has fewer starts and no empty endpoint, for a look after a change, and fails only when the interval
lies wholly above it.

The other build is taken from git into a folder of its own and runs on the same installed packages.
"""

import argparse
import contextlib
import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.serving import goals
from benchmarks.serving.builds import HERE, build, checked_out
from benchmarks.serving.load import closed_loop
from benchmarks.serving.processor import name_of
from benchmarks.serving.serve import WINDOW_S, bodies, settle, url_of
from benchmarks.serving.services import Service, empty
from benchmarks.soak.service import descendants
from benchmarks.table import Table

BEFORE = "1c51045"
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
WARM_UP_S, IDLE_S, SPELLS = 3.0, 2.5, 5
EMPTY = "an empty endpoint"
GATE, RANK = "gate", "rank"
HALVED = 0.55
"""What a rank may cost of what it cost in 1c51045."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Microseconds of processor per request, by what the process is.

    ``loaded_us``: all that was used while it was asked, what it uses anyway among it, and what it
    learned later of what it was asked.
    """

    us: dict[str, float]
    loaded_us: float

    @property
    def total(self) -> float:
        """The sum over all processes, without what is used anyway."""
        return sum(self.us.values())


@dataclass(frozen=True, slots=True)
class Ratio:
    """A geometric mean of ratios, and its 95% interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(
        cls,
        ours: Sequence[Sequence[Turn]],
        others: Sequence[Sequence[Turn]],
        *,
        meanwhile: bool = False,
    ) -> "Ratio":
        """``ours[i][j] / others[i][j]``: start i, turn j, which were measured side by side.

        Starts alternate between two orders; at least two of each. ``meanwhile``: with what is used
        anyway while it is asked.
        """

        def us(turn: Turn) -> float:
            return turn.loaded_us if meanwhile else turn.total

        logs = np.array(
            [
                np.mean([math.log(us(a) / us(b)) for a, b in zip(*turns, strict=True)])
                for turns in zip(ours, others, strict=True)
            ]
        )
        orders = logs[0::2], logs[1::2]

        freedom = logs.size - 2
        within = sum(float(np.square(one - one.mean()).sum()) for one in orders)
        half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(within / freedom / logs.size)
        mean = float(logs.mean())
        return cls(math.exp(mean), math.exp(mean - half), math.exp(mean + half))

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def used_s(root: int) -> Counter[str]:
    """Seconds of processor that a process and all it has started have used, by what the process is.

    Processes that have ended count for those that waited for them.
    """
    used: Counter[str] = Counter()
    for pid, title in descendants(root).items():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used[name_of(title)] += sum(map(int, fields[11:15])) * TICK_S
    return used


def idle(services: Sequence[Service], count: int) -> list[dict[str, float]]:
    """Seconds of processor a second of each service, by what the process is, while nobody asks.

    ``count``: of spells, at least three.
    """
    spells: list[list[Counter[str]]] = [[] for _ in services]
    for _ in range(count):
        before = [used_s(service.pid) for service in services]
        time.sleep(IDLE_S)
        for at, service in enumerate(services):
            after = used_s(service.pid)
            after.subtract(before[at])
            spells[at].append(after)
    return [middle(each) for each in spells]


def middle(spells: Sequence[Counter[str]]) -> dict[str, float]:
    """Mean seconds a second of the spells that used neither most nor least."""
    kept = sorted(spells, key=Counter.total)[1:-1]
    return {
        name: sum(each[name] for each in kept) / len(kept) / IDLE_S for name in set().union(*kept)
    }


def turn(
    service: Service,
    url: str,
    sent: Sequence[str],
    seconds: float,
    resting: dict[str, float],
    *,
    learns: bool,
) -> Turn:
    """Load a service, wait until it has learned what it was asked, and divide what that took by the requests.

    ``resting``: what it uses a second when nobody asks.
    """
    before, began = used_s(service.pid), time.monotonic()
    requests = closed_loop(url, sent, seconds).per_s * seconds
    asked_s = time.monotonic() - began
    if learns:
        time.sleep(WINDOW_S + 0.5)
        settle([service])
    after, took = used_s(service.pid), time.monotonic() - began

    used = {
        name: 1e6 * (s - before[name] - resting.get(name, 0.0) * took) / requests
        for name, s in after.items()
    }
    anyway_us = 1e6 * asked_s * sum(resting.values()) / requests
    return Turn(used, sum(used.values()) + anyway_us)


def by_process(turns: Sequence[Turn]) -> str:
    """Means by process, the largest first; below 5 us is left out."""
    names = {name for each in turns for name in each.us}
    means = {name: float(np.mean([each.us.get(name, 0.0) for each in turns])) for name in names}
    return ", ".join(
        f"{name} {us:,.0f}" for name, us in sorted(means.items(), key=lambda m: -m[1]) if us >= 5
    )


def one_start(
    folder: Path, other: Path, number: int, turns: int, seconds: float, *, quick: bool
) -> tuple[list[list[Turn]], list[dict[str, float]]]:
    """Start the services, in an order that alternates, and load each in turn.

    Args:
        folder: where they keep their data.
        other: the code of the other build.
        number: of the start, from 0.
        turns: of each service.
        seconds: of load in a turn.
        quick: there is no empty endpoint, and there are fewer spells of rest.

    Returns:
        The turns of this build, the other build and the empty endpoint; and what each of them uses
        in a second while nobody asks.
    """
    sent, codes = bodies(), (HERE, other)
    with contextlib.ExitStack() as stack:
        services: dict[int, Service] = {}
        for at in (0, 1) if number % 2 == 0 else (1, 0):
            services[at] = stack.enter_context(build(codes[at], folder / f"build{at}"))
        urls = [url_of(services[0]), url_of(services[1])]
        if not quick:
            services[2] = stack.enter_context(empty(folder / "empty"))
            urls.append(services[2].url + "/rank")

        # The first load warms up; then nobody asks, to see what is used anyway.
        for at, url in enumerate(urls):
            turn(services[at], url, sent, WARM_UP_S, {}, learns=at < 2)
        spells = SPELLS - 2 if quick else SPELLS
        resting = idle([services[at] for at in range(len(urls))], spells)

        found: list[list[Turn]] = [[] for _ in urls]
        for k in range(turns):
            order = (0, 1) if (number + k) % 2 else (1, 0)
            for at in order if quick else (*order, 2):
                one = turn(services[at], urls[at], sent, seconds, resting[at], learns=at < 2)
                found[at].append(one)
    return found, resting


def measure(
    table: Table, against: str, other: Path, folder: Path, given: argparse.Namespace
) -> dict[str, Any]:
    """Add the rows of the gate and of the goal; return what they follow from.

    Args:
        table: to which they are added.
        against: what the other build is called.
        other: its code.
        folder: where the services keep their data.
        given: what the command was given.
    """
    found: dict[str, list[list[Turn]]] = {
        "this build": [],
        against: [],
        **({} if given.quick else {EMPTY: []}),
    }
    resting: dict[str, list[dict[str, float]]] = {who: [] for who in found}
    for number in range(given.starts):
        measured, rest = one_start(
            folder / str(number), other, number, given.turns, given.seconds, quick=given.quick
        )
        for who, its_turns, used in zip(found, measured, rest, strict=True):
            found[who].append(its_turns)
            resting[who].append(used)
        us = ", ".join(f"{np.mean([each.total for each in its]):,.0f}" for its in measured)
        print(f"start {number + 1} of {given.starts}: {us} us", file=sys.stderr, flush=True)

    for who, by_start in found.items():
        turns = [each for one in by_start for each in one]
        used_ms = 1e3 * float(np.mean([sum(rest.values()) for rest in resting[who]]))
        table.add(f"processor time while nobody asks, {who}, ms/s", f"{used_ms:,.0f}", used_ms)
        us = float(np.mean([each.total for each in turns]))
        table.add(f"processor time of a rank, {who}, us", f"{us:,.0f}: {by_process(turns)}", us)
        both = float(np.mean([each.loaded_us for each in turns]))
        table.add(f"the same, and what is used meanwhile anyway, {who}, us", f"{both:,.0f}", both)
    mine, before = list(found.values())[:2]
    if EMPTY in found:
        over_empty = Ratio.of(mine, found[EMPTY])
        table.add(f"this build / {EMPTY}", str(over_empty), over_empty.value)

    which = "begins" if given.quick else "ends"
    for row, words, most in (
        (GATE, "", given.at_most),
        (RANK, "the same, with what is used meanwhile anyway, ", HALVED),
    ):
        ratio = Ratio.of(mine, before, meanwhile=row == RANK)
        bound = ratio.low if given.quick else ratio.high
        what = f"{words}this build / {against}: where the interval {which}"
        table.add(what, str(ratio), bound, at_most=most if row in given.only else None)
    turn_us = {who: [[each.us for each in one] for one in by] for who, by in found.items()}
    return {"turn_us": turn_us, "resting": resting}


def read_arguments() -> argparse.Namespace:
    """The command's options, with what follows from them."""
    rows = (GATE, RANK, *goals.ROWS, goals.FOOTPRINT)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--against", default=BEFORE, metavar="COMMIT", help=f"the other build (default {BEFORE})"
    )
    parser.add_argument("--only", help=f"some of {', '.join(rows)}; quick: {GATE} by default")
    parser.add_argument("--starts", type=int, help="of the services: 12, in the quick form 4")
    parser.add_argument(
        "--turns", type=int, help="of each service, a start: 3, in the quick form 1"
    )
    parser.add_argument("--seconds", type=float, help="of load in a turn: 4, in the quick form 3")
    parser.add_argument(
        "--at-most", type=float, default=1.03, help="the gate's ratio that passes (default 1.03)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer starts; fails only what is surely above"
    )
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")

    given = parser.parse_args()
    given.starts = given.starts or (4 if given.quick else 12)
    given.turns = given.turns or (1 if given.quick else 3)
    given.seconds = given.seconds or (3.0 if given.quick else 4.0)
    if given.starts < 4 or given.starts % 2:
        parser.error(
            "--starts: an even number, at least 4: this build is started first in half of them"
        )
    given.only = given.only.split(",") if given.only else [GATE] if given.quick else list(rows)
    if unknown := set(given.only).difference(rows):
        parser.error(f"--only: no row {min(unknown)}; there are {', '.join(rows)}")
    return given


def main() -> int:
    """Measure, print, exit 1 if a goal is missed."""
    given = read_arguments()
    table, kept = Table(), dict[str, Any]()
    with tempfile.TemporaryDirectory(prefix="cost-") as name, checked_out(given.against) as other:
        folder = Path(name)
        if {GATE, RANK}.intersection(given.only):
            kept = measure(table, given.against, other, folder, given)
        if rows := [row for row in goals.ROWS if row in given.only]:
            rounds = 2 if given.quick else 8
            goals.measure(table, other, folder, rows, rounds=rounds, seconds=given.seconds)
        if goals.FOOTPRINT in given.only:
            goals.footprint(table, given.against, folder, 1 if given.quick else 3)
    more = {name: getattr(given, name) for name in ("starts", "turns", "seconds", "against")}
    return table.finish(given.out, **more, **kept)


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.exit(main())
