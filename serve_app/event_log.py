"""The log in Redis: appended to with group commit, read in order."""

import asyncio
from collections.abc import Sequence
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import RedisError

from bandits.codec import decode, encode
from bandits.errors import CodecError, LogUnavailableError
from bandits.records import LogEntry, LogRecord, TickRecord
from serve_app.keys import Keys

FIELD = b"r"
MAX_BATCH = 512


class LogWriter:
    """Appends records; concurrent callers share one pipeline, hence one fsync of the server.

    While a batch is on its way the next one gathers: latency is one or two round trips, never a timer.
    """

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        self._client = client
        self._waiting: list[tuple[str, bytes, asyncio.Future[str]]] = []
        self._flusher: asyncio.Task[None] | None = None

    async def append(self, key: str, record: LogRecord) -> str:
        """The id of the new entry, once the server holds it.

        Raises:
            LogUnavailableError: not known to be logged.
        """
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, encode(record), future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return await future

    async def append_all(self, key: str, records: Sequence[LogRecord]) -> list[str]:
        """Append several; fails as a whole if any is not known to be logged."""
        return list(await asyncio.gather(*(self.append(key, record) for record in records)))

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            results: list[Any]
            try:
                pipeline = self._client.pipeline(transaction=False)
                for key, data, _ in batch:
                    pipeline.xadd(key, {FIELD: data})
                results = await pipeline.execute(raise_on_error=False)
            except (RedisError, OSError) as error:
                results = [error] * len(batch)
            for (_, _, future), result in zip(batch, results, strict=True):
                if future.done():  # its request was cancelled
                    continue
                if isinstance(result, bytes):
                    future.set_result(result.decode())
                else:
                    message = f"the log did not confirm the entry ({type(result).__name__}): retry in a moment"
                    future.set_exception(LogUnavailableError(message))


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
        entries = []
        for entry_id, fields in raw:
            record: LogRecord
            try:
                record = decode(fields.get(FIELD, b""))
            except CodecError:
                # Whoever wrote it bypassed the service. The counter says it happened.
                record = TickRecord()
                self.undecodable += 1
            entries.append(LogEntry(entry_id.decode(), record))
        return entries

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
