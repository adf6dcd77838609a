"""The connections of the HTTP server, and the requests that come on them: see http_server.py."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast
from urllib.parse import unquote_to_bytes

import httptools

from serve_app.host.http_exchange import App, HttpExchange, Message

MAX_HEAD = 1 << 16
"""Bytes of a request's target and headers."""
MAX_UNREAD = 1 << 18
"""Bytes of a body that are kept for an application that does not read them."""
MAX_WAITING = 32
"""Requests that may wait behind one that is being answered; then no more is read."""
MAX_HEADS = 256
"""Heads that are remembered as they were read."""
MAX_KNOWN_HEAD = 1 << 12
"""Bytes of a head that is remembered."""
_HEAD_ENDS = b"\r\n\r\n"
_UNUSUAL = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
"""Headers of what is not remembered: what follows them is not what a length says."""
ASGI = {"version": "3.0", "spec_version": "2.3"}


class KnownHead(NamedTuple):
    """What a head says that has come before, byte for byte.

    Attributes:
        scope: of its request, but for what is the connection's.
        length: of the body that follows.
    """

    scope: Message
    length: int


@dataclass(slots=True, eq=False)
class ServerState:
    """What the connections of a server share.

    Attributes:
        app: is called for every request.
        body_key: the name of a whole body in a request's scope; "": it is not put there.
        connections: those that are open.
        date: the header that says what time it is.
        heads: those of plain requests, as the parser read them. A client sends the same ones again
            and again, and to parse one costs more than to find it.
    """

    app: App
    body_key: str
    connections: "set[Connection]" = field(default_factory=set)
    date: bytes = b""
    heads: dict[bytes, KnownHead] = field(default_factory=dict)

    def remember(self, head: bytes, known: KnownHead) -> None:
        """Remember a head; where there are too many, the others are forgotten."""
        if len(self.heads) >= MAX_HEADS:
            self.heads.clear()
        self.heads[head] = known


class Connection(asyncio.Protocol):
    """One client, which is HAProxy: its requests, answered one after the other."""

    __slots__ = (
        "_closing",
        "_completed",
        "_head_bytes",
        "_headers",
        "_heard_at",
        "_is_asked",
        "_is_between",
        "_is_paused",
        "_loop",
        "_parser",
        "_peers",
        "_reading",
        "_rest",
        "_state",
        "_target",
        "_transport",
        "_waiting",
        "_work",
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
        self.exchange: HttpExchange | None = None
        self._reading: HttpExchange | None = None
        self._waiting: deque[HttpExchange] = deque()
        # What has them answered, and what it waits for while there is none.
        self._work: asyncio.Task[None] | None = None
        self._rest: asyncio.Future[None] | None = None
        self._closing = self._is_paused = self._is_asked = False
        # Whether the parser stands where a request may begin; the scope of each request that was
        # complete in what came last, and the size of its body, as far as nobody has read it.
        self._is_between = True
        self._completed: list[tuple[Message, int]] = []
        self._heard_at = loop.time()

    # The life of a connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._peers = tuple(
            tuple(name[:2]) if isinstance(name, tuple) else None
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
        if self._work is not None and (self.exchange is None or not self.exchange.is_answered):
            self._work.cancel()
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

        # What has come before, byte for byte, means what it meant.
        head = b""
        if self._is_between and not self._closing:
            head = data[: data.find(_HEAD_ENDS) + len(_HEAD_ENDS)]
            known = self._state.heads.get(head)
            if known is not None and len(data) == len(head) + known.length:
                self._begin_known(known, data[len(head) :])
                return
        self._completed.clear()

        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # nothing here can be switched to: the request is answered as any other
        except httptools.HttpParserError:
            self._refuse()
            return

        if len(_HEAD_ENDS) < len(head) <= MAX_KNOWN_HEAD and self._is_between:
            self._remember(head, len(data) - len(head))

        # A body that is still on its way is read by whoever wants it.
        if self._reading is not None and not self._reading.has_begun:
            self._begin(self._reading)

    def _remember(self, head: bytes, length: int) -> None:
        """Remember a head, if what has come was this one request, and nothing in it is unusual."""
        if len(self._completed) != 1:
            return
        ((scope, size),) = self._completed
        if size == length and _UNUSUAL.isdisjoint([name for name, _ in scope["headers"]]):
            self._state.remember(head, KnownHead(scope, length))

    def _begin_known(self, known: KnownHead, body: bytes) -> None:
        """Have a request begin whose head is known, and whose body is whole."""
        client, server = self._peers
        scope = {**known.scope, "client": client, "server": server}
        exchange = HttpExchange(self._state.app, self, scope, keeps_alive=True, asks=False)
        exchange.hold(body, self._state.body_key)
        self._begin(exchange)

    def on_message_begin(self) -> None:
        """Begin a request; this and what follows the parser calls."""
        self._is_between = False
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
        self._reading = HttpExchange(
            self._state.app, self, scope, keeps_alive=keeps_alive, asks=self._is_asked
        )

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        exchange = self._reading
        if exchange is not None and exchange.add(part) > MAX_UNREAD:
            self._pause()

    def _pause(self) -> None:
        if self._transport is not None and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Have a request begin that is whole, or go on to the next."""
        exchange, self._reading = self._reading, None
        if exchange is None:
            return
        self._is_between = exchange.keeps_alive
        self._completed.append(({**exchange.scope}, exchange.size))
        exchange.complete(self._state.body_key)
        if not exchange.has_begun:
            self._begin(exchange)
        elif exchange is self.exchange:
            self.advance(exchange)

    def resume(self) -> None:
        """Read on: there is room for more of a body, and for more requests."""
        if self._is_paused and self._transport is not None and len(self._waiting) < MAX_WAITING:
            self._is_paused = False
            self._transport.resume_reading()

    # What is answered

    def _begin(self, exchange: HttpExchange) -> None:
        """Have a request answered, after those that came before."""
        exchange.has_begun = True
        if self.exchange is not None:
            self._waiting.append(exchange)
            if len(self._waiting) >= MAX_WAITING:
                self._pause()
            return
        self.exchange = exchange
        if self._work is None or self._work.done():
            self._work = self._loop.create_task(self._answer())
        elif self._rest is not None:
            rest, self._rest = self._rest, None
            rest.set_result(None)

    async def _answer(self) -> None:
        """Have one request after the other answered.

        They share a task, and its context: to begin one for each costs more.
        """
        while (exchange := self.exchange) is not None:
            await exchange.run()
            if self.exchange is exchange or self._transport is None:
                return  # its body is still to be read, or nobody is there any more
            if self.exchange is None:
                self._rest = self._loop.create_future()
                await self._rest

    def write(self, data: bytes) -> None:
        """Send a part of an answer."""
        if self._transport is not None:
            self._transport.write(data)

    @property
    def date(self) -> bytes:
        """The header that says what time it is."""
        return self._state.date

    @property
    def ends(self) -> bool:
        """Whether the connection is closed behind the answer that is given."""
        return self._closing

    def advance(self, exchange: HttpExchange) -> None:
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
                self.resume()

    def _refuse(self) -> None:
        """Answer what is no request, and close."""
        if self.exchange is None:
            self.write(
                b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self._close()
        else:
            self._closing = True
