"""Publishing snapshots, and following them: blobs named by content, and one pointer to the newest."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import msgspec
import redis
import redis.asyncio
from redis.exceptions import RedisError

from bandits.codec import digest
from bandits.errors import BanditloopError, SnapshotError
from bandits.types import Snapshot
from policies.catalogue import Catalogue
from serve_app.keys import Keys

KEPT_SNAPSHOTS = 20
LOADS_KEPT = 20_000

log = logging.getLogger("banditloop.snapshots")


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A snapshot with the digests of the spec and catalogue it goes with. Its own digest is its id."""

    kind: str
    position: str
    learned: int
    payload: bytes
    spec: str
    catalogue: str

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot itself."""
        return Snapshot(self.kind, self.position, self.learned, self.payload)


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pointer to the newest snapshot."""

    snapshot_id: str
    position: str
    spec: str


def publish(client: "redis.Redis", keys: Keys, snapshot: Snapshot, *, spec: str, catalogue: str) -> str:
    """Store a snapshot, then point to it; forget the oldest. Returns its id."""
    data = msgspec.msgpack.encode(
        Published(snapshot.kind, snapshot.position, snapshot.learned, snapshot.payload, spec, catalogue)
    )
    snapshot_id = digest(data)
    pipeline = client.pipeline(transaction=True)
    pipeline.set(keys.blob(snapshot_id), data)
    pipeline.lrem(keys.snapshots, 0, snapshot_id)
    pipeline.lpush(keys.snapshots, snapshot_id)
    pipeline.set(keys.head, msgspec.msgpack.encode(Head(snapshot_id, snapshot.position, spec)))
    pipeline.lrange(keys.snapshots, KEPT_SNAPSHOTS, -1)
    pipeline.ltrim(keys.snapshots, 0, KEPT_SNAPSHOTS - 1)
    *_, forgotten, _ = pipeline.execute()
    if forgotten:
        client.delete(*(keys.blob(old.decode()) for old in forgotten))
    return snapshot_id


def decode_published(data: bytes, snapshot_id: str) -> Published:
    """A snapshot whose bytes are those its id names.

    Raises:
        SnapshotError: they are not.
    """
    if digest(data) != snapshot_id:
        raise SnapshotError("the snapshot's bytes do not match its digest", "snapshot_id")
    try:
        return msgspec.msgpack.decode(data, type=Published)
    except msgspec.MsgspecError as error:
        raise SnapshotError(f"not a snapshot: {error}", "snapshot_id") from error


def _decode_head(data: bytes) -> Head:
    try:
        return msgspec.msgpack.decode(data, type=Head)
    except msgspec.MsgspecError as error:
        raise SnapshotError(f"not a pointer to a snapshot: {error}", "head") from error


class Follower:
    """Keeps one replica's policy at the newest snapshot. ``accept`` builds and swaps; it may refuse (SnapshotError)."""

    def __init__(
        self,
        client: "redis.asyncio.Redis",
        keys: Keys,
        accept: Callable[[str, Published, Catalogue], None],
        *,
        replica: str,
        interval_s: float,
    ) -> None:
        self._client = client
        self._keys = keys
        self._accept = accept
        self._replica = replica
        self._interval_s = interval_s
        self._catalogue = Catalogue()
        self._seen: str | None = None
        self.failures = 0

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self.step()
            except (RedisError, OSError) as error:
                log.warning("snapshots cannot be read (%s): serving the previous one", type(error).__name__)
            except BanditloopError as error:
                self.failures += 1
                log.warning("snapshot refused, serving the previous one: %s", error.message)
            await asyncio.sleep(self._interval_s)

    async def step(self) -> bool:
        """Load the newest snapshot if it is new. True when one was swapped in."""
        raw: Any = await self._client.get(self._keys.head)
        if raw is None:
            return False
        head = _decode_head(raw)
        if head.snapshot_id == self._seen:
            return False
        data: Any = await self._client.get(self._keys.blob(head.snapshot_id))
        if data is None:
            return False  # superseded between the two reads
        try:
            published = decode_published(data, head.snapshot_id)
            if published.catalogue != self._catalogue.digest:
                self._catalogue = await self._load_catalogue(published.catalogue)
            await asyncio.to_thread(self._accept, head.snapshot_id, published, self._catalogue)
        except BanditloopError:
            self._seen = head.snapshot_id  # refused once is refused for good; a lost connection is tried again
            raise
        self._seen = head.snapshot_id
        with contextlib.suppress(RedisError, OSError):
            await self._client.xadd(
                self._keys.loads,
                {"replica": self._replica, "position": published.position},
                maxlen=LOADS_KEPT,
                approximate=True,
            )
        return True

    async def _load_catalogue(self, catalogue_digest: str) -> Catalogue:
        data: Any = await self._client.get(self._keys.blob(catalogue_digest))
        if data is None:
            raise SnapshotError(f"catalogue {catalogue_digest} is not stored", "catalogue")
        return await asyncio.to_thread(Catalogue.decode, data)
