"""An expression of a rule, as a tree, and what may stand in one.

The language is CEL (https://github.com/google/cel-spec), as far as it says something of one item:
``item.stock > 0 && context.region in item.regions`` (docs/decisions/rules.md). Differs from CEL:
all numbers are floating.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MOST_SHOWN: Final = 40
"""Characters of a literal or a name that an error shows."""
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
    return terms_of(node, "&&")


def terms_of(node: Node, name: str) -> tuple[Node, ...]:
    """Return what an operator is applied to, or the node if it is another one."""
    return node.args if isinstance(node, Operation) and node.name == name else (node,)


def abbreviated(text: str) -> str:
    """Return a text as an error shows it."""
    return text if len(text) <= MOST_SHOWN else f"{text[:20]}…"
