"""Events by part of their users, in memory, and on disk as soon as there are many."""

import shutil
import tempfile
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from simulator.imports.arrange import EVENT

MEMORY = 768 << 20
"""Bytes of events that are held before they are written to disk."""


class SpilledEvents:
    """Events in parts, ``1 << bits`` of them; each holds all events of its users in their order.

    An event's part is the last ``bits`` of its user. Use it as a context: its files go with it.
    ``beside`` is a folder on a disk with room.
    """

    def __init__(self, bits: int, beside: Path, *, memory: int = MEMORY) -> None:
        self.bits, self.parts = bits, 1 << bits
        self._memory = memory
        self._folder = Path(tempfile.mkdtemp(prefix="events-", dir=beside))
        self._held: list[list[NDArray[np.void]]] = [[] for _ in range(self.parts)]
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, events: NDArray[np.void], ends: NDArray[np.int64]) -> None:
        """Add events.

        Args:
            events: an array of EVENT, those of one part side by side.
            ends: int64[parts], where each part ends.
        """
        start = 0
        for part, end in enumerate(ends.tolist()):
            if end > start:
                self._held[part].append(events[start:end])
            start = end

        self._bytes += start * EVENT.itemsize
        if self._bytes >= self._memory:
            self._write()

    def take(self, part: int) -> list[NDArray[np.void]]:
        """Return all events of a part, in one or more arrays, and forget them."""
        held = self.peek(part)
        self._bytes -= sum(events.nbytes for events in self._held[part])
        self._held[part] = []
        self._path(part).unlink(missing_ok=True)
        return held

    def peek(self, part: int) -> list[NDArray[np.void]]:
        """Return all events of a part, in one or more arrays."""
        path = self._path(part)
        stored = [np.fromfile(path, EVENT)] if path.exists() else []
        return stored + self._held[part]

    def put(self, part: int, events: NDArray[np.void]) -> None:
        """Store events of a part that was taken, in their order."""
        self._held[part].append(events)
        self._bytes += events.nbytes
        if self._bytes >= self._memory:
            self._write()

    def _write(self) -> None:
        for part, held in enumerate(self._held):
            if held:
                with self._path(part).open("ab") as file:
                    for events in held:
                        events.tofile(file)
                held.clear()
        self._bytes = 0

    def _path(self, part: int) -> Path:
        return self._folder / f"{part}"
