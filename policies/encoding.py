"""Encoding features: from maps of names and values to hashed namespaces."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from bandits.errors import NonFiniteNumberError, TooManyFeaturesError
from bandits.features.hashing import hash_feature
from bandits.features.namespaces import FEATURES
from bandits.types import Float32, Float64, Namespace, UInt32, frozen
from bandits.values import MAX_FEATURE, FeatureMap
from policies.requests import MAX_FEATURES

_NUMBERS = {float}


def check_features(features: FeatureMap, target: str) -> None:
    """Refuse features that are too large or too many; each item of a list is one.

    Args:
        features: in the form of a record.
        target: their path in the request, which errors begin with.

    Raises:
        NonFiniteNumberError: a number is beyond MAX_FEATURE, or none.
        TooManyFeaturesError: there are more than MAX_FEATURES.
    """
    if _are_few_numbers(features):
        return

    count = 0
    for name, value in features.items():
        count += len(value) if isinstance(value, list) else 1
        if isinstance(value, float) and not abs(value) <= MAX_FEATURE:
            raise NonFiniteNumberError(
                f"features are numbers up to {MAX_FEATURE:g}", f"{target}.{name}"
            )

    if count > MAX_FEATURES:
        raise TooManyFeaturesError(f"at most {MAX_FEATURES} features, not {count}", target)


def _are_few_numbers(features: FeatureMap) -> bool:
    """Return whether features are a few numbers of which none is large, as they are as a rule."""
    values = features.values()
    alike = len(values) <= MAX_FEATURES and set(map(type, values)) == _NUMBERS
    return alike and sum(map(abs, cast("Iterable[float]", values))) <= MAX_FEATURE


class NumberTable(NamedTuple):
    """N maps of the same names, in the same order, all of numbers.

    ``values``: float64[N, F], each up to MAX_FEATURE.
    """

    names: tuple[str, ...]
    values: Float64

    def at(self, rows: Sequence[int]) -> "NumberTable":
        """Return some of the maps."""
        return NumberTable(self.names, self.values[rows])


def numbers_alike(maps: Sequence[FeatureMap | None]) -> NumberTable | None:
    """Return maps as a table, if they are one: what ``check_features`` would refuse is none.

    What clients send is one as a rule, and is checked and encoded at once.

    Args:
        maps: in the form of a record; None is a map without features.
    """
    first = maps[0] if maps else None
    if not first or len(first) > MAX_FEATURES or None in maps:
        return None
    names = tuple(first)
    if [*map(tuple, cast("Sequence[FeatureMap]", maps))].count(names) < len(maps):
        return None

    cells = [*chain.from_iterable([each.values() for each in maps if each is not None])]
    if set(map(type, cells)) != _NUMBERS:
        return None
    values = np.array(cells, np.float64)
    if not bool(np.abs(values).max() <= MAX_FEATURE):
        return None
    return NumberTable(names, values.reshape(len(maps), len(names)))


def rows_alike(numbers: NumberTable, namespace: str) -> Namespace | None:
    """Return the features of maps that are a table; None where two names have one hash.

    Args:
        numbers: the table.
        namespace: which names are hashed with.
    """
    if not _are_distinct(namespace, numbers.names):
        return None
    hashes = _hashes_of(namespace, numbers.names)
    return Namespace(namespace, hashes, numbers.values.astype(np.float32))


def coded_rows(
    maps: Sequence[FeatureMap | None], namespace: str = FEATURES
) -> tuple[UInt32, NDArray[np.int32], Float32]:
    """Return the distinct hashes of N feature maps, and which hash has which value.

    Args:
        maps: None is a map without features.
        namespace: which names are hashed with.

    Returns:
        uint32[U], int32[N, F] into it, and float32[N, F], padded with the value 0.
    """
    rows = [hash_pairs(features or {}, namespace) for features in maps]
    seen: dict[int, int] = {}
    codes, values = code_pairs(rows, seen)
    return np.array(list(seen), np.uint32), codes, values


def code_pairs(
    rows: Sequence[Sequence[tuple[int, float]]], seen: dict[int, int]
) -> tuple[NDArray[np.int32], Float32]:
    """Return rows of pairs as two padded arrays, with a code instead of each hash.

    Args:
        rows: N lists of (hash, value).
        seen: the code of each hash so far, counted from 0; hashes that are new are added.

    Returns:
        int32[N, F] and float32[N, F], F the longest row's length. Padding has the value 0, and any
        code.
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
    """Return the features that a map means, [n].

    Maps of the same names, all numbers, share the array of their hashes.

    Args:
        features: in the form of a record.
        namespace: which names are hashed with.
    """
    numbers = features.values()
    if set(map(type, numbers)) == _NUMBERS:
        return Namespace(
            namespace, _hashes_of(namespace, tuple(features)), np.array([*numbers], np.float32)
        )

    pairs = hash_pairs(features, namespace)
    hashes = np.array([hashed for hashed, _ in pairs], np.uint32)
    return Namespace(namespace, hashes, np.array([value for _, value in pairs], np.float32))


def checked_namespace(features: FeatureMap, namespace: str, target: str) -> Namespace:
    """Return what ``namespace_of`` does of features that ``check_features`` does not refuse.

    Args:
        features: in the form of a record.
        namespace: which names are hashed with.
        target: their path in the request, which errors begin with.

    Raises:
        InvalidInputError: as ``check_features`` does.
    """
    if not _are_few_numbers(features):
        check_features(features, target)
        return namespace_of(features, namespace)
    values = np.fromiter(cast("Iterable[float]", features.values()), np.float32, len(features))
    return Namespace(namespace, _hashes_of(namespace, tuple(features)), values)


@lru_cache(maxsize=256)
def _hashes_of(namespace: str, names: tuple[str, ...]) -> UInt32:
    hashes: UInt32 = np.array([hash_feature(namespace, name) for name in names], np.uint32)
    return frozen(hashes)


@lru_cache(maxsize=256)
def _are_distinct(namespace: str, names: tuple[str, ...]) -> bool:
    return len({hash_feature(namespace, name) for name in names}) == len(names)


def hash_pairs(features: FeatureMap, namespace: str) -> list[tuple[int, float]]:
    """Return (hash, value) of each feature.

    A number is its value; a text, and each text of a list, is an indicator of its own; True is an
    indicator of the name, and False of nothing.

    Args:
        features: in the form of a record.
        namespace: which names are hashed with.
    """
    pairs: list[tuple[int, float]] = []
    for name, value in features.items():
        if isinstance(value, float):
            pairs.append((hash_feature(namespace, name), value))
        elif isinstance(value, str):
            pairs.append((hash_feature(namespace, f"{name}={value}"), 1.0))
        elif isinstance(value, bool | int):
            pairs.append((hash_feature(namespace, name), float(value)))
        else:
            pairs.extend((hash_feature(namespace, f"{name}={text}"), 1.0) for text in value)
    return pairs
