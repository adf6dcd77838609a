"""Quotas that no decisions could hold together, found when a spec is brought in.

Items are thought of that have and lack each value that a condition names: each is of some of the
quotas' groups, and not of the others. Shares of such items that keep within all bounds are a linear
program; where it has no solution the quotas contradict.
"""

from collections.abc import Iterator, Sequence
from itertools import compress, pairwise, product
from math import prod
from typing import Any, Final

import numpy as np

from banditloop_client.schemas import Item
from bandits.types import Float64
from policies.rules import expressions as ex
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
    nodes = [ex.parse(quota.when, "quota") for quota in quotas]
    terms = _terms_of_items(rule)
    values = _values([*nodes, *terms], None if exposure is None else exposure.group)
    # Of a condition that is more than comparisons nothing is known: it may hold of any item.
    free = [at for at, node in enumerate(nodes) if not _is_plain(node)]
    count = prod(map(len, values.values())) << len(free)
    if count > MOST_ITEMS and terms:
        return contradiction(quotas, exposure)  # at least as far as quotas go
    if count > MOST_ITEMS or not quotas:
        return None

    fields = list(values)
    features = [
        {name: value for name, value in zip(fields, row, strict=True) if value is not None}
        for row in product(*values.values())
    ]
    columns = ItemColumns(fields, [Item(f"{at}", dict(each)) for at, each in enumerate(features)])
    frame = Frame(columns, np.arange(1, len(features) + 1), {}, {}, {}, [])
    compiled = Quotas(quotas)
    members = compiled.members(frame)
    for at in free:
        members = np.concatenate([members, members])
        members[:, at] = np.arange(len(members)) < len(members) // 2
    goals = list(compiled.goals.items())

    # What the filter refuses whoever asks is shown to nobody.
    admitted = _admitted(terms, rule, frame)
    if not admitted.any():
        return None  # it has nothing to do with quotas
    copies = len(members) // len(admitted)
    members, features = members[np.tile(admitted, copies)], list(compress(features, admitted))

    # A group that a condition names has a floor of its own.
    if exposure is not None:
        there = {each.get(exposure.group) for each in features}
        named = [
            each
            for each in values.get(exposure.group, [])
            if each not in {None, OTHER} and each in there
        ]
        floor = min(exposure.floor, MOST_FLOORS / max(1, len(named)))
        for value in named:
            of = np.array([each.get(exposure.group) == value for each in features])
            of = np.tile(of, len(members) // len(of))
            members = np.concatenate([members, of[:, None]], axis=1)
            goals.append((group_name(exposure.group, str(value)), Goal(floor, 1, 0.0, 0.0)))

    at_odds = _at_odds(members, [goal for _, goal in goals])
    if not at_odds:
        return None
    shown = [f"{goals[at][0]}: {goals[at][1].share:g}" for at in at_odds]
    among = " that filter.where admits" if terms else ""
    return f"no choice of items{among} keeps all of these: {'; '.join(shown)}"


def _terms_of_items(rule: FilterRule | None) -> list[ex.Node]:
    """Return the terms of a filter that hold for whoever asks, as far as items are thought of."""
    if rule is None:
        return []
    terms = ex.conjuncts(ex.parse(rule.where, "filter.where"))
    return [
        term
        for term in terms
        if _is_plain(term) and all(field.root == OF_ITEMS for field in ex.named_fields(term))
    ]


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
    kinds: dict[str, Kind | None] = {} if group is None else {group: "text"}
    for node in nodes:
        constants = set(_constants(node)) if _is_plain(node) else set[ex.Scalar]()
        for field, kind in field_kinds(node, "quota").items():
            named.setdefault(field.name, set()).update(constants)
            kinds[field.name] = kind or kinds.get(field.name)

    values: dict[str, list[Value]] = {}
    for name, constants in named.items():
        numbers = sorted({float(each) for each in constants if type(each) in {int, float}})
        between = [(low + high) / 2 for low, high in pairwise(numbers)]
        beyond = [numbers[0] - 1, numbers[-1] + 1] if numbers else [0.0]
        texts = sorted(each for each in constants if isinstance(each, str))
        of: dict[Kind | None, list[Value]] = {
            "number": [*numbers, *between, *beyond],
            "text": [*texts, OTHER],
            "flag": [True, False],
            "texts": [],
        }
        of[None] = [*of["number"], *of["text"], *of["flag"]]
        values[name] = [None, *of[kinds[name]]]
    return values


def _is_plain(node: ex.Node) -> bool:
    """Return whether a condition is made of comparisons of a field with what it names alone."""
    if isinstance(node, ex.Operation) and node.name in COMBINE:
        return all(map(_is_plain, node.args))
    if isinstance(node, ex.Operation) and node.name in COMPARE:
        fields = [each for each in node.args if isinstance(each, ex.Field)]
        constants = [each for each in node.args if isinstance(each, ex.Literal | ex.ListOf)]
        return len(fields) == len(constants) == 1 and _is_feature(fields[0])
    if isinstance(node, ex.Has):
        return _is_feature(node.field)
    return isinstance(node, ex.Literal) or (isinstance(node, ex.Field) and _is_feature(node))


def _is_feature(field: ex.Field) -> bool:
    """Return whether items are thought of by a field; an id is of one item alone."""
    return field.root == OF_ITEMS and field.name != ID


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
