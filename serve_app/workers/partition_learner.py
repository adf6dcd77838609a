"""The learner of one partition of several: it cuts and offers.

That of partition 0 merges and publishes as well.

Every learner writes under the lease of its own partition alone. A merge is decided by its entry in
the log of partition 0, once, with the pointer to it; the learners of the others repeat the entry in
theirs. Nothing is kept in a learner's memory that a successor could not read from the logs, the
offers and that pointer: each step compares what there is with what there should be, and does what
is missing.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from bandits.errors import BanditloopError
from bandits.log.codec import digest
from bandits.log.positions import position_before
from bandits.log.records import CutRecord, LogRecord, MergeInput, MergeRecord
from policies.archive.archive import ArchiveReader, archive_folder
from policies.artifacts.source_artifact import Artifact
from policies.catalogue import Catalogue
from policies.fold.checkpoint import Cut, FoldState
from policies.fold.partition import PartitionFold, merge_models
from policies.spec import PolicySpec
from serve_app.settings import Settings
from serve_app.store.checkpoints import Checkpoints
from serve_app.store.clients import Redis, blocking_client
from serve_app.store.history import History, LogPast
from serve_app.store.inbox import PartitionInbox
from serve_app.store.keys import partitions
from serve_app.store.merges import (
    KEPT_MERGES,
    MergedModels,
    Offer,
    forget_merges,
    given_model,
    put_merge,
    put_offer,
    read_merge,
    read_offer,
)
from serve_app.store.snapshots import Published, decode_published
from serve_app.store.stats import Stats
from serve_app.workers.learner import CHECKPOINT_S, PUBLISHING_SHARE, LearnerLoop

LATE_S = 1.0
"""How long a merge waits for a partition that offers nothing, once.

