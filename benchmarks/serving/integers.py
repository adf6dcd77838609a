"""What a caller would gain who sends integers of a catalogue's version, not ids.

    python -m benchmarks.serving.integers                            (some seconds, on any machine)

A request of `serve.py`, 100 ids of a catalogue of 1,000 items, from its bytes to what a decision
takes of its actions: the ids, which its record holds, and their rows in the catalogue. Once as
clients send it, where the ids are found in the text; once with the row of each item instead, which
are decoded, found to be of the catalogue and each once, and named by its ids. The second is the
least that integers could cost: that the version is another one by now, and what a client has to
know of it, is left out. Both take turns; a figure is the tenth percentile of the processor time of
single requests. Beside them stands what such a request costs a replica in memory (`in_memory.py`):
the row says at most what share of it integers would save, and the goal is what would be worth an
interface of its own, a twentieth.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec
import numpy as np

from bandits.kernels.alike import ONCE, occurrences
from benchmarks.serving.builds import HERE
from benchmarks.serving.serve import BODIES, ITEMS, numbers, rank_request
from benchmarks.table import Table
from policies.items.bare_ids import BareIds
from policies.items.catalogue import Catalogue
from policies.requests import Item
from serve_app.api.bodies import RankDecoder

WORTH = 0.05
"""What share of a request is worth an interface of its own."""


class ByNumber(msgspec.Struct, frozen=True, gc=False):
    """A request whose actions are rows of a version of the items."""

    context: dict[str, float]
    version: str
    actions: list[int]


def by_text(catalogue: Catalogue) -> Callable[[bytes], object]:
    """Return what reads a request as it is served."""
    decoder, ids = RankDecoder(), BareIds()

    def read(body: bytes) -> object:
        return ids.find_one(bytes(decoder.decode(body).actions or b""), catalogue)

    return read


def by_number(catalogue: Catalogue) -> Callable[[bytes], object]:
    """Return what reads a request whose actions are numbers."""
    decoder = msgspec.json.Decoder(ByNumber)
    names = np.array(catalogue.ids, object)
    whole = np.array([0, 0], np.int64)

    def read(body: bytes) -> object:
        asked = decoder.decode(body)
        rows = np.array(asked.actions, np.int64)
        whole[1] = rows.size
        known = bool(rows.min() >= 0 and rows.max() < names.size)
        if not known or occurrences(rows, whole)[0] != ONCE or asked.version != catalogue.digest:
            raise SystemExit("a request that cannot be")
        return names[rows].tolist(), rows

    return read


def timed(read: Callable[[bytes], object], bodies: Sequence[bytes]) -> list[float]:
    """Return the processor time of each request, in microseconds."""
    taken = []
    for body in bodies:
        began = time.thread_time_ns()
        read(body)
        taken.append((time.thread_time_ns() - began) / 1e3)
    return taken


def in_memory_us() -> float:
    """Return what a request costs a replica in memory."""
    command = [sys.executable, "-m", "benchmarks.serving.in_memory", "--only", "rank"]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE).stdout  # noqa: S603 - this project's own
    return float(said.split(" us ")[1].split()[0].replace(",", ""))


def main() -> int:
    """Measure and print; exit 1 if integers would be worth it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=60)
    given = parser.parse_args()

    catalogue = Catalogue([Item(f"item{k}", numbers("f")) for k in range(ITEMS)])
    row_of = {name: row for row, name in enumerate(catalogue.ids)}
    asked = [msgspec.json.decode(msgspec.json.encode(rank_request())) for _ in range(BODIES)]
    rows = [[row_of[action["id"]] for action in each["actions"]] for each in asked]
    ways: Mapping[str, tuple[Callable[[bytes], object], Sequence[bytes]]] = {
        "ids found in the text": (
            by_text(catalogue),
            [msgspec.json.encode(each) for each in asked],
        ),
        "integers": (
            by_number(catalogue),
            [
                msgspec.json.encode({**each, "version": catalogue.digest, "actions": its})
                for each, its in zip(asked, rows, strict=True)
            ],
        ),
    }

    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(given.turns + 1):
        for name, (read, bodies) in ways.items():
            taken = timed(read, bodies)
            found[name] += taken if turn else []
    table = Table()
    us = {name: float(np.quantile(taken, 0.1)) for name, taken in found.items()}
    for name, each in us.items():
        table.add(f"from the bytes to 100 actions: {name}, us", f"{each:.1f}", each)
    whole = in_memory_us()
    text, integers = us.values()
    share = (text - integers) / whole
    table.add("a rank in memory, us", f"{whole:.0f}", whole)
    table.add("what integers would save of it", f"{share:.3f}", share, at_most=WORTH)
    return table.finish(None)


if __name__ == "__main__":
    sys.exit(main())
