"""The features of one decision as the few arrays that compiled loops read."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.compiled import Int32, Int64
from bandits.types import ActionSet, Context, Float32, Namespace, UInt32, frozen


class Flat(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Namespaces are numbered: those of the context, then those of the actions.

    ``names``: uint32[U], hashes of features of the actions; ``space``: int32[U], the namespace of each. ``values``:
    float32[K, N]; ``codes``: int32[K or 1, N], which name each value is of. ``spans``: int64[A + 1], where in N each
    of the A namespaces starts. ``shared``, ``shared_values``, ``shared_space``: the context's features, [C].
    """

    names: UInt32
    space: Int32
    codes: Int32
    values: Float32
    spans: Int64
    shared: UInt32
    shared_values: Float32
    shared_space: Int32


def flatten(context: Context, actions: ActionSet) -> Flat:
    """Both, side by side."""
    before = len(context.namespaces)
    if before == 1:
        (only,) = context.namespaces
        shared, shared_values = only.hashes, np.ascontiguousarray(only.values, np.float32)
    else:
        shared = joined([ns.hashes for ns in context.namespaces], np.uint32)
        shared_values = joined([ns.values for ns in context.namespaces], np.float32)
    shared_space = _numbered(tuple([ns.values.size for ns in context.namespaces]), 0)
    widths: tuple[int, ...]
    sizes: tuple[int, ...]
    if len(actions.namespaces) == 1:
        names, codes, values = _coded(actions.namespaces[0])
        widths, sizes = (values.shape[1],), (names.size,)
    else:
        names, codes, values, widths, sizes = _side_by_side(actions)
    return Flat(names, _numbered(sizes, before), codes, values, _spans(widths), shared, shared_values, shared_space)


def _side_by_side(actions: ActionSet) -> tuple[UInt32, Int32, Float32, tuple[int, ...], tuple[int, ...]]:
    parts = [_coded(namespace) for namespace in actions.namespaces]
    count = len(actions)
    tall = any(len(codes) > 1 for _, codes, _ in parts)
    total = sum(values.shape[1] for _, _, values in parts)
    codes, values = np.empty((count if tall else 1, total), np.int32), np.empty((count, total), np.float32)
    at, seen = 0, 0
    for names, own, given in parts:
        after = at + given.shape[1]
        np.add(own, seen, out=codes[:, at:after])
        values[:, at:after] = given
        at, seen = after, seen + names.size
    hashes = joined([names for names, _, _ in parts], np.uint32)
    return hashes, codes, values, tuple(each[2].shape[1] for each in parts), tuple(each[0].size for each in parts)


def _coded(namespace: Namespace) -> tuple[UInt32, Int32, Float32]:
    """Names, which one each value is of, and the values, contiguous."""
    names, codes, values = namespace.hashes, namespace.codes, np.ascontiguousarray(namespace.values, np.float32)
    if codes is not None:
        return names, np.ascontiguousarray(codes, np.int32), values
    if names.ndim == 1:
        return np.ascontiguousarray(names), _counted(names.size), values
    return names.ravel(), np.arange(names.size, dtype=np.int32).reshape(names.shape), values


def joined(arrays: Sequence[NDArray[Any]], kind: Any) -> NDArray[Any]:
    """One after the other; there may be none."""
    return np.concatenate([np.zeros(0, kind), *arrays], dtype=kind)


@lru_cache(maxsize=1024)
def _counted(size: int) -> Int32:
    counted: Int32 = frozen(np.arange(size, dtype=np.int32)[None])
    return counted


@lru_cache(maxsize=1024)
def _numbered(sizes: tuple[int, ...], first: int) -> Int32:
    numbered: Int32 = frozen(np.repeat(np.arange(first, first + len(sizes), dtype=np.int32), sizes))
    return numbered


@lru_cache(maxsize=1024)
def _spans(widths: tuple[int, ...]) -> Int64:
    spans: Int64 = frozen(np.cumsum((0, *widths)))
    return spans


def triples(rows: Sequence[tuple[int, int, int]]) -> Int32:
    """Numbers of namespaces as compiled loops read them, int32[P, 3]."""
    numbers: Int32 = frozen(np.array(rows, np.int32).reshape(len(rows), 3))
    return numbers
