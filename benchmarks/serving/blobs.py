"""How long a large blob holds up others: a catalogue written to Redis as one command, and in parts.

    python -m benchmarks.serving.blobs

An embedded Valkey that syncs each write gets 300 MB, as much as a catalogue of 1,000,000 items, by
one SET and then by `write_blob`, A B A B, while another connection writes a few bytes again and
again, as `rank` does. Goal: in parts, the longest of these writes takes a fifth of the time.
"""

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import redis

from bandits.log.codec import digest
from serve_app.host.embedded import embedded_valkey
from serve_app.store.blobs.parts import read_blob, write_blob
from serve_app.store.clients import blocking_client
from serve_app.store.keys import ItemsKeys

GOAL = 0.2
KEYS = ItemsKeys("home")
PAUSE_S = 0.002


@contextlib.contextmanager
def writing(url: str) -> Iterator[list[float]]:
    """Write a few bytes again and again; yield how long each time took, in seconds."""
    taken: list[float] = []
    stop = threading.Event()

    def write() -> None:
        with blocking_client(url) as client:
            while not stop.wait(PAUSE_S):
                began = time.perf_counter()
                client.xadd("log", {"r": b"x" * 300}, maxlen=1_000)
                taken.append(time.perf_counter() - began)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield taken
    finally:
        stop.set()
        thread.join()


def meanwhile(url: str, action: Callable[[], object]) -> tuple[float, float]:
    """Return how long something takes, and the longest that somebody else waits meanwhile."""
    with writing(url) as taken:
        time.sleep(0.2)
        taken.clear()
        began = time.perf_counter()
        action()
        seconds = time.perf_counter() - began
        time.sleep(0.2)
    return seconds, max(taken)


def main() -> int:
    """Measure, print, exit 1 if the goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    data = random.Random(1).randbytes(1 << 20) * arguments.megabytes
    name = digest(data)

    waits: dict[str, list[float]] = {"one command": [], "parts": [], "read in parts": []}
    with tempfile.TemporaryDirectory() as folder, embedded_valkey(Path(folder)) as url:
        client: redis.Redis = blocking_client(url)
        actions: dict[str, Callable[[], object]] = {
            "one command": lambda: client.set("whole", data),
            "parts": lambda: write_blob(client, KEYS, name, data),
            "read in parts": lambda: read_blob(client, KEYS, name),
        }
        for _ in range(arguments.rounds):
            client.unlink("whole", KEYS.blob(name))
            for what, action in actions.items():
                seconds, longest = meanwhile(url, action)
                waits[what].append(longest)
                print(f"{what:14s} {seconds:6.2f} s; others wait {1e3 * longest:6.0f} ms at most")

    parts, one = (statistics.median(waits[what]) for what in ("parts", "one command"))
    print(
        f"others wait {1e3 * parts:.0f} ms at most instead of {1e3 * one:.0f}, medians of"
        f" {arguments.rounds}: x {parts / one:.3f}; goal {GOAL}"
    )
    return 0 if parts <= GOAL * one else 1


if __name__ == "__main__":
    sys.exit(main())
