"""Filters: what may be chosen, decided before anything has a probability."""

from collections import OrderedDict
from typing import Any, Final, Literal

import msgspec
import numpy as np

from policies.rules.conditions import CompiledCondition, Condition
from policies.rules.values import Holds

MOST_OF_A_REQUEST = 2_000
"""Characters of a request's filter: one of so many is read and compiled in 1 to 8 ms."""
REMEMBERED: Final = 256
"""Filters that stay compiled."""
_COMPILED: Final = OrderedDict[tuple[str, str, bool], "Filter"]()


class FilterRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be chosen, of all that there is.

    Attributes:
        where: a condition (CEL) over ``item``, ``context``, ``profile`` and ``time``:
            ``item.stock > 0 && context.region in item.regions``.
        unknown: what becomes of an item of which it cannot be said whether the condition holds,
            because it lacks a feature, or the request does: ``refuse`` it or ``admit`` it.
        fields: features of items that a request's own filter may name beside those of ``where``.
    """

    where: Condition = "true"
    unknown: Literal["refuse", "admit"] = "refuse"
    fields: list[str] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse what is no condition."""
        compiled_filter(self.where, "filter.where", admits_unknown=False)


class Filter:
    """A filter's condition, and whether it admits an item of which nothing can be said."""

    def __init__(self, where: str, target: str, *, admits_unknown: bool) -> None:
        """Compile a condition.

        Args:
            where: the condition.
            target: the field that it is in; errors name it.
            admits_unknown: what becomes of an item of which it cannot be said whether it holds.

        Raises:
            SpecError: it is none.
        """
        self.condition = CompiledCondition(where, target)
        self.admits_unknown = admits_unknown

    def admitted(self, found: Holds) -> Any:
        """Return which items are admitted, bool[n] or one for all.

        Args:
            found: of each, what is known of whether it is.
        """
        return np.logical_not(found.no) if self.admits_unknown else found.yes


def compiled_filter(where: str, target: str, *, admits_unknown: bool) -> Filter:
    """Return a filter; one that was compiled of late is not compiled again.

    Args:
        where: the condition.
        target: the field that it is in.
        admits_unknown: see ``Filter``.

    Raises:
        SpecError: it is no condition.
    """
    name = where, target, admits_unknown
    found = _COMPILED.pop(name, None)  # whoever is asked for is the newest
    if found is None:
        found = Filter(where, target, admits_unknown=admits_unknown)
    _COMPILED[name] = found
    while len(_COMPILED) > REMEMBERED:
        _COMPILED.popitem(last=False)
    return found


def is_compiled(where: str, target: str, *, admits_unknown: bool) -> bool:
    """Return whether a filter was compiled of late.

    Args:
        where: the condition.
        target: the field that it is in.
        admits_unknown: see ``Filter``.
    """
    return (where, target, admits_unknown) in _COMPILED
