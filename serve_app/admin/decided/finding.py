"""A decision of a log, found by its event_id: in the stream first, where most are asked for."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

import pyarrow.compute as pc

from bandits.errors import ArchiveError, InvalidFieldError, UnknownEventError
from bandits.log.encoded_decisions import DECISIONS, whole_record
from bandits.log.positions import is_after, position_before, position_ms
from bandits.log.records import DecisionRecord
from policies.archive.row_groups import RowGroup
from serve_app.store.history import History

SWAPPED_MS: Final = 5_000
"""For so long some replicas serve a model at most while others serve the next one already."""
MOST: Final = 50_000
"""Decisions that are looked through for the first of a model."""
_ENTRY = re.compile(r"[0-9]{1,15}-[0-9]{1,19}")

Progress = Callable[[str], None]
"""Told, as the log is read, the position that was reached."""
Found = tuple[str, DecisionRecord]
"""The entry of a decision, and what it says."""


def find_decision(
    history: History, event_id: str, entry: str = "", progress: Progress = lambda _: None
) -> Found:
    """Return the newest decision of an event_id.

    Args:
        history: the log of its partition.
        event_id: the decision's.
        entry: where it is, if that is known; "": anywhere.
        progress: see ``Progress``.

    Raises:
        UnknownEventError: there is no such decision.
        InvalidFieldError: the entry is none.
        LogGapError, ArchiveError: the log cannot be read.
    """
    if entry:
        if not _ENTRY.fullmatch(entry):
            raise InvalidFieldError(
                "the id of an entry, as a list of decisions has it, such as 1700000000000-0",
                "entry",
            )
        for read in history.encoded(position_before(entry), entry):
            if isinstance(read.record, DECISIONS) and read.record.event_id == event_id:
                return read.id, whole_record(read.record)
        raise _unknown(history, event_id)

    for read in history.backwards(archived=False):
        if isinstance(read.record, DECISIONS) and read.record.event_id == event_id:
            return read.id, whole_record(read.record)
        progress(read.id)

    at = _archived(history, event_id, progress)
    if at is None:
        raise _unknown(history, event_id)
    [read] = history.encoded(position_before(at), at)
    if not isinstance(read.record, DECISIONS):
        raise ArchiveError(f"the entry {at} is no decision", "archive")
    return read.id, whole_record(read.record)


def first_served(history: History, entry: str, snapshot_id: str) -> str:
    """Return the first decision that names a snapshot, as far as the log is looked through.

    Args:
        history: the log.
        entry: a decision that names it.
        snapshot_id: the snapshot.

    Raises:
        ArchiveError: the archive is damaged.
    """
    first = entry
    for position, name in islice(_snapshots_back(history, entry), MOST):
        if name == snapshot_id:
            first = position
        elif position_ms(first) - position_ms(position) > SWAPPED_MS:
            break
    return first


def _snapshots_back(history: History, before: str) -> Iterator[tuple[str, str]]:
    """Yield the decisions before one, the newest first, with the snapshot that each names."""
    oldest = before
    for read in history.backwards(before, archived=False):
        if isinstance(read.record, DECISIONS):
            yield read.id, whole_record(read.record).snapshot_id
        oldest = read.id

    for group in _archived_back(history, ["id", "snapshot_id"], oldest):
        ids, names = (group.batch[name].to_pylist() for name in ("id", "snapshot_id"))
        for position, name in zip(reversed(ids), reversed(names), strict=True):
            if is_after(oldest, position):
                yield position, name


def _archived(history: History, event_id: str, progress: Progress) -> str | None:
    """Return the newest archived entry of a decision; of the files two light columns are read."""
    for group in _archived_back(history, ["id", "event_id"]):
        places = pc.indices_nonzero(pc.equal(group.batch["event_id"], event_id))
        if len(places):
            return str(group.batch["id"][places[-1].as_py()].as_py())
        progress(group.last)
    return None


def _archived_back(
    history: History, names: Sequence[str], before: str | None = None
) -> Iterator[RowGroup]:
    """Yield columns of the archived decisions, the newest row group first.

    Args:
        history: the log.
        names: the columns.
        before: from the file on that has anything before this position; None: the newest.
    """
    archive = history.archive
    if archive is None:
        return
    for file in archive.chain.listing.backwards(before):
        after = position_before(file.first)
        yield from reversed(list(archive.columns(names, after, file.last, kinds=["decision"])))


def _unknown(history: History, event_id: str) -> UnknownEventError:
    return UnknownEventError(
        f"no decision of policy {history.policy} has the event_id {event_id!r}: it was never"
        " logged, or the log has been cut since",
        "event_id",
    )
