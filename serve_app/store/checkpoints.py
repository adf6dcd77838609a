"""Checkpoints in Redis: where a learner resumes from, and where a rollback refolds from."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import redis

from bandits.errors import BanditloopError, SnapshotError
from bandits.log.codec import digest
from bandits.log.positions import is_after, log_order, position_ms
from policies.fold.checkpoint import FoldState, decode_state
from serve_app.store.keys import Keys
from serve_app.store.lease import Command, Lease
from serve_app.store.snapshots import UNNAMED_S

RECENT = 10
HOURS = 24
DAYS = 30

log = logging.getLogger("banditloop.checkpoints")


class StoredCheckpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A checkpoint and the snapshot of the same position, by digest."""

    position: str
    digest: str
    snapshot_id: str
    learned: int

    @property
    def time_ms(self) -> int:
        """Log time."""
        return position_ms(self.position)


class Checkpoints:
    """Reads what is stored; writes under a lease."""

    def __init__(self, client: "redis.Redis", keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def list(self) -> list[StoredCheckpoint]:
        """Newest first."""
        raw: Any = self._client.lrange(self._keys.checkpoints, 0, -1)
        found = [msgspec.msgpack.decode(each, type=StoredCheckpoint) for each in raw]
        return sorted(found, key=lambda stored: log_order(stored.position), reverse=True)

    def load(self, stored: StoredCheckpoint) -> bytes:
        """The bytes of a checkpoint.

        Raises:
            SnapshotError: they are gone, or not those of its digest.
        """
        data: Any = self._client.get(self._keys.blob(stored.digest))
        if data is None or digest(data) != stored.digest:
            problem = "gone" if data is None else "corrupt"
            raise SnapshotError(f"the checkpoint at {stored.position} is {problem}", "checkpoint")
        return bytes(data)

    def state(self, stored: StoredCheckpoint) -> FoldState:
        """A checkpoint, decoded.

        Raises:
            SnapshotError, CodecError: it cannot be read.
        """
        return decode_state(self.load(stored))

    def newest(self, position: str | None = None) -> FoldState | None:
        """The newest checkpoint (at or before ``position``) that can be read."""
        for stored in self.list():
            if position is not None and is_after(stored.position, position):
                continue
            try:
                return self.state(stored)
            except BanditloopError as error:
                log.warning("%s: an older one is used", error.message)
        return None

    def store(
        self, lease: Lease, position: str, data: bytes, snapshot_id: str, *, keep: Iterable[str]
    ) -> None:
        """Store a checkpoint whose snapshot is stored already, and forget those that are no longer worth their space.

        ``keep``: snapshots that are needed for other reasons.
        """
        state = decode_state(data)
        stored = StoredCheckpoint(position, digest(data), snapshot_id, state.learned)
        known = [each for each in self.list() if each.position != position]
        kept = worth_keeping([stored, *known])
        forgotten = [each for each in known if each not in kept]
        self._client.set(self._keys.blob(stored.digest), data, nx=True, ex=UNNAMED_S)
        encoded = msgspec.msgpack.encode(stored)
        commands: list[Command] = [
            ("PERSIST", self._keys.blob(stored.digest)),
            ("PERSIST", self._keys.blob(snapshot_id)),
            ("LREM", self._keys.checkpoints, 0, encoded),
            ("LPUSH", self._keys.checkpoints, encoded),
            ("SET", self._keys.needed, state.needed),
        ]
        commands += [
            ("LREM", self._keys.checkpoints, 0, msgspec.msgpack.encode(each)) for each in forgotten
        ]
        # goes when it leaves the list: see publish
        listed: Any = self._client.lrange(self._keys.snapshots, 0, -1)
        in_use = {*keep, *(name.decode() for name in listed)}
        in_use |= {name for each in kept for name in (each.snapshot_id, each.digest)}
        unused = {name for each in forgotten for name in (each.digest, each.snapshot_id)} - in_use
        commands += [("UNLINK", self._keys.blob(name)) for name in sorted(unused)]
        lease.guarded(commands)


def worth_keeping(stored: Sequence[StoredCheckpoint]) -> list[StoredCheckpoint]:
    """The newest ones, the last of each of some hours, and the last of each of some days."""
    newest_first = sorted(stored, key=lambda each: log_order(each.position), reverse=True)
    kept = {each.position: each for each in newest_first[:RECENT]}
    for length_ms, count in ((3_600_000, HOURS), (86_400_000, DAYS)):
        buckets: dict[int, StoredCheckpoint] = {}
        for each in newest_first:
            buckets.setdefault(each.time_ms // length_ms, each)
        kept |= {each.position: each for each in list(buckets.values())[:count]}
    return [each for each in newest_first if each.position in kept]
