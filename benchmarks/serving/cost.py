"""The processor time of one `rank`: this build, another build and an empty endpoint, in turn.

    python -m benchmarks.serving.cost [--against COMMIT] [--quick] [--out cost.json]
                                                                (33 minutes; quick: six)

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
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks.serving.load import closed_loop
from benchmarks.serving.processor import name_of
from benchmarks.serving.serve import SPECS, WINDOW_S, bodies, settle, url_of, warmed
from benchmarks.serving.services import Service, banditloop, empty
from benchmarks.soak.service import descendants
from benchmarks.table import Table

HERE = Path(__file__).resolve().parents[2]
BEFORE = "1c51045"
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
WARM_UP_S, IDLE_S, SPELLS = 3.0, 2.5, 5
EMPTY = "an empty endpoint"


@dataclass(frozen=True, slots=True)
class Turn:
    """Microseconds of processor per request, by what the process is.

    ``resting_us``: what it uses anyway, too.
    """

    us: dict[str, float]
    resting_us: float

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
    def of(cls, ours: Sequence[Sequence[Turn]], others: Sequence[Sequence[Turn]]) -> "Ratio":
        """``ours[i][j] / others[i][j]``: start i, turn j, which were measured side by side.

        Starts alternate between two orders; at least two of each.
        """
        logs = np.array(
            [
                np.mean([math.log(a.total / b.total) for a, b in zip(*turns, strict=True)])
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


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit of this repository."""
    with tempfile.TemporaryDirectory(prefix="build-") as name:
        archive = Path(name) / "build.tar"
        command = ["git", "-C", str(HERE), "archive", "-o", str(archive), commit]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - git, on this repository
        if done.returncode:
            raise SystemExit(
                f"--against {commit}: {done.stderr.strip()} (a shallow clone? git fetch"
                " --unshallow)"
            )
        with tarfile.open(archive) as files:
            files.extractall(name, filter="data")
        archive.unlink()
        yield Path(name)


@contextlib.contextmanager
def build(code: Path, folder: Path) -> Iterator[Service]:
    """The service as the code in this folder has it, warmed up."""
    project = tomllib.loads((code / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["banditloop"].partition(":")
    start = [sys.executable, "-c", f"from {module} import {function}; {function}()"]
    environment = {"PYTHONPATH": f"{code}:{code / 'clients' / 'python'}"}
    with banditloop(folder, SPECS, command=start, environment=environment) as service:
        yield warmed(service)


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
    if learns:
        time.sleep(WINDOW_S + 0.5)
        settle([service])
    after, took = used_s(service.pid), time.monotonic() - began

    used = {
        name: 1e6 * (s - before[name] - resting.get(name, 0.0) * took) / requests
        for name, s in after.items()
    }
    return Turn(used, 1e6 * took * sum(resting.values()) / requests)


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


def main() -> int:
    """Measure, print, exit 1 if this build costs more."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--against", default=BEFORE, metavar="COMMIT", help=f"the other build (default {BEFORE})"
    )
    parser.add_argument("--starts", type=int, help="of the services: 12, in the quick form 4")
    parser.add_argument(
        "--turns", type=int, help="of each service, a start: 3, in the quick form 1"
    )
    parser.add_argument("--seconds", type=float, help="of load in a turn: 4, in the quick form 3")
    parser.add_argument(
        "--at-most", type=float, default=1.03, help="the ratio that passes (default 1.03)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer starts; fails only what is surely above"
    )
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    given = parser.parse_args()
    starts = given.starts or (4 if given.quick else 12)
    turns = given.turns or (1 if given.quick else 3)
    seconds = given.seconds or (3.0 if given.quick else 4.0)
    if starts < 4 or starts % 2:
        parser.error(
            "--starts: an even number, at least 4: this build is started first in half of them"
        )

    found: dict[str, list[list[Turn]]] = {
        "this build": [],
        given.against: [],
        **({} if given.quick else {EMPTY: []}),
    }
    resting: dict[str, list[dict[str, float]]] = {who: [] for who in found}
    with tempfile.TemporaryDirectory(prefix="cost-") as name, checked_out(given.against) as other:
        for number in range(starts):
            measured, rest = one_start(
                Path(name) / str(number), other, number, turns, seconds, quick=given.quick
            )
            for who, its_turns, used in zip(found, measured, rest, strict=True):
                found[who].append(its_turns)
                resting[who].append(used)
            us = ", ".join(f"{np.mean([each.total for each in its]):,.0f}" for its in measured)
            print(f"start {number + 1} of {starts}: {us} us", file=sys.stderr, flush=True)

    table = Table()
    mine, before = list(found.values())[:2]
    for who, by_start in found.items():
        measured = [each for one in by_start for each in one]
        used_ms = 1e3 * float(np.mean([sum(rest.values()) for rest in resting[who]]))
        table.add(f"processor time while nobody asks, {who}, ms/s", f"{used_ms:,.0f}", used_ms)
        us = float(np.mean([each.total for each in measured]))
        table.add(f"processor time of a rank, {who}, us", f"{us:,.0f}: {by_process(measured)}", us)
        both = us + float(np.mean([each.resting_us for each in measured]))
        table.add(f"the same, and what is used meanwhile anyway, {who}, us", f"{both:,.0f}", both)
    if EMPTY in found:
        over_empty = Ratio.of(mine, found[EMPTY])
        table.add(f"this build / {EMPTY}", str(over_empty), over_empty.value)
    ratio = Ratio.of(mine, before)
    bound, which = (ratio.low, "begins") if given.quick else (ratio.high, "ends")
    what = f"this build / {given.against}: where the interval {which}"
    table.add(what, str(ratio), bound, at_most=given.at_most)
    return table.finish(
        given.out,
        starts=starts,
        turns=turns,
        seconds=seconds,
        against=given.against,
        turn_us={who: [[each.us for each in one] for one in by] for who, by in found.items()},
        resting=resting,
    )


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.exit(main())
