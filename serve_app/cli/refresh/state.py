"""A stored policy as a refresh looks at it: what serves, and its log with rewards."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from bandits.errors import (
    ArchiveError,
    ArtifactError,
    RefreshError,
    SpecError,
    StoreUnreadableError,
    plain,
)
from bandits.log.join import JoinedDecision
from bandits.log.positions import START, is_after, log_order, position_at, position_ms
from bandits.log.records import ErasureRecord, LogEntry, MergeUsersRecord
from bandits.types import Snapshot
from policies.archive.archive import ArchiveReader, archive_folder
from policies.archive.shared import shared_folder
from policies.artifacts.fetch import load_artifact, load_version
from policies.artifacts.source_artifact import Artifact
from policies.data.data_set import DataSet
from policies.fold.named_blobs import NamedBlobs
from policies.items.past import ItemsPast
from policies.pseudonyms import person_key
from policies.spec import ArtifactSource, PolicySpec, decode_spec
from serve_app.admin.control import stored_spec
from serve_app.admin.readable_logs import position_since
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.settings import Settings
from serve_app.store.checkpoints import Checkpoints
from serve_app.store.clients import Redis
from serve_app.store.history import History, LogPast
from serve_app.store.items.history import ItemsHistory, items_of_policy
from serve_app.store.keys import ActivityKeys, UsersKeys, partitions
from serve_app.store.snapshots import Published
from serve_app.store.users.reading import pseudonyms_of
from simulator.refresh.course import PolicyState
from simulator.refresh.rewarded import joined_decisions, merged_by_time


@dataclass(frozen=True, slots=True)
class StoredLogs:
    """The logs of a policy's partitions, to be read in the order of time."""

    histories: list[History]
    pasts: list[LogPast]
    archives: list[ArchiveReader | None]

    @classmethod
    def of(cls, stored: StoredPolicy, client: Redis, settings: Settings) -> "StoredLogs":
        """Open the logs.

        Args:
            stored: the policy.
            client: of its Redis.
            settings: they say where the archive is.
        """
        count, root = stored.partitions, settings.archive_root()
        name = stored.keys.policy
        archives = [
            ArchiveReader(root, archive_folder(name, number, count)) if root else None
            for number in range(count)
        ]
        keys = partitions(name, count)
        histories = [
            History(client, log, archive) for log, archive in zip(keys, archives, strict=True)
        ]
        pasts = [
            LogPast(history, Checkpoints(client, log))
            for history, log in zip(histories, keys, strict=True)
        ]
        return cls(histories, pasts, archives)

    def decisions(self, spec: PolicySpec, after: str) -> Iterator[JoinedDecision]:
        """Yield the decisions past a position whose windows have closed, with their rewards.

        Args:
            spec: the one in force.
            after: the position.
        """
        logs = zip(self.histories, self.pasts, self.archives, strict=True)
        return merged_by_time(
            joined_decisions(
                history.encoded(_kept_after(archive, after)),
                spec,
                partial(_spec_of, history),
                past,
            )
            for history, past, archive in logs
        )


def _spec_of(history: History, name: str) -> PolicySpec:
    return decode_spec(history.blob(name))


def _kept_after(archive: ArchiveReader | None, after: str) -> str:
    """Return a position from which on the archive is whole: its oldest files may be gone."""
    first = None if archive is None else next(archive.each_range(), None)
    if first is None or not is_after(first.range.previous, after):
        return after
    return first.range.previous


