"""Checkpoints in Redis: where a learner resumes from, and where a rollback refolds from."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from bandits.errors import BanditloopError, SnapshotError
from bandits.log.codec import digest
from bandits.log.positions import has_reached, is_after, log_order, position_ms
from policies.fold.checkpoint import FoldState, decode_state
from serve_app.store.blobs.parts import read_blob, write_blob
from serve_app.store.clients import Redis
from serve_app.store.keys import Keys, LogKeys
from serve_app.store.lease import Command, Lease

RECENT = 10
HOURS = 24
DAYS = 32
"""So many that one of them is 30 days old, at whatever hour, and a log can be cut there."""
HOUR_MS, DAY_MS = 3_600_000, 86_400_000

log = logging.getLogger("banditloop.checkpoints")


class StoredCheckpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A checkpoint and the snapshot of the same position, by digest."""

    position: str
    digest: str
    snapshot_id: str
    learned: int

    @property
    def time_ms(self) -> int:
        """Its time, on the log's clock."""
        return position_ms(self.position)


class Root(msgspec.Struct, frozen=True):
    """Where a log begins, of which nothing older needs to be kept: with the state of a checkpoint.

    Attributes:
        position: the checkpoint's.
        digest: that of its bytes.
        learned: how many interactions were learned there.
        needed: the oldest entry that whoever begins there reads.
        entry: the position of the RootRecord.
        profiles, given: see RootRecord.
        others: at the root of a policy's partition 0 those of the other partitions, which are of
            the same merge; a root of theirs that is not here was stated by whoever did not finish.
    """

    position: str
    digest: str
    learned: int
    needed: str
    entry: str
    profiles: str | None = None
    given: str | None = None
    others: list["Root"] = []

    @property
    def checkpoint(self) -> StoredCheckpoint:
        """The checkpoint that it is; no snapshot is kept for it."""
        return StoredCheckpoint(self.position, self.digest, "", self.learned)

    @property
    def learned_in_all(self) -> int:
        """How many interactions were learned there, in all partitions."""
        return self.learned + sum(each.learned for each in self.others)


def read_root(client: Redis, keys: LogKeys) -> Root | None:
    """Return where a log begins, if it has been cut.

    Args:
        client: a connection.
        keys: the log's.
    """
    raw: Any = client.get(keys.root)
    return None if raw is None else msgspec.msgpack.decode(raw, type=Root)


def write_root(client: Redis, keys: LogKeys, root: Root) -> None:
    """Have a log begin at a root, which an entry says.

    Args:
        client: a connection.
        keys: the log's.
        root: where.
    """
    client.set(keys.root, msgspec.msgpack.encode(root))


