"""How a ridge model forgets: what a decision counts follows from its age.

With a half-life h, a decision of time t weighs 2^((t - T) / h) in the posterior as of T: sums over
all that was learned, each with its weight. They are kept with the weights 2^((t - E) / h) instead,
relative to an epoch E, and brought to T when a snapshot is made. The prior precision does not fade:
a model that has forgotten all is the one that has learned nothing.

Source: the discounted sums of Russac et al. 2019 (arXiv:1909.09146), algorithm 1, with gamma =
2^(-1 / h) and the time of the log for the number of rounds.
"""

from collections.abc import Iterator

import numpy as np

from bandits.kernels.compiled import Int64
from bandits.kernels.sums import halved_by_age
from bandits.types import Float64

_NOTHING_LEFT = 4096
"""Halvings after which nothing is left of any number."""


class Epoch:
    """The time that the weights of a model's sums are relative to.

    It is the last whole multiple of the half-life at or before the newest decision that was
    learned, so it follows from the decisions, wherever the log is cut. When it moves, sums are
    halved a whole number of times, which rounds nothing.

    Args:
        half_life_ms: after so long a decision counts half.
        newest_ms: the time of the newest decision that was learned; 0 before the first.
    """

    def __init__(self, half_life_ms: int, newest_ms: int = 0) -> None:
        self.half_life_ms = half_life_ms
        self.newest_ms = newest_ms

    @property
    def number(self) -> int:
        """How many half-lives after the beginning of time it is."""
        return self.newest_ms // self.half_life_ms

    def stretches(self, times_ms: Int64) -> Iterator[tuple[slice, int, Float64]]:
        """Move on with some rows, and yield those of one epoch after the other.

        Args:
            times_ms: int64[R], the time of each row's decision.

        Yields:
            Which rows; how often the sums so far are to be halved before these are added; and the
            rows' weights, float64 each.
        """
        newest = np.maximum(np.maximum.accumulate(times_ms), self.newest_ms)
        epochs = newest // self.half_life_ms
        moves = np.flatnonzero(np.diff(epochs)) + 1

        for start, end in zip([0, *moves.tolist()], [*moves.tolist(), len(times_ms)], strict=True):
            if start == end:
                continue
            halvings = int(epochs[start]) - self.number
            self.newest_ms = int(newest[end - 1])
            begins_ms = self.number * self.half_life_ms
            rows = slice(start, end)
            yield rows, halvings, halved_by_age(times_ms[rows], begins_ms, self.half_life_ms)

    def weight_at(self, time_ms: int) -> float:
        """Return what the sums are to be multiplied with as of a time.

        Args:
            time_ms: if it is before the newest decision, the weight is as of that one.
        """
        begins = np.array([self.number * self.half_life_ms], np.int64)
        now_ms = max(time_ms, self.newest_ms)
        return float(halved_by_age(begins, now_ms, self.half_life_ms)[0])


def halve(sums: Float64, times: int) -> None:
    """Halve numbers so many times, in place; exact until they are too small for their type."""
    if times:
        np.ldexp(sums, -min(times, _NOTHING_LEFT), out=sums)
