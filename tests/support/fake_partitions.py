"""Partitions of a policy in memory: their logs, their folds, and merges when a test says so."""

from collections.abc import Iterable

import msgspec
from support.fakes import SALT, FakeLog, FakePast
from support.logs import decision

from bandits.features.hashing import partition_of
from bandits.log.codec import digest
from bandits.log.records import (
    CheckpointRecord,
    CutRecord,
    LogEntry,
    LogRecord,
    MergeInput,
    MergeRecord,
    RewardRecord,
    TickRecord,
)
from policies.fold.all_partitions import AllPartitionsFold
from policies.fold.checkpoint import FoldState
from policies.fold.partition import PartitionFold, merge_models
from policies.fold.verify import ServedSnapshot
from policies.items.catalogue import NEVER_PUT, Catalogue
from policies.items.past import ItemsLog, ItemsPast
from policies.spec import PolicySpec

BUILD = {"machine": "test"}


class Log(FakeLog):
    """As an AllPartitionsFold reads it."""

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__(spec)
        self.blobs[Catalogue().digest] = Catalogue().encoded

    @property
    def whole(self) -> "WholeLog":
        return WholeLog(self)


class WholeLog:
    def __init__(self, log: Log) -> None:
        self._log = log

    def encoded(self, after: str, through: str | None = None) -> Iterable[LogEntry]:
        return self._log.past(after, through or "9999999999999-0")

    def blob(self, name: str) -> bytes:
        return self._log.blobs[name]


class Partitions:
    """P logs and the folds of their learners, which read every entry at once."""

    def __init__(self, spec: PolicySpec, items: ItemsLog | None = None) -> None:
        self.spec, self.now, self.number, self.items = spec, 1, 0, items
        self.logs = [Log(spec) for _ in range(spec.partitions)]
        self.pasts = [FakePast(log) for log in self.logs]
        self.models: dict[str, bytes] = {}
        self.folds = [self.fold(partition) for partition in range(spec.partitions)]
        self.read = [0] * spec.partitions
        self.merges: list[MergeRecord] = []
        self.served: list[ServedSnapshot] = []
        self.catch_up()

    def fold(self, partition: int, state: FoldState | None = None) -> PartitionFold:
        """A fold of a log; from nothing, or from a checkpoint."""
        past = self.pasts[partition]
        fold = PartitionFold(
            self.logs[partition].blobs.__getitem__,
            salt=SALT,
            partition=partition,
            merged=lambda record: self.models[record.digest],
            past=past,
            items=ItemsPast(self.items),
            on_checkpoint=past.keep,
        )
        if state is not None:
            fold.resume(state, past)
        return fold

    def catch_up(self) -> None:
        for partition, (fold, log) in enumerate(zip(self.folds, self.logs, strict=True)):
            fold.apply(log.entries[self.read[partition] :])
            self.read[partition] = len(log.entries)

    def append(self, partition: int, record: LogRecord) -> str:
        entry = self.logs[partition].append(record, at=self.now)
        self.catch_up()
        return entry.id

    def decide(
        self,
        event_id: str,
        chosen: int = 0,
        reward: float | None = 1.0,
        hour: float = 1.0,
        catalogue: str = NEVER_PUT,
    ) -> None:
        """A decision and its reward, in their log."""
        self.now += 50
        partition = partition_of(event_id, self.spec.partitions)
        record = decision(event_id, chosen=(chosen,), context={"hour": hour})
        named = msgspec.structs.replace(record, spec=self.spec.digest, catalogue=catalogue)
        self.append(partition, named)
        if reward is not None:
            self.append(partition, RewardRecord(event_id, reward))

    def wait(self, milliseconds: int) -> None:
        """Time passes in every log."""
        self.now += milliseconds
        for partition in range(self.spec.partitions):
            self.append(partition, TickRecord())

    def checkpoint(self, partition: int) -> None:
        self.append(partition, CheckpointRecord())

    def cut(self, partition: int) -> None:
        self.append(partition, CutRecord(self.folds[partition].number + 1))

    def merge(self, late: Iterable[int] = (), unread: Iterable[int] = ()) -> None:
        """Decide a merge without what ``late`` have to give.

        ``unread`` do not repeat it in their logs for now.
        """
        self.number += 1
        first, inputs, given = self.folds[0], [], []
        before = first.inputs or [None] * self.spec.partitions
        sums = self.spec.learner.merges == "sums"
        for partition, fold in enumerate(self.folds):
            cut, put = fold.cut, before[partition]
            if cut is not None and cut.number == self.number and partition not in late:
                put = MergeInput(cut.number, cut.position, digest(cut.model), cut.learned)
                self.models[put.digest] = cut.model
            inputs.append(put)
            if put is not None and (sums or put.number == self.number):
                given.append((put, self.models[put.digest]))
        merged = merge_models(self.spec, SALT, first.base, given)
        self.models[digest(merged)] = merged
        self.tell(MergeRecord(self.number, inputs, digest(merged), self.spec.model_digest), unread)

    def restore(self, record: MergeRecord) -> None:
        self.number += 1
        self.tell(
            MergeRecord(self.number, record.inputs, record.digest, record.model, restores=True)
        )

    def tell(self, record: MergeRecord, unread: Iterable[int] = ()) -> None:
        self.merges.append(record)
        for partition in range(self.spec.partitions):
            if partition not in unread:
                self.append(partition, record)
        snapshot = self.folds[0].snapshot()
        self.served.append(
            ServedSnapshot(
                f"s{self.number}",
                snapshot,
                self.spec.digest,
                Catalogue().digest,
                self.folds[0].build,
            )
        )

    def together(self) -> AllPartitionsFold:
        return AllPartitionsFold([log.whole for log in self.logs], salt=SALT, items=self.items)
