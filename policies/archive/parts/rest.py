"""The rest that columns leave of a record, and the record put together from both.

From layout 2 on the columns hold the parts of decisions and rewards. Beside them stands the
same record with those parts emptied: the kind, the policy, and how many fields the build that wrote
it knew. An entry whose bytes would not come out the same (fields of a later build, another encoder)
stays whole.
"""

from functools import lru_cache

import msgspec

from bandits.log.codec import VERSION, encode
from bandits.log.records import DecisionRecord, LogRecord, RewardRecord
from policies.archive.arrays import INT64_MAX
from policies.archive.parts.ruled import fits

EMPTY_DECISION = DecisionRecord("", "", "", "", "", {}, [], None, {}, b"", [])
EMPTY_REWARD = RewardRecord("", 0.0)
ALL_ELEMENTS = {kind: len(kind.__struct_fields__) + 1 for kind in (DecisionRecord, RewardRecord)}
"""Elements of a record's array, its kind's name the first, as this build writes it."""
_LEAST = {DecisionRecord: 12, RewardRecord: 3}
"""How many it must have."""


def encode_first(record: DecisionRecord | RewardRecord, count: int) -> bytes:
    """Return the bytes of a record as a build wrote it that knew only its first fields.

    Args:
        record: whose other fields have their defaults.
        count: how many elements the array has, the kind's name included.
    """
    if count == ALL_ELEMENTS[type(record)]:
        return encode(record)
    fields = [
        record.__struct_config__.tag,
        *(getattr(record, name) for name in record.__struct_fields__),
    ]
    return bytes((VERSION,)) + msgspec.msgpack.encode(fields[:count])


def rest_of(record: LogRecord | None, data: bytes) -> bytes:
    """Return what the columns leave of an entry; all of it, if it could not be made again.

    Args:
        record: what it says, None if it does not decode.
        data: its bytes.
    """
    if not isinstance(record, DecisionRecord | RewardRecord) or not _fits(record):
        return data

    kind = type(record)
    count = ALL_ELEMENTS[kind]
    if encode(record) != data:
        count = _elements(data)
        if not _LEAST[kind] <= count < ALL_ELEMENTS[kind] or encode_first(record, count) != data:
            return data
    return _emptied(kind, record.policy if isinstance(record, DecisionRecord) else "", count)


def _fits(record: DecisionRecord | RewardRecord) -> bool:
    """Return whether the columns hold all that a record says."""
    if isinstance(record, RewardRecord):
        return record.slot is None or record.slot < INT64_MAX
    return (record.holdout or not record.unserved) and fits(record.rules)


def emptied_decision(policy: str, count: int) -> bytes:
    """Return what the columns leave of a decision.

    Args:
        policy: its policy.
        count: how many elements its array has.
    """
    return _emptied(DecisionRecord, policy, count)


@lru_cache(maxsize=256)
def _emptied(kind: type[DecisionRecord | RewardRecord], policy: str, count: int) -> bytes:
    if kind is RewardRecord:
        return encode_first(EMPTY_REWARD, count)
    return encode_first(msgspec.structs.replace(EMPTY_DECISION, policy=policy), count)


def _elements(data: bytes) -> int:
    """Return the length of the msgpack array in a record's bytes, 0 if its head is another."""
    head = data[1]
    if head & 0xF0 == 0x90:
        return head & 0x0F
    return int.from_bytes(data[2:4], "big") if head == 0xDC else 0


_HEADS = {
    str(empty.__struct_config__.tag): tuple(
        encode_first(empty, count).partition(b"\xa0")[0] + b"\xa0"
        for count in range(_LEAST[kind], ALL_ELEMENTS[kind] + 1)
    )
    for kind, empty in ((DecisionRecord, EMPTY_DECISION), (RewardRecord, EMPTY_REWARD))
}
"""By kind, how emptied records begin: with an event_id of no bytes, which no whole one has."""


def is_emptied(kind: str, stored: bytes) -> bool:
    """Return whether a row's ``record`` is what the columns leave of it.

    Args:
        kind: "decision" or "reward".
        stored: the bytes of ``record``.
    """
    return stored.startswith(_HEADS[kind])


@lru_cache(maxsize=256)
def elements_and_policy(emptied: bytes) -> tuple[int, str]:
    """Return of an emptied record how many elements the whole one has, and a decision's policy."""
    fields = msgspec.msgpack.decode(emptied[1:])
    return len(fields), str(fields[2])
