"""The parts of a space's profiles: whether they are what the logs say, and making them anew."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from bandits.log.positions import START, position_ms
from policies.archive.archive import ArchiveReader, archive_folder
from policies.archive.shared import shared_folder
from serve_app.admin.replayed.verification import seldom_collecting
from serve_app.settings import Settings
from serve_app.store.checkpoints import Checkpoints, read_root
from serve_app.store.clients import Redis
from serve_app.store.history import History, LogPast
from serve_app.store.keys import ActivityKeys, Keys, LogKeys, UsersKeys
from serve_app.store.profiles.log_changes import ActivityChanges, PolicyChanges
from serve_app.store.profiles.part_state import decode_part_state
from serve_app.store.profiles.verification import LogChanges, PartVerdict, verify_part
from serve_app.store.spaces import ACTIVITY, Space, part_name

DELETED = 1_000
"""Profiles that are deleted at a time."""

OnPart = Callable[[str, float], None]


class PartProgress(msgspec.Struct, frozen=True):
    """How far a part is made.

    Attributes:
        part: its name.
        made: the share of its log that was read, by time; 1 when nothing is missing.
        begun: whether anybody makes it.
    """

    part: str
    made: float
    begun: bool


class ProfileParts:
    """The parts of one space's profiles."""

    def __init__(self, client: Redis, space: Space, settings: Settings) -> None:
        """Look at them.

        Args:
            client: a connection.
            space: the space.
            settings: of the service: its archive, and its salt.
        """
        self._client, self._space, self._settings = client, space, settings
        self._keys = UsersKeys(space.name)
        self._logs: dict[str, tuple[LogKeys, str]] = {}
        if space.parts:
            folder = shared_folder(space.name, "activity")
            self._logs[ACTIVITY] = ActivityKeys(space.name), folder
        for member in space.profiled:
            for number in range(member.partitions):
                folder = archive_folder(member.policy, number, member.partitions)
                keys = Keys(member.policy, number)
                self._logs[part_name(member.policy, number)] = keys, folder
        self._begins: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        """The names of the parts."""
        return list(self._logs)

    def verify(self, part: str, on_read: Callable[[float], None]) -> PartVerdict:
        """Read a part's log from its beginning, and compare it with what is stored of every user.

        Args:
            part: its name.
            on_read: is told the share of the log that was read.

        Raises:
            BanditloopError: the log cannot be read.
            RedisError: Redis does not answer.
        """
        keys, history = self._history(part)
        log: LogChanges = ActivityChanges(history, read_root(self._client, keys))
        if isinstance(keys, Keys):
            past = LogPast(history, Checkpoints(self._client, keys))
            log = PolicyChanges(history, past, self._settings.secret())
        end = history.end()
        with seldom_collecting():
            return verify_part(
                self._client,
                self._keys,
                part,
                self._space.rule,
                log,
                lambda position: on_read(self._share(part, position, end)),
            )

    def delete(self) -> Iterator[int]:
        """Delete all profiles, and yield how many at a time; learners make them anew.

        Whoever is asked meanwhile answers without them. The log of no user is touched.
        """
        # Both before, so that nobody takes them for whole, and after: what a learner has made
        # anew meanwhile may be gone again.
        self._client.delete(self._keys.parts)
        names: Any = self._client.scan_iter(match=f"{self._keys.profile('')}*", count=DELETED)
        while chunk := list(islice(names, DELETED)):
            pipeline = self._client.pipeline(transaction=False)
            for name in chunk:
                pipeline.unlink(name)
            yield sum(pipeline.execute())
        self._client.delete(self._keys.parts)

    def progress(self) -> list[PartProgress]:
        """Return how far each part is made."""
        states: Any = self._client.hgetall(self._keys.parts)
        return [self._progress(part, states.get(part.encode())) for part in self._logs]

    def _progress(self, part: str, stored: bytes | None) -> PartProgress:
        state = decode_part_state(stored)
        if state is None or state.rule != self._space.rule.digest:
            return PartProgress(part, 0.0, begun=False)
        if state.is_whole:
            return PartProgress(part, 1.0, begun=True)
        made = self._share(part, state.built or START, state.until)
        return PartProgress(part, min(made, 0.99), begun=True)

    def _history(self, part: str) -> tuple[LogKeys, History]:
        keys, folder = self._logs[part]
        root = self._settings.archive_root()
        return keys, History(self._client, keys, ArchiveReader(root, folder) if root else None)

    def _share(self, part: str, position: str, end: str) -> float:
        """Return how much of a log, by time, is behind a position of it."""
        if part not in self._begins:
            history = self._history(part)[1]
            since = START if history.archive is None else history.archive.beginning
            entries: Iterable[Any] = history.encoded(since, batch=1)
            self._begins[part] = next((entry.time_ms for entry in entries), 0)
        begins = self._begins[part]
        behind, all_of_it = position_ms(position) - begins, position_ms(end) - begins
        return max(0.0, min(1.0, behind / all_of_it)) if all_of_it > 0 else 1.0
