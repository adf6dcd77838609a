"""Ids of events: those that callers send, those that are made for them, and those of the log."""

import os
import secrets
import string
from hashlib import blake2b

from bandits.errors import InvalidEventIdError
from bandits.values import MAX_EVENT_ID_BYTES

MAX_ID = 256
"""Characters of an id, of an event or of anything else."""
_SUFFIX = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(5))
"""What ids that are made end with: it tells processes apart, as it told theirs."""


def made_event_id() -> str:
    """Return an event id of the form that Personalizer makes."""
    return f"{os.urandom(16).hex()}-{_SUFFIX}"


def logged_event_id(event_id: str) -> str:
    """Return the id that an event has in the log: its own, or what is hashed from a long one.

    The protocol counts characters, and the log bytes.

    Raises:
        InvalidEventIdError: it is empty, or has more than MAX_ID characters.
    """
    if not 0 < len(event_id) <= MAX_ID:
        raise InvalidEventIdError(f"an event id has 1 to {MAX_ID} characters", "eventId")
    return event_id if len(event_id) <= MAX_EVENT_ID_BYTES // 4 else _short(event_id)


def slot_event_id(event_id: str, slot: str) -> str:
    """Return the id that a slot of a page has in the log, where it is a decision of its own.

    Args:
        event_id: the page's, as the log has it.
        slot: what its caller calls the slot.
    """
    return _short(f"{event_id}/slots/{slot}")


def _short(event_id: str) -> str:
    data = event_id.encode()
    if len(data) <= MAX_EVENT_ID_BYTES:
        return event_id
    return f"blake2b:{blake2b(data, digest_size=32).hexdigest()}"
