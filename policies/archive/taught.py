"""Decisions of an archive with no more than what their chosen actions teach.

A learner of chosen actions that comes back to a decision when its window closes asks for the
context, the chosen actions and all scores, of which ranks follow. PMFs, which are most of a slate's
bytes, and the names and features of what was not chosen stay where they are.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bandits.log.records import EncodedDecision, LogEntry
from policies.archive.archive import ArchiveReader
from policies.archive.parts.assembled import taught
from policies.archive.parts.objects import plain_values, truths_of

COLUMNS = [
    *("id", "kind", "event_id", "spec", "catalogue", "deferred", "holdout", "unserved"),
    *("actions", "slots", "chosen", "action_ids", "scores", "context", "features"),
    *("placed", "credit"),
]
AT_ONCE = 2048
"""Rows that are taken apart at a time."""


def taught_decisions(
    archive: ArchiveReader, after: str, through: str | None = None
) -> Iterator[LogEntry]:
    """Yield the decisions of a part of the log; their propensities are not said.

    What ``bandits.kernels.lessons`` makes of their bytes is what it makes of the whole ones.

    Args:
        archive: where the log is.
        after: entries past this position.
        through: up to this one; None for all.

    Raises:
        ArchiveError: a file is damaged or missing.
    """
    before = after
    for group in archive.columns(COLUMNS, after, through):
        batch = group.batch
        if _has_rare(batch):
            yield from archive.encoded(before, group.last)
        else:
            for start in range(0, len(batch), AT_ONCE):
                yield from _decisions(batch.slice(start, AT_ONCE))
        before = group.last


def _has_rare(batch: pa.RecordBatch) -> bool:
    """Return whether some have what few logs have: these are read whole."""
    is_unserved = bool(pc.any(batch["unserved"]).as_py())
    return is_unserved or any(batch[name].null_count < len(batch) for name in ("placed", "credit"))


def _decisions(batch: pa.RecordBatch) -> Iterator[LogEntry]:
    kinds = batch["kind"]
    rows = np.flatnonzero(kinds.indices.to_numpy() == kinds.dictionary.index("decision").as_py())
    if not rows.size:
        return

    names = ("id", "event_id", "spec", "catalogue", "slots")
    said = zip(*(plain_values(batch[name]) for name in names), strict=True)
    flags = zip(*(truths_of(batch[name]) for name in ("deferred", "holdout")), strict=True)
    of_rows = list(zip(said, flags, strict=True))
    for row, data in zip(rows.tolist(), taught(batch, rows), strict=True):
        (position, event_id, spec, catalogue, slots), (deferred, holdout) = of_rows[row]
        record = EncodedDecision(data, event_id, spec, catalogue, slots, deferred, holdout)
        yield LogEntry(position, record)
