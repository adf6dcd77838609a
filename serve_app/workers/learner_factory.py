"""Putting a learner together: of a log, of a partition, or as the service runs it."""

from collections.abc import Iterator, Sequence
from functools import partial

from msgspec import UNSET

from policies.archive.archive import ArchiveReader, archive_folder
from policies.archive.shared import shared_folder
from policies.artifacts.prior import prior_of
from policies.artifacts.source_artifact import Artifact
from policies.fold.fold import Fold
from policies.fold.partition import PartitionFold
from policies.items.catalogue import Catalogue
from policies.items.past import ItemsPast
from policies.profiles.changes import PartChanges
from policies.spec import PolicySpec
from serve_app.settings import Settings
from serve_app.store.checkpoints import read_root
from serve_app.store.clients import Redis, blocking_client
from serve_app.store.history import History
from serve_app.store.inbox import Inbox, PartitionInbox
from serve_app.store.items.history import ItemsHistory
from serve_app.store.keys import ItemsKeys, Keys, UsersKeys, partitions
from serve_app.store.merges import MergedModels, partitions_root
from serve_app.store.profiles.log_changes import PolicyChanges, rule_now
from serve_app.store.profiles.part_feed import PartFeed
from serve_app.store.profiles.part_writer import PartWriter
from serve_app.store.spaces import part_name
from serve_app.workers.beside.quota_keeper import QuotaKeeper
from serve_app.workers.beside.relearning import Relearning
from serve_app.workers.declaration import Declaration
from serve_app.workers.items_leader import ItemsLeader
from serve_app.workers.learner import CHECKPOINT_S, LearnerLoop, OnCheckpoint, OnRefused
from serve_app.workers.learner_log import LearnerLog
from serve_app.workers.merge_publisher import MergePublisher
from serve_app.workers.merger import PolicyLogs
from serve_app.workers.publisher import SnapshotPublisher

MERGE_S = 1.0
STATS_S = 0.25


def learner_of_log(
    client: Redis,
    spec: PolicySpec,
    *,
    salt: bytes,
    publish_interval_s: float,
    artifact: str | None = None,
    catalogue: Catalogue | None = None,
    prior: bytes | None = None,
    checkpoint_interval_s: float = CHECKPOINT_S,
    archive: ArchiveReader | None = None,
    items_archive: ArchiveReader | None = None,
    generation: int = 0,
) -> LearnerLoop[Fold]:
    """Make the learner of a policy that has one log.

    Args:
        client: this process's own connection.
        spec: the policy.
        salt: the secret that draws are hashed with.
        publish_interval_s: least time between two snapshots, in seconds.
        artifact: the version whose sources serve.
        catalogue: the one that came with the artifact.
        prior: the rows that came with it, for a model that has learned nothing.
        checkpoint_interval_s: least time between two checkpoints, in seconds.
        archive: where the log goes on behind the stream, if it is archived.
        items_archive: the same of the log of items.
        generation: that of the deployment; see lease.py.

    Raises:
        SpecError: the spec cannot be learned.
    """
    declaration = Declaration(spec, salt, artifact, catalogue, prior)
    keys = Keys(spec.name)
    log = LearnerLog(
        client,
        keys,
        archive=archive,
        inbox=Inbox(client, keys, spec.shares),
        generation=generation,
    )
    items_keys = ItemsKeys(spec.shares)
    items = ItemsHistory(client, items_keys, items_archive)

    def make_fold(on_checkpoint: OnCheckpoint, on_refused: OnRefused) -> Fold:
        return Fold(
            log.history.blob,
            salt=salt,
            past=log.past,
            items=ItemsPast(items),
            on_checkpoint=on_checkpoint,
            on_refused=on_refused,
        )

    def beside(digest: str) -> Fold:
        past, catalogues = log.past, ItemsPast(ItemsHistory(client, items_keys, items_archive))
        return Fold(log.history.blob, salt=salt, past=past, items=catalogues, weigh_by=digest)

    publisher = SnapshotPublisher(log, interval_s=publish_interval_s)
    return LearnerLoop(
        log,
        declaration,
        make_fold,
        publisher,
        items=ItemsLeader(client, items_keys, items),
        relearning=Relearning(log, spec, beside),
        profiles=_profiles(spec, log, salt),
        quotas=_quotas(spec, log),
        checkpoint_interval_s=checkpoint_interval_s,
    )


