"""The publisher of one partition of several: it cuts and offers; partition 0's merges as well.

Every learner writes under the lease of its own partition alone. A merge is decided in the log of
partition 0 (merger.py); the learners of the others repeat its entry in theirs. Nothing is kept in a
learner's memory that a successor could not read from the logs, the offers and the pointer to the
newest merge: each step compares what there is with what there should be, and does what is missing.
"""

import time

import msgspec

from bandits.log.records import CutRecord, MergeRecord
from policies.fold.partition import PartitionFold
from serve_app.store.merges import PartitionOffer, put_offer, read_merge
from serve_app.store.snapshots import Published
from serve_app.workers.declaration import Declaration
from serve_app.workers.learner_log import LearnerLog
from serve_app.workers.merger import MergePace, Merger, PolicyLogs
from serve_app.workers.publisher import SnapshotWriter, stats_of


class MergePublisher:
    """Gives what one partition has learned to the merges of its policy.

    ``merger`` decides them, in partition 0; it is None in the others, which follow.
    """

    _fold: PartitionFold

    def __init__(
        self,
        learner_log: LearnerLog,
        logs: PolicyLogs,
        declaration: Declaration,
        *,
        merge_interval_s: float,
        stats_interval_s: float,
    ) -> None:
        """Publish for the partition of ``learner_log``.

        Args:
            learner_log: the partition's log.
            logs: those of all partitions.
            declaration: what the process was deployed with.
            merge_interval_s: least time between two cuts, in seconds; what is learned is served
                about that much later.
            stats_interval_s: time between two writes of the counts, in seconds.
        """
        self.snapshots = SnapshotWriter(learner_log)
        self._log = learner_log
        self._logs = logs
        self._spec = declaration.spec

        self._stats_interval_s = stats_interval_s
        self._pace = MergePace(merge_interval_s)

        # One partition decides, so that there is one place where it is settled.
        self.merger: Merger | None = None
        if learner_log.keys.partition == 0:
            self.merger = Merger(learner_log, logs, declaration, self._pace, self.snapshots)

    def attach(self, fold: PartitionFold) -> None:
        """Publish from this fold; what is remembered of offers and merges was of another."""
        self._fold = fold
        if self.merger is not None:
            self.merger.attach(fold)
        self._reset()

    def lead(self) -> None:
        """Begin to lead: a new leader says again what it offers, and has to publish."""
        if self.merger is not None:
            self.merger.reset()
        self._reset()

    def _reset(self) -> None:
        self._offered: PartitionOffer | None = None
        self._cut_number = self._repeated_number = 0
        self._cut_at = self._stated_at = 0.0

    def adopted(self, record: MergeRecord) -> None:
        """Take note that the fold has adopted a merge."""
        if self.merger is not None:
            self.merger.adopted(record)

    def beside_checkpoint(self) -> Published | None:
        """Return None: the newest merged snapshot is kept as long as the checkpoint."""
        return None

    def publish(self) -> None:
        """Take part in the next merge, and write the counts."""
        # The spec of this deployment is declared, and not read yet.
        if self._fold.spec is None or self._fold.spec_id != self._spec.digest:
            return

        if self.merger is not None:
            self.merger.decide(self._offered)
        else:
            self._repeat_merge()
        self._offer()
        self._cut()

        if self.merger is not None:
            self.merger.publish()
        if time.monotonic() - self._stated_at >= self._stats_interval_s:
            self._write_stats()

    def _repeat_merge(self) -> None:
        """Append the newest merge to this partition's log, once for all that this leader knows.

        A second entry would say nothing new.
        """
        record = read_merge(self._log.client, self._logs.keys[0])
        is_next = (
            record is not None
            and record.number > self._fold.number
            and record.model == self._spec.model_digest
        )
        if record is not None and is_next and record.number != self._repeated_number:
            self._log.append(record)
            self._repeated_number = record.number

    def _offer(self) -> None:
        """Offer the cut to the next merge, or say that there is nothing new to give."""
        fold, number = self._fold, self._fold.number + 1
        quiet = fold.cut is None and fold.uncut == 0
        if (fold.number == 0 and not fold.owes_prior) or (fold.cut is None and not quiet):
            return

        offered = self._offered
        if offered is not None and offered.number == number:
            position = None if offered.input is None else offered.input.position
            if position == (None if fold.cut is None else fold.cut.position):
                return

        # What the newest merge was made of is kept, for the next one may be made of it again.
        partition = self._log.keys.partition
        taken = fold.inputs[partition] if partition < len(fold.inputs) else None
        offer = PartitionOffer.of(number, self._spec.model_digest, fold.cut)
        put_offer(
            self._log.client,
            self._log.lease,
            self._log.keys,
            offer,
            fold.cut,
            keep=None if taken is None else taken.digest,
        )
        self._offered = offer

    def _cut(self) -> None:
        """Say in the log where the model for the next merge is taken, if there is any news."""
        fold, number = self._fold, self._fold.number + 1
        if fold.cut is not None or fold.uncut == 0:
            return
        # Before the first merge there is nothing to give but a prior, which it is to serve.
        if fold.number == 0 and not fold.owes_prior:
            return

        if self._pace.is_due(self._cut_at) and number != self._cut_number:
            self._log.append(CutRecord(number))
            self._cut_number, self._cut_at = number, time.monotonic()

    def _write_stats(self) -> None:
        self._stated_at = time.monotonic()
        late = set() if self.merger is None else self.merger.late
        stats = stats_of(self._log, self._fold, self.snapshots)
        self._log.write_stats(
            msgspec.structs.replace(stats, merge=self._fold.number, late=sorted(late))
        )
