"""Merges of users: who was a visitor, and who they have turned out to be, are one person."""

from typing import Any

from bandits.errors import LogUnavailableError, UnknownUserError
from bandits.log.codec import encode
from bandits.log.records import MergeUsersRecord
from serve_app.replica.users import ReplicaUsers
from serve_app.store.clients import FAILURES, AsyncRedis
from serve_app.store.event_log import LogWriter
from serve_app.store.keys import REMEMBERED_S, ActivityKeys
from serve_app.store.replicas.shared_wire import reason_of
from serve_app.store.users.merging import MergePlan, plan_merge, still_to_read
from serve_app.store.users.persons import new_person, swap_command

ATTEMPTS = 5
"""How often a merge is thought out anew because somebody else changed a record meanwhile."""

# Appends a merge once, unless one of the two was erased. KEYS: log, memory, the marks of both.
APPEND_MERGE = """
if redis.call('EXISTS', KEYS[3], KEYS[4]) > 0 then return false end
local known = redis.call('GET', KEYS[2])
if known then return known end
local entry = redis.call('XADD', KEYS[1], '*', 'r', ARGV[1])
redis.call('SET', KEYS[2], entry, 'EX', ARGV[2])
return entry
"""


class UserMerges:
    """Makes two users of a space one person, in the store of persons and then in the log.

    A merge that was not acknowledged may have been made: asked again, it is made, and logged, once.
    """

    def __init__(
        self, client: AsyncRedis, writer: LogWriter, keys: ActivityKeys, users: ReplicaUsers
    ) -> None:
        """Merge users.

        Args:
            client: the replica's.
            writer: appends to the log of activity.
            keys: that log's.
            users: those of the same space.
        """
        self._client = client
        self._writer = writer
        self._keys = keys
        self._users = users

    async def merge(self, user_id: str, into: str) -> MergePlan:
        """Make ``user_id`` the same person as ``into``; return what that came to.

        Args:
            user_id: who was somebody else so far.
            into: who they are; made, if nothing is known of them.

        Raises:
            MergeWithItselfError, UnknownUserError, AlreadyMergedError, MergeRingError,
            TooManyMergedError: see ``plan_merge``.
            LogUnavailableError: not known to be made.
        """
        try:
            plan = await self._swap(user_id, into)
        finally:
            self._users.forget(user_id)
            self._users.forget(into)
        await self._append(plan)
        return plan

    async def _swap(self, user_id: str, into_id: str) -> MergePlan:
        keys, fresh = self._users.keys, new_person()
        user, into = self._users.key_of(user_id), self._users.key_of(into_id)
        for _ in range(ATTEMPTS):
            filed = await self._filed((into_id, into), (user_id, user))
            plan = plan_merge(user, into, await self._held(user, into), fresh, filed)
            if not plan.swap:
                return plan
            command = swap_command(keys, plan.swap)
            if await self._writer.append_by(keys.person(user), command):
                return plan
        raise LogUnavailableError("others change these users just now: retry in a moment")

    async def _filed(self, *named: tuple[str, str]) -> list[bytes]:
        """Return the keyed pseudonyms of users that files of profiles may be asked about.

        Args:
            named: each user's id, and their key.
        """
        try:
            erased: Any = await self._client.smismember(
                self._users.keys.unfiled, [key for _, key in named]
            )
        except FAILURES as error:
            raise self._writer.failed(reason_of(error)) from error
        return [
            bytes.fromhex(self._users.filed_as(user_id))
            for (user_id, _), gone in zip(named, erased, strict=True)
            if not gone
        ]

    async def _held(self, user: str, into: str) -> dict[str, bytes | None]:
        """Return what is stored under two keys, and all that a merge of them may have to change."""
        held: dict[str, bytes | None] = {}
        while names := still_to_read(user, into, held):
            keys = [self._users.keys.person(name) for name in names]
            try:
                found: Any = await self._client.mget(keys)
            except FAILURES as error:
                raise self._writer.failed(reason_of(error)) from error
            held.update(zip(names, found, strict=True))
        return held

    async def _append(self, plan: MergePlan) -> None:
        """Append the merge to the log of activity, for whoever learns from what users did."""
        keys = self._keys
        names = (
            keys.log,
            keys.appended(f"merge:{plan.user}:{plan.into}"),
            keys.erased(plan.user),
            keys.erased(plan.into),
        )
        data = encode(MergeUsersRecord(plan.user, plan.into))
        command = ("EVAL", APPEND_MERGE, len(names), *names, data, REMEMBERED_S)
        if await self._writer.append_by(keys.log, command) is None:
            raise UnknownUserError("one of the two was erased just now", "user_id")
