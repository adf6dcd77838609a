"""The erasure of users, as a replica begins it and says how it stands."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime

from banditloop_client.space_schemas import ErasureState
from bandits.errors import ArtifactError, ProfilesLeftError, UnknownUserError
from policies.artifacts.profile_removal import remove_profiles
from policies.pseudonyms import pseudonym
from policies.spec import PolicySpec
from serve_app.replica.users import ReplicaUsers
from serve_app.store.erasures.job import Command, Erasure, erase_person, go_on, run_async
from serve_app.store.event_log import LogWriter
from serve_app.store.spaces import space_of_specs


class ReplicaErasures:
    """Erases the users of one space."""

    def __init__(
        self,
        space: str,
        specs: Sequence[PolicySpec],
        writer: LogWriter,
        users: ReplicaUsers,
        *,
        salt: bytes,
    ) -> None:
        """Erase by the same writer that logs: an erasure is as durable as what it is about.

        Args:
            space: its name.
            specs: those of its policies that this replica serves.
            writer: of the space's logs.
            users: those of the space, as this replica knows them.
            salt: files of profiles name users by it.
        """
        self._space, self._writer, self._users = space_of_specs(space, specs), writer, users
        self._files = sorted({spec.profiles for spec in specs if spec.profiles is not None})
        self._salt = salt
        self._writing = asyncio.Lock()

    async def erase(self, user_id: str) -> ErasureState:
        """Destroy a user's record, and have every log told; return how the job stands.

        Raises:
            UnknownUserError: nobody is known by this id.
            LogUnavailableError: not known to have begun: it may be asked again.
            ProfilesLeftError: all but a file is as it is to be: it may be asked again.
        """
        key, erasure = self._users.key_of(user_id), None
        with contextlib.suppress(UnknownUserError):
            erasure = await run_async(self._send, erase_person(self._space, key))
        self._users.forget(user_id)

        # A user whom a file alone knows is known.
        try:
            others = [] if erasure is None else erasure.filed
            filed = await self._remove_from_files(user_id, others)
        except ArtifactError as error:
            raise ProfilesLeftError(
                f"{error.message}; its entry of the user is not used any more, but still there:"
                " erase again once it can be written, by each of their ids",
                error.target,
            ) from error
        if erasure is None:
            erasure = await run_async(self._send, erase_person(self._space, key, filed=filed))
        return state_of(erasure)

    async def _remove_from_files(self, user_id: str, others: Sequence[str]) -> bool:
        """Remove a user from files of profiles; return whether any had an entry of theirs.

        Args:
            user_id: as the caller sent it.
            others: what files know them by besides.
        """
        keyed, found = {pseudonym(self._salt, user_id), *others}, set[str]()
        async with self._writing:
            for where in self._files:
                found |= await asyncio.to_thread(remove_profiles, where, keyed, salt=self._salt)
        return bool(found)

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
