"""The inbox, for producers that cannot speak HTTP: what is valid moves into the log."""

import logging
import math
import time
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from banditloop_client.schemas import Item, ItemPatch
from bandits.errors import BanditloopError, CodecError
from bandits.features.hashing import partition_of
from bandits.log.codec import MALFORMED, decode, encode
from bandits.log.records import ActivationRecord, ItemChange, ItemsRecord, RewardRecord
from policies.items.changes import (
    check_change,
    check_lengths,
    decode_item,
    decode_patch,
    encode_item,
)
from policies.requests import plain_features, plain_patch
from serve_app.store.clients import Redis
from serve_app.store.event_log import APPEND_REMEMBERED, FIELD
from serve_app.store.keys import REMEMBERED_S, ItemsKeys, Keys
from serve_app.store.lease import Lease
from serve_app.store.replicas.artifacts import read_vector_lengths

JSON_FIELD = b"json"
MAX_MOVED = 500
LENGTHS_S = 0.5
"""How long it is remembered what replicas say of the items' vectors: so often they say it."""
UNTOLD_S = 5.0
"""Within so long replicas have read what was moved, and told of it."""
# Once, however often it is asked. KEYS: inbox, memory. ARGV: record, seconds to remember.
GIVE_ONCE = """
if redis.call('SET', KEYS[2], 1, 'NX', 'EX', ARGV[2]) then
  redis.call('XADD', KEYS[1], '*', 'r', ARGV[1])
end
return 1
"""

# Each once, however often it is asked: what is no longer in the inbox has been moved. KEYS: lease,
# inbox, log. ARGV: token, and of each entry its id and the record, empty for what goes nowhere.
MOVE = """
for at = 2, #ARGV, 2 do
  if redis.call('XDEL', KEYS[2], ARGV[at]) == 1 and ARGV[at + 1] ~= '' then
    redis.call('XADD', KEYS[3], '*', 'r', ARGV[at + 1])
  end
end
return 1
"""

log = logging.getLogger("banditloop.inbox")


class InboxReward(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="reward", tag_field="type"
):
    """``{"type": "reward", "event_id": …, "value": …}``, and the HTTP API's optional fields."""

    event_id: str
    value: float
    reward_id: str | None = None
    slot: int | None = None
    action_id: str | None = None
    signal: str | None = None


class InboxActivation(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="activation", tag_field="type"
):
    """``{"type": "activation", "event_id": …}``."""

    event_id: str


class InboxItem(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="item", tag_field="type"
):
    """``{"type": "item", "op": "put", "item": {…}}``: an item as the HTTP API takes it.

    Or ``{"type": "item", "op": "patch", "id": …, "patch": {…}}``, or, with ``"op": "delete"``, the
    ``id`` alone.
    """

    op: Literal["put", "patch", "delete"]
    id: str | None = None
    item: Item | None = None
    patch: ItemPatch | None = None

    def change(self) -> ItemChange:
        """Return the change of items that it asks for.

        Raises:
            CodecError: it lacks a field.
        """
        if self.op == "put" and self.item is not None:
            return ItemChange("put", self.item.id, encode_item(self.item))
        if self.op == "patch" and self.patch is not None and self.id is not None:
            return ItemChange("patch", self.id, encode_item(self.patch))
        if self.op == "delete" and self.id is not None:
            return ItemChange("delete", self.id)
        lacks = {"put": "item", "patch": "id and patch", "delete": "id"}[self.op]
        raise CodecError(f"an item is {self.op} with {lacks}", "op")


_json = msgspec.json.Decoder(InboxReward | InboxActivation | InboxItem)


class _Vectors:
    """The vectors of items, as far as the policy's sources compare them: all are of one length.

    Replicas know how long. Until they do, the first one that comes says it.
    """

    def __init__(self, client: Redis, policy: str) -> None:
        self._client, self._keys = client, Keys(policy)
        self._lengths: dict[str, int] = {}
        self._asked_at = -math.inf
        # What was moved a moment ago, and no replica has told of yet.
        self._first: dict[str, int] = {}
        self._first_at = 0.0

    def check(self, record: ItemsRecord) -> None:
        """Refuse vectors that cannot be compared with those of the other items.

        Raises:
            VectorLengthError: it names the vector.
            RedisError: it is not known how long the others are.
        """
        changed = [each for each in record.changes if b'"vectors"' in each.fields]
        now = time.monotonic()
        if changed and now - self._asked_at > LENGTHS_S:
            self._lengths, self._asked_at = read_vector_lengths(self._client, self._keys), now
        if now - self._first_at > UNTOLD_S:
            self._first.clear()

        for change in changed:
            is_put = change.op == "put"
            made = decode_item(change.fields) if is_put else decode_patch(change.fields)
            vectors = {} if made.vectors is msgspec.UNSET else made.vectors or {}
            said = {
                name: length or self._first.get(name, 0) for name, length in self._lengths.items()
            }
            check_lengths(vectors, said, "item." if is_put else "patch.")

            first = {name: len(vectors[name] or ()) for name in said.keys() & vectors.keys()}
            first = {name: length for name, length in first.items() if length and not said[name]}
            if first:
                self._first, self._first_at = {**self._first, **first}, now


