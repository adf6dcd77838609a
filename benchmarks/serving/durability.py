"""What durability costs: rank throughput with every decision synced to disk, against none kept on disk at all.

    python -m benchmarks.serving.durability

Two services side by side on this machine, alike but for `durability`: `always` (each group of
decisions is synced before it is acknowledged) and `none`. Load goes to one after the other, A B A
B, from wrk (Debian package `wrk`) at 8 connections: 100 explicit actions by catalogue id, one
replica. Goal: `always` keeps 75% of the throughput of `none`.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.serving.load import closed_loop
from benchmarks.serving.services import banditloop, put_catalogue

GOAL = 0.75
SPEC = "learner: {kind: ridge}\njoin: {window_s: 10}\n"
ITEMS = 100
LEVELS = ("always", "none")


def main() -> int:
    """Measure, print, exit 1 if the goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=8)
    arguments = parser.parse_args()
    bodies = [
        json.dumps({"actions": [{"id": f"item{k}"} for k in range(ITEMS)], "context": {"hour": 21}})
    ]
    items = [
        {"id": f"item{k}", "features": {"genre": f"g{k % 7}", "price": k / ITEMS}}
        for k in range(ITEMS)
    ]
    rates: dict[str, list[float]] = {level: [] for level in LEVELS}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        urls = {}
        for level in LEVELS:
            running = banditloop(
                Path(name) / level,
                {"home": SPEC},
                "--archive",
                "none",
                environment={"BANDITLOOP_DURABILITY": level},
            )
            service = stack.enter_context(running)
            put_catalogue(service, "home", items)
            urls[level] = f"{service.url}/v1/policies/home/rank"
            closed_loop(urls[level], bodies, 5)  # warm
        for _ in range(arguments.rounds):
            for level in LEVELS:
                rates[level].append(closed_loop(urls[level], bodies, arguments.seconds).per_s)
    ratios = [a / b for a, b in zip(rates["always"], rates["none"], strict=True)]
    for durability, measured in rates.items():
        spread = f"{min(measured):,.0f} to {max(measured):,.0f}"
        print(
            f"{durability:7s} {statistics.median(measured):8,.0f} rank/s, median of"
            f" {len(measured)} ({spread})"
        )
    ratio = statistics.median(ratios)
    print(f"always / none: {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f}); goal {GOAL}")
    return 0 if ratio >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
