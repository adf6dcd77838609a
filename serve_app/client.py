"""The client, for programs that have the whole project installed: see ``banditloop_client``."""

import httpx

from banditloop_client.client import (
    AsyncClient,
    Client,
    is_ready,
    rank_body,
    wait_until_ready,
)
from banditloop_client.errors import ServiceError
from banditloop_client.schemas import (
    ActionRequest,
    ErrorBody,
    Item,
    PolicyInfo,
    RankRequest,
    RankResponse,
    RewardEvent,
)

__all__ = [
    "ActionRequest",
    "AsyncClient",
    "Client",
    "ErrorBody",
    "Item",
    "PolicyInfo",
    "RankRequest",
    "RankResponse",
    "RewardEvent",
    "ServiceError",
    "is_ready",
    "rank_body",
    "wait_until_ready",
    "without_model",
]


def without_model(url: str) -> list[str]:
    """Say why each policy without a snapshot waits, if learning stands still for all of them.

    Args:
        url: of a service that is not ready.
    """
    try:
        answer = httpx.get(f"{url}/readyz", timeout=2).json()
        where = {
            stalled["policy"]: f"the {stalled['kind']} at {stalled['entry']}"
            for stalled in answer["stalled"]
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
