"""What filters of requests do to those who ask beside them: how long a `rank` takes meanwhile.

    python -m benchmarks.beside.filters [--items 5000] [--waves 3] [--out filters.json]   (five minutes)

One replica and 5,000 items of a price, tags and a title of thirty words. Somebody asks for ranks,
one after the other; meanwhile 60 requests come at once, wave after wave, each with a filter that
nobody has sent before, of about the 2,000 characters that one may have. They are of four kinds:

- *terms*: 115 comparisons of numbers;
- *texts*: 58 searches in the titles;
- *lists*: a number in a list of many;
- *faulty*: comparisons of which the last lacks a side.

The same waves without a filter say what is due to the number of requests alone, and those of
`rank:batch` and of similar items with filters what these do. Goals: the 99th percentile beside
filters is at most three times that beside as many requests without one, and no answer is a 5xx.
"""

import argparse
import http.client
import itertools
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import numpy as np

from benchmarks.serving.services import Service, banditloop
from benchmarks.table import Table
from policies.rules.filters import MOST_OF_A_REQUEST

POLICY = "shop"
SPEC = """
sources: [{kind: fresh, name: new}, {kind: content, name: like, vector: image}]
filter: {where: "true", fields: [price, tags, title]}
limit: 40
"""
WAVE, PART, BEGUN_S, QUIET_S = 60, 5_000, 60.0, 4.0
PATH = f"/v1/policies/{POLICY}"
CONTEXT = {"hour": 21}
Sent = tuple[str, str, bytes]
"""A request: its method, its path, and its body."""
NUMBERS = itertools.count()


def joined(term: Callable[[int], str], join: str, begin: str = "", end: str = "") -> str:
    """An expression of so many terms as a request's filter may have."""
    text = begin
    for number in itertools.count():
        more = (join if number else "") + term(number)
        if len(text) + len(more) + len(end) > MOST_OF_A_REQUEST:
            return text + end
        text += more
    raise AssertionError


def terms(new: int) -> str:
    """Comparisons of numbers."""
    return joined(lambda at: f"item.price > {at % 7}.{new}", " && ")


def texts(new: int) -> str:
    """Searches in texts, all of which are looked into."""
    return joined(lambda at: f"item.title.contains('w{new}x{at}')", " || ", "item.price>=0||")


def lists(new: int) -> str:
    """A number in a list."""
    return joined(lambda at: f"{at % 90}", ",", f"item.price > 0 || item.price in [{new},", "]")


def faulty(new: int) -> str:
    """Comparisons of which the last lacks a side, so that there is nothing to ask."""
    return joined(lambda at: f"item.price < {new + at}", " && ", "", " && item.price <")


KINDS = {kind.__name__: kind for kind in (terms, texts, lists, faulty)}


def ranked(where: str | None) -> Sent:
    """A request for a decision."""
    return "POST", f"{PATH}/rank", _ranked(where)


def _ranked(where: str | None) -> bytes:
    body = {"context": CONTEXT} if where is None else {"context": CONTEXT, "filter": where}
    return json.dumps(body).encode()


def batch(wheres: Sequence[str]) -> Sent:
    """One request for many decisions."""
    body = b'{"requests": [' + b",".join(_ranked(where) for where in wheres) + b"]}"
    return "POST", f"{PATH}/rank:batch", body


def similar(where: str) -> Sent:
    """A request for similar items."""
    return "GET", f"{PATH}/items/i7/similar?limit=10&filter={quote(where)}", b""


def new_filters(kind: Callable[[int], str]) -> list[str]:
    """As many filters as are in a wave, none of which was sent before."""
    return [kind(next(NUMBERS)) for _ in range(WAVE)]


def waves(kind: Callable[[int], str] | None) -> Iterator[list[Sent]]:
    """Waves of requests for decisions, without end."""
    while True:
        yield [ranked(where) for where in (new_filters(kind) if kind else [None] * WAVE)]


