"""Sources that are refreshed under chaos: what they begin as, and what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import redis

from bandits.log.records import ArtifactRecord
from policies.archive.archive import ArchiveReader, archive_folder
from policies.artifacts.source_artifact import write
from serve_app.admin.refreshes import read_refresh
from serve_app.store.history import History
from serve_app.store.keys import Keys
from simulator.refresh.rewarded import coded_events

SOURCES = "popular", "item_knn"


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The artifacts that a policy's log names, and how its refreshes ended."""

    artifacts: int
    said: str


def write_first(folder: Path, items: Sequence[str]) -> None:
    """Write an artifact that knows what four users did who never come back."""
    from policies.training.train import run_training  # noqa: PLC0415 - seconds, for those who train

    user = np.repeat(np.arange(len(items)), 2)
    item = np.concatenate([(n, (n + 1) % len(items)) for n in range(len(items))])
    count = len(user)
    events = coded_events(
        [f"before-{number}" for number in range(len(items))],
        list(items),
        ("event",),
        user,
        item,
        np.arange(count),
        np.arange(1, 1 + count),
        np.full(count, np.nan),
        np.ones(count),
    )
    known = [{"id": each, "features": {}} for each in items]
    write(run_training(events, known, sources=SOURCES).artifact, folder)


def read_refreshes(client: redis.Redis, logs: Sequence[Keys], folder: Path) -> Refreshed:
    """Return what the first log says of artifacts."""
    name = archive_folder(logs[0].policy, 0, len(logs))
    archive = ArchiveReader(str(folder / "data" / "archive"), name)
    named = {
        entry.record.version
        for entry in History(client, logs[0], archive).encoded("0-0")
        if isinstance(entry.record, ArtifactRecord)
    }
    last = read_refresh(client, logs[0])
    ended = "no refresh ended" if last is None else f"refreshes {last.counts}"
    if last is not None and last.outcome == "failed":
        ended += f", the last: {last.code} {last.message[:200]}"
    return Refreshed(len(named), f"{len(named)} artifacts served, {ended}")
