"""The learner process: read the log, fold, publish.

One leader writes; a standby folds along and waits. Whatever goes wrong, the process stays: see
standstill.py.
"""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Generic

from bandits.errors import ArchiveError, BanditloopError, LogGapError, NewerBuildError
from bandits.log.records import CheckpointRecord, LogEntry, TickRecord
from policies.fold.checkpoint import Refusal
from policies.fold.known_prior import KnownPrior
from serve_app.store.archiving.sweep import Sweep
from serve_app.store.history import batched
from serve_app.store.lease import Lease, LeaseLostError
from serve_app.store.profiles.part_feed import PartFeed
from serve_app.store.snapshots import Published
from serve_app.store.spaces import register
from serve_app.workers.beside.quota_keeper import QuotaKeeper
from serve_app.workers.beside.relearning import Relearning
from serve_app.workers.declaration import Declaration
from serve_app.workers.items_leader import ItemsLeader
from serve_app.workers.learner_log import LearnerLog
from serve_app.workers.publisher import FoldT, Publisher
from serve_app.workers.standstill import Standstill, redis_error_behind

BLOCK_MS, QUIET_MS = 50, 500
"""How long a step waits for entries; the second where nothing has come or was due for a while."""
QUIET_STEPS = 10
PACE_S = 0.1
"""Shortest time from one step to the next.

What a step asks of Redis costs more than the few entries it would find.
"""
READ = 250
"""Entries at a time: while Redis sends a thousand large decisions, 2 MB, it answers nobody else."""
RETRY_S = 0.5
NEWER_S = 60.0
"""How long to wait before looking again whether a newer build's log can be read."""
STAND_S = 0.5
"""How often a learner that stands still does what else there is to do."""
CHECKPOINT_S = 60.0
CATCH_UP = 1000
"""Entries at a time from the archive, between two of which the learner says how far it is."""

OnCheckpoint = Callable[[str, Callable[[], bytes]], None]
OnRefused = Callable[[Refusal], None]

log = logging.getLogger("banditloop.learner")


