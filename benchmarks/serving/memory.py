"""What a process that decides holds in memory: its imports, and a catalogue of a million items.

    python -m benchmarks.serving.memory

Resident memory, each in a process of its own: after the imports of the decision path, compiled
loops included, without Ray; and what is added by a catalogue of 10^6 items with 8 numeric features
each, decoded from its blob. What a source adds is in benchmarks/sources/retrieval.py.
"""

import argparse
import multiprocessing
import sys
from pathlib import Path

import msgspec

from benchmarks.table import Table

ITEMS, FEATURES = 1_000_000, 8
MB = 1e6


def resident() -> tuple[float, float]:
    """MB of this process: its own, and of files that processes share."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, shared = (int(status[name].split()[0]) * 1024 / MB for name in ("RssAnon", "RssFile"))
    return own, shared


def imports() -> tuple[float, float]:
    """What a replica imports of this project, before Ray."""
    import policies.ranker  # noqa: F401, PLC0415

    return resident()


def catalogue() -> tuple[float, float]:
    """Decoded from the bytes of its blob, which it keeps."""
    from policies.items.catalogue import Catalogue  # noqa: PLC0415

    names = [f"f{j}" for j in range(FEATURES)]
    items = (
        {
            "id": f"item{k}",
            "features": {name: (k * 31 + j) % 97 / 97 for j, name in enumerate(names)},
        }
        for k in range(ITEMS)
    )
    data = b"[" + b",".join(map(msgspec.json.encode, items)) + b"]"
    before = resident()
    found = Catalogue.decode(data)
    after = resident()
    assert len(found) == ITEMS  # noqa: S101
    return after[0] - before[0], after[1] - before[1]


def main() -> int:
    """Measure each in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    given = parser.parse_args()
    table = Table()
    for what, part in (
        ("imports of a process that decides", imports),
        (f"catalogue of {ITEMS:,} items", catalogue),
    ):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            own, shared = pool.apply(part)
        table.add(
            f"{what}, MB",
            f"{own:,.0f} of its own, {shared:,.0f} of files that processes share",
            own,
        )
    return table.finish(given.out)


if __name__ == "__main__":
    sys.exit(main())
