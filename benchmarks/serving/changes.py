"""A service changed while requests come: what fails, what it costs, and how long `rank` takes meanwhile.

    python -m benchmarks.serving.changes [--items 20000] [--per-s 50] [--out changes.json]     (about three minutes)

One service of one replica on this machine, as `banditloop serve` starts it, with an artifact of so
many items (als and popular), beside a second policy without one. Requests come at a steady rate
(an open loop: latencies are from when each was due), each on a connection that is kept. Then, one
after another: another artifact (three times, `banditloop artifact use`), another spec, one more
policy, one less, and spec and artifact together (`banditloop apply`). Every answer has to be 200 and
logged, every decision has to be in the log, and `snapshots verify` has to hold.

Processor time is that of all processes of the service, those that ended included, beyond what they
use in the same time without a change. p50 of `rank` is from the beginning of the command to its
end, against that of the time between commands.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import redis

from bandits.log.records import DecisionRecord
from benchmarks.serving.processor import TICK_S
from benchmarks.serving.services import Service, banditloop
from benchmarks.soak.service import descendants
from benchmarks.table import Table
from policies.artifacts.source_artifact import Artifact, Calibration, TrainedSource, write
from serve_app.admin.freshness import read_all
from serve_app.store.keys import Keys

COMMAND = str(Path(sys.executable).parent / "banditloop")
JOIN = "join: {window_s: 5}\n"
SHOP = (
    "sources: [{kind: artifact, name: als}, {kind: artifact, name: popular}]\nartifact: shop\n"
    "exploration: {kind: epsilon_greedy}\n" + JOIN
)
FACTORS = 32
QUIET_S = 8.0
"""How long requests come between two changes, in seconds."""


def train(root: Path, items: int, seed: int) -> str:
    """An artifact of so many items with random factors; its version."""
    rng = np.random.default_rng(seed)
    ids = tuple(f"item-{number:07}" for number in range(items))
    catalogue = tuple(
        {"id": each, "features": {"price": float(n % 97)}} for n, each in enumerate(ids)
    )
    factors = rng.normal(size=(items, FACTORS)).astype(np.float32)
    counts = rng.integers(1, 1000, items).astype(np.float32)
    return write(
        Artifact(
            catalogue,
            ids,
            {
                "als": TrainedSource(
                    "als", {"item_factors": factors}, {"alpha": 5.0, "regularization": 3.0}
                ),
                "popular": TrainedSource(
                    "popular", {"counts": counts}, scale=Calibration(500.0, 300.0)
                ),
            },
        ),
        root,
    )


class Load:
    """An open loop against one policy, in a thread; each answer with when it was due."""

    def __init__(self, url: str, body: dict[str, Any], per_s: float) -> None:
        self._url, self._body, self._per_s = url, json.dumps(body).encode(), per_s
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._next = time.perf_counter()
        self.answers: list[tuple[float, float, str]] = []
        self.events: set[str] = set()
        self.artifacts: list[str] = []

    def _due(self) -> float:
        with self._lock:
            due, self._next = self._next, self._next + 1.0 / self._per_s
            return due

    def _run(self) -> None:
        headers = {"content-type": "application/json"}
        with httpx.Client(timeout=30, headers=headers) as client:
            while not self._stop.is_set():
                due = self._due()
                time.sleep(max(0.0, due - time.perf_counter()))
                what = "ok"
                try:
                    answer = client.post(self._url, content=self._body)
                    if answer.status_code != 200:
                        what = f"{answer.status_code}: {answer.text[:100]}"
                    elif not answer.json()["logged"]:
                        what = "not logged"
                    else:
                        self.events.add(answer.json()["event_id"])
                except httpx.HTTPError as error:
                    what = f"{type(error).__name__}: {error}"
                self.answers.append((due, time.perf_counter() - due, what))

    def __enter__(self) -> Self:
        self._next = time.perf_counter()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(8)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def p50_ms(self, begins: float, ends: float) -> float:
        """Of what was due in between."""
        return float(
            1e3 * np.median([took for due, took, _ in self.answers if begins <= due < ends])
        )

    def wrong(self, begins: float, ends: float) -> list[str]:
        """What was not answered and logged, of what was due in between."""
        return [what for due, _, what in self.answers if begins <= due < ends and what != "ok"]


class Used:
    """Seconds of processor of a process and all that it has started, also of what has ended.

    Whoever forked what has ended does not always wait for it: so a thread looks ten times a second.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._by_process: dict[tuple[int, str], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self._look()

    def _look(self) -> None:
        for each in {self._pid, *descendants(self._pid)}:
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
                began, used = fields[19], sum(map(int, fields[11:13])) * TICK_S
                self._by_process[each, began] = used

    def seconds(self) -> float:
        """Return all of it until now, at most a tenth of a second late."""
        return sum(list(self._by_process.values()))


def commanded(folder: Path, *words: str) -> str:
    """What a command of this project prints.

    Raises:
        SystemExit: it fails.
    """
    done = subprocess.run(  # noqa: S603
        [COMMAND, *words, "--data-dir", "data"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{words}: exit status {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def steps(folder: Path, items: int) -> Iterator[tuple[str, list[str]]]:
    """Prepare each change, and yield its name with its command."""
    root = folder / "shop"
    shop, home = folder / "shop.yaml", "home.yaml"
    for number in range(1, 4):
        train(root, items, number)
        yield f"another artifact ({number})", ["artifact", "use", "shop.yaml"]
    text = shop.read_text()
    shop.write_text(text + "floor: 0.2\n")
    yield "another spec", ["apply", "shop.yaml", home]
    (folder / "news.yaml").write_text("name: news\n" + JOIN)
    yield "one more policy", ["apply", "shop.yaml", home, "news.yaml"]
    yield "one policy less", ["apply", "shop.yaml", home]
    train(root, items, 9)
    shop.write_text(text + "floor: 0.1\n")
    yield "spec and artifact", ["apply", "shop.yaml", home]


def measure(table: Table, service: Service, items: int, per_s: float) -> None:
    """Make each change under load."""
    body = {"user_id": "u", "history": [f"item-{number:07}" for number in range(0, 50, 7)]}
    url = f"{service.url}/v1/policies/shop/rank"
    with Load(url, body, per_s) as load, Used(service.pid) as service_used:
        time.sleep(QUIET_S)
        for what, command in steps(service.folder, items):
            quiet, used = time.perf_counter(), service_used.seconds()
            time.sleep(QUIET_S)
            begins, rate = time.perf_counter(), (service_used.seconds() - used) / QUIET_S
            before_s = service_used.seconds()
            commanded(service.folder, *command)
            ends = time.perf_counter()
            cost = service_used.seconds() - before_s - rate * (ends - begins)
            time.sleep(1.0)  # what fails may fail a little later

            wrong = load.wrong(begins, ends + 1.0)
            table.add(
                f"{what}: failed or unlogged",
                f"{len(wrong)} in {ends - begins:.1f} s {wrong[:2]}",
                len(wrong),
                at_most=0,
            )
            print(
                f"    {cost:.1f} s of processor, beyond the {rate:.2f} of a second without",
                flush=True,
            )
            base, during = load.p50_ms(quiet, begins), load.p50_ms(begins, ends)
            table.add(
                f"{what}: p50 of rank meanwhile",
                f"{during:.2f} ms, {base:.2f} before: {during / base:.2f} x",
                during / base,
                at_most=1.5,
            )
    _audit(table, service, load)


def _audit(table: Table, service: Service, load: Load) -> None:
    with redis.Redis.from_url(service.redis_url) as client:
        records = [entry.record for entry in read_all(client, Keys("shop"))]
    decisions = [record for record in records if isinstance(record, DecisionRecord)]
    lost = load.events - {record.event_id for record in decisions}
    table.add("acknowledged decisions that the log lacks", f"{len(lost)}", len(lost), at_most=0)
    versions = len({record.artifact for record in decisions})
    table.add("artifacts that decisions name", f"{versions}", versions, at_least=5)
    holds = json.loads(
        commanded(service.folder, "snapshots", "verify", "--policy", "shop", "--json")
    )["holds"]
    table.add("every stored snapshot verifies", str(holds), float(holds), at_least=1)


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 1 if a goal was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--per-s", type=float, default=50.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)

    table = Table()
    with tempfile.TemporaryDirectory(prefix="changes-") as name:
        folder = Path(name)
        train(folder / "shop", options.items, 0)
        environment = {"BANDITLOOP_ARCHIVE": "none", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        specs = {"shop": SHOP, "home": JOIN}
        with banditloop(folder, specs, environment=environment) as service:
            measure(table, service, options.items, options.per_s)
    return table.finish(options.out, items=options.items, per_s=options.per_s)


if __name__ == "__main__":
    sys.exit(main())
