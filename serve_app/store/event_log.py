"""The log in Redis: appended to with group commit, read in order."""

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from bandits.errors import CodecError, EventConflictError, LogUnavailableError, MissingBlobError
from bandits.log.codec import decode, digest, encode, read_entry
from bandits.log.encoded_decisions import read_entries
from bandits.log.positions import START, log_order
from bandits.log.records import DecisionRecord, LogEntry, LogRecord
from serve_app.store.blobs.parts import read_blob, write_blob
from serve_app.store.clients import LOST_ANSWERS, AsyncRedis, Redis, as_sent, now_ms
from serve_app.store.keys import REMEMBERED_S, Keys, LogKeys
from serve_app.store.replicas.known_appends import (
    APPEND_ONCE,
    MOST_OF_VISIT,
    VISIT_S,
    KnownAppend,
    append_known,
    known_arguments,
    known_keys,
)
from serve_app.store.replicas.shared_wire import TIMEOUT_S, SharedWire

FIELD = b"r"
XRANGE, XREVRANGE, XREAD = b"XRANGE", b"XREVRANGE", b"XREAD"
"""In bytes: see ``as_sent``."""
SPAN_S = 60
ATTEMPTS = 3
"""How often an entry is appended whose answer is lost."""

# As many entries as there are records: one command and one answer, however many share it.
APPEND = """
local ids = {}
for i = 1, #ARGV do ids[i] = redis.call('XADD', KEYS[1], '*', 'r', ARGV[i]) end
return ids
"""

# Appends an entry once, however often it is asked. KEYS: log, memory. ARGV: record, seconds to
# remember its position.
APPEND_REMEMBERED = """
local known = redis.call('GET', KEYS[2])
if known then return known end
local entry = redis.call('XADD', KEYS[1], '*', 'r', ARGV[1])
redis.call('SET', KEYS[2], entry, 'EX', ARGV[2])
return entry
"""


