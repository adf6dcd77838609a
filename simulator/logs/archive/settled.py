"""The outcome of a join for an archive's decisions, in the order in which they are read again."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bandits.features.hashing import UInt64
from bandits.kernels.hashes import hash_texts
from bandits.kernels.joins import number_texts
from bandits.types import Float64
from simulator.logs.archive.entries import Int32, Int64, offsets_of

EVERYTHING = 1 << 62
"""Beyond all entries of a piece."""


class Settled(NamedTuple):
    """Decisions of a piece whose rewards are final, in the log's order.

    ``sequence``: int64[m], which entries of the piece they are. ``ms``: int64[m], when they were
    made. ``key``: uint64[m], see ``key_of``. ``rewards``: float64[S], of the slots of decision i
    those from ``begins[i]`` to ``begins[i + 1]``. No entry before ``frontier`` will be settled
    later.
    """

    sequence: Int64
    ms: Int64
    key: UInt64
    begins: Int64
    rewards: Float64
    frontier: int

    def take(self, places: Any) -> "Settled":
        """Return some of them: a slice, or their numbers in any order."""
        counts, starts = np.diff(self.begins)[places], self.begins[:-1][places]
        begins = offsets_of(counts)
        which = np.repeat(starts - begins[:-1], counts) + np.arange(begins[-1])
        return Settled(
            self.sequence[places],
            self.ms[places],
            self.key[places],
            begins,
            self.rewards[which],
            self.frontier,
        )


NOTHING_SETTLED = Settled(
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    np.zeros(0, np.uint64),
    np.zeros(1, np.int64),
    np.zeros(0),
    0,
)


@dataclass(slots=True, eq=False)
class SettledRows:
    """The settled decisions of a join, in the order in which the piece's entries are read again."""

    spans: Iterator[Settled]
    _pending: Settled = NOTHING_SETTLED

    def until(self, stop: int) -> Settled:
        """Return the decisions before entry ``stop`` that were not returned yet.

        The join reads on as far as that takes.
        """
        while self._pending.frontier < stop:
            self._pending = _merged(self._pending, next(self.spans))
        pending = self._pending
        at = int(np.searchsorted(pending.sequence, stop))
        self._pending = pending.take(slice(at, None))
        return pending.take(slice(None, at))


def _merged(one: Settled, other: Settled) -> Settled:
    """Return the decisions of both, in the log's order."""
    counts = np.concatenate([np.diff(one.begins), np.diff(other.begins)])
    both = Settled(
        np.concatenate([one.sequence, other.sequence]),
        np.concatenate([one.ms, other.ms]),
        np.concatenate([one.key, other.key]),
        offsets_of(counts),
        np.concatenate([one.rewards, other.rewards]),
        other.frontier,
    )
    return both.take(np.argsort(both.sequence, kind="stable"))


def keys_of(texts: pa.StringArray) -> UInt64:
    """Return the keys of events, see ``key_of``, from their ids."""
    out = np.empty(len(texts), np.uint64)
    if len(texts):
        hash_texts(*bytes_of(texts), out)
    return out


def numbered_texts(texts: pa.StringArray, keys: UInt64) -> tuple[Int32, int]:
    """Return the numbers of texts, from 0 as they first appear, and how many differ.

    Args:
        texts: n of them.
        keys: uint64[n], as ``keys_of`` makes them.
    """
    numbers = np.empty(len(texts), np.int32)
    if not len(texts):
        return numbers, 0
    table = np.full(1 << (2 * len(texts)).bit_length(), -1, np.int32)
    return numbers, number_texts(keys, *bytes_of(texts), table, numbers)


def bytes_of(texts: pa.StringArray) -> tuple[NDArray[np.uint8], Int32]:
    """Return the bytes of one text or more, and where each begins, int32[n + 1]."""
    _, offsets, data = texts.buffers()
    at = np.frombuffer(offsets, np.int32, len(texts) + 1, 4 * texts.offset)
    if data is None or not data.size:
        return np.zeros(0, np.uint8), at
    return np.frombuffer(data, np.uint8), at
