"""Encoding features: from maps of names and values to hashed namespaces."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bandits.errors import NonFiniteNumberError, TooManyFeaturesError
from bandits.features.hashing import hash_feature
from bandits.features.namespaces import FEATURES
from bandits.types import Float32, Namespace, UInt32, frozen
from bandits.values import MAX_FEATURE, FeatureMap
from policies.requests import MAX_FEATURES

_NUMBERS = {float}


def check_features(features: FeatureMap, target: str) -> None:
    """Refuse numbers beyond MAX_FEATURE, and more than MAX_FEATURES features, each item of a list being one.

    Raises:
        NonFiniteNumberError, TooManyFeaturesError: which name the field.
    """
    count = 0
    for name, value in features.items():
        count += len(value) if isinstance(value, list) else 1
        if isinstance(value, float) and not abs(value) <= MAX_FEATURE:
            raise NonFiniteNumberError(
                f"features are numbers up to {MAX_FEATURE:g}", f"{target}.{name}"
            )
    if count > MAX_FEATURES:
        raise TooManyFeaturesError(f"at most {MAX_FEATURES} features, not {count}", target)


def hash_rows(
    maps: Sequence[FeatureMap | None], namespace: str = FEATURES
) -> tuple[UInt32, Float32]:
    """Feature maps to padded hash and value arrays, one row per map."""
    names, codes, values = coded_rows(maps, namespace)
    return names[codes], values


def coded_rows(
    maps: Sequence[FeatureMap | None], namespace: str = FEATURES
) -> tuple[UInt32, NDArray[np.int32], Float32]:
    """The distinct hashes of feature maps, and per map padded arrays of which hash (int32 [N, F]) and which value."""
    rows = [hash_pairs(features or {}, namespace) for features in maps]
    seen: dict[int, int] = {}
    codes, values = _coded(rows, seen)
    return np.array(list(seen), np.uint32), codes, values


def _coded(
    rows: Sequence[Sequence[tuple[int, float]]], seen: dict[int, int]
) -> tuple[NDArray[np.int32], Float32]:
    """Which of the hashes ``seen``, to which new ones are added, and values.

    Padding has the value 0, any hash.
    """
    width = max((len(row) for row in rows), default=0)
    codes = [
        [seen.setdefault(hashed, len(seen)) for hashed, _ in row] + [0] * (width - len(row))
        for row in rows
    ]
    values = [[value for _, value in row] + [0.0] * (width - len(row)) for row in rows]
    shape = (len(rows), width)
    return np.array(codes, np.int32).reshape(shape), np.array(values, np.float32).reshape(shape)


def namespace_of(features: FeatureMap, namespace: str) -> Namespace:
    """The features that a map means, [n].

    Maps of the same names, all numbers, share the array of their hashes.
    """
    numbers = features.values()
    if set(map(type, numbers)) == _NUMBERS:
        return Namespace(
            namespace, _hashes_of(namespace, tuple(features)), np.array([*numbers], np.float32)
        )
    pairs = hash_pairs(features, namespace)
    hashes = np.array([hashed for hashed, _ in pairs], np.uint32)
    return Namespace(namespace, hashes, np.array([value for _, value in pairs], np.float32))


@lru_cache(maxsize=256)
def _hashes_of(namespace: str, names: tuple[str, ...]) -> UInt32:
    hashes: UInt32 = np.array([hash_feature(namespace, name) for name in names], np.uint32)
    return frozen(hashes)


def hash_pairs(features: FeatureMap, namespace: str) -> list[tuple[int, float]]:
    """(hash, value) of each feature: a number is its value, text and each item of a list are indicators.

    True is the indicator of the name, False of nothing.
    """
    out: list[tuple[int, float]] = []
    for name, value in features.items():
        if isinstance(value, float):
            out.append((hash_feature(namespace, name), value))
        elif isinstance(value, str):
            out.append((hash_feature(namespace, f"{name}={value}"), 1.0))
        elif isinstance(value, bool | int):
            out.append((hash_feature(namespace, name), float(value)))
        else:
            out.extend((hash_feature(namespace, f"{name}={each}"), 1.0) for each in value)
    return out
