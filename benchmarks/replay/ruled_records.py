"""What rules add to a decision's record: bytes in the log and in the archive, and processor time.

    python -m benchmarks.replay.ruled_records [--decisions N] [--out FILE]

Decisions as the demo's: among 56 candidates, with the scores of three sources, a user and a profile.
Each is written without rules, and with every rule on: a request's filter, the moment and ten items
of the profile that conditions looked at, up to 30 items that were removed, boosts of three in ten,
the controller's state and a placed item. The best of three runs counts; both logs are measured in
turn in one process. What is read back has to be what was written. Beside them the bytes of the same
records as builds wrote them that knew of no rules. Goals: 1.3 times with every rule, and as good as
1.0 with none.
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path

import msgspec
import numpy as np

from bandits.log.codec import digest, encode
from bandits.log.encoded_decisions import read_entries
from bandits.log.records import DecisionRecord, EncodedDecision, Placed, Removed, Ruled
from benchmarks.table import Table
from policies.archive.archive import ArchiveReader
from policies.archive.range_file import Range, write_range

CANDIDATES, ITEMS, START_MS = 56, 3000, 1_764_000_000_000
RUNS = 3
NEWER = ("rules", "apprentice")
"""Fields of a decision that builds before rules did not have."""
Log = Sequence[tuple[str, bytes]]


def make_decisions(count: int, *, ruled: bool) -> list[tuple[str, bytes]]:
    """The log; the same decisions with rules and without."""
    rng, rules_rng, log = np.random.default_rng(0), np.random.default_rng(1), []
    for number in range(count):
        ids = [f"{item}" for item in rng.choice(ITEMS, CANDIDATES, replace=False)]
        pmf = rng.dirichlet(np.ones(CANDIDATES))
        scores = {}
        for source in ("als", "deep", "popular"):
            values = rng.normal(size=CANDIDATES).astype("<f4")
            values[rng.random(CANDIDATES) < 0.4] = np.nan
            scores[source] = values.tobytes()

        record = DecisionRecord(
            event_id=digest(f"event {number}".encode()),
            policy="home",
            spec="5" * 32,
            snapshot_id=f"{START_MS}-{number // 1000}",
            catalogue="c" * 32,
            context={"hour": float(number // 3000 % 24), "device": ("web", "app")[number % 2]},
            action_ids=ids,
            features=None,
            scores=scores,
            pmf=pmf.astype("<f8").tobytes(),
            chosen=[int(rng.choice(CANDIDATES, p=pmf))],
            user=digest(f"user {number % 3000}".encode()),
            artifact="a" * 32,
            profile="f" * 16,
        )
        if ruled:
            record = msgspec.structs.replace(record, rules=every_rule(rules_rng, number, set(ids)))
        log.append((f"{START_MS + number}-0", encode(record)))
    return log


def every_rule(rng: np.random.Generator, number: int, ids: set[str]) -> Ruled:
    """What a decision's rules depended on."""
    some = [f"{item}" for item in rng.choice(ITEMS, 40, replace=False)]
    removed = [item for item in some[: int(rng.integers(31))] if item not in ids]
    boosts = np.where(rng.random(CANDIDATES) < 0.3, 0.2, 0.0).astype("<f4")
    return Ruled(
        filter="item.price <= 20",
        now_ms=START_MS + number,
        did={"purchase": some[30:]},
        removed={"filter.where": Removed(removed, len(removed))},
        boosts=boosts.tobytes(),
        control=f"{START_MS + 1000 * (number // 40)}-0",
        placed=[Placed(2, "777")],
    )


def measure(log: Log) -> tuple[dict[str, float], bytes]:
    """Bytes and microseconds of processor time per decision, and the archive's file."""
    sink = io.BytesIO()
    written = microseconds(lambda: write_range(io.BytesIO(), "home", whole(log), iter(log)), log)
    scanned = microseconds(lambda: read_entries(log, lambda *_: None), log)
    write_range(sink, "home", whole(log), iter(log))
    return {
        "bytes in the log": sum(len(data) for _, data in log) / len(log),
        "bytes in the archive": len(sink.getvalue()) / len(log),
        "archiver's processor time, us": written,
        "processor time of the fold's reader, us": scanned,
    }, sink.getvalue()


def microseconds(work: Callable[[], object], log: Log) -> float:
    """The processor time of a piece of work per decision."""
    begun = time.process_time()
    work()
    return 1e6 * (time.process_time() - begun) / len(log)


def before_rules(data: bytes) -> bytes:
    """A record as a build wrote it that knew of no rules."""
    words, names = msgspec.msgpack.decode(data[1:]), DecisionRecord.__struct_fields__
    known = [name not in NEWER for name in names]
    # The version is before the words, and the tag before the fields.
    if any(word is not None for word, old in zip(words[1:], known, strict=True) if not old):
        raise SystemExit("this record has rules")
    return data[:1] + msgspec.msgpack.encode([words[0], *compress(words[1:], known)])


def whole(log: Log) -> Range:
    """The range of a log."""
    return Range("0-0", log[0][0], log[-1][0], len(log))


def is_read_back(log: Log, data: bytes) -> bool:
    """Whether the archive gives back what was written, and the fold decodes none of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "home" / whole(log).path
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        found = list(ArchiveReader(folder, "home").raw())
    entries = read_entries(log, lambda *_: None)
    return found == list(log) and all(isinstance(e.record, EncodedDecision) for e in entries)


def main() -> int:
    """Run, print; exit 1 if a goal is missed or what is read back is not what was written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--decisions", type=int, default=8_000, help="of each log")
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    given = parser.parse_args()

    logs = {
        "no rules": make_decisions(given.decisions, ruled=False),
        "every rule": make_decisions(given.decisions, ruled=True),
    }
    best: dict[str, dict[str, float]] = {}
    same = True
    for _ in range(RUNS):
        for name, log in logs.items():
            found, data = measure(log)
            same &= is_read_back(log, data)
            before = best.get(name, found)
            best[name] = {what: min(value, before[what]) for what, value in found.items()}

    table = Table()
    for what, value in best["no rules"].items():
        ruled = best["every rule"][what]
        table.add(f"{what}, no rules", f"{value:,.1f}", value)
        table.add(f"{what}, every rule", f"{ruled:,.1f}", ruled)
        if what.startswith("bytes"):
            ratio = ruled / value
            table.add(f"{what}, every rule / no rules", f"{ratio:.3f}", ratio, at_most=1.3)
    older = sum(len(before_rules(data)) for _, data in logs["no rules"]) / given.decisions
    ratio = best["no rules"]["bytes in the log"] / older
    table.add("bytes in the log, no rules / before rules", f"{ratio:.4f}", ratio, at_most=1.005)
    print(f"what was read back is what was written: {same}")
    return table.finish(given.out) if same else 1


if __name__ == "__main__":
    sys.exit(main())
