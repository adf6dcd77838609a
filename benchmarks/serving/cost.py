"""The processor time of one `rank`: this build, another build and an empty endpoint, in turn.

    python -m benchmarks.serving.cost [--against COMMIT] [--quick] [--out cost.json]       (seven minutes; quick: four)

All three services run side by side and are loaded one after the other (wrk, 8 connections); which
build comes first alternates, and after half of the turns they are started anew, in the other order.
Everything that a service has started counts: replicas, learner, archiver, Valkey, HAProxy, Ray's
processes. A turn counts from the start of its load until everything that it logged is learned, so
work that is put off counts as well. What the service uses while nobody asks is measured first, and
taken off: it depends on how long a turn takes, not on how many ask; it has a row of its own, and so
has the sum of both. The requests are those of `serving.py`: 100 catalogue ids, 8 features each,
every decision synced to disk.

A ratio is the geometric mean over the turns, each against the other build's turn beside it; its
interval is Student's t of the logarithms, 95%. The full form passes when the interval ends at or
below `--at-most`: the build is shown to cost no more. The quick form has fewer turns, for CI, and
fails only when the interval lies wholly above it.

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
WARM_UP_S, IDLE_S = 3.0, 6.0


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
    def of(cls, ours: Sequence[Turn], others: Sequence[Turn]) -> "Ratio":
        """``ours[i] / others[i]``, which were measured side by side; at least two of each."""
        logs = np.log([a.total / b.total for a, b in zip(ours, others, strict=True)])
        half = float(stats.t.ppf(0.975, logs.size - 1) * logs.std(ddof=1) / math.sqrt(logs.size))
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
    with banditloop(folder, SPECS, command=start, environment={"PYTHONPATH": str(code)}) as service:
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


def idle(services: Sequence[Service]) -> list[dict[str, float]]:
    """Seconds of processor a second of each service, by what the process is, while nobody asks."""
    before = [used_s(service.pid) for service in services]
    time.sleep(IDLE_S)
    return [
        {name: (s - earlier[name]) / IDLE_S for name, s in used_s(service.pid).items()}
        for service, earlier in zip(services, before, strict=True)
    ]


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


def side_by_side(
    folder: Path,
    other: Path,
    block: int,
    turns: int,
    seconds: float,
    found: dict[str, list[Turn]],
    resting: dict[str, list[dict[str, float]]],
) -> None:
    """Half of the turns, with services of their own: which build is started first alternates as well.

    A process keeps the memory and the place among others that it began with, and costs a few per
    cent more or less by it for as long as it lives.
    """
    sent, codes = bodies(), (HERE, other)
    with contextlib.ExitStack() as stack:
        services: dict[int, Service] = {}
        for at in (0, 1) if block % 2 == 0 else (1, 0):
            services[at] = stack.enter_context(build(codes[at], folder / f"build{at}"))
        services[2] = stack.enter_context(empty(folder / "empty"))
        urls = url_of(services[0]), url_of(services[1]), services[2].url + "/rank"
        rest: list[dict[str, float]] = [{}, {}, {}]

        for number in range(turns // 2 + 1):
            for at in (0, 1, 2) if (number + block) % 2 else (1, 0, 2):
                load_s = seconds if number else WARM_UP_S
                one = turn(services[at], urls[at], sent, load_s, rest[at], learns=at < 2)
                if number:
                    list(found.values())[at].append(one)
            if number == 0:
                rest = idle([services[at] for at in range(3)])
                for who, used in zip(found, rest, strict=True):
                    resting[who].append(used)
            print(
                f"\rturn {block * (turns // 2) + number} of {turns}",
                end="",
                file=sys.stderr,
                flush=True,
            )


def main() -> int:
    """Measure, print, exit 1 if this build costs more."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--against", default=BEFORE, metavar="COMMIT", help=f"the other build (default {BEFORE})"
    )
    parser.add_argument("--turns", type=int, help="of each service: 12, in the quick form 4")
    parser.add_argument("--seconds", type=float, help="of load in a turn: 5, in the quick form 2")
    parser.add_argument(
        "--at-most", type=float, default=1.03, help="the ratio that passes (default 1.03)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer turns; fails only what is surely above"
    )
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    given = parser.parse_args()
    turns = given.turns or (4 if given.quick else 12)
    seconds = given.seconds or (2.0 if given.quick else 5.0)
    if turns < 4 or turns % 2:
        parser.error(
            "--turns: an even number, at least 4: half of them with services that were started the"
            " other way"
        )

    found: dict[str, list[Turn]] = {"this build": [], given.against: [], "an empty endpoint": []}
    resting: dict[str, list[dict[str, float]]] = {who: [] for who in found}
    with tempfile.TemporaryDirectory(prefix="cost-") as name, checked_out(given.against) as other:
        for block in (0, 1):
            side_by_side(Path(name) / str(block), other, block, turns, seconds, found, resting)
    print(file=sys.stderr)

    table = Table()
    mine, before, least = found.values()
    for who, measured in found.items():
        used_ms = 1e3 * float(np.mean([sum(rest.values()) for rest in resting[who]]))
        table.add(f"processor time while nobody asks, {who}, ms/s", f"{used_ms:,.0f}", used_ms)
        us = float(np.mean([each.total for each in measured]))
        table.add(f"processor time of a rank, {who}, us", f"{us:,.0f}: {by_process(measured)}", us)
        both = us + float(np.mean([each.resting_us for each in measured]))
        table.add(f"the same, and what is used meanwhile anyway, {who}, us", f"{both:,.0f}", both)
    ratio, over_empty = Ratio.of(mine, before), Ratio.of(mine, least)
    table.add("this build / an empty endpoint", str(over_empty), over_empty.value)
    bound, which = (ratio.low, "begins") if given.quick else (ratio.high, "ends")
    what = f"this build / {given.against}: where the interval {which}"
    table.add(what, str(ratio), bound, at_most=given.at_most)
    return table.finish(given.out, turns=turns, seconds=seconds, against=given.against)


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.exit(main())
