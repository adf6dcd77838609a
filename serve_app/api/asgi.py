"""The HTTP API as a plain ASGI application: find the route, call its handler, serialise.

Knows neither Ray nor Redis.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from types import NoneType
from typing import Any, NamedTuple

from bandits import errors
from bandits.errors import BanditloopError
from serve_app.api.api_keys import KeyRing, error_headers
from serve_app.api.bodies import decode_body, decode_query
from serve_app.api.endpoints import ROUTES
from serve_app.api.openapi import openapi_document
from serve_app.api.ports import Backend, Counters, ErrandRunner, PolicyService, SpaceService
from serve_app.api.routes import (
    Call,
    Resource,
    RouteTable,
    needed_scope,
    policy_of,
    space_of,
)
from serve_app.api.statuses import STATUS, error_bytes, status_of
from serve_app.api.wire import (
    JSON,
    WHOLE_BODY,
    Answer,
    LoggedAnswer,
    Receive,
    Scope,
    Send,
    check_path,
    encode,
    read_body,
    split_path,
)

RETRY_AFTER_S = b"1"
ROUTE_LABEL = "banditloop.route"
MAX_PATHS = 512
"""Paths that are remembered as they were read."""

log = logging.getLogger("banditloop.http")


class _Found(NamedTuple):
    """What a path is: a resource of the table, of which policy or space; its parts, unquoted."""

    resource: Resource | None
    policy: str | None
    space: str | None
    parts: Sequence[str]


class Api:
    """The ASGI application over ``services`` by policy name, and ``spaces`` by their names.

    Without ``keys`` everybody may call everything.
    """

    def __init__(
        self,
        services: Mapping[str, PolicyService],
        metrics: Counters,
        scrape: Callable[[], Awaitable[bytes]],
        keys: KeyRing | None = None,
        *,
        spaces: Mapping[str, SpaceService] | None = None,
        office: ErrandRunner | None = None,
    ) -> None:
        document = openapi_document(ROUTES, version("banditloop"))
        office = office or NoOffice()
        self.backend = Backend(services, spaces or {}, metrics, scrape, document, office)
        self.table = RouteTable(ROUTES)
        self._keys = keys
        self._paths: dict[tuple[bytes | None, str], _Found] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return

        then, logged = None, True
        try:
            answer = await self._answer(scope, receive)
            if isinstance(answer, LoggedAnswer):
                then, start = answer.then, _start(answer.answer)
                logged = await _is_logged(answer.logging)
                answer = answer.answer if logged else answer.otherwise()
                start = start if logged else _start(answer)
            else:
                start = _start(answer)
        except BanditloopError as error:
            answer = status_of(error), error_bytes(error), JSON
            start = _start(answer, error_headers(error))
        except Exception as error:
            # The answer names no detail: the log has them.
            log.exception("a request failed in a way that it should not")
            failure = BanditloopError(f"internal error ({type(error).__name__}): see the log")
            answer = 500, error_bytes(failure), JSON
            start = _start(answer)

        await send(start)
        await send({"type": "http.response.body", "body": answer[1]})
        label = scope.get(ROUTE_LABEL, "other")
        self.backend.metrics.count("requests", label, str(start["status"]))
        if then is not None:
            then(logged)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer | LoggedAnswer:
        method = scope["method"]
        resource, policy, space, parts = self._found(scope, method)

        # Whoever has no key learns neither which policies nor which routes there are.
        if self._keys is not None:
            needed = needed_scope(resource, method)
            self._keys.admit(needed, policy, scope["headers"], space=space)

        services = self.backend.services
        if policy is not None and policy not in services:
            raise errors.UnknownPolicyError(
                f"no policy {policy!r}: there are {sorted(services)}", "policy"
            )
        spaces = self.backend.spaces
        if space is not None and space not in spaces:
            raise errors.UnknownSpaceError(
                f"no space {space!r} with profiles: "
                + (
                    f"there are {sorted(spaces)}"
                    if spaces
                    else "no policy here has profile in its spec"
                ),
                "space",
            )
        if resource is None:
            raise errors.NotFoundError(f"no route {scope['path']}: see /docs", "path")

        scope[ROUTE_LABEL] = resource.label
        route = resource.routes.get(method)
        if route is None:
            raise errors.MethodNotAllowedError(
                f"use {resource.allowed} here, not {method}", "method", allowed=resource.allowed
            )

        # A parameter is checked before a body is waited for.
        if resource.has_parameters:
            check_path(scope)
        parameters, asked = resource.parameters(parts), route.endpoint.query
        query = None if asked is NoneType else decode_query(scope.get("query_string", b""), asked)
        body, decoder = b"", route.decoder
        if decoder is not None:
            # As a rule it is there, and nothing is to be waited for.
            whole = scope.get(WHOLE_BODY)
            if whole is not None and len(whole) <= route.limit.size:
                body = whole
            else:
                body = await read_body(scope, receive, route.limit)
        started = time.perf_counter()
        request = None if decoder is None else decode_body(body, decoder)

        call = Call(self.backend, policy or "", parameters, request, started, query, space or "")
        answer = await route.handler(call)
        if isinstance(answer, tuple):
            return answer
        return route.endpoint.status, encode(answer), JSON

    def _found(self, scope: Scope, method: str) -> _Found:
        """Return what a path is, as far as it says that itself."""
        key = scope.get("raw_path"), method
        found = self._paths.get(key)
        if found is not None:
            return found

        parts = split_path(scope)
        resource = self.table.find(scope["path"], parts, method)
        found = _Found(resource, policy_of(parts), space_of(parts), parts)
        # Such a path comes with every request of a policy, one with parameters once.
        known = found.policy in self.backend.services or found.policy is None
        if key[0] and resource is not None and not resource.has_parameters and known:
            if len(self._paths) >= MAX_PATHS:
                self._paths.clear()
            self._paths[key] = found
        return found


def _start(answer: Answer, more: Sequence[tuple[bytes, bytes]] = ()) -> dict[str, Any]:
    """Return the message that an answer begins with.

    Args:
        answer: the answer.
        more: headers beside those that every answer has.
    """
    status, body, content_type = answer
    length = str(len(body)).encode()
    headers = [*more, (b"content-type", content_type), (b"content-length", length)]
    if status == STATUS[errors.NotReadyError]:
        headers.append((b"retry-after", RETRY_AFTER_S))
    return {"type": "http.response.start", "status": status, "headers": headers}


async def _is_logged(logging: "asyncio.Future[object]") -> bool:
    """Return whether what is awaited is known to be in the log."""
    try:
        await logging
    except errors.LogUnavailableError:
        return False
    return True


class NoOffice:
    """Does nothing that takes long, and says so."""

    async def answer(self, errand: str, policy: str, asked: Mapping[str, str | int]) -> Answer:  # noqa: ARG002
        """Refuse."""
        raise errors.ConsoleOffError(
            "this service runs with console: off (BANDITLOOP_CONSOLE): use the command line",
            "console",
        )


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
