"""What open decisions teach, put by in files of this process's own until their windows close.

A record that memory has no room for could be read again from the archive, which costs as much as
reading it the first time. What of it teaches is a small part, and is known when the record leaves
memory. So it is written then, and read in the same order. The files have no name: they go with the
process, and whoever resumes reads the archive. Nothing depends on them but time.
"""

import tempfile
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.kernels.shortened import HEAD_BYTES, shorten
from bandits.log.encoded_decisions import hashes_at, starts_of
from bandits.log.positions import log_order
from bandits.log.records import EncodedDecision

FILE_BYTES = 64 << 20
"""A file that has so many is followed by another one, and goes when it was read."""
TOGETHER = 64
"""So many records are made short at a time: as much memory, used again, stays in the caches.

It is also given back to the system, and asked for anew, more seldom than as much as all have.
"""


class _Block(msgspec.Struct, array_like=True, gc=False):
    """Decisions that were put by together.

    ``kinds``: what some have in common, the fields of an EncodedDecision from ``spec`` on; ``kind``
    says which of them each is of. ``ends``: where what each teaches ends in ``data``.
    """

    positions: list[str]
    event_ids: list[str]
    kinds: list[tuple[str, str, int, bool, bool, bool]]
    kind: list[int]
    ends: list[int]
    data: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Block).decode
_NOTHING = _Block([], [], [], [], [], b"")


class _File:
    """A file without a name, which is written to its end and read from its beginning."""

    def __init__(self, folder: str | None) -> None:
        self.size = 0
        there = folder if folder is not None and Path(folder).is_dir() else None
        self._file = tempfile.TemporaryFile(dir=there, buffering=0)  # noqa: SIM115 - see __del__
        self._blocks: deque[tuple[int, int]] = deque()

    def __del__(self) -> None:
        """Give the disk's room back."""
        if hasattr(self, "_file"):
            self._file.close()

    def write(self, data: bytes) -> None:
        self._file.seek(self.size)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._blocks.append((self.size, len(data)))
        self.size += len(data)

    def read(self) -> bytes | None:
        """Return the next block; None: all were read."""
        if not self._blocks:
            return None
        at, size = self._blocks.popleft()
        self._file.seek(at)
        parts = []
        while size:
            part = self._file.read(size)
            if not part:
                raise OSError("a file without a name was cut short")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class _Queue:
    """Decisions of windows of one length, in the order of the log."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._files: deque[_File] = deque()
        self._block = _NOTHING
        self._at = self._begin = 0

    def write(self, block: _Block) -> None:
        if not self._files or self._files[-1].size >= FILE_BYTES:
            self._files.append(_File(self._folder))
        self._files[-1].write(_encode(block))

    def take(self, position: str) -> EncodedDecision | None:
        block = self._block
        while self._at < len(block.positions) or self._read():
            block, at = self._block, self._at
            if block.positions[at] == position:
                begin, end = self._begin, block.ends[at]
                self._at, self._begin = at + 1, end
                kind = block.kinds[block.kind[at]]
                return EncodedDecision(block.data[begin:end], block.event_ids[at], *kind)

            # Those before have taught nothing: they were never activated, say.
            if log_order(block.positions[at]) > log_order(position):
                return None
            self._at, self._begin = at + 1, block.ends[at]
        return None

    def take_next(self, positions: list[str]) -> list[EncodedDecision]:
        """Return the first of some decisions, as far as they are the next ones of a block."""
        if self._at >= len(self._block.positions) and not self._read():
            return []
        block, at = self._block, self._at
        found = block.positions[at : at + len(positions)]
        count = len(found)
        if found != positions[:count]:
            pairs = zip(found, positions, strict=False)
            count = next(place for place, (own, other) in enumerate(pairs) if own != other)
        if not count:
            return []

        stop, kinds, data = at + count, block.kinds, block.data
        ends = block.ends[at:stop]
        begins = [self._begin, *ends]
        self._at, self._begin = stop, ends[-1]
        return [
            EncodedDecision(data[begin:end], event_id, *kinds[kind])
            for begin, end, event_id, kind in zip(
                begins, ends, block.event_ids[at:stop], block.kind[at:stop], strict=False
            )
        ]

    def _read(self) -> bool:
        """Read the next decisions; return whether there are any."""
        self._block, self._at, self._begin = _NOTHING, 0, 0
        while self._files:
            data = self._files[0].read()
            if data is not None:
                self._block = _decode(data)
                return True
            if len(self._files) == 1:
                break
            self._files.popleft()
        return False


class PutBy:
    """What decisions teach by what they chose, by the length of their windows.

    Args:
        folder: of the file system that has room for it; None: the one for temporary files.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder
        self._queues: dict[int, _Queue] = {}
        self._is_full = False

    def add(
        self, window_ms: int, positions: Sequence[str], records: Sequence[EncodedDecision]
    ) -> NDArray[np.int64] | None:
        """Put decisions by, which are later than all others of windows of that length.

        Where the disk has no room, nothing is put by any more.

        Args:
            window_ms: the length of their windows.
            positions: those of n decisions.
            records: the n decisions.

        Returns:
            The hashes of what they chose, slot by slot (see ``action_hash``); None where that is
            not all that is on their pages.
        """
        if self._is_full or not records:
            return None
        if any(each.has_placed for each in records):
            # A page on which items are placed is kept whole: where its slots are depends on them.
            parts = [each.data if each.has_placed else short_records([each])[0] for each in records]
            data, ends, hashes = b"".join(parts), list(accumulate(map(len, parts))), None
        else:
            data, ends, hashes = _shortened(records)

        queue = self._queues.setdefault(window_ms, _Queue(self._folder))
        try:
            queue.write(_block_of(positions, records, data, ends))
        except OSError:
            self._is_full = True
            self._queues.clear()
        return hashes

    def take(self, window_ms: int, position: str) -> EncodedDecision | None:
        """Return what a decision teaches; it and all before it are put by no longer.

        Args:
            window_ms: the length of its window.
            position: the decision's; those of one length come in the order of the log.

        Returns:
            None: it was not put by. Else it has nothing of what was not chosen but the scores, and
            each slot's propensity is said to be 1.
        """
        queue = self._queues.get(window_ms)
        if queue is None:
            return None
        try:
            return queue.take(position)
        except OSError:
            self.drop(window_ms)
            return None

    def take_next(self, window_ms: int, positions: list[str]) -> list[EncodedDecision]:
        """Return what the first of some decisions teach, as ``take`` of each.

        Args:
            window_ms: the length of their windows.
            positions: theirs, one or more, in the order of the log.

        Returns:
            Those that were put by together and are next; none: ``take`` says of the first.
        """
        queue = self._queues.get(window_ms)
        if queue is None:
            return []
        try:
            return queue.take_next(positions)
        except OSError:
            self.drop(window_ms)
            return []

    def drop(self, window_ms: int) -> None:
        """Forget all decisions of windows of a length."""
        self._queues.pop(window_ms, None)


