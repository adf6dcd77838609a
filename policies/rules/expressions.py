"""An expression of a rule, as a tree, and what may stand in one.

The language is CEL (https://github.com/google/cel-spec), as far as it says something of one item:
``item.stock > 0 && context.region in item.regions``. It is read by the package cel-python; what
becomes of the tree is ours (docs/decisions/rules.md). Differs from CEL: all numbers are floating.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bandits.errors import SpecError
from policies.typed_yaml import nearest

MOST_CHARACTERS: Final = 10_000
"""The length of an expression at most."""
MOST_SHOWN: Final = 40
"""Characters of a literal or a name that an error shows."""
MOST_NESTED: Final = 50
"""How deep brackets and choices may stand in one another."""

SET_ASIDE: Final = re.compile(
    r"//[^\n]*"
    r"|(?:[rR][bB]?|[bB][rR])(?:\"\"\".*?\"\"\"|'''.*?'''|\"[^\"\n]*\"|'[^'\n]*')"
    r"|\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''"
    r"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'",
    re.DOTALL,
)
"""Comments and texts of CEL, in which a bracket is none."""

NO_ESCAPE: Final = re.compile(
    r"""\\(?![abfnrtv\\?"'`]|[xX][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2})"""
    r".?",
    re.DOTALL,
)
"""What begins as an escape in a text of CEL, where the pairs of \\\\ are left out, and is none."""

ROOTS: Final = {
    "item": "a feature of the item, or its id",
    "context": "a feature of the request's context",
    "profile": "the items that the user did something with, by what it was",
    "time": "the moment, in UTC: hour, weekday, now",
}
"""The names that fields belong to."""

Scalar = float | str | bool


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, a text, or a flag."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Field:
    """A field of one of ROOTS."""

    root: str
    name: str

    def __str__(self) -> str:
        """Return it as it is written; not all of a long name."""
        plain = self.name.replace("_", "a").isalnum() and not self.name[:1].isdigit()
        name = abbreviated(self.name)
        return f"{self.root}.{name}" if plain else f'{self.root}["{name}"]'


@dataclass(frozen=True, slots=True)
class ListOf:
    """Some numbers, texts or flags, all of one kind."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Has:
    """Whether a field is there."""

    field: Field

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"has({self.field})"


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator or a function, by its name, and what it is applied to."""

    name: str
    args: tuple["Node", ...]


Node = Literal | Field | ListOf | Has | Operation


def named_fields(node: Node) -> list[Field]:
    """Return the fields of an expression, each once, as they come."""
    fields = (each.field if isinstance(each, Has) else each for each in _nodes(node))
    return list(dict.fromkeys(each for each in fields if isinstance(each, Field)))


def guarded_fields(node: Node) -> frozenset[Field]:
    """Return the fields of which an expression asks whether they are there."""
    return frozenset(each.field for each in _nodes(node) if isinstance(each, Has))


def operations(node: Node) -> list[Operation]:
    """Return the operators and functions of an expression, as they come."""
    return [each for each in _nodes(node) if isinstance(each, Operation)]


def _nodes(node: Node) -> Iterator[Node]:
    waiting = [node]
    while waiting:
        each = waiting.pop()
        yield each
        if isinstance(each, Operation):
            waiting += reversed(each.args)


def conjuncts(node: Node) -> tuple[Node, ...]:
    """Return the terms that all have to hold."""
    return _terms(node, "&&")


def _terms(node: Node, name: str) -> tuple[Node, ...]:
    """Return what an operator is applied to, or the node if it is another one."""
    return node.args if isinstance(node, Operation) and node.name == name else (node,)


def parse(text: str, where: str) -> Node:
    """Return the tree of an expression.

    Args:
        text: the expression.
        where: the field it is in; errors name it.

    Raises:
        SpecError: it is too long, nested too deep, no CEL, or CEL that says nothing of an item.
    """
    from celpy.celparser import CELParseError, CELParser  # noqa: PLC0415 - whoever has no rules

    if not text.strip():
        raise SpecError("it is empty: leave it out, or write true", where)
    if len(text) > MOST_CHARACTERS:
        raise SpecError(
            f"it has {len(text):,} characters, and {MOST_CHARACTERS:,} are the most: a list of"
            " items is better a feature of theirs",
            where,
        )
    _check_nesting(text, where)
    try:
        tree = CELParser().parse(text)
    except CELParseError as error:
        at = error.column or 1
        line = text.splitlines()[(error.line or 1) - 1]
        excerpt = line[max(0, at - 21) : at + 19].strip()
        hint = "; equal is ==, and is &&, or is ||" if OTHER_TONGUES.search(excerpt) else ""
        raise SpecError(
            f"line {error.line or 1}, column {at}: this is no expression, near {excerpt!r}{hint}",
            where,
        ) from error
    return _Reader(where).read(tree, 0)


def _check_nesting(text: str, where: str) -> None:
    """Refuse brackets that stand too deep in one another, before anybody reads them."""
    deep = 0
    for at, sign in enumerate(SET_ASIDE.sub(lambda found: " " * len(found.group()), text)):
        deep += (sign in "([{?") - (sign in ")]}:")
        if deep > MOST_NESTED:
            raise SpecError(f"column {at + 1}: brackets stand more than {MOST_NESTED} deep", where)


BINARY: Final = {
    "relation_lt": "<",
    "relation_le": "<=",
    "relation_gt": ">",
    "relation_ge": ">=",
    "relation_eq": "==",
    "relation_ne": "!=",
    "relation_in": "in",
    "addition_add": "+",
    "addition_sub": "-",
    "multiplication_mul": "*",
    "multiplication_div": "/",
    "multiplication_mod": "%",
}
CHAINS: Final = {"conditionalor": "||", "conditionaland": "&&"}
SIGNS: Final = {"unary_not": "!", "unary_neg": "-"}
FUNCTIONS: Final = {"has": 1, "size": 1}
METHODS: Final = {"startsWith": 1, "endsWith": 1, "contains": 1, "size": 0}
"""By name, how many arguments they take; of a method, beside what it is called on."""


OTHER_TONGUES: Final = re.compile(r"[^=!<>]=[^=]|\b(and|or|not|AND|OR|NOT)\b")
"""How others write what CEL writes with signs."""
NOT_HERE: Final = {"mapinits": "a map", "map_lit": "a map", "member_object": "a message"}


class _Reader:
    """Reads cel-python's tree, whose nodes of one child say nothing of their own."""

    def __init__(self, where: str) -> None:
        self._where = where

    def read(self, tree: Any, depth: int) -> Node:
        """Return the node of a tree."""
        while len(tree.children) == 1 and _is_tree(tree.children[0]) and tree.data != "list_lit":
            tree = tree.children[0]
        if depth > MOST_NESTED:
            raise self._error(f"it is nested more than {MOST_NESTED} deep")

        kind, children = str(tree.data), tree.children
        if kind in CHAINS and len(children) == 2:
            return self._chain(tree, kind, depth)
        if kind in {"relation", "addition", "multiplication"}:
            return self._binary(tree, kind, depth)
        if kind == "unary":
            return self._unary(tree, depth)
        if kind == "expr" and len(children) == 3:
            return Operation("?:", tuple(self.read(child, depth + 1) for child in children))
        read = getattr(self, f"_{kind}", None)
        if read is None:
            said = NOT_HERE.get(kind, kind.replace("_", " "))
            raise self._error(f"{said} has no meaning in a rule")
        node: Node = read(tree, depth)
        return node

    def _error(self, reason: str) -> SpecError:
        return SpecError(reason, self._where)

    def _chain(self, tree: Any, kind: str, depth: int) -> Node:
        """Return terms side by side that stand to the left of one another in the tree."""
        terms = []
        while str(tree.data) == kind and len(tree.children) == 2:
            terms.append(tree.children[1])
            tree = tree.children[0]
        read = (self.read(term, depth + 1) for term in (tree, *reversed(terms)))
        name = CHAINS[kind]
        flat = (
            each.args if isinstance(each, Operation) and each.name == name else (each,)
            for each in read
        )
        return Operation(name, tuple(itertools.chain.from_iterable(flat)))

    def _binary(self, tree: Any, kind: str, depth: int) -> Node:
        steps = []
        while str(tree.data) == kind and len(tree.children) == 2:
            operator, right = tree.children
            steps.append((BINARY[str(operator.data)], right))
            tree = operator.children[0]
        if kind == "relation" and len(steps) > 1:
            raise self._error("two comparisons in a row: join them with &&")
        if len(steps) > MOST_NESTED:
            raise self._error(f"there are more than {MOST_NESTED} of + - * / % in a row")
        depth += len(steps)
        left = self.read(tree, depth)
        for name, right in reversed(steps):
            left = Operation(name, (left, self.read(right, depth)))
        return left

    def _unary(self, tree: Any, depth: int) -> Node:
        signs = []
        while str(tree.data) == "unary" and len(tree.children) == 2:
            signs.append(SIGNS[str(tree.children[0].data)])
            tree = tree.children[1]
        if len(signs) > MOST_NESTED:
            raise self._error(f"it is nested more than {MOST_NESTED} deep")
        node = self.read(tree, depth + len(signs))
        for sign in reversed(signs):
            node = Operation("neg" if sign == "-" else "!", (node,))
        return node

    def _literal(self, tree: Any, _depth: int) -> Node:
        token = tree.children[0]
        try:
            return self._value(token)
        except (ValueError, OverflowError) as error:  # no such character, or too many digits
            raise self._error(
                f"{abbreviated(token.value)} is no number or text that can be kept"
            ) from error

    def _value(self, token: Any) -> Literal:
        from celpy.evaluation import celstr  # noqa: PLC0415 - whoever has no rules

        if token.type in {"STRING_LIT", "MLSTRING_LIT"}:
            self._check_escapes(str(token))
            return Literal(str(celstr(token)))
        if token.type == "BOOL_LIT":
            return Literal(token.value == "true")
        if token.type == "FLOAT_LIT":
            return Literal(float(token.value))
        if token.type == "INT_LIT":
            return Literal(float(int(token.value, 0) if "x" in token.value else int(token.value)))
        hint = ": has(item.stock) says whether it is there" if token.value == "null" else ""
        raise self._error(f"{abbreviated(token.value)} is no number, text or flag{hint}")

    def _check_escapes(self, text: str) -> None:
        """Refuse a backslash that begins nothing; cel-python keeps it as it is."""
        prefix = text[:2].rstrip("'\"").lower()
        found = None if "r" in prefix else NO_ESCAPE.search(text.replace("\\\\", "  "))
        if found:
            raise self._error(
                f"{found.group()} is no escape of a text: write \\\\ for a backslash, or r'…'"
            )

    def _ident(self, tree: Any, _depth: int) -> Node:
        name = abbreviated(tree.children[0].value)
        if name in ROOTS:
            raise self._error(f"{name} alone says nothing: name a field, such as {name}.name")
        hint = nearest(name, list(ROOTS))
        raise self._error(f"there is no {name!r}: {hint}fields are of {', '.join(ROOTS)}")

    def _member_dot(self, tree: Any, _depth: int) -> Node:
        return Field(self._root(tree.children[0]), tree.children[1].value)

    def _member_index(self, tree: Any, depth: int) -> Node:
        name = self.read(tree.children[1], depth + 1)
        if not isinstance(name, Literal) or not isinstance(name.value, str):
            raise self._error('a field in brackets is a text, as in item["release date"]')
        return Field(self._root(tree.children[0]), name.value)

    def _root(self, tree: Any) -> str:
        """Return the name that a field belongs to."""
        while _is_tree(tree) and len(tree.children) == 1:
            tree = tree.children[0]
        name = None if _is_tree(tree) else tree.value
        if name is None:
            raise self._error("a field of a field, or of what is in brackets, has no meaning")
        if name not in ROOTS:
            said = repr(abbreviated(str(name)))
            raise self._error(f"there is no {said}: fields are of {', '.join(ROOTS)}")
        return str(name)

    def _member_dot_arg(self, tree: Any, depth: int) -> Node:
        of, name, *args = tree.children
        return self._called(str(name), METHODS, [of, *_listed(args)], depth)

    def _ident_arg(self, tree: Any, depth: int) -> Node:
        name, *args = tree.children
        return self._called(str(name), FUNCTIONS, _listed(args), depth)

    def _called(self, name: str, known: dict[str, int], args: list[Any], depth: int) -> Node:
        wanted = known.get(name)
        if wanted is None:
            everything = list(dict.fromkeys([*FUNCTIONS, *METHODS]))
            if name in everything:
                written = f'item.title.{name}("The ")' if name in METHODS else f"{name}(item.stock)"
                raise self._error(f"{name} is written as in {written}")
            raise self._error(
                f"there is no function {abbreviated(name)!r}:"
                f" {nearest(abbreviated(name), everything)}there are"
                f" {', '.join(everything)}"
            )

        wanted += known is METHODS
        if len(args) != wanted:
            at = known is METHODS
            raise self._error(f"{name} takes {wanted - at}, not {len(args) - at}")

        read = tuple(self.read(arg, depth + 1) for arg in args)
        if name == "has":
            if not isinstance(read[0], Field):
                raise self._error("has asks about a field, as in has(item.stock)")
            return Has(read[0])
        return Operation(name, read)

    def _list_lit(self, tree: Any, depth: int) -> Node:
        items = [self.read(each, depth + 1) for each in _listed(tree.children)]
        values = tuple(each.value for each in items if isinstance(each, Literal))
        if len(values) < len(items):
            raise self._error("a list is of numbers, texts or flags")
        if len({type(value) for value in values}) > 1:
            raise self._error("a list is of numbers, or of texts, not of both")
        return ListOf(values)


def abbreviated(text: str) -> str:
    """Return a text as an error shows it."""
    return text if len(text) <= MOST_SHOWN else f"{text[:20]}…"


def _is_tree(node: Any) -> bool:
    return hasattr(node, "children")


def _listed(children: list[Any]) -> list[Any]:
    """Return what an exprlist holds; of none at all, nothing."""
    given = [child for child in children if child is not None]
    return list(given[0].children) if given else []
