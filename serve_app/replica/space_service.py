"""One space in a replica: what its policies share of their users."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from banditloop_client.space_schemas import ActivityEvent, ErasureState, UserExport
from bandits.errors import (
    ActivityConflictError,
    LogUnavailableError,
    UnknownItemError,
)
from bandits.log.positions import position_ms
from bandits.log.trends import PublishedTrend
from policies.profiles.activity import check_event, record_of, said_by
from policies.profiles.category_counts import CategoryCounts, with_counts
from policies.spec import PolicySpec
from serve_app.replica.erasures import ReplicaErasures
from serve_app.replica.items import ReplicaItems
from serve_app.replica.user_exports import UserExports
from serve_app.replica.user_merges import UserMerges
from serve_app.replica.users import ReplicaUsers
from serve_app.store.activity.append import Appended, NewActivity, append_activity
from serve_app.store.activity.demand import DemandReader
from serve_app.store.clients import FAILURES, AsyncRedis
from serve_app.store.event_log import LogWriter
from serve_app.store.keys import ActivityKeys
from serve_app.store.spaces import decode_space, space_of_specs

ERASED_ATTEMPTS = 3
"""How often users of one request may be erased, and come back, while it is appended."""
FOLLOW_S = 0.5
"""How often it is looked at what is in demand."""
COUNTED_PER_TURN = 100
"""Events of an export that are counted before requests get their turn."""

OnDemand = Callable[[Mapping[int, PublishedTrend], int], None]
"""Is told of what is in demand by half-life, and as of when, in milliseconds since 1970."""


class RedisSpaceService:
    """Serves one space."""

    def __init__(
        self,
        space: str,
        specs: Iterable[PolicySpec],
        writer: LogWriter,
        items: ReplicaItems,
        users: ReplicaUsers,
        *,
        client: AsyncRedis,
        exports: UserExports,
        salt: bytes,
        on_demand: OnDemand | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Serve a space.

        Args:
            space: its name.
            specs: those of its policies that this replica serves.
            writer: appends to its log.
            items: those of the space, as one of its policies has them.
            users: those of the space.
            client: the replica's.
            exports: reads all that is held of one of them.
            salt: what is remembered of requests is hashed with it.
            on_demand: is told of what is in demand; None: nobody asks.
            clock: seconds since 1970.
        """
        specs = list(specs)
        self._keys = ActivityKeys(space)
        self.users = users
        self._erasures = ReplicaErasures(space, specs, writer, users, salt=salt)
        self._writer, self._items = writer, items
        self._merges = UserMerges(client, writer, self._keys, users)
        self._exports = exports
        self._salt, self._clock = salt, clock
        self._on_demand, self._demand = on_demand, DemandReader(client, self._keys)
        self._task: asyncio.Task[None] | None = None
        self._client = client
        self._types = frozenset(space_of_specs(space, specs).types)

    def start(self) -> None:
        """Begin to follow what is in demand, if anybody asks."""
        if self._on_demand is not None:
            self._task = asyncio.create_task(self._follow_demand(self._on_demand))

    async def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _follow_demand(self, on_demand: OnDemand) -> None:
        while True:
            # Without Redis, what was in demand goes on.
            with contextlib.suppress(*FAILURES):
                demand = await self._demand.newer()
                if demand is not None:
                    on_demand(demand, position_ms(self._demand.position))
            await asyncio.sleep(FOLLOW_S)

    async def add_activity(self, events: Sequence[ActivityEvent]) -> list[str]:
        """Append what users did to the space's log, all or none; return the id of each.

        Raises:
            InvalidInputError: one at fault: it names the field.
            UnknownItemError: there is no such item.
            NotReadyError: the log of items has not begun.
            LogUnavailableError: not known to be logged.
        """
        await self._learn_types(events)
        now_ms = self._clock() * 1000
        for at, event in enumerate(events):
            check_event(event, self._types, now_ms, f"events[{at}].")
        await self._check_items(events)

        # Whoever was erased since they were looked up comes back as somebody new.
        ids = [uuid.uuid4().hex if event.id is None else event.id for event in events]
        appended = await self._append(events, ids)
        for _ in range(ERASED_ATTEMPTS):
            if appended.outcome != "erased":
                break
            for event in events:  # the others may have been, too
                self.users.forget(event.user_id)
            appended = await self._append(events, ids)

        if appended.outcome == "conflict":
            raise ActivityConflictError(
                f"the id {ids[appended.number]!r} is that of something else: make a new one",
                f"events[{appended.number}].id",
            )
        if appended.outcome == "erased":
            raise LogUnavailableError(
                "the user is being erased: retry in a moment", f"events[{appended.number}].user_id"
            )
        return ids

    async def export_user(self, user_id: str) -> UserExport:
        """Return all that is held of a user; see ``UserExports.export``."""
        held = await self._exports.export(user_id)
        timeline, counts = self._items.timeline, CategoryCounts()
        for at, event in enumerate(held.profile.events, 1):
            counts.add(timeline.item(event.item_id))
            if at % COUNTED_PER_TURN == 0:
                await asyncio.sleep(0)
        return with_counts(held, counts)

    async def merge_users(self, user_id: str, into: str) -> int:
        """Make two users one person; see ``UserMerges.merge``.

        Args:
            user_id: the one who was somebody else so far.
            into: who they are.

        Returns:
            Under how many pseudonyms the logs have them.
        """
        return (await self._merges.merge(user_id, into)).pseudonyms

    async def erase(self, user_id: str) -> ErasureState:
        """Begin to erase a user; see ``ReplicaErasures``."""
        return await self._erasures.erase(user_id)

    async def erasure(self, name: str) -> ErasureState:
        """Return how an erasure stands."""
        return await self._erasures.state(name)

    async def _append(self, events: Sequence[ActivityEvent], ids: Sequence[str]) -> Appended:
        people = await self.users.resolve_all([event.user_id for event in events])
        new = [
            self._new(event, name, people[event.user_id].pseudonym)
            for event, name in zip(events, ids, strict=True)
        ]
        command = append_activity(self._keys, new)
        return Appended.of(await self._writer.append_by(self._keys.log, command))

    def _new(self, event: ActivityEvent, name: str, pseudonym: str) -> NewActivity:
        says = None if event.id is None else said_by(event, self._salt)
        return NewActivity(record_of(event, pseudonym, name), says)

    async def _learn_types(self, events: Sequence[ActivityEvent]) -> None:
        """Ask whether a policy that this replica does not serve shares the space, and its types."""
        if all(event.type in self._types for event in events):
            return
        raw: Any = {}
        with contextlib.suppress(*FAILURES):
            raw = await self._client.hgetall(self.users.keys.policies)
        self._types |= decode_space(self._keys.policy, raw).types.keys()

    async def _check_items(self, events: Sequence[ActivityEvent]) -> None:
        """Refuse what was done with an item that is not there."""
        timeline = self._items.timeline
        if all(event.item_id in timeline for event in events):
            return

        # It may have been put through another replica a moment ago.
        await self._items.catch_up()
        for at, event in enumerate(events):
            if event.item_id not in self._items.timeline:
                raise UnknownItemError(
                    f"there is no item {event.item_id!r}", f"events[{at}].item_id"
                )
