"""A condition of a rule, compiled, and what it looks at."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from bandits.errors import SpecError
from policies.rules.cel.reader import parse
from policies.rules.compiled import compile_condition
from policies.rules.expressions import (
    ListOf,
    Node,
    Operation,
    conjuncts,
    guarded_fields,
    named_fields,
    operations,
)
from policies.rules.kinds import Kind, field_kinds
from policies.rules.texts import TESTED
from policies.rules.values import Frame, Holds

OF_ITEMS = "item"
LONG: Final = 200
"""Characters beyond which a condition is compiled each time: what is made of it is large."""
A_TEXT: Final = 100
A_LIST: Final = 20
"""How long it takes to look into a text, or for a number in a list, in comparisons of numbers."""
KEPT: Final = 1_024
"""Conditions that stay compiled."""
Condition = Annotated[str, msgspec.Meta(min_length=1)]
"""A condition (CEL), as a spec has it."""


class Looks(NamedTuple):
    """What conditions look at: features of items and of the context, what users did, the time.

    ``needs``: the features of items that nothing asks for whether they are there, each with the
    kind that it has to be of; None: any.
    """

    items: frozenset[str] = frozenset()
    activities: frozenset[str] = frozenset()
    time: bool = False
    context: frozenset[str] = frozenset()
    needs: frozenset[tuple[str, Kind | None]] = frozenset()

    @classmethod
    def at_all(cls, looks: Iterable["Looks"]) -> "Looks":
        """Return what several conditions look at together."""
        every = list(looks)
        return cls(
            frozenset[str]().union(*(each.items for each in every)),
            frozenset[str]().union(*(each.activities for each in every)),
            any(each.time for each in every),
            frozenset[str]().union(*(each.context for each in every)),
            frozenset[tuple[str, Kind | None]]().union(*(each.needs for each in every)),
        )


class _Compiled(NamedTuple):
    """What is made of a condition, whoever has it; see ``CompiledCondition``."""

    tests: int
    work: int
    looks: Looks
    of_items: Callable[[Frame], Holds] | None
    of_asking: Callable[[Frame], Holds] | None


class CompiledCondition:
    """A condition, in the part that looks at items alone and the part that looks at who asks.

    ``of_items``, ``of_asking``: say of many items at once whether the part holds; None if there is
    no such part. ``looks``: at what. ``tests``: how often it looks into texts, which takes longer
    than all else. ``work``: about how long it takes of an item, in comparisons of numbers.
    """

    def __init__(self, where: str, target: str) -> None:
        """Compile a condition.

        Args:
            where: the condition.
            target: the field that it is in; errors name it.

        Raises:
            SpecError: it is none.
        """
        found = _compiled(where, target) if len(where) > LONG else _compiled_once(where)
        if isinstance(found, str):
            raise SpecError(found, target)
        self.tests, self.work, self.looks, self.of_items, self.of_asking = found

    @property
    def parts(self) -> list[Callable[[Frame], Holds]]:
        """Both parts, as far as there are any."""
        return [part for part in (self.of_items, self.of_asking) if part is not None]

    def holds(self, frame: Frame) -> Any:
        """Return of which items it is known to hold, bool[n] or one for all."""
        holds: Any = True
        for part in self.parts:
            holds = holds & part(frame).yes
        return holds


def _compiled(where: str, target: str) -> _Compiled:
    node = parse(where, target)
    kinds, guarded = field_kinds(node, target), guarded_fields(node)
    looks = Looks(
        frozenset(each.name for each in kinds if each.root == OF_ITEMS),
        frozenset(each.name for each in kinds if each.root == "profile"),
        any(each.root == "time" for each in kinds),
        frozenset(each.name for each in kinds if each.root == "context"),
        frozenset(
            (each.name, kind)
            for each, kind in kinds.items()
            if each.root == OF_ITEMS and each not in guarded
        ),
    )

    of_items = [each for each in conjuncts(node) if _is_of_items(each)]
    others = [each for each in conjuncts(node) if not _is_of_items(each)]
    tests = sum(each.name in TESTED for each in operations(node))
    return _Compiled(
        tests,
        1 + sum(map(_work, operations(node))) + A_TEXT * tests,
        looks,
        *(
            compile_condition(_joined(terms), kinds) if terms else None
            for terms in (of_items, others)
        ),
    )


@lru_cache(KEPT)
def _compiled_once(where: str) -> _Compiled | str:
    """Return what a short condition is compiled to, or what is wrong with it.

    A spec is read several times before it serves, and hundreds of boosts are compiled each time.
    """
    try:
        return _compiled(where, "")
    except SpecError as error:
        return error.message


def _work(node: Operation) -> int:
    return 1 + A_LIST * any(isinstance(each, ListOf) for each in node.args)


def _is_of_items(node: Node) -> bool:
    return all(field.root == OF_ITEMS for field in named_fields(node))


def _joined(terms: list[Node]) -> Node:
    return terms[0] if len(terms) == 1 else Operation("&&", tuple(terms))
