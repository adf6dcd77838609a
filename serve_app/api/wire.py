"""Bodies and answers over ASGI."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes

import msgspec

from bandits import errors

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An application."""

Answer = tuple[int, bytes, bytes]
"""Status, body and content type."""


class LoggedAnswer(NamedTuple):
    """An answer that is made while what it tells of is still on its way to the log.

    Attributes:
        logging: is awaited before anything is answered.
        answer: what is answered then.
        otherwise: makes what is answered instead, where the log is not known to hold it.
        then: is told, after the answer, whether the log is known to hold it.
    """

    logging: "asyncio.Future[object]"
    answer: Answer
    otherwise: Callable[[], Answer]
    then: Callable[[bool], None]


def give_up(done: "asyncio.Future[object]") -> None:
    """Wait no more for a record to be logged; that it was not is no error that nobody has read."""
    if not done.cancel() and not done.cancelled():
        done.exception()


JSON = b"application/json"
TEXT = b"text/plain; version=0.0.4; charset=utf-8"
HTML = b"text/html; charset=utf-8"

WHOLE_BODY = "banditloop.body"
"""The name of a body in a request's scope, where the server puts one there that is whole."""

MAX_BODY = 1 << 20
BODY_S = 10.0

encode = msgspec.json.Encoder().encode


class BodyLimit(NamedTuple):
    """How many bytes of a body are read, and how long they may take to arrive."""

    size: int = MAX_BODY
    within_s: float = BODY_S


ORDINARY = BodyLimit()


def split_path(scope: Scope) -> list[str]:
    """Split the path before it is unquoted, so that an escaped slash is part of an event_id."""
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    path = raw.decode("utf-8", "replace").split("?")[0]
    parts = path.split("/")
    return [unquote(part) for part in parts] if "%" in path else parts


def check_path(scope: Scope) -> None:
    """Refuse a path that is no text: the names of several would be read as one.

    Raises:
        InvalidFieldError: it is not UTF-8.
    """
    raw: bytes = scope.get("raw_path") or b""
    if b"%" not in raw and raw.isascii():
        return
    try:
        unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise errors.InvalidFieldError(
            f"it is not UTF-8 ({error.reason}): quote the bytes of UTF-8, as of ä %C3%A4",
            "path",
        ) from error


async def read_body(scope: Scope, receive: Receive, limit: BodyLimit) -> bytes:
    """Read a request's body.

    Args:
        scope: the connection, with the headers.
        receive: gives the next message.
        limit: what is read at most; a longer declared length is refused unread.

    Raises:
        BodyTooLargeError: more than ``limit.size`` bytes.
        BodyTimeoutError: not complete within ``limit.within_s``.
        MalformedBodyError: the client left before it was complete.
    """
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if declared.isdigit() and (length := int(declared[:20])) > limit.size:
        raise errors.BodyTooLargeError(
            f"the body has {length} bytes, at most {limit.size} are read", "body"
        )

    whole = scope.get(WHOLE_BODY)
    if whole is not None:
        return _of_size(whole, limit.size)

    # A client that sends slowly, or nothing, may not hold a request for long.
    try:
        async with asyncio.timeout(limit.within_s):
            return await _receive_all(receive, limit.size)
    except TimeoutError as error:
        raise errors.BodyTimeoutError(
            f"the body did not arrive within {limit.within_s:g} s", "body"
        ) from error


def _of_size(body: bytes, size_limit: int) -> bytes:
    """Return a body, unless it is too long: sent in chunks, it declares no length."""
    if len(body) > size_limit:
        raise errors.BodyTooLargeError(f"at most {size_limit} bytes of body are read", "body")
    return body


async def _receive_all(receive: Receive, size_limit: int) -> bytes:
    chunks, size, more = [], 0, True

    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise errors.MalformedBodyError("the client left before the body was complete", "body")

        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        more = message.get("more_body", False)

        # A body sent in chunks declares no length: it is counted as it comes.
        if size > size_limit:
            raise errors.BodyTooLargeError(f"at most {size_limit} bytes of body are read", "body")

    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
