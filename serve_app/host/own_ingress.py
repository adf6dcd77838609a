"""A replica's HTTP server in the place of Serve's: all that touches Ray's private parts for it.

Serve starts an HTTP server in each replica of an ingress, on a port that HAProxy is told of, and
wraps every request: request ids, contexts, metrics, and a task that waits for the client to leave.
A replica of this project has a server of its own on that same port (http_server.py). Serve goes on
deciding what it decided before: which port that is, how many requests may be worked on and how many
may wait, how many there are (its autoscaler counts them), whether the replica is healthy, and when
the server is to end. Serve's own metrics of requests are not counted: see ``/metrics``.

Where Ray is not the one that this was written for, or is configured to do more with a request,
Serve's own server is started, and the log says why. ``BANDITLOOP_HTTP_SERVER=serve`` has it always.
"""

import asyncio
import json
import logging
import socket
from typing import Any

from serve_app.host.haproxy import DOOR, LOOPBACK, OVERLOADED
from serve_app.host.http_exchange import App, Message, Receive, Send
from serve_app.host.http_server import HttpServer

RAY = "2.60."
"""The versions of Ray whose private parts are those that are used here."""
PARTS = (
    "_can_accept_request",
    "_direct_ingress_asgi",
    "_metrics_manager",
    "_num_queued_requests",
    "_route_prefix",
    "_semaphore",
    "_user_callable_wrapper",
)
NAME_LENGTH = 107
"""Bytes of the name of a socket without a network, behind the zero that it begins with."""
OWN_PATHS = "/-/"
"""What the paths begin with that Serve answers itself: HAProxy asks there whether it is healthy."""

log = logging.getLogger("banditloop.http")


def replace_http_server(body_key: str) -> None:
    """Have the server of this replica be one of ours; for a replica's constructor.

    Serve starts its server after the constructor has returned, by the function that is replaced
    here.

    Args:
        body_key: under what name a whole body is in the scope of a request.
    """
    from ray.serve._private import replica  # noqa: PLC0415 - only where Ray runs

    starts = replica.start_asgi_http_server
    if getattr(starts, "starts_own", False):
        return

    async def start(app: App, options: Any, **given: Any) -> tuple["asyncio.Task[None]", Any]:
        reason = why_not(app, options, **given)
        if reason is not None:
            log.warning("Serve's own HTTP server is used, which costs more: %s", reason)
            server: tuple[asyncio.Task[None], Any] = await starts(app, options, **given)
            return server
        bound = [listener(options.host, options.port), *door(options.host, options.port)]
        own = HttpServer(
            CountedApp(getattr(app, "__self__"), app),  # noqa: B009 - why_not has looked
            idle_s=options.keep_alive_timeout_s,
            body_key=body_key,
        )
        return asyncio.get_running_loop().create_task(own.serve(*bound)), own

    start.starts_own = True  # type: ignore[attr-defined]
    replica.start_asgi_http_server = start


def why_not(app: App, options: Any, **given: Any) -> str | None:
    """Return why Serve's own server is needed; None if it is not.

    Args:
        app: what Serve would have called for each request: a method of its replica.
        options: its HTTP options.
        given: what else it says of the server.
    """
    import ray  # noqa: PLC0415

    if not ray.__version__.startswith(RAY):
        return f"Ray is {ray.__version__}, and {RAY}x is known"
    replica = getattr(app, "__self__", None)
    lacks = [name for name in PARTS if not hasattr(replica, name)]
    if lacks:
        return f"Ray's replica has no {lacks[0]}"

    wrapper = replica._user_callable_wrapper  # type: ignore[union-attr] # noqa: SLF001
    asked = {
        "middlewares": options.middlewares,
        "request_timeout_s": options.request_timeout_s,
        "root_path": options.root_path,
        "ssl_keyfile": options.ssl_keyfile,
        "a shared port": given.get("enable_so_reuseport"),
        "user code in a thread": wrapper._run_user_code_in_separate_thread,  # noqa: SLF001
        "a route prefix": replica._route_prefix not in {None, "", "/"},  # type: ignore[union-attr] # noqa: SLF001
        "another event loop": given["event_loop"] is not asyncio.get_running_loop(),
    }
    return next((f"Serve is asked for {what}" for what, wanted in asked.items() if wanted), None)


def listener(host: str, port: int) -> socket.socket:
    """Return a bound socket.

    Raises:
        RuntimeError: it cannot be bound; the OSError is its cause: then Serve tries another port.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise RuntimeError(f"cannot listen on {host}:{port}") from error
    return listener


def door(host: str, port: int) -> list[socket.socket]:
    """Return a second socket, by which HAProxy on this machine reaches a replica without a network.

    None where the first can be reached from other machines, or the kernel has no such names.

    Args:
        host: the address of the first.
        port: its port.
    """
    if host != LOOPBACK:
        return []
    near = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        near.bind(b"\0" + DOOR.format(port).encode().ljust(NAME_LENGTH, b"\0"))
    except OSError:
        near.close()
        return []
    return [near]


class CountedApp:
    """An ASGI application that begins what may be begun, and says to Serve how much there is."""

    def __init__(self, replica: Any, serves: App) -> None:
        """Admit requests to a replica's application.

        Args:
            replica: Ray's.
            serves: what Serve would have called, which answers paths of its own.
        """
        from ray.serve._private.common import RequestMetadata, RequestProtocol  # noqa: PLC0415

        self._replica, self._serves = replica, serves
        self._app: App = replica._user_callable_wrapper._callable._asgi_app  # noqa: SLF001
        self._semaphore, self._metrics = replica._semaphore, replica._metrics_manager  # noqa: SLF001
        # All requests look alike to those who count them.
        self._counted = RequestMetadata(
            request_id="",
            internal_request_id="",
            _request_protocol=RequestProtocol.HTTP,
            is_direct_ingress=True,
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["path"].startswith(OWN_PATHS):
            await self._serves(scope, receive, send)
            return

        # Those that wait for their turn are counted: there may be only so many.
        replica, semaphore, counted = self._replica, self._semaphore, self._counted
        if semaphore.locked():
            if not replica._can_accept_request(counted):  # noqa: SLF001
                await _turn_away(send, replica.backpressure_config.status_code)
                return
            replica._num_queued_requests += 1  # noqa: SLF001
            try:
                await semaphore.acquire()
            finally:
                replica._num_queued_requests -= 1  # noqa: SLF001
        else:
            await semaphore.acquire()

        self._metrics.inc_num_ongoing_requests(counted)
        try:
            await self._app(scope, receive, send)
        finally:
            self._metrics.dec_num_ongoing_requests(counted)
            semaphore.release()


async def _turn_away(send: Send, status: int) -> None:
    """Answer that too many requests wait."""
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    body = json.dumps(OVERLOADED, separators=(",", ":")).encode()
    await send({"type": "http.response.body", "body": body})
