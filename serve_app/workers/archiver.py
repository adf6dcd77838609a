"""The archiver: ranges of the stream become files, then the stream is trimmed behind them.

Any number of archivers may run: what is committed is settled in Redis (store/archiving).

A range is committed before its file is written, and the next is committed only once it was. Any
archiver that finds a committed range without a file writes it: from the same entries, so the same
bytes.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pyarrow import fs

from bandits.errors import ArchiveError
from bandits.log.positions import START, is_after, position_ms
from policies.archive.archive import ArchiveReader, ArchiveWriter, archive_folder
from policies.archive.range_file import Range, hour_of
from policies.archive.shared import Shared, shared_folder
from serve_app.store.archiving.archived import ArchivedStream, Committed, StreamSize
from serve_app.store.clients import FAILURES, Redis
from serve_app.store.keys import ActivityKeys, ItemsKeys, Keys, LogKeys

MAX_ENTRIES = 50_000
POLL_S = 1.0
QUIET_S, QUIET_SHARE = 5.0, 1 / 12
"""Where nothing has come, the next look is after so long, or this share of the age of an entry."""
RETRY_S, MAX_RETRY_S = 0.5, 30.0
SHARED_KEYS: Mapping[Shared, type[LogKeys]] = {"items": ItemsKeys, "activity": ActivityKeys}

log = logging.getLogger("banditloop.archiver")


@dataclass(slots=True)
class _Scan:
    """The range that would come next, as far as the stream has been looked at.

    ``added`` and ``length``: what the stream had when ``last`` was its newest entry, without what
    was trimmed since; None where that is not known.
    """

    previous: str
    last: str
    first: str = ""
    count: int = 0
    closed: bool = field(default=False)
    added: int | None = None
    length: int = 0

    def after(self, previous: str) -> "_Scan":
        """Return the scan of the range that begins behind an entry."""
        if previous != self.last:
            return _Scan(previous, previous)
        return _Scan(previous, previous, added=self.added, length=self.length)

    def take(self, entry_id: str, limit: int) -> None:
        """Let the range grow by the next entry of the stream, or end before it."""
        if self.count == limit or (self.count and hour_of(entry_id) != hour_of(self.first)):
            self.closed = True
        if not self.closed:
            self.first, self.last, self.count = self.first or entry_id, entry_id, self.count + 1
            self.added = None if self.added is None else self.added + 1
            self.length += 1

    def growth(self, now: StreamSize) -> int | None:
        """Return how many entries have come since; None where that has to be looked at.

        Where nothing else was removed, as many are there more as were added.
        """
        if self.added is None or now.added is None:
            return None
        grown = now.added - self.added
        return grown if 0 <= grown == now.length - self.length else None


class Archiver:
    """Archives and trims one policy's log, one partition of it, or a log that a space shares.

    A range ends when it has ``max_entries``, with its hour, or when its first entry is older than
    ``max_age_s``. ``failures`` counts the attempts that failed.
    """

    def __init__(
        self,
        client: Redis,
        policy: str,
        root: "str | Path | fs.FileSystem",
        *,
        max_entries: int = MAX_ENTRIES,
        max_age_s: float = 60.0,
        retain_s: float = 900.0,
        partition: int = 0,
        partitions: int = 1,
        shared: Shared | None = None,
    ) -> None:
        """Archive a log.

        Args:
            client: this thread's own connection.
            policy: the policy's name; of a log that is shared, the space's.
            root: where the archive is; see policies/storage.py.
            max_entries: most entries of a range.
            max_age_s: age of an entry, in seconds, at which it is archived at the latest.
            retain_s: age up to which entries stay in the stream, in seconds.
            partition: the one to archive, from 0.
            partitions: how many the policy has.
            shared: which log of the space; None: the policy's own.
        """
        keys: LogKeys = Keys(policy, partition)
        folder = archive_folder(policy, partition, partitions)
        if shared is not None:
            keys, folder = SHARED_KEYS[shared](policy), shared_folder(policy, shared)
        self._policy = folder
        self._root = root
        self._max_entries = max_entries
        self._max_age_ms = max_age_s * 1000
        self._retain_ms = int(retain_s * 1000)
        self._stream = ArchivedStream(client, keys)

        # What was seen of the stream, and up to where Redis and the files were found to agree.
        self._scan = _Scan(START, START)
        self._agreed: str | None = None
        self._unreported = 0
        self.failures = 0

    @cached_property
    def _writer(self) -> ArchiveWriter:  # opened where a failure is counted and tried again
        return ArchiveWriter(self._root, self._policy)

    @cached_property
    def _reader(self) -> ArchiveReader:
        return ArchiveReader(self._root, self._policy)

    def run(self, stop: threading.Event) -> None:
        """Archive and trim until told to stop; an unreachable Redis or file system ends nothing."""
        retry_s = RETRY_S
        while not stop.is_set():
            try:
                self._report()
                seen = self._scan.last
                wait_s, retry_s = 0.0 if self.step() else POLL_S, RETRY_S
                if wait_s and self._scan.last == seen:
                    wait_s = max(POLL_S, min(QUIET_S, QUIET_SHARE * self._max_age_ms / 1000))
                while self.trim():
                    pass
            except Exception as error:
                self.failures += 1
                self._unreported += 1

                # Any error is tried again; one that was not foreseen is logged with its trace.
                expected = isinstance(error, (*FAILURES, ArchiveError))
                detail = error.message if isinstance(error, ArchiveError) else type(error).__name__
                trace = None if expected else error
                log.warning(
                    "%s is not archived, trying again in %g s: %s",
                    self._policy,
                    retry_s,
                    detail,
                    exc_info=trace,
                )
                wait_s, retry_s = retry_s, min(2 * retry_s, MAX_RETRY_S)
            stop.wait(wait_s)

    def step(self) -> bool:
        """Write the committed range that has no file, or commit and write the next.

        Returns False if none is due.

        Raises:
            RedisError, OSError: unreachable; call again.
            ArchiveError: stream and archive contradict each other.
        """
        committed = self._stream.committed()
        try:
            if committed.newest.last != self._agreed and not self._agree(committed):
                return True

            # A range is committed first, so that whoever finds it without a file can write it.
            if not committed.pending:
                due = self._next_range(committed.written)
                if due is None:
                    return False
                if not self._stream.commit(due):
                    return True
                committed = Committed(due, committed.written, committed.trimmed)
                self._agreed = due.last

            self._write(committed.newest)
        except ArchiveError:
            if self._stream.committed() == committed:
                raise
            # This process slept, and another archiver went on meanwhile: look again.
        return True

    def trim(self) -> int:
        """Remove from the stream what is written, old enough, and needed by no learner.

        Returns how many entries were removed: up to some 10,000 at a time, so that nobody waits for
        it; 0 when there are no more.
        """
        removed = self._stream.trim(self._retain_ms)
        self._scan.length -= removed
        return removed

    def _next_range(self, previous: str) -> Range | None:
        """Return the range after ``previous``; None while it is not due."""
        if self._scan.previous != previous:
            self._scan = self._scan.after(previous)

        # The stream is looked at once: what was seen of the range is remembered.
        scan, size = self._scan, self._stream.size()
        if size is not None and not scan.closed and not self._grow(scan, size):
            while not scan.closed and scan.count < self._max_entries:
                ids = self._stream.ids_after(scan.last, size.last)
                for entry_id in ids:
                    scan.take(entry_id, self._max_entries)
                if not ids:
                    scan.added, scan.length = size.added, size.length
                    break

        if not scan.count:
            return None
        if not scan.closed and scan.count < self._max_entries and self._young(scan.first):
            return None
        return Range(previous, scan.first, scan.last, scan.count)

    def _grow(self, scan: _Scan, size: StreamSize) -> bool:
        """Let a range grow by all that has come, if it may; no entry but its first is read.

        Args:
            scan: of the range.
            size: of the stream.
        """
        grown = scan.growth(size)
        if grown is None or scan.count + grown > self._max_entries:
            return False
        if not grown:
            return True
        first = scan.first or next(iter(self._stream.ids_after(scan.last, count=1)), "")
        if not first or hour_of(first) != hour_of(size.last):
            return False
        scan.first, scan.last, scan.count = first, size.last, scan.count + grown
        scan.added, scan.length = size.added, size.length
        return True

    def _young(self, first: str) -> bool:
        return self._stream.now_ms() - position_ms(first) < self._max_age_ms

    def _write(self, newest: Range) -> None:
        entries = self._stream.raw(newest.first, newest.last)
        missing = self._writer.write(newest, entries, self._stream.blob)
        for digest in missing:
            log.warning(
                "range %s of %s names blob %s, which is not stored", newest, self._policy, digest
            )
        self._stream.mark_written(newest)

    def _agree(self, committed: Committed) -> bool:
        """Bring Redis and the files into line where one has lost what the other has.

        Returns False if they differed: look again.

        Args:
            committed: read before the files are looked at, so other archivers can only have added
                to them since.

        Raises:
            ArchiveError: they are of different logs, or what the files lack is gone from the stream
                as well.
        """
        self._writer.clean()
        files_end = self._reader.end_with(committed.written)
        if is_after(committed.written, files_end) and self._reader.has(committed.newest):
            files_end = committed.newest.last  # a store may list it late
        if files_end in (committed.written, committed.newest.last):
            self._agreed = committed.newest.last
            return True

        # Redis went back, the files went back, or they never belonged together.
        redis_is_behind = is_after(files_end, committed.written)
        if committed.newest.last == START:
            raise self._foreign(
                f"it goes on to {files_end}, and this Redis has archived nothing yet"
            )
        if redis_is_behind:
            self._demand_archived(committed.written, files_end)
        elif is_after(committed.trimmed, files_end):
            raise ArchiveError(
                f"the archive of {self._policy} ends at {files_end}, but Redis says that it goes on"
                f" to {committed.written}, and has trimmed its stream up to {committed.trimmed}:"
                " restore the missing files, or point --archive to where they are",
                "archive",
            )

        if self._stream.adopt(committed, files_end, redis_is_behind=redis_is_behind):
            log.warning(
                "Redis had %s archived up to %s, the files end at %s",
                self._policy,
                committed.written,
                files_end,
            )
        return False

    def _demand_archived(self, after: str, through: str) -> None:
        """Demand that the files hold what the stream has of a time that Redis knows no ranges of.

        Raises:
            ArchiveError: they are of another log.
        """
        archived = self._reader.raw(after, through)
        for entry in self._stream.raw(f"({after}", through):
            if entry not in archived:  # consumes it up to the entry, and both are in order
                raise self._foreign(f"it has no entry {entry[0]} like the stream's")

    def _foreign(self, detail: str) -> ArchiveError:
        return ArchiveError(
            f"the archive of {self._policy} is of another log than this Redis holds ({detail}):"
            " give this log another folder with --archive",
            "archive",
        )

    def _report(self) -> None:
        if self._unreported:
            self._stream.add_failures(self._unreported)
            self._unreported = 0
