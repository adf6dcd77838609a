"""What a caller says that a user did: refused where it means nothing, and an entry of the log."""

import hashlib
from collections.abc import Collection

import msgspec

from banditloop_client.space_schemas import ActivityEvent
from bandits.errors import (
    InvalidFieldError,
    NonFiniteNumberError,
    TimeOutOfRangeError,
    UnknownTypeError,
)
from bandits.log.records import ActivityRecord
from bandits.values import MAX_EVENT_ID_BYTES, MAX_NUMBER
from policies.items.changes import check_item_id
from policies.pseudonyms import check_user_id

FUTURE_MS = 300_000
"""How far a caller's clock may be ahead."""

_encode = msgspec.msgpack.Encoder().encode


def check_event(
    event: ActivityEvent, types: Collection[str], now_ms: float, target: str = ""
) -> None:
    """Refuse an event that can be none; whether there is such an item is not looked at.

    Args:
        event: as the caller sent it.
        types: what users do, as the policies of the space name it.
        now_ms: the time, in milliseconds since 1970.
        target: its path in the request, which errors begin with, and a dot; or nothing.

    Raises:
        InvalidInputError: it names the field.
    """
    check_user_id(event.user_id, f"{target}user_id")
    check_item_id(event.item_id, f"{target}item_id")
    if event.type not in types:
        known = ", ".join(sorted(types))
        raise UnknownTypeError(
            f"no policy of the space has the type {event.type!r}: one of {known}", f"{target}type"
        )
    if event.value is not None and not abs(event.value) <= MAX_NUMBER:  # also catches NaN
        raise NonFiniteNumberError(f"a value is a number up to {MAX_NUMBER:g}", f"{target}value")
    if event.id is not None and not 0 < len(event.id.encode()) <= MAX_EVENT_ID_BYTES:
        raise InvalidFieldError(f"an id has 1 to {MAX_EVENT_ID_BYTES} bytes", f"{target}id")

    time_ms = time_of(event)
    if time_ms is not None and time_ms < 0:
        raise TimeOutOfRangeError("nothing has happened before 1970", f"{target}time")
    if time_ms is not None and time_ms > now_ms + FUTURE_MS:
        raise TimeOutOfRangeError("this is more than 5 minutes in the future", f"{target}time")


def time_of(event: ActivityEvent) -> int | None:
    """Return when it happened, in milliseconds since 1970, if the caller says so."""
    return None if event.time is None else int(event.time.timestamp() * 1000)


def record_of(event: ActivityEvent, user: str, name: str | None) -> ActivityRecord:
    """Return the entry that an event becomes.

    Args:
        event: as the caller sent it.
        user: the pseudonym of its user.
        name: its id.
    """
    return ActivityRecord(user, event.item_id, event.type, event.value, time_of(event), name)


def said_by(event: ActivityEvent, salt: bytes) -> bytes:
    """Return a digest, 16 bytes, of what an event says: whether a retry says the same.

    Args:
        event: as the caller sent it: the pseudonym of its user may be another by the next time.
        salt: the key, 1 to 64 secret bytes.
    """
    said = _encode((event.user_id, event.item_id, event.type, event.value, time_of(event)))
    return hashlib.blake2b(said, key=salt, person=b"activity", digest_size=16).digest()
