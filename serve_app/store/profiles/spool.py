"""Changes of all users, in a file, to be read again user by user.

To make a million profiles anew in the order of a log would be to write each of them as often as its
user did something. Sorted by user, each is written once.
"""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import chain
from types import TracebackType
from typing import Any

import msgspec
import pyarrow as pa

from policies.profiles.changes import PartChanges
from policies.profiles.part import ERASED, CutRule, Part, join_parts

MUCH = 5_000
"""Events of one user that are cut before they go on: a program may do something every second."""
IN_MEMORY = 200_000
"""Changes that are kept in memory before they go to the file."""
BUCKETS = 256
"""Groups of users; one of them at a time is in memory."""


class ChangeSpool(AbstractContextManager["ChangeSpool"]):
    """Changes to be grouped by their users; close it, or use it in a ``with``."""

    def __init__(self, rule: CutRule) -> None:
        """Group them.

        Args:
            rule: what cuts parts in the end; those of users who did much are cut by it at once.
        """
        self._rule = rule
        self._recent: list[PartChanges] = []
        self._in_memory = 0
        self._file: Any = None
        self._codec = pa.Codec("zstd", compression_level=1)
        # Of each bucket what was put away: where it begins, its size, and how large it unpacks to.
        self._places: list[list[tuple[int, int, int]]] = [[] for _ in range(BUCKETS)]
        self._decoder = msgspec.msgpack.Decoder(list[tuple[str, Part]])
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
        """Keep changes, to which nothing is added any more."""
        self.count += len(changes)
        self._recent.append(changes)
        self._in_memory += len(changes)
        if self._in_memory >= IN_MEMORY:
            self._put_away()

    def _put_away(self) -> None:
        rows: list[list[tuple[str, Part]]] = [[] for _ in range(BUCKETS)]
        for changes in self._recent:
            for user, part in changes.parts():
                if len(part.events) >= MUCH:
                    part = join_parts([part], self._rule)  # noqa: PLW2901 - it says the same
                rows[hash(user) % BUCKETS].append((user, part))

        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        for bucket, found in enumerate(rows):
            if found:
                plain = msgspec.msgpack.encode(found)
                data = self._codec.compress(plain, asbytes=True)
                self._places[bucket].append((self._file.tell(), len(data), len(plain)))
                self._file.write(data)
        self._recent, self._in_memory = [], 0

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Yield each user once with a part that says it all, cut or not; nothing is added then."""
        if self._file is None:
            merged = PartChanges()
            for changes in self._recent:
                merged.take(changes)
            yield from merged.parts()
            return

        self._put_away()
        most = MUCH // self._rule.items
        for places in self._places:
            found: dict[str, list[Part]] = {}
            for at, size, unpacked in places:
                self._file.seek(at)
                data = self._codec.decompress(self._file.read(size), unpacked)
                for user, part in self._decoder.decode(data):
                    parts = found.setdefault(user, [])
                    parts.append(part)
                    if len(parts) > most:
                        found[user] = [join_parts(parts, self._rule)]
            for user, parts in found.items():
                yield user, parts[0] if len(parts) == 1 else _all_of(parts)


def _all_of(parts: list[Part]) -> Part:
    """Return a part that says what all of these say, and is not cut."""
    if any(part.erased for part in parts):
        return ERASED
    events = chain.from_iterable(part.events for part in parts)
    return Part(tuple(events), tuple(chain.from_iterable(part.shown for part in parts)))
