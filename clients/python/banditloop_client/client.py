"""A typed client: what can be asked is written once, and sent by a Client or an AsyncClient.

It makes event_id and reward_id before its first attempt, so every retry is safe.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from banditloop_client import schemas
from banditloop_client.errors import ServiceError
from banditloop_client.exchange import Calls, Exchange, encode, fresh_id, nothing, sent
from banditloop_client.schemas import (
    A,
    ActionRequest,
    Endpoint,
    ErrorBody,
    ErrorResponse,
    Item,
    PolicyInfo,
    Q,
    RankBatch,
    RankRequest,
    RankResponse,
    RewardEvent,
    RewardRequest,
    RewardsRequest,
)
from banditloop_client.space_calls import SpaceCalls

RETRY_STATUS = frozenset({429, 502, 503, 504})
JSON = {"content-type": "application/json"}


class PolicyCalls(Calls):
    """The calls to one policy."""

    @sent
    def rank(
        self, /, actions: Sequence[ActionRequest | str] | None = None, **fields: Any
    ) -> Exchange[RankResponse]:
        """Make one decision, or a slate: ``slots=3`` chooses three.

        Args:
            actions: what to choose from; None leaves it to the policy's sources.
            fields: those of RankRequest. An event_id is made when none is given.
        """
        return self._exchange(schemas.RANK, rank_request(actions, fields))

    @sent
    def batch(self, requests: Sequence[RankRequest]) -> Exchange[list[RankResponse | ErrorBody]]:
        """Make up to 1,000 decisions; each has its own result or error, in order.

        A request without an event_id is sent with one.
        """
        named = [
            request
            if request.event_id is not None
            else msgspec.structs.replace(request, event_id=fresh_id())
            for request in requests
        ]
        return self._exchange(schemas.RANK_BATCH, RankBatch(named)).then(
            lambda answer: [_result(item) for item in answer.results]
        )

    @sent
    def activate(self, event_id: str) -> Exchange[None]:
        """Say that a decision ranked with ``defer_activation`` was shown."""
        return self._exchange(schemas.ACTIVATE, None, event_id=event_id).then(nothing)

    @sent
    def reward(self, /, event_id: str, value: float, **fields: Any) -> Exchange[None]:
        """Reward a decision.

        Args:
            event_id: that of the decision.
            value: higher is better.
            fields: those of RewardRequest. A reward_id is made when none is given.
        """
        request = reward_request(value, fields)
        return self._exchange(schemas.REWARD, request, event_id=event_id).then(nothing)

    @sent
    def rewards(self, rewards: Sequence[RewardEvent]) -> Exchange[None]:
        """Send many rewards at once; give each a reward_id, so that a retry is safe."""
        request = RewardsRequest(list(rewards))
        return self._exchange(schemas.REWARDS, request).then(nothing)

    @sent
    def replace_catalogue(self, items: Sequence[Item]) -> Exchange[schemas.CatalogueResponse]:
        """Replace the whole item catalogue; the answer has its digest."""
        return self._exchange(schemas.CATALOGUE, schemas.CatalogueRequest(list(items)))

    @sent
    def put_items(self, items: Sequence[Item]) -> Exchange[schemas.ItemsVersion]:
        """Put up to 10,000 items, each in the place of what has its id: all of them, or none."""
        return self._exchange(schemas.PUT_ITEMS, schemas.ItemsRequest(list(items)))

    @sent
    def put_item(self, /, item_id: str, **fields: Any) -> Exchange[schemas.ItemsVersion]:
        """Put an item, in the place of what has its id.

        Args:
            item_id: the item's.
            fields: those of Item.
        """
        request = schemas.ItemRequest(**fields)
        return self._exchange(schemas.PUT_ITEM, request, item_id=item_id)

    @sent
    def patch_item(self, /, item_id: str, **fields: Any) -> Exchange[schemas.ItemsVersion]:
        """Change some fields of an item: ``features={"price": 3}`` leaves the others as they are.

        Args:
            item_id: the item's.
            fields: those of ItemPatch; None takes a field, or a name in it, away.
        """
        request = schemas.ItemPatch(**fields)
        return self._exchange(schemas.PATCH_ITEM, request, item_id=item_id)

    @sent
    def delete_item(self, item_id: str) -> Exchange[schemas.ItemsVersion]:
        """Remove an item: it is not chosen again."""
        return self._exchange(schemas.DELETE_ITEM, None, item_id=item_id)

    @sent
    def item(self, item_id: str) -> Exchange[Item]:
        """Return an item as it is now."""
        return self._exchange(schemas.ITEM, None, item_id=item_id).then(lambda answer: answer.item)

    @sent
    def items(self, /, **query: Any) -> Exchange[schemas.ItemsPage]:
        """Return a page of the items, in the order of their ids; ``query``: of ItemsQuery."""
        url = schemas.ITEMS.url(schemas.ItemsQuery(**query), policy=self._policy)
        return Exchange(schemas.ITEMS.method, url, b"", schemas.ITEMS.decode)

    @sent
    def similar(self, /, item_id: str, **query: Any) -> Exchange[schemas.SimilarResponse]:
        """Return the items like one that may be offered, the most alike first.

        Args:
            item_id: the one.
            query: fields of SimilarQuery, as ``source="als"``, ``limit=5``.
        """
        asked = schemas.SimilarQuery(**query)
        url = schemas.SIMILAR.url(asked, policy=self._policy, item_id=item_id)
        return Exchange(schemas.SIMILAR.method, url, b"", schemas.SIMILAR.decode)

    @sent
    def status(self) -> Exchange[PolicyInfo]:
        """Return the policy as the service has it: its spec, snapshot and counts."""
        return self._exchange(schemas.POLICY, None)

    @sent
    def policies(self) -> Exchange[list[str]]:
        """Return the names of all policies of the service."""
        return self._exchange(schemas.POLICIES, None).then(lambda answer: answer.policies)

    @sent
    def call(self, /, endpoint: Endpoint[Q, A], request: Q, **parameters: str) -> Exchange[A]:
        """Ask at any endpoint, also one that has no method here.

        Args:
            endpoint: one of ``banditloop_client.schemas``.
            request: the body; None where there is none.
            parameters: of the path; ``policy`` is this client's unless it is given.
        """
        return self._exchange(endpoint, request, **parameters)


class Client(PolicyCalls, SpaceCalls):
    """Synchronous client of one policy and its space, a context manager."""

    def __init__(
        self,
        url: str,
        policy: str = "home",
        *,
        space: str | None = None,
        api_key: str | None = None,
        retries: int = 3,
        timeout_s: float = 5.0,
    ) -> None:
        super().__init__(policy, retries, space)
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

    def send(self, exchange: Exchange[A]) -> A:
        """Send until there is an answer that a retry would not change.

        Raises:
            ServiceError: the service refused, or could not be reached.
        """
        for pause in self._pauses():
            try:
                response = self._http.request(
                    exchange.method, exchange.url, content=exchange.body, headers=JSON
                )
            except httpx.TransportError as error:
                if pause is None:
                    raise unreachable(error) from error
            else:
                if pause is None or response.status_code not in RETRY_STATUS:
                    return read_answer(response, exchange.read)
            time.sleep(pause)
        raise AssertionError("unreachable")


class AsyncClient(PolicyCalls, SpaceCalls):
    """Asynchronous client of one policy and its space, a context manager."""

    def __init__(
        self,
        url: str,
        policy: str = "home",
        *,
        space: str | None = None,
        api_key: str | None = None,
        retries: int = 3,
        timeout_s: float = 5.0,
        connections: int = 64,
    ) -> None:
        super().__init__(policy, retries, space)
        self._timeout_s = timeout_s

        # Whoever waits for a connection waits here: httpx's own queue, once it has been full, can
        # stay full for good.
        self._free = asyncio.Semaphore(connections)
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=connections),
            headers=key_header(api_key),
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

    async def send(self, exchange: Exchange[A]) -> A:
        """Send until there is an answer that a retry would not change.

        Raises:
            ServiceError: the service refused, or could not be reached.
        """
        for pause in self._pauses():
            try:
                response = await self._once(exchange)
            except httpx.TransportError as error:
                if pause is None:
                    raise unreachable(error) from error
            else:
                if pause is None or response.status_code not in RETRY_STATUS:
                    return read_answer(response, exchange.read)
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _once(self, exchange: Exchange[Any]) -> httpx.Response:
        try:
            await asyncio.wait_for(self._free.acquire(), self._timeout_s)
        except TimeoutError as error:
            raise httpx.PoolTimeout("every connection is busy") from error

        try:
            return await self._http.request(
                exchange.method, exchange.url, content=exchange.body, headers=JSON
            )
        finally:
            self._free.release()


def rank_request(
    actions: Sequence[ActionRequest | str] | None, fields: Mapping[str, Any]
) -> RankRequest:
    """Return a rank request that has an event_id.

    Args:
        actions: explicit ones, an id for one without features; None leaves it to the sources.
        fields: the others of RankRequest.
    """
    explicit = None
    if actions is not None:
        explicit = [ActionRequest(a) if isinstance(a, str) else a for a in actions]
    return RankRequest(actions=explicit, **{"event_id": fresh_id(), **fields})


def rank_body(actions: Sequence[ActionRequest | str] | None, fields: Mapping[str, Any]) -> bytes:
    """Return the body, as JSON, of a rank request that has an event_id.

    Args:
        actions: explicit ones, an id for one without features; None leaves it to the sources.
        fields: the others of RankRequest; an event_id among them is kept.
    """
    return encode(rank_request(actions, fields))


def reward_request(value: float, fields: Mapping[str, Any]) -> RewardRequest:
    """Return a reward that has a reward_id.

    Args:
        value: how good the outcome was; higher is better.
        fields: the others of RewardRequest; a reward_id among them is kept.
    """
    return RewardRequest(value, **{"reward_id": fresh_id(), **fields})


def key_header(api_key: str | None) -> dict[str, str]:
    """Return the header that an API key is sent in."""
    return {} if api_key is None else {"authorization": f"Bearer {api_key}"}


def read_answer(response: httpx.Response, read: Callable[[bytes], A]) -> A:
    """Return what the service answered.

    Args:
        response: of any status.
        read: decodes the body of a success.

    Raises:
        ServiceError: a failure, with the service's own code, message and target.
    """
    if response.is_success:
        return read(response.content)

    status = response.status_code
    try:
        error = msgspec.json.decode(response.content, type=ErrorResponse).error
    except msgspec.MsgspecError:
        # Not the service's own words: a proxy stands in between.
        raise ServiceError(status, "http_error", f"HTTP {status}") from None
    raise ServiceError(status, error.code, error.message, error.target)


def unreachable(error: httpx.TransportError) -> ServiceError:
    """Return the error that says that no answer came."""
    return ServiceError(0, "unreachable", f"no answer from the service: {type(error).__name__}")


def is_ready(url: str) -> bool:
    """Whether the service answers, and every policy has a snapshot loaded."""
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def wait_until_ready(url: str, *, timeout_s: float) -> None:
    """Wait until every policy has a snapshot loaded.

    Args:
        url: of the service.
        timeout_s: how long to wait.

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


def _result(item: Mapping[str, Any]) -> RankResponse | ErrorBody:
    """Return one result of a batch."""
    if "error" in item:
        return msgspec.convert(item, ErrorResponse).error
    return msgspec.convert(item, RankResponse)
