"""A source behind HTTP: it answers ``POST {history, exclude, limit}`` with scored candidates.

request   {"user_id"?: str, "context"?: {…}, "history": [id], "exclude": [id], "limit": int}
answer    {"candidates": [{"id": str, "score": number}]}
"""

import asyncio
import copy
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final, Self

import httpx
import msgspec
import numpy as np

from bandits.errors import SourceError, SpecError
from bandits.log.codec import MALFORMED
from bandits.types import frozen
from policies.artifacts.histories import Profile
from policies.items.offering import Offering
from policies.sources.base import Candidates, SourceRequest
from policies.spec import RemoteSource

MAX_ANSWER_BYTES: Final = 1 << 20
BACKOFF_S: Final = 0.01
ROUNDS: Final = 6
"""Times a source is asked for one decision, while it proposes what may not be offered."""
REMEMBERED: Final = 1000
"""Items that may not be offered which a source is told not to propose."""
_SERVER_ERROR: Final = 500
SENT_ALONG: Final[ContextVar[Mapping[str, str]]] = ContextVar(
    "sent_along", default=MappingProxyType({})
)
"""Headers that go with whatever is asked now, such as those of a trace."""


class _Candidate(msgspec.Struct):
    id: str
    score: float


class _Answer(msgspec.Struct):
    candidates: list[_Candidate]


class _Again(Exception):  # noqa: N818 - a signal, not an error
    """Worth another try: the request cannot have done anything."""


