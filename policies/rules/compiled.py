"""A condition as a function of columns: it says at once of many items whether it holds.

A value that an item or a request lacks, or that is of another kind, is not known, and neither is
what is made of it; ``&&`` and ``||`` go by what is known (Kleene's logic, as CEL's errors do).
"""

import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Final

import numpy as np

from policies.rules import expressions as ex
from policies.rules.columns import CODES, LACKING
from policies.rules.kinds import TAKES, Kind
from policies.rules.texts import among, length_of, member, tested
from policies.rules.values import (
    KINDS,
    UNKNOWN,
    Asks,
    Frame,
    Holds,
    Numbers,
    TextLists,
    Texts,
    Value,
    both,
    either,
    given,
    known_of,
    where,
)

COMPARED: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
SUMMED: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": np.divide,
    "%": np.fmod,
}


def compile_condition(
    node: ex.Node, kinds: Mapping[ex.Field, Kind | None]
) -> Callable[[Frame], Holds]:
    """Return a condition as a function.

    Args:
        node: the condition.
        kinds: of its fields, see ``field_kinds``.
    """
    compiled: Callable[[Frame], Holds] = _Compiler(kinds).compile(node, "flag")
    return compiled


ANY_KIND: Final[tuple[Kind, ...]] = ("text", "number", "flag")


class _Compiler:
    """Makes a closure of each node."""

    def __init__(self, kinds: Mapping[ex.Field, Kind | None]) -> None:
        self._kinds = kinds

    def compile(self, node: ex.Node, kind: Kind | None = None) -> Asks:
        """Return a node's closure; a field's is of the kind, if none is known of it."""
        if isinstance(node, ex.Literal):
            return _always(given(node.value))
        if isinstance(node, ex.ListOf):
            return _always(TextLists(tuple(map(str, node.values)), known=True))
        if isinstance(node, ex.Field):
            return _field(node, self._kinds[node] or kind or "text")
        if isinstance(node, ex.Has):
            return _has(node.field)

        return self._call(node.name, node.args)

    def _call(self, name: str, args: tuple[ex.Node, ...]) -> Asks:
        if name in {"==", "!="}:
            return self._alike(*args, differs=name == "!=")
        if name == "in":
            return self._in(*args)
        takes: Kind | None = None if name == "?:" else TAKES.get(name, "text")
        return _applied(name, [self.compile(each, takes) for each in args])

    def _alike(self, one: ex.Node, other: ex.Node, *, differs: bool) -> Asks:
        if isinstance(one, ex.Field) and isinstance(other, ex.Field) and not self._kinds[one]:
            alike = _same_of_any_kind(
                [(self.compile(one, kind), self.compile(other, kind)) for kind in ANY_KIND]
            )
            return _negated(alike) if differs else alike
        same = _other if differs else _same
        return same(self.compile(one), self.compile(other))

    def _in(self, one: ex.Node, listed: ex.Node) -> Asks:
        if isinstance(listed, ex.ListOf):
            if not listed.values and isinstance(one, ex.Field):
                there = _has(one)  # of whatever kind
                return lambda frame: Holds(yes=False, no=there(frame).yes)
            return among(self.compile(one), listed.values)
        return member(self.compile(one, "text"), self.compile(listed, "texts"))


def _applied(name: str, args: list[Asks]) -> Asks:
    """Return the closure of an operator or a function."""
    if name in {"&&", "||"}:
        return _all(args) if name == "&&" else _any(args)
    if name in COMPARED:
        return _compared(COMPARED[name], *args)
    if name in SUMMED:
        return _summed(name, *args)
    made: dict[str, Callable[..., Asks]] = {
        "!": _negated,
        "neg": _negative,
        "?:": _chosen,
        "size": length_of,
    }
    return made[name](*args) if name in made else tested(name, *args)


def _always(value: Value) -> Asks:
    return lambda _frame: value


# Fields


def _field(field: ex.Field, kind: Kind) -> Asks:
    """Return a field's closure, for values of a kind; one of another kind is not known."""
    name, made = field.name, KINDS[kind]
    if field.root == "item":
        return _item_field(name, kind)
    if field.root == "context":

        def of_context(frame: Frame) -> Value:
            value = frame.context.get(name)
            found = UNKNOWN[made] if value is None else given(value)
            return found if type(found) is made else UNKNOWN[made]

        return of_context
    if field.root == "profile":
        return lambda frame: TextLists(frame.done.get(name, ()), known=True)
    return lambda frame: Numbers(frame.time[name], known=True)


def _item_field(name: str, kind: Kind) -> Asks:
    code, made = CODES[kind], KINDS[kind]
    other = CODES["texts" if kind == "text" else "text"]

    def asks(frame: Frame) -> Value:
        column = frame.columns.columns[name]
        known = frame.of_kind(column, code)
        if known is False:
            return UNKNOWN[made]
        if kind == "flag":
            return where(column.values[frame.rows] != 0, known)
        if kind == "number":
            return Numbers(column.values[frame.rows], known)

        codes = column.codes[frame.rows]
        if column.counts[other]:  # a code of another kind is a place in another list
            codes = np.where(known, codes, 0)
        found: Value = made(codes, known)
        return found

    return asks


