"""Values of a condition: of many items at once, or one for all, and where they are known."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from bandits.values import FeatureMap
from policies.rules.columns import Column, ItemColumns
from policies.rules.kinds import Kind

NOWHERE: Final = -(2**31)
"""The code of a text that neither an item nor a choice of the request has."""


class Frame(NamedTuple):
    """What a condition is asked of.

    ``rows``: int[n], of ``columns``, which items, or, in the path of ``RuledItems.admits_in_turns``
    alone, a slice of them; ``context`` of the request; ``done``: by what was done, with which items
    the user did it; ``time``: the moment, by the names of CLOCK; ``own``: texts of the request that
    no item has, each with a code below 0: the items' vocabulary does not grow by what requests say;
    ``are_items``: whether no row is that of nothing, or of an item that is gone.
    """

    columns: ItemColumns
    rows: Any
    context: FeatureMap
    done: Mapping[str, Collection[str]]
    time: Mapping[str, float]
    own: list[str]
    are_items: bool = False

    def code(self, text: str) -> int:
        """Return a text's code among those of the items, or one of its own."""
        if self.known(text) == NOWHERE:
            self.own.append(text)
        return self.known(text)

    def known(self, text: str) -> int:
        """Return a text's code, NOWHERE if it has none."""
        code = self.columns.vocabulary.known(text)
        if code >= 0:
            return code
        return -1 - self.own.index(text) if text in self.own else NOWHERE

    def text(self, code: int) -> str:
        """Return the text of a code."""
        return self.columns.vocabulary.texts[code] if code >= 0 else self.own[-1 - code]

    def of_kind(self, column: Column, kind: int) -> Any:
        """Return of which items the value of a feature is of a kind, bool[n] or one for all.

        Args:
            column: the feature's.
            kind: of CODES.
        """
        if self.are_items and column.only_kind is not None:
            return column.only_kind == kind
        return column.kinds[self.rows] == kind


class Holds:
    """Where something holds, and where it does not: bool[n] or one for all; else it is unknown.

    Most rules ask for one of the two: each is found out when it is first asked for.
    """

    __slots__ = ("_no", "_yes")

    def __init__(self, yes: Any, no: Any) -> None:
        """Say where.

        Args:
            yes: where it holds, or what finds it out.
            no: where it does not, or what finds it out.
        """
        self._yes, self._no = yes, no

    @property
    def yes(self) -> Any:
        """Where it holds, bool[n] or one for all."""
        if callable(self._yes):
            self._yes = self._yes()
        return self._yes

    @property
    def no(self) -> Any:
        """Where it does not, bool[n] or one for all."""
        if callable(self._no):
            self._no = self._no()
        return self._no


class Numbers(NamedTuple):
    """Numbers, float64[n] or one for all, and where they are known."""

    values: Any
    known: Any


class Texts(NamedTuple):
    """Texts: codes int32[n] of the vocabulary, or one text for all, and where they are known."""

    values: Any
    known: Any


class TextLists(NamedTuple):
    """TextLists of texts: codes int32[n] of the vocabulary's lists, or one for all; where known."""

    values: Any
    known: Any


Value = Holds | Numbers | Texts | TextLists
Asks = Callable[[Frame], Any]
"""Finds a value out."""
KINDS: Final[dict[Kind, type[Any]]] = {
    "number": Numbers,
    "text": Texts,
    "flag": Holds,
    "texts": TextLists,
}


def given(value: object) -> Value:
    """Return a value of a request, or of the expression itself."""
    if isinstance(value, bool):
        return Holds(value, not value)
    if isinstance(value, str):
        return Texts(value, known=True)
    if isinstance(value, int | float):
        return Numbers(float(value), known=True)
    return TextLists(tuple(value) if isinstance(value, list | tuple) else (), known=True)


UNKNOWN: Final[dict[type[Any], Value]] = {
    Holds: Holds(yes=False, no=False),
    Numbers: Numbers(np.nan, known=False),
    Texts: Texts("", known=False),
    TextLists: TextLists((), known=False),
}


def where(found: Any, known: Any) -> Holds:
    """Return where something was found, and where it was not though all is known.

    Args:
        found: bool[n], or one for all.
        known: the same.
    """
    if known is True:
        return Holds(found, lambda: np.logical_not(found))
    return Holds(lambda: known & found, lambda: known & np.logical_not(found))


def both(one: Any, other: Any) -> Any:
    """Return where one thing is so, and another.

    Args:
        one: bool[n], or one for all.
        other: the same.
    """
    if one is True or other is True:
        return other if one is True else one
    return one & other


def either(one: Any, other: Any) -> Any:
    """Return where one thing is so, or another.

    Args:
        one: bool[n], or one for all.
        other: the same.
    """
    if one is False or other is False:
        return other if one is False else one
    return one | other


def known_of(value: Value) -> Any:
    """Return where a value is known."""
    return value.yes | value.no if isinstance(value, Holds) else value.known
