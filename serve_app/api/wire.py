"""Bodies and answers over ASGI."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

import msgspec

from bandits import errors

Scope = MutableMapping[str, Any]


Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


Answer = tuple[int, bytes, bytes]


T = TypeVar("T")


MAX_BODY = 1 << 20


MAX_CATALOGUE_BODY = 64 << 20


BODY_S, CATALOGUE_BODY_S = 10.0, 60.0


JSON, TEXT, HTML = (
    b"application/json",
    b"text/plain; version=0.0.4; charset=utf-8",
    b"text/html; charset=utf-8",
)


_encode = msgspec.json.Encoder().encode


async def _body(
    scope: Scope, receive: Receive, limit: int = MAX_BODY, within_s: float = BODY_S
) -> bytes:
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if declared.isdigit() and (length := int(declared[:20])) > limit:
        raise errors.BodyTooLargeError(
            f"the body has {length} bytes, at most {limit} are read", "body"
        )
    try:
        async with asyncio.timeout(within_s):
            return await _receive(receive, limit)
    except TimeoutError as error:
        raise errors.BodyTimeoutError(
            f"the body did not arrive within {within_s:g} s", "body"
        ) from error


async def _receive(receive: Receive, limit: int) -> bytes:
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise errors.MalformedBodyError("the client left before the body was complete", "body")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        more = message.get("more_body", False)
        if size > limit:
            raise errors.BodyTooLargeError(f"at most {limit} bytes of body are read", "body")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
