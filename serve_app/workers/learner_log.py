"""The log that a learner folds: what it reads of it, and what it writes to it under its lease."""

import os
import time
import uuid

import msgspec

from bandits.log.codec import encode
from bandits.log.positions import is_after
from bandits.log.records import BuildRecord, LogRecord
from policies.archive.archive import ArchiveReader
from policies.rules.quotas.quota import QuotaState
from serve_app.store.archiving.archived import Committed
from serve_app.store.checkpoints import Checkpoints
from serve_app.store.clients import Redis
from serve_app.store.event_log import FIELD, RedisLog
from serve_app.store.history import History, LogPast
from serve_app.store.inbox import Inbox
from serve_app.store.keys import Keys
from serve_app.store.lease import Command, Lease
from serve_app.store.newer_builds import mark_fold
from serve_app.store.stats import Stats

SAME_S = 5.0
"""Time between two times that the same is said, in case Redis has lost it."""


class LearnerLog:
    """One partition's log, with its lease, its inbox and its checkpoints.

    ``reader`` reads the stream; ``history`` reads the stream and the archive behind it; ``past`` is
    what a resume or a rollback asks. ``checkpointed`` is the position of the newest checkpoint that
    this process resumed from or stored. ``quotas``: how those that it holds stand, for its counts.
    """

    def __init__(
        self,
        client: Redis,
        keys: Keys,
        *,
        archive: ArchiveReader | None = None,
        inbox: Inbox | None = None,
        generation: int = 0,
    ) -> None:
        """Open the log.

        Args:
            client: this process's own connection.
            keys: the partition's keys.
            archive: where the log goes on behind the stream, if it is archived.
            inbox: the partition's inbox; None: that of a policy in one partition, which shares
                nothing.
            generation: that of the deployment which the learner is part of; see lease.py.
        """
        self.client = client
        self.keys = keys
        self.archive = archive

        self.reader = RedisLog(client, keys)
        self.checkpoints = Checkpoints(client, keys)
        self.history = History(client, keys, archive)
        self.past = LogPast(self.history, self.checkpoints)
        self.inbox = Inbox(client, keys) if inbox is None else inbox

        # The owner's name is in the fencing token: no other process has it.
        owner = f"{os.getpid()}.{uuid.uuid4().hex[:8]}"
        self.lease = Lease(client, keys, owner, generation=generation)
        self.checkpointed = ""
        self.quotas: dict[str, QuotaState] = {}
        self._said: tuple[bytes | None, bytes] = None, b""
        self._said_at = 0.0

    def is_trimmed_past(self, position: str) -> bool:
        """Say whether entries past a position may be gone from the stream."""
        trimmed = Committed.read(self.client, self.keys).trimmed
        return is_after(trimmed, position)

    def append(self, *records: LogRecord) -> None:
        """Append entries in one step, under the lease.

        Raises:
            LeaseLostError: another learner leads; nothing was appended.
            RedisError: not known whether they were appended.
        """
        appended: list[Command] = [
            ("XADD", self.keys.log, "*", FIELD, encode(record)) for record in records
        ]
        if any(isinstance(record, BuildRecord) for record in records):
            appended += mark_fold(self.client, self.keys)
        self.lease.guarded(appended)

    def write_stats(self, stats: Stats) -> None:
        """Write what this learner has counted, under the lease; the same again after SAME_S.

        Raises:
            LeaseLostError, RedisError: see ``append``.
        """
        stats = msgspec.structs.replace(stats, quotas=self.quotas)
        said = self.lease.token, msgspec.msgpack.encode(stats)
        if said == self._said and time.monotonic() - self._said_at < SAME_S:
            return
        self.lease.guarded([("SET", self.keys.stats, said[1])])
        self._said, self._said_at = said, time.monotonic()
