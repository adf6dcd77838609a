"""What the HTTP API asks of a policy."""

from collections.abc import Sequence
from typing import Protocol

from bandits.errors import BanditloopError
from bandits.log.records import ActivationRecord, DecisionRecord, RewardRecord
from policies.requests import Item, RankRequest
from serve_app.api import schemas
from serve_app.store.progress import LearningHealth


class PolicyService(Protocol):
    """One policy, as the API needs it."""

    async def rank(self, request: RankRequest) -> tuple[DecisionRecord, bool]:
        """The decision, and whether it is known to be logged."""
        ...

    async def rank_all(
        self, requests: Sequence[RankRequest]
    ) -> list[tuple[DecisionRecord, bool] | BanditloopError]:
        """The same for several; each has its own answer or error."""
        ...

    async def log(self, records: list[RewardRecord | ActivationRecord]) -> None:
        """Make events durable, or raise LogUnavailableError."""
        ...

    async def replace_catalogue(self, items: list[Item]) -> str:
        """Make a new catalogue part of the log; its digest."""
        ...

    async def info(self) -> schemas.PolicyInfo:
        """What is served."""
        ...

    @property
    def learning(self) -> LearningHealth:
        """How its learning stands, as far as is known."""
        ...

    @property
    def ready(self) -> bool:
        """Whether a snapshot is loaded."""
        ...
