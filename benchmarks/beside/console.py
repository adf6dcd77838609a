"""What the console costs `rank`, and how soon its pages are there.

    python -m benchmarks.beside.console [--rounds 8] [--quick] [--only paint|load|work] [--out console.json]
                                                                                (about seven minutes)

*First paint.* Nobody asks anything else: Chromium opens each page five times, in a context of its own
each time (nothing is cached), and says when it first painted something. The goal: at most 300 ms, the
median of the slowest page.

*Load.* wrk with 8 connections asks for ranks of 100 catalogue ids. In some turns nobody looks at the
console; in others Chromium opens one page after the other, two a second; in others a process asks for
the same, and draws nothing: the browser would be on another machine; and in others a process that does
nothing but loop runs in its place (see arms.py). The goal, whether the browser is here or elsewhere:
the rank replica's processor time while somebody looks is at most 1.03 times that while nobody does.

*Work.* The same requests while nobody else asks: the processor time that the rank replica has for a
page, of which all else is what neighbours do to each other; and that of each command of the console, a
report, a doctor's findings and an explanation, looked at as long as it runs.

Needs Chromium, and Playwright of the extra `dev`.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from playwright.sync_api import sync_playwright

from benchmarks.beside.arms import RANK, Arm, Times, in_turns, of_all_but, of_process
from benchmarks.serving.cost import used_s
from benchmarks.serving.processor import looping
from benchmarks.serving.serve import SPECS, bodies, settle, url_of, warmed
from benchmarks.serving.services import Service, banditloop
from benchmarks.table import Table

POLICY = "vw"
HOME = f"/console/policies/{POLICY}"
TIMES, EACH_S = 5, 0.5
QUIET_S = 0.03
"""Seconds of processor that the console uses at most in a second in which it has nothing to do."""
SAFE = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
NOBODY, LOOKED_AT, LOOP = "nobody looks", "a browser looks", "an empty loop"
ASKED = "the same without a browser"
RESTED_S, SAMPLED_S = 10.0, 0.02
CONSOLE, COMMANDS = "console", "console's commands"
PAINTED = (
    "() => new Promise(done => new PerformanceObserver(list => list.getEntries().forEach(each =>"
    " each.name === 'first-contentful-paint' && done(each.startTime)))"
    ".observe({type: 'paint', buffered: true}))"
)


def chromium() -> str:
    """The browser that is installed."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    binary = next(filter(None, found), None)
    if binary is None:
        raise SystemExit("no Chromium is installed here: apt-get install chromium")
    return binary


def pages_of(service: Service) -> dict[str, str]:
    """The console's pages that look at something, by name."""
    deadline = time.monotonic() + 60
    while httpx.get(f"{service.url}/console/").status_code != 200:
        if time.monotonic() > deadline:
            raise SystemExit("the console is not there")
        time.sleep(0.2)
    asked = httpx.get(f"{service.url}/v1/policies/{POLICY}/decisions", timeout=60)
    newest = asked.raise_for_status().json()["decisions"][0]
    of_decision = f"event_id={newest['event_id']}&entry={newest['entry']}"
    return {
        "overview": "/console/",
        "policy": HOME,
        "decisions": f"{HOME}/decisions",
        "decision": f"{HOME}/decision?{of_decision}",
        "try": f"{HOME}/try",
        "snapshots": f"{HOME}/snapshots",
        "sources": f"{HOME}/sources",
        "items": f"{HOME}/items?text=item9",
        "item": f"{HOME}/item?item_id=item7",
        "doctor": f"{HOME}/doctor",
        "users": "/console/users",
    }


def first_paints(service: Service, times: int) -> dict[str, list[float]]:
    """Milliseconds from the start of the navigation to the first paint, by page."""
    found: dict[str, list[float]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=SAFE)
        for number in range(times + 1):
            for name, path in pages_of(service).items():
                context = browser.new_context(base_url=service.url)
                page = context.new_page()
                page.goto(path)
                took = float(page.evaluate(PAINTED))
                context.close()
                if number:  # the first ones warm up
                    found.setdefault(name, []).append(took)
        browser.close()
    return found


