"""The route table: what a route says, and how a request finds its route."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import NoneType
from typing import Any, Generic

import msgspec

from banditloop_client.schemas import POLICY_PATH, A, Endpoint, Q
from banditloop_client.space_schemas import SPACE_PATH
from policies.items.changes import check_item_id
from policies.pseudonyms import check_user_id
from policies.requests import check_event_id
from serve_app.api.api_keys import ScopeName
from serve_app.api.bodies import BodyDecoder
from serve_app.api.ports import Backend, PolicyService, SpaceService
from serve_app.api.wire import ORDINARY, Answer, BodyLimit, LoggedAnswer

POLICY_PREFIX = POLICY_PATH.split("/")[:-1]
POLICY_AT = len(POLICY_PREFIX)
SPACE_PREFIX = SPACE_PATH.split("/")[:-1]
SPACE_AT = len(SPACE_PREFIX)

PARAMETER_CHECKS: Mapping[str, Callable[[str], str]] = {
    "event_id": check_event_id,
    "item_id": partial(check_item_id, target="item_id"),
    "user_id": check_user_id,
}
"""By parameter of a path, the check that it passes before its route's body is read."""


class Call(Generic[Q]):
    """One request, as its handler sees it.

    Attributes:
        backend: what all handlers stand on.
        policy: the name in the path; "" where it names none.
        parameters: the others of the path, by name, unquoted.
        request: the decoded body.
        query: what is asked behind the path, decoded; None where nothing is.
        started: when the body had arrived, of ``time.perf_counter``.
        space: the space in the path; "" where it names none.
    """

    __slots__ = ("backend", "parameters", "policy", "query", "request", "space", "started")

    def __init__(
        self,
        backend: Backend,
        policy: str,
        parameters: Mapping[str, str],
        request: Q,
        started: float,
        query: Any = None,
        space: str = "",
    ) -> None:
        self.backend = backend
        self.policy = policy
        self.parameters = parameters
        self.request = request
        self.query = query
        self.started = started
        self.space = space

    @property
    def service(self) -> PolicyService:
        """The policy that the path names."""
        return self.backend.services[self.policy]

    @property
    def space_service(self) -> SpaceService:
        """The space that the path names."""
        return self.backend.spaces[self.space]


@dataclass(frozen=True)
class Route(Generic[Q, A]):
    """All that is to be said of one endpoint: the app, the document and the docs derive from it.

    Attributes:
        endpoint: method, path and types.
        summary: what it does, in a few words.
        scope: what a key must have, or one of several; None where no key is needed.
        handler: returns what the endpoint answers, or an Answer of its own.
        failures: statuses of failure, beside those that every route has.
        states: other statuses that come with the same response, each with what it means.
        reads: the type that the body is decoded to, where it is not the endpoint's.
        decodes: what decodes the body, where it is not msgspec's decoder of that type.
        other: another type that the body may be of, where the handler takes that, too.
        limit: what is read of a body.
    """

    endpoint: Endpoint[Q, A]
    summary: str
    scope: ScopeName | tuple[ScopeName, ...] | None
    handler: Callable[[Call[Any]], Awaitable[A | Answer | LoggedAnswer]]
    failures: tuple[int, ...] = ()
    states: Mapping[int, str] = field(default_factory=dict)
    reads: type | None = None
    decodes: BodyDecoder[Any] | None = None
    other: type | None = None
    limit: BodyLimit = ORDINARY

    @cached_property
    def decoder(self) -> BodyDecoder[Any] | None:
        """Decodes the body; None where none is read."""
        if self.decodes is not None:
            return self.decodes
        kind = self.reads or self.endpoint.request
        return None if kind is NoneType else msgspec.json.Decoder(kind)


