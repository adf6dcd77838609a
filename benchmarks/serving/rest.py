"""The processor time that a service uses while nobody asks, by process, and by thread.

    python -m benchmarks.serving.rest [--seconds 30] [--threads]

The service is that of `serve.py`, with two policies whose models have learned. The kernel counts in
hundredths of a second, so a spell of half a minute tells a millisecond a second from two. Other work
on the machine hardly changes what is used.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.serving.builds import HERE, build
from benchmarks.serving.cost import TICK_S, used_s
from benchmarks.serving.processor import name_of
from benchmarks.soak.service import descendants
from benchmarks.table import Table

SETTLED_S = 15.0


def used_by_thread_s(root: int) -> Counter[str]:
    """Seconds that each thread of a process, and of all it has started, has used."""
    used: Counter[str] = Counter()
    for pid, title in descendants(root).items():
        for task in Path(f"/proc/{pid}/task").glob("*"):
            try:
                said, _, rest = (task / "stat").read_text().rpartition(")")
            except OSError:
                continue
            fields = rest.split()
            used[f"{name_of(title)} {pid}: {said.partition('(')[2]}"] += (
                sum(map(int, fields[11:13])) * TICK_S
            )
    return used


def main() -> int:
    """Measure and print; nothing is a goal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="of rest that are measured")
    parser.add_argument("--threads", action="store_true", help="say it by thread as well")
    parser.add_argument("--code", type=Path, default=HERE, help="another build")
    given = parser.parse_args()

    table = Table()
    with (
        tempfile.TemporaryDirectory(prefix="rest-") as name,
        build(given.code, Path(name)) as service,
    ):
        time.sleep(SETTLED_S)
        counted = [used_s, *([used_by_thread_s] if given.threads else [])]
        before = [count(service.pid) for count in counted]
        time.sleep(given.seconds)
        after = [count(service.pid) for count in counted]

    for one, other in zip(before, after, strict=True):
        other.subtract(one)
        for who, s in other.most_common():
            ms = 1e3 * s / given.seconds
            if ms >= 0.5:
                table.add(f"{who}, ms/s", f"{ms:,.1f}", ms)
    whole = 1e3 * after[0].total() / given.seconds
    table.add("all processes, ms/s", f"{whole:,.0f}", whole)
    return table.finish(None)


if __name__ == "__main__":
    sys.exit(main())
