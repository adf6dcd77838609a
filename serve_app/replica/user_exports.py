"""Exports of users by a replica: beside what it answers, and one at a time."""

import asyncio
import contextlib
import time
from collections.abc import Sequence

from banditloop_client.space_schemas import UserExport
from bandits.errors import LogUnavailableError, RateLimitedError
from policies.spec import PolicySpec
from serve_app.settings import Settings
from serve_app.store.clients import REDIS_ERRORS, blocking_client
from serve_app.store.replicas.shared_wire import reason_of
from serve_app.store.spaces import read_space, space_of_specs

MOST_ENTRIES = 10_000
"""Entries of the logs in one answer."""
PAUSE_S = 0.002
"""Pause after each few hundred entries: half of the time is left to whoever asks this replica."""


class UserExports:
    """Reads all that is held of a user, in a thread with a connection of its own."""

    def __init__(self, space: str, specs: Sequence[PolicySpec], settings: Settings) -> None:
        """Read of a space.

        Args:
            space: its name.
            specs: those of its policies that this replica serves.
            settings: they say where Redis and the archive are.
        """
        self._space, self._settings = space_of_specs(space, specs), settings
        self._files = sorted({spec.profiles for spec in specs if spec.profiles is not None})
        self._busy = asyncio.Lock()

    async def export(self, user_id: str) -> UserExport:
        """Return all that is held of a user.

        Raises:
            UnknownUserError: nothing is.
            RateLimitedError: this replica is at another export.
            LogUnavailableError: Redis does not answer.
        """
        if self._busy.locked():
            raise RateLimitedError("another user is being exported here: retry in a moment")
        async with self._busy:
            return await asyncio.to_thread(self._export, user_id)

    def _export(self, user_id: str) -> UserExport:
        # Imported here because pyarrow takes 30 MB, which a replica can do without.
        from serve_app.admin.users.user_export import export_user  # noqa: PLC0415

        settings = self._settings
        try:
            with contextlib.closing(blocking_client(str(settings.redis_url))) as client:
                return export_user(
                    client,
                    self._space.with_members(read_space(client, self._space.name)),
                    user_id,
                    salt=settings.secret(),
                    archive=settings.archive_root(),
                    files=self._files,
                    most=MOST_ENTRIES,
                    progress=lambda _count: time.sleep(PAUSE_S),
                )
        except (*REDIS_ERRORS, OSError) as error:
            raise LogUnavailableError(
                f"not all that is held can be read ({reason_of(error)}): retry in a moment"
            ) from error
