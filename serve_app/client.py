"""A typed client.

It makes event_id and reward_id before its first attempt, so every retry is safe.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from bandits.errors import BanditloopError
from policies.requests import ActionRequest, RankRequest
from serve_app.api.schemas import (
    Accepted,
    ErrorResponse,
    RankResponse,
    RewardEvent,
    RewardRequest,
    RewardsRequest,
)

T = TypeVar("T")
RETRY_STATUS = frozenset({429, 502, 503, 504})
BACKOFF_S, LONGEST_S = 0.05, 1.0
JSON = {"content-type": "application/json"}


class ServiceError(BanditloopError):
    """The service refused, or could not be reached. ``status`` is 0 when no answer came."""

    code = "service_error"

    def __init__(self, status: int, code: str, message: str, target: str | None = None) -> None:
        super().__init__(message, target)
        self.status = status
        self.service_code = code


class Client:
    """Synchronous client of one policy. Use as a context manager.

    ``retried`` counts attempts after the first.
    """

    def __init__(
        self,
        url: str,
        policy: str = "home",
        *,
        api_key: str | None = None,
        retries: int = 3,
        timeout_s: float = 5.0,
    ) -> None:
        self._policy = policy
        self._retries = retries
        self.retried = 0
        self._http = httpx.Client(base_url=url, timeout=timeout_s, headers=key_header(api_key))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._http.close()

    def rank(
        self, actions: Sequence[ActionRequest | str] | None = None, **fields: Any
    ) -> RankResponse:
        """One decision; ``fields`` are those of RankRequest.

        An event_id is made when none is given.
        """
        return self._post("rank", rank_body(actions, fields), RankResponse)

    def reward(self, event_id: str, value: float, **fields: Any) -> None:
        """Reward a decision; ``fields`` are those of RewardRequest."""
        self._post(
            f"events/{quote(event_id, safe='')}/reward", reward_body(value, fields), Accepted
        )

    def rewards(self, rewards: Sequence[RewardEvent]) -> None:
        """Many rewards at once; give each a reward_id, so that a retry is safe."""
        self._post("rewards", msgspec.json.encode(RewardsRequest(list(rewards))), Accepted)

    def activate(self, event_id: str) -> None:
        """Activate a deferred decision."""
        self._post(f"events/{quote(event_id, safe='')}/activate", b"", Accepted)

    def _post(self, path: str, body: bytes, kind: type[T]) -> T:
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                response = self._http.post(
                    f"/v1/policies/{self._policy}/{path}", content=body, headers=JSON
                )
            except httpx.TransportError as error:
                if last:
                    raise unreachable(error) from error
            else:
                if last or response.status_code not in RETRY_STATUS:
                    return read(response, kind)
            self.retried += 1
            time.sleep(backoff_s(attempt))
        raise AssertionError("unreachable")


class AsyncClient:
    """Asynchronous client of one policy, a context manager.

    ``retried`` counts attempts after the first.
    """

    def __init__(
        self,
        url: str,
        policy: str = "home",
        *,
        api_key: str | None = None,
        retries: int = 3,
        timeout_s: float = 5.0,
        connections: int = 64,
    ) -> None:
        self._policy = policy
        self._retries = retries
        self.retried = 0
        self._timeout_s = timeout_s
        # Whoever waits for a connection waits here: httpx's own queue, once it has been full, can
        # stay full for good.
        self._free = asyncio.Semaphore(connections)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=connections)
        headers = key_header(api_key)
        self._http = httpx.AsyncClient(
            base_url=url, timeout=timeout_s, limits=limits, headers=headers
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def rank(
        self, actions: Sequence[ActionRequest | str] | None = None, **fields: Any
    ) -> RankResponse:
        """One decision; ``fields`` are those of RankRequest.

        An event_id is made when none is given.
        """
        return await self._post("rank", rank_body(actions, fields), RankResponse)

    async def reward(self, event_id: str, value: float, **fields: Any) -> None:
        """Reward a decision; ``fields`` are those of RewardRequest."""
        await self._post(
            f"events/{quote(event_id, safe='')}/reward", reward_body(value, fields), Accepted
        )

    async def rewards(self, rewards: Sequence[RewardEvent]) -> None:
        """Many rewards at once; give each a reward_id, so that a retry is safe."""
        await self._post("rewards", msgspec.json.encode(RewardsRequest(list(rewards))), Accepted)

    async def activate(self, event_id: str) -> None:
        """Activate a deferred decision."""
        await self._post(f"events/{quote(event_id, safe='')}/activate", b"", Accepted)

    async def _post(self, path: str, body: bytes, kind: type[T]) -> T:
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                response = await self._once(path, body)
            except httpx.TransportError as error:
                if last:
                    raise unreachable(error) from error
            else:
                if last or response.status_code not in RETRY_STATUS:
                    return read(response, kind)
            self.retried += 1
            await asyncio.sleep(backoff_s(attempt))
        raise AssertionError("unreachable")

    async def _once(self, path: str, body: bytes) -> httpx.Response:
        try:
            await asyncio.wait_for(self._free.acquire(), self._timeout_s)
        except TimeoutError as error:
            raise httpx.PoolTimeout("every connection is busy") from error
        try:
            return await self._http.post(
                f"/v1/policies/{self._policy}/{path}", content=body, headers=JSON
            )
        finally:
            self._free.release()


def rank_body(actions: Sequence[ActionRequest | str] | None, fields: Mapping[str, Any]) -> bytes:
    """The body of a rank request, with an event_id."""
    explicit = (
        None
        if actions is None
        else [ActionRequest(a) if isinstance(a, str) else a for a in actions]
    )
    return _encoder.encode(
        RankRequest(actions=explicit, **{"event_id": uuid.uuid4().hex, **fields})
    )


def reward_body(value: float, fields: Mapping[str, Any]) -> bytes:
    """The body of a reward, with a reward_id."""
    return _encoder.encode(RewardRequest(value, **{"reward_id": uuid.uuid4().hex, **fields}))


def key_header(api_key: str | None) -> dict[str, str]:
    """What an API key is sent in."""
    return {} if api_key is None else {"authorization": f"Bearer {api_key}"}


def read(response: httpx.Response, kind: type[T]) -> T:
    """The answer, or the service's error.

    Raises:
        ServiceError: with the service's own code, message and target.
    """
    if response.is_success:
        return msgspec.json.decode(response.content, type=kind)
    try:
        error = msgspec.json.decode(response.content, type=ErrorResponse).error
    except msgspec.MsgspecError:
        raise ServiceError(
            response.status_code, "http_error", f"HTTP {response.status_code}"
        ) from None
    raise ServiceError(response.status_code, error.code, error.message, error.target)


def unreachable(error: httpx.TransportError) -> ServiceError:
    """The service did not answer."""
    return ServiceError(0, "unreachable", f"no answer from the service: {type(error).__name__}")


def is_ready(url: str) -> bool:
    """Whether the service answers, and every policy has a snapshot loaded."""
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def without_model(url: str) -> list[str]:
    """Of a service that is not ready: why each policy that has no snapshot waits, if learning stands still for all."""
    try:
        answer = httpx.get(f"{url}/readyz", timeout=2).json()
        where = {
            each["policy"]: f"the {each['kind']} at {each['entry']}" for each in answer["stalled"]
        }
        waiting: list[str] = answer["waiting_for"]
    except (httpx.TransportError, ValueError, KeyError, TypeError):
        return []
    if not set(waiting) <= set(where):
        return []
    return [
        f"policy {name} has no model, and its learning stands still at {where[name]}"
        for name in waiting
    ]


def wait_until_ready(url: str, *, timeout_s: float) -> None:
    """Wait until every policy has a snapshot loaded.

    Raises:
        ServiceError: not within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if is_ready(url):
            return
        time.sleep(0.1)
    raise ServiceError(
        503,
        "not_ready",
        f"{url} is not ready after {timeout_s:.0f} s: see /tmp/ray/session_latest/logs",
    )


_encoder = msgspec.json.Encoder()


def backoff_s(attempt: int) -> float:
    """How long to wait after an attempt: doubled each time, and by chance up to half of it less.

    So clients that were turned away together do not come back together.
    """
    return min(LONGEST_S, BACKOFF_S * 2.0**attempt) * random.uniform(0.5, 1.0)
