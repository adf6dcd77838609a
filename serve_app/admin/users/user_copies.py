"""Copies of who the users of a space are, made and brought back by hand."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bandits.errors import UsersBackupError
from bandits.log.positions import START
from bandits.log.records import ErasureRecord
from policies.archive.archive import ArchiveReader
from policies.archive.shared import shared_folder
from policies.profiles.root_parts import read_root_parts
from policies.pseudonyms import salt_id
from policies.storage import Storage, shown
from serve_app.admin.spaces import known_secret, space_names
from serve_app.host.embedded import any_redis
from serve_app.settings import Settings
from serve_app.store.checkpoints import read_root
from serve_app.store.clients import REDIS_ERRORS, Redis, blocking_client, now_ms
from serve_app.store.history import History
from serve_app.store.keys import ActivityKeys, UsersKeys
from serve_app.store.reachable import no_redis
from serve_app.store.users.backups import UsersBackup, UsersBackups
from serve_app.store.users.restore import RestoredUsers, restore_persons

Progress = Callable[[int], None]


class StoredUsers:
    """Who the users of one space are, with the copies of it."""

    def __init__(self, client: Redis, space: str, settings: Settings) -> None:
        """Open them.

        Args:
            client: a connection.
            space: the space's name.
            settings: they say where the copies are.
        """
        self.space, self._client, self._settings = space, client, settings
        self.keys = UsersKeys(space)
        self._in_log: set[str] = set()
        self._read_to = START
        root = settings.users_backup_root()
        if not root:
            raise UsersBackupError(
                "no copies are kept (BANDITLOOP_USERS_BACKUP is none): say where with --backups",
                "backups",
            )
        self.backups = UsersBackups(root, space, salt_id(known_secret(settings)))

    def back_up(self, progress: Progress) -> UsersBackup:
        """Copy all persons now; return the copy.

        Raises:
            UsersBackupError: there is nobody to copy.
        """
        now = now_ms(self._client, self.keys.backing_up)
        if not self.backups.write(self._client, now, progress):
            raise UsersBackupError(f"the space {self.space} has no users yet", "space")
        return next(backup for backup in self.backups.kept() if backup.made_ms == now)

    def chosen(self, name: str | None) -> list[UsersBackup]:
        """Return the copy of a name; of none, all that there are, newest first.

        Raises:
            UsersBackupError: there is none.
        """
        found = [backup for backup in self.backups.kept() if name in {None, backup.name}]
        if not found:
            what = "no copy" if name is None else f"no {name}"
            raise UsersBackupError(f"there is {what} in {self.backups.where}", "backups")
        return found

    def restore(self, backup: UsersBackup, progress: Progress) -> RestoredUsers:
        """Bring back who is in a copy, and was not erased since.

        Raises:
            UsersBackupError: the copy is damaged, or of another salt.
            ArchiveError, LogGapError: the log does not say any more who was erased.
        """
        rows = self.backups.read(backup)
        return restore_persons(self._client, self.keys, rows, self.erased, progress)

    def erased(self) -> frozenset[str]:
        """Return the pseudonyms of all who were erased, as the copies, Redis and the log know."""
        unnoted: Any = self._client.smembers(self.keys.unnoted)
        return self.backups.erased() | {each.decode() for each in unnoted} | self._erased_in_log()

    def _erased_in_log(self) -> set[str]:
        """Read on in the log of activity, to its end; return whom it says are erased."""
        root = self._settings.archive_root()
        archive = ArchiveReader(root, shared_folder(self.space, "activity")) if root else None

        # Of what is archived only such entries are read.
        if archive is not None and self._read_to == START:
            self._read_to = archive.end
            said = archive.entries(archive.beginning, kinds=["erasure"])
            self._in_log |= {_erased(entry.record) for entry in said}
            self._in_log |= self._erased_at_root(archive)
        history = History(self._client, ActivityKeys(self.space), archive)
        for entry in history.encoded(self._read_to):
            self._in_log.add(_erased(entry.record))
            self._read_to = entry.id
        return self._in_log - {""}

    def _erased_at_root(self, archive: ArchiveReader) -> set[str]:
        """Return whom the log said are erased before it was cut."""
        root = read_root(self._client, ActivityKeys(self.space))
        if root is None or root.profiles is None:
            return set()
        known = read_root_parts(archive.files, root.profiles)
        return {user for parts in known for user, part in parts if part.erased}


def _erased(record: object) -> str:
    return record.user if isinstance(record, ErasureRecord) else ""


@contextlib.contextmanager
def opened_users(
    space: str | None, redis_url: str | None, data_dir: Path | None, backups: str | None
) -> Iterator[StoredUsers]:
    """Open who the users of a space are, whether a service runs or not.

    Args:
        space: the space's name; None: the only one there is.
        redis_url: the Redis that knows them; None: that of the environment or of ``data_dir``.
        data_dir: the service's data directory; None: that of the environment.
        backups: where the copies are; None: that of the environment or of ``data_dir``.

    Raises:
        StartupError: the Redis does not answer.
        UsersBackupError: no space is named, and there is not exactly one.
    """
    settings = Settings.with_options(redis_url=redis_url, data_dir=data_dir, users_backup=backups)
    with any_redis(settings) as url:
        try:
            with contextlib.closing(blocking_client(url)) as client:
                name = space if space is not None else _only_space(client, settings)
                yield StoredUsers(client, name, settings)
        except REDIS_ERRORS as error:
            raise no_redis(url, error, settings.redis_timeout_s) from error


def _only_space(client: Redis, settings: Settings) -> str:
    """Return the only space whose users are known in Redis, or in copies."""
    names, root = set(space_names(client)), settings.users_backup_root()
    for info in Storage(root, "").list() if root else ():
        names.add(str(info.base_name))
    if len(names) == 1:
        return names.pop()
    where = f" or in {shown(root)}" if root else ""
    if not names:
        raise UsersBackupError(f"no space has users here{where}: name it with --space", "space")
    raise UsersBackupError(f"name one of the spaces {sorted(names)} with --space", "space")
