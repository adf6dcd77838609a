"""Names what is wrong with a request by the fields of the protocol, down to the feature."""

import json
import re
from typing import Any

from bandits.errors import InvalidInputError, MalformedBodyError
from serve_app.api.bodies import infinite_in

_THEIRS = {"context": "contextFeatures", "event_id": "eventId", "exclude": "excludedActions"}
"""By our own name of a field, theirs."""
_SOME_FEATURE = "[...]"
_HEAD = re.compile(r"([^.\[]*)(.*)", re.DOTALL)
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def named(error: InvalidInputError, body: bytes) -> InvalidInputError:
    """Return what is wrong with a body, with the name of the feature at fault.

    What reads bodies says of a number that is none only where its bytes are, and of an entry of a
    map only that it is one.

    Args:
        error: as it was read.
        body: what was sent.
    """
    target = error.target or ""
    if isinstance(error, MalformedBodyError):
        try:
            place = infinite_in(json.loads(body))
        except (ValueError, RecursionError):
            place = None
        return error if place is None else type(error)("a number is finite", place)
    if _SOME_FEATURE not in target:
        return error
    path, _, _ = target.partition(_SOME_FEATURE)
    found = _wrong_entry(_at(json.loads(body), path))
    return error if found is None else type(error)(error.message, f"{path}.{found}")


def their_name(target: str | None) -> str | None:
    """Return the path of a field, by the name that it has in the protocol."""
    if target is None:
        return None
    head, rest = _HEAD.fullmatch(target).groups()  # type: ignore[union-attr] # it matches any text
    return f"{_THEIRS.get(head, head)}{rest}"


def _at(value: Any, path: str) -> Any:
    """Return what is at a path that names its steps."""
    for place, name in _STEP.findall(path):
        value = value[int(place)] if place else value[name]
    return value


def _wrong_entry(features: dict[str, Any]) -> str | None:
    """Return the entry that is no list of numbers, though it is a list."""
    for name, value in features.items():
        if isinstance(value, list):
            for at, each in enumerate(value):
                if isinstance(each, bool) or not isinstance(each, int | float):
                    return f"{name}[{at}]"
    return None
