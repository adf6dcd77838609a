"""Ways to damage bytes: what a disk, a wire or a bug might make of a valid encoding."""

import math
import random
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
from hypothesis import strategies as st

JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**63,
    2**64 - 1,
    -(2**63),
    0.5,
    math.nan,
    math.inf,
    -1e300,
    1e13,
    "",
    "a" * 257,
    "\u00e9" * 200,
    b"",
    b"\x00" * 8,
    b"\x00\x00\xf0\x7f" * 2,
    b"\xff" * 24,
    [],
    ["a", "a"],
    [[0]],
    {},
    {"x": math.nan},
    {"": None},
    {1: 2},
    {"x": {"y": {}}},
    msgpack.ExtType(5, b"\x00"),
)
HEADERS = tuple(
    bytes.fromhex(each)
    for each in ("ddffffffff", "dfffffffff", "dbffffffff", "c6ffffffff", "c9ffffffff05")
)
"""Msgpack's heads of an array, a map, a text, bytes and an extension of four thousand million."""


def damaged(valid: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Valid bytes after one to three blows."""
    return st.builds(_strike, valid, st.integers(0, 2**32), st.integers(1, 3))


def _strike(data: bytes, seed: int, blows: int) -> bytes:
    chance = random.Random(seed)
    for _ in range(blows):
        data = chance.choice(BLOWS)(data, chance)
    return data


def _flip(data: bytes, chance: random.Random) -> bytes:
    if not data:
        return data
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _remove(data: bytes, chance: random.Random) -> bytes:
    low, high = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:low] + data[high:]


def _insert(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    piece = chance.choice(
        (chance.randbytes(chance.randrange(1, 9)), *HEADERS, b"\x91" * 3000, b"[" * 3000, b"\xff")
    )
    return data[:at] + piece + data[at:]


def _repeat(data: bytes, chance: random.Random) -> bytes:
    low, high = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:high] + data[low:high] + data[high:]


BLOWS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip,
    _flip,
    _cut,
    _remove,
    _insert,
    _repeat,
)


def rewritten(trees: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A well formed tree with some of its parts swapped, dropped or replaced by junk."""
    return st.builds(_rewrite, trees, st.integers(0, 2**32), st.integers(1, 3))


def _rewrite(tree: Any, seed: int, changes: int) -> Any:
    chance = random.Random(seed)
    for _ in range(changes):
        tree = _change(tree, chance)
    return tree


def _change(tree: Any, chance: random.Random) -> Any:
    """A copy with a random part changed, mostly without changing the part's type."""
    parts = (
        list(tree.items())
        if isinstance(tree, dict)
        else list(enumerate(tree))
        if isinstance(tree, list)
        else []
    )
    if not parts or chance.random() < 0.05:
        return _replace(tree, chance)
    key, value = chance.choice(parts)
    if isinstance(tree, dict):
        return {**tree, key: _change(value, chance)}
    out = list(tree)
    other = chance.randrange(len(out))
    match chance.randrange(10):
        case 0:
            out[key], out[other] = out[other], out[key]
        case 1:
            del out[key]
        case 2:
            out.insert(other, value)
        case _:
            out[key] = _change(value, chance)
    return out


def _replace(leaf: Any, chance: random.Random) -> Any:
    """A value of the same type that is a little off, or junk."""
    if chance.random() < 0.1:
        return chance.choice(JUNK)
    near: tuple[Any, ...] = JUNK
    match leaf:
        case bool():
            near = (not leaf,)
        case bytes():
            near = tuple(
                blow(leaf, chance) for blow in (_flip, _cut, _repeat, _numbers, _numbers, _numbers)
            )
        case int():
            near = (-1, -2, max(leaf, 1) - 1, min(leaf, 98) + 1, 99, 2**63, float(leaf))
        case float():
            near = (-leaf, leaf * 1e12, math.nan, math.inf, -math.inf, 1e300, 7)
        case str():
            near = ("", leaf * 2, leaf[:-1], leaf * 100, "x" * 257, "\u00e9" * 129)
        case list():
            near = ([], [chance.choice(JUNK)])
    return chance.choice(near)


def _numbers(data: bytes, chance: random.Random) -> bytes:
    """Bytes as an array of floats, two of which are swapped, wrong, or off by opposite amounts."""
    kind = np.dtype(chance.choice(("<f8", "<f8", "<f4")))
    count = len(data) // kind.itemsize
    if count == 0:
        return bytes(kind.itemsize)
    numbers = np.frombuffer(data, kind, count).tolist()
    one, other = chance.randrange(count), chance.randrange(count)
    amount = chance.choice((0.5, 2.0, 1e-3, 1e-11, 1e30, -numbers[one]))
    match chance.randrange(5):
        case 0:
            numbers[one], numbers[other] = numbers[other], numbers[one]
        case 1:
            numbers[one] = chance.choice((math.nan, math.inf, -math.inf, 0.0, -1.0))
        case 2:
            numbers[one] += amount
        case 3:
            numbers += [0.0] * chance.randrange(1, count + 1)
        case _:
            numbers[one] += amount
            numbers[other] -= amount
    with np.errstate(over="ignore"):
        return np.array(numbers).astype(kind).tobytes()
