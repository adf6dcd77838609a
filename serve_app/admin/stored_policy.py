"""A policy as commands find it stored: its log, its snapshots, its checkpoints."""

from collections.abc import Sequence
from typing import Any

import msgspec

from bandits.errors import SnapshotError, UnknownPolicyError, UnknownSnapshotError
from bandits.log.positions import log_order
from bandits.log.records import (
    ArtifactRecord,
    CheckpointRecord,
    PinRecord,
    PriorRecord,
    RollbackRecord,
    RootRecord,
    WarmStartRecord,
)
from bandits.types import Snapshot
from policies.archive.archive import ArchiveReader
from policies.fold.checkpoint import Refusal
from policies.fold.verify import ServedSnapshot
from policies.items.catalogue import Catalogue
from policies.items.timeline import ItemTimeline
from policies.profiles.part import MOST_KEPT, CutRule
from policies.profiles.signals import REWARD
from policies.spec import PolicySpec
from serve_app.store.blobs.parts import read_blob
from serve_app.store.checkpoints import Checkpoints, StoredCheckpoint
from serve_app.store.clients import Redis
from serve_app.store.event_log import RedisLog
from serve_app.store.history import History
from serve_app.store.items.history import items_now
from serve_app.store.keys import Keys, UsersKeys
from serve_app.store.merges import partition_count
from serve_app.store.progress import Progress, decode_progress, decode_refusals
from serve_app.store.replicas.artifacts import ServedArtifact, ask_to_load, read_reports
from serve_app.store.snapshots import Head, Published, decode_published
from serve_app.store.spaces import part_name, read_space, space_name, space_of_specs
from serve_app.store.stats import Stats


def policy_names(client: Redis) -> list[str]:
    """Return the names of the policies that have a log here."""
    names: Any = client.scan_iter(match="bl:{*.0}:log", count=1000)
    return sorted(name.decode().removeprefix("bl:{").removesuffix(".0}:log") for name in names)


def chosen_policy(client: Redis, name: str | None) -> str:
    """Return the name of the policy that is meant.

    Args:
        client: a connection.
        name: what was asked for; None: the only one there is.

    Raises:
        UnknownPolicyError: there is none, or there are several and none was named.
    """
    names = policy_names(client)
    meant = the_one(names, name)
    if meant is None:
        problem = (
            "several policies: name one"
            if name is None and names
            else f"no policy {name!r} has a log here"
        )
        raise UnknownPolicyError(f"{problem}; there are {names}", "policy")
    return meant


def the_one(names: Sequence[str], name: str | None) -> str | None:
    """Return the name that is meant; None: it is not among them, or there is not one alone.

    Args:
        names: those that there are.
        name: what was asked for; None: the only one.
    """
    if name is None and len(names) == 1:
        return names[0]
    return name if name in names else None


