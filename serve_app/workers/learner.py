"""The learner process: read the log, fold, publish.

One leader writes; a standby folds along and waits.

Whatever goes wrong, the process stays: see standstill.py.
"""

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import msgspec

from bandits.errors import BanditloopError, LogGapError, NewerBuildError, SpecError
from bandits.log.codec import digest, encode
from bandits.log.positions import is_after
from bandits.log.records import (
    ArtifactRecord,
    BuildRecord,
    CatalogueRecord,
    CheckpointRecord,
    LogEntry,
    LogRecord,
    SpecRecord,
    TickRecord,
)
from bandits.types import Snapshot
from policies.archive.archive import ArchiveReader
from policies.blend import make_learner
from policies.catalogue import Catalogue
from policies.fold.fold import Fold
from policies.spec import PolicySpec
from serve_app.host.build import this_build
from serve_app.store.archived import Committed
from serve_app.store.checkpoints import Checkpoints
from serve_app.store.clients import Redis
from serve_app.store.event_log import FIELD, LogReader
from serve_app.store.history import History, LogPast
from serve_app.store.inbox import Inbox
from serve_app.store.keys import Keys
from serve_app.store.lease import Command, Lease, LeaseLostError
from serve_app.store.newer_builds import mark_fold
from serve_app.store.snapshots import Published, publish
from serve_app.store.stats import Stats
from serve_app.store.sweep import Sweep
from serve_app.workers.standstill import Standstill, redis_error_behind

BLOCK_MS = 50
PACE_S = 0.1
"""Shortest time from one step to the next.

What a step asks of Redis costs more than the few entries it would find.
"""
READ = 250
"""Entries at a time: while it sends a thousand decisions of 100 actions, 2 MB, Redis answers nobody else."""
PUBLISHING_SHARE = 0.25
"""At most this share of the learner's time goes into snapshots, however large they grow."""
RETRY_S = 0.5
NEWER_S = 60.0
"""Until a look whether a log that a newer build has written can be read, which it cannot."""
STAND_S = 0.5
"""How often a learner that stands still looks after what else there is to do."""
CHECKPOINT_S = 60.0
CATCH_UP = 1000

log = logging.getLogger("banditloop.learner")


