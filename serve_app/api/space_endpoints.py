"""The endpoints of spaces: what users do outside of decisions."""

from typing import Any

from banditloop_client import space_schemas as schemas
from banditloop_client.schemas import MAX_BATCH
from bandits.errors import TooManyActivityEventsError
from policies.pseudonyms import check_user_id
from serve_app.api.routes import Call, Route


async def add_activity(call: Call[schemas.ActivityRequest]) -> schemas.ActivityAccepted:
    """Log what users did; all is accepted, or nothing is."""
    events = call.request.events
    if not 0 < len(events) <= MAX_BATCH:
        raise TooManyActivityEventsError(
            f"1 to {MAX_BATCH:,} events at once, not {len(events):,}", "events"
        )
    ids = await call.space_service.add_activity(events)
    call.backend.metrics.count("activity_events", call.space, by=len(ids))
    return schemas.ActivityAccepted(len(ids), ids)


async def merge_users(call: Call[schemas.MergeUsersRequest]) -> schemas.UsersMerged:
    """Make two users one person."""
    user_id = check_user_id(call.request.user_id)
    into = check_user_id(call.request.into, "into")
    return schemas.UsersMerged(into, await call.space_service.merge_users(user_id, into))


async def erase_user(call: Call[None]) -> schemas.ErasureState:
    """Destroy what links a user to what is logged, and have all logs told."""
    return await call.space_service.erase(call.parameters["user_id"])


async def erasure(call: Call[None]) -> schemas.ErasureState:
    """Return how an erasure stands."""
    return await call.space_service.erasure(call.parameters["erasure"])


SPACE_ROUTES: tuple[Route[Any, Any], ...] = (
    Route(
        schemas.ACTIVITY,
        "Log what users did outside of decisions, up to 1,000 events",
        scope="activity",
        handler=add_activity,
        failures=(400, 404, 408, 409, 413, 422, 503),
    ),
    Route(
        schemas.MERGE_USERS,
        "Two users are one person",
        scope="users",
        handler=merge_users,
        failures=(400, 404, 408, 409, 413, 422, 503),
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
