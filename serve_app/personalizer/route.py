"""A route of Personalizer's protocol."""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from banditloop_client.schemas import A, Q
from bandits.errors import InvalidInputError
from serve_app.api.bodies import decode_body
from serve_app.api.routes import Route
from serve_app.api.wire import Answer
from serve_app.personalizer.naming import named

_IGNORED_NAME = re.compile(rb'_(?<="_)').search
"""Finds a name that begins with an underscore, by what is rarer in a body than a quote."""


class HeadedAnswer(NamedTuple):
    """An answer with headers of its own."""

    answer: Answer
    headers: list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class PersonalizerRoute(Route[Q, A]):
    """A route under ``/personalizer``; its endpoint's path is what follows that, or the version.

    Attributes:
        refusal: the protocol's code of what is wrong with its request.
        refusals: by field of the request, the code where it is another.
        is_raw: whether the body is taken as it is, and not decoded.
        plain: what the body of most requests is decoded to, in less time.
    """

    refusal: str = "BadRequest"
    refusals: Mapping[str, str] = field(default_factory=dict, hash=False)
    is_raw: bool = False
    plain: type | None = None

    @cached_property
    def plain_decoder(self) -> "msgspec.json.Decoder[Any] | None":
        """Decodes the body of most requests; None where all are decoded alike."""
        return None if self.plain is None else msgspec.json.Decoder(self.plain)

    def decoded(self, body: bytes) -> Any:
        """Return what a body says; None where none is read.

        Raises:
            InvalidInputError: it is wrong; the error names the field.
        """
        if self.is_raw:
            return body
        if self.decoder is None:
            return None

        # A plain body has no name that begins with an underscore, nor an escaped one.
        quick = self.plain_decoder
        if quick is not None and b"\\" not in body and _IGNORED_NAME(body) is None:
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                return quick.decode(body)
        try:
            return decode_body(body, self.decoder)
        except InvalidInputError as error:
            raise named(error, body) from error

    def refusal_of(self, target: str | None) -> str:
        """Return the protocol's code of what is wrong with a field of its request."""
        return self.refusals.get(target or "", self.refusal)
