"""Conditions about texts, and about lists of them."""

import operator
from collections.abc import Callable, Collection
from typing import Any, Final

import numpy as np

from bandits.types import Float64
from policies.rules import expressions as ex
from policies.rules.values import NOWHERE, Asks, Frame, Holds, Numbers, where

TESTED: Final[dict[str, Callable[[str, str], bool]]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": operator.contains,
}


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
        known = first.known & second.known
        ours, theirs = first.values, second.values
        if isinstance(theirs, str):
            if isinstance(ours, str):
                return where(test(ours, theirs), known)
            that = frame.columns.vocabulary.texts_that(name, theirs, lambda t: test(t, theirs))
            if frame.own:  # their codes are places from the end
                own = [test(text, theirs) for text in reversed(frame.own)]
                that = np.concatenate([that, np.array(own, np.bool_)])
            return where(that[ours], known)

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
            return Holds(yes, (first.yes | first.no) & np.logical_not(yes))
        return where(_is_in(frame, first.values, values), first.known)

    return asks


def _is_in(frame: Frame, ours: Any, values: Collection[Any]) -> Any:
    """Return which of some numbers or texts are among others."""
    if not isinstance(ours, np.ndarray):
        return ours in values
    if ours.dtype == np.int32:
        values = [code for code in map(frame.known, values) if code != NOWHERE]
    return np.isin(ours, list(values))


def member(one: Asks, listed: Asks) -> Asks:
    """Return where a text is in a list.

    Args:
        one: the text.
        listed: the list.
    """

    def asks(frame: Frame) -> Holds:
        first, second = one(frame), listed(frame)
        known = first.known & second.known
        ours, lists, vocabulary = first.values, second.values, frame.columns.vocabulary
        if not isinstance(lists, np.ndarray):
            return where(_is_in(frame, ours, lists), known)

        which, text = vocabulary.members
        if isinstance(ours, str):
            has = np.zeros(vocabulary.lists, np.bool_)
            has[which[text == vocabulary.known(ours)]] = True
            return where(has[lists], known)

        # Of each row another text and another list: a pair is a number.
        span = len(vocabulary.texts) + 1 + len(frame.own)
        pairs = lists.astype(np.int64) * span + ours
        return where(np.isin(pairs, which.astype(np.int64) * span + text), known)

    return asks


def length_of(one: Asks) -> Asks:
    """Return how long a list is."""

    def asks(frame: Frame) -> Numbers:
        first = one(frame)
        if not isinstance(first.values, np.ndarray):
            return Numbers(float(len(first.values)), first.known)
        vocabulary = frame.columns.vocabulary
        counts: Float64 = np.bincount(vocabulary.members[0], minlength=vocabulary.lists).astype(
            np.float64
        )
        return Numbers(counts[first.values], first.known)

    return asks
