"""Errors as Personalizer's clients read them: statuses, codes and bodies of the protocol.

Both clients show a code and a message only where the body is ``{"error": {"code", "message"}}``,
and one of them repeats whatever comes with the header Retry-After.
"""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec

from bandits import errors
from bandits.errors import BanditloopError
from serve_app.api.api_keys import error_headers
from serve_app.api.statuses import status_of
from serve_app.api.wire import encode
from serve_app.personalizer.naming import their_name


class RefusedCall(Exception):  # noqa: N818 - it is raised for every answer that is no success
    """A call that the protocol answers with an error of its own.

    Attributes:
        status: of HTTP.
        code: the protocol's name of what is wrong.
        message: what is wrong, and what to do.
        target: the field at fault.
        headers: those of the answer. Retry-After is among them only where a key's rate is used up:
            a client would send again, three times, whatever else was wrong.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        target: str | None = None,
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.target = status, code, message, target
        self.headers = [(b"x-ms-error-code", code.encode()), *(headers or [])]


class CallError(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went wrong, under the protocol's code."""

    code: str
    message: str
    target: str | None = None


class CallErrorBody(msgspec.Struct, frozen=True):
    """The body of every error."""

    error: CallError


CODES: Mapping[type[BanditloopError], tuple[int, str]] = {
    errors.UnauthorizedError: (HTTPStatus.UNAUTHORIZED, "401"),
    errors.ForbiddenError: (HTTPStatus.FORBIDDEN, "InvalidApiAccess"),
    errors.RateLimitedError: (HTTPStatus.TOO_MANY_REQUESTS, "429"),
    errors.NotFoundError: (HTTPStatus.NOT_FOUND, "ResourceNotFound"),
    errors.UnknownPolicyError: (HTTPStatus.NOT_FOUND, "ResourceNotFound"),
    errors.MethodNotAllowedError: (HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    errors.BodyTooLargeError: (HTTPStatus.BAD_REQUEST, "PayloadSizeExceeded"),
    errors.BodyTimeoutError: (HTTPStatus.REQUEST_TIMEOUT, "RequestTimeout"),
    errors.NotReadyError: (HTTPStatus.SERVICE_UNAVAILABLE, "OperationNotAllowed"),
    errors.LogUnavailableError: (HTTPStatus.SERVICE_UNAVAILABLE, "OperationNotAllowed"),
}
"""By error, its status and code; of any other the status says which code."""


def refused(error: BanditloopError, code: str) -> RefusedCall:
    """Return an error as the protocol has it.

    Args:
        error: what was raised on purpose.
        code: the operation's own, of what is wrong with its request.
    """
    target = their_name(error.target)
    known = next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), None)
    if known is not None:
        return RefusedCall(*known, error.message, target, error_headers(error))

    # Where our API tells kinds of wrong requests apart by their status, this one has 400 only.
    if status_of(error) < HTTPStatus.INTERNAL_SERVER_ERROR:
        return RefusedCall(HTTPStatus.BAD_REQUEST, code, error.message, target)
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return RefusedCall(status, "InternalServerError", error.message, target)


def refusal_bytes(refusal: RefusedCall) -> bytes:
    """Return the body that tells of an error."""
    return encode(CallErrorBody(CallError(refusal.code, refusal.message, refusal.target)))
