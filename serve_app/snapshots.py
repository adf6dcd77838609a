"""Publishing snapshots, and following them: blobs named by content, and one pointer to the newest."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
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
from serve_app.lease import Lease

KEPT_SNAPSHOTS = 20
LOADS_KEPT = 20_000
UNNAMED_S = 600
"""A blob that is stored but never named (its writer died in between) goes away by itself."""

log = logging.getLogger("banditloop.snapshots")


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A snapshot with the digests of the spec and catalogue it goes with, and the build that made it.

    The digest of all this is its id.
    """

    kind: str
    position: str
    learned: int
    payload: bytes
    spec: str
    catalogue: str
    build: dict[str, str] = {}

    @property
    def encoded(self) -> bytes:
        """Its blob."""
        return msgspec.msgpack.encode(self)

    @property
    def snapshot_id(self) -> str:
        """The digest of its blob."""
        return digest(self.encoded)

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot itself."""
        return Snapshot(self.kind, self.position, self.learned, self.payload)


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pointer to the snapshot that is to be served: the newest, or a pinned one."""

    snapshot_id: str


def publish(
    client: "redis.Redis",
    lease: Lease,
    keys: Keys,
    published: Published,
    *,
    pinned: str | None = None,
    kept: Collection[str] = (),
) -> str:
    """Store a snapshot and point to it (or to the pinned one); forget the oldest, but for those ``kept``.

    Returns its id. A crash after any step leaves a head whose snapshot is stored.

    Raises:
        LeaseLostError: another learner leads.
    """
    data = published.encoded
    snapshot_id = digest(data)
    client.set(keys.blob(snapshot_id), data, nx=True, ex=UNNAMED_S)
    head = msgspec.msgpack.encode(Head(pinned or snapshot_id))
    *_, forgotten, _ = lease.guarded(
        [
            ("PERSIST", keys.blob(snapshot_id)),
            ("LREM", keys.snapshots, 0, snapshot_id),
            ("LPUSH", keys.snapshots, snapshot_id),
            ("SET", keys.head, head),
            ("LRANGE", keys.snapshots, KEPT_SNAPSHOTS, -1),
            ("LTRIM", keys.snapshots, 0, KEPT_SNAPSHOTS - 1),
        ]
    )
    old_ids = {old.decode() for old in forgotten}
    if pinned is not None and pinned in old_ids:
        lease.guarded([("RPUSH", keys.snapshots, pinned)])
    unused = old_ids.difference(kept, [pinned])
    if unused:
        client.delete(*(keys.blob(old) for old in sorted(unused)))
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
