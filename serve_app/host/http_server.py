"""An HTTP/1.1 server for one ASGI application: what a replica answers with, behind HAProxy.

It does what a request to the API needs and no more: no lifespan, no WebSocket, no TLS, no access
log. httptools, which wraps Node's parser, reads requests; the rest is a task for each connection
and a write for each answer. It knows nothing of Ray.
"""

import asyncio
import socket
from collections.abc import Collection
from email.utils import formatdate

from serve_app.host.http_connection import Connection, ServerState
from serve_app.host.http_exchange import App

BACKLOG = 2048


class HttpServer:
    """Serves an application on a socket until ``should_exit`` is set, or its task is cancelled.

    Setting ``should_exit`` closes the socket and the connections that are idle; requests that have
    begun are answered, and their connections then closed.
    """

    def __init__(self, app: App, *, idle_s: float, body_key: str = "") -> None:
        """Serve an application.

        Args:
            app: it is called for every request.
            idle_s: how long a connection may be idle, or a head incomplete, in seconds.
            body_key: a body that has arrived whole is in the scope under this name, so that
                whoever wants it need not wait for a message; with "" it is not.
        """
        self._state = ServerState(app, body_key)
        self._idle_s = idle_s
        self._exit = asyncio.Event()

    @property
    def connections(self) -> Collection[Connection]:
        """The connections that are open."""
        return self._state.connections

    @property
    def should_exit(self) -> bool:
        """Whether the server ends: no request is taken on that has not begun."""
        return self._exit.is_set()

    @should_exit.setter
    def should_exit(self, ends: bool) -> None:
        if ends:
            self._exit.set()

    async def serve(self, *listeners: socket.socket) -> None:
        """Serve on bound sockets until told to stop; return once the last request is answered."""
        loop = asyncio.get_running_loop()
        connections = self._state.connections
        self._tick()
        servers = [
            await (
                loop.create_unix_server if each.family == socket.AF_UNIX else loop.create_server
            )(lambda: Connection(self._state, loop), sock=each, backlog=BACKLOG)
            for each in listeners
        ]

        ticking = asyncio.ensure_future(self._tick_forever())
        try:
            await self._exit.wait()
            for server in servers:
                server.close()
            for connection in list(connections):
                connection.end()
            while connections:
                await asyncio.wait([each.closed for each in connections])
        finally:
            ticking.cancel()
            for server in servers:
                server.close()
            for connection in list(connections):
                connection.abort()

    async def _tick_forever(self) -> None:
        """Keep the date, and let go of connections on which nothing comes."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            self._tick()
            oldest = loop.time() - self._idle_s
            for connection in list(self._state.connections):
                connection.end_if_idle_since(oldest)

    def _tick(self) -> None:
        self._state.date = b"date: " + formatdate(usegmt=True).encode() + b"\r\n"
