"""Quotas that no decisions could hold together, found when a spec is brought in.

Items are thought of that have and lack each value that a condition names, and of which whatever
else a condition asks does and does not hold: each is of some of the quotas' groups, and not of the
others. Shares of such items that keep within all bounds are a linear program; where it has no
solution the quotas contradict. Conditions that have no feature in common are looked at apart.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, compress, pairwise, product
from math import prod
from typing import Any, Final

import numpy as np

from banditloop_client.schemas import Item
from bandits.types import Float64
from policies.rules import expressions as ex
from policies.rules.cel.reader import parse
from policies.rules.columns import ID, Bools, ItemColumns
from policies.rules.compiled import compile_condition
from policies.rules.conditions import OF_ITEMS
from policies.rules.filters import FilterRule
from policies.rules.kinds import ORDERS, Kind, field_kinds
from policies.rules.quotas.compiled import Goal, Quotas
from policies.rules.quotas.quota import MOST_FLOORS, Exposure, Quota, group_name
from policies.rules.values import Frame

MOST_ITEMS: Final = 20_000
"""Items that are thought of; quotas that would need more are taken as they are."""
COMPARE: Final = frozenset({"==", "!=", "in", *ORDERS})
COMBINE: Final = frozenset({"&&", "||", "!"})
OTHER: Final = "\0"
"""A text that no condition names."""
ITS_ID: Final = "\0id"
"""The feature that items are thought of with in the place of their id: several may have one."""

Value = float | str | bool | None


def contradiction(
    quotas: Sequence[Quota], exposure: Exposure | None, rule: FilterRule | None = None
) -> str | None:
    """Return why quotas cannot hold together; None if nothing is known against them.

    Args:
        quotas: a spec's, each of which is one.
        exposure: the spec's.
        rule: the spec's filter: what it refuses can hold no quota.
    """
    compiled = Quotas(quotas)
    goals = list(compiled.goals.items())
    nodes = [_simplified(parse(quota.when, "quota")) for quota in quotas]
    terms = _terms_of_items(rule)
    for some in _connected([*nodes, *terms]):
        at = [each for each in some if each < len(nodes)]
        of = [terms[each - len(nodes)] for each in some if each >= len(nodes)]
        if at:
            part = [nodes[each] for each in at], [goals[each] for each in at]
            found = _contradiction(*part, of, exposure, rule)
            if found is None and of:
                found = _contradiction(*part, [], exposure, rule)  # at least as far as quotas go
            if found:
                return found
    return None


def _contradiction(
    nodes: Sequence[ex.Node],
    named_goals: Sequence[tuple[str, Goal]],
    terms: Sequence[ex.Node],
    exposure: Exposure | None,
    rule: FilterRule | None,
) -> str | None:
    """Return why some quotas cannot hold together; None if nothing is known against them.

    Args:
        nodes: their conditions.
        named_goals: their names and goals.
        terms: those of the filter that hold whoever asks.
        exposure: the spec's.
        rule: the spec's filter.
    """
    group = None if exposure is None else exposure.group
    if group not in {field.name for node in (*nodes, *terms) for field in ex.named_fields(node)}:
        group = None
    values = _values([*nodes, *terms], group)
    if prod(map(len, values.values())) > MOST_ITEMS:
        return None

    fields = list(values)
    features = [
        {name: value for name, value in zip(fields, row, strict=True) if value is not None}
        for row in product(*values.values())
    ]
    columns = ItemColumns(fields, [Item(f"{at}", dict(each)) for at, each in enumerate(features)])
    frame = Frame(columns, np.arange(1, len(features) + 1), {}, {}, {}, [])
    members = np.zeros((len(features), len(nodes)), np.bool_)
    for at, node in enumerate(nodes):
        members[:, at] = compile_condition(node, field_kinds(node, "quota"))(frame).yes
    goals = list(named_goals)

    # What the filter refuses whoever asks is shown to nobody.
    admitted = _admitted(terms, rule, frame)
    if not admitted.any():
        return None  # it has nothing to do with quotas
    members, features = members[admitted], list(compress(features, admitted))

    # A group that a condition names has a floor of its own.
    if exposure is not None and group is not None:
        there = {each.get(group) for each in features}
        named = [
            each for each in values.get(group, []) if each not in {None, OTHER} and each in there
        ]
        floor = min(exposure.floor, MOST_FLOORS / max(1, len(named)))
        for value in named:
            of = np.array([each.get(group) == value for each in features])
            members = np.concatenate([members, of[:, None]], axis=1)
            goals.append((group_name(group, str(value)), Goal(floor, 1, 0.0, 0.0)))

    at_odds = _at_odds(members, [goal for _, goal in goals])
    if not at_odds:
        return None
    shown = [f"{goals[at][0]}: {goals[at][1].share:g}" for at in at_odds]
    among = " that filter.where admits" if terms else ""
    return f"no choice of items{among} keeps all of these: {'; '.join(shown)}"


def _connected(nodes: Sequence[ex.Node]) -> list[list[int]]:
    """Return the places of conditions, in parts that have no feature in common."""
    parts: list[tuple[set[ex.Field], list[int]]] = []
    for at, node in enumerate(nodes):
        fields, places, others = set(ex.named_fields(node)), [at], []
        for part in parts:
            if part[0].isdisjoint(fields):
                others.append(part)
            else:
                fields |= part[0]
                places = [*part[1], *places]
        parts = [*others, (fields, places)]
    return sorted(sorted(places) for _, places in parts)


def _terms_of_items(rule: FilterRule | None) -> list[ex.Node]:
    """Return the terms of a filter that hold for whoever asks."""
    if rule is None:
        return []
    terms = ex.conjuncts(parse(rule.where, "filter.where"))
    of_items = (
        term for term in terms if all(field.root == OF_ITEMS for field in ex.named_fields(term))
    )
    return [_simplified(term) for term in of_items]


def _simplified(node: ex.Node) -> ex.Node:
    """Return a condition that is made of comparisons of a feature with what it names, and of flags.

    Whatever else is asked of an item becomes a flag, the same one wherever the same is asked.
    """
    if isinstance(node, ex.Operation) and node.name in COMBINE:
        return ex.Operation(node.name, tuple(map(_simplified, node.args)))
    node = _with_its_id(node)
    if _is_plain(node):
        return node
    if isinstance(node, ex.Operation) and node.name in {">", ">="}:
        node = ex.Operation({">": "<", ">=": "<="}[node.name], node.args[::-1])
    if isinstance(node, ex.Operation) and node.name == "<=":
        return _refused(ex.Operation("<", node.args[::-1]))
    if isinstance(node, ex.Operation) and node.name in {"==", "!="}:
        same = ex.Operation("==", tuple(sorted(node.args, key=repr)))
        return _asked(same) if node.name == "==" else _refused(same)
    return _asked(node)


def _asked(node: ex.Node) -> ex.Node:
    return ex.Field(OF_ITEMS, f"\0{node!r}")


def _refused(node: ex.Node) -> ex.Node:
    return ex.Operation("!", (_asked(node),))


def _with_its_id(node: ex.Node) -> ex.Node:
    """Return a comparison that looks at a feature in the place of the id."""
    if isinstance(node, ex.Operation):
        return ex.Operation(node.name, tuple(map(_with_its_id, node.args)))
    return ex.Field(OF_ITEMS, ITS_ID) if node == ex.Field(OF_ITEMS, ID) else node


def _admitted(terms: Sequence[ex.Node], rule: FilterRule | None, frame: Frame) -> Bools:
    """Return which items the terms of a filter let through, bool[n]."""
    admitted: Bools = np.ones(len(frame.rows), np.bool_)
    for term in terms:
        found = compile_condition(term, field_kinds(term, "filter.where"))(frame)
        is_lenient = rule is not None and rule.unknown == "admit"
        admitted &= np.logical_not(found.no) if is_lenient else found.yes
    return admitted


def _values(nodes: Sequence[ex.Node], group: str | None) -> dict[str, list[Value]]:
    """Return by field the values that items are thought of with; None: they lack it."""
    named: dict[str, set[ex.Scalar]] = {} if group is None else {group: set()}
    kinds: dict[str, set[Kind]] = {} if group is None else {group: {"text"}}
    for node in nodes:
        constants = set(_constants(node))
        for field, kind in field_kinds(node, "quota").items():
            named.setdefault(field.name, set()).update(constants)
            kinds.setdefault(field.name, set()).update(() if kind is None else (kind,))

    values: dict[str, list[Value]] = {}
    for name, constants in named.items():
        numbers = sorted({float(each) for each in constants if type(each) in {int, float}})
        between = [(low + high) / 2 for low, high in pairwise(numbers)]
        beyond = [numbers[0] - 1, numbers[-1] + 1] if numbers else [0.0]
        texts = sorted(each for each in constants if isinstance(each, str))
        of: dict[Kind, list[Value]] = {
            "number": [*numbers, *between, *beyond],
            "text": [*texts, OTHER],
            "flag": [True, False],
        }
        some = [of[kind] for kind in sorted(kinds[name] or of) if kind in of]
        has_none = [] if name == ITS_ID else [None]
        values[name] = [*has_none, *chain.from_iterable(some)]
    return values


def _is_plain(node: ex.Node) -> bool:
    """Return whether a condition is a comparison of a feature with what it names alone."""
    if isinstance(node, ex.Operation) and node.name in COMPARE:
        fields = [each for each in node.args if isinstance(each, ex.Field)]
        constants = [each for each in node.args if isinstance(each, ex.Literal | ex.ListOf)]
        is_in_field = node.name == "in" and isinstance(node.args[1], ex.Field)
        return len(fields) == len(constants) == 1 and not is_in_field
    return isinstance(node, ex.Has | ex.Literal | ex.Field)


def _constants(node: ex.Node) -> Iterator[ex.Scalar]:
    if isinstance(node, ex.Literal):
        yield node.value
    elif isinstance(node, ex.ListOf):
        yield from node.values
    elif isinstance(node, ex.Operation):
        for each in node.args:
            yield from _constants(each)


def _at_odds(members: Bools, goals: Sequence[Goal]) -> list[int]:
    """Return the places of some goals that cannot be kept together, and no fewer; none: all can.

    Args:
        members: bool[n, G], of which groups each item is.
        goals: of the groups.
    """
    cells = np.unique(members, axis=0)
    if _can_be(cells, goals):
        return []
    kept = list(range(len(goals)))
    for at in list(kept):
        fewer = [each for each in kept if each != at]
        if not _can_be(cells[:, fewer], [goals[each] for each in fewer]):
            kept = fewer
    return kept


def _can_be(cells: Bools, goals: Sequence[Goal]) -> bool:
    """Return whether there are shares of items that keep within all bounds."""
    from scipy.optimize import linprog  # noqa: PLC0415 - whoever has no quotas has no need of it

    if not goals:
        return True
    signs = np.array([goal.sign for goal in goals])
    bounds: Float64 = -signs * np.array([goal.share for goal in goals])
    weights = -signs[:, None] * cells.T.astype(np.float64)
    found: Any = linprog(
        np.zeros(len(cells)), weights, bounds + 1e-9, np.ones((1, len(cells))), [1.0]
    )
    return int(found.status) != 2  # 2: it has no solution
