"""Models between the partitions of a policy, in Redis: what each gives, what is merged, and how long it is kept."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import redis

from bandits.errors import BanditloopError, CodecError, SnapshotError
from bandits.log.codec import digest, encode
from bandits.log.records import MergeInput, MergeRecord
from policies.fold.all_partitions import PartitionLog, Together
from policies.fold.checkpoint import Cut
from serve_app.store.keys import Keys
from serve_app.store.lease import Command, Lease
from serve_app.store.newer_builds import NO_MERGE
from serve_app.store.snapshots import UNNAMED_S

KEPT_MERGES = 200
"""Merged models that Vowpal Wabbit's learners may need to resume.

An older one is made again from the logs.
"""


# Once for each number. KEYS: lease, merge, merged, log, blob of the model, which lasts if it is the
# one decided for. ARGV: token, number, record, digest of the model, entry.
DECIDE = """
local newest = tonumber(redis.call('HGET', KEYS[2], 'number') or '0')
if tonumber(ARGV[2]) <= newest then return 0 end
redis.call('PERSIST', KEYS[5])
redis.call('XADD', KEYS[4], '*', 'r', ARGV[5])
redis.call('HSET', KEYS[2], 'number', ARGV[2], 'newest', ARGV[3])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
return 1
"""


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a partition gives to merge ``number``; ``input`` None: nothing new.

    ``model`` is the ``model_digest`` of the spec that it was learned under.
    """

    number: int
    model: str
    input: MergeInput | None

    @classmethod
    def of(cls, number: int, model: str, cut: Cut | None) -> "Offer":
        """Return the offer of a cut, or of nothing new."""
        if cut is None:
            return cls(number, model, None)
        given = MergeInput(cut.number, cut.position, digest(cut.model), cut.learned)
        return cls(number, model, given)


def read_offer(client: "redis.Redis", keys: Keys) -> Offer | None:
    """What a partition offers now."""
    raw: Any = client.get(keys.offer)
    return None if raw is None else msgspec.msgpack.decode(raw, type=Offer)


def read_merge(client: "redis.Redis", keys: Keys) -> MergeRecord | None:
    """The newest merge. ``keys``: of partition 0."""
    raw: Any = client.hmget(keys.merge, "newest", "record")  # builds of fold 1 write the second
    known = [each for each in raw if each not in (None, NO_MERGE)]
    return msgspec.msgpack.decode(known[0], type=MergeRecord) if known else None


def put_offer(
    client: "redis.Redis", lease: Lease, offer: Offer, cut: Cut | None, *, keep: str | None
) -> None:
    """Offer what a partition gives, and forget the models that it offered before.

    Args:
        client: the partition's Redis.
        lease: the partition's, under which all of this is written.
        offer: what is offered: ``Offer.of`` the cut.
        cut: where the model was taken; None: there is nothing new.
        keep: the digest of a model offered before that is kept, for it is in the newest merge.

    Raises:
        LeaseLostError: another learner leads this partition.
    """
    keys, encoded = lease.keys, msgspec.msgpack.encode(offer)
    if cut is None or offer.input is None:
        lease.guarded([("SET", keys.offer, encoded)])
        return

    name = offer.input.digest
    client.set(keys.blob(name), cut.model, nx=True, ex=UNNAMED_S)
    commands: list[Command] = [
        ("PERSIST", keys.blob(name)),
        ("LREM", keys.offers, 0, name),
        ("LPUSH", keys.offers, name),
        ("SET", keys.offer, encoded),
        ("LRANGE", keys.offers, 1, -1),
    ]
    *_, earlier = lease.guarded(commands)

    unused = sorted({raw.decode() for raw in earlier} - {keep})
    if unused:
        forgotten: list[Command] = [("LREM", keys.offers, 0, name) for name in unused]
        lease.guarded([*forgotten, ("DEL", *(keys.blob(name) for name in unused))])


def put_merge(
    client: "redis.Redis", lease: Lease, keys: Keys, record: MergeRecord, model: bytes
) -> None:
    """Store a merged model, then decide the merge: its entry, and the pointer that the other partitions follow.

    A merge of this number that was decided before, although nobody heard of it, stays as it was.

    Raises:
        LeaseLostError: another learner leads partition 0; there was no merge.
    """
    blob = keys.blob(record.digest)
    client.set(blob, model, nx=True, ex=UNNAMED_S)
    decision = record.number, msgspec.msgpack.encode(record), record.digest, encode(record)
    lease.evaluate(DECIDE, (keys.merge, keys.merged, keys.log, blob), decision)


def forget_merges(client: "redis.Redis", lease: Lease, keys: Keys, through: int) -> None:
    """Forget the merged models up to merge ``through``."""
    held: Any = client.hgetall(keys.merged)
    known = {int(number): name.decode() for number, name in held.items()}
    in_use = {name for number, name in known.items() if number > through}
    old = sorted(number for number in known if number <= through)
    if not old:
        return
    commands: list[Command] = [("HDEL", keys.merged, *old)]
    unused = sorted({known[number] for number in old} - in_use)
    if unused:
        commands.append(("DEL", *(keys.blob(name) for name in unused)))
    lease.guarded(commands)


class MergedModels:
    """The model of a merge by its entry: remembered, stored, or else made again by folding all logs together."""

    def __init__(
        self, client: "redis.Redis", keys: Keys, logs: Sequence[PartitionLog], *, salt: bytes
    ) -> None:
        self._client, self._keys, self._logs, self._salt = client, keys, logs, salt
        self._last: tuple[str, bytes] | None = None
        self._together: tuple[Together, int] | None = None

    def remember(self, name: str, model: bytes) -> None:
        """One that was just made."""
        self._last = name, model

    def __call__(self, record: MergeRecord) -> bytes:
        """The bytes of a merge's model.

        Raises:
            CodecError: it is not stored, and the logs do not give it.
        """
        if self._last is not None and self._last[0] == record.digest:
            return self._last[1]
        model = stored_model(self._client, self._keys, record.digest)
        if model is None:
            model = self._again(record)
        self._last = record.digest, model
        return model

    def _again(self, record: MergeRecord) -> bytes:
        if self._together is None or self._together[1] >= record.number:
            self._together = Together(self._logs, salt=self._salt), 0
        together = self._together[0]
        self._together = together, record.number
        model = together.model(record.number)
        if digest(model) != record.digest:
            raise CodecError(f"merge {record.number} is not what the logs give", "merge")
        return model


def stored_model(client: "redis.Redis", keys: Keys, name: str) -> bytes | None:
    """A model by its digest; None if it is gone, or not what its name says."""
    data: Any = client.get(keys.blob(name))
    return bytes(data) if data is not None and digest(data) == name else None


def given_model(
    client: "redis.Redis", keys: Keys, given: MergeInput, refold: Callable[[MergeInput], Cut | None]
) -> bytes:
    """What a partition gave; if it is not stored any more, from its log.

    Raises:
        SnapshotError: neither.
    """
    model = stored_model(client, keys, given.digest)
    if model is None:
        try:
            cut = refold(given)
        except BanditloopError as error:
            raise SnapshotError(
                f"what partition {keys.partition} gave at {given.position} is lost", "merge"
            ) from error
        if cut is None or digest(cut.model) != given.digest:
            raise SnapshotError(
                f"what partition {keys.partition} gave at {given.position} is lost", "merge"
            )
        model = cut.model
    return model


def partition_count(client: "redis.Redis", policy: str) -> int:
    """In how many partitions a policy's log is: only of several there are merges, of as many inputs."""
    newest = read_merge(client, Keys(policy))
    return 1 if newest is None else len(newest.inputs)