def _has(field: ex.Field) -> Asks:
    name = field.name
    if field.root == "item":

        def of_item(frame: Frame) -> Holds:
            lacks = frame.of_kind(frame.columns.columns[name], LACKING)
            return Holds(lambda: np.logical_not(lacks), lacks)

        return of_item

    def of_request(frame: Frame) -> Holds:
        has = name in (frame.context if field.root == "context" else frame.done)
        return Holds(has, not has)

    return _always(Holds(yes=True, no=False)) if field.root == "time" else of_request


# Conditions


def _all(terms: list[Asks]) -> Asks:
    def asks(frame: Frame) -> Holds:
        found = [term(frame) for term in terms]
        return Holds(
            lambda: reduce(both, [each.yes for each in found]),
            lambda: reduce(operator.or_, [each.no for each in found]),
        )

    return asks


def _any(terms: list[Asks]) -> Asks:
    def asks(frame: Frame) -> Holds:
        found = [term(frame) for term in terms]
        return Holds(
            lambda: reduce(operator.or_, [each.yes for each in found]),
            lambda: reduce(both, [each.no for each in found]),
        )

    return asks


def _negated(term: Asks) -> Asks:
    def asks(frame: Frame) -> Holds:
        found = term(frame)
        return Holds(lambda: found.no, lambda: found.yes)

    return asks


def _chosen(condition: Asks, one: Asks, other: Asks) -> Asks:
    def asks(frame: Frame) -> Value:
        when, first, second = condition(frame), one(frame), other(frame)
        if isinstance(first, Holds):
            return Holds(
                lambda: (when.yes & first.yes) | (when.no & second.yes),
                lambda: (when.yes & first.no) | (when.no & second.no),
            )
        kind = type(first)
        if not isinstance(when.yes, np.ndarray):  # one answer for all items
            return first if when.yes else second if when.no else UNKNOWN[kind]
        known = (when.yes & first.known) | (when.no & second.known)
        values = np.where(when.yes, *_as_codes(frame, kind, first.values, second.values))
        chosen: Value = kind(values, known)
        return chosen

    return asks


def _as_codes(frame: Frame, kind: type[Any], *values: Any) -> tuple[Any, ...]:
    """Return texts of two branches as codes, and numbers as they are."""
    if kind is Texts:
        return tuple(
            np.int32(frame.code(each)) if isinstance(each, str) else each for each in values
        )
    return values


# Comparisons


def _compared(compare: Callable[[Any, Any], Any], one: Asks, other: Asks) -> Asks:
    def asks(frame: Frame) -> Holds:
        first, second = one(frame), other(frame)
        return where(compare(first.values, second.values), both(first.known, second.known))

    return asks


def _same(one: Asks, other: Asks) -> Asks:
    def asks(frame: Frame) -> Holds:
        return _equal(frame, one(frame), other(frame))

    return asks


def _other(one: Asks, other: Asks) -> Asks:
    """Return where two values are not the same: what ``!`` says of ``_same``, in one step."""

    def asks(frame: Frame) -> Holds:
        first, second = one(frame), other(frame)
        if isinstance(first, Holds):
            found = _equal(frame, first, second)
            return Holds(lambda: found.no, lambda: found.yes)
        ours, theirs = _comparable(frame, first, second)
        return where(ours != theirs, both(first.known, second.known))

    return asks


def _equal(frame: Frame, first: Any, second: Any) -> Holds:
    """Return where two values of one kind are the same."""
    if isinstance(first, Holds):
        return Holds(
            lambda: (first.yes & second.yes) | (first.no & second.no),
            lambda: (first.yes & second.no) | (first.no & second.yes),
        )
    ours, theirs = _comparable(frame, first, second)
    return where(ours == theirs, both(first.known, second.known))


def _comparable(frame: Frame, first: Any, second: Any) -> tuple[Any, Any]:
    """Return two numbers, or two texts both as texts or both as codes; or columns of them."""
    ours, theirs = first.values, second.values
    if not isinstance(first, Texts) or isinstance(ours, str) == isinstance(theirs, str):
        return ours, theirs
    if isinstance(ours, str):
        return frame.known(ours), theirs
    return ours, frame.known(theirs)


def _same_of_any_kind(pairs: list[tuple[Asks, Asks]]) -> Asks:
    """Return where two fields have the same value, of whatever kind it is."""

    def asks(frame: Frame) -> Holds:
        yes: Any = False
        first_known: Any = False
        second_known: Any = False
        for one, other in pairs:
            first, second = one(frame), other(frame)
            known, also = known_of(first), known_of(second)
            if known is not False and also is not False:
                yes = yes | _equal(frame, first, second).yes
            first_known = either(first_known, known)
            second_known = either(second_known, also)
        return where(yes, both(first_known, second_known))

    return asks


# Sums


def _summed(name: str, one: Asks, other: Asks) -> Asks:
    combine, divides = SUMMED[name], name in "/%"

    def asks(frame: Frame) -> Numbers:
        first, second = one(frame), other(frame)
        known = both(first.known, second.known)
        if divides:
            known = known & np.not_equal(second.values, 0)
        elif isinstance(first.values, float) and isinstance(second.values, float):
            return Numbers(combine(first.values, second.values), known)
        with np.errstate(all="ignore"):
            return Numbers(combine(first.values, second.values), known)

    return asks


def _negative(one: Asks) -> Asks:
    def asks(frame: Frame) -> Numbers:
        first = one(frame)
        return Numbers(-first.values, first.known)

    return asks
