"""Which rows a model learned from, so that its evaluation can tell whether it is on other rows.

Rows are known by hashes, of which a model keeps the smallest: a sample that is the same wherever
the same rows are met. A row has two hashes: one of its place or id with what it says, and one of
what it says alone, which finds rows again that were moved. Rows of two logs may say the same by
chance; the rows learned from tell how often.
"""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

KEPT = 1 << 14
"""Hashes that are kept of each kind: 128 KiB."""
BY_CHANCE = 1e-6
"""Probability that chance finds as many rows again below which they are taken for the same."""
UInt64 = NDArray[np.uint64]


class Shard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A piece of a log that was learned from.

    ``digest``: of its rows, in any order. Times are 0 where it has none.
    """

    log: str
    rows: int
    digest: str
    first_ms: int = 0
    last_ms: int = 0


class HashSample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sample of hashes.

    ``hashes``: uint64, sorted, little-endian. ``through``: the largest hash that a row in the
    sample may have. ``chance`` bounds how often another row has a hash among them although no row
    is the same.
    """

    hashes: bytes
    through: int
    chance: float

    def found(self, hashes: UInt64) -> tuple[int, int]:
        """Return how many rows would be sampled if all were learned from, and how many are."""
        expected = hashes[hashes <= np.uint64(self.through)]
        sample = np.frombuffer(self.hashes, "<u8")
        return int(expected.size), int(np.isin(expected, sample).sum())


class LearnedRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rows that a model learned from.

    ``shards``: the log, piece by piece. ``placed``: a sample by place or id and what a row says;
    ``said``: one by what it says alone.
    """

    shards: list[Shard]
    placed: HashSample
    said: HashSample

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(shard.rows for shard in self.shards)

    @property
    def logs(self) -> str:
        """The names of their logs, three at most."""
        names = list(dict.fromkeys(shard.log for shard in self.shards))
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


class RowOverlap(msgspec.Struct, forbid_unknown_fields=True):
    """How many rows of an evaluation a model's samples would hold, and how many they hold.

    Counts of pieces add up.
    """

    placed: int = 0
    placed_again: int = 0
    said: int = 0
    said_again: int = 0

    def count(self, learned: LearnedRows, placed: UInt64, said: UInt64) -> None:
        """Add rows, by their hashes.

        Args:
            learned: the rows that the model learned from.
            placed: uint64, hashes by place.
            said: uint64, hashes by what a row says.
        """
        looked, again = learned.placed.found(placed)
        self.merge(RowOverlap(looked, again, *learned.said.found(said)))

    def merge(self, other: "RowOverlap") -> None:
        """Add the rows of another."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def share(self, learned: LearnedRows) -> float:
        """Return roughly what share of these rows was learned from; 0 if chance explains it."""
        shares = [
            (again - known.chance * looked) / ((1.0 - known.chance) * looked)
            for known, looked, again in (
                (learned.placed, self.placed, self.placed_again),
                (learned.said, self.said, self.said_again),
            )
            if again and _improbable(again, looked, known.chance)
        ]
        return min(1.0, max(shares, default=0.0))


def _improbable(again: int, looked: int, chance: float) -> bool:
    """Return whether chance hardly finds so many again: Chernoff's bound, exp(-n KL(k / n, p))."""
    share = again / looked
    if share <= chance:
        return False

    divergence = share * math.log(share / chance)
    if share < 1.0:
        divergence += (1.0 - share) * math.log((1.0 - share) / (1.0 - chance))
    return -looked * divergence < math.log(BY_CHANCE)


class RowSampler:
    """Samples the rows that a model learns from.

    Only the shards depend on how rows come in pieces.
    """

    def __init__(self) -> None:
        self._shards: list[Shard] = []
        self._placed, self._said_of_placed = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        self._said, self._counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)

    def add(self, log: str, placed: UInt64, said: UInt64, times_ms: NDArray[np.int64]) -> None:
        """Add the rows of a piece; pieces of one name that follow each other are one.

        Args:
            log: the name.
            placed: uint64[rows], hashes by place.
            said: uint64[rows], hashes by what a row says.
            times_ms: int64[rows], when they were, 0 for a row without a time.
        """
        times = times_ms[times_ms != 0]
        first, last = (int(times.min()), int(times.max())) if times.size else (0, 0)
        total = int(np.bitwise_xor.reduce(placed)) if placed.size else 0
        shard = Shard(log, len(placed), f"{total:016x}", first, last)
        if self._shards and self._shards[-1].log == log:
            shard = _merged(self._shards.pop(), shard)
        self._shards.append(shard)

        # The smallest hashes by place, each with what its row says. Once there are enough, few are
        # small enough to be looked at.
        small = placed < self._placed[-1] if self._placed.size == KEPT else np.s_[:]
        all_placed = np.concatenate([self._placed, placed[small]])
        all_said = np.concatenate([self._said_of_placed, said[small]])
        kept = np.argsort(all_placed, kind="stable")[:KEPT]
        self._placed, self._said_of_placed = all_placed[kept], all_said[kept]

        # The smallest hashes of what rows say, each once, with how often it was met.
        said = said[said <= self._said[-1]] if self._said.size == KEPT else said
        names, which = np.unique(np.concatenate([self._said, said]), return_inverse=True)
        weights = np.concatenate([self._counts, np.ones(len(said), np.int64)])
        counts = np.bincount(which, weights, len(names)).astype(np.int64)
        self._said, self._counts = names[:KEPT], counts[:KEPT]

    def rows(self) -> LearnedRows:
        """Return all rows that were added."""
        return LearnedRows(
            self._shards,
            _sample(self._placed, self._chance_alike()),
            _sample(self._said, self._chance_again()),
        )

    def _chance_alike(self) -> float:
        """Bound the chance that two rows say the same: at one place they would be taken for one."""
        counts = np.unique(self._said_of_placed, return_counts=True)[1].astype(np.float64)
        pairs = max(1.0, self._placed.size * (self._placed.size - 1.0) / 2.0)
        return _bounded(
            float((counts * (counts - 1.0) / 2.0).sum()), pairs, max(1, self._placed.size)
        )

    def _chance_again(self) -> float:
        """Bound the chance that a new row says what was said before.

        Good 1953, doi:10.1093/biomet/40.3-4.237.
        """
        total = max(1, int(self._counts.sum()))
        return _bounded(float(total - (self._counts == 1).sum()), total, total)


def _bounded(count: float, of: float, rows: int) -> float:
    """Return a share plus three standard errors of it: above 0, and below 1."""
    share = min(1.0, count / of)
    return min(1.0 - 1e-12, share + 3.0 * math.sqrt(share * (1.0 - share) / rows) + 3.0 / of)


def _sample(hashes: UInt64, chance: float) -> HashSample:
    through = int(hashes[-1]) if len(hashes) == KEPT else (1 << 64) - 1
    return HashSample(hashes.astype("<u8").tobytes(), through, chance)


def _merged(left: Shard, right: Shard) -> Shard:
    times = [time for time in (left.first_ms, right.first_ms) if time]
    digest = int(left.digest, 16) ^ int(right.digest, 16)
    return Shard(
        left.log,
        left.rows + right.rows,
        f"{digest:016x}",
        min(times, default=0),
        max(left.last_ms, right.last_ms),
    )
