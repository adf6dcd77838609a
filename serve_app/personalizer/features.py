"""Features as Personalizer's clients send them, as features of a record.

They come as a list of objects, whose values are texts, numbers, booleans, arrays of numbers, or
objects: the namespaces. ``[{"user": {"age": 30}}, {"hour": 8}]`` is ``user.age`` and ``hour``. A
value of null is no feature, and nor is one whose name begins with an underscore.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bandits.errors import InvalidFieldError, InvalidInputError, NonFiniteNumberError
from bandits.values import FeatureMap, Value
from policies.requests import MAX_DEPTH

FeatureObject = dict[str, float | str | bool | list[float] | dict[str, Any] | None]
FeatureObjects = list[FeatureObject | None]
NAMELESS = "the name of a feature is not empty"
_IGNORED = "_"
_SCALARS = frozenset((float, str, bool))
_SPACED = _SCALARS | {dict}
_LARGE = 1 << 53
"""A whole number below this is a float."""


def record_features(
    given: Sequence[FeatureObject | None], target: str, number: int | None = None
) -> FeatureMap:
    """Return features as a record has them.

    Args:
        given: the objects of the request.
        target: their path in it, which errors begin with.
        number: what stands in the path for ``%d``.

    Raises:
        InvalidFieldError: a name is empty, or a value of no known kind; it names the field.
        NonFiniteNumberError: a number is not finite.
    """
    # Most are one object with nothing inside, which is as a record has it, or with namespaces.
    only = given[0] if len(given) == 1 else None
    plain = None if only is None else _plain(only)
    if plain is not None:
        return plain

    features: FeatureMap = {}
    for at, each in enumerate(given):
        if each:
            try:
                _add_all(features, each, "", 1)
            except InvalidInputError as error:
                inner = "" if error.target is None else f".{error.target}"
                path = target if number is None else target % number
                raise type(error)(error.message, f"{path}[{at}]{inner}") from error
    return features


def _plain(given: FeatureObject) -> FeatureMap | None:
    """Return texts, numbers and booleans by their names, also those of namespaces.

    None: there is something else, or one name twice.
    """
    kinds = {*map(type, given.values())}
    if not kinds <= _SPACED or not _are_plain(given):
        return None
    if dict not in kinds:
        return given  # type: ignore[return-value] # there are fewer kinds of values in it

    features: FeatureMap = {}
    count = 0
    for name, value in given.items():
        inside = value if isinstance(value, dict) else None
        count += 1 if inside is None else len(inside)
        if inside is None:
            features[name] = value  # type: ignore[assignment] # a scalar
        elif not _are_plain(inside):
            return None
        for inner, scalar in () if inside is None else inside.items():
            if type(scalar) is int and abs(scalar) < _LARGE:
                features[f"{name}.{inner}"] = float(scalar)
            elif type(scalar) in _SCALARS:
                features[f"{name}.{inner}"] = scalar
            else:
                return None
    return features if len(features) == count else None


def _are_plain(names: Iterable[str]) -> bool:
    """Return whether all are names, and none is ignored."""
    for name in names:  # noqa: SIM110 - all() takes twice as long
        if not name or name[0] == _IGNORED:
            return False
    return True


def _add_all(features: FeatureMap, given: Mapping[str, Any], prefix: str, depth: int) -> None:
    for name, value in given.items():
        # Nearly all values are of these kinds, under names of their own.
        kind = type(value)
        if (kind is float or kind is str or kind is bool) and name and name[0] != _IGNORED:
            full = prefix + name
            if full not in features:
                features[full] = value
                continue
        _add_any(features, name, value, prefix, depth)


def _add_any(features: FeatureMap, name: str, value: Any, prefix: str, depth: int) -> None:
    if not name:
        raise InvalidFieldError(NAMELESS, prefix.rstrip(".") or None)
    if name[0] == _IGNORED or value is None:
        return

    full = prefix + name
    if isinstance(value, dict):
        if depth == MAX_DEPTH:
            raise InvalidFieldError(f"features are nested at most {MAX_DEPTH} deep", full)
        _add_all(features, value, f"{full}.", depth + 1)
    elif isinstance(value, list):
        for at, number in enumerate(value):
            if type(number) not in {int, float}:
                raise InvalidFieldError("an array of features is of numbers", f"{full}[{at}]")
            _put_feature(features, f"{full}.{at}", _number(number, full))
    elif isinstance(value, bool | str):
        _put_feature(features, full, value)
    else:
        _put_feature(features, full, _number(value, full))


def _number(value: float, target: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise NonFiniteNumberError("a feature is a finite number", target)
    return number


def _put_feature(features: FeatureMap, name: str, value: Value) -> None:
    """Put a feature; of two under one name, numbers add up, and texts are both there."""
    before = features.get(name)
    if before is None:
        features[name] = value
    elif isinstance(before, str | list) or isinstance(value, str | list):
        features[name] = [*_as_texts(before), *_as_texts(value)]
    else:
        features[name] = float(before) + float(value)


def _as_texts(value: Value) -> list[str]:
    if isinstance(value, list):
        return value
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return [value if isinstance(value, str) else f"{value:g}"]
