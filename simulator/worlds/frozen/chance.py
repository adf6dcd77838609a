"""Chance that is a pure function of a seed and a place: nothing depends on the order of questions.

Numbers are hashed, not drawn from a generator: the same visit and item give the same luck under
every policy (common random numbers), and no release of numpy changes a world.
"""

import math
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64

_ODD = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_UNIT = 2.0**-52


class Chance:
    """A source of independent numbers, one for every place.

    Args:
        seed: The world's seed.
        purpose: What the numbers are for; other purposes give independent ones.
    """

    def __init__(self, seed: int, purpose: str) -> None:
        key = blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
        self._key: NDArray[np.uint64] = np.frombuffer(key, "<u8").astype(np.uint64)

    def at(self, *places: NDArray[np.integer] | int) -> Float64:
        """Return uniforms in (0, 1), of the shape to which the places broadcast, 1-D at least.

        Args:
            places: Integers that together name a place: a visit's number, an item's index.
        """
        state = self._key
        for place in places:
            # An array, never a scalar: arrays wrap around without a warning.
            state = _mixed(state + np.atleast_1d(place).astype(np.uint64) * _ODD)
        return ((state >> np.uint64(12)).astype(np.float64) + 0.5) * _UNIT

    def uniforms(self, *shape: int) -> Float64:
        """Return float64[shape] of uniforms in (0, 1)."""
        return self.at(np.arange(math.prod(shape))).reshape(shape)

    def normals(self, *shape: int) -> Float64:
        """Return float64[shape] of standard normals."""
        count = np.arange(math.prod(shape))
        return normals_from(self.at(count, 0), self.at(count, 1)).reshape(shape)

    def order(self, count: int) -> NDArray[np.int64]:
        """Return the numbers 0 to count - 1 in random order."""
        return np.argsort(self.uniforms(count), kind="stable")


def normals_from(first: Float64, second: Float64) -> Float64:
    """Return standard normals from two independent uniforms each.

    Box & Muller 1958, doi:10.1214/aoms/1177706645.

    Args:
        first: Uniforms in (0, 1).
        second: As many more.
    """
    normals: Float64 = np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second)
    return normals


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the finaliser of SplitMix64.

    Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195.
    """
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))
