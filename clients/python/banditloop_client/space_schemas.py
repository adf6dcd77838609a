"""The messages about a space: what its users do, and the endpoints they belong to."""

from datetime import datetime
from types import NoneType
from typing import Annotated, Any, Literal

import msgspec

from banditloop_client.schemas import MAX_BATCH, ActionId, Endpoint, EventId, Time

UserId = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1})]


class ActivityEvent(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    """Something that a user did outside of any decision."""

    user_id: UserId
    item_id: ActionId
    type: str
    value: float | None = None
    time: Time | None = None
    id: EventId | None = None


class ActivityRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """1 to 1,000 things that users did; all are accepted, or none is."""

    events: Annotated[
        list[ActivityEvent], msgspec.Meta(extra_json_schema={"minItems": 1, "maxItems": MAX_BATCH})
    ]


class ActivityAccepted(msgspec.Struct, frozen=True):
    """Durably in the log. ``ids``: each one's, in order: the caller's own, or as it was made."""

    accepted: int
    ids: list[str]


class MergeUsersRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who was a visitor so far, and who they have turned out to be, are one person."""

    user_id: UserId
    into: UserId


class UsersMerged(msgspec.Struct, frozen=True):
    """The two are one person. ``pseudonyms``: how many there are of them in the logs."""

    into: str
    pseudonyms: int


class ErasureState(msgspec.Struct, frozen=True):
    """How the erasure of a user stands.

    ``waiting_for``: the parts of the profile that have not passed it yet: ``activity``, or the
    policy and the number of one of its logs. ``keyed_logs``: the policies whose logs name the user
    by a keyed pseudonym, which whoever has the salt and the id can find again: it stays.
    """

    erasure: str
    state: Literal["running", "complete"]
    asked: datetime
    completed: datetime | None
    waiting_for: list[str]
    keyed_logs: list[str]


class HeldEvent(msgspec.Struct, frozen=True):
    """The newest time that a user did something with an item."""

    item_id: str
    type: str
    time: datetime


class HeldShowing(msgspec.Struct, frozen=True):
    """A decision chose an item for a user."""

    item_id: str
    time: datetime


class HeldProfile(msgspec.Struct, frozen=True):
    """What the policies of a space read of a user; ``whole``: nothing is missing just now.

    ``counts``: by feature of the items, and by its value, how many of the events are of items that
    have it, most first.
    """

    whole: bool
    events: list[HeldEvent]
    shown: list[HeldShowing]
    counts: dict[str, dict[str, int]] = {}


class HeldEntry(msgspec.Struct, frozen=True):
    """One entry of a log that names a user, or a decision about them.

    ``log``: ``activity``, or the policy and the number of one of its logs. ``said``: its fields.
    """

    log: str
    entry: str
    time: datetime
    kind: str
    said: dict[str, Any]


class FiledEvent(msgspec.Struct, frozen=True):
    """Something that a file of profiles says of a user; ``time``, ``type``: where it is known."""

    item_id: str
    type: str | None
    time: datetime | None
    weight: float


class FiledProfile(msgspec.Struct, frozen=True):
    """What a file of profiles, which a policy's spec names, says of a user."""

    file: str
    events: list[FiledEvent]


class UserExport(msgspec.Struct, frozen=True):
    """All that is held of a user.

    ``since``: when they were first known; null: nothing links them to a random pseudonym.
    ``other_ids``: how many other ids were merged into them. ``more``: the logs have more entries
    than are given here; ``banditloop users export`` gives all. ``keyed_logs``: the policies whose
    logs name the user by a keyed pseudonym.
    """

    space: str
    user_id: str
    since: datetime | None
    pseudonyms: list[str]
    other_ids: int
    profile: HeldProfile
    files: list[FiledProfile]
    entries: list[HeldEntry]
    more: bool
    keyed_logs: list[str]


SPACE_PATH = "/v1/spaces/{space}"

ACTIVITY = Endpoint("POST", f"{SPACE_PATH}/activity", ActivityRequest, ActivityAccepted, 202)
MERGE_USERS = Endpoint("POST", f"{SPACE_PATH}/users/merge", MergeUsersRequest, UsersMerged)
EXPORT = Endpoint("GET", f"{SPACE_PATH}/users/{{user_id}}", NoneType, UserExport)
ERASE = Endpoint("DELETE", f"{SPACE_PATH}/users/{{user_id}}", NoneType, ErasureState, 202)
ERASURE = Endpoint("GET", f"{SPACE_PATH}/erasures/{{erasure}}", NoneType, ErasureState)
