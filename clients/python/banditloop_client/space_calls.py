"""What a client asks of a space: the users that several policies share."""

from collections.abc import Sequence
from typing import Any

import msgspec

from banditloop_client import space_schemas as schemas
from banditloop_client.exchange import Calls, Exchange, fresh_id, sent
from banditloop_client.space_schemas import ActivityEvent, ErasureState


class SpaceCalls(Calls):
    """The calls to the space of a policy."""

    @sent
    def did(self, /, user_id: str, item_id: str, type: str, **fields: Any) -> Exchange[str]:  # noqa: A002 - its name in the API
        """Say what a user did, outside of any decision; return its id.

        Args:
            user_id: the user's.
            item_id: the item's.
            type: what was done, as ``view``.
            fields: the others of ActivityEvent. An id is made when none is given.
        """
        event = ActivityEvent(user_id, item_id, type, **{"id": fresh_id(), **fields})
        request = schemas.ActivityRequest([event])
        return self._exchange(schemas.ACTIVITY, request).then(lambda answer: answer.ids[0])

    @sent
    def merge_users(self, user_id: str, into: str) -> Exchange[schemas.UsersMerged]:
        """Make two users one person: a visitor, and who they have turned out to be.

        Args:
            user_id: the visitor's id; it leads to the person from then on.
            into: the person's.
        """
        return self._exchange(schemas.MERGE_USERS, schemas.MergeUsersRequest(user_id, into))

    @sent
    def export_user(self, user_id: str) -> Exchange[schemas.UserExport]:
        """Return all that is held of a user."""
        return self._exchange(schemas.EXPORT, None, user_id=user_id)

    @sent
    def activity(self, events: Sequence[ActivityEvent]) -> Exchange[list[str]]:
        """Say what users did, up to 1,000 things at once; return their ids, in order.

        One without an id is sent with one.
        """
        named = [
            event if event.id is not None else msgspec.structs.replace(event, id=fresh_id())
            for event in events
        ]
        request = schemas.ActivityRequest(named)
        return self._exchange(schemas.ACTIVITY, request).then(lambda answer: answer.ids)

    @sent
    def erase(self, user_id: str) -> Exchange[ErasureState]:
        """Have everything forgotten that links a user to what is logged; return how that stands."""
        return self._exchange(schemas.ERASE, None, user_id=user_id)

    @sent
    def erasure(self, erasure: str) -> Exchange[ErasureState]:
        """Return how an erasure stands."""
        return self._exchange(schemas.ERASURE, None, erasure=erasure)
