"""The log of one policy in a replica, in its partitions: decisions and events are made durable."""

import asyncio
import hashlib
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec

from bandits.errors import BanditloopError, LogUnavailableError
from bandits.features.hashing import partition_of
from bandits.log.codec import encode
from bandits.log.records import (
    ActivationRecord,
    DecisionRecord,
    RerankedRecord,
    RewardRecord,
)
from policies.requests import RankRequest
from policies.spec import PolicySpec
from serve_app.replica.known_users import KnownUsers
from serve_app.store.event_log import LogWriter
from serve_app.store.keys import Keys, partitions
from serve_app.store.replicas.slot_names import SlotNames

encode_request = msgspec.msgpack.Encoder(order="deterministic").encode


class DecisionLog:
    """Appends what one policy decides, and what comes of it."""

    def __init__(
        self, spec: PolicySpec, writer: LogWriter, known: KnownUsers | None, *, salt: bytes
    ) -> None:
        """Append for a policy.

        Args:
            spec: the policy.
            writer: appends.
            known: says which visit a request is of, where the policy knows its users.
            salt: what is remembered of requests may be hashed with it.
        """
        self._logs = partitions(spec.name, spec.partitions)
        self._writer, self._known = writer, known
        # A reward may come until its decision is forgotten: for two windows.
        self._slot_names = SlotNames(writer.wire, kept_s=2 * spec.rule.window_s)
        # What was asked is remembered as a digest. From that of a request whose features nobody is
        # to know, they could be guessed: it has a key.
        self._asked_key = b"" if spec.context_private is msgspec.UNSET else salt

    def _log_of(self, event_id: str) -> Keys:
        """Return the partition that an event belongs to."""
        return self._logs[partition_of(event_id, len(self._logs))]

    async def append_each(
        self, records: Sequence[DecisionRecord], requests: Sequence[RankRequest]
    ) -> list[bool | None]:
        """Append each to its log in one write a log; return whether each is known to be there.

        None: nothing may be logged under its pseudonym any more, so it is not.

        Args:
            records: the decisions.
            requests: what each answers.
        """
        places: dict[Keys, list[int]] = {}
        if len(self._logs) == 1:
            places = {self._logs[0]: list(range(len(records)))} if records else {}
        else:
            for at, record in enumerate(records):
                places.setdefault(self._log_of(record.event_id), []).append(at)

        writes = [
            self._append(keys, [records[at] for at in part], [requests[at] for at in part])
            for keys, part in places.items()
        ]
        logged: list[bool | None] = [None] * len(records)
        for part, done in zip(places.values(), await asyncio.gather(*writes), strict=True):
            for at, is_logged in zip(part, done, strict=True):
                logged[at] = is_logged
        return logged

    def begin(self, record: DecisionRecord) -> "asyncio.Future[object]":
        """Begin to append a decision about nobody who is known.

        Returns:
            What is awaited until it is in the log; it raises LogUnavailableError where that is not
            known.
        """
        return self._writer.begin(self._log_of(record.event_id).log, record)

    async def append(self, record: DecisionRecord, request: RankRequest) -> bool | None:
        """Append one decision; see ``append_each``.

        Args:
            record: the decision.
            request: what it answers.
        """
        keys = self._log_of(record.event_id)
        if self._known is not None:
            return (await self._append(keys, [record], [request]))[0]
        try:
            await self._writer.append(keys.log, record)
        except LogUnavailableError:
            return False
        return True

    async def _append(
        self, keys: Keys, records: Sequence[DecisionRecord], requests: Sequence[RankRequest]
    ) -> Sequence[bool | None]:
        try:
            if self._known is None:
                await self._writer.append_all(keys.log, records)
                return [True] * len(records)
            visits = [self._known.visit_of(request) for request in requests]
            done = await self._writer.append_known(keys, records, visits)
            return [is_logged or None for is_logged in done]
        except LogUnavailableError:
            return [False] * len(records)

    async def append_once(
        self, request: RankRequest, record: DecisionRecord
    ) -> tuple[DecisionRecord, bool | None] | BanditloopError:
        """Append a decision under an event_id of the client's; return what the log holds.

        Args:
            request: what the decision answers, perhaps again.
            record: the decision.

        Returns:
            With whether it is known to be there (None: see ``append_each``); or the error.
        """
        visit = None if self._known is None else self._known.visit_of(request)
        keys = self._log_of(record.event_id)
        try:
            first = await self._writer.append_once(keys, record, self._asked(request), visit)
        except LogUnavailableError:
            return record, False
        except BanditloopError as error:
            return error
        return (record, None) if first is None else (first, True)

    async def append_again(self, record: DecisionRecord) -> bool:
        """Append a decision under an event_id that has answered another request.

        Returns whether it is known to be there.
        """
        again = RerankedRecord(record.event_id, encode(record))
        try:
            await self._writer.append(self._log_of(record.event_id).log, again)
        except LogUnavailableError:
            return False
        return True

    async def name_slots(self, event_id: str, names: Sequence[str]) -> None:
        """Keep what a caller calls the slots of a decision, unless they have names.

        Args:
            event_id: the decision.
            names: in the order of the slots.

        Raises:
            LogUnavailableError: not known to be kept.
        """
        await self._slot_names.remember(self._log_of(event_id), event_id, names)

    async def slot_names(self, event_id: str) -> list[str]:
        """Return what a caller calls the slots of a decision; none where that is not known.

        Raises:
            LogUnavailableError: it cannot be found out now.
        """
        return await self._slot_names.of(self._log_of(event_id), event_id)

    async def find_once(self, request: RankRequest, event_id: str) -> DecisionRecord | None:
        """Return the decision that has answered a request before; None if none is remembered.

        Args:
            request: what is asked, perhaps again.
            event_id: the client's.

        Raises:
            EventConflictError: it answered another request.
        """
        try:
            keys = self._log_of(event_id)
            return await self._writer.find_once(keys, event_id, self._asked(request))
        except LogUnavailableError:
            return None

    def _asked(self, request: RankRequest) -> bytes:
        """Return what is remembered of a request: whether it asks why is no part of it."""
        if request.explain:
            request = msgspec.structs.replace(request, explain=False)
        data = encode_request(request)
        return hashlib.blake2b(data, digest_size=16, key=self._asked_key).digest()

    async def append_events(self, records: Sequence[RewardRecord | ActivationRecord]) -> None:
        """Make events durable, each in the log of its decision.

        Raises:
            LogUnavailableError: not all are known to be logged.
        """
        if len(self._logs) == 1:
            await self._writer.append_all(self._logs[0].log, records)
            return

        by_log: dict[str, list[RewardRecord | ActivationRecord]] = {}
        for record in records:
            by_log.setdefault(self._log_of(record.event_id).log, []).append(record)

        # Every write has ended before a failure of one is raised.
        writes: list[Coroutine[Any, Any, list[str]]] = [
            self._writer.append_all(key, part) for key, part in by_log.items()
        ]
        for outcome in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
