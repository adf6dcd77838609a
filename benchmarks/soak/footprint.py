"""What a service takes before anybody asks it: memory, time to start, time to end; and `--help`.

    python -m benchmarks.soak.footprint [--against COMMIT] [--starts 3] [--out footprint.json]

This build and the other one are started in turn, each alone, with the two policies of
`benchmarks/serving/serve.py`. Memory is the proportional set size (PSS) of all processes that the command has started, 15 s after
the service is ready: what several share counts once. Ready is from the start of the command to the
first answer; beside it stands the processor time of all processes until then, which says more on a
machine that others use. To end the service, a signal goes to the whole group of its processes while
requests come; it has ended when none of them is left. Then the log is read: every decision that was
answered as logged has to be there. What each process holds is printed as well. `--starts 1` is the
short form. `banditloop --help` is run five times, and the least counts.
"""

import argparse
import contextlib
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import redis

from bandits.log.codec import decode
from bandits.log.records import DecisionRecord
from benchmarks.serving.builds import HERE, checked_out
from benchmarks.serving.cost import BEFORE, used_s
from benchmarks.serving.serve import SPECS
from benchmarks.soak.service import descendants
from benchmarks.table import Table
from serve_app.client import is_ready
from serve_app.host.embedded import embedded_valkey
from serve_app.host.environment import free_port
from serve_app.store.event_log import FIELD
from serve_app.store.keys import Keys

READY_S, SETTLES_S, ENDS_S = 600.0, 15.0, 90.0
POLL_S = 0.02
ASKED = {"actions": [{"id": "a"}, {"id": "b"}]}


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of one start: MB, processes, seconds until ready, processor seconds until then, seconds to end."""

    pss_mb: float
    processes: int
    ready_s: float
    processor_s: float
    end_s: float
    lost: int
    acknowledged: int


def command_of(code: Path) -> list[str]:
    """The command of a build."""
    project = tomllib.loads((code / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["banditloop"].partition(":")
    return [sys.executable, "-c", f"from {module} import {function}; {function}()"]


def environment_of(code: Path) -> dict[str, str]:
    """The environment in which Python finds a build's code."""
    return {**os.environ, "PYTHONPATH": f"{code}:{code / 'clients' / 'python'}"}


def pss_mb(pid: int) -> float:
    """The proportional set size of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def memory(root: int) -> list[tuple[float, str]]:
    """The same of each process that one has started, and of itself, with its command line; largest first."""
    found = []
    for pid, title in descendants(root).items():
        with contextlib.suppress(OSError, StopIteration):
            found.append((pss_mb(pid), title))
    return sorted(found, reverse=True)


def alive(pids: Sequence[int]) -> list[int]:
    """Those processes that have not ended."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(pid)
    return found


@contextlib.contextmanager
def asking(url: str) -> Iterator[list[str]]:
    """Ask for decisions all the time; the ids of those that were answered as logged."""
    logged: list[str] = []
    ended = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=5) as client:
            while not ended.is_set():
                with contextlib.suppress(httpx.HTTPError, ValueError):
                    answer = client.post(f"{url}/v1/policies/vw/rank", json=ASKED)
                    if answer.status_code == 200 and answer.json()["logged"]:
                        logged.append(answer.json()["event_id"])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield logged
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def in_log(folder: Path) -> set[str]:
    """The decisions in the log of a service that has ended."""
    with embedded_valkey(folder / "data" / "valkey") as url, redis.Redis.from_url(url) as client:
        records = [decode(fields[FIELD]) for _, fields in client.xrange(Keys("vw").log)]
    return {each.event_id for each in records if isinstance(each, DecisionRecord)}


def one(code: Path, folder: Path) -> Footprint:
    """Start a build, look at it, and end it while it is asked."""
    folder.mkdir(parents=True)
    for name, text in SPECS.items():
        (folder / f"{name}.yaml").write_text(f"name: {name}\n{text}")
    port = free_port()
    url, began = f"http://127.0.0.1:{port}", time.monotonic()
    command = [*command_of(code), "serve", *(f"{name}.yaml" for name in SPECS)]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(  # noqa: S603 - this project's own command
            [*command, "--data-dir", "data", "--port", str(port)],
            cwd=folder,
            env=environment_of(code),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        while not is_ready(url):
            if process.poll() is not None or time.monotonic() - began > READY_S:
                raise SystemExit(f"not ready: {(folder / 'output').read_text()[-2000:]}")
            time.sleep(POLL_S)
        ready_s, processor_s = time.monotonic() - began, sum(used_s(process.pid).values())
        time.sleep(SETTLES_S)
        held = memory(process.pid)
        for mb, title in held:
            print(f"{mb:8.1f} MB  {title[:90]}", file=sys.stderr)

        with asking(url) as logged:
            time.sleep(2.0)
            pids = list(descendants(process.pid))
            began = time.monotonic()
            os.killpg(process.pid, signal.SIGTERM)
            while time.monotonic() - began < ENDS_S and (alive(pids) or process.poll() is None):
                time.sleep(POLL_S)
            end_s = time.monotonic() - began
        lost = set(logged) - in_log(folder)
        total = sum(mb for mb, _ in held)
        return Footprint(total, len(held), ready_s, processor_s, end_s, len(lost), len(logged))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def help_s(code: Path) -> float:
    """Processor seconds of `banditloop --help`, of five times the least."""
    found = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(  # noqa: S603 - this project's own command
            [*command_of(code), "--help"],
            cwd=code,  # what is there comes before all else that could be imported
            env=environment_of(code),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def main() -> int:
    """Measure, print, exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", default=BEFORE, metavar="COMMIT", help="the other build")
    parser.add_argument("--starts", type=int, default=3, help="of each build (default 3)")
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    given = parser.parse_args()

    ours: list[Footprint] = []
    others: list[Footprint] = []
    with tempfile.TemporaryDirectory() as name, checked_out(given.against) as other:
        for number in range(given.starts):
            for code, found, who in ((HERE, ours, "this"), (other, others, "other")):
                found.append(one(code, Path(name) / f"{who}{number}"))
                print(f"{who} build: {found[-1]}", file=sys.stderr, flush=True)
        helps = help_s(HERE), help_s(other)

    def median(found: Sequence[Footprint], what: str) -> float:
        return statistics.median(getattr(each, what) for each in found)

    table = Table()
    for what, words, most in (
        ("pss_mb", "memory of all processes (PSS), MB", 0.6),
        ("processes", "processes", None),
        ("ready_s", "ready from cold, s", 0.75),
        ("processor_s", "processor time until ready, s", None),
    ):
        mine, theirs = median(ours, what), median(others, what)
        ratio = mine / theirs
        said = f"{mine:,.1f} / {theirs:,.1f} = {ratio:.2f}"
        table.add(f"{words}, this build / {given.against}", said, ratio, at_most=most)
    mine, theirs = median(ours, "end_s"), median(others, "end_s")
    said = f"{mine:.1f} ({given.against}: {theirs:.1f})"
    table.add("a signal to all processes until none is left, s", said, mine, at_most=5.0)
    lost, acknowledged = (
        sum(getattr(each, what) for each in ours) for what in ("lost", "acknowledged")
    )
    said = f"{lost} of {acknowledged:,}"
    table.add("decisions answered as logged that are not in the log then", said, lost, at_most=0)
    said = f"{helps[0]:.2f} ({given.against}: {helps[1]:.2f})"
    table.add("banditloop --help, processor time, s", said, helps[0], at_most=0.2)
    return table.finish(given.out, starts=given.starts, against=given.against)


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.exit(main())
