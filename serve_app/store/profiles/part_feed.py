"""The part of profiles that a policy's log makes: its learner gathers it, a thread writes it.

Learning does not wait for the users' keys, which may be on another node. A standby gathers, too, so
that it can go on from what was written when it takes the lease.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic

from bandits.log.positions import START, has_reached, is_after
from bandits.log.records import LogEntry
from policies.fold.fold import Fold
from policies.profiles.changes import PartChanges
from policies.profiles.gatherer import ChangeGatherer
from policies.profiles.part import CutRule
from serve_app.store.clients import FAILURES
from serve_app.store.lease import Lease
from serve_app.store.profiles.part_build import PartBuild, ReadChanges
from serve_app.store.profiles.part_writer import PartFencedError, PartMovedError, PartWriter

LOOK_S = 1.0
"""How often it is looked who writes, and what is to be kept."""
MOST_PENDING = 500_000
"""Changes that are kept until they are written; a log that is further ahead is read again."""
AT_ONCE = 2_000
"""Changes that are written in one go, about."""
PATIENCE_S = 10.0
"""How long a checkpoint waits for what came before it to be written."""

log = logging.getLogger("banditloop.profiles")


class PartFeed:
    """Feeds one log's part of all profiles; ``run`` is the life of its thread."""

    def __init__(
        self, writer: PartWriter, lease: Lease, rule: Callable[[], CutRule], read: ReadChanges
    ) -> None:
        """Feed it.

        Args:
            writer: writes the part.
            lease: of the log.
            rule: returns what is to be kept, now; it may ask Redis.
            read: reads the log from its beginning.
        """
        self._writer, self._lease, self._rule_now = writer, lease, rule
        self._build = PartBuild(writer, read)
        self._gatherer: ChangeGatherer | None = None

        # What is not known to be written: changes with the entry that they go up to, in order.
        self._pending: deque[tuple[str, PartChanges]] = deque()
        self._since = self._through = START
        self._count = 0
        self._news = False
        self._some = threading.Condition()

        self._rule: CutRule | None = None
        self._led_under: bytes | None = None
        self._looked_at = -LOOK_S
        self._waited: tuple[str, float] = ("", 0.0)

    # In the learner's thread

    def attach(self, fold: Fold) -> None:
        """Gather what this fold, which has just been made, finds out."""
        gatherer = self._gatherer = ChangeGatherer(fold.spec_of)
        fold.tell_rewards(gatherer.rewarded)

    def resumed(self, position: str) -> None:
        """Note where the fold goes on: what was gathered before comes again, or is written."""
        with self._some:
            self._pending.clear()
            self._since = self._through = position
            self._count = 0

    def applied(self, entries: Sequence[LogEntry]) -> None:
        """Take what the fold has found out by these entries, which it has applied."""
        assert self._gatherer is not None  # noqa: S101 - a fold was attached
        self._gatherer.read(entries)
        changes = self._gatherer.taken()
        with self._some:
            self._through = entries[-1].id
            # What tells nothing of anybody is one, however long nobody writes.
            if self._pending and not changes and not self._pending[-1][1]:
                self._pending.pop()
            self._pending.append((self._through, changes))
            self._count += len(changes)
            while self._count > MOST_PENDING:
                self._since, dropped = self._pending.popleft()
                self._count -= len(dropped)
            self._news = True
            self._some.notify()

    def has_passed(self, position: str) -> bool:
        """Return whether whoever starts at a position finds written what came before it.

        After a while it is true anyhow: then the part is made anew.

        Args:
            position: a checkpoint's.
        """
        state = self._writer.state
        if state is not None and has_reached(state.position, position):
            return True
        if self._waited[0] != position:
            self._waited = position, monotonic()
        return monotonic() - self._waited[1] > PATIENCE_S

    # In its own thread

    def run(self, stop: threading.Event) -> None:
        """Write what is gathered, until told to stop."""
        while not stop.is_set():
            with self._some:
                self._some.wait_for(lambda: self._news, LOOK_S)
                self._news = False
            if not self.attempt():
                stop.wait(LOOK_S)
        self._build.stop()

    def attempt(self) -> bool:
        """Do what there is to do, whatever goes wrong; return whether nothing did."""
        try:
            self.step()
        except PartFencedError:
            log.warning("part %s is written by another leader", self._writer.part)
            self._led_under = None
            return False
        except PartMovedError as error:
            log.warning("%s", error)
            self._led_under = None
        except FAILURES as error:
            log.warning("part %s cannot be written (%s)", self._writer.part, type(error).__name__)
            self._led_under = None
            return False
        return True

    def step(self) -> None:
        """Write what is gathered, if this process leads; else forget what the leader has written.

        Raises:
            PartFencedError, PartMovedError, RedisError: see ``PartWriter.write``.
        """
        token, due = self._lease.token, monotonic() - self._looked_at >= LOOK_S
        self._looked_at = monotonic() if due else self._looked_at
        if token is None:
            self._led_under = None
            if due and (state := self._writer.read_state()) is not None:
                self._forget(state.position)
            return

        rule = self._rule_now() if due or self._rule is None else self._rule
        if token != self._led_under or rule != self._rule:
            with self._some:
                since, at = self._since, self._through
            fence = int(token.split(b":")[0])
            self._forget(self._writer.lead(fence, rule, since=since, at=at).position)
            self._led_under, self._rule = token, rule

        self._write()
        if due:
            self._writer.check()
        self._build.begin_if_due()

    def _write(self) -> None:
        """Write what is pending, about AT_ONCE changes at a time."""
        while True:
            batch, through = PartChanges(), ""
            with self._some:
                for through, changes in self._pending:  # noqa: B007 - the last one's is written
                    batch.take(changes)
                    if len(batch) >= AT_ONCE:
                        break
            if not through:
                return
            self._writer.write(batch, through)
            self._forget(through)

    def _forget(self, position: str) -> None:
        """Forget what is written."""
        with self._some:
            while self._pending and not is_after(self._pending[0][0], position):
                self._since, changes = self._pending.popleft()
                self._count -= len(changes)
