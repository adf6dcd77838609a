"""The endpoints of spaces: what users do outside of decisions."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from banditloop_client import space_schemas as schemas
from banditloop_client.schemas import MAX_BATCH
from bandits.errors import BanditloopError, TooManyActivityEventsError
from policies.pseudonyms import check_user_id
from serve_app.api.bodies import decode_body
from serve_app.api.routes import Call, Route


class _Body(msgspec.Struct, frozen=True):
    """What tells a list of events from one event."""

    events: msgspec.Raw | UnsetType = UNSET


_body, _one = msgspec.json.Decoder(_Body), msgspec.json.Decoder(schemas.ActivityEvent)
_many = msgspec.json.Decoder(schemas.ActivityRequest)


async def add_activity(call: Call[msgspec.Raw]) -> schemas.ActivityAccepted:
    """Log what users did, one thing or many; all is accepted, or nothing is."""
    if decode_body(call.request, _body).events is UNSET:
        return await _add(call, [decode_body(call.request, _one)], "events[0].")

    events = decode_body(call.request, _many).events
    if not 0 < len(events) <= MAX_BATCH:
        raise TooManyActivityEventsError(
            f"1 to {MAX_BATCH:,} events at once, not {len(events):,}", "events"
        )
    return await _add(call, events)


async def _add(
    call: Call[msgspec.Raw], events: Sequence[schemas.ActivityEvent], at: str = ""
) -> schemas.ActivityAccepted:
    """Log events; an error's path begins behind ``at``."""
    try:
        ids = await call.space_service.add_activity(events)
    except BanditloopError as error:
        error.target = error.target and error.target.removeprefix(at)
        raise
    call.backend.metrics.count("activity_events", call.space, by=len(ids))
    return schemas.ActivityAccepted(len(ids), ids)


async def merge_users(call: Call[schemas.MergeUsersRequest]) -> schemas.UsersMerged:
    """Make two users one person."""
    user_id = check_user_id(call.request.user_id)
    into = check_user_id(call.request.into, "into")
    return schemas.UsersMerged(into, await call.space_service.merge_users(user_id, into))


async def user_export(call: Call[None]) -> schemas.UserExport:
    """Return all that is held of a user."""
    return await call.space_service.export_user(call.parameters["user_id"])


async def erase_user(call: Call[None]) -> schemas.ErasureState:
    """Destroy what links a user to what is logged, and have all logs told."""
    return await call.space_service.erase(call.parameters["user_id"])


async def erasure(call: Call[None]) -> schemas.ErasureState:
    """Return how an erasure stands."""
    return await call.space_service.erasure(call.parameters["erasure"])


SPACE_ROUTES: tuple[Route[Any, Any], ...] = (
    Route(
        schemas.ACTIVITY,
        "Log what a user did outside of decisions, or up to 1,000 such events",
        scope="activity",
        handler=add_activity,
        failures=(400, 404, 408, 409, 413, 422, 503),
        reads=msgspec.Raw,
        other=schemas.ActivityEvent,
    ),
    Route(
        schemas.MERGE_USERS,
        "Two users are one person",
        scope="users",
        handler=merge_users,
        failures=(400, 404, 408, 409, 413, 422, 503),
    ),
    Route(
        schemas.EXPORT,
        "All that is held of a user",
        scope="users",
        handler=user_export,
        failures=(404, 422, 503),
    ),
    Route(
        schemas.ERASE,
        "Erase a user",
        scope="users",
        handler=erase_user,
        failures=(404, 422, 503),
    ),
    Route(
        schemas.ERASURE,
        "How an erasure stands",
        scope="users",
        handler=erasure,
        failures=(404, 422, 503),
    ),
)
