"""Features of exported logs as they are named there, by Vowpal Wabbit, and here.

Only what is understood for certain is used: a line counts where the features that are read from it
are those that Vowpal Wabbit itself reads from it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from bandits.errors import BadRowError
from bandits.features.hashing import hash_feature, hash_namespace
from bandits.features.namespaces import CONTEXT, FEATURES, ITEM, NamespaceName
from bandits.log.codec import MALFORMED
from bandits.vw.log_reader import VwLogReader
from bandits.vw.renaming import NAMELESS, RenamedAction
from bandits.vw.weights import first_byte

_OUTER = {CONTEXT: "FromUrl", FEATURES: "j"}
"""Namespaces of what was given none: they are no part of a name here."""
_IDS = "i"
_ODD = frozenset(" \t|:")
"""What Vowpal Wabbit writes as an underscore, in texts."""
_SPACE = 0x20


class _Named(NamedTuple):
    """A feature, there and here."""

    letter: int
    hashed: int
    new_letter: int
    new_hash: int
    value: float


class _UnknownFormError(Exception):
    """A line has something of which it is not certain how it is named there."""


def renamed_actions(line: bytes, reader: VwLogReader, bits: int) -> list[RenamedAction]:
    """Return the actions of a line, under both kinds of names; none, if it is not understood.

    Args:
        line: in dsjson.
        reader: as Vowpal Wabbit reads it.
        bits: of the model's weights.
    """
    mask = (1 << bits) - 1
    try:
        features = msgspec.json.decode(line)["c"]
        shared = list(_read(features, [], CONTEXT))
        own = [list(_read(action, [], FEATURES)) for action in features["_multi"]]
        found = reader.features([line])
    except (*MALFORMED, _UnknownFormError, BadRowError, AttributeError, KeyError, TypeError):
        return []

    read = [sorted((each.letter, each.hashed & mask) for each in named) for named in (shared, *own)]
    if read != [sorted((letter, index & mask) for letter, index in each) for each in found]:
        return []
    return [_renamed([*each, *shared]) for each in own if each or shared]


def _renamed(named: Sequence[_Named]) -> RenamedAction:
    letters, hashes, new_letters, new_hashes, values = zip(*named, strict=True)
    return RenamedAction(
        np.array(letters, np.uint8),
        np.array(hashes, np.uint32),
        np.array(new_letters, np.uint8),
        np.array(new_hashes, np.uint32),
        np.array(values, np.float64),
    )


def _read(tree: Any, path: list[str], space: NamespaceName) -> Iterator[_Named]:
    """Yield the features of an object: each of the namespace that is the key of the object.

    What is 0, false, null or an empty text is none.
    """
    for key, value in tree.items():
        if key.startswith("_"):
            if key not in {"_multi", "_tag"}:
                raise _UnknownFormError
        elif "." in key:
            raise _UnknownFormError
        elif isinstance(value, dict):
            yield from _read(value, [*path, key], space)
        elif isinstance(value, list):
            yield from _read_list(value, [*path, key], space)
        elif value:
            yield _named(path, key, value, space)


def _read_list(values: list[Any], path: list[str], space: NamespaceName) -> Iterator[_Named]:
    numbers = 0
    for value in values:
        if isinstance(value, dict):
            yield from _read(value, path, space)
        elif isinstance(value, float | int) and not isinstance(value, bool):
            # A number has no name there but its place.
            hashed = (hash_namespace(path[-1]) + numbers) & 0xFFFFFFFF
            place = [*path, str(numbers)]
            numbers += 1
            if value:
                yield _of(place, hashed, _name(place, space), float(value), space)
        else:
            raise _UnknownFormError


def _named(path: Sequence[str], key: str, value: Any, space: NamespaceName) -> _Named:
    if not path:
        raise _UnknownFormError
    inner, full = path[-1], [*path, key]
    if isinstance(value, str):
        said = "".join("_" if letter in _ODD else letter for letter in value)
        hashed = _hash_of(key + said, inner)
        if path == [_IDS] and space == FEATURES and key == "id":
            new = hash_feature(ITEM, value)
            return _Named(first_byte(inner), hashed, first_byte(ITEM), new, 1.0)
        return _of(full, hashed, f"{_name(full, space)}={value}", 1.0, space)
    number = 1.0 if value is True else float(value)
    return _of(full, _hash_of(key, inner), _name(full, space), number, space)


def _of(path: Sequence[str], hashed: int, name: str, value: float, space: NamespaceName) -> _Named:
    """Return a feature by its path, the last part of which is its own, or its place in a list."""
    letter = first_byte(path[-2])
    if path[0] == _IDS and space == FEATURES:
        # Of what is beside an action's id nothing has a name here.
        if value != 1.0:
            raise _UnknownFormError
        return _Named(letter, hashed, NAMELESS, 0, 1.0)
    return _Named(letter, hashed, first_byte(space), hash_feature(space, name), value)


def _name(path: Sequence[str], space: NamespaceName) -> str:
    return ".".join(path[1:] if path[0] == _OUTER[space] else path)


def _hash_of(text: str, space: str) -> int:
    """Return the hash that Vowpal Wabbit has of a text: of digits alone it is their number."""
    trimmed = text.strip("".join(map(chr, range(_SPACE + 1))))
    if trimmed and trimmed.isascii() and trimmed.isdigit():
        return (int(trimmed) + hash_namespace(space)) & 0xFFFFFFFF
    return hash_feature(space, trimmed)