It is not waited for again until it does.
"""
MERGE_S = 1.0
STATS_S = 0.25

log = logging.getLogger("banditloop.partitions")


class PartitionLoop(LearnerLoop):
    """Learns one partition; see LearnerLoop. ``archives``: of every partition, or none.

    ``merge_interval_s``: least time between two cuts; what is learned is served about that much
    later.
    """

    _fold: PartitionFold

    def __init__(
        self,
        client: Redis,
        spec: PolicySpec,
        *,
        salt: bytes,
        partition: int,
        publish_interval_s: float = STATS_S,
        merge_interval_s: float = MERGE_S,
        artifact: str | None = None,
        catalogue: Catalogue | None = None,
        checkpoint_interval_s: float = CHECKPOINT_S,
        archives: Sequence[ArchiveReader] | None = None,
        generation: int = 0,
    ) -> None:
        spec.learner.check_mergeable()
        self._all = partitions(spec.name, spec.partitions)
        given: Sequence[ArchiveReader | None] = archives or [None] * spec.partitions
        self._logs = [
            History(client, keys, archive) for keys, archive in zip(self._all, given, strict=True)
        ]
        self._merged = MergedModels(client, self._all[0], self._logs, salt=salt)
        self._partition = partition
        self._merge_s = merge_interval_s
        super().__init__(
            client,
            spec,
            salt=salt,
            publish_interval_s=publish_interval_s,
            artifact=artifact,
            catalogue=catalogue,
            checkpoint_interval_s=checkpoint_interval_s,
            archive=given[partition],
            partition=partition,
            generation=generation,
        )
        self._inbox = PartitionInbox(client, self._all, partition)
        self._forget()

    def start(self) -> None:
        """Resume; what was remembered of offers and merges is of the fold that was before."""
        self._forget()
        super().start()

    def _forget(self) -> None:
        self._said: set[tuple[str, int]] = set()
        self._decided = 0
        self._offered: Offer | None = None
        self._cut_at = self._merged_at = self._stated_at = 0.0
        self._work_s = 0.0
        self._waiting_since: float | None = None
        self._late: set[int] = set()
        self._known: dict[str, bytes] = {}
        self._to_publish: Published | None = None
        self._served: tuple[object, ...] | None = None

    def _fresh(self) -> PartitionFold:
        self._torn = False
        return PartitionFold(
            self._history.blob,
            salt=self._salt,
            partition=self._partition,
            merged=self._merged,
            past=self._past,
            on_checkpoint=self._on_checkpoint,
            on_refused=self.standstill.refused,
            on_merge=self._on_merge,
        )

    def _configure(self) -> None:
        super()._configure()
        self._forget()  # a new leader says again what it offers, and has to publish

    def _beside_checkpoint(self) -> None:
        """Of one partition there is no snapshot: the newest merged one is kept as long as the checkpoint."""

    def _publish(self) -> None:
        """All that a leader does about merges."""
        fold = self._fold
        if fold.spec is None or fold.spec_id != self._spec.digest:
            return
        if self._partition == 0:
            self._merge()
        else:
            self._follow()
        self._offer()
        self._cut()
        if self._to_publish is not None:
            self._publish_one(self._to_publish)
            self._to_publish = None
        if self._partition == 0 and self._served is not None and self._served[-1] != fold.pinned:
            self._repoint()
        if time.monotonic() - self._stated_at >= self._interval_s:
            self._state()

    # What this partition gives

    def _cut(self) -> None:
        """Say where the model for the next merge is taken, if there is anything new to give."""
        fold, number = self._fold, self._fold.number + 1
        if (
            fold.cut is not None
            or fold.untold == 0
            or fold.number == 0
            or not self._due(self._cut_at)
        ):
            return
        if self._say(CutRecord(number), "cut", number):
            self._cut_at = time.monotonic()

    def _offer(self) -> None:
        fold, number = self._fold, self._fold.number + 1
        quiet = fold.cut is None and fold.untold == 0
        if fold.number == 0 or (fold.cut is None and not quiet):
            return
        name = fold.cut.position if fold.cut is not None else None
        known = self._offered
        if (
            known is not None
            and known.number == number
            and (known.input.position if known.input else None) == name
        ):
            return
        own = self._own(fold.inputs)
        model = self._spec.model_digest
        taken = own.digest if own is not None else None
        self._offered = put_offer(
            self._client, self.lease, self._keys, number, model, fold.cut, taken
        )

    def _follow(self) -> None:
        """Repeat the newest merge in this partition's log."""
        record = read_merge(self._client, self._all[0])
        if (
            record is not None
            and record.number > self._fold.number
            and record.model == self._spec.model_digest
        ):
            self._say(record, "merge", record.number)

    def _say(self, record: LogRecord, what: str, number: int) -> bool:
        """Append an entry, once for all that this leader knows.

        A second one would say nothing new.
        """
        if (what, number) in self._said:
            return False
        self._append(record)
        self._said = {each for each in self._said if each[1] >= number - 1} | {(what, number)}
        return True

    def _due(self, before: float) -> bool:
        return time.monotonic() - before >= max(self._merge_s, self._work_s / PUBLISHING_SHARE)

    def _own(self, inputs: Sequence[MergeInput | None]) -> MergeInput | None:
        return inputs[self._partition] if self._partition < len(inputs) else None

    # What partition 0 does for all

    def _merge(self) -> None:
        """Decide the next merge when everybody has offered, or was waited for, or what is served has changed."""
        fold, number, model = self._fold, self._fold.number + 1, self._spec.model_digest
        if ("merge", number) in self._said:
            return
        if fold.rollback is not None and self._roll_back_to(fold.rollback):
            return
        changed = self._served is None or self._served[:2] != (fold.spec_id, fold.catalogue.digest)
        if not changed and not self._due(self._merged_at):
            return
        offers: list[Offer | None] = []
        for keys in self._all:
            offer = self._offered if keys.partition == 0 else read_offer(self._client, keys)
            offers.append(
                offer
                if offer is not None and (offer.number, offer.model) == (number, model)
                else None
            )
        missing = {partition for partition, offer in enumerate(offers) if offer is None}
        fresh = any(offer is not None and offer.input is not None for offer in offers)
        if not fresh and not changed and fold.rollback is None:
            self._waiting_since = None
            return
        self._late &= missing
        if fresh and not changed and missing - self._late and not self._waited():
            return
        self._waiting_since = None
        if missing - self._late and fold.number and not changed:
            log.warning(
                "policy %s: merge %d goes on without partitions %s",
                self._spec.name,
                number,
                sorted(missing),
            )
        if not changed:
            self._late = missing
        before = fold.inputs or [None] * len(self._all)
        inputs = [
            offer.input if offer is not None and offer.input is not None else earlier
            for offer, earlier in zip(offers, before, strict=True)
        ]
        self._merge_now(number, inputs, before)

    def _waited(self) -> bool:
        """Whether the partitions that are missing had their time."""
        now = time.monotonic()
        if self._waiting_since is None:
            self._waiting_since = now
        return now - self._waiting_since >= LATE_S

    def _merge_now(
        self, number: int, inputs: list[MergeInput | None], before: Sequence[MergeInput | None]
    ) -> None:
        began = time.monotonic()
        sums, known = self._spec.learner.merges == "sums", {}
        given: list[tuple[MergeInput, bytes]] = []
        for partition, each in enumerate(inputs):
            if each is None or (not sums and each.number != number):
                continue
            try:
                known[each.digest] = self._given(partition, each)
            except BanditloopError as error:
                if each == before[partition]:
                    raise
                log.warning("policy %s: %s: merging without it", self._spec.name, error.message)
                inputs[partition] = before[partition]
                self._merge_now(number, inputs, before)
                return
            given.append((each, known[each.digest]))
        self._known = known
        merged = merge_models(self._spec, self._salt, self._fold.base, given)
        self._decide(MergeRecord(number, inputs, digest(merged), self._spec.model_digest), merged)
        self._work_s = time.monotonic() - began

    def _given(self, partition: int, given: MergeInput) -> bytes:
        cut = self._fold.cut
        if partition == self._partition and cut is not None and cut.position == given.position:
            return cut.model
        if given.digest in self._known:
            return self._known[given.digest]
        return given_model(
            self._client, self._all[partition], given, lambda each: self._refold(partition, each)
        )

    def _refold(self, partition: int, given: MergeInput) -> Cut | None:
        """What a partition gave, from its log; of a ridge learner, which needs no other log."""
        history = self._logs[partition]
        past = LogPast(history, Checkpoints(self._client, self._all[partition]))
        fold = PartitionFold(
            history.blob, salt=self._salt, partition=partition, merged=self._merged, past=past
        )
        state: FoldState | None = past.checkpoint(position_before(given.position))
        if state is not None:
            fold.resume(state, past)
        fold.apply(history.entries(fold.position, given.position))
        return fold.cut

    def _decide(self, record: MergeRecord, merged: bytes) -> None:
        self._merged.remember(record.digest, merged)
        self._decided = record.number
        put_merge(self._client, self.lease, self._keys, record, merged)
        self._said = {("merge", record.number)}
        self._merged_at = time.monotonic()
        kept = 2 if self._spec.learner.merges == "sums" else KEPT_MERGES
        forget_merges(self._client, self.lease, self._keys, record.number - kept)

    def _roll_back_to(self, position: str) -> bool:
        """Decide a merge that restores the one at a position; False if there is none that fits: it is refused."""
        found = next(
            (e.record for e in self._history.entries(position_before(position), position)), None
        )
        if not isinstance(found, MergeRecord) or found.model != self._spec.model_digest:
            return False
        number = self._fold.number + 1
        record = MergeRecord(number, found.inputs, found.digest, found.model, restores=True)
        self._decide(record, self._merged(found))
        return True

    def _on_merge(self, record: MergeRecord) -> None:
        # another leader's it publishes, or a merge of ours will come after it
        if record.number == self._decided:
            fold = self._fold
            self._to_publish = self._publishable()
            self._served = (fold.spec_id, fold.catalogue.digest, fold.pinned)

    def _repoint(self) -> None:
        """A pin, or its end: the pointer changes, and nothing else."""
        fold, (spec_id, catalogue, _) = self._fold, self._served or ("", "", None)
        newest: Any = self._client.get(self._keys.blob(self._snapshot_id))
        if newest is not None:
            self._publish_one(decode_published(newest, self._snapshot_id))
        self._served = (spec_id, catalogue, fold.pinned)

    def _state(self) -> None:
        self._stated_at = time.monotonic()
        self.lease.guarded([("SET", self._keys.stats, msgspec.msgpack.encode(self._stats()))])

    def _stats(self) -> Stats:
        plain = super()._stats()
        return msgspec.structs.replace(plain, merge=self._fold.number, late=sorted(self._late))


def make_loop(
    settings: Settings,
    spec: PolicySpec,
    partition: int,
    trained: Artifact | None,
    generation: int = 0,
) -> LearnerLoop:
    """The learner of a policy, or of one of its partitions, as the service runs it."""
    root, count = settings.archive_root(), spec.partitions
    folders = [archive_folder(spec.name, number, count) for number in range(count)] if root else []
    archives = [ArchiveReader(root, folder) for folder in folders]
    client = blocking_client(str(settings.redis_url))
    common: dict[str, Any] = {
        "salt": settings.secret(),
        "publish_interval_s": settings.publish_interval_ms / 1000,
        "checkpoint_interval_s": settings.checkpoint_interval_s,
        "generation": generation,
        "artifact": trained.version if trained else None,
        "catalogue": Catalogue.of(trained.catalogue) if trained else None,
    }
    if count == 1:
        return LearnerLoop(client, spec, archive=archives[0] if archives else None, **common)
    merge_s = settings.merge_interval_ms / 1000
    return PartitionLoop(
        client, spec, partition=partition, merge_interval_s=merge_s, archives=archives, **common
    )
