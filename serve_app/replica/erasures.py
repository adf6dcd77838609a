"""The erasure of users, as a replica begins it and says how it stands."""

from datetime import UTC, datetime

from banditloop_client.space_schemas import ErasureState
from serve_app.replica.users import ReplicaUsers
from serve_app.store.erasures.job import Command, Erasure, erase_person, go_on, run_async
from serve_app.store.event_log import LogWriter
from serve_app.store.spaces import Space


class ReplicaErasures:
    """Erases the users of one space."""

    def __init__(self, space: Space, writer: LogWriter, users: ReplicaUsers) -> None:
        """Erase by the same writer that logs: an erasure is as durable as what it is about.

        Args:
            space: with the members that this replica serves.
            writer: of the space's logs.
            users: those of the space, as this replica knows them.
        """
        self._space, self._writer, self._users = space, writer, users

    async def erase(self, user_id: str) -> ErasureState:
        """Destroy a user's record, and have every log told; return how the job stands.

        Raises:
            UnknownUserError: nobody is known by this id.
            LogUnavailableError: not known to have begun: it may be asked again.
        """
        steps = erase_person(self._space, self._users.key_of(user_id))
        erasure = await run_async(self._send, steps)
        self._users.forget(user_id)
        return state_of(erasure)

    async def state(self, name: str) -> ErasureState:
        """Return how a job stands, after doing what is left of it.

        Raises:
            UnknownErasureError: there is none of this name.
            LogUnavailableError: it cannot be found out now.
        """
        return state_of(await run_async(self._send, go_on(self._space, name)))

    async def _send(self, command: Command) -> object:
        return await self._writer.append_by(self._users.keys.erasures, command)


def state_of(erasure: Erasure) -> ErasureState:
    """Return how an erasure stands, as callers are told."""
    job = erasure.job
    return ErasureState(
        erasure.name,
        "complete" if erasure.is_complete else "running",
        _time(job.asked_ms),
        None if job.ended_ms is None else _time(job.ended_ms),
        erasure.waits_for,
        job.keyed,
    )


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
