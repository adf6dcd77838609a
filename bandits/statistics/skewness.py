"""How skewed columns are, gathered in any order: a normal interval of a mean is corrected by it."""

from dataclasses import dataclass

import numpy as np

from bandits.types import Float64


@dataclass(slots=True, eq=False)
class Skews:
    """The second and third moments of n rows with k columns: a monoid.

    ``mean``: float64[k]; ``squares``, ``cubes``: float64[k], sums over rows of powers of what they
    differ from the mean by.
    """

    n: int
    mean: Float64
    squares: Float64
    cubes: Float64

    @classmethod
    def empty(cls, k: int) -> "Skews":
        """Return those of no rows with k columns."""
        return cls(0, np.zeros(k), np.zeros(k), np.zeros(k))

    def update(self, columns: Float64) -> None:
        """Add rows, float64[k, n]."""
        n = columns.shape[1]
        if n:
            mean = columns.mean(axis=1)
            apart = columns - mean[:, None]
            squares = apart * apart
            self.merge(Skews(n, mean, squares.sum(axis=1), (squares * apart).sum(axis=1)))

    def merge(self, other: "Skews") -> None:
        """Add the rows of another (Pébay 2008, Sandia report SAND2008-6212)."""
        mine, theirs, n = self.n, other.n, self.n + other.n
        if not theirs:
            return

        shift = other.mean - self.mean
        product = mine * (theirs / n)
        self.cubes = (
            self.cubes
            + other.cubes
            + shift**3 * product * ((mine - theirs) / n)
            + 3.0 * shift * (mine * other.squares - theirs * self.squares) / n
        )
        self.squares = self.squares + other.squares + shift**2 * product
        self.mean = self.mean + shift * (theirs / n)
        self.n = n

    @property
    def skewness(self) -> Float64:
        """The skewness of each column, float64[k]; 0 of one that is constant, or too large."""
        with np.errstate(all="ignore"):
            skewness = self.cubes / self.n / (self.squares / self.n) ** 1.5
        found: Float64 = np.where(np.isfinite(skewness), skewness, 0.0)
        return found
