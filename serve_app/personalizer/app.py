"""Personalizer's protocol as an ASGI application around our own API.

Both shapes of its URLs are taken, with a version in the path and without, at ``/personalizer`` and
at ``/policies/{policy}/personalizer``. What is asked elsewhere goes on to our own API.
"""

import logging
import re
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import NoneType
from typing import Any, NamedTuple

from bandits import errors
from bandits.errors import BanditloopError
from serve_app.api.api_keys import Headers, KeyRing
from serve_app.api.asgi import MAX_PATHS, ROUTE_LABEL, Api
from serve_app.api.bodies import decode_query
from serve_app.api.ports import Backend
from serve_app.api.routes import Call, Resource, RouteTable, needed_scope
from serve_app.api.wire import (
    JSON,
    WHOLE_BODY,
    Receive,
    Scope,
    Send,
    check_path,
    encode,
    read_body,
    split_path,
)
from serve_app.personalizer.operations import OPERATIONS
from serve_app.personalizer.refusals import RefusedCall, refusal_bytes, refused
from serve_app.personalizer.route import HeadedAnswer, PersonalizerRoute

ROOM = "personalizer"
_PREFIXES = f"/{ROOM}/", "/policies/"
_VERSION = re.compile(r"v\d+\.\d+[\w.-]*")
_OF_EVENTS = "reward", "activate"
_EVENTS = (("events",), ("multislot", "events"))
_ABOVE_EVENTS = ((), ("multislot",))

log = logging.getLogger("banditloop.http")


class AskedPath(NamedTuple):
    """What a path asks for: of which policy, where it names one; and the operation's own parts."""

    policy: str | None
    parts: Sequence[str]


class _Found(NamedTuple):
    """What a path asks for, and what is there; None: nothing is."""

    asked: AskedPath
    parts: Sequence[str]
    resource: Resource | None


