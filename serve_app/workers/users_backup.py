"""Copying who the users of a space are, every so often, and telling the copies who was erased."""

import logging
import threading
from typing import Any

from bandits.errors import UsersBackupError
from policies.pseudonyms import salt_id
from serve_app.settings import Settings
from serve_app.store.clients import FAILURES, Redis, now_ms
from serve_app.store.keys import UsersKeys
from serve_app.store.users.backups import UsersBackup, UsersBackups

POLL_S = 1.0
AGAIN_S = 60.0
"""Time until the next attempt, where there was nobody to copy, or another process copies."""
LOST = 0.5
"""Part of the records of a copy that have to be there when the next is made."""
COPYING_S = 900
"""How long others leave a copy to a process that has died over it."""

log = logging.getLogger("banditloop.users")


class ScheduledUsersBackup:
    """Keeps the copies of one space's persons. Any number of processes may: one of them copies."""

    def __init__(self, client: Redis, space: str, settings: Settings) -> None:
        """Keep them.

        Args:
            client: this thread's own connection.
            space: the space's name.
            settings: they say where, how often and how long.
        """
        self._client, self._keys = client, UsersKeys(space)
        self._backups = UsersBackups(
            settings.users_backup_root(), space, salt_id(settings.secret())
        )
        self._every_ms = int(settings.users_backup_interval_s * 1000)
        self._retain_ms = int(settings.users_backup_retain_s * 1000)
        self._look_ms = 0
        self.failures = 0

    def run(self, stop: threading.Event) -> None:
        """Do what is due until told to stop; an unreachable Redis or file system ends nothing."""
        while not stop.is_set():
            wait_s = POLL_S
            try:
                self.step()
            except (*FAILURES, OSError) as error:
                self.failures += 1
                wait_s = min(AGAIN_S, POLL_S * 2.0 ** min(self.failures, 6))
                log.warning(
                    "who the users of %s are is not copied, trying again in %g s: %s",
                    self._keys.space,
                    wait_s,
                    error,
                )
            else:
                self.failures = 0
            stop.wait(wait_s)

    def step(self) -> bool:
        """Say who was erased, and copy if it is time; return whether a copy was made.

        Raises:
            RedisError, OSError: unreachable; call again.
        """
        self.note_erased()
        now = now_ms(self._client, self._keys.backing_up)
        if now < self._look_ms:
            return False

        # Another process, or a person by hand, may have copied them.
        self._client.set(self._keys.backed_up, now, nx=True)
        kept = self._backups.kept()
        if kept:
            self._client.set(self._keys.backed_up, kept[0].made_ms)
        due_ms = kept[0].made_ms + self._every_ms if kept else now
        self._look_ms = max(due_ms, now + int(AGAIN_S * 1000))
        if now < due_ms or not self._client.set(self._keys.backing_up, "1", nx=True, ex=COPYING_S):
            return False
        try:
            rows = self._backups.write(self._client, now)
            made = rows > 0
            if kept:
                self._compare(kept[0], rows)
            self._client.set(self._keys.backed_up, now)
            self._backups.prune(now, self._retain_ms)
        finally:
            self._client.delete(self._keys.backing_up)
        return made

    def _compare(self, before: UsersBackup, rows: int) -> None:
        """Say it aloud where most of the users of the copy before are gone."""
        try:
            known = self._backups.rows_of(before)
        except UsersBackupError as error:
            log.warning("%s", error.message)
            return
        if rows < LOST * known:
            log.error(
                "%s of the %s records of who the users of %s are were here at the copy before, and"
                " are gone: has Redis lost its data? banditloop users restore --space %s",
                f"{known - rows:,}",
                f"{known:,}",
                self._keys.space,
                self._keys.space,
            )

    def note_erased(self) -> int:
        """Tell the copies who was erased; return how many pseudonyms that were."""
        named: Any = self._client.smembers(self._keys.unnoted)
        if named:
            self._backups.note_erased(each.decode() for each in named)
            self._client.srem(self._keys.unnoted, *named)
        return len(named)
