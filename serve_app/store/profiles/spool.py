"""Changes of all users, in a file, to be read again user by user.

To make a million profiles anew in the order of a log would be to write each of them as often as its
user did something. Sorted by user, each is written once.
"""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import pyarrow as pa

from policies.profiles.changes import PartChanges
from policies.profiles.part import CutRule

IN_MEMORY = 200_000
"""Changes that are kept in memory before they go to the file."""
MUCH = 1_000_000
"""Changes of a group that are cut before more are read: a program may do something every second."""
GROUPS = 256
"""Groups of users; one of them at a time is in memory."""


class ChangeSpool(AbstractContextManager["ChangeSpool"]):
    """Changes to be grouped by their users; close it, or use it in a ``with``."""

    def __init__(self, rule: CutRule) -> None:
        """Group them.

        Args:
            rule: what cuts the parts.
        """
        self._rule = rule
        self._recent = PartChanges()
        self._file: Any = None
        self._codec = pa.Codec("zstd", compression_level=1)
        # Of each group what was put away: where it begins, its size, and how large it unpacks to.
        self._places: list[list[tuple[int, int, int]]] = [[] for _ in range(GROUPS)]
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
        self._recent.take(changes)
        if len(self._recent) >= IN_MEMORY:
            self._put_away()

    def _put_away(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        for group, plain in self._recent.encode_groups(GROUPS):
            data = self._codec.compress(plain, asbytes=True)
            self._places[group].append((self._file.tell(), len(data), len(plain)))
            self._file.write(data)
        self._recent = PartChanges()

    def parts(self) -> Iterator[tuple[str, bytes]]:
        """Yield each user once with the bytes of a part that says it all; nothing is added then."""
        if self._file is None:
            yield from self._recent.encoded(self._rule)
            return

        self._put_away()
        for places in self._places:
            found, much = PartChanges(), MUCH
            for at, size, unpacked in places:
                self._file.seek(at)
                data = self._codec.decompress(self._file.read(size), unpacked)
                found.take(PartChanges.decoded(data))
                if len(found) >= much:
                    found = found.cut(self._rule)
                    much = max(MUCH, 2 * len(found))
            yield from found.encoded(self._rule)