def learner_of_partition(
    client: Redis,
    spec: PolicySpec,
    *,
    salt: bytes,
    partition: int,
    publish_interval_s: float = STATS_S,
    merge_interval_s: float = MERGE_S,
    artifact: str | None = None,
    catalogue: Catalogue | None = None,
    prior: bytes | None = None,
    checkpoint_interval_s: float = CHECKPOINT_S,
    archives: Sequence[ArchiveReader] | None = None,
    items_archive: ArchiveReader | None = None,
    generation: int = 0,
) -> LearnerLoop[PartitionFold]:
    """Make the learner of one partition of several.

    Args:
        client: this process's own connection.
        spec: the policy.
        salt: the secret that draws are hashed with.
        partition: which one, from 0.
        publish_interval_s: time between two writes of the counts, in seconds.
        merge_interval_s: least time between two merges, in seconds.
        artifact: the version whose sources serve.
        catalogue: the one that came with the artifact.
        prior: the rows that came with it, for a model that has learned nothing.
        checkpoint_interval_s: least time between two checkpoints, in seconds.
        archives: the archive of every partition, if the logs are archived.
        items_archive: that of the log of items.
        generation: that of the deployment; see lease.py.

    Raises:
        SpecError: the spec cannot be learned, or not in partitions.
    """
    spec.learner.check_mergeable()
    # What partition 0 is taught, merges give to the others.
    own_prior = None if partition else prior
    declaration = Declaration(spec, salt, artifact, catalogue, own_prior)

    # All partitions' logs are read; only this one's is written.
    items = ItemsHistory(client, ItemsKeys(spec.shares), items_archive)
    keys = partitions(spec.name, spec.partitions)
    archive_of: Sequence[ArchiveReader | None] = archives or [None] * spec.partitions
    histories = [
        History(client, log_keys, archive)
        for log_keys, archive in zip(keys, archive_of, strict=True)
    ]
    merged = MergedModels(
        client,
        keys[0],
        histories,
        salt=salt,
        items=items,
        root=lambda: partitions_root(read_root(client, keys[0]), histories),
    )
    logs = PolicyLogs(keys, histories, merged, items)
    log = LearnerLog(
        client,
        keys[partition],
        archive=archive_of[partition],
        inbox=PartitionInbox(client, keys, partition, spec.shares),
        generation=generation,
    )
    publisher = MergePublisher(
        log,
        logs,
        declaration,
        merge_interval_s=merge_interval_s,
        stats_interval_s=publish_interval_s,
    )

    fold = partial(
        PartitionFold,
        log.history.blob,
        salt=salt,
        partition=partition,
        merged=logs.merged,
        past=log.past,
    )

    def make_fold(on_checkpoint: OnCheckpoint, on_refused: OnRefused) -> PartitionFold:
        return fold(
            items=ItemsPast(items),
            on_checkpoint=on_checkpoint,
            on_refused=on_refused,
            on_merge=publisher.adopted,
        )

    def beside(digest: str) -> PartitionFold:
        own = ItemsHistory(client, ItemsKeys(spec.shares), items_archive)
        return fold(items=ItemsPast(own), weigh_by=digest)

    # One of the partitions' learners leads the log of items, and holds the quotas: what its own log
    # has is a part of all decisions that was drawn by chance.
    leader = ItemsLeader(client, ItemsKeys(spec.shares), items) if partition == 0 else None
    return LearnerLoop(
        log,
        declaration,
        make_fold,
        publisher,
        items=leader,
        relearning=Relearning(log, spec, beside),
        profiles=_profiles(spec, log, salt),
        quotas=_quotas(spec, log) if partition == 0 else None,
        checkpoint_interval_s=checkpoint_interval_s,
    )


def learner_of_service(
    settings: Settings,
    spec: PolicySpec,
    partition: int,
    trained: Artifact | None,
    generation: int = 0,
) -> LearnerLoop[Fold] | LearnerLoop[PartitionFold]:
    """Make the learner of a policy, or of one of its partitions, as the service runs it.

    Args:
        settings: of the service.
        spec: the policy.
        partition: which one, from 0; 0 where there is one log.
        trained: the artifact whose sources serve, if the spec names one.
        generation: that of the deployment; see lease.py.
    """
    root, count = settings.archive_root(), spec.partitions
    folders = [archive_folder(spec.name, number, count) for number in range(count)] if root else []
    archives = [ArchiveReader(root, folder) for folder in folders]
    items_archive = ArchiveReader(root, shared_folder(spec.shares, "items")) if root else None

    client = blocking_client(str(settings.redis_url))
    salt = settings.secret()
    artifact = trained.version if trained else None
    catalogue = Catalogue.of(trained.catalogue) if trained else None
    prior = prior_of(spec, trained)[0]
    publish_interval_s = settings.publish_interval_ms / 1000

    # A policy in one log has no merges: its entries stay what they always were.
    if count == 1:
        return learner_of_log(
            client,
            spec,
            salt=salt,
            publish_interval_s=publish_interval_s,
            artifact=artifact,
            catalogue=catalogue,
            prior=prior,
            checkpoint_interval_s=settings.checkpoint_interval_s,
            archive=archives[0] if archives else None,
            items_archive=items_archive,
            generation=generation,
        )
    return learner_of_partition(
        client,
        spec,
        salt=salt,
        partition=partition,
        publish_interval_s=publish_interval_s,
        merge_interval_s=settings.merge_interval_ms / 1000,
        artifact=artifact,
        catalogue=catalogue,
        prior=prior,
        checkpoint_interval_s=settings.checkpoint_interval_s,
        archives=archives,
        items_archive=items_archive,
        generation=generation,
    )


def _quotas(spec: PolicySpec, log: LearnerLog) -> QuotaKeeper | None:
    """Return what holds the policy's quotas, if it has any."""
    rules = spec.rules
    quotas = None if rules is None else rules.quotas
    return None if quotas is None else QuotaKeeper(log, spec.digest, quotas)


def _profiles(spec: PolicySpec, log: LearnerLog, salt: bytes) -> PartFeed | None:
    """Return what writes the log's part of the profiles, if the policy has any."""
    if spec.profile is UNSET:
        return None
    name = part_name(log.keys.policy, log.keys.partition)
    writer = PartWriter(log.client, UsersKeys(spec.shares), name)
    rule = partial(rule_now, log.client, spec)

    def read(through: str) -> Iterator[tuple[str, PartChanges]]:
        return PolicyChanges(log.history, log.past, salt).through(through)

    return PartFeed(writer, log.lease, rule, read)
