"""Conditions about texts, and about lists of them."""

import operator
from collections.abc import Callable, Collection
from functools import reduce
from typing import Any, Final

import numpy as np

from policies.rules import expressions as ex
from policies.rules.values import NOWHERE, Asks, Frame, Holds, Numbers, both, where

TESTED: Final[dict[str, Callable[[str, str], bool]]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": operator.contains,
}


NONE_OWN: Final = np.zeros(0, np.intp)
FEW: Final = 8
"""Numbers that are compared one after the other."""


def tested(name: str, one: Asks, other: Asks) -> Asks:
    """Return where a text begins with, ends with, or contains another.

    Args:
        name: what is tested, one of TESTED.
        one: the text.
        other: the other.
    """
    test = TESTED[name]

    def asks(frame: Frame) -> Holds:
        first, second = one(frame), other(frame)
        known = both(first.known, second.known)
        ours, theirs = first.values, second.values
        if isinstance(theirs, str):
            if isinstance(ours, str):
                return where(test(ours, theirs), known)
            own = np.flatnonzero(ours < 0) if frame.own else NONE_OWN
            codes = np.maximum(ours, 0) if own.size else ours
            that = frame.columns.vocabulary.texts_that(
                name, theirs, lambda text: test(text, theirs), codes
            )
            that[own] = [test(frame.text(code), theirs) for code in ours[own].tolist()]
            return where(that, known)

        mine = [ours] * len(theirs) if isinstance(ours, str) else map(frame.text, ours)
        found = [test(text, frame.text(at)) for text, at in zip(mine, theirs, strict=True)]
        return where(np.array(found, np.bool_), known)

    return asks


def among(one: Asks, values: Collection[ex.Scalar]) -> Asks:
    """Return where a number, a text or a flag is one of some.

    Args:
        one: the value.
        values: those.
    """

    def asks(frame: Frame) -> Holds:
        first = one(frame)
        if isinstance(first, Holds):
            yes = (first.yes & (True in values)) | (first.no & (False in values))
            return where(yes, first.yes | first.no)
        return where(_is_in(frame, first.values, values), first.known)

    return asks


def _is_in(frame: Frame, ours: Any, values: Collection[Any]) -> Any:
    """Return which of some numbers or texts are among others."""
    if not isinstance(ours, np.ndarray):
        return ours in values
    if ours.dtype == np.int32:
        values = [code for code in map(frame.known, values) if code != NOWHERE]
        return np.isin(ours, list(values))
    if len(values) <= FEW:
        return reduce(np.logical_or, [ours == value for value in values], np.False_)
    of_these = np.unique(np.array(list(values), np.float64))
    at = np.minimum(np.searchsorted(of_these, ours), of_these.size - 1)
    return of_these[at] == ours


def member(one: Asks, listed: Asks) -> Asks:
    """Return where a text is in a list.

    Args:
        one: the text.
        listed: the list.
    """

    def asks(frame: Frame) -> Holds:
        first, second = one(frame), listed(frame)
        known = both(first.known, second.known)
        ours, lists, vocabulary = first.values, second.values, frame.columns.vocabulary
        if not isinstance(lists, np.ndarray):
            return where(_is_in(frame, ours, lists), known)

        if isinstance(ours, str):
            return where(np.take(vocabulary.lists_with(ours), lists), known)

        return where(vocabulary.are_in(ours, lists), known)

    return asks


def length_of(one: Asks) -> Asks:
    """Return how long a list is."""

    def asks(frame: Frame) -> Numbers:
        first = one(frame)
        if not isinstance(first.values, np.ndarray):
            return Numbers(float(len(first.values)), first.known)
        return Numbers(frame.columns.vocabulary.lengths[first.values], first.known)

    return asks
