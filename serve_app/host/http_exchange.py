"""A request to the HTTP server and its answer: what an application receives and sends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
"""An ASGI application."""

STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

log = logging.getLogger("banditloop.http")


class Sender(Protocol):
    """What an exchange asks of its connection.

    Attributes:
        date: the header that says what time it is.
        ends: whether the connection is closed behind the answer that is given.
    """

    @property
    def date(self) -> bytes: ...  # noqa: D102
    @property
    def ends(self) -> bool: ...  # noqa: D102

    def write(self, data: bytes) -> None:
        """Send a part of an answer."""
        ...

    def resume(self) -> None:
        """Read on: there is room for more of a body."""
        ...

    def advance(self, exchange: "HttpExchange") -> None:
        """Go on to the next request, once this one is answered and has been read to its end."""
        ...


class HttpExchange:
    """A request and its answer: what an application receives and sends."""

    __slots__ = (
        "_app",
        "_asks",
        "_chunked",
        "_connection",
        "_given",
        "_head",
        "_is_left",
        "_news",
        "_parts",
        "_started",
        "_status",
        "has_begun",
        "has_ended",
        "is_answered",
        "is_whole",
        "keeps_alive",
        "scope",
        "size",
    )

    def __init__(
        self,
        app: App,
        connection: Sender,
        scope: Message,
        *,
        keeps_alive: bool,
        asks: bool,
    ) -> None:
        self._app = app
        self._connection = connection
        self.scope = scope
        self.keeps_alive = keeps_alive

        self._parts: list[bytes] = []
        self.size = 0
        self._news: asyncio.Future[None] | None = None
        self._given = self._is_left = self._started = self._chunked = False
        self._asks = asks
        self.has_begun = self.has_ended = self.is_whole = self.is_answered = False
        self._status = 500
        self._head: Sequence[tuple[bytes, bytes]] = ()

    # Called by the connection

    async def run(self) -> None:
        """Have the application answer; whatever fails is answered, too."""
        try:
            await self._app(self.scope, self.receive, self.send)
            if not self._started:
                raise RuntimeError("the application gave no answer")  # noqa: TRY301
        except Exception:
            log.exception("a request failed in a way that it should not")
            if not self._started:
                await self.send({"type": "http.response.start", "status": 500})
                await self.send({"type": "http.response.body"})
        finally:
            self.has_ended = True
            self._connection.advance(self)

    def add(self, part: bytes) -> int:
        """Take a part of the body; return how much is kept that was not read yet."""
        if not self.is_answered:
            self._parts.append(part)
            self.size += len(part)
            self._wake()
        return self.size

    def complete(self, body_key: str) -> None:
        """Note that the body is complete; put it into the scope, unless it is being read.

        Args:
            body_key: under what name; "": it is not.
        """
        self.is_whole = True
        if not self.has_begun and body_key:
            parts = self._parts
            self.scope[body_key] = parts[0] if len(parts) == 1 else b"".join(parts)
        self._wake()

    def hold(self, body: bytes, body_key: str) -> None:
        """Take a body that has come whole, before the request has begun; see ``complete``.

        Args:
            body: all of it.
            body_key: under what name it is put into the scope; "": it is not.
        """
        self._parts, self.size, self.is_whole = [body] if body else [], len(body), True
        if body_key:
            self.scope[body_key] = body

    def leave(self) -> None:
        """Give up: the client has left, and nobody waits for the answer."""
        self._is_left = True
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # Called by the application

    async def receive(self) -> Message:
        """Return what has come of the body since, or that the client has left."""
        while True:
            if self._is_left or self.is_answered:
                return {"type": "http.disconnect"}
            if self._parts or (self.is_whole and not self._given):
                body = b"".join(self._parts)
                self._parts, self.size, self._given = [], 0, self.is_whole
                self._connection.resume()
                return {"type": "http.request", "body": body, "more_body": not self.is_whole}

            # A client may wait to be asked for the body.
            if not self.is_whole and self._asks:
                self._asks = False
                self._connection.write(CONTINUE)
            self._news = asyncio.get_running_loop().create_future()
            await self._news

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self._status, self._head = message["status"], message.get("headers", ())
            return
        if self.is_answered:
            return

        body, more = message.get("body", b""), message.get("more_body", False)
        start = b"" if self._started else self._begin(len(body), more=more)
        if self.scope["method"] == "HEAD":
            body = b""
        elif self._chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (
                b"" if more else b"0\r\n\r\n"
            )
        self._connection.write(start + body)
        if not more:
            self.is_answered = True
            self._parts, self.size = [], 0
            self._connection.resume()  # what is left of the body is read, and dropped
            self._wake()

    def _begin(self, length: int, *, more: bool) -> bytes:
        """Return the head of the answer; ``length`` is that of its body, if no ``more`` follows."""
        self._started = True
        status = self._status
        parts = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, self._connection.date]
        has_length = status in {204, 304}
        for name, value in self._head:
            # An application that wants no more of a client says so as one writes it.
            if name == b"connection":
                self.keeps_alive = self.keeps_alive and value.lower() != b"close"
                continue
            parts += (name, b": ", value, b"\r\n")
            has_length = has_length or name == b"content-length"

        if not has_length and not more:
            parts.append(b"content-length: %d\r\n" % length)
        elif not has_length:
            self._chunked = self.scope["http_version"] == "1.1"
            self.keeps_alive = self.keeps_alive and self._chunked
            parts += [b"transfer-encoding: chunked\r\n"] if self._chunked else []
        if self._connection.ends:
            self.keeps_alive = False
        if not self.keeps_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)
