"""What one log says of a person: their entries, and what was said of their decisions."""

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from bandits.errors import CodecError
from bandits.log.codec import decode
from bandits.log.positions import START
from bandits.log.records import (
    ActivationRecord,
    DecisionRecord,
    LogEntry,
    RewardRecord,
)
from policies.archive.archive import ArchiveReader
from serve_app.store.clients import Redis
from serve_app.store.event_log import FIELD
from serve_app.store.keys import ActivityKeys, LogKeys

BATCH = 500
"""Entries that Redis sends at a time: meanwhile it answers nobody else."""
_ABOUT_DECISIONS = tuple(
    str(kind.__struct_config__.tag).encode() for kind in (RewardRecord, ActivationRecord)
)
_KIND_BYTES = 16


def logged_of(
    client: Redis,
    keys: LogKeys,
    archive: ArchiveReader | None,
    names: Collection[str],
    looked: Callable[[int], None] = lambda _count: None,
) -> Iterator[LogEntry]:
    """Yield what a log says of a person, in order, wherever it is now.

    Args:
        client: a connection.
        keys: the log's.
        archive: its archive; None: it has none.
        names: the person's pseudonyms.
        looked: called with how many more entries were looked at.

    Raises:
        RedisError: Redis does not answer.
        ArchiveError: a file is damaged or missing.
    """
    finder, position = _Finder(names), START
    if archive is not None:
        for part in _parts(keys, archive, finder):
            yield from part.found
            position = part.last
            looked(part.entries)

    while True:
        answer: Any = client.xrange(keys.log, f"({position}", count=BATCH)
        raw = [(entry_id.decode(), fields.get(FIELD, b"")) for entry_id, fields in answer]
        yield from finder.among(raw)
        looked(len(raw))
        if len(raw) < BATCH:
            return
        position = raw[-1][0]


class _Finder:
    """Knows an entry of a person by its bytes; hardly any has to be decoded."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = frozenset(names)
        self.decisions: set[str] = set()
        self._needles = [name.encode() for name in names]

    def among(self, entries: Iterable[tuple[str, bytes]]) -> Iterator[LogEntry]:
        """Yield those of some entries that are the person's."""
        for entry_id, data in entries:
            found = self._look(entry_id, data)
            if found is not None:
                yield found

    def _look(self, entry_id: str, data: bytes) -> LogEntry | None:
        is_about = any(kind in data[:_KIND_BYTES] for kind in _ABOUT_DECISIONS)
        if not (is_about and self.decisions) and not any(each in data for each in self._needles):
            return None
        try:
            record = decode(data)
        except CodecError:
            return None

        if isinstance(record, RewardRecord | ActivationRecord):
            return LogEntry(entry_id, record) if record.event_id in self.decisions else None
        named = {getattr(record, "user", None), getattr(record, "into", None)}
        if named.isdisjoint(self.names):
            return None
        if isinstance(record, DecisionRecord):
            self.decisions.add(record.event_id)
        return LogEntry(entry_id, record)


def _parts(keys: LogKeys, archive: ArchiveReader, finder: "_Finder") -> "Iterator[_Looked]":
    look = _activity if isinstance(keys, ActivityKeys) else _decisions
    return look(archive, finder)


class _Looked(NamedTuple):
    """A part of an archive that was looked through.

    ``found``: the person's entries; ``last``: its last entry; ``entries``: how many it has.
    """

    found: list[LogEntry]
    last: str
    entries: int


def _activity(archive: ArchiveReader, finder: _Finder) -> Iterator[_Looked]:
    entries = archive.raw(archive.beginning)
    while part := list(islice(entries, BATCH)):
        yield _Looked(list(finder.among(part)), part[-1][0], len(part))


def _decisions(archive: ArchiveReader, finder: _Finder) -> Iterator[_Looked]:
    """Look for a person in few columns, and read whole entries only around them."""
    before = archive.beginning
    for group in archive.columns(["id", "event_id", "user"], before):
        user, event = (group.batch[name].cast(pa.string()) for name in ("user", "event_id"))
        own = pc.is_in(user, value_set=pa.array(finder.names, pa.string()))
        named = pa.array([*finder.decisions, *event.filter(own).to_pylist()], pa.string())
        is_there = pc.any(own).as_py() or pc.any(pc.is_in(event, value_set=named)).as_py()
        raw = archive.raw(before, group.last) if is_there else ()
        yield _Looked(list(finder.among(raw)), group.last, len(group.batch))
        before = group.last
