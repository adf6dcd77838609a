"""The connections of the HTTP server, and the requests that come on them: see http_server.py."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import httptools

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
"""An ASGI application."""

MAX_HEAD = 1 << 16
"""Bytes of a request's target and headers."""
MAX_UNREAD = 1 << 18
"""Bytes of a body that are kept for an application that does not read them."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
ASGI = {"version": "3.0", "spec_version": "2.3"}
STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}

log = logging.getLogger("banditloop.http")


@dataclass(slots=True, eq=False)
class ServerState:
    """What the connections of a server share.

    Attributes:
        app: is called for every request.
        body_key: the name of a whole body in a request's scope; "": it is not put there.
        connections: those that are open.
        date: the header that says what time it is.
    """

    app: App
    body_key: str
    connections: "set[Connection]" = field(default_factory=set)
    date: bytes = b""


class Connection(asyncio.Protocol):
    """One client, which is HAProxy: its requests, answered one after the other."""

    __slots__ = (
        "_closing",
        "_head_bytes",
        "_headers",
        "_heard_at",
        "_is_asked",
        "_is_paused",
        "_loop",
        "_parser",
        "_peers",
        "_reading",
        "_state",
        "_target",
        "_transport",
        "_waiting",
        "closed",
        "exchange",
    )

    def __init__(self, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        self._state = state
        self._loop = loop
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self.closed = loop.create_future()

        # The one that is being answered, the one whose body is still read, and what comes between.
        self.exchange: _Exchange | None = None
        self._reading: _Exchange | None = None
        self._waiting: deque[_Exchange] = deque()
        self._closing = self._is_paused = self._is_asked = False
        self._heard_at = loop.time()

    # The life of a connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._peers = tuple(
            None if name is None else tuple(name[:2])
            for name in map(transport.get_extra_info, ("peername", "sockname"))
        )
        self._state.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End: whatever was asked is given up."""
        self._state.connections.discard(self)
        self._transport = None
        self._waiting.clear()
        if self.exchange is not None:
            self.exchange.leave()
        if not self.closed.done():
            self.closed.set_result(None)

    def eof_received(self) -> bool:
        """Close: who has nothing more to say is not waited for."""
        return False

    def end(self) -> None:
        """Close once what has begun is answered."""
        self._closing = True
        if self.exchange is None:
            self._close()

    def end_if_idle_since(self, moment: float) -> None:
        """Close if there is no request, and nothing has come since a moment of the loop's time."""
        if self.exchange is None and self._heard_at < moment:
            self._close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # What comes

    def data_received(self, data: bytes) -> None:
        """Read what has come, and have requests begin."""
        self._heard_at = self._loop.time()
        if self._closing and self.exchange is None:
            return

        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # nothing here can be switched to: the request is answered as any other
        except httptools.HttpParserError:
            self._refuse()
            return

        # A body that is still on its way is read by whoever wants it.
        if self._reading is not None and not self._reading.has_begun:
            self._begin(self._reading)

    def on_message_begin(self) -> None:
        """Begin a request; this and what follows the parser calls."""
        self._target, self._head_bytes = b"", 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._is_asked = False

    def on_url(self, part: bytes) -> None:
        """Take a part of the target."""
        self._target += part
        self._count(len(part))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header.

        Args:
            name: in any case.
            value: as it is.
        """
        name = name.lower()
        self._headers.append((name, value))
        self._count(len(name) + len(value))
        if name == b"expect" and value.lower() == b"100-continue":
            self._is_asked = True

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD:
            raise httptools.HttpParserError("the head of the request is too long")

    def on_headers_complete(self) -> None:
        """Make the request of its head."""
        parser = self._parser
        url = httptools.parse_url(self._target)
        version, raw_path = parser.get_http_version(), url.path or b"/"
        path = unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path

        scope: Message = {
            "type": "http",
            "asgi": ASGI,
            "http_version": version,
            "method": parser.get_method().decode("ascii"),
            "scheme": "http",
            "path": path.decode("utf-8", "replace"),
            "raw_path": raw_path,
            "query_string": url.query or b"",
            "root_path": "",
            "headers": self._headers,
            "client": self._peers[0],
            "server": self._peers[1],
        }

        keeps_alive = version != "1.0" and parser.should_keep_alive()
        self._reading = _Exchange(
            self._state, self, scope, keeps_alive=keeps_alive, asks=self._is_asked
        )

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        exchange = self._reading
        if exchange is None or exchange.add(part) <= MAX_UNREAD:
            return
        if self._transport is not None and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Have a request begin that is whole, or go on to the next."""
        exchange, self._reading = self._reading, None
        if exchange is None:
            return
        exchange.complete()
        if not exchange.has_begun:
            self._begin(exchange)
        elif exchange is self.exchange:
            self.advance(exchange)

    def resume(self) -> None:
        """Read on: there is room for more of a body."""
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    # What is answered

    def _begin(self, exchange: "_Exchange") -> None:
        """Have a request answered, after those that came before."""
        exchange.has_begun = True
        if self.exchange is not None:
            self._waiting.append(exchange)
            return
        self.exchange = exchange
        exchange.task = self._loop.create_task(exchange.run())

    def write(self, data: bytes) -> None:
        """Send a part of an answer."""
        if self._transport is not None:
            self._transport.write(data)

    @property
    def ends(self) -> bool:
        """Whether the connection is closed behind the answer that is given."""
        return self._closing

    def advance(self, exchange: "_Exchange") -> None:
        """Go on to the next request, once this one is answered and has been read to its end."""
        if not exchange.has_ended:
            return
        if not exchange.is_answered:
            self.abort()
        elif not exchange.keeps_alive or (self._closing and not self._waiting):
            self._close()
        elif exchange.is_whole:
            self.exchange = None
            if self._waiting:
                self._begin(self._waiting.popleft())

    def _refuse(self) -> None:
        """Answer what is no request, and close."""
        if self.exchange is None:
            self.write(
                b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self._close()
        else:
            self._closing = True


class _Exchange:
    """A request and its answer: what an application receives and sends."""

    __slots__ = (
        "_asks",
        "_chunked",
        "_connection",
        "_given",
        "_head",
        "_is_left",
        "_news",
        "_parts",
        "_size",
        "_started",
        "_state",
        "_status",
        "has_begun",
        "has_ended",
        "is_answered",
        "is_whole",
        "keeps_alive",
        "scope",
        "task",
    )

    def __init__(
        self,
        state: ServerState,
        connection: Connection,
        scope: Message,
        *,
        keeps_alive: bool,
        asks: bool,
    ) -> None:
        self._state = state
        self._connection = connection
        self.scope = scope
        self.keeps_alive = keeps_alive
        self.task: asyncio.Task[None] | None = None

        self._parts: list[bytes] = []
        self._size = 0
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
            await self._state.app(self.scope, self.receive, self.send)
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
            self._size += len(part)
            self._wake()
        return self._size

    def complete(self) -> None:
        """Note that the body is complete."""
        self.is_whole = True
        if not self.has_begun and self._state.body_key:
            parts = self._parts
            self.scope[self._state.body_key] = parts[0] if len(parts) == 1 else b"".join(parts)
        self._wake()

    def leave(self) -> None:
        """Give up: the client has left, and nobody waits for the answer."""
        self._is_left = True
        self._wake()
        if self.task is not None and not self.is_answered:
            self.task.cancel()

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
                self._parts, self._size, self._given = [], 0, self.is_whole
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
            self._parts, self._size = [], 0
            self._connection.resume()  # what is left of the body is read, and dropped
            self._wake()

    def _begin(self, length: int, *, more: bool) -> bytes:
        """Return the head of the answer; ``length`` is that of its body, if no ``more`` follows."""
        self._started = True
        status = self._status
        parts = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, self._state.date]
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
