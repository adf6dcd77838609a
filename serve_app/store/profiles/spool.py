"""Changes of all users, in a file, to be read again user by user.

To make a million profiles anew in the order of a log would be to write each of them as often as its
user did something. Sorted by user, each is written once.
"""

import tempfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import msgspec

from policies.profiles.changes import PartChanges
from policies.profiles.part import ERASED, Part, ProfileEvent, Showing

IN_MEMORY = 200_000
"""Changes that are kept in memory before they go to the file."""
BUCKETS = 256
"""Groups of users; one of them at a time is in memory."""


class _Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    user: str
    events: list[ProfileEvent]
    shown: list[Showing]
    erased: bool


class ChangeSpool(AbstractContextManager["ChangeSpool"]):
    """Changes to be grouped by their users; close it, or use it in a ``with``."""

    def __init__(self) -> None:
        self._recent = PartChanges()
        self._file: Any = None
        self._places: list[list[tuple[int, int]]] = [[] for _ in range(BUCKETS)]
        self._decoder = msgspec.msgpack.Decoder(list[_Row])
        self.count = 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.close()

    def add(self, changes: PartChanges) -> None:
        """Keep changes."""
        self.count += len(changes)
        self._recent.take(changes)
        if len(self._recent) >= IN_MEMORY:
            self._put_away()

    def _put_away(self) -> None:
        rows: list[list[_Row]] = [[] for _ in range(BUCKETS)]
        for user, part in self._recent.parts():
            bucket = zlib.crc32(user.encode()) % BUCKETS
            rows[bucket].append(_Row(user, list(part.events), list(part.shown), part.erased))

        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        for bucket, found in enumerate(rows):
            if found:
                data = zlib.compress(msgspec.msgpack.encode(found), 1)
                self._places[bucket].append((self._file.tell(), len(data)))
                self._file.write(data)
        self._recent = PartChanges()

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Yield each user once with a part that says it all, and is not cut; nothing is added."""
        if self._file is None:
            yield from self._recent.parts()
            return
        self._put_away()
        for places in self._places:
            users: dict[str, Part] = {}
            for at, size in places:
                self._file.seek(at)
                for row in self._decoder.decode(zlib.decompress(self._file.read(size))):
                    users[row.user] = _both(users.get(row.user), row)
            yield from users.items()


def _both(known: Part | None, row: _Row) -> Part:
    """Return all that is known of a user, and what a row says besides."""
    if row.erased or (known is not None and known.erased):
        return ERASED
    events, shown = tuple(row.events), tuple(row.shown)
    if known is None:
        return Part(events, shown)
    return Part(known.events + events, known.shown + shown)
