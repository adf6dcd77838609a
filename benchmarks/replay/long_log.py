"""A long log of one policy as an archive, made fast: for measurements of whoever reads archives.

    python -m benchmarks.replay.long_log FOLDER --decisions 200000

A decision has 20 actions, a context of three features and the scores of a source; three of ten earn
a reward within half a minute. The entries are written by the archive's own writer.
"""

import argparse
import heapq
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np

from bandits.exploration import EpsilonGreedy
from bandits.log.codec import encode
from bandits.log.join import JoinRule
from bandits.log.records import (
    BuildRecord,
    DecisionRecord,
    RewardRecord,
    SpecRecord,
    TickRecord,
)
from bandits.log.versions import FOLD
from bandits.types import Float64
from policies.archive.archive import ArchiveWriter
from policies.archive.range_file import Range, hour_of
from policies.spec import Holdout, PolicySpec, RemoteSource

try:
    from policies.items.catalogue import Catalogue
except ImportError:  # an earlier build, which archive.py measures this one against
    Catalogue = import_module("policies.catalogue").Catalogue  # type: ignore[misc]

POLICY = "long"
BEGIN_MS = 1_700_000_000_000 // 3_600_000 * 3_600_000
PER_SECOND = 50
AT_ONCE = 4096
"""Decisions whose numbers are drawn at once."""
FILE_ENTRIES = 60_000


def long_spec(window_s: float = 60.0, holdout: float = 0.0) -> PolicySpec:
    """Return the spec of the policy that made the log.

    Args:
        window_s: How long a decision waits for its rewards.
        holdout: Share of the users that are held out.
    """
    return PolicySpec(
        POLICY,
        holdout=Holdout(holdout) if holdout else None,
        exploration=EpsilonGreedy(0.2),
        sources=[RemoteSource("cf", "http://localhost")],
        join=JoinRule(window_s=window_s),
    )


def long_log(
    decisions: int,
    *,
    actions: int = 20,
    slots: int = 1,
    seed: int = 0,
    window_s: float = 60.0,
    users: int = 5000,
    holdout: float = 0.0,
) -> Iterator[tuple[str, bytes]]:
    """Yield the entries of a log, positions and bytes.

    Args:
        decisions: How many it has.
        actions: How many each chooses among, of ten times as many.
        slots: How many it chooses.
        seed: Of all that is random.
        window_s: How long a decision waits for its rewards.
        users: How many there are.
        holdout: Share of the users that are held out.
    """
    spec, rng = long_spec(window_s, holdout), np.random.default_rng(seed)
    names = np.array([f"item-{number}" for number in range(10 * actions)], object)
    rewards: list[tuple[int, str, int]] = []
    yield f"{BEGIN_MS}-0", encode(SpecRecord(spec.digest, "salt"))
    yield f"{BEGIN_MS}-1", encode(BuildRecord({"fold": str(FOLD)}))

    for start in range(0, decisions, AT_ONCE):
        n = min(AT_ONCE, decisions - start)
        first = rng.integers(len(names), size=n)
        score = rng.normal(size=(n, actions)).astype("<f4")
        uniform, hour, taste = rng.random((n, slots)), rng.integers(24, size=n), rng.normal(size=n)
        earned, after = rng.random((n, slots)) < 0.3, rng.integers(200, 30_000, (n, slots))
        tails = rng.integers(1 << 48, size=n)

        for i in range(n):
            now = BEGIN_MS + 1 + (start + i) * 1000 // PER_SECOND
            while rewards and rewards[0][0] < now:
                yield _reward(*heapq.heappop(rewards))

            pmfs, chosen = _draw(score[i], uniform[i])
            event_id = f"{start + i:08x}-{tails[i] >> 32:04x}-4000-8000-{tails[i]:012x}"
            record = DecisionRecord(
                event_id=event_id,
                policy=POLICY,
                spec=spec.digest,
                snapshot_id=f"{(start + i) // 1000:016x}",
                catalogue=Catalogue().digest,
                context={
                    "hour": float(hour[i]),
                    "taste": float(taste[i]),
                    "device": ("phone", "tablet", "desktop")[hour[i] % 3],
                },
                action_ids=names[(first[i] + 7 * np.arange(actions)) % len(names)].tolist(),
                features=None,
                scores={"cf": score[i].tobytes()},
                pmf=pmfs.tobytes(),
                chosen=chosen,
                user=f"{tails[i] % users:032x}",
                holdout=bool(tails[i] % users < holdout * users),
            )
            yield f"{now}-0", encode(record)
            for slot in np.flatnonzero(earned[i]).tolist():
                heapq.heappush(rewards, (now + int(after[i, slot]), event_id, slot))

    while rewards:
        yield _reward(*heapq.heappop(rewards))
    last = BEGIN_MS + 1 + decisions * 1000 // PER_SECOND + int(2000 * window_s) + 60_000
    yield f"{last}-0", encode(TickRecord())


