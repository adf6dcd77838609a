"""Compiled loops that hash bytes: the first 64 bits of murmur3 for x64, 128 bits, seed 0.

Austin Appleby's MurmurHash3 (public domain): the same as ``mmh3.hash64(data, signed=False)[0]``.
"""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from bandits.kernels.compiled import Int32, Int64, compiled, i4s, i8s, inlined, read_only

UInt8 = NDArray[np.uint8]
UInt64 = NDArray[np.uint64]
u1s, u8s = read_only(types.uint8), read_only(types.uint64)

_C1, _C2 = np.uint64(0x87C37B91114253D5), np.uint64(0x4CF5AD432745937F)
_MIX1, _MIX2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_FIVE, _ADD1, _ADD2 = np.uint64(5), np.uint64(0x52DCE729), np.uint64(0x38495AB5)
_R27, _R31, _R33 = np.uint64(27), np.uint64(31), np.uint64(33)
_WORD, _ZERO = np.uint64(64), np.uint64(0)
BLOCK = 16
HALF = 8

# How msgpack heads a 64-bit float, and whole numbers of 1, 2, 4 and 8 bytes.
_DOUBLE, _BYTE, _SHORT, _LONG, _LONGEST = 0xCB, 0xCC, 0xCD, 0xCE, 0xCF


@inlined
def _rotated(x: Any, by: Any) -> Any:
    return (x << by) | (x >> (_WORD - by))


@inlined
def _mixed(k: Any) -> Any:
    k ^= k >> _R33
    k *= _MIX1
    k ^= k >> _R33
    k *= _MIX2
    return k ^ (k >> _R33)


