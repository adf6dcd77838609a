"""Numbers for texts that are met in no order, millions of them: users, say."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bandits.features.hashing import UInt64
from simulator.logs.archive.features import coded
from simulator.logs.archive.settled import keys_of

Int64 = NDArray[np.int64]


class UnitNumbers:
    """Numbers from 0 on, by 64-bit hash: of a million texts two are one with P < 3e-8."""

    def __init__(self) -> None:
        self.count = 0
        self._known: UInt64 = np.zeros(0, np.uint64)
        self._numbers: Int64 = np.zeros(0, np.int64)

    def of(self, hashes: UInt64) -> Int64:
        """Return the number of each hash, int64[n]; a new one has the next."""
        distinct, inverse = np.unique(hashes, return_inverse=True)
        at = np.searchsorted(self._known, distinct)
        known = np.zeros(len(distinct), np.bool_)
        inside = at < len(self._known)
        known[inside] = self._known[at[inside]] == distinct[inside]

        numbers = np.empty(len(distinct), np.int64)
        numbers[known] = self._numbers[at[known]]
        fresh = np.arange(self.count, self.count + int((~known).sum()))
        numbers[~known] = fresh
        if len(fresh):
            self._known = np.insert(self._known, at[~known], distinct[~known])
            self._numbers = np.insert(self._numbers, at[~known], fresh)
            self.count += len(fresh)
        return numbers[inverse]


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
