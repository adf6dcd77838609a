"""The kind of value that each field of an expression has to have, found out from how it is used."""

from collections.abc import Mapping
from typing import Final, Literal

from bandits.errors import SpecError
from policies.rules import expressions as ex

Kind = Literal["number", "text", "flag", "texts"]

ORDERS: Final = frozenset({"<", "<=", ">", ">="})
SUMS: Final = frozenset({"+", "-", "*", "/", "%", "neg"})
TAKES: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(("&&", "||", "!"), "flag"),
    **dict.fromkeys((*ORDERS, *SUMS), "number"),
    "size": "texts",
}
"""The kind of what operators are applied to."""
ALIKE: Final = frozenset({"==", "!=", "?:"})
"""Operators whose last two arguments are of one kind."""
SAID: Final[Mapping[Kind, str]] = {
    "number": "number",
    "text": "text",
    "flag": "flag",
    "texts": "list",
}
CLOCK: Final = ("hour", "weekday", "now")
"""The fields of ``time``: 0 to 23, 0 (Monday) to 6, seconds since 1970."""


def field_kinds(node: ex.Node, where: str) -> Mapping[ex.Field, Kind | None]:
    """Return the kind of each field of a condition; None: texts, numbers and flags alike.

    Args:
        node: the condition.
        where: the field of the spec or request that it is in; errors name it.

    Raises:
        SpecError: it is no condition, or a field or a value is used as what it is not.
    """
    found = _Inference(where)
    found.expect(node, "flag")
    return found.kinds(node)


class _Inference:
    """Fields that are compared with one another are of one group, which has one kind."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._kind: dict[ex.Field, Kind] = {}
        self._group: dict[ex.Field, ex.Field] = {}

        # Each is looked into once: a node is asked for its kind by whatever it stands in.
        self._seen: dict[int, ex.Operation] = {}

    def kinds(self, node: ex.Node) -> dict[ex.Field, Kind | None]:
        for each in self._seen.values():
            if each.name in ALIKE and "texts" in map(self._find, each.args[-2:]):
                raise self._error(
                    "lists are not compared, nor chosen from: ask whether a text is in one"
                )
        return {field: self._kind.get(self._first(field)) for field in ex.named_fields(node)}

    def expect(self, node: ex.Node, kind: Kind) -> None:
        """Note that a node has to be of a kind."""
        if isinstance(node, ex.Field):
            self._note(node, kind)
            return
        found = self._find(node)
        if found is not None and found != kind:
            raise self._error(
                f"{_shown(node)} is a {SAID[found]}, where a {SAID[kind]} has to stand"
            )
        spoken_for = self._spoken_for(node)
        if found is None and spoken_for is not None:
            self._note(spoken_for, kind)

    def _find(self, node: ex.Node) -> Kind | None:
        """Return what kind a node is of; None: that of a field whose kind is not known yet."""
        if isinstance(node, ex.Field):
            self._note(node, None)
            return self._kind.get(self._first(node))
        if isinstance(node, ex.Literal):
            return _kind_of(node.value)
        if isinstance(node, ex.ListOf):
            return "texts"
        if isinstance(node, ex.Has):
            self._note(node.field, None)
            return "flag"
        return self._of_call(node)

    def _of_call(self, node: ex.Operation) -> Kind | None:
        name, args = node.name, node.args
        if id(node) not in self._seen:
            self._seen[id(node)] = node
            self._look_into(name, args)
        if name == "?:":
            return self._find(args[1]) or self._find(args[2])
        return "number" if name in SUMS or name == "size" else "flag"

    def _look_into(self, name: str, args: tuple[ex.Node, ...]) -> None:
        if name in ALIKE:
            self._expect_all(args[:-2], "flag")
            self._alike(*args[-2:])
        elif name == "in":
            self._is_among(*args)
        else:
            self._expect_all(args, TAKES.get(name, "text"))

    def _is_among(self, one: ex.Node, among: ex.Node) -> None:
        if not isinstance(among, ex.ListOf):
            self.expect(one, "text")
            self.expect(among, "texts")
        elif among.values:
            self.expect(one, _kind_of(among.values[0]))
        else:
            self._find(one)

    def _expect_all(self, nodes: tuple[ex.Node, ...], kind: Kind) -> None:
        for node in nodes:
            self.expect(node, kind)

    def _alike(self, one: ex.Node, other: ex.Node) -> None:
        """Note that two nodes are of one kind."""
        kinds = self._find(one), self._find(other)
        pairs = [(other, kinds[0]), (one, kinds[1])]
        # What is said of a field says more than what is said of a literal beside it.
        for node, kind in sorted(pairs, key=lambda pair: not isinstance(pair[0], ex.Field)):
            if kind is not None:
                self.expect(node, kind)
        ours, theirs = self._spoken_for(one), self._spoken_for(other)
        if ours is not None and theirs is not None:
            first, second = self._first(ours), self._first(theirs)
            if first != second:
                self._group[second] = first
                kind = self._kind.pop(second, None)
                if kind is not None:
                    self._kind[first] = kind

    def _spoken_for(self, node: ex.Node) -> ex.Field | None:
        """Return a field that is of a node's kind; None: its kind is known without one."""
        if isinstance(node, ex.Operation) and node.name == "?:":
            return self._spoken_for(node.args[1]) or self._spoken_for(node.args[2])
        return node if isinstance(node, ex.Field) else None

    def _note(self, field: ex.Field, kind: Kind | None) -> None:
        own = _own_kind(field, self._where)
        for each in (own, kind):
            if each is None:
                continue
            first = self._first(field)
            before = self._kind.setdefault(first, each)
            if before != each:
                raise self._error(
                    f"{field} is a {SAID[before]} in one place and a {SAID[each]} in another"
                )

    def _first(self, field: ex.Field) -> ex.Field:
        while field in self._group:
            field = self._group[field]
        return field

    def _error(self, reason: str) -> SpecError:
        return SpecError(reason, self._where)


def _own_kind(field: ex.Field, where: str) -> Kind | None:
    """Return the kind that a field has by itself."""
    if field.root == "profile":
        return "texts"
    if field.root == "time":
        if field.name not in CLOCK:
            raise SpecError(f"there is no {field}: of time there are {', '.join(CLOCK)}", where)
        return "number"
    return "text" if field == ex.Field("item", "id") else None


def _kind_of(value: ex.Scalar) -> Kind:
    if isinstance(value, bool):
        return "flag"
    return "text" if isinstance(value, str) else "number"


def _shown(node: ex.Node) -> str:
    if isinstance(node, ex.Literal):
        return repr(node.value)
    if isinstance(node, ex.ListOf):
        return "what is in brackets"
    return f"what {node.name} gives" if isinstance(node, ex.Operation) else str(node)