class Inbox:
    """Moves events from the inbox to the log, and changes of items to the log of items.

    ``refused`` counts what was no valid event, and was dropped.
    """

    def __init__(self, client: Redis, keys: Keys, space: str | None = None) -> None:
        """Move what the inbox of ``keys`` gets.

        Args:
            client: this process's own connection.
            keys: the partition's.
            space: the one whose items the policy shares; None: its own.
        """
        self._client = client
        self._keys = keys
        self._items = ItemsKeys(space or keys.policy)
        self._vectors = _Vectors(client, keys.policy)
        self.moved = 0
        self.refused = 0

    def move(self, lease: Lease) -> int:
        """Move what is there, at most MAX_MOVED events; return how many entries were taken.

        A crash leaves an event either in the inbox or in the log.

        Raises:
            LeaseLostError: another learner leads; nothing was moved.
        """
        raw: Any = self._client.xrange(self._keys.inbox, count=MAX_MOVED)
        if not raw:
            return 0

        # What is no event, or is for another inbox, moves as nothing.
        moves: list[bytes] = []
        refused = 0
        for entry_id, fields in raw:
            moved = b""
            try:
                record = event_of(fields)
                if isinstance(record, ItemsRecord):
                    self._vectors.check(record)
            except BanditloopError as error:
                refused += 1
                log.warning(
                    "inbox entry %s is dropped: %s: %s",
                    entry_id.decode(),
                    error.target,
                    error.message,
                )
            else:
                if isinstance(record, ItemsRecord):
                    self._change_items(entry_id.decode(), record)
                elif not self._passed_on(entry_id.decode(), record):
                    moved = encode(record)
            moves += [entry_id, moved]

        lease.evaluate(MOVE, (self._keys.inbox, self._keys.log), moves)
        self.refused += refused
        self.moved += len(raw) - refused
        return len(raw)

    def _change_items(self, entry_id: str, record: ItemsRecord) -> None:
        """Append a change of items once, though this leader may die before it is gone from here."""
        keys = self._items
        memory = keys.appended(f"inbox:{self._keys.tag}:{entry_id}")
        self._client.eval(APPEND_REMEMBERED, 2, keys.log, memory, encode(record), REMEMBERED_S)

    def _passed_on(self, _entry_id: str, _record: RewardRecord | ActivationRecord) -> bool:
        """Pass an event on that is for another inbox; say whether it was."""
        return False


class PartitionInbox(Inbox):
    """The inbox of one partition of several.

    An event may be left in any of their inboxes: it is passed on to that of its log. Passing on is
    repeated when the leader dies before the event is gone from here; the other inbox remembers for
    REMEMBERED_S which events it has been given.
    """

    def __init__(
        self, client: Redis, keys: Sequence[Keys], partition: int, space: str | None = None
    ) -> None:
        """Move what the inbox of one partition gets.

        Args:
            client: this process's own connection.
            keys: those of all partitions.
            partition: which.
            space: the one whose items the policy shares; None: its own.
        """
        super().__init__(client, keys[partition], space)
        self._all = keys

    def _passed_on(self, entry_id: str, record: RewardRecord | ActivationRecord) -> bool:
        there = self._all[partition_of(record.event_id, len(self._all))]
        if there == self._keys:
            return False
        memory = there.passed_on(f"{self._keys.partition}:{entry_id}")
        self._client.eval(GIVE_ONCE, 2, there.inbox, memory, encode(record), REMEMBERED_S)
        return True


def _asked(data: bytes) -> InboxReward | InboxActivation | InboxItem:
    """Return what an entry asks for; its features may be in any form that the HTTP API takes.

    Raises:
        MsgspecError, RecursionError: it is no event.
        InvalidInputError: it names the feature at fault.
    """
    asked: InboxReward | InboxActivation | InboxItem
    try:
        asked = _json.decode(data)
    except msgspec.ValidationError:
        raw: Any = msgspec.json.decode(data)
        if not isinstance(raw, dict):
            raise
        for name, plain in (("item", plain_features), ("patch", plain_patch)):
            part = raw.get(name)
            if isinstance(part, dict) and isinstance(part.get("features"), dict):
                part["features"] = plain(part["features"], f"{name}.features")
        asked = msgspec.convert(raw, _json.type)
    return asked


InboxEvent = RewardRecord | ActivationRecord | ItemsRecord


def event_of(fields: dict[bytes, bytes]) -> InboxEvent:
    """Return an inbox entry's event: a record in field ``r``, or a JSON object in field ``json``.

    Raises:
        CodecError: it is neither, or no reward, activation or change of items; it names the field.
            A decision is refused because only a replica knows its propensity.
        ArtifactError, InvalidInputError: an item is none, or cannot be offered.
    """
    if JSON_FIELD in fields:
        try:
            asked = _asked(fields[JSON_FIELD])
        except MALFORMED as error:
            message, _, where = str(error).partition(" - at `")
            raise CodecError(
                message, where.rstrip("`").removeprefix("$").removeprefix(".") or "json"
            ) from error

        event: InboxEvent
        if isinstance(asked, InboxActivation):
            event = ActivationRecord(asked.event_id)
        elif isinstance(asked, InboxItem):
            event = ItemsRecord([asked.change()])
        else:
            event = RewardRecord(
                asked.event_id,
                asked.value,
                asked.reward_id,
                asked.slot,
                asked.action_id,
                asked.signal,
            )
        record = decode(encode(event))  # the same checks as any entry's
    else:
        record = decode(fields.get(FIELD, b""))

    if isinstance(record, ItemsRecord):
        for change in record.changes:
            check_change(change)
    elif not isinstance(record, RewardRecord | ActivationRecord):
        raise CodecError("an inbox takes rewards, activations and changes of items", "type")
    return record