class StoredPolicy:
    """One policy's snapshots and log; with several partitions, the log of partition 0."""

    def __init__(self, client: Redis, policy: str, archive: ArchiveReader | None = None) -> None:
        self.keys = Keys(policy)
        self.partitions = partition_count(client, policy)
        self.checkpoints = Checkpoints(client, self.keys)
        self.log = RedisLog(client, self.keys)
        self.history = History(client, self.keys, archive)
        self._client = client

    def snapshots(self) -> list[tuple[str, Published | None]]:
        """Return every snapshot that is listed, oldest first, those of checkpoints too.

        A snapshot is None if it is gone or corrupt.
        """
        snapshots = [(name, self._published(name)) for name in self._snapshot_ids()]

        # One that is gone may have been superseded since the list was read: then it is not listed.
        if any(published is None for _, published in snapshots):
            listed = self._snapshot_ids()
            snapshots = [
                (name, published or self._published(name))
                for name, published in snapshots
                if published or name in listed
            ]
        return sorted(
            snapshots, key=lambda pair: log_order(pair[1].position) if pair[1] else (0, 0)
        )

    def _snapshot_ids(self) -> set[str]:
        raw: Any = self._client.lrange(self.keys.snapshots, 0, -1)
        names = {name.decode() for name in raw}
        names |= {checkpoint.snapshot_id for checkpoint in self.checkpoints.list()}
        # A partition's checkpoint may have come before its learner had published.
        return names - {""}

    def _published(self, snapshot_id: str) -> Published | None:
        data = read_blob(self._client, self.keys, snapshot_id)
        try:
            return None if data is None else decode_published(data, snapshot_id)
        except SnapshotError:
            return None

    def snapshot(self, snapshot_id: str) -> Snapshot | None:
        """Return the snapshot of an id; None if it is gone or corrupt."""
        published = self._published(snapshot_id)
        return None if published is None else published.snapshot

    def build_of(self, snapshot_id: str) -> dict[str, str] | None:
        """Return the build that made a snapshot; None if it is gone or corrupt."""
        published = self._published(snapshot_id)
        return None if published is None else published.build

    def find(self, snapshot_id: str) -> tuple[str, Published]:
        """Return the snapshot whose id begins with ``snapshot_id``, and its whole id.

        Raises:
            SnapshotError: none does, several do, or it is corrupt.
        """
        matching = [
            (name, published)
            for name, published in self.snapshots()
            if name.startswith(snapshot_id)
        ]
        if len(matching) != 1:
            several = (
                "several snapshots' ids begin with" if matching else "no stored snapshot has the id"
            )
            raise UnknownSnapshotError(
                f"{several} {snapshot_id!r}: see banditloop snapshots list", "snapshot_id"
            )

        name, published = matching[0]
        if published is None:
            raise SnapshotError(f"snapshot {name} is corrupt", "snapshot_id")
        return name, published

    def head(self) -> str | None:
        """Return the id of the snapshot that is to be served; None before the first."""
        raw: Any = self._client.get(self.keys.head)
        return None if raw is None else msgspec.msgpack.decode(raw, type=Head).snapshot_id

    def artifact(self) -> str | None:
        """Return the version that the newest snapshot is served with; None: nobody said it."""
        head = self.head()
        served = None if head is None else self._published(head)
        return None if served is None else served.artifact

    def catalogue(self) -> Catalogue:
        """Return the newest catalogue.

        Raises:
            ArtifactError, MissingBlobError: it is not stored, or damaged.
        """
        return self.items().newest

    def items(self) -> ItemTimeline:
        """Return the items that there are now.

        Raises:
            ArtifactError, MissingBlobError: they are not stored, or damaged.
        """
        return items_now(self._client, space_name(self._client, self.keys.policy))

    def part_rule(self, spec: PolicySpec) -> CutRule | None:
        """Return what of its users is worth keeping, whatever a spec asks for; None: it has none.

        Args:
            spec: the one in force.
        """
        space = read_space(self._client, spec.shares)
        own, part = space.with_members(space_of_specs(space.name, [spec])), part_name(spec.name, 0)
        if part not in own.parts and not self._client.hexists(UsersKeys(space.name).parts, part):
            return None
        return CutRule(MOST_KEPT, (*own.types, REWARD))

    def ask_for_artifact(self, version: str) -> None:
        """Ask all replicas to load a version beside what they serve; "": none any more."""
        ask_to_load(self._client, self.keys, version)

    def served_artifacts(self) -> dict[str, ServedArtifact]:
        """Return which artifact each replica that runs serves, by the replica's name."""
        return read_reports(self._client, self.keys)

    def progress(self) -> Progress | None:
        """Return how far the learner says that it is, and whether it stands still."""
        raw: Any = self._client.get(self.keys.progress)
        return decode_progress(raw)

    def refusals(self) -> list[Refusal]:
        """Return the entries that were refused last, newest first."""
        raw: Any = self._client.lrange(self.keys.refusals, 0, -1)
        return decode_refusals(raw)

    def stats(self) -> Stats | None:
        """Return what the learner has counted; None before it has."""
        raw: Any = self._client.get(self.keys.stats)
        return None if raw is None else msgspec.msgpack.decode(raw, type=Stats)

    def checkpoint_at(self, position: str) -> StoredCheckpoint:
        """Return the stored checkpoint at exactly this position.

        Raises:
            SnapshotError: there is none.
        """
        stored = {checkpoint.position: checkpoint for checkpoint in self.checkpoints.list()}
        if position not in stored:
            raise SnapshotError(
                f"no checkpoint is stored at {position}: there are {sorted(stored)}", "from"
            )
        return stored[position]

    def control(
        self,
        record: PinRecord
        | RollbackRecord
        | WarmStartRecord
        | PriorRecord
        | ArtifactRecord
        | RootRecord
        | CheckpointRecord,
    ) -> str:
        """Append what a loop is to do to its log, once, though an answer may be lost.

        Returns:
            The entry's position.

        Raises:
            RedisError: not known to be in the log.
        """
        return self.log.append_once(record)

    def served(self) -> tuple[list[ServedSnapshot], list[str]]:
        """Return the snapshots, as a verification wants them, and the ids of corrupt ones."""
        good: list[ServedSnapshot] = []
        corrupt: list[str] = []
        for name, published in self.snapshots():
            if published is None:
                corrupt.append(name)
            else:
                good.append(
                    ServedSnapshot(
                        name,
                        published.snapshot,
                        published.spec,
                        published.catalogue,
                        published.build,
                    )
                )
        return good, corrupt