class Resource:
    """One path of the table, with its routes by method.

    Attributes:
        label: the path in metrics: its last word, or all of it where it has no parameter.
        routes: by method.
    """

    __slots__ = ("_parameters", "_words", "label", "routes")

    def __init__(self, path: str) -> None:
        parts = path.split("/")
        names = [parameter_name(part) for part in parts]
        self._words = [(at, parts[at]) for at, name in enumerate(names) if name is None and at]
        self._parameters = [
            (name, at, PARAMETER_CHECKS.get(name, str))
            for at, name in enumerate(names)
            if name not in {None, "policy", "space"}
        ]
        self.label = (names[-1] or parts[-1]) if "{" in path else path
        self.routes: dict[str, Route[Any, Any]] = {}

    @property
    def allowed(self) -> str:
        """Its methods, as the header Allow lists them."""
        return ", ".join(self.routes)

    @property
    def has_parameters(self) -> bool:
        """Whether its path has others than the policy and the space."""
        return bool(self._parameters)

    def matches(self, parts: Sequence[str]) -> bool:
        """Whether these parts, as many as the path has, are this path."""
        for at, word in self._words:  # noqa: SIM110 - any() costs three times as much
            if parts[at] != word:
                return False
        return True

    def parameters(self, parts: Sequence[str]) -> Mapping[str, str]:
        """Return the parameters by name, each as it passed its check, but for policy and space."""
        if not self._parameters:
            return _NO_PARAMETERS
        return {name: check(parts[at]) for name, at, check in self._parameters}


_NO_PARAMETERS: Mapping[str, str] = {}


class RouteTable:
    """Finds the routes of a path."""

    def __init__(self, routes: Iterable[Route[Any, Any]]) -> None:
        self.routes = tuple(routes)
        self._fixed: dict[str, Resource] = {}
        self._by_end: dict[tuple[int, str | None], list[Resource]] = {}

        resources: dict[str, Resource] = {}
        for route in self.routes:
            path = route.endpoint.path
            if path not in resources:
                resources[path] = Resource(path)
            resources[path].routes[route.endpoint.method] = route

        for path, resource in resources.items():
            if "{" not in path:
                self._fixed[path] = resource
                continue
            parts = path.split("/")
            last = None if parameter_name(parts[-1]) else parts[-1]
            self._by_end.setdefault((len(parts), last), []).append(resource)

    def find(self, path: str, parts: Sequence[str], method: str = "") -> Resource | None:
        """Return what is at a path.

        Args:
            path: unquoted, for paths without parameters.
            parts: those of the path, each unquoted by itself; a parameter is one part.
            method: where a word and a parameter both fit (a user has the id ``merge``), what
                takes this method is meant.
        """
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed

        # Length and last word leave one candidate, as a rule.
        first = None
        for last in (parts[-1], None):
            for resource in self._by_end.get((len(parts), last), ()):
                if resource.matches(parts):
                    if method in resource.routes:
                        return resource
                    first = first or resource
        return first


def parameter_name(part: str) -> str | None:
    """Return the name that a part of a path has in braces, if it is a parameter."""
    return part[1:-1] if part.startswith("{") else None


def policy_of(parts: Sequence[str]) -> str | None:
    """Return the policy that a path is about, whether or not there is such a route."""
    return (
        parts[POLICY_AT] if parts[:POLICY_AT] == POLICY_PREFIX and len(parts) > POLICY_AT else None
    )


def space_of(parts: Sequence[str]) -> str | None:
    """Return the space that a path is about, whether or not there is such a route."""
    return parts[SPACE_AT] if parts[:SPACE_AT] == SPACE_PREFIX and len(parts) > SPACE_AT else None


def needed_scope(
    resource: Resource | None, method: str
) -> ScopeName | tuple[ScopeName, ...] | None:
    """Return what a key must have, or one of several; None where no key is needed.

    Args:
        resource: what is at the path; what is not listed is for admins.
        method: one that the path does not take needs what its first one does.
    """
    if resource is None:
        return "admin"
    routes = resource.routes
    return (routes.get(method) or next(iter(routes.values()))).scope