def _block_of(
    positions: Sequence[str], records: Sequence[EncodedDecision], data: bytes, ends: list[int]
) -> _Block:
    kinds: dict[tuple[str, str, int, bool, bool, bool], int] = {}
    kind = [
        kinds.setdefault(
            (
                each.spec,
                each.catalogue,
                each.slots,
                each.deferred,
                each.holdout,
                each.has_placed,
            ),
            len(kinds),
        )
        for each in records
    ]
    event_ids = [each.event_id for each in records]
    return _Block(list(positions), event_ids, list(kinds), kind, ends, data)


def short_records(records: Sequence[EncodedDecision]) -> list[bytes]:
    """Return the bytes of decisions with no more than what their chosen actions teach.

    Nothing is placed on their pages.
    """
    data, ends, _ = _shortened(records)
    return [data[first:last] for first, last in zip([0, *ends], ends, strict=False)]


def _shortened(records: Sequence[EncodedDecision]) -> tuple[bytes, list[int], NDArray[np.int64]]:
    """Return those bytes one after the other, where each ends, and hashes of what was chosen."""
    made: list[bytes] = []
    ends: list[int] = []
    hashes: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    size = 0
    for first in range(0, len(records), TOGETHER):
        group = records[first : first + TOGETHER]
        parts = [each.data for each in group]
        data, starts = np.frombuffer(b"".join(parts), np.uint8), starts_of(parts)
        out = np.empty(int(starts[-1]) + HEAD_BYTES * len(group), np.uint8)
        names = np.empty((sum([each.slots for each in group]), 2), np.int64)
        own = shorten(data, starts, out, names)

        made.append(out[: own[-1]].tobytes())
        ends.extend((own + size).tolist())
        hashes.append(hashes_at(data, names))
        size = ends[-1]
    return b"".join(made), ends, np.concatenate(hashes)
