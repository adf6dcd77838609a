"""What open decisions teach, put by in files of this process's own until their windows close.

A record that memory has no room for could be read again from the archive, which costs as much as
reading it the first time. What of it teaches is a small part, and is known when the record leaves
memory. So it is written then, and read in the same order. The files have no name: they go with the
process, and whoever resumes reads the archive. Nothing depends on them but time.
"""

import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from bandits.kernels.shortened import HEAD_BYTES, shorten
from bandits.log.encoded_decisions import starts_of
from bandits.log.positions import log_order
from bandits.log.records import EncodedDecision

FILE_BYTES = 64 << 20
"""A file that has so many is followed by another one, and goes when it was read."""


class _Row(msgspec.Struct, array_like=True, gc=False):
    """A decision: its position, and what EncodedDecision has; two names by number."""

    position: str
    data: bytes
    event_id: str
    spec: int
    catalogue: int
    slots: int
    deferred: bool
    holdout: bool
    has_placed: bool


class _Block(msgspec.Struct, array_like=True, gc=False):
    """Decisions that were put by together, and the names of their specs and catalogues."""

    names: list[str]
    rows: list[_Row]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Block).decode


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
        self._names: list[str] = []
        self._rows: list[_Row] = []
        self._at = 0

    def write(self, block: _Block) -> None:
        if not self._files or self._files[-1].size >= FILE_BYTES:
            self._files.append(_File(self._folder))
        self._files[-1].write(_encode(block))

    def take(self, position: str) -> EncodedDecision | None:
        while self._at < len(self._rows) or self._read():
            row = self._rows[self._at]
            if row.position != position:
                # Those before have taught nothing: they were never activated, say.
                if log_order(row.position) > log_order(position):
                    return None
                self._at += 1
                continue
            self._at += 1
            spec, catalogue = self._names[row.spec], self._names[row.catalogue]
            said = row.slots, row.deferred, row.holdout, row.has_placed
            return EncodedDecision(row.data, row.event_id, spec, catalogue, *said)
        return None

    def _read(self) -> bool:
        """Read the next decisions; return whether there are any."""
        while self._files:
            data = self._files[0].read()
            if data is not None:
                block = _decode(data)
                self._names, self._rows, self._at = block.names, block.rows, 0
                return True
            if len(self._files) == 1:
                break
            self._files.popleft()
        self._rows, self._at = [], 0
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
    ) -> list[EncodedDecision]:
        """Put decisions by, which are later than all others of windows of that length.

        Where the disk has no room, nothing is put by any more.

        Args:
            window_ms: the length of their windows.
            positions: those of n decisions.
            records: the n decisions.

        Returns:
            What was put by of each, or would have been.
        """
        short = _with_what_teaches(records)
        if self._is_full or not records:
            return short
        queue = self._queues.setdefault(window_ms, _Queue(self._folder))
        try:
            queue.write(_block_of(positions, short))
        except OSError:
            self._is_full = True
            self._queues.clear()
        return short

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

    def drop(self, window_ms: int) -> None:
        """Forget all decisions of windows of a length."""
        self._queues.pop(window_ms, None)


def _block_of(positions: Sequence[str], records: Sequence[EncodedDecision]) -> _Block:
    numbers: dict[str, int] = {}
    rows = [
        _Row(
            position,
            each.data,
            each.event_id,
            numbers.setdefault(each.spec, len(numbers)),
            numbers.setdefault(each.catalogue, len(numbers)),
            each.slots,
            each.deferred,
            each.holdout,
            each.has_placed,
        )
        for position, each in zip(positions, records, strict=True)
    ]
    return _Block(list(numbers), rows)


def _with_what_teaches(records: Sequence[EncodedDecision]) -> list[EncodedDecision]:
    # A page on which items are placed is kept whole: where its slots are depends on them.
    short = iter(short_records([each.data for each in records if not each.has_placed]))
    return [
        each
        if each.has_placed
        else EncodedDecision(
            next(short),
            each.event_id,
            each.spec,
            each.catalogue,
            each.slots,
            each.deferred,
            each.holdout,
        )
        for each in records
    ]


def short_records(records: Sequence[bytes]) -> list[bytes]:
    """Return the bytes of decisions with no more than what their chosen actions teach."""
    if not records:
        return []
    starts = starts_of(records)
    out = np.empty(int(starts[-1]) + HEAD_BYTES * len(records), np.uint8)
    ends = shorten(np.frombuffer(b"".join(records), np.uint8), starts, out).tolist()
    whole = out[: ends[-1]].tobytes()
    return [whole[first:last] for first, last in zip([0, *ends], ends, strict=False)]
