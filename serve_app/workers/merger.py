"""Deciding merges: what the leader of partition 0 does for all partitions of a policy.

A merge is decided by its entry in the log of partition 0, once, with the pointer to it. Nothing is
kept in memory that a successor could not read from the logs, the offers and that pointer.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bandits.errors import BanditloopError
from bandits.log.codec import digest
from bandits.log.positions import position_before
from bandits.log.records import MergeInput, MergeRecord
from policies.fold.checkpoint import Cut, FoldState
from policies.fold.partition import PartitionFold, merge_models
from policies.items.past import ItemsPast
from serve_app.store.blobs.parts import read_blob
from serve_app.store.checkpoints import Checkpoints
from serve_app.store.history import History, LogPast
from serve_app.store.items.history import ItemsHistory
from serve_app.store.keys import Keys
from serve_app.store.merges import (
    KEPT_MERGES,
    MergedModels,
    PartitionOffer,
    forget_merges,
    model_of_input,
    put_merge,
    read_offer,
)
from serve_app.store.snapshots import Published, decode_published
from serve_app.workers.declaration import Declaration
from serve_app.workers.learner_log import LearnerLog
from serve_app.workers.publisher import PUBLISHING_SHARE, SnapshotWriter, published_of

LATE_S = 1.0
"""How long a merge waits for a partition that offers nothing, once.

