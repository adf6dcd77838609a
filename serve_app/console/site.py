"""The console as one ASGI application: its pages, and what holds for each of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

import httpx
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from banditloop_client.errors import ServiceError
from serve_app.console.catalogue import CATALOGUE_PAGES
from serve_app.console.choices import CHOICE_PAGES
from serve_app.console.entry import ENTRY_PAGES
from serve_app.console.models import MODEL_PAGES
from serve_app.console.people import PEOPLE_PAGES
from serve_app.console.service_api import ServiceApi
from serve_app.console.sessions import (
    COOKIE,
    Sessions,
    came_by_https,
    is_same_origin,
    name_session,
)
from serve_app.console.visits import PATHS, STATIC, PageHandler, PageVisit
from serve_app.console.worth import WORTH_PAGES

MAX_FORM = 2 << 20
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
PAGES: dict[tuple[str, str], PageHandler] = {
    **ENTRY_PAGES,
    **WORTH_PAGES,
    **CHOICE_PAGES,
    **MODEL_PAGES,
    **CATALOGUE_PAGES,
    **PEOPLE_PAGES,
}
"""By method and page, what answers it."""


def console_site(url: str, transport: httpx.AsyncBaseTransport | None = None) -> ASGIApp:
    """Return the console of the service at a URL.

    Args:
        url: where the service's public API answers.
        transport: by which it is asked; None: by HTTP.
    """
    api, sessions = ServiceApi(url, transport), Sessions()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with api:
            yield

    routes: list[Any] = [
        Route(PATHS[name], _endpoint(handler, api, sessions), methods=[method])
        for (method, name), handler in PAGES.items()
    ]
    routes.append(Route("/console", _to_overview))
    routes.append(Mount("/console/static", StaticFiles(directory=STATIC)))

    async def missing(request: Request, _error: Exception) -> Response:
        visit = PageVisit(request, api, sessions, request.cookies.get(COOKIE, ""), None)
        said = f"the console has no page {request.url.path}"
        return visit.refused(ServiceError(404, "not_found", said, "path"))

    return _Guarded(Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: missing}))


async def _to_overview(_request: Request) -> Response:
    return RedirectResponse(PATHS["overview"], 308)


def _endpoint(handler: PageHandler, api: ServiceApi, sessions: Sessions) -> Any:
    async def answer(request: Request) -> Response:
        name = request.cookies.get(COOKIE, "")
        fresh = not name
        if fresh:
            name = sessions.start()
        visit = PageVisit(request, api, sessions, name, sessions.key_of(name))

        if request.method == "POST":
            try:
                visit.form = await _read_form(request)
            except (ValueError, ClientDisconnect):
                return PlainTextResponse("The form is too long, or not of these pages.", 413)
            if not _is_of_these_pages(visit):
                return visit.page("foreign.html", status=403)

        try:
            response = await handler(visit)
        except ServiceError as error:
            response = visit.refused(error)

        if visit.session != name or fresh:
            name_session(response, visit.session, secure=came_by_https(request))
        return response

    return answer


def _is_of_these_pages(visit: PageVisit) -> bool:
    """Say whether a form was filled in on one of these pages, by whoever looks at them."""
    token = visit.form.get("token", "")
    return is_same_origin(visit.request) and visit.sessions.is_from_here(visit.session, token)


async def _read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        ValueError: it is too long, or no form.
        ClientDisconnect: the browser has left.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise ValueError("too long")
    return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=100))


class _Guarded:
    """Says with every answer what a browser may do with it; is at /console, whoever mounts it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        is_static = scope["path"].startswith("/console/static/")
        kept = "public, max-age=31536000, immutable" if is_static else "no-store"

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers["cache-control"] = kept if message["status"] < 400 else "no-store"
            await send(message)

        await self._app({**scope, "root_path": ""}, receive, send_guarded)
