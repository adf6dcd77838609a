"""Errands that take no longer than a page may: the log is read, and snapshots are managed."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from banditloop_client.console_schemas import (
    DecisionEvent,
    DecisionsPage,
    DecisionsQuery,
    SnapshotChange,
    SnapshotsResponse,
)
from bandits.errors import LogUnavailableError, SnapshotConflictError, UnknownSnapshotError
from bandits.features.hashing import partition_of
from policies.archive.archive import ArchiveReader, archive_folder
from serve_app.admin.control import Outcome, pin, rollback, unpin
from serve_app.admin.decided.event import decision_event
from serve_app.admin.decided.finding import find_decision
from serve_app.admin.decided.listing import decisions_page
from serve_app.admin.snapshot_list import listed_snapshots
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.admin.users.user_export import logged_names
from serve_app.settings import Settings
from serve_app.store.clients import REDIS_ERRORS, Redis, blocking_client
from serve_app.store.history import History
from serve_app.store.keys import Keys, partitions
from serve_app.store.newer_builds import check_fold
from serve_app.store.replicas.shared_wire import reason_of

REDIS_S = 10.0
LEARNER_S = 10.0
"""How long a learner may take to do what was appended to its log."""

Asked = Mapping[str, Any]


class Desk:
    """Does the errands of one policy, in a thread: it blocks."""

    def __init__(self, settings: Settings, policy: str) -> None:
        """Open nothing yet.

        Args:
            settings: of the service.
            policy: its name.
        """
        self._settings, self._policy = settings, policy

    def do(self, errand: str, asked: Asked) -> msgspec.Struct:
        """Do an errand.

        Args:
            errand: its name.
            asked: what the path and the query of the request say.

        Raises:
            BanditloopError: it cannot be done; with the reason.
        """
        doing: Mapping[str, Callable[[Redis, Asked], msgspec.Struct]] = {
            "decisions": self._decisions,
            "event": self._event,
            "snapshots": self._snapshots,
            "pin": self._pin,
            "unpin": self._unpin,
            "rollback": self._rollback,
        }
        with self._connected() as client:
            return doing[errand](client, asked)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Redis]:
        try:
            url = str(self._settings.redis_url)
            with contextlib.closing(blocking_client(url, timeout_s=REDIS_S)) as client:
                check_fold(client, Keys(self._policy))
                yield client
        except REDIS_ERRORS as error:
            raise LogUnavailableError(
                f"the log cannot be read ({reason_of(error)}): retry in a moment"
            ) from error

    def _stored(self, client: Redis) -> StoredPolicy:
        return StoredPolicy(client, self._policy, None)

    def _histories(self, client: Redis) -> Sequence[History]:
        root = self._settings.archive_root()
        count = self._stored(client).partitions
        return [
            History(
                client,
                keys,
                ArchiveReader(root, archive_folder(self._policy, keys.partition, count))
                if root
                else None,
            )
            for keys in partitions(self._policy, count)
        ]

    # Decisions

    def _decisions(self, client: Redis, asked: Asked) -> DecisionsPage:
        query = msgspec.convert(asked, DecisionsQuery)
        users = None
        if query.user_id:
            users = logged_names(client, self._policy, query.user_id, self._settings.secret())
        return decisions_page(
            self._histories(client), limit=query.limit, before=query.before, users=users
        )

    def _event(self, client: Redis, asked: Asked) -> DecisionEvent:
        histories, event_id = self._histories(client), asked["event_id"]
        partition = partition_of(event_id, len(histories))
        keys = Keys(self._policy, partition)
        return decision_event(
            histories[partition],
            partition,
            find_decision(histories[partition], event_id, asked.get("entry", "")),
            lambda user: bool(client.exists(keys.erased(user))),
        )

    # Snapshots

    def _snapshots(self, client: Redis, _asked: Asked) -> SnapshotsResponse:
        return listed_snapshots(self._stored(client))

    def _pin(self, client: Redis, asked: Asked) -> SnapshotChange:
        stored = self._stored(client)
        return _changed(pin(stored, _whole_id(stored, asked), within_s=LEARNER_S))

    def _unpin(self, client: Redis, asked: Asked) -> SnapshotChange:
        stored, named = self._stored(client), asked["snapshot_id"]
        stats = stored.stats()
        pinned = None if stats is None else stats.pinned
        if pinned != named:
            said = "none is pinned" if pinned is None else f"{pinned} is"
            raise SnapshotConflictError(f"{named} is not pinned: {said}", "snapshot_id")
        return _changed(unpin(stored, within_s=LEARNER_S))

    def _rollback(self, client: Redis, asked: Asked) -> SnapshotChange:
        stored = self._stored(client)
        return _changed(rollback(stored, _whole_id(stored, asked), within_s=LEARNER_S))


def _whole_id(stored: StoredPolicy, asked: Asked) -> str:
    """Return the id of a snapshot; over HTTP the beginning of one is none."""
    named = str(asked["snapshot_id"])
    if all(name != named for name, _ in stored.snapshots()):
        raise UnknownSnapshotError(f"no stored snapshot has the id {named!r}", "snapshot_id")
    return named


def _changed(outcome: Outcome) -> SnapshotChange:
    return SnapshotChange(outcome.done, outcome.effect)
