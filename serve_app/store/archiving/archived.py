"""The archived part of a log, and the trimmed part of its stream: a hash in Redis.

``keys.archive`` holds

    previous, end, first, count    the newest committed range; the next one starts where it ends
    written                        every range up to here has its file
    trimmed                        ids below this one may be gone from the stream
    failures                       those of all archivers, for metrics
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from redis.exceptions import ResponseError

from bandits.log.positions import START
from policies.archive.range_file import Range
from serve_app.store.blobs.parts import read_blob
from serve_app.store.clients import Redis, as_sent, now_ms
from serve_app.store.event_log import FIELD, XRANGE
from serve_app.store.keys import LogKeys

READ = 256
"""Entries read at a time: no more of them are in memory."""

# Commits a range, if it is the next one. KEYS: archive. ARGV: previous, first, last, count.
COMMIT = """
local held = redis.call('HMGET', KEYS[1], 'end', 'written')
if (held[1] or '0-0') ~= ARGV[1] or (held[2] or '0-0') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'previous', ARGV[1], 'first', ARGV[2], 'end', ARGV[3], 'count', ARGV[4])
return 1
"""
# Marks that the newest range has its file. KEYS: archive. ARGV: where it ends.
MARK = """
if redis.call('HGET', KEYS[1], 'end') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'written', ARGV[1])
return 1
"""
# Goes on from what the files hold, unless another archiver was faster. KEYS: archive. ARGV: end and
# written as they were read, the end that the files have, 1 when Redis is behind it.
ADOPT = """
local held = redis.call('HMGET', KEYS[1], 'end', 'written')
if (held[1] or '0-0') ~= ARGV[1] or (held[2] or '0-0') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'end', ARGV[3], 'written', ARGV[3])
if ARGV[4] == '1' then redis.call('HSET', KEYS[1], 'trimmed', ARGV[3]) end
return 1
"""
# Removes what is written, old, and needed by no learner. KEYS: log, archive, needed. ARGV:
# milliseconds to retain.
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


@dataclass(frozen=True, slots=True)
class Committed:
    """The hash, as it was read. Before the first commit everything is "0-0"."""

    newest: Range
    written: str
    trimmed: str

    @classmethod
    def read(cls, client: Redis, keys: LogKeys) -> "Committed":
        """Read the hash.

        Args:
            client: a connection.
            keys: those of the partition whose log is archived.
        """
        names = ("previous", "first", "end", "count", "written", "trimmed")
        fields: Any = client.hmget(keys.archive, names)
        previous, first, end, count, written, trimmed = (
            None if field is None else field.decode() for field in fields
        )
        newest = Range(previous or START, first or START, end or START, int(count or 0))
        return cls(newest, written or START, trimmed or START)

    @property
    def pending(self) -> bool:
        """Whether the newest range still needs its file."""
        return self.newest.last != self.written


class StreamSize(NamedTuple):
    """What a stream has had and has, as the server counts it.

    Attributes:
        last: the id of the newest entry that it has had.
        added: how many it has had; None where the server does not count them (Redis before 7).
        length: how many it has.
    """

    last: str
    added: int | None
    length: int


class ArchivedStream:
    """The stream of one log as archivers see it: what is to be archived, and what is agreed.

    Any number of archivers may change the hash: each change is a compare-and-set.
    """

    def __init__(self, client: Redis, keys: LogKeys) -> None:
        self._client = client
        self._keys = keys

    def now_ms(self) -> int:
        """Return the log's clock, in milliseconds."""
        return now_ms(self._client, self._keys.log)

    def committed(self) -> Committed:
        """Read the hash."""
        return Committed.read(self._client, self._keys)

    def commit(self, due: Range) -> bool:
        """Commit a range; False if it is not the next one."""
        arguments = due.previous, due.first, due.last, due.count
        return bool(self._client.eval(COMMIT, 1, self._keys.archive, *arguments))

    def mark_written(self, newest: Range) -> None:
        """Say that the newest range has its file; a newer one implies that it was said before."""
        self._client.eval(MARK, 1, self._keys.archive, newest.last)

    def adopt(self, before: Committed, files_end: str, *, redis_is_behind: bool) -> bool:
        """Go on from what the files hold; False if another archiver was faster.

        Args:
            before: the hash as it was read.
            files_end: where the files end.
            redis_is_behind: the files hold more than the hash says: the stream may lack all of it.
        """
        arguments = before.newest.last, before.written, files_end, int(redis_is_behind)
        return bool(self._client.eval(ADOPT, 1, self._keys.archive, *arguments))

    def trim(self, retain_ms: int) -> int:
        """Remove what is written, older than ``retain_ms``, and needed by no learner.

        Returns how many entries were removed: up to some 10,000 at a time, so that nobody waits for
        it; 0 when there are no more.
        """
        keys = (self._keys.log, self._keys.archive, self._keys.needed)
        removed: Any = self._client.eval(TRIM, len(keys), *keys, retain_ms)
        return int(removed)

    def add_failures(self, count: int) -> None:
        """Count failures, for metrics."""
        self._client.hincrby(self._keys.archive, "failures", count)

    def size(self) -> StreamSize | None:
        """Return the size of the stream; None where there is none yet."""
        try:
            said: Any = self._client.xinfo_stream(self._keys.log)
        except ResponseError:
            return None
        return StreamSize(
            said["last-generated-id"].decode(), said.get("entries-added"), said["length"]
        )

    def ids_after(self, position: str, through: str = "+", count: int = READ) -> list[str]:
        """Return the ids of the next entries.

        Args:
            position: the id to begin behind.
            through: the last id to return.
            count: how many at most.
        """
        words = f"({position}", through, "COUNT", count
        batch = as_sent(self._client, XRANGE, self._keys.log, *words)
        return [entry_id.decode() for entry_id, _ in batch]

    def raw(self, first: str, last: str) -> Iterator[tuple[str, bytes]]:
        """Yield the id and the record's bytes of each entry in a range.

        Args:
            first: the id to begin at; behind a "(" it is itself left out.
            last: the id to end with, which is included.
        """
        start = first
        while True:
            batch = as_sent(self._client, XRANGE, self._keys.log, start, last, "COUNT", READ)
            for entry_id, fields in batch:
                yield entry_id.decode(), _record_bytes(fields)
            if len(batch) < READ:
                return
            start = f"({batch[-1][0].decode()}"

    def blob(self, digest: str) -> bytes | None:
        """Return a blob that an entry names; None if it is not stored."""
        return read_blob(self._client, self._keys, digest)


def _record_bytes(fields: list[bytes]) -> bytes:
    """Return the record field as it is.

    For an entry without one, which nobody can decode, all its fields are returned as a msgpack map.
    """
    if len(fields) == 2 and fields[0] == FIELD:
        return fields[1]
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    return named[FIELD] if FIELD in named else msgspec.msgpack.encode(named)