def policy_state(
    stored: StoredPolicy,
    client: Redis,
    settings: Settings,
    spec: PolicySpec,
    *,
    since: str | None,
    window_ms: int,
    data: str | None,
    note: Callable[[str], None],
) -> PolicyState:
    """Return a policy as it serves, with its log.

    Args:
        stored: the policy.
        client: of its Redis.
        settings: of the service.
        spec: the file's, which says where the artifact is.
        since: where to begin in the log; None: ``window_ms`` before its end.
        window_ms: how far back to read.
        data: a data set beside the log.
        note: told what is to be said.

    Raises:
        RefreshError: nothing serves yet.
        SpecError: the spec is of another model than the one that serves.
        StoreUnreadableError: the store of artifacts does not answer.
    """
    head = stored.head()
    if head is None:
        raise RefreshError(
            f"{spec.name} has no model yet: there is nothing to compare with; serve it first",
            "policy",
        )
    published = stored.find(head)[1]
    in_force = stored_spec(stored, published.spec)
    if in_force.model_digest != spec.model_digest:
        raise SpecError(
            "its kind, use or learner are others than those that serve: serve this spec first",
            "spec",
        )

    # Where the artifact is, the log does not say.
    served = msgspec.structs.replace(
        in_force, artifact=spec.artifact, profiles=spec.profiles, sources=spec.sources
    )
    logs = StoredLogs.of(stored, client, settings)
    end = stored.history.end()
    after = (
        position_since(since, end)
        if since is not None
        else position_at(position_ms(end) - window_ms)
    )
    activity = partial(_activity, client, served.shares, settings, after)
    blobs = NamedBlobs(stored.history.blob, ItemsPast(_items_of(stored, client, settings)))
    return PolicyState(
        spec=served,
        salt=settings.secret(),
        snapshot=published.snapshot,
        serving=_serving(spec, stored.artifact(), note),
        items=stored.items(),
        catalogue_of=blobs.catalogue,
        decisions=lambda: logs.decisions(served, after),
        snapshot_before=partial(_snapshot_before, stored, published),
        from_ms=position_ms(after),
        data=None if data is None else DataSet.open(data).coded(),
        activity=None if served.profile is msgspec.UNSET else activity,
        persons=partial(_persons, client, served.shares, settings.secret()),
    )


def _items_of(stored: StoredPolicy, client: Redis, settings: Settings) -> ItemsHistory:
    """Open the log of the policy's items."""
    return items_of_policy(client, stored.keys.policy, settings.archive_root())


def _activity(client: Redis, space: str, settings: Settings, after: str) -> Iterator[LogEntry]:
    """Yield what the users of a space did past a position, as far as it is kept.

    Who was merged or erased is told of all times, first.
    """
    root, reached = settings.archive_root(), START
    archive = ArchiveReader(root, shared_folder(space, "activity")) if root else None
    history = History(client, ActivityKeys(space), archive)
    begin = _kept_after(archive, after)

    # Of what is archived only such entries are read.
    if archive is not None:
        reached = min(archive.end, begin, key=log_order)
        kept = _kept_after(archive, START)
        yield from archive.entries(kept, reached, kinds=["merge_users", "erasure"])
    for entry in history.encoded(reached, begin) if is_after(begin, reached) else ():
        if isinstance(entry.record, MergeUsersRecord | ErasureRecord):
            yield entry
    yield from history.encoded(begin)


def _persons(client: Redis, space: str, salt: bytes, user_ids: Sequence[str]) -> dict[str, str]:
    """Return what each user is logged under, by their ids; only of those whom the space knows."""
    keys = {person_key(salt, user_id): user_id for user_id in user_ids}
    found = pseudonyms_of(client, UsersKeys(space), list(keys))
    return {keys[key]: name for key, name in found.items() if key in keys}


def _snapshot_before(stored: StoredPolicy, served: Published, time_ms: int) -> Snapshot | None:
    """Return the newest snapshot of before a time whose model is of the served one's shape."""
    shape = stored_spec(stored, served.spec).model_digest
    for _, published in reversed(stored.snapshots()):
        if (
            published is not None
            and position_ms(published.position) < time_ms
            and published.learned
            and stored_spec(stored, published.spec).model_digest == shape
        ):
            return published.snapshot
    return None


def _serving(spec: PolicySpec, version: str | None, note: Callable[[str], None]) -> Artifact | None:
    """Return the artifact that serves; None if it is nowhere any more."""
    if spec.artifact is None or not any(isinstance(each, ArtifactSource) for each in spec.sources):
        raise SpecError(
            f"policy {spec.name} has no source of kind artifact: there is nothing to refresh",
            "sources",
        )
    try:
        if version is None:
            return load_artifact(spec.artifact)
        return load_version(spec.artifact, version)
    except ArtifactError as error:
        note(f"the artifact that serves, {version}, cannot be had: {error.message}")
        return None
    except (ArchiveError, OSError) as error:
        raise StoreUnreadableError(
            f"the store of artifacts cannot be read here: {plain(error)}", "artifact"
        ) from error
