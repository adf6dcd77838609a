"""The promise, checked: fold the log once more, and compare each snapshot that was served."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bandits.errors import SnapshotError
from bandits.log.positions import START, log_order
from bandits.log.records import LogEntry
from bandits.snapshot_distance import distance
from bandits.types import Snapshot
from policies.fold.fold import Fold

ACROSS_BUILDS = 1e-6
"""How far apart two builds' models may be: rounding."""

Verdict = Literal["identical", "close", "different", "not in the log"]


@dataclass(frozen=True, slots=True)
class ServedSnapshot:
    """A snapshot as it was stored, with its spec, its catalogue and the build that made it."""

    snapshot_id: str
    snapshot: Snapshot
    spec: str
    catalogue: str
    build: dict[str, str]


@dataclass(frozen=True, slots=True)
class Verified:
    """A snapshot that was compared.

    ``close``: within ACROSS_BUILDS, and another build than this one has a part in it. ``distance``:
    as ``bandits.snapshot_distance`` measures it.
    """

    snapshot_id: str
    position: str
    learned: int
    verdict: Verdict
    distance: float

    @property
    def holds(self) -> bool:
        """Whether the promise was kept."""
        return self.verdict in {"identical", "close"}


def verify(
    fold: Fold,
    entries: Iterable[LogEntry],
    served: Sequence[ServedSnapshot],
    *,
    build: dict[str, str],
    progress: Callable[[str, int], None] = lambda _position, _learned: None,
    every: int = 1000,
) -> Iterator[Verified]:
    """Fold on through ``entries``, and compare each of ``served`` on the way.

    Within a build bytes must be the same; a snapshot that another build made, or that rests on what
    another build had folded, may differ by rounding.

    Args:
        fold: where to start; what was served before its position is not compared.
        entries: the log from there on.
        served: snapshots as they were stored.
        build: this one's.
        progress: is told the position, and how many interactions have been learned.
        every: how many entries are folded at a time.
    """
    waiting = sorted(
        (s for s in served if _at(s) >= log_order(fold.position)), key=_at, reverse=True
    )
    if waiting and waiting[-1].snapshot.position == fold.position != START:
        yield compare(fold, waiting.pop(), build)

    # A batch ends where a snapshot is to be compared.
    batch: list[LogEntry] = []
    wanted = {stored.snapshot.position for stored in waiting}
    for entry in entries:
        batch.append(entry)
        if entry.id not in wanted and len(batch) < every:
            continue

        fold.apply(batch)
        batch.clear()
        progress(fold.position, fold.learned)
        while waiting and _at(waiting[-1]) <= log_order(fold.position):
            yield compare(fold, waiting.pop(), build)

    # What was never reached is not in the log.
    fold.apply(batch)
    while waiting:
        yield compare(fold, waiting.pop(), build)


def _at(served: ServedSnapshot) -> tuple[int, int]:
    return log_order(served.snapshot.position)


def compare(
    fold: Fold,
    served: ServedSnapshot,
    build: dict[str, str],
    *,
    folded_by: Sequence[dict[str, str]] | None = None,
) -> Verified:
    """Compare a snapshot with a fold that has reached its position.

    Args:
        fold: the fold.
        served: the snapshot as it was stored.
        build: this one's.
        folded_by: the builds that had a part in the log; by default those that the fold has met.
    """
    snapshot = served.snapshot
    if fold.position != snapshot.position:
        return Verified(
            served.snapshot_id, snapshot.position, snapshot.learned, "not in the log", math.inf
        )

    # Snapshots of two specs or catalogues are not the same, whatever their numbers.
    apart = math.inf
    if (fold.spec_id, fold.catalogue.digest) == (served.spec, served.catalogue):
        with contextlib.suppress(SnapshotError):
            apart = distance(snapshot, fold.snapshot())

    builds = fold.builds if folded_by is None else folded_by
    verdict: Verdict = "different"
    if apart == 0.0:
        verdict = "identical"
    elif apart <= ACROSS_BUILDS and any(other != build for other in (served.build, *builds)):
        verdict = "close"
    return Verified(served.snapshot_id, snapshot.position, snapshot.learned, verdict, apart)
