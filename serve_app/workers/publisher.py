"""Publishing what a leader has learned: the protocol, and the publisher of a policy in one log.

That of a policy in several partitions is in merge_publisher.py.
"""

import time
from typing import Protocol, TypeVar

import msgspec

from bandits.log.join_rule import UNNAMED
from policies.fold.fold import Fold
from policies.profiles.signals import REWARD
from policies.rules.quotas.quota import Control
from serve_app.store.snapshots import Published, point_with, publish
from serve_app.store.stats import Stats
from serve_app.workers.learner_log import LearnerLog

PUBLISHING_SHARE = 0.25
"""At most this share of the learner's time goes into snapshots, however large they grow."""
STATS_S = 1.0
"""How often the counts are written while the model stays as it is."""

FoldT = TypeVar("FoldT", bound=Fold)
FoldT_contra = TypeVar("FoldT_contra", bound=Fold, contravariant=True)


class SnapshotWriter:
    """Writes snapshots under the lease.

    ``count`` is how many it has written, ``newest`` the id of the last one, ``written_ms`` when
    that was, on the log's clock. ``control``: the state of the quotas' controller that is served.
    """

    def __init__(self, log: LearnerLog) -> None:
        self._log = log
        self.control: Control | None = None
        self.count = 0
        self.newest = ""
        self.written_ms = 0

    def write(self, published: Published, pinned: str | None) -> str:
        """Store a snapshot, have it served unless another is pinned, and return its id.

        Args:
            published: the snapshot.
            pinned: the id of the one to serve instead, while it is stored; None: there is no pin.

        Raises:
            LeaseLostError, RedisError: see ``Lease.guarded``.
        """
        log = self._log
        kept = {checkpoint.snapshot_id for checkpoint in log.checkpoints.list()}
        snapshot_id = publish(
            log.client,
            log.lease,
            log.keys,
            published,
            pinned=pinned,
            kept=kept,
            control=self.control,
        )
        self.count += 1
        self.newest = snapshot_id
        self.written_ms = log.reader.now_ms()
        return snapshot_id

    def steer(self, control: Control | None) -> None:
        """Have a state of the quotas' controller served, with this snapshot and those to come.

        Args:
            control: the state.

        Raises:
            LeaseLostError, RedisError: see ``Lease.guarded``.
        """
        point_with(self._log.client, self._log.lease, self._log.keys, control)
        self.control = control


class Publisher(Protocol[FoldT_contra]):
    """Publishes the model that a leader folds.

    ``snapshots`` writes those of the publisher and those that checkpoints are stored with.
    """

    snapshots: SnapshotWriter

    def attach(self, fold: FoldT_contra) -> None:
        """Publish from this fold, which has just been made, and from no other."""
        ...

    def lead(self) -> None:
        """Begin to lead: whatever was published before may have been replaced since."""
        ...

    def beside_checkpoint(self) -> Published | None:
        """Return the snapshot to store with a checkpoint taken now; None: the newest there is."""
        ...

    def publish(self) -> None:
        """Publish what is due, and write the counts.

        Raises:
            LeaseLostError, RedisError: see ``Lease.guarded``.
        """
        ...


class SnapshotPublisher:
    """Publishes the model of a policy in one log, whenever it has changed."""

    _fold: Fold

    def __init__(self, log: LearnerLog, *, interval_s: float) -> None:
        """Publish under the lease of ``log``, at most once in ``interval_s`` seconds."""
        self.snapshots = SnapshotWriter(log)
        self.served: tuple[object, ...] | None = None
        self._log = log
        self._interval_s = interval_s
        self._published_at = 0.0
        self._work_s = 0.0

    def attach(self, fold: Fold) -> None:
        """Publish from this fold."""
        self._fold = fold

    def lead(self) -> None:
        """Begin to lead: publish whatever the model is."""
        self.served = None

    def beside_checkpoint(self) -> Published:
        """Return the snapshot of the checkpoint's own position."""
        return published_of(self._fold)

    def publish(self) -> None:
        """Publish the model if it, or what is served with it, has changed."""
        fold = self._fold
        if fold.spec_id is None:
            return

        state = (fold.changes, fold.spec_id, fold.catalogue.digest, fold.artifact, fold.pinned)
        waited_s = time.monotonic() - self._published_at
        interval_s = max(self._interval_s, self._work_s / PUBLISHING_SHARE)
        if waited_s < interval_s or (state == self.served and waited_s < STATS_S):
            return

        if state != self.served:
            began = time.monotonic()
            self.snapshots.write(published_of(fold), fold.pinned)
            self.served = state
            self._work_s = time.monotonic() - began
        self._published_at = time.monotonic()
        self._log.write_stats(stats_of(self._log, fold, self.snapshots))


def published_of(fold: Fold) -> Published:
    """Return the fold's model as a snapshot that can be published."""
    snapshot = fold.snapshot()
    return Published(
        snapshot.kind,
        snapshot.position,
        snapshot.learned,
        snapshot.payload,
        fold.spec_id or "",
        fold.catalogue.digest,
        fold.build,
        fold.artifact,
        msgspec.UNSET if snapshot.trends is None else snapshot.trends,
    )


def stats_of(log: LearnerLog, fold: Fold, snapshots: SnapshotWriter) -> Stats:
    """Return what a learner has counted.

    Args:
        log: its log, which counts what it could not read and what its inbox refused.
        fold: its fold, which counts what became of each reward.
        snapshots: what it has published.
    """
    counted = fold.join.signals
    columns, limit = (0, 0) if fold.learner is None else fold.learner.columns

    return Stats(
        position=fold.position,
        learned=fold.learned,
        snapshots=snapshots.count,
        snapshot_id=snapshots.newest,
        published_ms=snapshots.written_ms,
        outcomes={
            **fold.join.counts,
            "undecodable": log.reader.undecodable,
            "refused_in_inbox": log.inbox.refused,
            "refused_rollback": fold.refused_rollbacks,
            "refused_warm_start": fold.refused_warm_starts,
        },
        checkpoint=log.checkpointed,
        pinned=fold.pinned,
        columns=columns,
        max_columns=limit,
        prior=fold.prior,
        signals={REWARD if name == UNNAMED else name: each for name, each in counted.items()},
    )
