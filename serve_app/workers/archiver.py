"""The archiver: ranges of the stream become files, then the stream is trimmed behind them.

Any number may run.

What is committed is a compare-and-set on one hash of Redis (``keys.archive``):

    previous, end, first, count    the newest committed range; the next one starts where it ends
    written                        every range up to here has its file
    trimmed                        ids below this one may be gone from the stream
    failures                       of all archivers, for metrics

A range is committed before its file is written, and the next is committed only when it was. Whoever
finds a committed range without a file writes it: from the same entries, so the same bytes.
"""

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from pyarrow import fs

from bandits.errors import ArchiveError
from bandits.log.positions import START, is_after, position_ms
from policies.archive.archive import ArchiveReader, ArchiveWriter, archive_folder
from policies.archive.range_file import Range, hour_of
from serve_app.store.archived import Committed
from serve_app.store.clients import FAILURES, Redis, now_ms
from serve_app.store.event_log import FIELD
from serve_app.store.keys import Keys

MAX_ENTRIES = 50_000
READ = 256
"""Entries in memory at once, besides a row group."""
POLL_S = 1.0
RETRY_S, MAX_RETRY_S = 0.5, 30.0

# KEYS: archive. ARGV: previous, first, last, count. Commits a range, if it is the next one.
COMMIT = """
local held = redis.call('HMGET', KEYS[1], 'end', 'written')
if (held[1] or '0-0') ~= ARGV[1] or (held[2] or '0-0') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'previous', ARGV[1], 'first', ARGV[2], 'end', ARGV[3], 'count', ARGV[4])
return 1
"""
# KEYS: archive. ARGV: last. The committed range that ends there has its file.
MARK = """
if redis.call('HGET', KEYS[1], 'end') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'written', ARGV[1])
return 1
"""
# KEYS: archive. ARGV: end and written as they were read, the end that the files have, 1 when Redis
# is behind it.
ADOPT = """
local held = redis.call('HMGET', KEYS[1], 'end', 'written')
if (held[1] or '0-0') ~= ARGV[1] or (held[2] or '0-0') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'end', ARGV[3], 'written', ARGV[3])
if ARGV[4] == '1' then redis.call('HSET', KEYS[1], 'trimmed', ARGV[3]) end
return 1
"""
# KEYS: log, archive, needed. ARGV: milliseconds to retain. Removes what is written, old, and needed
# by no learner.
TRIM = """
local written, needed = redis.call('HGET', KEYS[2], 'written'), redis.call('GET', KEYS[3])
if not written or not needed then return 0 end
local now = redis.call('TIME')
local old = string.format('%.0f-0', now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[1])
local function before(a, b)
  local ams, aseq = string.match(a, '^(%d+)-(%d+)$')
  local bms, bseq = string.match(b, '^(%d+)-(%d+)$')
  ams, aseq, bms, bseq = tonumber(ams), tonumber(aseq), tonumber(bms), tonumber(bseq)
  return ams < bms or (ams == bms and aseq < bseq)
end
local limit = old
if before(written, limit) then limit = written end
if before(needed, limit) then limit = needed end
local removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', limit)
if removed > 0 then redis.call('HSET', KEYS[2], 'trimmed', limit) end
return removed
"""

log = logging.getLogger("banditloop.archiver")


@dataclass(slots=True)
class _Scan:
    """The range that would come next, as far as the stream has been looked at."""

    previous: str
    last: str
    first: str = ""
    count: int = 0
    closed: bool = field(default=False)

    def take(self, entry_id: str, limit: int) -> None:
        """The next entry of the stream: the range grows, or it ends before it."""
        if self.count == limit or (self.count and hour_of(entry_id) != hour_of(self.first)):
            self.closed = True
        if not self.closed:
            self.first, self.last, self.count = self.first or entry_id, entry_id, self.count + 1


