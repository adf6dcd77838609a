"""The log in Redis: appended to with group commit, read in order."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import RedisError

from bandits.codec import decode, encode
from bandits.errors import CodecError, EventConflictError, LogUnavailableError
from bandits.join import log_order
from bandits.records import DecisionRecord, LogEntry, LogRecord, TickRecord
from serve_app.keys import Keys

FIELD = b"r"
MAX_BATCH = 512
REMEMBERED_S = 600
"""How long a client may retry a decision under the event_id it made."""

# One atomic step: append the decision and remember its entry and what was asked, or return what is remembered.
APPEND_ONCE = """
local seen = redis.call('HMGET', KEYS[2], 'entry', 'asked')
if seen[1] then return {seen[1], seen[2]} end
local entry = redis.call('XADD', KEYS[1], '*', 'r', ARGV[1])
redis.call('HSET', KEYS[2], 'entry', entry, 'asked', ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return {entry, false}
"""


class LogWriter:
    """Appends records; concurrent callers share one pipeline, hence one fsync of the server.

    While a batch is on its way the next one gathers: latency is one or two round trips, never a timer.
    """

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        self._client = client
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._flusher: asyncio.Task[None] | None = None

    async def append(self, key: str, record: LogRecord) -> str:
        """The id of the new entry, once the server holds it.

        Raises:
            LogUnavailableError: not known to be logged.
        """
        entry = await self._send("XADD", key, "*", FIELD, encode(record))
        return str(entry.decode())

    async def append_all(self, key: str, records: Sequence[LogRecord]) -> list[str]:
        """Append several; fails as a whole if any is not known to be logged."""
        return list(await asyncio.gather(*(self.append(key, record) for record in records)))

    async def append_once(self, keys: Keys, record: DecisionRecord, asked: bytes) -> DecisionRecord:
        """Append a decision unless one of its event_id is remembered. The decision that the log holds.

        ``asked`` is a digest of the request.

        Raises:
            EventConflictError: the remembered decision answered another request.
            LogUnavailableError: not known to be logged.
        """
        memory = keys.decision(record.event_id)
        entry, remembered = await self._send(
            "EVAL", APPEND_ONCE, 2, keys.log, memory, encode(record), asked, REMEMBERED_S
        )
        if remembered is None:
            return record
        if remembered != asked:
            raise EventConflictError("this event_id has answered another request: make a new one", "event_id")
        found = await self._send("XRANGE", keys.log, entry, entry)
        first = decode(found[0][1][FIELD]) if found else None
        if not isinstance(first, DecisionRecord):
            raise LogUnavailableError(
                "the decision of this event_id is no longer in the log: make a new one", "event_id"
            )
        return first

    async def _send(self, *command: Any) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return await future

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            results: list[Any]
            try:
                pipeline = self._client.pipeline(transaction=False)
                for command, _ in batch:
                    pipeline.execute_command(*command)
                results = await pipeline.execute(raise_on_error=False)
            except (RedisError, OSError) as error:
                results = [error] * len(batch)
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():  # its request was cancelled
                    continue
                if isinstance(result, Exception):
                    message = f"the log did not confirm the entry ({type(result).__name__}): retry in a moment"
                    future.set_exception(LogUnavailableError(message))
                else:
                    future.set_result(result)


class LogReader:
    """Reads one partition's log in order, and writes the entries that are the learner's to write. Blocking."""

    def __init__(self, client: "redis.Redis", keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self.undecodable = 0

    def read(self, after: str, *, count: int = 1000, block_ms: int | None = None) -> list[LogEntry]:
        """Entries after the id ``after``, at most ``count``; waits up to ``block_ms`` for a first one.

        One that does not decode says nothing but that time has passed: it reads as a tick, and the reader moves on.
        """
        answer: Any = self._client.xread({self._keys.log: after}, count=count, block=block_ms)
        if not answer:
            return []
        raw = answer[0][1] if isinstance(answer, list) else next(iter(answer.values()))[0]
        return [self._entry(entry_id, fields) for entry_id, fields in raw]

    def between(self, after: str, through: str | None = None) -> Iterator[LogEntry]:
        """Entries past ``after``, up to and including ``through``, or the end."""
        limit = None if through is None else log_order(through)
        while entries := self.read(after):
            for entry in entries:
                if limit is not None and log_order(entry.id) > limit:
                    return
                yield entry
            after = entries[-1].id

    def _entry(self, entry_id: bytes, fields: dict[bytes, bytes]) -> LogEntry:
        record: LogRecord
        try:
            record = decode(fields.get(FIELD, b""))
        except CodecError:
            # Whoever wrote it bypassed the service. The counter says it happened.
            record = TickRecord()
            self.undecodable += 1
        return LogEntry(entry_id.decode(), record)

    def append(self, record: LogRecord) -> str:
        """Append a tick or a change of configuration."""
        entry_id: Any = self._client.xadd(self._keys.log, {FIELD: encode(record)})
        return str(entry_id.decode())

    def now_ms(self) -> int:
        """The log's clock."""
        seconds, micros = self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def blob(self, digest: str) -> bytes:
        """The blob an entry names.

        Raises:
            CodecError: it is gone, although the log refers to it.
        """
        data: Any = self._client.get(self._keys.blob(digest))
        if data is None:
            raise CodecError(f"the log names blob {digest}, but it is not stored", "digest")
        return bytes(data)

    def put_blob(self, digest: str, data: bytes) -> None:
        """Store a blob under its digest, before any entry names it."""
        self._client.set(self._keys.blob(digest), data)
