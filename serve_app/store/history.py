"""The whole log: the stream, and the archive where the stream has been trimmed."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from bandits.errors import LogGapError, MissingBlobError
from bandits.log.older_decisions import Opened, opened_of
from bandits.log.positions import START, is_after, log_order, position_after, position_before
from bandits.log.records import LogEntry
from policies.archive.archive import ArchiveReader
from policies.archive.openings import openings
from policies.archive.taught import taught_decisions
from policies.fold.checkpoint import FoldState
from serve_app.store.archiving.archived import Committed
from serve_app.store.checkpoints import Checkpoints, Root
from serve_app.store.clients import Redis
from serve_app.store.event_log import RedisLog
from serve_app.store.keys import LogKeys

BATCH = 1000
BEHIND = 200
"""Entries at a time, where a learner reads behind itself: while Redis sends, it answers nobody."""


class History:
    """Reads one partition's log from anywhere to its end, also while it is archived and trimmed.

    Blocking.
    """

    def __init__(self, client: Redis, keys: LogKeys, archive: ArchiveReader | None) -> None:
        self._client = client
        self._keys = keys
        self.archive = archive
        self._log = RedisLog(client, keys)

    def encoded(
        self, after: str, through: str | None = None, *, batch: int = BATCH
    ) -> Iterator[LogEntry]:
        """Yield every entry past ``after``, in order, each once, with decisions encoded.

        Args:
            after: the position to begin behind.
            through: the last position to yield; None: the end of the log.
            batch: how many to ask Redis for at a time.

        Raises:
            LogGapError: a part of it is neither in the stream nor in the archive.
            ArchiveError: the archive is damaged, or has a gap.
        """
        yield from self._read(after, through, batch, ArchiveReader.encoded)

    def taught(
        self, after: str, through: str | None = None, *, batch: int = BATCH
    ) -> Iterator[LogEntry]:
        """Yield decisions past ``after``, in order, for whoever learns from what they chose.

        Of what is read from the archive there is nothing else: see ``taught_decisions``.

        Args:
            after: the position to begin behind.
            through: the last position to yield; None: the end of the log.
            batch: how many to ask Redis for at a time.

        Raises:
            LogGapError, ArchiveError: see ``encoded``.
        """
        yield from self._read(after, through, batch, taught_decisions)

    def _read(
        self,
        after: str,
        through: str | None,
        batch: int,
        archived: Callable[[ArchiveReader, str, str], Iterator[LogEntry]],
    ) -> Iterator[LogEntry]:
        """Yield what the stream has, and before it what a function reads of the archive."""
        position, trimmed = after, self._trimmed()
        while through is None or is_after(through, position):
            # What the stream lacks by now, the archive has to hold.
            if is_after(trimmed, position_after(position)):
                until = self._archived_until(position, trimmed, through)
                yield from archived(self.archive, position, until) if self.archive else ()
                position = until
                continue

            # Asked after the batch was read, so it holds of the batch.
            read = self._log.read_encoded(position, through, count=batch)
            trimmed = self._trimmed()
            if is_after(trimmed, position_after(position)):
                continue

            if not read:
                return
            yield from read
            position = read[-1].id

    def backwards(self, before: str | None = None, *, archived: bool = True) -> Iterator[LogEntry]:
        """Yield every entry before a position, the newest first, with decisions encoded.

        Args:
            before: the position to begin before; None: the end of the log.
            archived: whether to go on into the archive, behind what the stream has.

        Raises:
            ArchiveError: the archive is damaged.
        """
        oldest = before
        while read := self._log.read_back(oldest, count=BEHIND):
            yield from read
            oldest = read[-1].id

        # A file holds some thousand entries: they are turned around one file at a time.
        if self.archive is None or not archived:
            return
        for file in self.archive.chain.listing.backwards(oldest):
            part = list(self.archive.encoded(position_before(file.first), file.last))
            for entry in reversed(part):
                if oldest is None or is_after(oldest, entry.id):
                    yield entry
            oldest = file.first if oldest is None or is_after(oldest, file.first) else oldest

    def opened(self, after: str, through: str) -> Iterator[Opened]:
        """Yield of each entry what a join that goes through the log again wants to know.

        Args:
            after: the position to begin behind.
            through: the last position to yield.

        Raises:
            LogGapError, ArchiveError: see ``encoded``.
        """
        # Of the archive few columns are read.
        position, trimmed = after, self._trimmed()
        if self.archive is not None and is_after(trimmed, position_after(position)):
            position = self._archived_until(position, trimmed, through)
            yield from openings(self.archive, after, position)
        yield from opened_of(self.encoded(position, through))

    @property
    def aside(self) -> str | None:
        """A folder where there is room for much of the log: the archive's, if it is on a disk."""
        return None if self.archive is None else self.archive.local

    @property
    def policy(self) -> str:
        """The policy whose log it is, or the space."""
        return self._keys.policy

    def _trimmed(self) -> str:
        return Committed.read(self._client, self._keys).trimmed

    def _archived_until(self, position: str, trimmed: str, through: str | None) -> str:
        """Return how far to read the archive, which has to hold what the stream lacks."""
        needed = trimmed if through is None else min(trimmed, through, key=log_order)
        end = START if self.archive is None else self.archive.end_with(needed)
        if is_after(needed, end):
            raise LogGapError(
                f"the log of {self._keys.policy} has a gap: the stream holds entries from {trimmed}"
                f" on, the archive up to {end}, and {position} is before both: restore the"
                " archive's files, or start with --archive where they are",
                "archive",
            )
        return end if through is None else min(end, through, key=log_order)

    def end(self) -> str:
        """Return the id of the newest entry; "0-0" when there is none."""
        newest: Any = self._client.xrevrange(self._keys.log, count=1)
        if newest:
            return str(newest[0][0].decode())
        return START if self.archive is None else self.archive.end

    def blob(self, name: str) -> bytes:
        """Return the blob an entry names; from the archive, if Redis has lost or damaged it.

        Raises:
            MissingBlobError, ArchiveError: it is in neither.
        """
        try:
            return self._log.blob(name)
        except MissingBlobError:
            if self.archive is None:
                raise
            return self.archive.blob(name)


class LogPast:
    """The log behind a fold, wherever it is now."""

    def __init__(self, history: History, checkpoints: Checkpoints) -> None:
        self.entries = history.encoded
        self.opened = history.opened
        self.behind = partial(history.encoded, batch=BEHIND)
        self.taught, self.aside = partial(history.taught, batch=BEHIND), history.aside
        self._checkpoints = checkpoints

    def checkpoint(self, position: str) -> FoldState | None:
        """Return the newest checkpoint at or before a position."""
        return self._checkpoints.newest(position)

    def root(self) -> tuple[Root, FoldState] | None:
        """Return where the log begins, with the state there; None: at its first entry.

        Raises:
            SnapshotError, CodecError: the state cannot be read.
        """
        root = self._checkpoints.root()
        return None if root is None else (root, self._checkpoints.state(root.checkpoint))


def batched(entries: Iterable[LogEntry], size: int) -> Iterator[list[LogEntry]]:
    """Yield the entries in lists, none of which is empty.

    Args:
        entries: taken only as lists are asked for.
        size: how many a list holds, at least 1; the last may hold fewer.
    """
    iterator = iter(entries)
    while batch := list(islice(iterator, size)):
        yield batch