class Archiver:
    """Archives and trims one policy's log, or one ``partition`` of it.

    ``root``: see policies/storage.py.

    A range ends with ``max_entries``, with its hour, or when its first entry is older than
    ``max_age_s``. What is younger than ``retain_s`` stays in the stream.
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
    ) -> None:
        self._client = client
        self._policy = archive_folder(policy, partition, partitions)
        self._root = root
        self._max_entries = max_entries
        self._max_age_ms = max_age_s * 1000
        self._retain_ms = int(retain_s * 1000)
        self._keys = Keys(policy, partition)
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
        """Archive and trim until told to stop; outlives an unreachable Redis or file system."""
        retry_s = RETRY_S
        while not stop.is_set():
            try:
                self._report()
                wait_s, retry_s = 0.0 if self.step() else POLL_S, RETRY_S
                while self.trim():
                    pass
            except Exception as error:
                self.failures += 1
                self._unreported += 1
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

        False when none is due.

        Raises:
            RedisError, OSError: unreachable; call again.
            ArchiveError: stream and archive contradict each other.
        """
        committed = Committed.read(self._client, self._keys)
        try:
            if committed.newest.last != self._agreed and not self._agree(committed):
                return True
            if not committed.pending:
                due = self._next_range(committed.written)
                if due is None:
                    return False
                if not self._client.eval(
                    COMMIT, 1, self._keys.archive, due.previous, due.first, due.last, due.count
                ):
                    return True
                committed = Committed(due, committed.written, committed.trimmed)
                self._agreed = due.last
            self._write(committed.newest)
        except ArchiveError:
            if Committed.read(self._client, self._keys) == committed:
                raise
            # This process slept, and somebody else went on meanwhile: look again.
        return True

    def trim(self) -> int:
        """Remove from the stream what is written, older than ``retain_s``, and needed by no learner: how many.

        Up to some 10,000 entries at a time, so that nobody waits for it; 0 when there are no more.
        """
        keys = (self._keys.log, self._keys.archive, self._keys.needed)
        removed: Any = self._client.eval(TRIM, len(keys), *keys, self._retain_ms)
        return int(removed)

    def _next_range(self, previous: str) -> Range | None:
        """The range after ``previous``, when it is due."""
        if self._scan.previous != previous:
            self._scan = _Scan(previous, previous)
        scan = self._scan
        while not scan.closed and scan.count < self._max_entries:
            batch: Any = self._client.xrange(self._keys.log, f"({scan.last}", count=READ)
            for entry_id, _ in batch:
                scan.take(entry_id.decode(), self._max_entries)
            if not batch:
                break
        if not scan.count:
            return None
        if not scan.closed and scan.count < self._max_entries and self._young(scan.first):
            return None
        return Range(previous, scan.first, scan.last, scan.count)

    def _young(self, first: str) -> bool:
        return now_ms(self._client, self._keys.log) - position_ms(first) < self._max_age_ms

    def _write(self, newest: Range) -> None:
        missing = self._writer.write(newest, self._read(newest.first, newest.last), self._blob)
        for digest in missing:
            log.warning(
                "range %s of %s names blob %s, which is not stored", newest, self._policy, digest
            )
        self._client.eval(MARK, 1, self._keys.archive, newest.last)

    def _read(self, first: str, last: str) -> Iterator[tuple[str, bytes]]:
        """Id and record bytes of the stream's entries from ``first`` to ``last``."""
        start = first
        while True:
            batch: Any = self._client.xrange(self._keys.log, start, last, count=READ)
            for entry_id, fields in batch:
                yield entry_id.decode(), _record_bytes(fields)
            if len(batch) < READ:
                return
            start = f"({batch[-1][0].decode()}"

    def _blob(self, digest: str) -> bytes | None:
        data: Any = self._client.get(self._keys.blob(digest))
        return data if data is None else bytes(data)

    def _agree(self, committed: Committed) -> bool:
        """Bring Redis and the files into line where one has lost what the other has.

        False: it changed meanwhile.

        ``committed`` was read before the files are looked at, so other archivers can only have
        added to them.

        Raises: ArchiveError: they are of different logs, or what the files lack is gone from the
            stream as well.
        """
        self._writer.clean()
        files = self._reader.end
        if files not in (committed.written, committed.newest.last):
            behind = is_after(files, committed.written)
            if committed.newest.last == START:
                raise self._foreign(
                    f"it goes on to {files}, and this Redis has archived nothing yet"
                )
            if behind:
                self._demand_archived(committed.written, files)
            elif is_after(committed.trimmed, files):
                raise ArchiveError(
                    f"the archive of {self._policy} ends at {files}, but Redis says that it goes"
                    " on to"
                    f" {committed.written}, and has trimmed its stream up to {committed.trimmed}:"
                    " restore the missing"
                    " files, or point --archive to where they are",
                    "archive",
                )
            held = (committed.newest.last, committed.written, files, int(behind))
            if self._client.eval(ADOPT, 1, self._keys.archive, *held):
                log.warning(
                    "Redis had %s archived up to %s, the files end at %s",
                    self._policy,
                    held[1],
                    files,
                )
            return False
        self._agreed = committed.newest.last
        return True

    def _demand_archived(self, after: str, through: str) -> None:
        """The files hold what Redis does not know of: whatever the stream has of that time must be in them."""
        archived = self._reader.raw(after, through)
        for entry in self._read(f"({after}", through):
            if entry not in archived:  # consumes it up to the entry, and both are in order
                raise self._foreign(f"it has no entry {entry[0]} like the stream's")

    def _foreign(self, detail: str) -> ArchiveError:
        return ArchiveError(
            f"the archive of {self._policy} is of another log than this Redis holds ({detail}):"
            " give this log another"
            " folder with --archive",
            "archive",
        )

    def _report(self) -> None:
        if self._unreported:
            self._client.hincrby(self._keys.archive, "failures", self._unreported)
            self._unreported = 0


def _record_bytes(fields: dict[bytes, bytes]) -> bytes:
    """The record field as it is.

    Of an entry without one, which nobody can decode, all fields as a msgpack map.
    """
    return fields[FIELD] if FIELD in fields else msgspec.msgpack.encode(fields)