def _draw(score: Float64, uniform: Float64) -> tuple[Float64, list[int]]:
    """Return each slot's PMF, epsilon-greedy among what is left, and what it chose."""
    pmfs, chosen = np.zeros((len(uniform), len(score))), []
    left = np.ones(len(score), bool)
    for slot, u in enumerate(uniform):
        pmf = pmfs[slot]
        pmf[left] = 0.2 / left.sum()
        pmf[np.where(left, score, -np.inf).argmax()] += 0.8
        chosen.append(int(min(np.searchsorted(pmf.cumsum(), u, "right"), np.flatnonzero(left)[-1])))
        left[chosen[-1]] = False
    return pmfs, chosen


def _reward(at: int, event_id: str, slot: int) -> tuple[str, bytes]:
    number = int(event_id.partition("-")[0], 16)
    record = RewardRecord(event_id, 1.0, f"{number:x}-{slot}", slot)
    return f"{at}-{2 + 1000 * number + slot}", encode(record)


def write_long_archive(
    root: Path,
    decisions: int,
    *,
    actions: int = 20,
    slots: int = 1,
    window_s: float = 60.0,
    users: int = 5000,
    holdout: float = 0.0,
    folder: str = POLICY,
) -> None:
    """Write a log as the archive of POLICY.

    Args:
        root: The archive's folder.
        decisions: How many the log has.
        actions: How many each chooses among.
        slots: How many it chooses.
        window_s: How long a decision waits for its rewards.
        users: How many there are.
        holdout: Share of the users that are held out.
        folder: The archive's folder, POLICY's or that of one of its partitions.
    """
    writer, spec, empty = ArchiveWriter(root, folder), long_spec(window_s, holdout), Catalogue()
    blobs = {spec.digest: spec.encoded, empty.digest: empty.encoded}
    previous, file = "0-0", list[tuple[str, bytes]]()

    def flush() -> None:
        nonlocal previous, file
        if file:
            writer.write(Range(previous, file[0][0], file[-1][0], len(file)), file, blobs.get)
            previous, file = file[-1][0], []

    log = long_log(
        decisions, actions=actions, slots=slots, window_s=window_s, users=users, holdout=holdout
    )
    for entry in log:
        if file and (len(file) >= FILE_ENTRIES or hour_of(entry[0]) != hour_of(file[0][0])):
            flush()
        file.append(entry)
    flush()

    # A catalogue that only decisions name was stored by an entry of a longer log.
    (root / folder / "_blobs" / empty.digest).write_bytes(empty.encoded)


def main() -> int:
    """Write an archive and say how long it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--decisions", type=int, default=200_000)
    parser.add_argument("--actions", type=int, default=20)
    parser.add_argument("--slots", type=int, default=1)
    asked = parser.parse_args()
    began = time.perf_counter()
    write_long_archive(asked.folder, asked.decisions, actions=asked.actions, slots=asked.slots)
    print(f"{asked.decisions:,} decisions in {time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
