"""The leader of a space's log of activity: what users did becomes their part of profiles.

It runs in the learner of partition 0 of each policy of the space that keeps profiles: whichever
takes the lease leads, and the others wait. What it has done is in Redis, so whoever comes next goes
on from there.
"""

import logging
import os
import threading
import uuid
from collections.abc import Iterator
from itertools import islice
from time import monotonic

from bandits.errors import BanditloopError
from bandits.log.positions import START, has_reached, is_after, log_order
from bandits.log.records import LogEntry
from policies.archive.archive import ArchiveReader
from policies.archive.shared import SHARED, shared_folder
from policies.profiles.changes import PartChanges
from policies.profiles.part import CutRule
from policies.spec import PolicySpec
from serve_app.settings import Settings
from serve_app.store.activity.demand import Demand
from serve_app.store.activity.inbox import ActivityInbox
from serve_app.store.activity.root import demand_at_root
from serve_app.store.activity.space_items import SpaceItems
from serve_app.store.archiving.archived import Committed
from serve_app.store.checkpoints import read_root
from serve_app.store.clients import FAILURES, Redis, blocking_client
from serve_app.store.erasures.job import go_on_with_all, run
from serve_app.store.event_log import RedisLog
from serve_app.store.history import History, batched
from serve_app.store.items.history import ItemsHistory
from serve_app.store.keys import ActivityKeys, ItemsKeys, UsersKeys
from serve_app.store.lease import Lease, LeaseLostError
from serve_app.store.profiles.log_changes import ActivityChanges
from serve_app.store.profiles.part_build import PartBuild
from serve_app.store.profiles.part_writer import PartFencedError, PartMovedError, PartWriter
from serve_app.store.spaces import ACTIVITY, Space, read_space

BLOCK_MS = 50
PACE_S = 0.1
"""Shortest time from one step to the next, unless there is more to read."""
READ, COUNTED = 1_000, 5_000
LOOK_S = 2.0
"""How often it is looked at who shares the space, and said how far the log was read."""
RETRY_S = 0.5
GAP_S = 10.0
"""How long to wait before looking again whether what the log lacks has been restored."""

log = logging.getLogger("banditloop.activity")


