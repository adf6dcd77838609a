"""Copies of the persons of a space, kept apart for a stated time, and then gone.

    <root>/<space>/persons-<when it began>.parquet
    <root>/<space>/erased/<pseudonym>

Who was erased stays so: nobody whose pseudonym is named under ``erased`` comes back from a copy.
"""

import contextlib
import io
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from bandits.errors import UsersBackupError
from policies.storage import Storage, shown
from serve_app.store.clients import Redis
from serve_app.store.keys import UsersKeys
from serve_app.store.users.persons import alias_of, decode_person
from serve_app.store.users.persons_file import (
    PersonRow,
    count_persons,
    read_persons,
    write_persons,
)
from serve_app.store.users.reading import each_person

ERASED = "erased"
ALL_KEPT_MS = 86_400_000
"""Age up to which every copy is kept; of older ones, the last of each day."""
_NAME = re.compile(r"persons-(\d{8}T\d{6}\.\d{3}Z)\.parquet")
_TIME = "%Y%m%dT%H%M%S"


class UsersBackup(NamedTuple):
    """One copy: its file, when it began, and the file's bytes."""

    name: str
    made_ms: int
    size: int


class UsersBackups:
    """The copies of one space's persons."""

    def __init__(self, root: str, space: str, salt: str) -> None:
        """Find them.

        Args:
            root: a folder or URI; see policies/storage.py.
            space: the space's name.
            salt: the id of the salt that user ids are hashed with.
        """
        self._files = Storage(root, space)
        self._root, self._space, self._salt = root, space, salt

    @property
    def where(self) -> str:
        """The place, without what may be secret of it."""
        return f"{shown(self._root)}/{self._space}"

    def kept(self) -> list[UsersBackup]:
        """Return the copies that there are, newest first."""
        found = []
        for info in self._files.list():
            match = _NAME.fullmatch(str(info.base_name))
            if match:
                found.append(UsersBackup(match[0], _ms(match[1]), int(info.size or 0)))
        return found[::-1]

    def write(
        self, client: Redis, now_ms: int, progress: Callable[[int], None] = lambda _count: None
    ) -> int:
        """Copy all persons; return how many rows the copy has. None is written where it has none.

        Args:
            client: a connection.
            now_ms: the time, in milliseconds since 1970.
            progress: called with how many were copied.

        Raises:
            RedisError, OSError: it could not be made; nothing was stored.
        """
        if not self._files.is_remote and "://" not in self._root:
            Path(self._root).mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile() as spool:
            count = write_persons(
                spool,
                self._rows(client, progress),
                space=self._space,
                salt=self._salt,
                made_ms=now_ms,
            )
            if count:
                spool.seek(0)
                self._files.put(f"persons-{_stamp(now_ms)}.parquet", spool)
        pa.default_memory_pool().release_unused()
        return count

    def _rows(self, client: Redis, progress: Callable[[int], None]) -> Iterator[list[PersonRow]]:
        count = 0
        for stored in each_person(client, UsersKeys(self._space)):
            yield [_row(*each) for each in stored]
            count += len(stored)
            progress(count)

    def read(self, backup: UsersBackup) -> list[PersonRow]:
        """Return the rows of a copy.

        Raises:
            UsersBackupError: it is damaged, or its keys are of another salt or space.
            OSError: it cannot be reached.
        """
        name = f"{self.where}/{backup.name}"
        with self._files.open(backup.name) as file:
            about, rows = read_persons(file, name)
        if about.space != self._space:
            raise UsersBackupError(f"{name} is of the space {about.space}", "space")
        if about.salt != self._salt:
            raise UsersBackupError(
                f"{name} was made with another salt, under which nobody is found: use that one"
                " (BANDITLOOP_SALT, or the file salt of the data folder)",
                "salt",
            )
        return rows

    def rows_of(self, backup: UsersBackup) -> int:
        """Return how many rows a copy has; its footer says it.

        Raises:
            UsersBackupError: it is damaged.
            OSError: it cannot be reached.
        """
        with self._files.open(backup.name) as file:
            return count_persons(file, f"{self.where}/{backup.name}")

    def note_erased(self, pseudonyms: Iterable[str]) -> None:
        """Say of pseudonyms that nobody has them any more, so that no copy brings them back.

        Raises:
            OSError: not known whether it was said of all.
        """
        for pseudonym in pseudonyms:
            self._files.put(f"{ERASED}/{pseudonym}", io.BytesIO(pseudonym.encode()))

    def erased(self) -> frozenset[str]:
        """Return the pseudonyms of whom was erased since the oldest copy, as was noted."""
        return frozenset(str(info.base_name) for info in self._files.list(ERASED))

    def prune(self, now_ms: int, retain_ms: int) -> list[str]:
        """Remove what is kept no longer; return the copies that are gone.

        Args:
            now_ms: the time, in milliseconds since 1970.
            retain_ms: how old a copy may be.
        """
        gone, days = [], set()
        for backup in self.kept():
            age, day = now_ms - backup.made_ms, _stamp(backup.made_ms)[:8]
            if age > retain_ms or (age > ALL_KEPT_MS and day in days):
                self._files.remove(backup.name)
                gone.append(backup.name)
            days.add(day)

        # A copy that names somebody is older than the note that they were erased.
        for info in self._files.list(ERASED):
            noted = info.mtime
            if noted is not None and now_ms - noted.timestamp() * 1000 > retain_ms + ALL_KEPT_MS:
                self._files.remove(f"{ERASED}/{info.base_name}")
        with contextlib.suppress(OSError):
            self._files.clean()
        return gone


def _row(key: str, raw: bytes) -> PersonRow:
    alias, name = alias_of(raw), bytes.fromhex(key)
    if alias is not None:
        of, pseudonym = (bytes.fromhex(each) for each in alias)
        return PersonRow(name, pseudonym, None, None, None, of, None)
    record = decode_person(raw)
    filed = record.filed or None
    return PersonRow(
        name, record.pseudonym, record.since_ms, record.earlier, record.ids, None, filed
    )


def _stamp(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):{_TIME}}.{ms % 1000:03}Z"


def _ms(stamp: str) -> int:
    whole, _, rest = stamp.removesuffix("Z").partition(".")
    moment = datetime.strptime(whole, _TIME).replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1000 + int(rest)
