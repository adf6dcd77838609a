"""Models between a policy's partitions: what each gives, what is merged, and how long they stay."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from bandits.errors import BanditloopError, CodecError, SnapshotError
from bandits.log.codec import digest, encode
from bandits.log.records import MergeInput, MergeRecord
from policies.fold.all_partitions import AllPartitionsFold, PartitionLog, PartitionsRoot
from policies.fold.checkpoint import Cut, decode_state
from policies.items.past import ItemsLog
from serve_app.store.blobs.parts import read_blob, write_blob
from serve_app.store.checkpoints import Root
from serve_app.store.clients import Redis
from serve_app.store.history import History
from serve_app.store.keys import Keys
from serve_app.store.lease import Command, Lease
from serve_app.store.newer_builds import NO_MERGE

KEPT_MERGES = 200
"""Merged models that Vowpal Wabbit's learners may need to resume.

An older one is made again from the logs.
"""

# Decides a merge, once for each number. KEYS: lease, merge, merged, log, blob of the model, which
# lasts if it is the one decided for. ARGV: token, number, record, digest of the model, entry.
DECIDE = """
local newest = tonumber(redis.call('HGET', KEYS[2], 'number') or '0')
if tonumber(ARGV[2]) <= newest then return 0 end
redis.call('PERSIST', KEYS[5])
redis.call('XADD', KEYS[4], '*', 'r', ARGV[5])
redis.call('HSET', KEYS[2], 'number', ARGV[2], 'newest', ARGV[3])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
return 1
"""


class PartitionOffer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A partition's gift to merge ``number``; ``input`` None: nothing new.

    ``model`` is the ``model_digest`` of the spec that it was learned under.
    """

    number: int
    model: str
    input: MergeInput | None

    @classmethod
    def of(cls, number: int, model: str, cut: Cut | None) -> "PartitionOffer":
        """Return the offer of a cut.

        Args:
            number: that of the merge.
            model: the ``model_digest`` of the spec in force.
            cut: where the partition's model was taken; None: there is nothing new.
        """
        if cut is None:
            return cls(number, model, None)
        name = digest(cut.model)
        return cls(number, model, MergeInput(cut.number, cut.position, name, cut.learned))


def read_offer(client: Redis, keys: Keys) -> PartitionOffer | None:
    """Return what a partition offers now; None if it never offered.

    Args:
        client: a connection.
        keys: the partition's.
    """
    raw: Any = client.get(keys.offer)
    return None if raw is None else msgspec.msgpack.decode(raw, type=PartitionOffer)


def read_merge(client: Redis, keys: Keys) -> MergeRecord | None:
    """Return the newest merge; None if there is none.

    Args:
        client: a connection.
        keys: those of partition 0.
    """
    raw: Any = client.hmget(keys.merge, "newest", "record")  # builds of fold 1 write the second
    records = [data for data in raw if data not in (None, NO_MERGE)]
    return msgspec.msgpack.decode(records[0], type=MergeRecord) if records else None


def put_offer(
    client: Redis,
    lease: Lease,
    keys: Keys,
    offer: PartitionOffer,
    cut: Cut | None,
    *,
    keep: str | None,
) -> None:
    """Offer what a partition gives, and forget the models that it offered before.

    Args:
        client: the partition's Redis.
        lease: the partition's, under which all of this is written.
        keys: the partition's.
        offer: what is offered: ``PartitionOffer.of`` the cut.
        cut: where the model was taken; None: there is nothing new.
        keep: the digest of a model offered before that is kept, for it is in the newest merge.

    Raises:
        LeaseLostError: another learner leads this partition.
    """
    encoded = msgspec.msgpack.encode(offer)
    if cut is None or offer.input is None:
        lease.guarded([("SET", keys.offer, encoded)])
        return

    # The blob lasts only once the offer names it.
    name = offer.input.digest
    write_blob(client, keys, name, cut.model)
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


def put_merge(client: Redis, lease: Lease, keys: Keys, record: MergeRecord, model: bytes) -> None:
    """Store a merged model, then decide the merge: its entry, and the pointer that others follow.

    A merge of this number that was decided before, although nobody heard of it, stays as it was.

    Args:
        client: that of partition 0.
        lease: that of partition 0.
        keys: those of partition 0.
        record: the merge.
        model: the bytes of its model.

    Raises:
        LeaseLostError: another learner leads partition 0; there was no merge.
    """
    blob = keys.blob(record.digest)
    write_blob(client, keys, record.digest, model)
    decision = record.number, msgspec.msgpack.encode(record), record.digest, encode(record)
    lease.evaluate(DECIDE, (keys.merge, keys.merged, keys.log, blob), decision)