class HttpSource:
    """Asks a URL for candidates, and checks all of the answer.

    Its scores are used as they are: a remote that wants to be a good feature keeps them on one
    scale, about 1 wide. A source belongs to the first event loop that asks it.

    Args:
        config: what the spec says of it.
        items: those that profiles name, in their order.

    Raises:
        SpecError: the URL is not an absolute http or https one.
    """

    def __init__(self, config: RemoteSource, items: tuple[str, ...] = ()) -> None:
        try:
            url = httpx.URL(config.url)
        except httpx.InvalidURL as error:
            raise SpecError(
                f"source {config.name!r}: url: {error}", f"sources.{config.name}.url"
            ) from error
        if url.scheme not in {"http", "https"} or not url.host:
            raise SpecError(
                f"source {config.name!r}: url must be absolute, http or https, not {config.url!r}",
                f"sources.{config.name}.url",
            )

        self.name = config.name
        self._config = config
        self._items = items
        self._offering: Offering | None = None
        self._lacking = set[str]()
        # The spec names the URL. A proxy or credentials from the environment would make it another.
        self._client = httpx.AsyncClient(
            timeout=config.timeout_ms / 1000, trust_env=False, follow_redirects=False
        )

    def over(self, offering: Offering) -> Self:
        """Return the source over what may be offered.

        What may not be is dropped from an answer, and more are asked for instead. It is remembered,
        so that the next time one question is enough, which excludes it.
        """
        source = copy.copy(self)
        source._offering, source._lacking = offering, set()  # noqa: SLF001 - its own class
        return source

    def update(self, changed: Collection[str]) -> None:
        """Take in what has changed: it may propose again what is offered again."""
        if self._lacking and self._offering is not None:
            self._lacking.difference_update([each for each in changed if each in self._offering])

    @property
    def known(self) -> None:
        """Only the other side knows its items."""

    def naming(self, items: tuple[str, ...]) -> Self:
        """Return the same source, told of profiles that name these items; connections are shared.

        Args:
            items: those that profiles name, in their order.
        """
        other = copy.copy(self)
        other._items = items  # noqa: SLF001 - its own class
        return other

    async def aclose(self) -> None:
        """Close its connections, also those of whatever it was copied to."""
        await self._client.aclose()

    async def candidates(self, request: SourceRequest, limit: int) -> Candidates:
        """Ask for candidates, and return those that may be chosen, best first.

        What the request bars is dropped if it is proposed. The first ``limit`` of a longer answer
        are taken, and the answer is marked.

        Args:
            request: what is sent; its user_id and context only if the source is configured to.
            limit: how many at most; the remote is asked for more where some may not be offered.

        Raises:
            SourceError: no valid answer in time. The caller decides without this source.
        """
        barred = request.barred((*_told(request), *self._known(request.profile)))
        found: dict[str, float] = {}
        try:
            async with asyncio.timeout(self._config.timeout_ms / 1000):
                trouble = await self._fill(found, request, barred, limit)

        # What was found before the time was up is used.
        except (TimeoutError, SourceError) as error:
            late = f"no answer within {self._config.timeout_ms} ms"
            trouble = error.message if isinstance(error, SourceError) else self._named(late)
            if not found:
                raise SourceError(trouble, f"sources.{self.name}") from error
            trouble = f"{trouble}, when asked for more than {len(found)} that may be offered"
        return self._rank(found, limit, trouble)

    async def _fill(
        self, found: dict[str, float], request: SourceRequest, barred: frozenset[str], limit: int
    ) -> str:
        """Ask until ``limit`` are found, or nothing new is proposed.

        Returns what was wrong with the answers; "" if nothing was.
        """
        offering, lacking, trouble = self._offering, self._lacking, ""
        for number in range(ROUNDS):
            # More are asked for each time, since a remote may not heed what it is told to exclude.
            asked = (limit + len(lacking)) << number
            scores = self._check(await self._ask(self._body(request, asked)))
            if len(scores) > asked:
                trouble = self._named(
                    f"the answer has {len(scores)} candidates, more than the {asked} asked for"
                )

            kept = [
                item
                for item in scores
                if item not in barred and (offering is None or item in offering)
            ]
            found.update((item, scores[item]) for item in kept[:asked])

            # What may not be offered is excluded the next time.
            new = [
                item
                for item in scores
                if offering is not None and item not in offering and item not in lacking
            ]
            lacking.update(new[: REMEMBERED - len(lacking)])
            if not new or len(found) >= limit or len(scores) < limit or len(lacking) == REMEMBERED:
                break
        return trouble

    def _body(self, request: SourceRequest, limit: int) -> bytes:
        body: dict[str, Any] = {
            "history": _told(request),
            "exclude": sorted(request.exclude.union(self._lacking)),
            "limit": limit,
        }
        if self._config.send_user_id and request.user_id is not None:
            body["user_id"] = request.user_id
        if self._config.send_context:
            body["context"] = request.context
        return msgspec.json.encode(body)

    async def _ask(self, body: bytes) -> bytes:
        for attempt in range(self._config.retries + 1):
            if attempt:
                await asyncio.sleep(BACKOFF_S * 2 ** (attempt - 1))
            try:
                return await self._post(body)
            except _Again as again:
                reason = str(again)
        raise self._error(reason)

    async def _post(self, body: bytes) -> bytes:
        try:
            # Not compressed: what is counted below is what is held in memory.
            headers = {"content-type": "application/json", "accept-encoding": "identity"}
            headers |= SENT_ALONG.get()
            async with self._client.stream(
                "POST", self._config.url, content=body, headers=headers
            ) as response:
                if response.status_code >= _SERVER_ERROR:
                    raise _Again(f"status {response.status_code}")
                if response.status_code != httpx.codes.OK:
                    raise self._error(f"status {response.status_code}")

                answer = bytearray()
                async for part in response.aiter_raw():
                    answer += part
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise self._error(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
                return bytes(answer)

        # Nothing reached the other side: it may be asked again.
        except httpx.ConnectError as error:
            raise _Again(f"cannot connect: {error}") from error
        except httpx.HTTPError as error:
            raise self._error(f"{type(error).__name__}: {error}") from error

    def _check(self, raw: bytes) -> dict[str, float]:
        try:
            answer = msgspec.json.decode(raw, type=_Answer)
        except MALFORMED as error:
            raise self._error(f"the answer is not valid: {error}") from error
        scores = {candidate.id: candidate.score for candidate in answer.candidates}
        if len(scores) != len(answer.candidates):
            raise self._error("the answer names an item twice")
        return scores

    def _rank(self, scores: Mapping[str, float], limit: int, trouble: str) -> Candidates:
        ids = tuple(scores)
        with np.errstate(over="ignore"):
            values = np.array([scores[item] for item in ids], np.float64).astype(np.float32)
        if not np.isfinite(values).all():
            raise self._error("the answer has a score that is not a finite float32")
        order = np.argsort(-values, kind="stable")[:limit]
        return Candidates(tuple(ids[i] for i in order), frozen(values[order]), trouble=trouble)

    def _known(self, profile: Profile | None) -> tuple[str, ...]:
        if profile is None:
            return ()
        return tuple(map(self._items.__getitem__, profile.indices.tolist()))

    def _named(self, reason: str) -> str:
        return f"source {self.name!r}: {reason}"

    def _error(self, reason: str) -> SourceError:
        return SourceError(self._named(reason), f"sources.{self.name}")


def _told(request: SourceRequest) -> list[str]:
    """Return the history that a remote is told, the newest last: the log's, and what was sent."""
    if request.live is None:
        return list(request.history)
    return list(dict.fromkeys((*request.live.weights, *request.history)))
