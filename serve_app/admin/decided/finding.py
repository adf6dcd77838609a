"""A decision of a log, found by its event_id: in the stream first, where most are asked for."""

import re
from collections.abc import Callable

import pyarrow.compute as pc

from bandits.errors import ArchiveError, InvalidFieldError, UnknownEventError
from bandits.log.encoded_decisions import DECISIONS, whole_record
from bandits.log.positions import position_before
from bandits.log.records import DecisionRecord
from serve_app.store.history import History

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

    at = None if history.archive is None else _archived(history, event_id, progress)
    if at is None:
        raise _unknown(history, event_id)
    [read] = history.encoded(position_before(at), at)
    if not isinstance(read.record, DECISIONS):
        raise ArchiveError(f"the entry {at} is no decision", "archive")
    return read.id, whole_record(read.record)


def _archived(history: History, event_id: str, progress: Progress) -> str | None:
    """Return the newest archived entry of a decision; of the files two light columns are read."""
    assert history.archive is not None  # noqa: S101 - as its caller has seen
    found = None
    for group in history.archive.columns(["id", "event_id"], kinds=["decision"]):
        places = pc.indices_nonzero(pc.equal(group.batch["event_id"], event_id))
        if len(places):
            found = str(group.batch["id"][places[-1].as_py()].as_py())
        progress(group.last)
    return found


def _unknown(history: History, event_id: str) -> UnknownEventError:
    return UnknownEventError(
        f"no decision of policy {history.policy} has the event_id {event_id!r}: it was never"
        " logged, or the log has been cut since",
        "event_id",
    )
