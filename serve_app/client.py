"""The client, for programs that have the whole project installed: see ``banditloop_client``."""

from typing import TYPE_CHECKING

import banditloop_client

if TYPE_CHECKING:
    from banditloop_client import (
        ActionRequest,
        AsyncClient,
        Client,
        ErrorBody,
        Item,
        ItemsPage,
        ItemsVersion,
        PolicyInfo,
        RankRequest,
        RankResponse,
        RewardEvent,
        ServiceError,
        is_ready,
        wait_until_ready,
    )
else:
    # A name's module, and httpx with it, is imported when the name is first used.
    __getattr__, __dir__ = banditloop_client.__getattr__, banditloop_client.__dir__

__all__ = [
    "ActionRequest",
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
    "is_ready",
    "wait_until_ready",
]
