"""Sweeping from Redis what nothing names any more: old catalogues, and what a crash left behind.

Every blob is one of two kinds. What an entry of the log names (a spec, a catalogue, a prior, a
trained model) goes once the archive holds it, unless an open decision, a snapshot that is kept or a
model to come refers to it: whoever folds the log again reads it there. What the learner has made (a
snapshot, a checkpoint, a model to be merged) goes when no list names it. Nothing is deleted at
once: it expires, and whoever names it again before makes it last.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from redis.cluster import RedisCluster

from bandits.errors import ArchiveError, BanditloopError
from policies.archive.archive import ArchiveReader
from policies.fold.fold import Fold
from serve_app.store.blobs.parts import UNNAMED_S, read_blob
from serve_app.store.checkpoints import Checkpoints
from serve_app.store.clients import Redis
from serve_app.store.keys import Keys, LogKeys
from serve_app.store.lease import Command, Lease
from serve_app.store.merges import read_merge, read_offer
from serve_app.store.snapshots import Head, decode_published

SWEEP_S = 600.0
FIRST_S = 30.0
HEAD_BYTES = 8
SNAPSHOT, MODELS = b"\xa4kind", (b"\xa4args", b"\xa6hashes")
"""How MessagePack begins a map whose first key is this: a snapshot; a model of VW or of ridge."""
CHECKPOINTS = range(0x9D, 0xA0)
"""How it begins an array of 13 to 15 fields."""

log = logging.getLogger("banditloop.sweep")


def is_made(head: bytes) -> bool:
    """Say whether a blob that begins so is what a learner makes, and no entry of a log names."""
    if not head:
        return False
    is_map = head[0] & 0xF0 == 0x80
    return head[0] in CHECKPOINTS or (is_map and head[1:].startswith((SNAPSHOT, *MODELS)))


class StoredBlobs:
    """The blobs of one log in Redis."""

    def __init__(self, client: Redis, keys: LogKeys, archive: ArchiveReader | None) -> None:
        """Look at what ``keys`` name; ``archive`` keeps the log, if there is one."""
        self._client, self._keys, self._archive = client, keys, archive

    def names(self) -> Iterator[str]:
        """Yield the digest of each."""
        prefix, client = self._keys.blob(""), self._client
        at: dict[str, Any] = {}
        if isinstance(client, RedisCluster):
            at["target_nodes"] = client.get_node_from_key(prefix)
        for key in client.scan_iter(match=f"{prefix}*", count=1000, **at):
            yield key.decode().removeprefix(prefix)

    def each(self, command: str, names: Iterable[str], *arguments: int) -> list[Any]:
        """Return the answers to a command about each blob.

        Args:
            command: of Redis.
            names: the blobs' digests.
            arguments: what follows the key.
        """
        pipeline: Any = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.execute_command(command, self._keys.blob(name), *arguments)
        return list(pipeline.execute())

    def is_archived(self, name: str) -> bool:
        """Say whether the archive has a blob.

        Raises:
            ArchiveError: it has it, but damaged.
        """
        if self._archive is None or not self._archive.has_blob(name):
            return False
        self._archive.blob(name)
        return True


class Sweep:
    """Sweeps one partition; its leader does that."""

    def __init__(
        self, client: Redis, keys: Keys, lease: Lease, archive: ArchiveReader | None
    ) -> None:
        """Sweep what ``keys`` name, under ``lease``; ``archive`` keeps the log, if there is one."""
        self._client, self._keys, self._lease = client, keys, lease
        self._blobs = StoredBlobs(client, keys, archive)
        self._due = time.monotonic() + FIRST_S
        self._refers: dict[str, tuple[str, ...]] = {}

    def sweep_if_due(self, fold: Fold) -> None:
        """Sweep once in SWEEP_S.

        A sweep that fails, say because the archive does not answer, is tried again then.

        Raises:
            LeaseLostError, RedisError: see ``Lease.guarded``.
        """
        if time.monotonic() < self._due:
            return

        self._due = time.monotonic() + SWEEP_S
        try:
            self.sweep(fold)
        except (OSError, ArchiveError) as error:
            log.warning(
                "policy %s: what nothing names is not swept up: %s", self._keys.policy, error
            )

    def sweep(self, fold: Fold) -> list[str]:
        """Let everything expire that nothing names; return the digests.

        Raises:
            LeaseLostError, RedisError: see ``Lease.guarded``.
            OSError, ArchiveError: the archive cannot be read.
        """
        made, referred = self._named(fold)
        stored = list(self._blobs.names())

        # A blob that nothing refers to may go if it can be made again from the log, or if the
        # archive has it. Any other, say a spec of long ago, stays until it is archived.
        unnamed = [name for name in stored if name not in made and name not in referred]
        heads = self._blobs.each("GETRANGE", unnamed, 0, HEAD_BYTES)
        ttls = self._blobs.each("TTL", unnamed)
        expiring = {name for name, ttl in zip(unnamed, ttls, strict=True) if ttl != -1}
        going = [
            name
            for name, head in zip(unnamed, heads, strict=True)
            if name not in expiring and (is_made(head) or self._blobs.is_archived(name))
        ]

        # A blob that something refers to is kept, also if an earlier sweep let it expire.
        lasting: list[Command] = [
            ("PERSIST", self._keys.blob(name)) for name in sorted(referred & set(stored))
        ]

        if lasting or going:
            self._lease.guarded(
                [*lasting, *(("EXPIRE", self._keys.blob(name), UNNAMED_S) for name in going)]
            )
        if going:
            log.info(
                "policy %s: %d blobs that nothing names go in %d s",
                self._keys.policy,
                len(going),
                UNNAMED_S,
            )
        return going

    def _named(self, fold: Fold) -> tuple[set[str], set[str]]:
        """Return two sets of digests: what was made here and is listed, and what is referred to.

        The second are specs, catalogues and the newest prior.
        """
        client, keys = self._client, self._keys
        listed: Any = client.lrange(keys.snapshots, 0, -1)
        offers: Any = client.lrange(keys.offers, 0, -1)
        merged: Any = client.hvals(keys.merged)
        raw: Any = client.get(keys.head)
        checkpoints = Checkpoints(client, keys).list()

        # Snapshots: listed, of checkpoints, pinned, served.
        snapshots = {name.decode() for name in listed}
        snapshots |= {checkpoint.snapshot_id for checkpoint in checkpoints}
        if fold.pinned is not None:
            snapshots.add(fold.pinned)
        if raw is not None:
            snapshots.add(msgspec.msgpack.decode(raw, type=Head).snapshot_id)

        # Models: of checkpoints, offered, merged.
        made = snapshots | {name.decode() for name in (*offers, *merged)}
        made |= {checkpoint.digest for checkpoint in checkpoints}
        offer, merge = read_offer(client, keys), read_merge(client, keys)
        if offer is not None and offer.input is not None:
            made.add(offer.input.digest)
        if merge is not None:
            made.add(merge.digest)

        # Specs and catalogues: in force, of open decisions, of the snapshots. Of priors the newest,
        # which the next model is taught.
        referred = {fold.catalogue.digest}
        if fold.spec_id is not None:
            referred.add(fold.spec_id)
        for spec, catalogue in fold.join.names():
            referred |= {spec, catalogue}
        if fold.prior is not None:
            referred.add(fold.prior.digest)
        referred |= {digest for name in snapshots for digest in self._refers_to(name)}
        self._refers = {name: refs for name, refs in self._refers.items() if name in snapshots}
        return made, referred

    def _refers_to(self, name: str) -> tuple[str, ...]:
        """Return the spec and the catalogue of a snapshot; nothing for one that is gone."""
        if name not in self._refers:
            data = read_blob(self._client, self._keys, name)
            try:
                published = decode_published(data or b"", name)
                self._refers[name] = published.spec, published.catalogue
            except BanditloopError:
                self._refers[name] = ()
        return self._refers[name]