def forget_merges(client: Redis, lease: Lease, keys: Keys, through: int) -> None:
    """Forget old merged models, but for those that a later merge has as well.

    Args:
        client: that of partition 0.
        lease: that of partition 0.
        keys: those of partition 0.
        through: the number of the last merge whose model is forgotten; below 1: none is.

    Raises:
        LeaseLostError: another learner leads partition 0.
    """
    raw: Any = client.hgetall(keys.merged)
    model_of = {int(number): name.decode() for number, name in raw.items()}
    old = sorted(number for number in model_of if number <= through)
    if not old:
        return

    # Two merges may have given the same model.
    in_use = {name for number, name in model_of.items() if number > through}
    unused = sorted({model_of[number] for number in old} - in_use)
    commands: list[Command] = [("HDEL", keys.merged, *old)]
    if unused:
        commands.append(("DEL", *(keys.blob(name) for name in unused)))
    lease.guarded(commands)


class MergedModels:
    """Finds the model of a merge: remembered, stored, or else made again by folding all logs."""

    def __init__(
        self,
        client: Redis,
        keys: Keys,
        logs: Sequence[PartitionLog],
        *,
        salt: bytes,
        items: ItemsLog | None = None,
        root: Callable[[], PartitionsRoot | None] = lambda: None,
    ) -> None:
        self._items, self._root = items, root
        self._client, self._keys, self._logs, self._salt = client, keys, logs, salt
        self._last: tuple[str, bytes] | None = None
        self._folds: tuple[AllPartitionsFold, int] | None = None

    def remember(self, name: str, model: bytes) -> None:
        """Remember a model that was just made, in place of the one before it.

        Args:
            name: the digest of its bytes.
            model: those bytes.
        """
        self._last = name, model

    def __call__(self, record: MergeRecord) -> bytes:
        """Return the bytes of a merge's model.

        Raises:
            CodecError: it is not stored, and the logs do not give it.
        """
        if self._last is not None and self._last[0] == record.digest:
            return self._last[1]

        model = stored_model(self._client, self._keys, record.digest)
        if model is None:
            model = self._merge_again(record)
        self._last = record.digest, model
        return model

    def _merge_again(self, record: MergeRecord) -> bytes:
        if self._folds is None or self._folds[1] >= record.number:
            folds = AllPartitionsFold(
                self._logs, salt=self._salt, items=self._items, root=self._root()
            )
            self._folds = folds, 0
        folds = self._folds[0]
        self._folds = folds, record.number
        model = folds.model(record.number)
        if digest(model) != record.digest:
            raise CodecError(f"merge {record.number} is not what the logs give", "merge")
        return model


def stored_model(client: Redis, keys: Keys, name: str) -> bytes | None:
    """Return the bytes of a model; None if they are gone, or damaged.

    Args:
        client: a connection.
        keys: those of the partition that stored it.
        name: the digest of its bytes.
    """
    data = read_blob(client, keys, name)
    return data if data is not None and digest(data) == name else None


def model_of_input(
    client: Redis, keys: Keys, merge_input: MergeInput, refold: Callable[[MergeInput], Cut | None]
) -> bytes:
    """Return the model that a partition gave.

    Args:
        client: the partition's Redis.
        keys: the partition's.
        merge_input: what it gave.
        refold: makes the cut again from the partition's log, for a model that is no longer stored.

    Raises:
        SnapshotError: it is not stored, and the log does not give it.
    """
    model = stored_model(client, keys, merge_input.digest)
    if model is not None:
        return model

    # Everything that can be made again from the log is made again from it.
    lost = f"what partition {keys.partition} gave at {merge_input.position} is lost"
    try:
        cut = refold(merge_input)
    except BanditloopError as error:
        raise SnapshotError(lost, "merge") from error
    if cut is None or digest(cut.model) != merge_input.digest:
        raise SnapshotError(lost, "merge")
    return cut.model


def partition_count(client: Redis, policy: str) -> int:
    """Return in how many partitions a policy's log is: its merges, if any, have as many inputs.

    Args:
        client: a connection.
        policy: its name.
    """
    newest = read_merge(client, Keys(policy))
    return 1 if newest is None else len(newest.inputs)


def partitions_root(root: Root | None, histories: Sequence[History]) -> PartitionsRoot | None:
    """Return where the logs of a policy's partitions begin; None: with their first entries.

    Args:
        root: that of partition 0.
        histories: read the logs.

    Raises:
        MissingBlobError, ArchiveError: a state is gone, or what was given to the merge there.
        CodecError: it is none.
    """
    if root is None:
        return None
    pairs = list(zip([root, *root.others], histories, strict=True))
    states = [decode_state(history.blob(each.digest)) for each, history in pairs]
    given = [None if each.given is None else history.blob(each.given) for each, history in pairs]
    return PartitionsRoot(states, given)