class PersonalizerApi:
    """Answers Personalizer's clients, and leaves all other requests to ``api``."""

    def __init__(
        self,
        api: Api,
        backend: Backend,
        keys: KeyRing | None,
        more: Sequence[PersonalizerRoute[Any, Any]] = (),
    ) -> None:
        """Answer beside an API.

        Args:
            api: takes what is no request of the protocol.
            backend: what all handlers stand on.
            keys: those that may call; None: everybody may.
            more: operations beside those on events.
        """
        self._operations = RouteTable((*OPERATIONS, *more))
        self.table: RouteTable = BothTables(api.table, self._operations)
        self._api = api
        self._backend = backend
        self._keys = keys
        self._paths: dict[tuple[bytes | None, str], _Found] = {}

    @property
    def backend(self) -> Backend:
        """What all handlers stand on, those of the API beside it, too."""
        return self._backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        found = None
        if scope["type"] == "http" and scope["path"].startswith(_PREFIXES):
            found = self._found(scope)
        if found is None:
            await self._api(scope, receive, send)
            return

        headers: list[tuple[bytes, bytes]] = []
        try:
            (status, body, content_type), headers = await self._answer(found, scope, receive)
        except RefusedCall as refusal:
            status, body, content_type = refusal.status, refusal_bytes(refusal), JSON
            headers = refusal.headers
        except Exception as error:
            # The answer names no detail: the log has them.
            log.exception("a request failed in a way that it should not")
            hidden = RefusedCall(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "InternalServerError",
                f"internal error ({type(error).__name__}): see the log",
            )
            status, body, content_type = hidden.status, refusal_bytes(hidden), JSON
            headers = hidden.headers

        if status != HTTPStatus.NO_CONTENT:
            headers.append((b"content-length", str(len(body)).encode()))
        if body:
            headers.append((b"content-type", content_type))
        self._backend.metrics.count("requests", scope.get(ROUTE_LABEL, ROOM), str(int(status)))
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _found(self, scope: Scope) -> _Found | None:
        """Return what a path asks of the protocol; None: it is none of its paths."""
        method = scope["method"]
        key = scope.get("raw_path"), method
        found = self._paths.get(key)
        if found is not None:
            return found

        asked = asked_of(split_path(scope))
        if asked is None:
            return None
        parts = ["", *asked.parts]
        resource = self._operations.find("/".join(parts), parts, method)
        found = _Found(asked, parts, resource)
        # Such a path comes with every rank, one with parameters once.
        if key[0] and resource is not None and not resource.has_parameters:
            if len(self._paths) >= MAX_PATHS:
                self._paths.clear()
            self._paths[key] = found
        return found

    async def _answer(self, found: _Found, scope: Scope, receive: Receive) -> HeadedAnswer:
        try:
            policy, operation, parameters = self._admitted(found, scope)
        except BanditloopError as error:
            raise refused(error, "BadRequest") from error
        try:
            return await self._done(policy, operation, parameters, scope, receive)
        except BanditloopError as error:
            raise refused(error, operation.refusal_of(error.target)) from error

    def _admitted(
        self, found: _Found, scope: Scope
    ) -> tuple[str, PersonalizerRoute[Any, Any], Mapping[str, str]]:
        """Return the policy, the operation and its parameters, if the request may pass."""
        method, headers = scope["method"], scope["headers"]
        asked, parts, resource = found

        # Whoever has no key learns neither which policies nor which operations there are.
        policies = [asked.policy] if asked.policy is not None else self._meant(headers)
        if self._keys is not None:
            self._keys.admit(needed_scope(resource, method), next(iter(policies), None), headers)

        services = self._backend.services
        if len(policies) != 1:
            raise errors.UnknownPolicyError(
                f"several policies are served here: add /policies/NAME to the endpoint, as"
                f" /policies/{min(services, default='NAME')}, or use a key that reaches only one",
                "policy",
            )
        policy = policies[0]
        if policy not in services:
            raise errors.UnknownPolicyError(f"no policy {policy!r} is served here", "policy")
        if resource is None:
            path = "/".join(parts)
            raise errors.NotFoundError(f"Personalizer has no operation {path}", "path")

        check_path(scope)
        scope[ROUTE_LABEL] = f"{ROOM}:{resource.label}"
        operation = resource.routes.get(method)
        if not isinstance(operation, PersonalizerRoute):
            raise errors.MethodNotAllowedError(
                f"use {resource.allowed} here, not {method}", "method", allowed=resource.allowed
            )
        return policy, operation, resource.parameters(parts)

    def _meant(self, headers: Headers) -> list[str]:
        """Return the policies that a request may mean whose path names none."""
        services = self._backend.services
        if len(services) == 1 or self._keys is None:
            return list(services)
        reached = self._keys.policies_of(headers)
        return list(services) if reached is None else [name for name in services if name in reached]

    async def _done(
        self,
        policy: str,
        operation: PersonalizerRoute[Any, Any],
        parameters: Mapping[str, str],
        scope: Scope,
        receive: Receive,
    ) -> HeadedAnswer:
        """Do what is asked, and return its answer."""
        asked = operation.endpoint.query
        query = None if asked is NoneType else decode_query(scope.get("query_string", b""), asked)
        is_read = operation.is_raw or operation.decoder is not None
        body = b""
        if is_read:
            # As a rule it is there, and nothing is to be waited for.
            whole = scope.get(WHOLE_BODY)
            if whole is not None and len(whole) <= operation.limit.size:
                body = whole
            else:
                body = await read_body(scope, receive, operation.limit)
        started = time.perf_counter()
        request: Any = operation.decoded(body)

        call = Call(self._backend, policy, parameters, request, started, query)
        answer = await operation.handler(call)
        if isinstance(answer, HeadedAnswer):
            return answer
        if isinstance(answer, tuple):
            return HeadedAnswer(answer, [])
        return HeadedAnswer((operation.endpoint.status, encode(answer), JSON), [])


class BothTables(RouteTable):
    """Finds the routes of our own API, and of the protocol at its paths."""

    def __init__(self, ours: RouteTable, operations: RouteTable) -> None:
        """Look in both.

        Args:
            ours: of our own API.
            operations: of the protocol, below its prefixes.
        """
        super().__init__(ours.routes)
        self._operations = operations

    def find(self, path: str, parts: Sequence[str], method: str = "") -> Resource | None:
        """Return what is at a path; see ``RouteTable.find``."""
        asked = asked_of(parts)
        if asked is None:
            return super().find(path, parts, method)
        below = ["", *asked.parts]
        return self._operations.find("/".join(below), below, method)


def asked_of(parts: Sequence[str]) -> AskedPath | None:
    """Return what a path asks of the protocol; None: it is none of its paths.

    Args:
        parts: those of the path, each unquoted by itself.
    """
    if len(parts) > 2 and parts[1] == ROOM:
        policy, rest = None, parts[2:]
    elif len(parts) > 4 and parts[1] == "policies" and parts[3] == ROOM:
        policy, rest = parts[2], parts[4:]
    else:
        return None

    if len(rest) > 1 and _VERSION.fullmatch(rest[0]):
        rest = rest[1:]
    # An empty id leaves no part behind in the path that one of the clients asks for.
    if tuple(rest[:-1]) in _EVENTS and rest[-1] in _OF_EVENTS:
        rest = [*rest[:-1], "", rest[-1]]
    # The clients take an event that is called ".." for a step upwards, and make it.
    if tuple(rest[:-1]) in _ABOVE_EVENTS and rest[-1] in _OF_EVENTS:
        rest = [*rest[:-1], "events", "..", rest[-1]]
    return AskedPath(policy, rest)