class Looker:
    """A browser in a thread that opens one page after the other, as long as it is to.

    ``opened``: how many it has.
    """

    def __init__(self, url: str, paths: list[str]) -> None:
        self.opened, self._ends = 0, False
        self._looks, self._rests = threading.Event(), threading.Event()
        self._url, self._paths = url, paths
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=SAFE)
            page: Any = browser.new_context(base_url=self._url).new_page()
            while not self._ends:
                if not self._looks.is_set():
                    self._rests.set()
                    self._looks.wait(0.1)
                    continue
                self._rests.clear()
                due = time.monotonic() + EACH_S
                page.goto(self._paths[self.opened % len(self._paths)])
                self.opened += 1
                page.wait_for_timeout(max(0.0, 1000 * (due - time.monotonic())))
            browser.close()

    def look(self) -> None:
        """Have it open pages."""
        self._looks.set()

    def rest(self) -> None:
        """Have it open no more, and wait until it does not."""
        self._rests.clear()
        self._looks.clear()
        self._rests.wait(60)

    @contextmanager
    def open(self) -> Iterator["Looker"]:
        """Have the browser there, which does nothing yet."""
        self._thread.start()
        try:
            yield self
        finally:
            self._ends = True
            self._thread.join()


def asked_for(service: Service, pages: Mapping[str, str]) -> list[list[tuple[str, bool]]]:
    """What a browser asks for that opens these pages, and has kept what does not change.

    Of each request its path, and whether it is for a part of a page.
    """
    found: list[list[tuple[str, bool]]] = []

    def note(request: Any) -> None:
        url = urlsplit(request.url)
        if found and "/static/" not in url.path:
            whole = url.path + (f"?{url.query}" if url.query else "")
            found[-1].append((whole, "hx-request" in request.headers))

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=SAFE)
        page: Any = browser.new_context(base_url=service.url).new_page()
        page.on("request", note)
        for path in pages.values():
            found.append([])
            page.goto(path)
            page.wait_for_timeout(1000 * EACH_S)
        browser.close()
    return found


@contextmanager
def visitor(service: Service, pages: list[list[tuple[str, bool]]]) -> Iterator[int]:
    """A process that asks for what a browser does, and draws nothing; stopped at first."""
    where = urlsplit(service.url)
    words = [str(where.hostname), str(where.port), str(EACH_S)]
    script = str(Path(__file__).with_name("visitor.py"))
    with subprocess.Popen([sys.executable, script, *words], stdin=subprocess.PIPE) as process:  # noqa: S603 - this project's own
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        process.stdin.write(json.dumps(pages).encode())
        process.stdin.close()
        process.send_signal(signal.SIGSTOP)
        try:
            yield process.pid
        finally:
            process.kill()


def measure_work(service: Service, table: Table) -> float:
    """Ask for pages while nobody else asks; microseconds of the replica's processor for a page."""
    pages = asked_for(service, pages_of(service))
    spent: dict[int, float] = {}
    with visitor(service, pages) as process:
        settled(service)
        for asks in (signal.SIGSTOP, signal.SIGCONT):
            os.kill(process, asks)
            before = used_s(service.pid)[RANK]
            time.sleep(RESTED_S)
            spent[asks] = used_s(service.pid)[RANK] - before
    own = 1e6 * (spent[signal.SIGCONT] - spent[signal.SIGSTOP]) * EACH_S / RESTED_S
    requests = sum(map(len, pages)) / len(pages)
    table.add(
        f"the rank replica's own work for a page ({requests:.1f} requests), us", f"{own:,.0f}", own
    )
    return own


def measure_commands(service: Service, table: Table) -> dict[str, float]:
    """Ask for what a command does, nothing of it kept; seconds of processor of each, by name."""
    home, found = f"{service.url}/v1/policies/{POLICY}", dict[str, float]()
    asked = httpx.get(f"{home}/decisions", timeout=60).raise_for_status().json()
    newest = asked["decisions"][0]
    why = f"{home}/events/{newest['event_id']}/explain?entry={newest['entry']}"
    with ThreadPoolExecutor(1) as pool:
        for url in (f"{home}/report", f"{home}/doctor", why):
            answer = pool.submit(httpx.get, url, timeout=60)
            most = 0.0
            while not answer.done():
                most = max(most, used_s(service.pid)[COMMANDS])
                time.sleep(SAMPLED_S)
            answer.result().raise_for_status()
            name = urlsplit(url).path.rpartition("/")[2]
            found[name] = most
            table.add(f"the command of the console's {name}, s of processor", f"{most:.2f}", most)
    return found