@inlined
def _murmur(words: Any, size: Any) -> Any:
    """Return the hash of the first bytes of ``words``, uint64[...]; two words of 0 follow them."""
    h1, h2 = _ZERO, _ZERO
    for at in range(0, size // BLOCK * 2, 2):
        h1 ^= _rotated(words[at] * _C1, _R31) * _C2
        h1 = (_rotated(h1, _R27) + h2) * _FIVE + _ADD1
        h2 ^= _rotated(words[at + 1] * _C2, _R33) * _C1
        h2 = (_rotated(h2, _R31) + h1) * _FIVE + _ADD2

    # The tail, of fewer bytes than a block, filled up with zeros; nothing of it changes nothing.
    at = size // BLOCK * 2
    h2 ^= _rotated(words[at + 1] * _C2, _R33) * _C1
    h1 ^= _rotated(words[at] * _C1, _R31) * _C2

    length = np.uint64(size)
    h1 ^= length
    h2 ^= length
    h1 += h2
    h2 += h1
    return _mixed(h1) + _mixed(h2)


@inlined
def _put(out: Any, at: Any, data: Any, start: Any, end: Any) -> Any:
    """Copy bytes to ``out``, and return where they end there."""
    for n in range(end - start):
        out[at + n] = data[start + n]
    return at + end - start


@inlined
def _put_number(out: Any, at: Any, head: Any, bits: Any, size: Any) -> Any:
    """Write a number as msgpack does: its head, then its bytes, the highest first."""
    out[at] = head
    for n in range(size):
        out[at + 1 + n] = np.uint8((bits >> np.uint64(8 * (size - 1 - n))) & np.uint64(0xFF))
    return at + 1 + size


@inlined
def _put_count(out: Any, at: Any, count: Any) -> Any:
    """Write a whole number that is not negative as msgpack does, in the fewest bytes."""
    bits = np.uint64(count)
    if count < 0x80:
        out[at] = np.uint8(count)
        return at + 1
    if count <= 0xFF:
        return _put_number(out, at, _BYTE, bits, 1)
    if count <= 0xFFFF:
        return _put_number(out, at, _SHORT, bits, 2)
    if count <= 0xFFFFFFFF:
        return _put_number(out, at, _LONG, bits, 4)
    return _put_number(out, at, _LONGEST, bits, 8)


@compiled(u1s, i4s, types.uint64[::1])
def hash_texts(data: UInt8, offsets: Int32, out: UInt64) -> None:
    """Hash n texts.

    Args:
        data: uint8[...], the texts, UTF-8.
        offsets: int32[n + 1], where each begins.
        out: uint64[n], gets the hashes.
    """
    longest = 0
    for i in range(out.size):
        longest = max(longest, offsets[i + 1] - offsets[i])

    words = np.empty(longest // HALF + 4, np.uint64)
    text = words.view(np.uint8)
    for i in range(out.size):
        size = _put(text, np.int64(0), data, offsets[i], offsets[i + 1])
        text[size : size + BLOCK] = 0
        out[i] = _murmur(words, size)


@compiled(u1s, types.int64[:, :], types.uint64[::1])
def hash_parts(data: UInt8, bounds: Int64, out: UInt64) -> None:
    """Hash n texts that lie anywhere.

    Args:
        data: uint8[...], which holds the texts, UTF-8.
        bounds: int64[n, 2 or more], where each begins and ends.
        out: uint64[n], gets the hashes.
    """
    longest = np.int64(0)
    for i in range(out.size):
        longest = max(longest, bounds[i, 1] - bounds[i, 0])

    words = np.empty(longest // HALF + 4, np.uint64)
    text = words.view(np.uint8)
    for i in range(out.size):
        size = _put(text, np.int64(0), data, bounds[i, 0], bounds[i, 1])
        text[size : size + BLOCK] = 0
        out[i] = _murmur(words, size)


@compiled(
    *(u1s, i8s, u1s, i8s, i4s, i8s, i4s),
    *(i8s, u8s, i8s, i8s),
    returns=types.Tuple((types.uint64[::1], types.uint64[::1])),
)
def hash_contents(
    ids: UInt8,
    id_bounds: Int64,
    pool: UInt8,
    pool_bounds: Int64,
    place: Int32,
    first: Int64,
    pieces: Int32,
    available: Int64,
    propensity: UInt64,
    slot: Int64,
    time_ms: Int64,
) -> tuple[UInt64, UInt64]:
    """Return the hash of each row's id, place and content, uint64[R], and of its content alone.

    The content is msgpack: the row's pieces, then ``available``, ``propensity``, ``slot`` and
    ``time_ms``. None of these numbers is negative.

    Args:
        ids: the bytes of all ids, one after the other.
        id_bounds: int64[R + 1], where each row's id starts in them.
        pool: the bytes of P pieces, one after the other.
        pool_bounds: int64[P + 1], where each piece starts in them.
        place: int32[R], the piece that follows the id.
        first: int64[R + 1], where each row's pieces start in ``pieces``.
        pieces: int32[n], numbers of pieces.
        available: int64[R].
        propensity: uint64[R], the bits of float64.
        slot: int64[R].
        time_ms: int64[R].
    """
    count = available.size

    # The longest row: four numbers of nine bytes at most.
    longest = 0
    for r in range(count):
        size = id_bounds[r + 1] - id_bounds[r] + 36
        size += pool_bounds[place[r] + 1] - pool_bounds[place[r]]
        for n in range(first[r], first[r + 1]):
            size += pool_bounds[pieces[n] + 1] - pool_bounds[pieces[n]]
        longest = max(longest, size)

    # Words, so that they are read as such; two of 0 follow the bytes.
    words, whole_words = (
        np.empty(longest // HALF + 4, np.uint64),
        np.empty(longest // HALF + 4, np.uint64),
    )
    row, whole = words.view(np.uint8), whole_words.view(np.uint8)
    placed, said = np.empty(count, np.uint64), np.empty(count, np.uint64)
    for r in range(count):
        size = np.int64(0)
        for n in range(first[r], first[r + 1]):
            size = _put(row, size, pool, pool_bounds[pieces[n]], pool_bounds[pieces[n] + 1])
        size = _put_count(row, size, available[r])
        size = _put_number(row, size, _DOUBLE, propensity[r], 8)
        size = _put_count(row, size, slot[r])
        size = _put_count(row, size, time_ms[r])
        row[size : size + BLOCK] = 0
        said[r] = _murmur(words, size)

        end = _put(whole, 0, ids, id_bounds[r], id_bounds[r + 1])
        end = _put(whole, end, pool, pool_bounds[place[r]], pool_bounds[place[r] + 1])
        end = _put(whole, end, row, 0, size)
        whole[end : end + BLOCK] = 0
        placed[r] = _murmur(whole_words, end)
    return placed, said
