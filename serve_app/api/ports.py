"""The rest of a replica as the HTTP API needs it, as protocols."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from banditloop_client import schemas
from banditloop_client.console_schemas import PreviewResponse
from banditloop_client.explain_schemas import Explanation
from banditloop_client.space_schemas import ActivityEvent, ErasureState, UserExport
from bandits.errors import BanditloopError
from bandits.log.records import ActivationRecord, DecisionRecord, ItemChange, RewardRecord
from policies.requests import Item, RankRequest
from serve_app.api.wire import Answer
from serve_app.store.progress import LearningHealth


class PolicyService(Protocol):
    """One policy, as the API needs it."""

    @property
    def repeats(self) -> bool:
        """Whether its spec says what is not offered again."""
        ...

    @property
    def explains_unasked(self) -> bool:
        """Whether answers of Personalizer's protocol say why."""
        ...

    @property
    def has_one_slot(self) -> bool:
        """Whether clients of Personalizer's protocol have set a policy of one slot."""
        ...

    @property
    def parts_pages(self) -> bool:
        """Whether each slot of a page of Personalizer's protocol may be a decision of its own."""
        ...

    def begin(
        self, request: RankRequest
    ) -> "tuple[DecisionRecord, asyncio.Future[object]] | RankRequest":
        """Decide where nothing is looked up first, and begin to log the decision.

        Args:
            request: what is asked; its actions may be as they were sent (``BareRequest``).

        Returns:
            The decision, and what is awaited until it is in the log, which raises
            LogUnavailableError where that is not known; or what ``rank`` has to be asked.
        """
        ...

    async def rank(
        self, request: RankRequest, *, is_new: bool = False, again: bool = False
    ) -> tuple[DecisionRecord, bool]:
        """Return the decision, and whether it is known to be logged.

        Args:
            request: what is asked; its actions may be as they were sent (``BareRequest``).
            is_new: whether its event_id was made just now, so that it has answered nobody.
            again: whether a request is decided, too, whose event_id has answered another one: that
                is logged, and never learned.
        """
        ...

    def explaining(self) -> Callable[[DecisionRecord], Explanation]:
        """Return what says of a decision that is made from now on why it is so."""
        ...

    async def preview(self, request: RankRequest) -> PreviewResponse:
        """Return what a request would be answered now; nothing is logged, and nobody made known."""
        ...

    @property
    def source_failures(self) -> Mapping[str, int]:
        """How often each source gave nothing, since this process started."""
        ...

    async def rank_all(
        self, requests: Sequence[RankRequest]
    ) -> list[tuple[DecisionRecord, bool] | BanditloopError]:
        """Return the same for several; each has its own answer or error."""
        ...

    async def log(self, records: list[RewardRecord | ActivationRecord]) -> None:
        """Make events durable, or raise LogUnavailableError."""
        ...

    async def name_slots(self, event_id: str, names: Sequence[str]) -> None:
        """Keep what a caller calls the slots of a decision, or raise LogUnavailableError.

        Args:
            event_id: the decision.
            names: in the order of its slots; those that it has already stay.
        """
        ...

    async def slot_names(self, event_id: str) -> list[str]:
        """Return what a caller calls the slots of a decision; none where that is not known."""
        ...

    async def replace_catalogue(self, items: list[Item]) -> str:
        """Make a new catalogue part of the log, and return its digest."""
        ...

    async def change_items(self, changes: Sequence[ItemChange]) -> schemas.ItemsVersion:
        """Make changes part of the log, at once; return the version that they have made."""
        ...

    def vector_lengths(self, but: Collection[str] | None) -> Mapping[str, int]:
        """Return how long vectors of items are, by name, where sources compare items by them.

        0 is of what no item that counts has.

        Args:
            but: items that do not count, since they are about to be others; None: no item does.
        """
        ...

    async def item(self, item_id: str) -> schemas.ItemResponse:
        """Return an item as it is now, or raise UnknownItemError."""
        ...

    async def items(self, query: schemas.ItemsQuery) -> schemas.ItemsPage:
        """Return a page of the items there are now."""
        ...

    async def similar(self, item_id: str, query: schemas.SimilarQuery) -> schemas.SimilarResponse:
        """Return the items like one that may be offered now.

        Args:
            item_id: the one; of one that is not there, it raises UnknownItemError.
            query: who is asked, and for how many.
        """
        ...

    async def info(self) -> schemas.PolicyInfo:
        """Return what is served."""
        ...

    @property
    def learning(self) -> LearningHealth:
        """How its learning stands, as far as is known."""
        ...

    @property
    def signals(self) -> Collection[str]:
        """What its rewards may name as their signal."""
        ...

    @property
    def ready(self) -> bool:
        """Whether a snapshot is loaded."""
        ...

    @property
    def artifact_is_old(self) -> bool:
        """Whether another artifact serves than is to, which cannot be loaded."""
        ...


class SpaceService(Protocol):
    """What several policies share of their users, as the API needs it."""

    async def add_activity(self, events: Sequence[ActivityEvent]) -> list[str]:
        """Make what users did durable, all or none; return the id of each.

        Raises:
            InvalidInputError, UnknownItemError: one at fault; it names the field.
            LogUnavailableError: not known to be logged.
        """
        ...

    async def export_user(self, user_id: str) -> UserExport:
        """Return all that is held of a user, or raise UnknownUserError."""
        ...

    async def merge_users(self, user_id: str, into: str) -> int:
        """Make two users one person; return under how many pseudonyms the logs have them.

        Args:
            user_id: the one who was somebody else so far.
            into: who they are.
        """
        ...

    async def erase(self, user_id: str) -> ErasureState:
        """Begin to erase a user; return how it stands.

        Raises:
            UnknownUserError: nobody is known by this id.
            LogUnavailableError: not known to have begun: it may be asked again.
            ProfilesLeftError: all but a file is as it is to be: it may be asked again.
        """
        ...

    async def erasure(self, name: str) -> ErasureState:
        """Return how an erasure stands.

        Raises:
            UnknownErasureError: there is none of this name.
            LogUnavailableError: it cannot be found out now.
        """
        ...


class ErrandRunner(Protocol):
    """Does what takes long, beside whoever answers."""

    async def answer(self, errand: str, policy: str, asked: Mapping[str, str | int]) -> Answer:
        """Have an errand done.

        Args:
            errand: what is to be done.
            policy: of which policy.
            asked: what the path and the query say.

        Raises:
            ConsoleOffError: nobody does it here.
            OfficeGoneError: whoever does it does not answer now.
        """
        ...


class Counters(Protocol):
    """The counters that the API adds to."""

    def count(self, name: str, *labels: str, by: int = 1) -> None:
        """Add to a counter.

        Args:
            name: one of COUNTERS in ``replica.metrics``.
            labels: its labels' values, in their order.
            by: how much.
        """
        ...

    def observe(self, policy: str, seconds: float, count: int = 1) -> None:
        """Add the latency of one rank, or of several that were asked for together.

        Args:
            policy: which one was asked.
            seconds: how long the answer took.
            count: how many decisions it holds.
        """
        ...


@dataclass
class Backend:
    """Everything that handlers stand on.

    Attributes:
        services: by policy name.
        spaces: by name, those whose policies keep profiles.
        metrics: counts requests, decisions and rewards.
        scrape: gives the metrics of the whole service, as Prometheus text.
        document: the OpenAPI document, as JSON.
        office: does what takes long.
    """

    services: Mapping[str, PolicyService]
    spaces: Mapping[str, SpaceService]
    metrics: Counters
    scrape: Callable[[], Awaitable[bytes]]
    document: bytes
    office: ErrandRunner
