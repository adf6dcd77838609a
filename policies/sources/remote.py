"""A source behind HTTP: anything that answers ``POST {history, exclude, limit}`` with scored candidates.

request   {"user_id"?: str, "history": [id], "exclude": [id], "limit": int}
answer    {"candidates": [{"id": str, "score": number}]}
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import httpx
import msgspec
import numpy as np

from bandits.codec import MALFORMED
from bandits.errors import SourceError, SpecError
from bandits.types import frozen
from policies.artifact import Histories
from policies.sources.base import Candidates, SourceRequest
from policies.spec import RemoteSource

MAX_ANSWER_BYTES: Final = 1 << 20
BACKOFF_S: Final = 0.01
_SERVER_ERROR: Final = 500


class _Candidate(msgspec.Struct):
    id: str
    score: float


class _Answer(msgspec.Struct):
    candidates: list[_Candidate]


class _Again(Exception):  # noqa: N818 - a signal, not an error
    """Worth another try: the request cannot have done anything."""


class HttpSource:
    """Asks a URL for candidates, and believes nothing of the answer that it has not checked.

    Its scores are used as they are: a remote that wants to be a good feature keeps them on one scale, about 1 wide.
    It belongs to the first event loop that asks it.

    Raises:
        SpecError: the URL is not an absolute http or https one.
    """

    def __init__(self, config: RemoteSource, histories: Histories | None = None) -> None:
        try:
            url = httpx.URL(config.url)
        except httpx.InvalidURL as error:
            raise SpecError(f"source {config.name!r}: url: {error}", f"sources.{config.name}.url") from error
        if url.scheme not in {"http", "https"} or not url.host:
            raise SpecError(
                f"source {config.name!r}: url must be absolute, http or https, not {config.url!r}",
                f"sources.{config.name}.url",
            )
        self.name = config.name
        self._config = config
        self._histories = histories
        # The spec names the URL; a proxy or credentials from the environment would make it another one.
        self._client = httpx.AsyncClient(timeout=config.timeout_ms / 1000, trust_env=False, follow_redirects=False)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def candidates(self, request: SourceRequest, limit: int) -> Candidates:
        """Up to ``limit`` candidates, best first; what is excluded or in the history is dropped if it is proposed.

        Raises:
            SourceError: no valid answer in time. The caller decides without this source.
        """
        body: dict[str, Any] = {
            "history": list(request.history),
            "exclude": sorted(request.exclude),
            "limit": limit,
        }
        if self._config.send_user_id and request.user_id is not None:
            body["user_id"] = request.user_id
        try:
            async with asyncio.timeout(self._config.timeout_ms / 1000):
                answer = await self._ask(msgspec.json.encode(body))
        except TimeoutError as error:
            raise self._error(f"no answer within {self._config.timeout_ms} ms") from error
        return self._rank(self._check(answer, limit), request)

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
            async with self._client.stream("POST", self._config.url, content=body, headers=headers) as response:
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
        except httpx.ConnectError as error:
            raise _Again(f"cannot connect: {error}") from error
        except httpx.HTTPError as error:
            raise self._error(f"{type(error).__name__}: {error}") from error

    def _check(self, raw: bytes, limit: int) -> dict[str, float]:
        try:
            answer = msgspec.json.decode(raw, type=_Answer)
        except MALFORMED as error:
            raise self._error(f"the answer is not valid: {error}") from error
        scores = {candidate.id: candidate.score for candidate in answer.candidates}
        if len(scores) != len(answer.candidates):
            raise self._error("the answer names an item twice")
        if len(scores) > limit:
            raise self._error(f"the answer has {len(scores)} candidates, more than the {limit} asked for")
        return scores

    def _rank(self, scores: Mapping[str, float], request: SourceRequest) -> Candidates:
        barred = request.exclude.union(request.history, self._known(request.user_id))
        kept = [item for item in scores if item not in barred]
        with np.errstate(over="ignore"):
            values = np.array([scores[item] for item in kept], np.float64).astype(np.float32)
        if not np.isfinite(values).all():
            raise self._error("the answer has a score that is not a finite float32")
        order = np.argsort(-values, kind="stable")
        return Candidates(tuple(kept[i] for i in order), frozen(values[order]))

    def _known(self, user_id: str | None) -> tuple[str, ...]:
        user = None if self._histories is None or user_id is None else self._histories.user_index.get(user_id)
        if self._histories is None or user is None:
            return ()
        return tuple(self._histories.items[i] for i in self._histories.row(user)[0])

    def _error(self, reason: str) -> SourceError:
        return SourceError(f"source {self.name!r}: {reason}", f"sources.{self.name}")