class LearnerLoop:
    """Learns one policy.

    ``artifact`` is the version whose sources serve, ``catalogue`` the one that came with it.

    Of a policy with several partitions it is PartitionLoop (partitions.py) that learns
    ``partition``. ``generation``: of the deployment that it is part of, see lease.py.

    ``run`` is the process's life: it resumes from the newest checkpoint, folds what is new, and,
    while it holds the lease, says in the log what has changed, lets time pass, moves the inbox,
    takes checkpoints and publishes.
    """

    def __init__(
        self,
        client: Redis,
        spec: PolicySpec,
        *,
        salt: bytes,
        publish_interval_s: float,
        artifact: str | None = None,
        catalogue: Catalogue | None = None,
        checkpoint_interval_s: float = CHECKPOINT_S,
        archive: ArchiveReader | None = None,
        partition: int = 0,
        generation: int = 0,
    ) -> None:
        # a spec that cannot be learned is refused before the log names it
        make_learner(spec, salt=salt)
        self._client = client
        self._spec = spec
        self._salt = salt
        self._interval_s = publish_interval_s
        self._checkpoint_s = checkpoint_interval_s
        self._artifact = artifact
        self._catalogue = catalogue
        self._keys = Keys(spec.name, partition)
        self._log = LogReader(client, self._keys)
        self._checkpoints = Checkpoints(client, self._keys)
        self._inbox = Inbox(client, self._keys)
        self._history = History(client, self._keys, archive)
        self._past = LogPast(self._history, self._checkpoints)
        owner = f"{os.getpid()}.{uuid.uuid4().hex[:8]}"
        self.lease = Lease(client, self._keys, owner, generation=generation)
        self.standstill = Standstill(self._keys, self.lease, self._log)
        self._sweep = Sweep(client, self._keys, self.lease, archive)
        self._taken: list[tuple[str, bytes, Published | None]] = []
        self._fold = self._fresh()
        self._started = False
        self._behind = False
        self._configured_under: bytes | None = None
        self._published: tuple[object, ...] | None = None
        self._published_at = 0.0
        self._publish_s = 0.0
        self._asked_at = time.monotonic()
        self._snapshots = 0
        self._snapshot_id = ""
        self._published_ms = 0
        self._checkpointed = ""

    def run(self, stop: threading.Event) -> None:
        """Learn until told to stop; outlives an unreachable Redis, and the loss of the lease."""
        heart = threading.Thread(target=self.lease.run, args=(stop,), name="lease", daemon=True)
        heart.start()
        while not stop.is_set():
            began = time.monotonic()
            wait_s = self.attempt()
            pace_s = 0.0 if self._behind else PACE_S
            stop.wait(max(wait_s, pace_s - (time.monotonic() - began)))
        heart.join()

    def attempt(self) -> float:
        """Start, or take one step, whatever goes wrong.

        How many seconds to wait before the next attempt.
        """
        starts = not self._started
        try:
            if (left_s := self.standstill.wait_s()) > 0.0:
                return self._stand(left_s)
            if starts:
                self.start()
                self._started = True
            self.step()
            self.standstill.gets_on(self._fold.position)
        except LeaseLostError:
            log.warning("another learner leads policy %s now: standing by", self._spec.name)
            self._configured_under = None
        except Exception as error:  # noqa: BLE001 - the process would be started again, to meet the same
            return self._failed(error, starts=starts)
        return 0.0

    def _failed(self, error: Exception, *, starts: bool) -> float:
        """What to do about it, and when to try again."""
        cut_off = redis_error_behind(error)
        if isinstance(error, NewerBuildError):
            log.error("policy %s: %s; learning stops here", self._spec.name, error.message)
            self.lease.abstain()
            self._started = False
            return NEWER_S
        if cut_off is not None:
            log.warning(
                "the log cannot be reached (%s): retrying", str(cut_off) or type(cut_off).__name__
            )
            self._started = self._started and not self._torn
            return RETRY_S
        if isinstance(error, LogGapError) and not starts:
            log.warning("%s: resuming from the newest checkpoint", error.message)
            self._started = False
            return RETRY_S
        self.standstill.stands(error, self._fold.position)
        self._started = False
        return 0.0

    def _stand(self, left_s: float) -> float:
        """While learning stands still: say so, and let no event wait in the inbox."""
        if self.lease.token is not None:
            self.standstill.say(self._fold.position)
            self._inbox.move(self.lease)
        return min(left_s, STAND_S)

    def start(self) -> None:
        """Resume from the newest checkpoint that can be used, else from the start of the log."""
        self._fold = self._fresh()
        self._taken.clear()
        self._configured_under = None
        if self.standstill.stall is not None:
            self._put_blobs()  # perhaps it is these that are gone
        state = self._checkpoints.newest()
        if state is not None:
            try:
                self._fold.resume(state, self._past)
                self._checkpointed = state.position
                log.info(
                    "resumed policy %s from the checkpoint at %s", self._spec.name, state.position
                )
            except NewerBuildError:
                raise
            except BanditloopError as error:
                log.warning(
                    "the checkpoint at %s cannot be used (%s): folding from the start",
                    state.position,
                    error,
                )
                self._fold = self._fresh()
        if self._trimmed():
            for entries in batched(self._history.entries(self._fold.position), CATCH_UP):
                self._apply(entries)
                with contextlib.suppress(LeaseLostError):
                    self.standstill.say(self._fold.position)

    def step(self) -> None:
        """Fold what is new; if this process leads, do what only the leader may."""
        leading = self.lease.token
        ready = leading is not None and leading == self._configured_under
        self._behind = False  # whatever becomes of this step
        block_ms = BLOCK_MS if ready or leading is None else None
        entries = self._log.read(self._fold.position, count=READ, block_ms=block_ms)
        self._behind = len(entries) == READ
        if entries:
            if self._trimmed():  # asked after the read, so it holds of what was read
                raise LogGapError(f"the stream was trimmed past {self._fold.position}", "log")
            self._apply(entries)
        if not self._behind:
            self.lease.caught_up.set()
        if leading is None:
            self._taken.clear()
            return
        self.standstill.say(self._fold.position)
        if not ready:
            if not entries:  # everything that was in the log when the lease was taken has been read
                self._configure()
                self._configured_under = leading
            return
        if not entries:
            self._tick()
        self._inbox.move(self.lease)
        self._store_checkpoints()
        self._ask_for_checkpoint()
        self._publish()
        self._sweep.sweep_if_due(self._fold)

    def _trimmed(self) -> bool:
        """Whether entries past the fold's position may be gone from the stream."""
        trimmed = Committed.read(self._client, self._keys).trimmed
        return is_after(trimmed, self._fold.position)

    def _fresh(self) -> Fold:
        self._torn = False
        return Fold(
            self._history.blob,
            salt=self._salt,
            past=self._past,
            on_checkpoint=self._on_checkpoint,
            on_refused=self.standstill.refused,
        )

    def _apply(self, entries: list[LogEntry]) -> None:
        """Fold entries.

        If something outside the log fails in the middle of one, the fold is torn: start again.
        """
        self._torn = True
        self._fold.apply(entries)
        self._torn = False

    def _append(self, *records: LogRecord) -> None:
        appended: list[Command] = [
            ("XADD", self._keys.log, "*", FIELD, encode(record)) for record in records
        ]
        if any(isinstance(record, BuildRecord) for record in records):
            appended += mark_fold(self._client, self._keys)
        self.lease.guarded(appended)

    def _configure(self) -> None:
        """Say in the log what has changed since: build, spec, catalogue, artifact."""
        known = self._fold
        if known.spec is not None and known.spec.partitions != self._spec.partitions:
            raise SpecError(
                f"the log of {self._spec.name} is in {known.spec.partitions} partitions and stays"
                " so: set partitions to"
                f" {known.spec.partitions}, or begin a policy of another name",
                "partitions",
            )
        records: list[LogRecord] = []
        if known.build != this_build():
            records.append(BuildRecord(this_build()))
        salt_id = digest(self._salt)
        if (known.spec_id, known.salt_id) != (self._spec.digest, salt_id):
            records.append(SpecRecord(self._spec.digest, salt_id))
        if self._artifact is not None and known.artifact != self._artifact:
            if self._catalogue is not None:
                records.append(CatalogueRecord(self._catalogue.digest))
            records.append(ArtifactRecord(self._artifact))
        if records:
            self._put_blobs()
            self._append(*records)
        self._published = None

    def _put_blobs(self) -> None:
        """What this process can give of what the log names."""
        self._log.put_blob(self._spec.digest, self._spec.encoded)
        if self._catalogue is not None:
            self._log.put_blob(self._catalogue.digest, self._catalogue.encoded)

    def _tick(self) -> None:
        due = self._fold.join.next_deadline_ms()
        if due is not None and self._log.now_ms() >= due:
            self._append(TickRecord())

    def _ask_for_checkpoint(self) -> None:
        if (
            time.monotonic() - self._asked_at >= self._checkpoint_s
            and self._checkpointed != self._fold.position
        ):
            self._append(CheckpointRecord())
            self._asked_at = time.monotonic()

    def _on_checkpoint(self, position: str, data: Callable[[], bytes]) -> None:
        if self.lease.token is not None and self._fold.spec is not None:
            self._taken.append((position, data(), self._beside_checkpoint()))
        self._asked_at = time.monotonic()

    def _beside_checkpoint(self) -> Published | None:
        """The snapshot of the same position."""
        return self._publishable()

    def _store_checkpoints(self) -> None:
        while self._taken:
            position, data, published = self._taken[0]
            snapshot_id = self._snapshot_id if published is None else self._publish_one(published)
            keep = [self._snapshot_id, *([self._fold.pinned] if self._fold.pinned else [])]
            self._checkpoints.store(self.lease, position, data, snapshot_id, keep=keep)
            self._checkpointed = position
            self._taken.pop(0)

    def _publishable(self) -> Published:
        fold = self._fold
        snapshot: Snapshot = fold.snapshot()
        return Published(
            snapshot.kind,
            snapshot.position,
            snapshot.learned,
            snapshot.payload,
            fold.spec_id or "",
            fold.catalogue.digest,
            fold.build,
        )

    def _publish_one(self, published: Published) -> str:
        kept = {stored.snapshot_id for stored in self._checkpoints.list()}
        snapshot_id = publish(
            self._client, self.lease, self._keys, published, pinned=self._fold.pinned, kept=kept
        )
        self._snapshots += 1
        self._snapshot_id = snapshot_id
        self._published_ms = self._log.now_ms()
        return snapshot_id

    def _publish(self) -> None:
        fold = self._fold
        if fold.spec_id is None:
            return
        state = (fold.changes, fold.spec_id, fold.catalogue.digest, fold.pinned)
        waited = time.monotonic() - self._published_at
        interval = max(self._interval_s, self._publish_s / PUBLISHING_SHARE)
        if waited < interval or (state == self._published and waited < 1.0):
            return
        if state != self._published:
            began = time.monotonic()
            self._publish_one(self._publishable())
            self._published = state
            self._publish_s = time.monotonic() - began
        self._published_at = time.monotonic()
        self.lease.guarded([("SET", self._keys.stats, msgspec.msgpack.encode(self._stats()))])

    def _stats(self) -> Stats:
        fold = self._fold
        columns, most = (0, 0) if fold.learner is None else fold.learner.columns
        return Stats(
            position=fold.position,
            learned=fold.learned,
            snapshots=self._snapshots,
            snapshot_id=self._snapshot_id,
            published_ms=self._published_ms,
            outcomes={
                **fold.join.counts,
                "undecodable": self._log.undecodable,
                "refused_in_inbox": self._inbox.refused,
                "refused_rollback": fold.refused_rollbacks,
                "refused_warm_start": fold.refused_warm_starts,
            },
            checkpoint=self._checkpointed,
            pinned=fold.pinned,
            columns=columns,
            max_columns=most,
        )


def batched(entries: Iterable[LogEntry], size: int) -> Iterator[list[LogEntry]]:
    """Lists of at most ``size``."""
    iterator = iter(entries)
    while batch := list(islice(iterator, size)):
        yield batch
