"""A route of Personalizer's protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from banditloop_client.schemas import A, Q
from serve_app.api.routes import Route
from serve_app.api.wire import Answer


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
    """

    refusal: str = "BadRequest"
    refusals: Mapping[str, str] = field(default_factory=dict, hash=False)
    is_raw: bool = False

    def refusal_of(self, target: str | None) -> str:
        """Return the protocol's code of what is wrong with a field of its request."""
        return self.refusals.get(target or "", self.refusal)