def settled(service: Service) -> None:
    """Wait until all is learned, and the console has done with what it was asked."""
    settle([service])
    used = -1.0
    while True:
        now = used_s(service.pid)
        if COMMANDS not in now and now[CONSOLE] - used <= QUIET_S:
            return
        used = now[CONSOLE]
        time.sleep(1.0)


def measure_load(service: Service, table: Table, rounds: int, seconds: float) -> dict[str, Any]:
    """Load the service while nobody looks, while somebody does, and beside an empty loop."""
    pages = pages_of(service)
    with (
        Looker(service.url, list(pages.values())).open() as looker,
        visitor(service, asked_for(service, pages)) as other,
        looping(0) as loop,
    ):
        arms = (
            Arm(NOBODY, lambda: None, lambda: None),
            Arm(LOOKED_AT, looker.look, looker.rest),
            _of_process(ASKED, other),
            _of_process(LOOP, loop),
        )
        found = in_turns(
            service,
            url_of(service, POLICY),
            bodies(),
            arms,
            rounds=rounds,
            seconds=seconds,
            settle=lambda: settled(service),
        )
        opened = looker.opened

    for arm, turns in found.items():
        for what in (RANK, "Redis", CONSOLE):
            us = float(np.mean(of_process(turns, what)))
            table.add(f"{arm}: {what}, us a rank", f"{us:,.0f}", us)
    nobody, looked = found[NOBODY], found[LOOKED_AT]
    beside = Times.of(of_process(found[LOOP], RANK), of_process(nobody, RANK))
    own_work = CONSOLE, COMMANDS
    rest = Times.of(of_all_but(looked, *own_work), of_all_but(nobody, *own_work))
    replica = Times.of(of_process(looked, RANK), of_process(nobody, RANK))
    asked = Times.of(of_process(found[ASKED], RANK), of_process(nobody, RANK))
    table.add("pages opened meanwhile, a second", f"{opened / rounds / seconds:.1f}", opened)
    table.add("the rank replica, an empty loop / nothing", str(beside), beside.value)
    table.add("all but the console, looked at / not", str(rest), rest.value)
    looked_at = "the rank replica, looked at by a browser here / not"
    table.add(looked_at, str(replica), replica.value, at_most=1.03)
    table.add("the rank replica, asked the same / not", str(asked), asked.value, at_most=1.03)
    return {arm: [dict(each.us) for each in turns] for arm, turns in found.items()}


def _of_process(name: str, process: int) -> Arm:
    """A process that works in some turns."""
    go, stop = (partial(os.kill, process, each) for each in (signal.SIGCONT, signal.SIGSTOP))
    return Arm(name, go, stop)


def main() -> int:
    """Measure, print, exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8, help="of a turn of each arm (default 8)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of load in a turn")
    parser.add_argument("--quick", action="store_true", help="two rounds of two seconds")
    parser.add_argument("--only", choices=["paint", "load", "work"])
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    given = parser.parse_args()
    rounds, seconds = (2, 2.0) if given.quick else (given.rounds, given.seconds)

    table, more = Table(), dict[str, Any]()
    with (
        tempfile.TemporaryDirectory(prefix="console-") as name,
        banditloop(Path(name), SPECS) as service,
    ):
        warmed(service)
        if given.only in (None, "paint"):
            paints = first_paints(service, 2 if given.quick else TIMES)
            medians = {page: float(np.median(took)) for page, took in paints.items()}
            for page, ms in medians.items():
                table.add(f"first paint, {page}, median ms", f"{ms:,.0f}", ms)
            slowest = max(medians, key=medians.__getitem__)
            ms = medians[slowest]
            table.add(
                f"first paint of the slowest page, {slowest}, ms", f"{ms:,.0f}", ms, at_most=300
            )
            more["first_paint_ms"] = paints
        if given.only in (None, "work"):
            more["commands_s"] = measure_commands(service, table)
            more["work_us"] = measure_work(service, table)
        if given.only in (None, "load"):
            more["turn_us"] = measure_load(service, table, rounds, seconds)
    return table.finish(given.out, rounds=rounds, seconds=seconds, **more)


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.exit(main())
