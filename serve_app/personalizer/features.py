"""Features as Personalizer's clients send them, as features of a record.

They come as a list of objects, whose values are texts, numbers, booleans, arrays of numbers, or
objects: the namespaces. ``[{"user": {"age": 30}}, {"hour": 8}]`` is ``user.age`` and ``hour``. A
value of null is no feature, and nor is one whose name begins with an underscore.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bandits.errors import InvalidFieldError, NonFiniteNumberError
from bandits.values import FeatureMap, Value
from policies.requests import MAX_DEPTH

FeatureObject = dict[str, Any]
FeatureObjects = list[FeatureObject | None]
_IGNORED = "_"


def record_features(given: Sequence[FeatureObject | None], target: str) -> FeatureMap:
    """Return features as a record has them.

    Args:
        given: the objects of the request.
        target: their path in it, which errors begin with.

    Raises:
        InvalidFieldError: a name is empty, a value of no known kind, or a feature both a text and a
            number; it names the field.
        NonFiniteNumberError: a number is not finite.
    """
    features: FeatureMap = {}
    for at, each in enumerate(given):
        if each:
            _add_all(features, each, "", f"{target}[{at}]", 1)
    return features


def _add_all(
    features: FeatureMap, given: Mapping[str, Any], prefix: str, target: str, depth: int
) -> None:
    if depth > MAX_DEPTH:
        raise InvalidFieldError(f"features are nested at most {MAX_DEPTH} deep", target)

    for name, value in given.items():
        if not name:
            raise InvalidFieldError("the name of a feature is not empty", target)
        if name[0] == _IGNORED or value is None:
            continue

        full, kind = prefix + name, type(value)
        if kind is str or kind is float or kind is bool:
            _put_feature(features, full, value, target)
        elif kind is int:
            _put_feature(features, full, _number(value, f"{target}.{name}"), target)
        elif kind is dict:
            _add_all(features, value, f"{full}.", f"{target}.{name}", depth + 1)
        else:
            for at, number in enumerate(value):
                path = f"{target}.{name}[{at}]"
                if type(number) not in {int, float}:
                    raise InvalidFieldError("an array of features is of numbers", path)
                _put_feature(features, f"{full}.{at}", _number(number, path), target)


def _number(value: float, target: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise NonFiniteNumberError("a feature is a finite number", target)
    return number


def _put_feature(features: FeatureMap, name: str, value: Value, target: str) -> None:
    """Put a feature; of two under one name, numbers add up, and texts are both there."""
    before = features.get(name)
    if before is None:
        features[name] = value
        return
    of_text = [isinstance(each, str | list) for each in (before, value)]
    if of_text == [True, True]:
        features[name] = [*_as_texts(before), *_as_texts(value)]
    elif of_text == [False, False]:
        features[name] = float(before) + float(value)  # type: ignore[arg-type]
    else:
        raise InvalidFieldError(f"the feature {name} is given as a text and as a number", target)


def _as_texts(value: Value) -> list[str]:
    return value if isinstance(value, list) else [str(value)]
