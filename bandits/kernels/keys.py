"""A compiled loop that hashes texts: MurmurHash3 (Appleby), x64, 128 bits, seed 0.

As everywhere in numba, unsigned numbers stay so only among themselves: every constant is one.
"""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from bandits.kernels.compiled import compiled, i4s, inlined, read_only

_C1, _C2 = np.uint64(0x87C37B91114253D5), np.uint64(0x4CF5AD432745937F)
_M1, _M2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_N1, _N2 = np.uint64(0x52DCE729), np.uint64(0x38495AB5)
_FIVE, _EIGHT, _BITS = np.uint64(5), np.uint64(8), np.uint64(64)
_R27, _R31, _R33 = np.uint64(27), np.uint64(31), np.uint64(33)
_ZERO = np.uint64(0)


@inlined
def _rotated(x: Any, by: Any) -> Any:
    return (x << by) | (x >> (_BITS - by))


@inlined
def _word(data: Any, at: Any, size: Any) -> Any:
    """Return ``size`` bytes, at most 8, as a little-endian number."""
    out, shift = _ZERO, _ZERO
    for k in range(size):
        out |= np.uint64(data[at + k]) << shift
        shift += _EIGHT
    return out


@inlined
def _first(k: Any) -> Any:
    return _rotated(k * _C1, _R31) * _C2


@inlined
def _second(k: Any) -> Any:
    return _rotated(k * _C2, _R33) * _C1


@inlined
def _final(k: Any) -> Any:
    k ^= k >> _R33
    k *= _M1
    k ^= k >> _R33
    k *= _M2
    return k ^ (k >> _R33)


@compiled(read_only(types.uint8), i4s, types.uint64[::1])
def hash_texts(
    data: NDArray[np.uint8], offsets: NDArray[np.int32], out: NDArray[np.uint64]
) -> None:
    """Hash n texts, each to the first 64 of its 128 bits, as ``mmh3.hash64`` does.

    Args:
        data: uint8[...], the texts, UTF-8.
        offsets: int32[n + 1], where each begins.
        out: uint64[n], gets the hashes.
    """
    for i in range(len(out)):
        at, size = offsets[i], offsets[i + 1] - offsets[i]
        h1, h2 = _ZERO, _ZERO

        stop = at + size // 16 * 16
        while at < stop:
            h1 ^= _first(_word(data, at, 8))
            h1 = (_rotated(h1, _R27) + h2) * _FIVE + _N1
            h2 ^= _second(_word(data, at + 8, 8))
            h2 = (_rotated(h2, _R31) + h1) * _FIVE + _N2
            at += 16

        rest = size % 16
        h1 ^= _first(_word(data, at, min(rest, 8)))
        h2 ^= _second(_word(data, at + 8, max(rest - 8, 0)))

        h1 ^= np.uint64(size)
        h2 ^= np.uint64(size)
        h1 += h2
        h2 += h1
        h1, h2 = _final(h1), _final(h2)
        out[i] = h1 + h2
