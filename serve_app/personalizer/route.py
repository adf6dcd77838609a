"""A route of Personalizer's protocol."""

from dataclasses import dataclass

from banditloop_client.schemas import A, Q
from serve_app.api.routes import Route


@dataclass(frozen=True)
class PersonalizerRoute(Route[Q, A]):
    """A route under ``/personalizer``; its endpoint's path is what follows that, or the version.

    Attributes:
        refusal: the protocol's code of what is wrong with its request.
        is_raw: whether the body is taken as it is, and not decoded.
    """

    refusal: str = "BadRequest"
    is_raw: bool = False
