"""The whole log: the stream, and the archive where the stream has been trimmed."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import starmap
from typing import Any

from bandits.errors import LogGapError, MissingBlobError
from bandits.log.encoded_decisions import known_decision
from bandits.log.positions import START, has_reached, is_after, log_order, position_after
from bandits.log.records import LogEntry, TickRecord
from policies.archive.archive import ArchiveReader
from policies.fold.checkpoint import FoldState
from serve_app.store.archived import Committed
from serve_app.store.checkpoints import Checkpoints
from serve_app.store.clients import Redis
from serve_app.store.event_log import RedisLog
from serve_app.store.keys import Keys

BATCH = 1000
KNOWN_BATCH = 200
"""Entries at a time, where a learner reads behind itself: while Redis sends, it answers nobody."""


class History:
    """Reads one partition's log from anywhere to its end, also while it is archived and trimmed.

    Blocking.
    """

    def __init__(self, client: Redis, keys: Keys, archive: ArchiveReader | None) -> None:
        self._client = client
        self._keys = keys
        self._archive = archive
        self._log = RedisLog(client, keys)

    def entries(self, after: str, through: str | None = None) -> Iterator[LogEntry]:
        """Yield every entry past ``after``, in order, each once.

        Args:
            after: the position to begin behind.
            through: the last position to yield; None: the end of the log.

        Raises:
            LogGapError: a part of it is neither in the stream nor in the archive.
            ArchiveError: the archive is damaged, or has a gap.
        """

        def encoded(archive: ArchiveReader, start: str, end: str) -> Iterator[LogEntry]:
            return archive.encoded(start, end)

        read = partial(self._log.read_encoded, count=BATCH)
        return self._read(after, through, read, encoded)

    def known(self, after: str, through: str | None = None) -> Iterator[LogEntry]:
        """Yield entries as ``entries`` does, for whoever has read them before.

        What was checked then is not checked again, and all but decisions read as ticks, or are left
        out.

        Args:
            after: the position to begin behind.
            through: the last position to yield; None: the end of the log.

        Raises:
            LogGapError, ArchiveError: see ``entries``.
        """

        def known(archive: ArchiveReader, start: str, end: str) -> Iterator[LogEntry]:
            return starmap(_known, archive.raw(start, end, kinds=["decision"]))

        return self._read(after, through, self._read_known, known)

    def _read_known(self, after: str) -> list[LogEntry]:
        return list(starmap(_known, self._log.read_raw(after, count=KNOWN_BATCH)))

    def _read(
        self,
        after: str,
        through: str | None,
        of_stream: Callable[[str], list[LogEntry]],
        of_archive: Callable[[ArchiveReader, str, str], Iterator[LogEntry]],
    ) -> Iterator[LogEntry]:
        position = after
        while through is None or is_after(through, position):
            # Asked again after a batch was read: then it holds of the batch.
            batch: list[LogEntry] | None = None
            if not self._is_trimmed(position):
                batch = of_stream(position)
            if batch is None or self._is_trimmed(position):
                until = self._archived_until(position, self._trimmed(), through)
                if self._archive is not None:
                    yield from of_archive(self._archive, position, until)
                position = until
                continue

            if not batch:
                return
            if through is not None and is_after(batch[-1].id, through):
                yield from (entry for entry in batch if has_reached(through, entry.id))
                return
            yield from batch
            position = batch[-1].id

    def _trimmed(self) -> str:
        return Committed.read(self._client, self._keys).trimmed

    def _is_trimmed(self, position: str) -> bool:
        """Say whether entries past a position may be gone from the stream."""
        return is_after(self._trimmed(), position_after(position))

    def _archived_until(self, position: str, trimmed: str, through: str | None) -> str:
        """Return how far to read the archive, which has to hold what the stream lacks."""
        needed = trimmed if through is None else min(trimmed, through, key=log_order)
        end = START if self._archive is None else self._archive.end_with(needed)
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
        return START if self._archive is None else self._archive.end

    def blob(self, name: str) -> bytes:
        """Return the blob an entry names; from the archive, if Redis has lost or damaged it.

        Raises:
            MissingBlobError, ArchiveError: it is in neither.
        """
        try:
            return self._log.blob(name)
        except MissingBlobError:
            if self._archive is None:
                raise
            return self._archive.blob(name)


class LogPast:
    """The log behind a fold, wherever it is now."""

    def __init__(self, history: History, checkpoints: Checkpoints) -> None:
        self.entries = history.entries
        self.known = history.known
        self._checkpoints = checkpoints

    def checkpoint(self, position: str) -> FoldState | None:
        """Return the newest checkpoint at or before a position."""
        return self._checkpoints.newest(position)


def _known(entry_id: str, data: bytes) -> LogEntry:
    return LogEntry(entry_id, known_decision(data) or TickRecord())