class Connection:
    """A connection to a service, over which one request goes after the other."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._http = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)

    def ask(self, sent: Sent) -> int:
        """Send a request, and return the status of its answer."""
        method, path, body = sent
        self._http.request(method, path, body or None, {"content-type": "application/json"})
        answer = self._http.getresponse()
        answer.read()
        return answer.status


class Others:
    """Asks for decisions, one after the other, in a thread: what others than filters wait for."""

    def __init__(self, url: str) -> None:
        self._connection, self._over = Connection(url), threading.Event()
        self._ms: list[float] = []
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self._over.is_set():
            began = time.perf_counter()
            status = self._connection.ask(ranked(None))
            self._ms.append(1e3 * (time.perf_counter() - began))
            if status != HTTPStatus.OK:
                raise SystemExit(f"a rank beside filters was answered with {status}")

    def beside(self, work: Callable[[], object]) -> list[float]:
        """Milliseconds of each while some work is done."""
        self._thread.start()
        try:
            work()
        finally:
            self._over.set()
            self._thread.join()
        return self._ms


def filled(service: Service, count: int) -> Service:
    """The service with so many items."""
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(2_000)]
    began = time.monotonic()
    for first in range(0, count, PART):
        items = [
            {
                "id": f"i{number}",
                "features": {
                    "price": float(number % 97),
                    "tags": [f"t{number % 11}"],
                    "title": " ".join(words[at] for at in rng.integers(0, 2_000, 30)),
                },
                "vectors": {"image": rng.normal(size=16).round(3).tolist()},
            }
            for number in range(first, min(first + PART, count))
        ]
        while True:  # until the log of items has begun, changes are refused
            answer = httpx.post(f"{service.url}{PATH}/items", json={"items": items}, timeout=60)
            if answer.is_success or time.monotonic() > began + BEGUN_S:
                break
            time.sleep(1.0)
        answer.raise_for_status()
    return service


def measured(
    table: Table, service: Service, what: str, sent: Iterator[list[Sent]], count: int
) -> float:
    """Add how long ranks take beside some waves; return their 99th percentile."""
    connections = [Connection(service.url) for _ in range(WAVE)]
    statuses: list[int] = []

    def work() -> None:
        with ThreadPoolExecutor(WAVE) as pool:
            for wave in itertools.islice(sent, count):
                statuses.extend(pool.map(Connection.ask, connections[: len(wave)], wave))

    began = time.perf_counter()
    ms = np.array(Others(service.url).beside(work))
    each_s = (time.perf_counter() - began) / count
    p50, p99 = (float(np.quantile(ms, q)) for q in (0.5, 0.99))
    failed = sum(status >= HTTPStatus.INTERNAL_SERVER_ERROR for status in statuses)
    if failed:
        table.add(f"{what}: answers with 5xx", str(failed), failed, at_most=0)
    table.add(
        f"rank beside {what}, {each_s:.2f} s a wave",
        f"p50 {p50:.1f}, p99 {p99:.1f}, at most {ms.max():.1f} ms of {ms.size}",
        p99,
    )
    return p99


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=5_000, help="how many items there are")
    parser.add_argument("--waves", type=int, default=3, help="of 60 requests, of each kind")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--command", nargs="+", help="serves another build, in place of this one")
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    given = parser.parse_args()
    table = Table()
    with (
        tempfile.TemporaryDirectory(prefix="filters-") as folder,
        banditloop(Path(folder), {POLICY: SPEC}, command=given.command) as service,
    ):
        filled(service, given.items)
        time.sleep(QUIET_S)
        alone = np.array(Others(service.url).beside(lambda: time.sleep(QUIET_S)))
        p50, p99 = (float(np.quantile(alone, q)) for q in (0.5, 0.99))
        table.add("rank beside nothing", f"p50 {p50:.1f}, p99 {p99:.1f} ms of {alone.size}", p99)
        plain = measured(table, service, "60 without a filter", waves(None), 3 * given.waves)

        for name in given.kinds:
            kind = KINDS[name]
            found = {
                f"60 filters of {name}": waves(kind),
                f"a batch of 60 of {name}": ([batch(new_filters(kind))] for _ in itertools.count()),
                f"60 similar with {name}": (
                    [similar(where) for where in new_filters(kind)] for _ in itertools.count()
                ),
            }
            for what, sent in found.items():
                p99 = measured(table, service, what, sent, given.waves)
                table.add(
                    f"… of that without a filter: {what}",
                    f"{p99 / plain:.2f} times",
                    p99 / plain,
                    at_most=3.0,
                )
    return table.finish(given.out)


if __name__ == "__main__":
    sys.exit(main())
