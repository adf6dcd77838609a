"""The features of one decision as the few arrays that compiled loops read."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.kernels.compiled import Int32
from bandits.types import ActionSet, Context, Float32, Namespace, UInt32, frozen

Sizes = tuple[int, ...]
Spaces = tuple[tuple[str, int], ...]
"""The name of each namespace, and how many names of features it has."""


class Flat(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The features of one decision, namespace after namespace.

    ``names``: uint32[U], the hashes of the actions' features, as ``spaces`` says. ``values``:
    float32[K, N], as wide as ``widths`` says of each namespace. ``codes``: int32[K or 1, N], which
    name each value is of. ``shared``, ``shared_values``: the context's features, [C], as
    ``shared_spaces`` says.
    """

    names: UInt32
    codes: Int32
    values: Float32
    shared: UInt32
    shared_values: Float32
    spaces: Spaces
    widths: Sizes
    shared_spaces: Spaces


def flatten(context: Context, actions: ActionSet) -> Flat:
    """Return the features of a decision as arrays; one namespace alone is not copied.

    Args:
        context: its features become ``shared`` and ``shared_values``.
        actions: K of them; their features become ``names``, ``codes`` and ``values``.
    """
    spaces: Spaces
    widths: Sizes
    shared_spaces: Spaces
    if len(context.namespaces) == 1:
        (only,) = context.namespaces
        shared, shared_values = only.hashes, np.ascontiguousarray(only.values, np.float32)
        shared_spaces = ((only.name, shared.size),)
    else:
        shared = concatenated([ns.hashes for ns in context.namespaces], np.uint32)
        shared_values = concatenated([ns.values for ns in context.namespaces], np.float32)
        shared_spaces = tuple([(ns.name, ns.values.size) for ns in context.namespaces])

    if len(actions.namespaces) == 1:
        (one,) = actions.namespaces
        names, codes, values = _coded(one)
        spaces, widths = ((one.name, names.size),), (values.shape[1],)
    else:
        names, codes, values, spaces, widths = _side_by_side(actions)

    return Flat(names, codes, values, shared, shared_values, spaces, widths, shared_spaces)


def _side_by_side(actions: ActionSet) -> tuple[UInt32, Int32, Float32, Spaces, Sizes]:
    """Return the fields of ``Flat`` of several namespaces: names, codes, values, spaces, widths."""
    parts = [_coded(namespace) for namespace in actions.namespaces]

    # One row of codes does for all actions, unless some namespace has a row for each.
    count = len(actions)
    tall = any(len(codes) > 1 for _, codes, _ in parts)
    total = sum(values.shape[1] for _, _, values in parts)
    codes, values = (
        np.empty((count if tall else 1, total), np.int32),
        np.empty((count, total), np.float32),
    )

    at, seen = 0, 0
    for names, own_codes, own_values in parts:
        after = at + own_values.shape[1]
        np.add(own_codes, seen, out=codes[:, at:after])
        values[:, at:after] = own_values
        at, seen = after, seen + names.size

    hashes = concatenated([names for names, _, _ in parts], np.uint32)
    spaces = tuple(
        (namespace.name, part[0].size)
        for namespace, part in zip(actions.namespaces, parts, strict=True)
    )
    return hashes, codes, values, spaces, tuple(part[2].shape[1] for part in parts)


def _coded(namespace: Namespace) -> tuple[UInt32, Int32, Float32]:
    """Return names, which one each value is of, and the values, contiguous."""
    names, codes, values = (
        namespace.hashes,
        namespace.codes,
        np.ascontiguousarray(namespace.values, np.float32),
    )
    if codes is not None:
        return names, np.ascontiguousarray(codes, np.int32), values
    if names.ndim == 1:
        return np.ascontiguousarray(names), _counted(names.size), values
    return names.ravel(), np.arange(names.size, dtype=np.int32).reshape(names.shape), values


def concatenated(arrays: Sequence[NDArray[Any]], kind: Any) -> NDArray[Any]:
    """Return arrays one after the other.

    Args:
        arrays: each of one dimension; there may be none.
        kind: the dtype of the result.
    """
    return np.concatenate([np.zeros(0, kind), *arrays], dtype=kind)


@lru_cache(maxsize=1024)
def _counted(size: int) -> Int32:
    counted: Int32 = frozen(np.arange(size, dtype=np.int32)[None])
    return counted


def numbered(spaces: Spaces, first: int = 0) -> Int32:
    """Return the number of each feature's namespace, int32[N], read-only.

    Args:
        spaces: namespaces in order, each with its number of features; N in all.
        first: the number of the first namespace, from which the others count up.
    """
    numbers: Int32 = np.arange(first, first + len(spaces), dtype=np.int32)
    return frozen(np.repeat(numbers, [size for _, size in spaces]))


def names_of(spaces: Spaces) -> tuple[str, ...]:
    """Return the names of namespaces, in their order."""
    return tuple([name for name, _ in spaces])


def triples(rows: Sequence[tuple[int, int, int]]) -> Int32:
    """Return numbers of namespaces as compiled loops read them, int32[P, 3]."""
    numbers: Int32 = frozen(np.array(rows, np.int32).reshape(len(rows), 3))
    return numbers