class LogWriter:
    """Appends records; concurrent callers share one message, and one fsync of the server.

    See ``SharedWire``, which counts the ``failures``. ``client`` is made by ``asyncio_client``.
    """

    def __init__(
        self,
        client: AsyncRedis,
        *,
        timeout_s: float = TIMEOUT_S,
        confirm_replicas: int = 0,
    ) -> None:
        self.wire = SharedWire(client, timeout_s=timeout_s, confirm_replicas=confirm_replicas)
        self.failures, self.failed = self.wire.failures, self.wire.failed

    async def append(self, key: str, record: LogRecord) -> str:
        """Append a record; return the new entry's id once the server holds it.

        Args:
            key: the name of the log in Redis.
            record: what the entry is to hold.

        Raises:
            LogUnavailableError: not known to be logged.
        """
        (entry,) = await self.begin(key, record)
        return str(entry.decode())

    def begin(self, key: str, record: LogRecord) -> "asyncio.Future[Any]":
        """Begin to append a record; return what is done once the server holds it; see ``append``.

        Args:
            key: the name of the log in Redis.
            record: what the entry is to hold.
        """
        head, alone = ("EVAL", APPEND, 1, key), ("XADD", key, "*", FIELD)
        return self.wire.begin(head, (encode(record),), 1, alone)

    async def append_all(self, key: str, records: Sequence[LogRecord]) -> list[str]:
        """Append several records; return the new entries' ids, in the order of the records.

        Args:
            key: the name of the log in Redis.
            records: what the entries are to hold; if there are none, nothing is sent.

        Raises:
            LogUnavailableError: not known of every one that it is logged.
        """
        if not records:
            return []
        head, alone = ("EVAL", APPEND, 1, key), ("XADD", key, "*", FIELD)
        data = [encode(record) for record in records]
        entries = await self.wire.send(head, data, len(records), alone)
        return [entry.decode() for entry in entries]

    async def append_together(self, key: str, records: Sequence[LogRecord]) -> list[str]:
        """Append all of several records, or none; return the new entries' ids, in their order.

        Args:
            key: the name of the log in Redis.
            records: what the entries are to hold.

        Raises:
            LogUnavailableError: not known to be logged.
        """
        command = ("EVAL", APPEND, 1, key, *map(encode, records))
        entries = await self.append_by(key, command)
        return [entry.decode() for entry in entries]

    async def append_known(
        self, keys: Keys, records: Sequence[DecisionRecord], visits: Sequence[str]
    ) -> list[bool]:
        """Append decisions about known users; return of each whether it was.

        One whose pseudonym nothing may be logged under any more is not.

        Args:
            keys: the partition's.
            records: the decisions.
            visits: of each the keyed hash of its visit; empty: it is of none.

        Raises:
            LogUnavailableError: not known of every one whether it is logged.
        """
        if not records:
            return []
        data: list[Any] = []
        for record, visit in zip(records, visits, strict=True):
            data += known_arguments(encode(record), KnownAppend.of(record, visit))
        entries = await self.wire.send(append_known(keys), data, len(records))
        return [entry is not None for entry in entries]

    async def append_by(self, key: str, command: tuple[Any, ...]) -> Any:  # noqa: ARG002
        """Append by a command of its own; return its answer.

        Args:
            key: the name of the log in Redis.
            command: appends one entry, or none; it names the key itself.

        Raises:
            LogUnavailableError: not known to be logged.
        """
        return await self.wire.send(command, (), 1)

    async def append_once(
        self, keys: Keys, record: DecisionRecord, asked: bytes, visit: str | None = None
    ) -> DecisionRecord | None:
        """Append a decision unless one of its event_id is remembered; return what the log holds.

        Args:
            keys: the partition's.
            record: the decision.
            asked: a digest of the request.
            visit: where users are known, the keyed hash of the visit, or an empty text.

        Returns:
            None if nothing may be logged under its pseudonym any more.

        Raises:
            EventConflictError: the remembered decision answered another request.
            LogUnavailableError: not known to be logged.
        """
        names: tuple[str, ...] = (keys.log, keys.decisions_prefix)
        said: list[Any] = [encode(record), record.event_id, asked, REMEMBERED_S, SPAN_S]
        if visit is not None:
            known = KnownAppend.of(record, visit)
            names += known_keys(keys)
            said += [VISIT_S, MOST_OF_VISIT, known.user, known.visit, *known.shown]
        command = ("EVAL", APPEND_ONCE, len(names), *names, *said)
        remembered, raw = await self.wire.send(command, (), 1)
        if remembered is None:
            return record if raw is None else None
        first = self._first(remembered, raw, asked)
        return first if visit is None else await self._unless_erased(keys, first)

    async def find_once(self, keys: Keys, event_id: str, asked: bytes) -> DecisionRecord | None:
        """Return the decision that is remembered under an event_id; None if there is none.

        Args:
            keys: the partition's.
            event_id: the client's own.
            asked: a digest of the request.

        Raises:
            EventConflictError: it answered another request.
            LogUnavailableError: not known whether there is one.
        """
        limits = REMEMBERED_S, SPAN_S
        names = keys.log, keys.decisions_prefix
        command = ("EVAL", APPEND_ONCE, 2, *names, b"", event_id, asked, *limits)
        remembered, raw = await self.wire.send(command, (), 1)
        if remembered is None:
            return None
        return await self._unless_erased(keys, self._first(remembered, raw, asked))

    async def _unless_erased(self, keys: Keys, first: DecisionRecord) -> DecisionRecord:
        """Return what is remembered; of an erased user nothing is."""
        mark = "EXISTS", keys.erased(first.user or "")
        if first.user is not None and await self.wire.send(mark, (), 1):
            raise EventConflictError(
                "this event_id has answered a user who was erased since: make a new one", "event_id"
            )
        return first

    def _first(self, remembered: bytes, raw: bytes | None, asked: bytes) -> DecisionRecord:
        """Return the decision that answered the first attempt."""
        # A retry gets the decision of the first attempt, and nobody else does.
        if remembered != asked:
            raise EventConflictError(
                "this event_id has answered another request: make a new one", "event_id"
            )
        first = decode(raw) if raw else None
        if not isinstance(first, DecisionRecord):
            raise LogUnavailableError(
                "the decision of this event_id is no longer in the log: make a new one", "event_id"
            )
        return first


