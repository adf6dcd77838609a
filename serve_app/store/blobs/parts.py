"""The bytes of a blob, written to Redis and read from it in parts.

Redis does one command after the other, and all items of a shop may be hundreds of megabytes: as one
command they would hold up whoever else asks for seconds. So what is large is appended to a key that
nobody reads, and takes its name with the last part. A writer that dies in between leaves a key that
expires.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from io import BytesIO
from typing import Any
from uuid import uuid4

from redis.exceptions import ResponseError

from serve_app.store.clients import FAILURES, AsyncRedis, Redis
from serve_app.store.keys import LogKeys

PART = 1 << 20
"""How many bytes one command or one answer has at most."""
MUCH = 16 * PART
"""From so many bytes on a writer rests after each part as long as it took: others go first."""
UNNAMED_S = 600
"""A blob that is stored but never named (its writer died in between) goes away by itself."""

# Appends one part, and gives the whole its name. KEYS: the blob, the unfinished one. ARGV: the
# part, where it begins, how long the whole is, seconds until it expires, and whether it lasts and
# takes the place of what has the name. Returns 1 where nothing is left to do.
APPEND_PART = """
if ARGV[5] == '' and redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('UNLINK', KEYS[2])
  return 1
end
if redis.call('STRLEN', KEYS[2]) ~= tonumber(ARGV[2]) then
  redis.call('UNLINK', KEYS[2])
  return redis.error_reply('LOST the parts before are gone: the blob is to be stored again')
end
local size = redis.pcall('APPEND', KEYS[2], ARGV[1])
if type(size) == 'table' then
  redis.call('UNLINK', KEYS[2])
  return size
end
redis.call('EXPIRE', KEYS[2], ARGV[4])
if size < tonumber(ARGV[3]) then return 0 end
if ARGV[5] ~= '' then
  redis.call('PERSIST', KEYS[2])
  redis.call('UNLINK', KEYS[1])
end
redis.call('RENAME', KEYS[2], KEYS[1])
return 1
"""


def write_blob(
    client: Redis, keys: LogKeys, name: str, data: bytes, *, lasting: bool = False
) -> None:
    """Store a blob, unless there is one of its name.

    Args:
        client: a connection.
        keys: those of the log that is to name it.
        name: the digest of its bytes.
        data: those bytes.
        lasting: whether it lasts though nothing names it yet, and takes the place of what is
            stored under its name; else it expires after UNNAMED_S.

    Raises:
        RedisError: not known to be stored.
    """
    ask: Any = client.execute_command
    unfinished = keys.unfinished(uuid4().hex)
    try:
        for command in _commands(keys.blob(name), unfinished, data, lasting=lasting):
            began = time.monotonic()
            if ask(*command) == 1:
                return
            if len(data) >= MUCH:
                time.sleep(time.monotonic() - began)
    except ResponseError:
        # It may have no room for more, and somebody will try again.
        with contextlib.suppress(*FAILURES):
            ask("UNLINK", unfinished)
        raise


async def write_blob_async(client: AsyncRedis, keys: LogKeys, name: str, data: bytes) -> None:
    """Store a blob that expires unless it is named, as ``write_blob`` does.

    Args:
        client: the replica's.
        keys: those of the log that is to name it.
        name: the digest of its bytes.
        data: those bytes.

    Raises:
        RedisError: not known to be stored.
    """
    ask: Any = client.execute_command
    unfinished = keys.unfinished(uuid4().hex)
    try:
        for command in _commands(keys.blob(name), unfinished, data, lasting=False):
            began = time.monotonic()
            if await ask(*command) == 1:
                return
            if len(data) >= MUCH:
                await asyncio.sleep(time.monotonic() - began)
    except ResponseError:
        with contextlib.suppress(*FAILURES):
            await ask("UNLINK", unfinished)
        raise


def _commands(
    blob: str, unfinished: str, data: bytes, *, lasting: bool
) -> Iterator[tuple[str | bytes | int, ...]]:
    """Yield the commands that store a blob.

    Args:
        blob: its key.
        unfinished: that of its parts, which is this writer's own: two may store the same at once.
        data: its bytes.
        lasting: see ``write_blob``.
    """
    if len(data) <= PART:
        yield ("SET", blob, data) if lasting else ("SET", blob, data, "NX", "EX", UNNAMED_S)
        return

    named = blob, unfinished
    whole = len(data), UNNAMED_S, "lasting" if lasting else ""
    for at in range(0, len(data), PART):
        yield ("EVAL", APPEND_PART, len(named), *named, data[at : at + PART], at, *whole)


def read_blob(client: Redis, keys: LogKeys, name: str) -> bytes | None:
    """Return what is stored under a blob's name; None: nothing is.

    Args:
        client: a connection.
        keys: those of the log that names it.
        name: its digest, which nobody has compared with the bytes.
    """
    ask: Any = client.execute_command
    whole = _Whole(keys.blob(name))
    while whole.takes(ask(*whole.command)):
        pass
    return whole.data


async def read_blob_async(client: AsyncRedis, keys: LogKeys, name: str) -> bytes | None:
    """Return what is stored under a blob's name, as ``read_blob`` does.

    Args:
        client: the replica's.
        keys: those of the log that names it.
        name: its digest, which nobody has compared with the bytes.
    """
    ask: Any = client.execute_command
    whole = _Whole(keys.blob(name))
    while whole.takes(await ask(*whole.command)):
        pass
    return whole.data


class _Whole:
    """A blob of which the parts are asked for, one after the other."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._first: bytes | None = None
        self._parts: BytesIO | None = None
        self._size = 0

    @property
    def command(self) -> tuple[Any, ...]:
        """What is to be asked next."""
        return "GETRANGE", self._key, self._size, self._size + PART - 1

    def takes(self, part: bytes) -> bool:
        """Take an answer; return whether there may be more."""
        self._size += len(part)
        if self._first is None:
            self._first = part
            return len(part) == PART

        # Its bytes are in memory once: those of a buffer are handed over, not copied.
        if self._parts is None:
            self._parts = BytesIO()
            self._parts.write(self._first)
        self._parts.write(part)
        return len(part) == PART

    @property
    def data(self) -> bytes | None:
        """The bytes so far; no blob has none."""
        if self._parts is not None:
            return self._parts.getvalue()
        return self._first or None
