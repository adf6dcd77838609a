"""Which rows a model learned from: so that whoever evaluates it can tell whether the rows are others.

Rows are known by hashes, of which a model keeps the smallest: a sample that is the same wherever
the same rows are met. There are two hashes of a row: one of its place or id with what it says, and
one of what it says alone, which finds rows again that were moved. Rows of two logs may say the same
by chance; how often, the rows learned from tell.
"""

import math
from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

KEPT = 1 << 14
"""Hashes kept, of each kind: 128 KiB."""
BY_CHANCE = 1e-6
"""Of finding as many rows again where none is the same: below it, they are taken for the same."""
UInt64 = NDArray[np.uint64]


class Shard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A piece of a log that was learned from. ``digest``: of its rows, in any order.

    Times are 0 where it has none.
    """

    log: str
    rows: int
    digest: str
    first_ms: int = 0
    last_ms: int = 0


class HashSample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sample of hashes. ``hashes``: uint64, sorted, little-endian.

    ``through``: the largest a row in it may have.

    ``chance``: bounds how often another row has a hash among them although no row is the same.
    """

    hashes: bytes
    through: int
    chance: float

    def found(self, hashes: UInt64) -> tuple[int, int]:
        """Of rows: how many the sample would have if they were learned from, and how many it has."""
        looked = hashes[hashes <= np.uint64(self.through)]
        mine = np.frombuffer(self.hashes, "<u8")
        return int(looked.size), int(np.isin(looked, mine).sum())


class LearnedRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``shards``: the log, piece by piece.

    ``placed``: by place or id and what a row says, ``said``: by that alone.
    """

    shards: list[Shard]
    placed: HashSample
    said: HashSample

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(shard.rows for shard in self.shards)

    @property
    def logs(self) -> str:
        """Their names."""
        names = list(dict.fromkeys(shard.log for shard in self.shards))
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


class RowOverlap(msgspec.Struct, forbid_unknown_fields=True):
    """Of rows that a model is evaluated on: how many its samples would have and have.

    Counts of pieces add up.
    """

    placed: int = 0
    placed_again: int = 0
    said: int = 0
    said_again: int = 0

    def count(self, learned: LearnedRows, placed: UInt64, said: UInt64) -> None:
        """Add rows, by their hashes."""
        looked, again = learned.placed.found(placed)
        self.merge(RowOverlap(looked, again, *learned.said.found(said)))

    def merge(self, other: "RowOverlap") -> None:
        """Add the rows of another."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def share(self, learned: LearnedRows) -> float:
        """Of these rows, those that were learned from, about; 0 if chance explains what was found again."""
        found = [
            (again - known.chance * looked) / ((1.0 - known.chance) * looked)
            for known, looked, again in (
                (learned.placed, self.placed, self.placed_again),
                (learned.said, self.said, self.said_again),
            )
            if again and _improbable(again, looked, known.chance)
        ]
        return min(1.0, max(found, default=0.0))


def _improbable(again: int, looked: int, chance: float) -> bool:
    """Chernoff's bound on a binomial tail: exp(-n KL(k / n, p))."""
    share = again / looked
    if share <= chance:
        return False
    divergence = share * math.log(share / chance)
    if share < 1.0:
        divergence += (1.0 - share) * math.log((1.0 - share) / (1.0 - chance))
    return -looked * divergence < math.log(BY_CHANCE)


class RowSampler:
    """Gathers what a model learns from.

    Nothing depends on how rows come in pieces but the shards.
    """

    def __init__(self) -> None:
        self._shards: list[Shard] = []
        self._placed, self._of_placed = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        self._said, self._counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)

    def add(self, log: str, placed: UInt64, said: UInt64, times_ms: Iterable[int]) -> None:
        """Add the rows of a piece, by their hashes.

        Pieces of one name that follow each other are one.
        """
        times = [each for each in times_ms if each]
        total = int(np.bitwise_xor.reduce(placed)) if placed.size else 0
        shard = Shard(
            log, len(placed), f"{total:016x}", min(times, default=0), max(times, default=0)
        )
        if self._shards and self._shards[-1].log == log:
            shard = _together(self._shards.pop(), shard)
        self._shards.append(shard)
        every, of_every = (
            np.concatenate([self._placed, placed]),
            np.concatenate([self._of_placed, said]),
        )
        kept = np.argsort(every, kind="stable")[:KEPT]
        self._placed, self._of_placed = every[kept], of_every[kept]
        names, which = np.unique(np.concatenate([self._said, said]), return_inverse=True)
        weights = np.concatenate([self._counts, np.ones(len(said), np.int64)])
        counts = np.bincount(which, weights, len(names)).astype(np.int64)
        self._said, self._counts = names[:KEPT], counts[:KEPT]

    def rows(self) -> LearnedRows:
        """All of them."""
        return LearnedRows(
            self._shards, _known(self._placed, self._alike()), _known(self._said, self._again())
        )

    def _alike(self) -> float:
        """Bounds the chance that two rows say the same: rows of one place would then be taken for one."""
        counts = np.unique(self._of_placed, return_counts=True)[1].astype(np.float64)
        pairs = max(1.0, self._placed.size * (self._placed.size - 1.0) / 2.0)
        return _bounded(
            float((counts * (counts - 1.0) / 2.0).sum()), pairs, max(1, self._placed.size)
        )

    def _again(self) -> float:
        """Bounds the chance that a new row says what was said already: Good 1953, doi:10.1093/biomet/40.3-4.237."""
        total = max(1, int(self._counts.sum()))
        return _bounded(float(total - (self._counts == 1).sum()), total, total)


def _bounded(found: float, of: float, rows: int) -> float:
    """A share and three standard errors of it; never 0, and as good as 1 where it could be."""
    share = min(1.0, found / of)
    return min(1.0 - 1e-12, share + 3.0 * math.sqrt(share * (1.0 - share) / rows) + 3.0 / of)


def _known(hashes: UInt64, chance: float) -> HashSample:
    through = int(hashes[-1]) if len(hashes) == KEPT else (1 << 64) - 1
    return HashSample(hashes.astype("<u8").tobytes(), through, chance)


def _together(left: Shard, right: Shard) -> Shard:
    times = [each for each in (left.first_ms, right.first_ms) if each]
    digest = int(left.digest, 16) ^ int(right.digest, 16)
    return Shard(
        left.log,
        left.rows + right.rows,
        f"{digest:016x}",
        min(times, default=0),
        max(left.last_ms, right.last_ms),
    )