class ActivityLeader:
    """Leads one space's log of activity, or waits until it may."""

    def __init__(
        self,
        client: Redis,
        space: str,
        *,
        salt: bytes,
        archive: ArchiveReader | None = None,
        items_archive: ArchiveReader | None = None,
        generation: int = 0,
    ) -> None:
        """Take part.

        Args:
            client: a connection of its own.
            space: the space's name.
            salt: the secret that user ids are hashed with.
            archive: where its log goes on behind the stream, if it is archived.
            items_archive: the same of the space's log of items.
            generation: that of the deployment; see lease.py.
        """
        keys = ActivityKeys(space)
        self._client, self._space, self._keys = client, space, keys
        self._log = RedisLog(client, keys)
        self._history = History(client, keys, archive)
        self._writer = PartWriter(client, UsersKeys(space), ACTIVITY)
        history = ItemsHistory(client, ItemsKeys(space), items_archive)
        items = SpaceItems(client, ItemsKeys(space), history)
        self.inbox = ActivityInbox(client, keys, UsersKeys(space), items, salt=salt)
        self._build: PartBuild | None = None

        owner = f"{os.getpid()}.{uuid.uuid4().hex[:8]}"
        self.lease = Lease(client, keys, owner, generation=generation)
        self.lease.caught_up.set()  # there is nothing that it would have to read before

        self._led_under: bytes | None = None
        self._rule: CutRule | None = None
        self._types: dict[str, float] = {}
        self._demand, self._half_lives_ms = Demand(keys), list[int]()
        self._position = START
        self._looked_at = 0.0
        self._behind = False

    def run(self, stop: threading.Event) -> None:
        """Lead, or wait, until told to stop."""
        heart = threading.Thread(target=self.lease.run, args=(stop,), name="lease", daemon=True)
        heart.start()
        while not stop.is_set():
            began = monotonic()
            wait_s = self.attempt()
            pace_s = 0.0 if self._behind else PACE_S
            stop.wait(max(wait_s, pace_s - (monotonic() - began)))
        self._end_build()
        heart.join()

    def attempt(self) -> float:
        """Take one step, whatever goes wrong; return the seconds to wait for the next."""
        try:
            self.step()
        except (LeaseLostError, PartFencedError):
            log.info("another process leads the activity of %s now", self._space)
            self._led_under = None
        except PartMovedError:
            self._led_under = None  # to find out what has become of it
        except FAILURES as error:
            log.warning("the activity of %s is not read (%s): retrying", self._space, error)
            self._led_under = None
            return RETRY_S
        except BanditloopError as error:
            log.warning("the activity of %s cannot be read: %s", self._space, error.message)
            self._led_under = None
            return GAP_S
        return 0.0

    def step(self) -> None:
        """Apply what is new, if this process leads.

        Raises:
            LeaseLostError, PartFencedError: another leads.
            PartMovedError: the part is not as it was left.
            RedisError: Redis does not answer.
            LogGapError, ArchiveError: a part of the log is missing.
        """
        token = self.lease.token
        self._behind = False
        if token is None:
            self._led_under = None
            return

        looks = monotonic() - self._looked_at >= LOOK_S
        if (looks or token != self._led_under) and not self._follow(token):
            return

        self._apply_next()
        self._count()
        self.inbox.move(self.lease, self._types)
        if looks:
            self._writer.check()
            run(self._client, go_on_with_all(Space(self._space)))
            needed = self._position
            if self._demand.counts:
                needed = min(needed, self._demand.position, key=log_order)
            self.lease.guarded([("SET", self._keys.needed, needed)])
            self._looked_at = monotonic()
        if self._build is not None:
            self._build.begin_if_due()

    def _follow(self, token: bytes) -> bool:
        """Lead as the members of the space ask; return False while there are none."""
        space = read_space(self._client, self._space)
        if not space.profiled:
            return False
        rule, self._types = space.rule, space.types
        if token != self._led_under or space.half_lives_ms != self._half_lives_ms:
            self._half_lives_ms = space.half_lives_ms
            since = demand_at_root(self._client, self._history, self._keys)
            self._demand.lead(self._client, self._half_lives_ms, since)
        if token == self._led_under and rule == self._rule:
            return True

        # Also where the log is empty: whoever reads profiles learns that nothing is missing.
        self._end_build()
        fence, end = int(token.split(b":")[0]), self._history.end()
        state = self._writer.lead(fence, rule, since=START, at=end)
        self._build = PartBuild(self._writer, self._read_from_start)
        self._position, self._rule, self._led_under = state.position, rule, token
        return True

    def _apply_next(self) -> None:
        entries = self._log.read_encoded(self._position, count=READ, block_ms=BLOCK_MS)
        self._behind = len(entries) == READ

        # Asked after the read, so it holds of what was read.
        trimmed = Committed.read(self._client, self._keys).trimmed
        if is_after(trimmed, self._position):
            for older in batched(self._history.encoded(self._position, trimmed), READ):
                self._apply(older)
            self._behind = True
        elif entries:
            self._apply(entries)

    def _apply(self, entries: list[LogEntry]) -> None:
        if has_reached(self._demand.position, self._position):
            self._demand.take(entries, self._types)
        changes = PartChanges()
        changes.read(entries)
        self._writer.write(changes, entries[-1].id)
        self._position = entries[-1].id

    def _count(self) -> None:
        """Go on counting what is in demand: it may be behind, for it is stored now and then."""
        if not self._demand.counts:
            return
        if is_after(self._position, self._demand.position):
            behind = self._history.encoded(self._demand.position, self._position)
            self._demand.take(list(islice(behind, COUNTED)), self._types)
            self._behind = True
        if commands := self._demand.due():
            self.lease.guarded(commands)

    def _read_from_start(self, through: str) -> Iterator[tuple[str, PartChanges]]:
        """Yield what the log says from its beginning."""
        root = read_root(self._client, self._keys)
        return ActivityChanges(self._history, root).through(through)

    def _end_build(self) -> None:
        if self._build is not None:
            self._build.stop()
            self._build = None


def activity_leader_of_service(
    settings: Settings, spec: PolicySpec, generation: int = 0
) -> ActivityLeader:
    """Make the leader of the log of activity of a policy's space, as the service runs it.

    Args:
        settings: of the service.
        spec: the policy.
        generation: that of the deployment; see lease.py.
    """
    root, space = settings.archive_root(), spec.shares
    archives = [ArchiveReader(root, shared_folder(space, log)) if root else None for log in SHARED]
    client, (items_archive, archive) = blocking_client(str(settings.redis_url)), archives
    return ActivityLeader(
        client,
        space,
        salt=settings.secret(),
        archive=archive,
        items_archive=items_archive,
        generation=generation,
    )
