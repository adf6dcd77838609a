"""Numbers for texts that are met in no order, millions of them: users, say."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import types
from numpy.typing import NDArray

from bandits.features.hashing import UInt64
from bandits.kernels.compiled import compiled, i8, read_only
from simulator.logs.archive.features import coded
from simulator.logs.archive.settled import keys_of

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
LEAST = 1 << 16
"""Places of a table at first, a power of two."""


@compiled(
    read_only(types.uint64),
    *(types.uint64[::1], types.int32[::1], i8, types.int32[::1]),
    returns=types.int64,
)
def _number(hashes: UInt64, keys: UInt64, numbers: Int32, count: int, out: Int32) -> int:
    """Number n hashes, new ones from ``count`` on; return how many have a number then.

    Args:
        hashes: uint64[n].
        keys: uint64[size], a table that has room: a hash is at its low bits, or behind.
        numbers: int32[size], those of the keys, -1 where there is none.
        count: how many are in the table.
        out: int32[n], gets the numbers.
    """
    mask = np.int64(keys.size - 1)
    for i in range(hashes.size):
        at = np.int64(hashes[i]) & mask
        while numbers[at] >= 0 and keys[at] != hashes[i]:
            at = (at + 1) & mask
        if numbers[at] < 0:
            keys[at], numbers[at] = hashes[i], count
            count += 1
        out[i] = numbers[at]
    return count


class UnitNumbers:
    """Numbers from 0 on, by 64-bit hash: of a million texts two are one with P < 3e-8."""

    def __init__(self) -> None:
        self.count = 0
        self._keys: UInt64 = np.zeros(LEAST, np.uint64)
        self._numbers: Int32 = np.full(LEAST, -1, np.int32)

    def of(self, hashes: UInt64) -> Int32:
        """Return the number of each hash, int32[n]; a new one has the next."""
        self._make_room(len(hashes))
        out = np.empty(len(hashes), np.int32)
        self.count = _number(hashes, self._keys, self._numbers, self.count, out)
        return out

    def in_order(self) -> Int32:
        """Return the place of each number among the sorted hashes, int32[count].

        It does not depend on the order in which they came.
        """
        places = np.empty(self.count, np.int32)
        places[np.argsort(self._known())] = np.arange(self.count, dtype=np.int32)
        return places

    def _known(self) -> UInt64:
        """Return the hash of each number."""
        used = self._numbers >= 0
        known = np.empty(self.count, np.uint64)
        known[self._numbers[used]] = self._keys[used]
        return known

    def _make_room(self, more: int) -> None:
        """Enlarge the table, if so many more could fill it up to three quarters."""
        size, least = len(self._keys), 4 * (self.count + more) // 3
        if size > least:
            return
        while size <= least:
            size *= 2

        known = self._known()
        self._keys, self._numbers = np.zeros(size, np.uint64), np.full(size, -1, np.int32)
        _number(known, self._keys, self._numbers, 0, np.empty(len(known), np.int32))


def text_hashes(column: pa.Array, places: Int64) -> tuple[UInt64, NDArray[np.bool_]]:
    """Return hashes of the texts at some places, and whether there is one; an empty one is none.

    Args:
        column: the texts, coded or not.
        places: int64[n].
    """
    texts = coded(column)
    meanings = texts.dictionary.cast(pa.string())
    codes = pc.fill_null(texts.indices, -1).to_numpy(zero_copy_only=False)[places]
    by_code = np.append(keys_of(meanings), np.uint64(0))
    named = np.append(
        pc.not_equal(meanings, "").to_numpy(zero_copy_only=False).astype(np.bool_), False
    )
    return by_code[codes], named[codes]


def renumbered(units: Int32, count: int) -> tuple[Int32, int]:
    """Return the units of n decisions numbered anew from 0 on, int32[n], and how many there are.

    Args:
        units: int32[n], the number of each one's unit; below 0 it has none, and keeps that.
        count: more than any of these numbers.
    """
    there = np.zeros(count + 1, np.bool_)
    there[units] = True  # the last is of those without one
    there[-1] = False

    numbers = np.cumsum(there, dtype=np.int32)
    found = int(numbers[-1])
    numbers -= 1
    numbers[-1] = -1
    return numbers[units], found