It is not waited for again until it does.
"""
KEPT_SUMS = 2
"""Merged models of a learner that is merged from sums alone: none needs an older one to resume."""

Inputs = list[MergeInput | None]
"""The gift of each partition to a merge; None: nothing yet."""

log = logging.getLogger("banditloop.partitions")


@dataclass(frozen=True)
class PolicyLogs:
    """The logs of all of a policy's partitions, in order, and the models merged of them.

    ``items`` is the log of items that they share.
    """

    keys: Sequence[Keys]
    histories: Sequence[History]
    merged: MergedModels
    items: ItemsHistory | None = None


class MergePace:
    """How often to cut and merge: each ``interval_s`` seconds, or less often if merging is slow."""

    def __init__(self, interval_s: float) -> None:
        self.work_s = 0.0
        self._interval_s = interval_s

    def is_due(self, before: float) -> bool:
        """Say whether it is time again, the last time having been ``before`` (monotonic clock)."""
        wait_s = max(self._interval_s, self.work_s / PUBLISHING_SHARE)
        return time.monotonic() - before >= wait_s


class Merger:
    """Decides merges under the lease of partition 0, and publishes the models of its own.

    ``late`` are the partitions without which the last merge was made.
    """

    def __init__(
        self,
        learner_log: LearnerLog,
        logs: PolicyLogs,
        declaration: Declaration,
        pace: MergePace,
        snapshots: SnapshotWriter,
    ) -> None:
        self._log = learner_log
        self._logs = logs
        self._spec = declaration.spec
        self._salt = declaration.salt
        self._merges_sums = declaration.spec.learner.merges == "sums"
        self._pace = pace
        self._snapshots = snapshots

    def attach(self, fold: PartitionFold) -> None:
        """Merge on top of this fold of partition 0's log."""
        self._fold = fold
        self.reset()

    def reset(self) -> None:
        """Forget everything: it was of another fold, or another leader may have merged since."""
        self.late: set[int] = set()
        self.to_publish: Published | None = None
        self.served: tuple[str | None, str, str | None, str | None] | None = None
        self._deciding = self._decided = 0
        self._merged_at = 0.0
        self._waiting_since: float | None = None
        self._models: dict[str, bytes] = {}
        self._pace.work_s = 0.0

    def decide(self, own_offer: PartitionOffer | None) -> None:
        """Decide the next merge when all partitions have offered, or when it cannot wait.

        It waits once for partitions that do not offer, and not at all when the spec, the catalogue
        or the artifact has changed.
        """
        fold, number = self._fold, self._fold.number + 1
        if self._decided == number:
            return  # its entry is in the log, and not read yet

        if fold.rollback is not None and self._roll_back_to(fold.rollback):
            return

        # What this partition was taught is to be served before the first decision.
        given = None if own_offer is None or own_offer.number != number else own_offer.input
        if fold.owes_prior and given is None:
            return

        serves_old = self.served is None or self.served[:3] != _served_with(fold)
        if not serves_old and not self._pace.is_due(self._merged_at):
            return

        offers = self._read_offers(number, own_offer)
        if not self._is_time(number, offers, at_once=serves_old):
            return

        # A partition that offers nothing new is merged with what it gave before.
        before: Inputs = list(fold.inputs) or [None] * len(offers)
        inputs = [
            offer.input if offer is not None and offer.input is not None else earlier
            for offer, earlier in zip(offers, before, strict=True)
        ]
        self._merge(number, inputs, before)

    def _read_offers(
        self, number: int, own_offer: PartitionOffer | None
    ) -> list[PartitionOffer | None]:
        """Return what each partition offers to this merge, None where it has not offered."""
        model = self._spec.model_digest
        offers: list[PartitionOffer | None] = []
        for keys in self._logs.keys:
            is_own = keys.partition == self._log.keys.partition
            offer = own_offer if is_own else read_offer(self._log.client, keys)
            fits = offer is not None and (offer.number, offer.model) == (number, model)
            offers.append(offer if fits else None)
        return offers

    def _is_time(self, number: int, offers: list[PartitionOffer | None], *, at_once: bool) -> bool:
        missing = {partition for partition, offer in enumerate(offers) if offer is None}
        anything_new = any(offer is not None and offer.input is not None for offer in offers)

        if not anything_new and not at_once and self._fold.rollback is None:
            self._waiting_since = None
            return False

        # A partition that did not offer is waited for once; again when it has offered since.
        self.late &= missing
        awaited = missing - self.late
        if anything_new and not at_once and awaited and not self._has_waited():
            return False
        self._waiting_since = None

        if at_once:
            return True
        if awaited and self._fold.number:
            log.warning(
                "policy %s: merge %d goes on without partitions %s",
                self._spec.name,
                number,
                sorted(missing),
            )
        self.late = missing
        return True

    def _has_waited(self) -> bool:
        """Say whether the missing partitions had their time; it begins when this is first asked."""
        now = time.monotonic()
        if self._waiting_since is None:
            self._waiting_since = now
        return now - self._waiting_since >= LATE_S

    def _merge(self, number: int, inputs: Inputs, before: Inputs) -> None:
        began = time.monotonic()
        models = self._fetch_models(number, inputs, before)
        merged = merge_models(self._spec, self._salt, self._fold.base, models)
        record = MergeRecord(number, inputs, digest(merged), self._spec.model_digest)
        self._put(record, merged)
        self._pace.work_s = time.monotonic() - began

    def _fetch_models(
        self, number: int, inputs: Inputs, before: Inputs
    ) -> list[tuple[MergeInput, bytes]]:
        """Return each input with its model.

        What a partition gave may be lost; then the input that it gave before takes its place in
        ``inputs``.
        """
        fetched: list[tuple[MergeInput, bytes]] = []
        for partition, earlier in enumerate(before):
            # An earlier input that is lost as well stops learning: nothing can take its place.
            try:
                one = self._fetch_model(number, partition, inputs[partition])
            except BanditloopError as error:
                if inputs[partition] == earlier:
                    raise
                log.warning("policy %s: %s: merging without it", self._spec.name, error.message)
                inputs[partition] = earlier
                one = self._fetch_model(number, partition, earlier)
            if one is not None:
                fetched.append(one)

        self._models = {merge_input.digest: model for merge_input, model in fetched}
        return fetched

    def _fetch_model(
        self, number: int, partition: int, merge_input: MergeInput | None
    ) -> tuple[MergeInput, bytes] | None:
        """Return an input with its model; None if this merge takes nothing of it.

        Merges that are no sums begin from the one before, which holds what went into it already.
        """
        if merge_input is None or (not self._merges_sums and merge_input.number != number):
            return None

        # What this partition gave last, or what the last merge took, need not be fetched.
        cut = self._fold.cut
        is_own = partition == self._log.keys.partition
        if is_own and cut is not None and cut.position == merge_input.position:
            return merge_input, cut.model
        if merge_input.digest in self._models:
            return merge_input, self._models[merge_input.digest]
        model = model_of_input(
            self._log.client,
            self._logs.keys[partition],
            merge_input,
            lambda lost: self._refold(partition, lost),
        )
        return merge_input, model

    def _refold(self, partition: int, merge_input: MergeInput) -> Cut | None:
        """Fold a partition's log again up to what it gave; only sums need no other log for that."""
        history = self._logs.histories[partition]
        past = LogPast(history, Checkpoints(self._log.client, self._logs.keys[partition]))
        fold = PartitionFold(
            history.blob,
            salt=self._salt,
            partition=partition,
            merged=self._logs.merged,
            past=past,
            items=ItemsPast(self._logs.items),
        )
        state: FoldState | None = past.checkpoint(position_before(merge_input.position))
        if state is not None:
            fold.resume(state, past)
        fold.apply(history.encoded(fold.position, merge_input.position))
        return fold.cut

    def _put(self, record: MergeRecord, merged: bytes) -> None:
        """Append a merge with its model, and forget the models that are too old to be asked for."""
        log_, logs = self._log, self._logs
        logs.merged.remember(record.digest, merged)
        self._deciding = record.number
        put_merge(log_.client, log_.lease, log_.keys, record, merged)
        self._decided = record.number
        self._merged_at = time.monotonic()

        kept = KEPT_SUMS if self._merges_sums else KEPT_MERGES
        forget_merges(log_.client, log_.lease, log_.keys, record.number - kept)

    def _roll_back_to(self, position: str) -> bool:
        """Decide a merge that restores an earlier one; False if none fits: then it is refused."""
        entries = self._log.history.encoded(position_before(position), position)
        restored = next((entry.record for entry in entries), None)
        if not isinstance(restored, MergeRecord) or restored.model != self._spec.model_digest:
            return False

        record = MergeRecord(
            self._fold.number + 1, restored.inputs, restored.digest, restored.model, restores=True
        )
        self._put(record, self._logs.merged(restored))
        return True

    def adopted(self, record: MergeRecord) -> None:
        """Take note that the fold has adopted a merge: one of this leader's is published next.

        Another leader's is published by that leader, or a merge of this one comes after it.
        """
        if record.number == self._deciding:
            fold = self._fold
            self.to_publish = published_of(fold)
            self.served = (*_served_with(fold), fold.pinned)

    def publish(self) -> None:
        """Publish the model of a merge that was adopted, and follow a pin."""
        pinned = self._fold.pinned
        if self.to_publish is not None:
            self._snapshots.write(self.to_publish, pinned)
            self.to_publish = None

        # A pin, or its end: the pointer changes, and nothing else.
        if self.served is not None and self.served[-1] != pinned:
            name = self._snapshots.newest
            newest = read_blob(self._log.client, self._log.keys, name)
            if newest is not None:
                self._snapshots.write(decode_published(newest, name), pinned)
            self.served = (*self.served[:3], pinned)


def _served_with(fold: PartitionFold) -> tuple[str | None, str, str | None]:
    """Return what a change of publishes the merged model anew."""
    return fold.spec_id, fold.catalogue.digest, fold.artifact
