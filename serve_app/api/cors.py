"""Cross-origin requests: what web pages of other origins may ask, where a setting allows them.

Differs from most middleware: no credentials are allowed, because a key comes in a header and the
service sets no cookie.
"""

from collections.abc import MutableMapping
from typing import Any, Protocol

from serve_app.api.routes import RouteTable
from serve_app.api.wire import Receive, Scope, Send, split_path

ANY_ORIGIN = "*"
ALLOWED_HEADERS = b"authorization, content-type, x-api-key, ocp-apim-subscription-key"
EXPOSED_HEADERS = b"retry-after"
PREFLIGHT_S = b"7200"
"""How long a browser may keep what a preflight said: no browser keeps it longer."""

HeaderList = list[tuple[bytes, bytes]]


class TabledApi(Protocol):
    """An application with a table of routes."""

    table: RouteTable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        ...


class CrossOriginApi:
    """The API for pages of some origins, too: answers their preflights, and marks every answer."""

    def __init__(self, api: TabledApi, origins: frozenset[str]) -> None:
        self._api = api
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._api(scope, receive, send)
            return

        asked = dict(scope["headers"])
        marks = self._marks(asked.get(b"origin"))

        # From an origin that is not allowed a preflight is a request like any other, and refused.
        preflight = self._preflight(scope, asked) if len(marks) > 1 else None
        if preflight is not None:
            headers = [*marks, *preflight]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return

        async def send_marked(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *marks]
            await send(message)

        await self._api(scope, receive, send_marked)

    def _marks(self, origin: bytes | None) -> HeaderList:
        """Return the headers that let a page read an answer; a cache has to tell origins apart."""
        marks = [(b"vary", b"Origin")]
        if origin is None:
            return marks

        if ANY_ORIGIN in self._origins:
            marks.append((b"access-control-allow-origin", b"*"))
        elif origin.decode("latin-1") in self._origins:
            marks.append((b"access-control-allow-origin", origin))
        else:
            return marks
        return [*marks, (b"access-control-expose-headers", EXPOSED_HEADERS)]

    def _preflight(self, scope: Scope, asked: dict[bytes, bytes]) -> HeaderList | None:
        """Return what a preflight is told; None where this is none, or of no route.

        It comes without a key, so it is answered before keys are looked at.
        """
        if scope["method"] != "OPTIONS" or b"access-control-request-method" not in asked:
            return None
        resource = self._api.table.find(scope["path"], split_path(scope))
        if resource is None:
            return None

        return [
            (b"access-control-allow-methods", resource.allowed.encode()),
            (b"access-control-allow-headers", ALLOWED_HEADERS),
            (b"access-control-max-age", PREFLIGHT_S),
        ]