class LearnerLoop(Generic[FoldT]):
    """Learns one policy, or one partition of it.

    ``run`` is the process's life: it resumes from the newest checkpoint, folds what is new, and,
    while it holds the lease, declares in the log what has changed, lets time pass, moves the inbox,
    takes checkpoints and publishes.
    """

    def __init__(
        self,
        learner_log: LearnerLog,
        declaration: Declaration,
        make_fold: Callable[[OnCheckpoint, OnRefused], FoldT],
        publisher: Publisher[FoldT],
        *,
        items: ItemsLeader | None = None,
        profiles: PartFeed | None = None,
        relearning: Relearning | None = None,
        quotas: QuotaKeeper | None = None,
        checkpoint_interval_s: float = CHECKPOINT_S,
    ) -> None:
        """Put a learner together; see learner_factory.py.

        Args:
            learner_log: the log to fold, and to write to while this process leads.
            declaration: what the process was deployed with.
            make_fold: makes an empty fold of the log, which tells of checkpoints and refusals.
            publisher: what becomes of the model.
            items: leads the policy's log of items; of one partition's learner alone.
            profiles: writes what this log says of users; None: the policy has no profiles.
            relearning: learns the log anew when weights change.
            quotas: holds the policy's quotas; of one partition's learner alone.
            checkpoint_interval_s: least time between two checkpoints, in seconds.
        """
        self.log = learner_log
        self.publisher = publisher
        self.standstill = Standstill(learner_log.keys, learner_log.lease, learner_log.reader)

        self._declaration = declaration
        self._items = items
        self._relearning = relearning
        self._quotas = quotas
        self._profiles = profiles
        self._make_fold = make_fold
        self._checkpoint_s = checkpoint_interval_s
        self._sweep = Sweep(
            learner_log.client, learner_log.keys, learner_log.lease, learner_log.archive
        )

        # Checkpoints that the fold has passed and that are not stored yet, with their snapshots.
        self._taken: list[tuple[str, bytes, Published | None]] = []
        self._started = False
        self._behind = False
        self._idle_steps = 0
        self._rests_ms = 0.0
        self._declared_under: bytes | None = None
        self._said_prior: KnownPrior | None = None
        self._asked_at = time.monotonic()
        self.fold = self._fresh_fold()

    @property
    def lease(self) -> Lease:
        """The lease of the log."""
        return self.log.lease

    def run(self, stop: threading.Event) -> None:
        """Learn until told to stop, through an unreachable Redis and the loss of the lease."""
        beside = [threading.Thread(target=self.lease.run, args=(stop,), name="lease", daemon=True)]
        if self._profiles is not None:
            beside.append(threading.Thread(target=self._profiles.run, args=(stop,), daemon=True))
        for thread in beside:
            thread.start()
        while not stop.is_set():
            began = time.monotonic()
            wait_s = self.attempt()
            pace_s = 0.0 if self._behind else PACE_S
            stop.wait(max(wait_s, pace_s - (time.monotonic() - began)))
        for thread in beside:
            thread.join()

    def attempt(self) -> float:
        """Start, or take one step, whatever goes wrong; return the seconds to wait for the next."""
        starts = not self._started
        try:
            if (left_s := self.standstill.wait_s()) > 0.0:
                return self._stand(left_s)

            if starts:
                self.start()
                self._started = True
            self.step()
            self.standstill.record_step(self.fold.position)
        except LeaseLostError:
            log.warning("another learner leads policy %s now: standing by", self.log.keys.policy)
            self._declared_under = None
        except Exception as error:  # noqa: BLE001 - a new process would meet the same
            return self._failed(error, starts=starts)
        return 0.0

    def _failed(self, error: Exception, *, starts: bool) -> float:
        """Decide what an error asks for; return the seconds to wait before the next attempt."""
        # A log of a newer build can be read by that build alone: another learner may lead.
        if isinstance(error, NewerBuildError):
            log.error("policy %s: %s; learning stops here", self.log.keys.policy, error.message)
            self.lease.abstain()
            self._started = False
            return NEWER_S

        # Redis will be back. The fold goes on unless the error tore it.
        cut_off = redis_error_behind(error)
        if cut_off is not None:
            log.warning(
                "the log cannot be reached (%s): retrying", str(cut_off) or type(cut_off).__name__
            )
            self._started = self._started and not self._torn
            return RETRY_S

        # What was trimmed while this process slept is in the archive.
        if isinstance(error, LogGapError) and not starts:
            log.warning("%s: resuming from the newest checkpoint", error.message)
            self._started = False
            return RETRY_S

        self.standstill.record_failure(error, self.fold.position)
        self._started = False
        return 0.0

    def _stand(self, left_s: float) -> float:
        """While learning stands still, say so, and let no event wait in the inbox."""
        if self.lease.token is not None:
            self.standstill.write_progress(self.fold.position)
            self.log.inbox.move(self.lease)
        return min(left_s, STAND_S)

    def start(self) -> None:
        """Resume from the newest checkpoint that can be used, else from the start of the log."""
        self.fold = self._fresh_fold()
        self._taken.clear()
        self._declared_under = None
        if self.standstill.stall is not None:
            self._declaration.put_blobs(self.log.reader)  # perhaps it is these that are gone

        self._resume()
        if self._profiles is not None:
            self._profiles.resumed(self.fold.position)

        if self.log.is_trimmed_past(self.fold.position):
            for entries in batched(self.log.history.encoded(self.fold.position), CATCH_UP):
                self._apply(entries)
                with contextlib.suppress(LeaseLostError):
                    self.standstill.write_progress(self.fold.position)

    def _resume(self) -> None:
        """Take up the newest checkpoint, if there is one and it can be used."""
        state = self.log.checkpoints.newest()
        if state is None:
            return

        # A checkpoint only spares time: one that cannot be used is no reason to stop. But whoever
        # folds from the start needs the archive as well.
        try:
            self.fold.resume(state, self.log.past)
        except (NewerBuildError, ArchiveError, LogGapError):
            raise
        except BanditloopError as error:
            log.warning(
                "the checkpoint at %s cannot be used (%s): folding from the start",
                state.position,
                error,
            )
            self.fold = self._fresh_fold()
        else:
            self.log.checkpointed = state.position
            log.info(
                "resumed policy %s from the checkpoint at %s", self.log.keys.policy, state.position
            )

    def step(self) -> None:
        """Fold what is new; if this process leads, do what only the leader may."""
        token = self.lease.token
        has_declared = token is not None and token == self._declared_under

        # A leader that has not declared yet does not wait for entries: it is to lead soon.
        entries = self._read(wait=has_declared or token is None)
        if entries:
            self._apply(entries)
        if not self._behind:
            self.lease.caught_up.set()

        # A standby folds along, and writes nothing.
        if token is None:
            self._taken.clear()
            if self._relearning is not None:
                self._relearning.stop()
            return

        self.standstill.write_progress(self.fold.position)
        self._say_prior()
        if has_declared:
            self._lead(idle=not entries)
        elif not self._behind:
            # Everything that was in the log when the lease was taken has been read. To wait for a
            # step without entries would be for ever, while requests come.
            self._declare()
            self._declared_under = token

    def _read(self, *, wait: bool) -> list[LogEntry]:
        """Read the next entries of the stream.

        Raises:
            LogGapError: what follows the fold's position was trimmed.
        """
        self._behind = False  # whatever becomes of this step
        is_quiet = wait and self._is_quiet()
        entries = self.log.reader.read_encoded(
            self.fold.position,
            count=READ,
            block_ms=QUIET_MS if is_quiet else BLOCK_MS if wait else None,
            beside=self.log.keys.inbox if is_quiet else None,
        )
        self._behind = len(entries) == READ
        self._idle_steps = 0 if entries else self._idle_steps + 1

        # Asked after the read, so it holds of what was read.
        if entries and self.log.is_trimmed_past(self.fold.position):
            raise LogGapError(f"the stream was trimmed past {self.fold.position}", "log")
        return entries

    def _is_quiet(self) -> bool:
        """Return whether there is nothing to do before the next entry comes, which wakes a step."""
        leads = self._declared_under is not None
        rests = self._quotas is None and self._rests_ms > QUIET_MS
        return leads and rests and self._idle_steps >= QUIET_STEPS

    def _lead(self, *, idle: bool) -> None:
        """Do what only the leader may. ``idle``: the log had no new entry."""
        if idle:
            self._tick()
        if self._quotas is not None:
            self._quotas.lead(self.fold, self.publisher.snapshots)
        self.log.inbox.move(self.lease)
        self._store_checkpoints()
        self._ask_for_checkpoint()
        self.publisher.publish()
        self._sweep.sweep_if_due(self.fold)
        if self._items is not None:
            self._items.lead()
        if self._relearning is not None:
            self._relearning.lead(self.fold)

    def _fresh_fold(self) -> FoldT:
        self._torn = False
        fold = self._make_fold(self._on_checkpoint, self.standstill.record_refusal)
        self.publisher.attach(fold)
        if self._profiles is not None:
            self._profiles.attach(fold)
        return fold

    def _apply(self, entries: list[LogEntry]) -> None:
        """Fold entries.

        If something outside the log fails in the middle of one, the fold is torn: start again.
        """
        self._torn = True
        self.fold.apply(entries)
        if self._profiles is not None:
            self._profiles.applied(entries)
        self._torn = False
        if self._quotas is not None:
            self._quotas.applied(self.fold, entries)

    def _declare(self) -> None:
        """Append what has changed since the log was led last; the publisher begins anew."""
        version = ""
        if self._items is not None:
            version = self._items.begin(self.fold.catalogue, self._declaration.catalogue)
        register(self.log.client, self._declaration.spec, self.fold.spec)
        records = self._declaration.changes(self.fold, version)
        if records:
            self._declaration.put_blobs(self.log.reader)
            self.log.append(*records)
        self.publisher.lead()

    def _say_prior(self) -> None:
        """Say once what became of the log's prior."""
        known = self.fold.prior
        if known is not None and known != self._said_prior:
            log.info("policy %s: %s", self.log.keys.policy, known.said)
            self._said_prior = known

    def _tick(self) -> None:
        """Let time pass in a quiet log, when the next window is over; see how long that is off."""
        due = self.fold.join.next_deadline_ms()
        self._rests_ms = math.inf if due is None else due - self.log.reader.now_ms()
        if self._rests_ms <= 0:
            self.log.append(TickRecord())

    def _ask_for_checkpoint(self) -> None:
        waited_s = time.monotonic() - self._asked_at
        if waited_s >= self._checkpoint_s and self.log.checkpointed != self.fold.position:
            self.log.append(CheckpointRecord())
            self._asked_at = time.monotonic()

    def _on_checkpoint(self, position: str, data: Callable[[], bytes]) -> None:
        """Keep the bytes of a checkpoint that the fold has just passed, until they are stored."""
        if self.lease.token is not None and self.fold.spec is not None:
            self._taken.append((position, data(), self.publisher.beside_checkpoint()))
        self._asked_at = time.monotonic()

    def _store_checkpoints(self) -> None:
        """Store each checkpoint that was taken, and before it the snapshot of the same position."""
        snapshots, pinned = self.publisher.snapshots, self.fold.pinned
        while self._taken:
            position, data, published = self._taken[0]
            # Whoever resumes from it tells of users what comes behind it, and nothing before.
            if self._profiles is not None and not self._profiles.has_passed(position):
                return

            snapshot_id = (
                snapshots.newest if published is None else snapshots.write(published, pinned)
            )

            keep = [snapshots.newest, *([pinned] if pinned else [])]
            self.log.checkpoints.store(
                self.lease,
                position,
                data,
                snapshot_id,
                keep=keep,
                archived=self.log.archive is not None,
            )
            self.log.checkpointed = position
            self._taken.pop(0)
