"""A replica's requests, and the parts of its decisions, as spans of a trace.

Where no collector is named nothing of this is imported, and no request passes any of it.
"""

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, TypeVar, cast

from serve_app.api.asgi import ROUTE_LABEL
from serve_app.api.routes import policy_of
from serve_app.api.wire import Asgi, Receive, Scope, Send, split_path
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.replica.tracing.spans import Spans, end_request

TRACED = ("/v1/", "/personalizer/", "/policies/")
"""Where requests are traced: probes and scrapes would be most of all spans."""

T = TypeVar("T")


class TracedApi:
    """An ASGI application each of whose requests is a span."""

    def __init__(self, api: Asgi, spans: Spans) -> None:
        self._api = api
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not scope["path"].startswith(TRACED):
            await self._api(scope, receive, send)
            return

        status = 500

        async def sent(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._spans.request(scope["headers"]) as span:
            try:
                await self._api(scope, receive, sent)
            finally:
                route, policy = scope.get(ROUTE_LABEL, "other"), policy_of(split_path(scope))
                said = {"http.request.method": scope["method"], "http.route": route}
                if policy is not None:
                    said["banditloop.policy"] = policy
                end_request(span, f"{scope['method']} {route}", status, said)


def trace_service(service: RedisPolicyService, spans: Spans) -> None:
    """Make spans of the parts of a policy's decisions.

    Args:
        service: the policy's.
        spans: makes them.
    """

    def around(part: T, name: str, *methods: str) -> T:
        return cast("T", _TracedPart(part, spans, name, methods))

    service.put_around_parts(around)


class _TracedPart:
    """Part of a service, some of whose methods are spans. It is as the part in everything else."""

    def __init__(self, part: Any, spans: Spans, name: str, methods: tuple[str, ...]) -> None:
        self._part = part
        for method in methods:
            setattr(self, method, _traced(getattr(part, method), spans, name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)


def _traced(call: Callable[..., Any], spans: Spans, name: str) -> Callable[..., Any]:
    """Return a method that does the same in a span; what has a name is said, such as a source."""

    def said(arguments: tuple[Any, ...]) -> dict[str, str]:
        asked = getattr(arguments[0], "name", None) if arguments else None
        return {f"banditloop.{name}": asked} if isinstance(asked, str) else {}

    if iscoroutinefunction(call):

        @wraps(call)
        async def awaited(*arguments: Any, **named: Any) -> Any:
            with spans.part(name, said(arguments)):
                return await call(*arguments, **named)

        return awaited

    @wraps(call)
    def called(*arguments: Any, **named: Any) -> Any:
        with spans.part(name, said(arguments)):
            return call(*arguments, **named)

    return called
