"""Rank requests, actions and items as callers send them, and the features in them.

Features as callers have them become the features of a record (``plain_features``), so the log, the
learner and every replay see one form only. This imports nothing heavy.

What a spec calls ``context_private`` is shown to sources, and what these make of it is in the
record, as scores. The model never sees it: a decision is derived again from its record, and what is
not in there cannot have been looked at.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from banditloop_client.schemas import (
    MAX_ACTIONS,
    MAX_SLOTS,
    ActionRequest,
    EventId,
    Item,
    RankRequest,
)
from bandits.errors import (
    InvalidEventIdError,
    InvalidFieldError,
    NonFiniteNumberError,
    TooManyFeaturesError,
)
from bandits.values import MAX_EVENT_ID_BYTES, FeatureMap, Value


class SlateRequest(RankRequest, frozen=True, omit_defaults=True, gc=False):
    """A request for a page on which not everything may stand everywhere.

    Attributes:
        barred: by slot, the ids of the actions that may not stand there; empty: anything may stand
            anywhere.
    """

    barred: list[list[str]] = msgspec.field(default_factory=list)


class BareRequest(RankRequest, frozen=True, omit_defaults=True, gc=False):
    """A request whose actions are JSON as it was sent: ids and nothing else, as a rule.

    Whoever takes one either finds the ids (``policies.items.bare_ids``) or has it decoded.
    """

    actions: msgspec.Raw = msgspec.Raw()  # type: ignore[assignment]

    @property
    def sent(self) -> bytes:
        """The text of the actions; empty if there is none."""
        return bytes(self.actions)


MAX_FEATURES = 256
MAX_DEPTH = 16

__all__ = [
    "MAX_ACTIONS",
    "MAX_DEPTH",
    "MAX_FEATURES",
    "MAX_SLOTS",
    "ActionRequest",
    "BareRequest",
    "EventId",
    "Item",
    "RankRequest",
    "SlateRequest",
    "check_event_id",
    "is_private",
    "plain_features",
    "plain_patch",
    "without_private",
]


def check_event_id(event_id: str) -> str:
    """Return the event_id if it may be used; refuse it otherwise.

    Raises:
        InvalidEventIdError: it is empty, or has more than 256 bytes.
    """
    if not 0 < len(event_id.encode(errors="replace")) <= MAX_EVENT_ID_BYTES:
        raise InvalidEventIdError(f"an event_id has 1 to {MAX_EVENT_ID_BYTES} bytes", "event_id")
    return event_id


def plain_features(given: Mapping[str, Any], target: str) -> FeatureMap:
    """Return features as JSON has them, in the form of a record.

    - ``null`` means that there is no such feature.
    - A nested object names its features with dots: ``{"user": {"age": 30}}`` is ``user.age``.
    - A list of numbers is a vector: ``{"taste": [0.1, 0.7]}`` is ``taste.0`` and ``taste.1``.
    - A list of texts is a set, as it stands. A list of objects gives the features of each, under
      the list's name.
    - Where a name occurs twice after that, numbers add up, and texts become a list, as in Vowpal
      Wabbit.

    Args:
        given: the object of the request.
        target: its path in the request, which errors begin with.

    Raises:
        InvalidFieldError: a list mixes texts, numbers and objects; a name has a number and a text;
            or the object is nested more than MAX_DEPTH deep. It names the field.
        NonFiniteNumberError: a number is not finite.
        TooManyFeaturesError: there are more than MAX_FEATURES.
    """
    features: FeatureMap = {}
    for name, value in given.items():
        _add(features, name, value, f"{target}.{name}", depth=1)

        # Counted on the way, so that a large object costs no more than the limit.
        if len(features) > MAX_FEATURES:
            raise TooManyFeaturesError(
                f"at most {MAX_FEATURES} features, not {len(features)} and more", target
            )
    return features


def plain_patch(given: Mapping[str, Any], target: str) -> dict[str, Value | None]:
    """Return changes of features as JSON has them, in the form of a record.

    What is ``null`` goes, however deep it stands. A list takes the place of what had its name, so
    numbers of a longer vector go.

    Args:
        given: the object of the request.
        target: its path in the request, which errors begin with.

    Raises:
        InvalidInputError: as ``plain_features`` does.
    """
    changed = plain_features(given, target)
    return {**_gone(given, ""), **changed}


def _gone(given: Mapping[str, Any], above: str) -> dict[str, None]:
    gone: dict[str, None] = {}
    for name, value in given.items():
        if isinstance(value, dict):
            gone |= _gone(value, f"{above}{name}.")
        elif value is None or isinstance(value, list):
            gone[f"{above}{name}"] = None
    return gone


def without_private(context: FeatureMap, private: Collection[str]) -> FeatureMap:
    """Return the features that may be logged and learned from; the same object if all may.

    Args:
        context: of a request, in the form of a record.
        private: names; each is also that of all features below it: ``home`` of ``home.street``.
    """
    if not private:
        return context
    kept = {name: value for name, value in context.items() if not is_private(name, private)}
    return context if len(kept) == len(context) else kept


def is_private(name: str, private: Collection[str]) -> bool:
    """Return whether a feature is, or is below, one of some names.

    Args:
        name: the feature's, as a record would have it.
        private: names.
    """
    return name in private or any(name.startswith(f"{each}.") for each in private)


def _add(features: FeatureMap, name: str, value: Any, target: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidFieldError(f"features are nested at most {MAX_DEPTH} deep", target)

    if value is None:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            _add(features, f"{name}.{key}", inner, f"{target}.{key}", depth + 1)
    elif isinstance(value, list):
        _add_list(features, name, value, target, depth)
    elif isinstance(value, bool | str):
        _put(features, name, value, target)
    else:
        _put(features, name, _finite(value, target), target)


def _add_list(
    features: FeatureMap, name: str, values: Sequence[Any], target: str, depth: int
) -> None:
    kinds = {_kind(value) for value in values if value is not None}
    if len(kinds) > 1:
        raise InvalidFieldError(
            f"a list has values of one kind, not of {' and '.join(sorted(kinds))}", target
        )

    if kinds <= {"text"}:
        _put(features, name, [value for value in values if value is not None], target)
        return
    for at, value in enumerate(values):
        inner = name if kinds == {"object"} else f"{name}.{at}"
        _add(features, inner, value, f"{target}[{at}]", depth + 1)


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict):
        return "object"
    return "list" if isinstance(value, list) else "number"


def _finite(value: float, target: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise NonFiniteNumberError("a feature is a finite number", target)
    return number


def _put(features: FeatureMap, name: str, value: Value, target: str) -> None:
    before = features.get(name)
    if before is None:
        features[name] = value
    elif isinstance(before, str | list) and isinstance(value, str | list):
        features[name] = _texts(before) + _texts(value)
    elif isinstance(before, str | list) or isinstance(value, str | list):
        raise InvalidFieldError(f"the feature {name} is given as a text and as a number", target)
    else:
        features[name] = float(before) + float(value)


def _texts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
