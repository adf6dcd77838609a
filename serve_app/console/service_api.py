"""The public HTTP API of the service, as the console asks it, with the key of whoever looks."""

from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from banditloop_client.errors import ServiceError
from banditloop_client.schemas import Endpoint, ErrorResponse
from serve_app.console.located import Located

PATIENCE_S = 120.0
"""A report of a long log takes its time."""

encode = msgspec.json.Encoder().encode
_error = msgspec.json.Decoder(ErrorResponse)


class ServiceApi:
    """One connection pool to the service, for all who look."""

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._http = httpx.AsyncClient(
            base_url=url, timeout=PATIENCE_S, transport=transport, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def ask(
        self,
        endpoint: Endpoint[Any, Any],
        key: str | None,
        query: msgspec.Struct | None = None,
        body: bytes | None = None,
        **parameters: str,
    ) -> Located:
        """Send a request, and return what is answered.

        Args:
            endpoint: of the API.
            key: whose rights it has; None: nobody's.
            query: what is asked behind the path.
            body: JSON.
            parameters: of the path, by name.

        Raises:
            ServiceError: the service refused, or could not be reached.
        """
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ServiceError(401, "unauthorized", "no API key has such characters")
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        if body is not None:
            headers["content-type"] = "application/json"
        url = endpoint.url(query, **parameters)
        try:
            answer = await self._http.request(endpoint.method, url, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise ServiceError(
                0, "unreachable", f"the service does not answer ({type(error).__name__})"
            ) from error

        if answer.status_code >= httpx.codes.BAD_REQUEST:
            raise _refusal(answer)
        return Located(msgspec.json.decode(answer.content))


def _refusal(answer: httpx.Response) -> ServiceError:
    try:
        said = _error.decode(answer.content).error
    except msgspec.DecodeError:
        return ServiceError(answer.status_code, "unexpected", f"status {answer.status_code}")
    return ServiceError(answer.status_code, said.code, said.message, said.target)
