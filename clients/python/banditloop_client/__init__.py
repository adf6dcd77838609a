"""A client of a banditloop service: decisions, rewards, catalogues.

- ``Client`` and ``AsyncClient``: one policy of a service; a call that fails is a ``ServiceError``
- what is sent: ``RankRequest`` with its ``ActionRequest``, ``RewardEvent``, ``ActivityEvent`` and
  ``Item``
- what is answered: ``RankResponse``, ``PolicyInfo``, ``ItemsVersion``, ``ItemsPage`` and
  ``SimilarResponse``, and ``ErrorBody`` for an item of a batch
- ``is_ready`` and ``wait_until_ready``: whether a service answers yet

A name's module is imported when the name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from banditloop_client.client import AsyncClient, Client, is_ready, wait_until_ready
    from banditloop_client.errors import ServiceError
    from banditloop_client.schemas import (
        ActionRequest,
        ErrorBody,
        Item,
        ItemsPage,
        ItemsVersion,
        PolicyInfo,
        RankRequest,
        RankResponse,
        RewardEvent,
        SimilarResponse,
    )
    from banditloop_client.space_schemas import ActivityEvent

_MODULES = {
    "banditloop_client.client": ["AsyncClient", "Client", "is_ready", "wait_until_ready"],
    "banditloop_client.errors": ["ServiceError"],
    "banditloop_client.space_schemas": ["ActivityEvent"],
    "banditloop_client.schemas": [
        "ActionRequest",
        "ErrorBody",
        "Item",
        "ItemsPage",
        "ItemsVersion",
        "PolicyInfo",
        "RankRequest",
        "RankResponse",
        "RewardEvent",
        "SimilarResponse",
    ],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "ActionRequest",
    "ActivityEvent",
    "AsyncClient",
    "Client",
    "ErrorBody",
    "Item",
    "ItemsPage",
    "ItemsVersion",
    "PolicyInfo",
    "RankRequest",
    "RankResponse",
    "RewardEvent",
    "ServiceError",
    "SimilarResponse",
    "is_ready",
    "wait_until_ready",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
