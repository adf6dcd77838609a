"""Publishing and following snapshots: blobs named by content, and one pointer to the newest."""

import asyncio
import contextlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import msgspec

from bandits.errors import BanditloopError, SnapshotError
from bandits.log.codec import MALFORMED, digest
from bandits.log.versions import fold_version
from bandits.types import Snapshot
from policies.rules.quotas.quota import Control
from serve_app.store.blobs.parts import read_blob_async, write_blob
from serve_app.store.clients import FAILURES, AsyncRedis, Redis
from serve_app.store.keys import Keys
from serve_app.store.lease import Command, Lease
from serve_app.store.replicas.shared_pipeline import SharedPipeline
from serve_app.store.replicas.shared_wire import SharedWire, reason_of

KEPT_SNAPSHOTS = 20
LOADS_KEPT = 5_000
RETRY_S = 0.5
QUIET_S, QUIET_AFTER_S = 0.25, 2.0
"""Time between two looks where nothing was written or found for so long."""

log = logging.getLogger("banditloop.snapshots")


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A snapshot, the digests of the spec and catalogue it goes with, and the build that made it.

    ``artifact``: the version whose sources it is to be served with; None: the log says none, or an
    earlier build published it. The digest of all this is its id.
    """

    kind: str
    position: str
    learned: int
    payload: bytes
    spec: str
    catalogue: str
    build: dict[str, str] = {}
    artifact: str | None = None
    trends: bytes | msgspec.UnsetType = msgspec.UNSET

    @property
    def encoded(self) -> bytes:
        """The bytes of its blob; without an artifact, as earlier builds wrote them."""
        if self.artifact is not None:
            return msgspec.msgpack.encode(self)
        fields = msgspec.structs.asdict(self)
        del fields["artifact"]
        if self.trends is msgspec.UNSET:
            del fields["trends"]
        return msgspec.msgpack.encode(fields)

    @property
    def snapshot_id(self) -> str:
        """The digest of its blob."""
        return digest(self.encoded)

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot alone."""
        trends = None if self.trends is msgspec.UNSET else self.trends
        return Snapshot(
            self.kind, self.position, self.learned, self.payload, fold_version(self.build), trends
        )


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The pointer to the snapshot that is to be served: the newest, or a pinned one.

    ``control``: the state of the quotas' controller to serve it with; None: there is none.
    """

    snapshot_id: str
    control: Control | None = None


def publish(
    client: Redis,
    lease: Lease,
    keys: Keys,
    published: Published,
    *,
    pinned: str | None = None,
    kept: Collection[str] = (),
    control: Control | None = None,
) -> str:
    """Store a snapshot, point to it, forget the oldest, and return the snapshot's id.

    A crash after any step leaves a head whose snapshot is stored.

    Args:
        client: the partition's Redis.
        lease: the partition's.
        keys: the partition's.
        published: the snapshot.
        pinned: the one to point to instead, while it is stored.
        kept: those whose bytes stay when they are no longer listed.
        control: the state of the quotas' controller to serve it with.

    Raises:
        LeaseLostError: another learner leads.
    """
    data = published.encoded
    snapshot_id = digest(data)
    write_blob(client, keys, snapshot_id, data)
    raw: Any = client.lrange(keys.snapshots, 0, -1)
    earlier = [name.decode() for name in raw]
    listed = [snapshot_id, *(name for name in earlier if name != snapshot_id)]
    stays = listed[:KEPT_SNAPSHOTS]

    # A pin is obeyed for as long as it can be.
    served = snapshot_id
    if pinned is not None and client.exists(keys.blob(pinned)):
        served = pinned
        stays += [] if pinned in stays else [pinned]
    elif pinned is not None:
        log.error(
            "snapshot %s of policy %s is pinned, and gone: the newest is served",
            pinned,
            keys.policy,
        )

    # Nothing depends on an answer: run once or, because an answer was lost, again, the end is the
    # same.
    unused = [name for name in listed if name not in stays and name not in kept]
    commands: list[Command] = [
        ("PERSIST", keys.blob(snapshot_id)),
        ("PERSIST", keys.blob(published.catalogue)),
        ("DEL", keys.snapshots),
        ("RPUSH", keys.snapshots, *stays),
        ("SET", keys.head, msgspec.msgpack.encode(Head(served, control))),
    ]
    commands += [("UNLINK", keys.blob(name)) for name in unused]
    lease.guarded(commands)
    return snapshot_id


def point_with(client: Redis, lease: Lease, keys: Keys, control: Control | None) -> None:
    """Have what is served be served with another state of the quotas' controller.

    Args:
        client: the partition's Redis.
        lease: the partition's.
        keys: the partition's.
        control: the state.

    Raises:
        LeaseLostError: another learner leads.
    """
    raw: Any = client.get(keys.head)
    if raw is None:
        return  # the first snapshot brings it
    head = _decode_head(raw)
    if head.control != control:
        head = msgspec.structs.replace(head, control=control)
        lease.guarded([("SET", keys.head, msgspec.msgpack.encode(head))])


def decode_published(data: bytes, snapshot_id: str) -> Published:
    """Return the snapshot in a blob.

    Args:
        data: the blob.
        snapshot_id: what its digest has to be.

    Raises:
        SnapshotError: it is not, or the blob is no snapshot.
    """
    if digest(data) != snapshot_id:
        raise SnapshotError("the snapshot's bytes do not match its digest", "snapshot_id")

    try:
        return msgspec.msgpack.decode(data, type=Published)
    except MALFORMED as error:
        raise SnapshotError(f"not a snapshot: {error}", "snapshot_id") from error


def _decode_head(data: bytes | None) -> Head:
    if data is None:
        raise SnapshotError("the pointer to the newest snapshot is gone", "head")

    try:
        return msgspec.msgpack.decode(data, type=Head)
    except MALFORMED as error:
        raise SnapshotError(f"not a pointer to a snapshot: {error}", "head") from error


class Beside(Protocol):
    """Something else that is followed, asked for in the same message to Redis."""

    def ask(self, pipeline: Any) -> Any:
        """Add its commands to a pipeline; return what ``take`` is to know of them."""
        ...

    async def take(self, question: Any, answers: Sequence[Any]) -> bool:
        """Take the answers; return whether anything was new.

        Args:
            question: what ``ask`` has returned.
            answers: one for each command.
        """
        ...


class Follower:
    """Keeps one replica's policy at the newest snapshot, and what is followed ``beside`` it.

    ``accept`` builds and swaps; it may refuse (SnapshotError). ``steer`` is told of another state
    of the quotas' controller, once there is a snapshot to serve with it.

    ``failures`` counts, by reason, the attempts after which the previous snapshot kept serving:
    ``head`` (the pointer is gone, or is none), ``missing`` (a blob is not stored), ``corrupt`` (a
    blob's bytes are not those of its name), ``refused`` (for another spec, or of another kind), or
    one of ``shared_wire.reason_of``.
    """

    def __init__(
        self,
        client: AsyncRedis,
        keys: Keys,
        accept: Callable[[str, Published], None],
        beside: Beside,
        *,
        replica: str,
        interval_s: float,
        steer: Callable[[Control | None], None] = lambda _: None,
        wire: SharedWire | None = None,
    ) -> None:
        """Follow the head of one policy.

        Args:
            client: the replica's.
            keys: those of partition 0.
            accept: called in a thread with a snapshot's id and the snapshot.
            beside: what else is followed.
            replica: the replica's name, for its reports of what it has loaded.
            interval_s: time between two looks, in seconds.
            steer: called with a state of the quotas' controller, when it is another.
            wire: what the replica writes and reads by; it looks by it, too. None: by the client.
        """
        self._client = client
        self._wire = wire
        self._keys = keys
        self._accept = accept
        self._replica = replica
        self._interval_s = interval_s

        self._beside = beside
        self._steer = steer
        self._control: Control | None = None
        self._accepted = False
        self._seen: str | None = None
        self._found_at = -math.inf
        self._stopped = False
        self.failures: Counter[str] = Counter()

    def stop(self) -> None:
        """End ``run`` after its step.

        Cancelling it as well spares the wait, but a client may swallow the cancellation.
        """
        self._stopped = True

    async def run(self) -> None:
        """Follow until stopped or cancelled.

        A failure is logged once, and tried again after RETRY_S.
        """
        logged = ""
        while not self._stopped:
            try:
                await self.step()
            except Exception as error:
                # Each attempt would say the same; what was not expected comes with its trace.
                why = error.message if isinstance(error, BanditloopError) else type(error).__name__
                if why != logged:
                    expected = isinstance(error, (*FAILURES, BanditloopError))
                    log.warning(
                        "snapshots cannot be read (%s): serving the previous one",
                        why,
                        exc_info=not expected,
                    )
                logged = why
                await asyncio.sleep(RETRY_S)
            else:
                logged = ""
                await asyncio.sleep(self._rest_s())

    def _rest_s(self) -> float:
        """Return how long to wait for the next look: longer where nothing happens for a while.

        What is learned is of what was asked; what others have asked shows in the snapshots.
        """
        now = asyncio.get_running_loop().time()
        written_at = self._found_at if self._wire is None else self._wire.written_at
        since_s = now - max(self._found_at, written_at)
        if not self._accepted or since_s < QUIET_AFTER_S or self._interval_s >= QUIET_S:
            return self._interval_s
        # All of a process look at the same moments, and so in one message.
        return QUIET_S - now % QUIET_S

    async def step(self) -> bool:
        """Load the newest snapshot if it is new; return whether one was swapped in."""
        try:
            swapped, found = await self._step()
        except Exception as error:
            self.failures[_reason_of(error)] += 1
            raise
        if swapped or found:
            self._found_at = asyncio.get_running_loop().time()
        return swapped

    async def _step(self) -> tuple[bool, bool]:
        """Return whether a snapshot was swapped in, and whether anything else was new."""
        pipeline = self._pipeline()
        pipeline.get(self._keys.head)
        question = self._beside.ask(pipeline)
        raw, *answers = await pipeline.execute()

        # Neither waits for the other, also where a snapshot waits for its artifact to be loaded.
        # What keeps one back is reported, and tried again.
        try:
            head = self._new_head(raw)
        except SnapshotError:
            await self._beside.take(question, answers)
            raise
        if head is None:
            return False, await self._beside.take(question, answers)

        loading = asyncio.ensure_future(self._load(head))
        try:
            found = await self._beside.take(question, answers)
            while not (await asyncio.wait([loading], timeout=self._interval_s))[0]:
                found |= await self._step_beside()
        except asyncio.CancelledError:
            loading.cancel()
            raise
        finally:
            await loading
        return True, found

    async def _step_beside(self) -> bool:
        """Look at what is followed beside; return whether anything was new."""
        pipeline = self._pipeline()
        question = self._beside.ask(pipeline)
        return await self._beside.take(question, await pipeline.execute())

    def _pipeline(self) -> Any:
        wire = self._wire
        return self._client.pipeline(transaction=False) if wire is None else SharedPipeline(wire)

    def _new_head(self, raw: Any) -> Head | None:
        """Return what the head says, if it is of another snapshot than the one that was seen."""
        if raw is None and self._seen is None:
            return None  # nothing has been published yet
        head = _decode_head(raw)
        if head.snapshot_id != self._seen:
            return head
        self._take_control(head.control)
        return None

    async def _load(self, head: Head) -> None:
        """Swap in the snapshot of a head, and report it."""
        # What is refused once is refused for good; what could not be read is tried again.
        published = decode_published(await self._blob(head.snapshot_id), head.snapshot_id)
        try:
            await asyncio.to_thread(self._accept, head.snapshot_id, published)
        except BanditloopError:
            self._seen = head.snapshot_id
            raise
        self._seen, self._accepted = head.snapshot_id, True
        self._take_control(head.control)

        # The report of what is loaded is for freshness alone: it may be lost.
        with contextlib.suppress(*FAILURES):
            await self._client.xadd(
                self._keys.loads,
                {"replica": self._replica, "position": published.position},
                maxlen=LOADS_KEPT,
                approximate=True,
            )

    def _take_control(self, control: Control | None) -> None:
        if self._accepted and control != self._control:
            self._steer(control)
            self._control = control

    async def _blob(self, name: str) -> bytes:
        data = await read_blob_async(self._client, self._keys, name)
        if data is None:
            raise SnapshotError(f"blob {name} is not stored", "blob")
        return data


_REASONS_BY_TARGET = {
    "head": "head",
    "blob": "missing",
    "snapshot_id": "corrupt",
    "catalogue": "corrupt",
}
SNAPSHOT_REASONS = ("head", "missing", "corrupt", "refused")
"""Why a snapshot is not loaded, where Redis is not to blame."""


def _reason_of(error: Exception) -> str:
    if isinstance(error, BanditloopError):
        return _REASONS_BY_TARGET.get(error.target or "", "refused")
    return reason_of(error)
