"""Following one policy's log as one of its shadows: in a thread of a process that answers nobody.

It reads the log wherever it is, in the stream or in the archive, so that it may lag and lacks
nothing for it. What it goes on from is stored at the log's own checkpoints, after what it had said
by then: one that dies says the same once more.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

from bandits.errors import ArchiveError, BanditloopError, CodecError, RefusedError, SnapshotError
from bandits.log.positions import position_ms
from bandits.log.records import CheckpointRecord, LogEntry
from policies.archive.archive import ArchiveReader
from policies.archive.shared import shared_folder
from policies.fold.checkpoint import decode_state
from policies.items.past import ItemsPast
from policies.shadows.files import (
    PART,
    NamedShadow,
    PolicyShadows,
    ShadowCheckpoint,
    ShadowState,
)
from policies.shadows.fold import ShadowFold
from policies.shadows.following import DecisionPmfs, ShadowFollower
from policies.shadows.opening import Shadow, shadows_of
from policies.spec import PolicySpec
from serve_app.settings import Settings
from serve_app.store.clients import FAILURES, Redis, blocking_client
from serve_app.store.history import batched
from serve_app.store.items.history import ItemsHistory
from serve_app.store.keys import ItemsKeys, Keys
from serve_app.store.replicas.shadow_progress import ShadowProgress, forget_progress, say_progress
from serve_app.workers.shadows.followed_log import READ, log_of_policy
from serve_app.workers.shadows.pace import Pace

POLL_S: Final = 1.0
STORE_S: Final = 5.0
"""How often what was said since is stored, in seconds."""
RETRY_S, MAX_RETRY_S = 1.0, 60.0

log = logging.getLogger("banditloop.shadows")


class FollowedShadow:
    """One shadow of one policy, as it follows the log.

    Args:
        client: this thread's own connection.
        policy: the spec of the policy that is served.
        shadow: one of its shadows that can be followed.
        settings: of the service.
    """

    def __init__(
        self, client: Redis, policy: PolicySpec, shadow: Shadow, settings: Settings
    ) -> None:
        assert shadow.spec is not None  # noqa: S101 - whoever makes this has looked
        self._shadow, self._spec = shadow, shadow.spec
        self._salt = settings.secret()
        self._client, self._keys, archive = client, Keys(policy.name), settings.archive_root()
        items = shared_folder(policy.shares, "items")
        self._log = log_of_policy(client, policy, settings)
        self._items = ItemsHistory(
            client, ItemsKeys(policy.shares), ArchiveReader(archive, items) if archive else None
        )
        named = NamedShadow(shadow.name, shadow.digest)
        self._files = PolicyShadows(settings.shadows_root(), policy.name).of(named)

        self._pace = Pace()
        self._decisions = 0
        self._tail = list[DecisionPmfs]()
        self._taken: tuple[str, bytes] | None = None
        self._stored_at = self._said_at = -STORE_S
        self._follower = ShadowFollower(self._spec, self._fold())

    def run(self, stop: threading.Event) -> None:
        """Follow the log until told to stop; whatever goes wrong is said, and tried again."""
        self._pace = Pace()  # of this thread
        retry_s = RETRY_S

        while not stop.is_set():
            try:
                self.begin()
                while not stop.is_set():
                    self.step(stop)
                    retry_s = RETRY_S
                    stop.wait(POLL_S)

            except Exception as error:
                expected = isinstance(error, (BanditloopError, *FAILURES))
                message = error.message if isinstance(error, BanditloopError) else repr(error)
                log.warning(
                    "shadow %s cannot go on, trying again in %g s: %s",
                    self._shadow.name,
                    retry_s,
                    message,
                    exc_info=None if expected else error,
                )
                self._say("failed", message)
                stop.wait(retry_s)
                retry_s = min(2 * retry_s, MAX_RETRY_S)

    def begin(self) -> None:
        """Go on from what is stored; else begin where the log does."""
        stored, self._taken = self._files.checkpoint(), None
        self._stored_at = time.monotonic()
        if stored is not None:
            try:
                fold = self._fold()
                fold.resume(decode_state(stored.fold), self._log.past)
                self._follower = ShadowFollower(self._spec, fold)
            except (CodecError, SnapshotError, RefusedError) as error:
                log.warning("shadow %s begins anew: %s", self._shadow.name, error.message)
            else:
                self._follower.passed_over = stored.passed_over
                self._follower.first_passed_over = stored.first_passed_over
                self._decisions = stored.decisions
                there = self._files.stored(stored.decisions // PART)
                self._tail = there[: stored.decisions % PART]
                if len(self._tail) == stored.decisions % PART:
                    return
                log.warning("shadow %s begins anew: what it had said is gone", self._shadow.name)
        self._follower = self._begin_anew()

    def step(self, stop: threading.Event) -> None:
        """Follow the log to its end, or until told to stop, and store what is said of it.

        Args:
            stop: ends it between two reads; what was read is stored at the next start.
        """
        for batch in batched(self._log.entries(self._follower.position), READ):
            for part in _up_to_checkpoints(batch):
                self._add(self._follower.follow(part))
                self._store_checkpoint()
            if time.monotonic() - self._said_at >= STORE_S:
                self._store()
            behind_s = time.time() - position_ms(self._follower.position) / 1000
            if stop.wait(self._pace.rest_s(behind_s)):
                return
        if time.monotonic() - self._said_at >= STORE_S:
            self._store()

    def _begin_anew(self) -> ShadowFollower:
        """Return what begins where the log does, with nothing learned."""
        self._decisions, self._tail = 0, []
        fold, root = self._fold(), self._log.root()
        if root is not None:
            fold.begin_at(root, self._log.past)
        return ShadowFollower(self._spec, fold)

    def _fold(self) -> ShadowFold:
        return ShadowFold(
            self._spec,
            self._log.blob,
            network=self._shadow.network,
            salt=self._salt,
            past=self._log.past,
            items=ItemsPast(self._items),
            on_checkpoint=self._take,
        )

    def _take(self, position: str, data: Callable[[], bytes]) -> None:
        """Keep the bytes of a checkpoint until they are stored, if it is time for one."""
        if time.monotonic() - self._stored_at >= STORE_S:
            self._taken = position, data()

    def _add(self, made: Sequence[DecisionPmfs]) -> None:
        for each in made:
            self._tail.append(each)
            self._decisions += 1
            if len(self._tail) == PART:
                self._files.store(self._decisions // PART - 1, self._tail)
                self._tail = []

    def _store_checkpoint(self) -> None:
        """Store the checkpoint that the fold has just passed, if one was kept."""
        if self._taken is None:
            return
        (position, fold), self._taken = self._taken, None
        self._store()
        checkpoint = ShadowCheckpoint(
            position,
            self._decisions,
            self._follower.passed_over,
            self._follower.first_passed_over,
            fold,
        )
        self._files.store_checkpoint(checkpoint)
        self._stored_at = time.monotonic()

    def _store(self) -> None:
        """Store what was said since, and how far it is."""
        if self._tail:
            self._files.store(self._decisions // PART, self._tail)
        self._say("follows")

    def _say(self, state: Literal["follows", "failed"], message: str = "") -> None:
        self._said_at = time.monotonic()
        said = ShadowState(
            state,
            self._follower.position,
            self._decisions,
            self._follower.passed_over,
            self._follower.first_passed_over,
            message,
            round(1000 * time.time()),
        )
        say_progress(self._client, self._keys, self._shadow.name, ShadowProgress(said.position))
        with contextlib.suppress(OSError):
            self._files.say_state(said)


def follow_policy(
    settings: Settings, policy: PolicySpec
) -> list[tuple[str, Callable[[threading.Event], None]]]:
    """Return what follows the log as each of a policy's shadows, with a name for each.

    Says first which there are, and why some cannot be followed.

    Args:
        settings: of the service.
        policy: the spec of the policy that is served.
    """
    shadows = shadows_of(policy)
    files = PolicyShadows(settings.shadows_root(), policy.name)
    for each in shadows:
        if each.refused:
            log.warning("policy %s: no shadow %s: %s", policy.name, each.name, each.refused)
    named = [NamedShadow(each.name, each.digest, each.refused) for each in shadows]
    files.say_current(named)
    with blocking_client(str(settings.redis_url)) as client:
        forget_progress(client, Keys(policy.name))
    return [
        (
            f"shadow-{policy.name}-{each.name}",
            FollowedShadow(blocking_client(str(settings.redis_url)), policy, each, settings).run,
        )
        for each in shadows
        if each.spec is not None
    ]


def forget_shadows(settings: Settings, policy: str) -> None:
    """Say that a policy has no shadows any more, if it had any; what they have said stays.

    Args:
        settings: of the service.
        policy: the name of one that is served.
    """
    # To say it is no reason for the process not to start.
    with contextlib.suppress(OSError, ArchiveError):
        files = PolicyShadows(settings.shadows_root(), policy)
        if files.current():
            files.say_current([])
            with blocking_client(str(settings.redis_url)) as client:
                forget_progress(client, Keys(policy))


def _up_to_checkpoints(entries: Sequence[LogEntry]) -> Iterator[list[LogEntry]]:
    """Yield the entries in parts, each up to and with a checkpoint."""
    part = list[LogEntry]()
    for entry in entries:
        part.append(entry)
        if isinstance(entry.record, CheckpointRecord):
            yield part
            part = []
    if part:
        yield part
