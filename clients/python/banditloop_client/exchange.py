"""One request to a service, and the methods that send it."""

import random
import uuid
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

import msgspec

from banditloop_client.schemas import A, Endpoint, Q

if TYPE_CHECKING:
    from banditloop_client.client import AsyncClient, Client

P = ParamSpec("P")
B = TypeVar("B")

BACKOFF_S, LONGEST_S = 0.05, 1.0

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Exchange(Generic[A]):
    """One request, the same bytes at every attempt, and how its answer is read."""

    method: str
    url: str
    body: bytes
    read: Callable[[bytes], A]

    def then(self, change: Callable[[A], B]) -> "Exchange[B]":
        """Return the same request, whose answer is changed once it is read."""
        read = self.read
        return Exchange(self.method, self.url, self.body, lambda content: change(read(content)))


class sent(Generic[P, A]):  # noqa: N801 - it is used as a decorator
    """Makes a method that prepares an exchange into one that sends it.

    On a Client the method returns the answer, on an AsyncClient a coroutine of it.
    """

    def __init__(self, prepare: Callable[Concatenate[Any, P], Exchange[A]]) -> None:
        self._prepare = prepare
        update_wrapper(self, prepare)  # type: ignore[arg-type]

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: "Client", owner: type) -> Callable[P, A]: ...
    @overload
    def __get__(
        self, client: "AsyncClient", owner: type
    ) -> Callable[P, Coroutine[Any, Any, A]]: ...
    def __get__(self, client: "Client | AsyncClient | None", owner: type) -> Any:
        return self if client is None else partial(self._prepare_and_send, client)

    def _prepare_and_send(
        self, client: "Client | AsyncClient", *args: P.args, **kwargs: P.kwargs
    ) -> Any:
        return client.send(self._prepare(client, *args, **kwargs))


class Calls:
    """The calls of a client.

    Attributes:
        retried: how many attempts were made after a first one.
    """

    def __init__(self, policy: str, retries: int, space: str | None = None) -> None:
        """Call a policy.

        Args:
            policy: its name.
            retries: how often a call is repeated that got no answer, or one that may change.
            space: the name of what it shares with others; None: it has that to itself.
        """
        self._policy = policy
        self._space = policy if space is None else space
        self._retries = retries
        self.retried = 0

    def _exchange(self, endpoint: Endpoint[Q, A], request: Q, **parameters: str) -> Exchange[A]:
        url = endpoint.url(**{"policy": self._policy, "space": self._space, **parameters})
        body = b"" if request is None else encode(request)
        return Exchange(endpoint.method, url, body, endpoint.decode)

    def _pauses(self) -> Iterator[float | None]:
        """How long to wait after each attempt that failed; None after the last one."""
        for attempt in range(self._retries):
            yield backoff_s(attempt)
            self.retried += 1
        yield None


def backoff_s(attempt: int) -> float:
    """Return how long to wait after an attempt: doubled each time, less by chance up to half of it.

    So clients that were turned away together do not come back together.
    """
    return min(LONGEST_S, BACKOFF_S * 2.0**attempt) * random.uniform(0.5, 1.0)


def fresh_id() -> str:
    """Return an id that nobody else makes."""
    return uuid.uuid4().hex


def nothing(_answer: Any) -> None:
    """Return nothing: the answer says no more than that it came."""
    return