class Checkpoints:
    """The checkpoints of one log: read by anybody, written under the lease."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def list(self) -> list[StoredCheckpoint]:
        """Return what is stored, newest first."""
        raw: Any = self._client.lrange(self._keys.checkpoints, 0, -1)
        checkpoints = [msgspec.msgpack.decode(data, type=StoredCheckpoint) for data in raw]
        return sorted(
            checkpoints, key=lambda checkpoint: log_order(checkpoint.position), reverse=True
        )

    def load(self, stored: StoredCheckpoint) -> bytes:
        """Return the bytes of a checkpoint.

        Raises:
            SnapshotError: they are gone, or not those of its digest.
        """
        data = read_blob(self._client, self._keys, stored.digest)
        if data is None or digest(data) != stored.digest:
            problem = "gone" if data is None else "corrupt"
            raise SnapshotError(f"the checkpoint at {stored.position} is {problem}", "checkpoint")
        return data

    def state(self, stored: StoredCheckpoint) -> FoldState:
        """Return a checkpoint, decoded.

        Raises:
            SnapshotError, CodecError: it cannot be read.
        """
        return decode_state(self.load(stored))

    def newest(self, position: str | None = None) -> FoldState | None:
        """Return the newest checkpoint at or before ``position`` that can be read, if any."""
        for stored in self.list():
            if position is not None and is_after(stored.position, position):
                continue
            try:
                return self.state(stored)
            except BanditloopError as error:
                log.warning("%s: an older one is used", error.message)

        # Of a log that begins at a root nothing older can be read.
        root = self.root()
        if root is None or (position is not None and is_after(root.position, position)):
            return None
        try:
            return self.state(root.checkpoint)
        except BanditloopError as error:
            log.warning("%s: the log's root cannot be used", error.message)
            return None

    def root(self) -> Root | None:
        """Return where the log begins, if it has been cut."""
        return read_root(self._client, self._keys)

    def begin_at(self, root: Root, *, archived: str) -> None:
        """Have the log begin at a root, which an entry says.

        The state of the root before goes: whoever asks for it finds it in the archive.

        Args:
            root: where.
            archived: the last entry that is in the archive, with all that entries name.
        """
        before = self.root()
        write_root(self._client, self._keys, root)
        if before is None or not has_reached(archived, before.entry):
            return
        in_use = {root.digest, *(each.digest for each in self.list())}
        if before.digest not in in_use:
            self._client.unlink(self._keys.blob(before.digest))

    def store(
        self,
        lease: Lease,
        position: str,
        data: bytes,
        snapshot_id: str,
        *,
        keep: Iterable[str],
        archived: bool = False,
    ) -> None:
        """Store a checkpoint whose snapshot is stored, and forget those not worth their space.

        Args:
            lease: the log's.
            position: that of the checkpoint's entry.
            data: the checkpoint's bytes.
            snapshot_id: the snapshot to keep as long as the checkpoint.
            keep: snapshots that are needed for other reasons.
            archived: whether what is trimmed from the stream is read from an archive. Then nothing
                behind the checkpoint is needed there.

        Raises:
            LeaseLostError: another learner leads.
        """
        state = decode_state(data)
        stored = StoredCheckpoint(position, digest(data), snapshot_id, state.learned)
        earlier = [checkpoint for checkpoint in self.list() if checkpoint.position != position]
        kept = worth_keeping([stored, *earlier])
        forgotten = [checkpoint for checkpoint in earlier if checkpoint not in kept]

        # The blob comes first, and lasts only once the list names it.
        write_blob(self._client, self._keys, stored.digest, data)
        encoded = msgspec.msgpack.encode(stored)
        commands: list[Command] = [
            ("PERSIST", self._keys.blob(stored.digest)),
            ("PERSIST", self._keys.blob(snapshot_id)),
            ("LREM", self._keys.checkpoints, 0, encoded),
            ("LPUSH", self._keys.checkpoints, encoded),
            ("SET", self._keys.needed, position if archived else state.needed),
        ]
        commands += [
            ("LREM", self._keys.checkpoints, 0, msgspec.msgpack.encode(checkpoint))
            for checkpoint in forgotten
        ]

        # A snapshot that is still listed goes when it leaves that list: see publish.
        listed: Any = self._client.lrange(self._keys.snapshots, 0, -1)
        in_use = {*keep, *(name.decode() for name in listed)}
        in_use |= {name for checkpoint in kept for name in _blobs_of(checkpoint)}
        root = self.root()
        in_use |= set() if root is None else {root.digest}
        unused = {name for checkpoint in forgotten for name in _blobs_of(checkpoint)} - in_use
        commands += [("UNLINK", self._keys.blob(name)) for name in sorted(unused)]
        lease.guarded(commands)


def worth_keeping(stored: Sequence[StoredCheckpoint]) -> list[StoredCheckpoint]:
    """Return the newest ones, the last of each of some hours, and the last of each of some days."""
    newest_first = sorted(
        stored, key=lambda checkpoint: log_order(checkpoint.position), reverse=True
    )
    kept = {checkpoint.position for checkpoint in newest_first[:RECENT]}

    for length_ms, count in ((HOUR_MS, HOURS), (DAY_MS, DAYS)):
        last_of_each: dict[int, StoredCheckpoint] = {}
        for checkpoint in newest_first:
            last_of_each.setdefault(checkpoint.time_ms // length_ms, checkpoint)
        kept |= {checkpoint.position for checkpoint in list(last_of_each.values())[:count]}
    return [checkpoint for checkpoint in newest_first if checkpoint.position in kept]


def _blobs_of(checkpoint: StoredCheckpoint) -> tuple[str, str]:
    return checkpoint.digest, checkpoint.snapshot_id