class RedisLog:
    """One log: read in order, and appended to by learners and commands.

    Calls block. Replicas append by ``LogWriter``.
    """

    def __init__(self, client: Redis, keys: LogKeys) -> None:
        self._client = client
        self._keys = keys
        self.undecodable = 0

    def read(self, after: str, *, count: int = 1000) -> list[LogEntry]:
        """Return the next entries.

        One that does not decode is counted, and the reader moves on: see ``codec.read_entry``.

        Args:
            after: the position to begin behind.
            count: how many entries at most.
        """
        return [
            read_entry(entry_id, data, self._count) for entry_id, data in self._raw(after, count)
        ]

    def read_encoded(
        self,
        after: str,
        through: str | None = None,
        *,
        count: int = 1000,
        block_ms: int | None = None,
        beside: str | None = None,
    ) -> list[LogEntry]:
        """Return the next entries as a fold takes them, with decisions encoded.

        Args:
            after: the position to begin behind.
            through: the last position to return; None: the end of the log.
            count: how many entries at most.
            block_ms: how long to wait for a first one, in milliseconds; None: not at all.
            beside: another stream, any entry of which ends the waiting, too.
        """
        if through is None:
            return read_entries(self._raw(after, count, block_ms, beside), self._count)
        found = as_sent(self._client, XRANGE, self._keys.log, f"({after}", through, "COUNT", count)
        return read_entries(_raw_entries(found), self._count)

    def read_back(self, before: str | None = None, *, count: int = 1000) -> list[LogEntry]:
        """Return the entries just before a position, the newest first, with decisions encoded.

        Args:
            before: the position; None: behind the newest entry.
            count: how many entries at most.
        """
        newest = "+" if before is None else f"({before}"
        found = as_sent(self._client, XREVRANGE, self._keys.log, newest, "-", "COUNT", count)
        return read_entries(_raw_entries(found), self._count)

    def _raw(
        self, after: str, count: int, block_ms: int | None = None, beside: str | None = None
    ) -> list[tuple[str, bytes]]:
        waits: list[str | int] = [] if block_ms is None else ["BLOCK", block_ms]
        streams = {self._keys.log: after, **({} if beside is None else {beside: START})}
        answer = as_sent(
            self._client, XREAD, "COUNT", count, *waits, "STREAMS", *streams, *streams.values()
        )
        if not answer:
            return []
        return _raw_entries(dict(answer).get(self._keys.log.encode(), ()))

    def between(self, after: str, through: str | None = None) -> Iterator[LogEntry]:
        """Yield the entries of a part of the log, in order.

        Args:
            after: the position to begin behind.
            through: the position of the last entry that is yielded; None: the log's end.
        """
        limit = None if through is None else log_order(through)
        while entries := self.read(after):
            for entry in entries:
                if limit is not None and log_order(entry.id) > limit:
                    return
                yield entry
            after = entries[-1].id

    def _count(self, _entry_id: str, _error: CodecError) -> None:
        """Count an entry that does not decode: nobody who wrote it was a service of this build."""
        self.undecodable += 1

    def append(self, record: LogRecord) -> str:
        """Append a tick or a change of configuration; return the entry's id."""
        entry_id: Any = self._client.xadd(self._keys.log, {FIELD: encode(record)})
        return str(entry_id.decode())

    def append_once(self, record: LogRecord) -> str:
        """Append an entry once, though an answer may be lost; return its id.

        Raises:
            RedisError: not known to be in the log.
        """
        # Under a name of its own: asked again, Redis gives the position of the first time.
        memory, attempts_left = self._keys.appended(uuid.uuid4().hex), ATTEMPTS
        while True:
            attempts_left -= 1
            try:
                entry: Any = self._client.eval(
                    APPEND_REMEMBERED, 2, self._keys.log, memory, encode(record), REMEMBERED_S
                )
                return str(entry.decode())
            except LOST_ANSWERS:
                if not attempts_left:
                    raise

    def now_ms(self) -> int:
        """Return the log's clock, in milliseconds."""
        return now_ms(self._client, self._keys.log)

    def blob(self, name: str) -> bytes:
        """Return the blob an entry names.

        Raises:
            MissingBlobError: it is gone, although the log refers to it, or damaged.
        """
        data = read_blob(self._client, self._keys, name)
        if data is None:
            raise MissingBlobError(f"the log names blob {name}, but it is not stored", "digest")
        if digest(data) != name:
            raise MissingBlobError(
                f"what is stored as blob {name} are other bytes: restore it", "digest"
            )
        return data

    def put_blob(self, name: str, data: bytes) -> None:
        """Store a blob, before any entry names it.

        Args:
            name: the digest of its bytes.
            data: those bytes.
        """
        write_blob(self._client, self._keys, name, data, lasting=True)


def _raw_entries(answer: Any) -> list[tuple[str, bytes]]:
    """Return the position and the record of each entry in an answer of Redis."""
    return [
        (
            entry_id.decode(),
            fields[1] if len(fields) == 2 and fields[0] == FIELD else _field(fields),
        )
        for entry_id, fields in answer
    ]


def _field(fields: Sequence[bytes]) -> bytes:
    """Return the record among names and values that nobody of ours has written."""
    return dict(zip(fields[::2], fields[1::2], strict=True)).get(FIELD, b"")
