"""Means, covariances and ranges of columns, gathered in any order, on any number of machines."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ReplayError
from bandits.features.hashing import UInt64, splitmix64
from bandits.types import Float64

UInt8 = NDArray[np.uint8]
CHUNK = 1024
"""Rows whose bootstrap weights are used at once."""
LARGEST = 1e100
"""The largest value in a row: sums of squares are far from overflow."""
LANES = 4
"""Poisson draws from one 64-bit hash, 16 bits each."""


@dataclass(slots=True, eq=False)
class Moments:
    """The moments of n rows with k columns.

    ``mean``, ``low``, ``high``: float64[k].

    ``root``: float64[up to k, k], the R of a QR decomposition of the centred rows. R'R are their
    sums of products, merged as by Chan, Golub & LeVeque (1983, eq. 2.1). So nothing is lost when
    means are large against deviations, nor when columns nearly cancel, as the two of a ratio do;
    with R'R itself it would be.

    ``replicates``: float64[B, k + 1], the sums of every column, and the number of rows, under the
    weights of a Poisson bootstrap; B is 0 when none is wanted.
    """

    n: int
    mean: Float64
    root: Float64
    low: Float64
    high: Float64
    replicates: Float64

    @classmethod
    def empty(cls, k: int, replicates: int = 0) -> "Moments":
        """Return the moments of no rows.

        Args:
            k: how many columns the rows to come have.
            replicates: how many bootstrap replicates to gather; 0 for no bootstrap.
        """
        return cls(
            0,
            np.zeros(k),
            np.zeros((0, k)),
            np.full(k, math.inf),
            np.full(k, -math.inf),
            np.zeros((replicates, k + 1)),
        )

    def update(self, columns: Float64, keys: UInt64) -> None:
        """Add n rows.

        Args:
            columns: float64[k, n].
            keys: uint64[n]; rows of one key get the same bootstrap weight.

        Raises:
            ReplayError: a value is not finite.
        """
        add_rows([(self, checked(columns))], keys)

    def merge(self, other: "Moments") -> None:
        """Add the rows of another."""
        n = self.n + other.n
        if other.n:
            shift = other.mean - self.mean
            self.mean = self.mean + shift * (other.n / n)
            self.root = _triangle(
                np.vstack([self.root, other.root, shift * math.sqrt(self.n * (other.n / n))])
            )
            self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
            self.replicates = self.replicates + other.replicates
        self.n = n

    def columns(self, k: int, unit: float) -> "Moments":
        """Return the moments of the first columns, in another unit.

        Args:
            k: how many columns are kept.
            unit: what values are divided by, above 0.
        """
        return Moments(
            self.n,
            self.mean[:k] / unit,
            self.root[:, :k] / unit,
            self.low[:k] / unit,
            self.high[:k] / unit,
            np.concatenate([self.replicates[:, :k] / unit, self.replicates[:, -1:]], axis=1),
        )

    @property
    def variance(self) -> Float64:
        """The unbiased variance of each column, float64[k]; it needs two rows."""
        variance: Float64 = (self.root**2).sum(axis=0) / (self.n - 1)
        return variance

    def stderr(self, gradient: Float64) -> float:
        """Return the standard error of a function of the means; infinite below two rows.

        Args:
            gradient: float64[k], the function's gradient at the means (delta method).
        """
        if self.n < 2:
            return math.inf
        return float(np.linalg.norm(self.root @ gradient)) / math.sqrt((self.n - 1) * self.n)


def add_rows(blocks: Sequence[tuple[Moments, Float64]], keys: UInt64) -> None:
    """Add n rows to several moments, whose bootstraps are one.

    The weights of a row are drawn once, and all sums are one product of matrices.

    Args:
        blocks: the moments, each with its columns, float64[k, n], which are ``checked``.
        keys: uint64[n]; rows of one key get the same bootstrap weight.
    """
    if not len(keys):
        return

    # The most replicates that anybody wants are drawn; others take the first of them.
    drawing = [(moments, columns) for moments, columns in blocks if len(moments.replicates)]
    most = max((len(moments.replicates) for moments, _ in drawing), default=0)
    sums = _bootstrapped([columns for _, columns in drawing], keys, most)

    for moments, columns in blocks:
        mean = columns.mean(axis=1)
        replicates = (
            next(sums)[: len(moments.replicates)] if len(moments.replicates) else moments.replicates
        )
        root = _triangle(columns.T - mean)
        moments.merge(
            Moments(len(keys), mean, root, columns.min(axis=1), columns.max(axis=1), replicates)
        )


def checked(columns: Float64) -> Float64:
    """Return the same columns.

    Raises:
        ReplayError: a value is not finite.
    """
    if not (np.abs(columns) < LARGEST).all():
        raise ReplayError(
            "a reward, weight or prediction is NaN or too large; leave such rows out", "row"
        )
    return columns


def _bootstrapped(blocks: Sequence[Float64], keys: UInt64, replicates: int) -> Iterator[Float64]:
    """Yield each block's weighted sums, and the rows': float64[replicates, k + 1]."""
    if not blocks:
        return

    rows = np.concatenate([*blocks, np.ones((1, len(keys)))])
    total = np.zeros((len(rows), replicates))
    for start in range(0, len(keys), CHUNK):
        part = slice(start, start + CHUNK)
        total += rows[:, part] @ poisson_weights(keys[part], replicates).astype(np.float64).T

    at = 0
    for block in blocks:
        yield np.stack([*total[at : at + len(block)], total[-1]], axis=1)
        at += len(block)


def _triangle(rows: Float64) -> Float64:
    """Return the R of a QR decomposition, float64[min(n, k), k], of float64[n, k]."""
    if rows.shape[1] == 1:
        return np.array([[np.linalg.norm(rows)]])
    return np.asarray(np.linalg.qr(rows, mode="r"), np.float64)


def poisson_weights(keys: UInt64, replicates: int) -> UInt8:
    """Return draws of Poisson(1), uint8[replicates, n], that depend on key and replicate alone.

    So it does not matter how a log is cut (Hanley & MacGibbon 2006; Chamandy et al. 2012), and rows
    that share a key, the slots of a decision, have one weight.

    Args:
        keys: uint64[n].
        replicates: how many draws of each key.
    """
    streams = splitmix64(np.arange(1, -(-replicates // LANES) + 1, dtype=np.uint64))
    lanes = splitmix64(keys[:, None] ^ streams).astype("<u8", copy=False).view("<u2")
    return POISSON.take(lanes)[:, :replicates].T


def _poisson_table() -> UInt8:
    """Return the quantiles of Poisson(1) at the middle of each of 2^16 equal parts of [0, 1]."""
    cdf = np.cumsum([math.exp(-1.0) / math.factorial(count) for count in range(12)])
    return np.searchsorted(cdf, (np.arange(1 << 16) + 0.5) / (1 << 16)).astype(np.uint8)


POISSON = _poisson_table()
