"""Compiled conditions against cel-python's own evaluation, item by item."""

import sys
from contextlib import contextmanager
from typing import Any

import celpy
import numpy as np
import pytest
from celpy import celtypes
from hypothesis import given, settings
from hypothesis import strategies as st

from banditloop_client.schemas import Item
from policies.rules.cel.reader import parse
from policies.rules.columns import CODES_BY_TYPE, LACKING, ItemColumns
from policies.rules.compiled import compile_condition
from policies.rules.expressions import Field, named_fields
from policies.rules.kinds import field_kinds
from policies.rules.values import Frame

NUMBERS = [-2.0, 0.0, 0.5, 3.0]
TEXTS = ["", "red", "reddish", "blue"]
TIME = {"hour": 9.0, "weekday": 6.0, "now": 1.7e9}
DONE = {"view": ["a", "c"], "buy": []}

features = st.fixed_dictionaries(
    {},
    optional={
        "n": st.sampled_from(NUMBERS),
        "m": st.sampled_from(NUMBERS),
        "t": st.sampled_from(TEXTS),
        "u": st.sampled_from(TEXTS),
        "f": st.booleans(),
        "l": st.lists(st.sampled_from(TEXTS), max_size=2),
        "other kind": st.one_of(st.sampled_from(NUMBERS), st.sampled_from(TEXTS)),
    },
)


def text_of(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else repr(value)


def fields(root: str, *names: str) -> st.SearchStrategy[str]:
    return st.sampled_from([f"{root}.{name}" for name in names])


number_leaves = st.one_of(
    fields("item", "n", "m"),
    fields("context", "n", "m"),
    fields("time", "hour", "now"),
    st.sampled_from(NUMBERS[1:]).map(text_of),
)
text_leaves = st.one_of(
    fields("item", "t", "u", "id"), fields("context", "t"), st.sampled_from(TEXTS).map(text_of)
)
lists = st.one_of(fields("item", "l"), fields("context", "l"), fields("profile", "view", "buy"))
numbers = st.recursive(
    number_leaves | lists.map("double(size({}))".format),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({' '.join(t)})"),
        inner.map("(-{})".format),
    ),
    max_leaves=3,
)
literals = st.sampled_from(TEXTS).map(text_of)
chosen_texts = st.tuples(numbers, literals, literals).map(
    lambda t: "({} > 0.0 ? {} : {})".format(*t)
)
text_lists = st.lists(literals, min_size=1, max_size=12).map(lambda t: f"[{', '.join(t)}]")
flags = st.recursive(
    st.one_of(
        fields("item", "f"),
        fields("context", "f"),
        st.sampled_from(["true", "false"]),
        st.tuples(numbers, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numbers).map(
            " ".join
        ),
        st.tuples(text_leaves, st.sampled_from(["==", "!="]), text_leaves).map(" ".join),
        st.tuples(text_leaves, lists).map(" in ".join),
        st.tuples(chosen_texts, lists | text_lists).map(" in ".join),
        st.tuples(chosen_texts, st.sampled_from(["==", "!="]), literals).map(" ".join),
        st.tuples(text_leaves, st.lists(st.sampled_from(TEXTS), min_size=1, max_size=2)).map(
            lambda t: f"{t[0]} in [{', '.join(map(text_of, t[1]))}]"
        ),
        st.tuples(
            text_leaves, st.sampled_from(["startsWith", "endsWith", "contains"]), text_leaves
        ).map(lambda t: f"{t[0]}.{t[1]}({t[2]})"),
        fields("item", "n", "t", "f", "l").map("has({})".format),
        fields("context", "n", "t").map("has({})".format),
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda t: f"({' && '.join(t)})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda t: f"({' || '.join(t)})"),
        inner.map("(!({}))".format),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})"),
    ),
    max_leaves=5,
)


def as_cel(value: Any) -> Any:
    if isinstance(value, bool):
        return celtypes.BoolType(value)
    if isinstance(value, float):
        return celtypes.DoubleType(value)
    if isinstance(value, str):
        return celtypes.StringType(value)
    if isinstance(value, dict):
        pairs = {celtypes.StringType(name): as_cel(each) for name, each in value.items()}
        return celtypes.MapType(pairs)
    return celtypes.ListType(map(as_cel, value))


@contextmanager
def own_recursion_limit():
    """cel-python sets that of the process, which other tests, and hypothesis, must not meet."""
    limit = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(limit)


def peer(text: str, items: dict[str, Any], context: dict[str, Any]) -> list[bool | None]:
    """What cel-python says of each item: an error is what is unknown."""
    with own_recursion_limit():
        environment = celpy.Environment()
        program = environment.program(environment.compile(text))
        said: list[bool | None] = []
        for name, each in items.items():
            asked = {
                "item": {**each, "id": name},
                "context": context,
                "profile": DONE,
                "time": TIME,
            }
            try:
                found = program.evaluate({root: as_cel(values) for root, values in asked.items()})
                said.append(bool(found))
            except celpy.CELEvalError:
                said.append(None)
    return said


def ours(text: str, items: dict[str, Any], context: dict[str, Any]) -> list[bool | None]:
    node = parse(text, "filter")
    names = [field.name for field in named_fields(node) if field.root == "item"]
    columns = ItemColumns(names)
    for name, each in items.items():
        columns.put(name, each)
    frame = Frame(columns, columns.rows(list(items)), context, DONE, TIME, [])
    condition = compile_condition(node, field_kinds(node, "filter"))
    said = []
    for are_items in (False, True):  # what is known of a whole column need not be looked at
        found = condition(frame._replace(own=[], are_items=are_items))
        yes, no = (np.broadcast_to(each, len(items)).tolist() for each in (found.yes, found.no))
        assert not any(a and b for a, b in zip(yes, no, strict=True))
        said.append([True if a else False if b else None for a, b in zip(yes, no, strict=True)])
    assert said[0] == said[1]
    return said[0]


@given(flags, st.lists(features, min_size=1, max_size=4), features)
@settings(max_examples=300, deadline=None)
def test_a_condition_holds_where_cel_says_so(text, rows, context):
    items = dict(zip("abcd", rows, strict=False))
    assert ours(text.replace("double(size", "(size"), items, context) == peer(text, items, context)


ITEMS = {
    "a": {"n": 1.0, "t": "red", "l": ["x", "y"], "f": True},
    "b": {"n": 0.0, "t": "blue", "l": [], "f": False},
    "c": {},
    "d": {"n": "one", "t": 1.0, "l": "x", "f": 1.0},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("item.n > 0.5", [True, False, None, None]),
        ("1 / item.n > 0.5", [True, None, None, None]),
        ("5 % item.n == 0", [True, None, None, None]),
        ("item.t == context.t", [True, False, None, False]),
        ("item.t != context.n", [True, True, None, False]),
        ("item.f == context.f", [True, False, None, False]),
        ("context.t in item.l", [False, False, None, None]),
        ("'y' in item.l", [True, False, None, None]),
        ("item.t in item.l", [False, False, None, None]),
        ("item.t in context.l", [True, False, None, None]),
        ("size(item.l) == 2", [True, False, None, None]),
        ("item.l.size() == 2", [True, False, None, None]),
        ("item.id in profile.view", [True, False, True, False]),
        ("item.id in profile.nothing", [False] * 4),
        ("item.missing > 1 || item.id == 'a'", [True, None, None, None]),
        ("item.missing > 1 && item.id == 'a'", [None, False, False, False]),
        ("context.absent == 'x'", [None] * 4),
        ("has(item.n) && has(context.t) && !has(context.absent)", [True, True, False, True]),
        ("(item.f ? 'red' : 'green') == item.t", [True, False, None, None]),
        ("item.f ? item.n > 0.5 : true", [True, True, None, None]),
        ("item.n in [1, 2]", [True, False, None, None]),
        ("item.n in []", [False, False, None, False]),
        ("item.f in [true]", [True, False, None, None]),
        ("true", [True] * 4),
        ("time.hour < 12 && time.weekday == 6", [True] * 4),
        ("'reddish'.startsWith(item.t)", [True, False, None, None]),
        ("(item.f ? context.own : item.t).startsWith('un')", [True, False, None, None]),
        ("(item.f ? context.own : item.t) in ['unseen', 'blue']", [True, True, None, None]),
        ("(item.f ? context.own : item.t) == context.own", [True, False, None, None]),
        ("(item.f ? context.own : item.t) in item.l", [False, False, None, None]),
        ("context.own.contains(item.f ? 'see' : item.t)", [True, False, None, None]),
        ("item.t.contains(context.f ? 'e' : 'x')", [True, True, None, None]),
        ("item.t.contains(context.absent ? 'e' : 'x')", [None] * 4),
    ],
)
def test_what_is_missing_or_of_another_kind_is_not_known(text, expected):
    context = {"t": "red", "n": 1.0, "f": True, "l": ["red", "green"], "own": "unseen"}
    assert ours(text, ITEMS, context) == expected


def test_a_field_in_brackets_may_have_any_name():
    assert ours("item['release date'] > 3", {"a": {"release date": 4.0}}, {}) == [True]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("size(item.v) == 1", [["x"], "a", "b", "c", "d"]),
        ("'x' in item.v", [["x"], "a", "b", "c", "d"]),
        ("item.v.contains('x')", ["x", ["x"], ["x", "x"], ["x"] * 3, ["x"] * 4]),
    ],
)
def test_values_of_another_kind_are_not_looked_up(text, values):
    items = {str(at): {"v": value} for at, value in enumerate(values)}
    assert ours(text, items, {}) == [True, None, None, None, None]


def test_what_requests_say_is_not_kept():
    columns = ItemColumns(["f", "t"], [Item("a", {"f": True}), Item("b", {"f": False, "t": "x"})])
    node = parse("(item.f ? context.q : item.t) == context.q", "filter")
    condition = compile_condition(node, field_kinds(node, "filter"))
    before = len(columns.vocabulary.texts)
    for number in range(100):
        said = {"q": f"{number}"}
        frame = Frame(columns, columns.rows(["a", "b"]), said, {}, TIME, [])
        assert condition(frame).yes.tolist() == [True, False]
    assert len(columns.vocabulary.texts) == before


def test_texts_that_no_item_has_any_more_are_forgotten():
    columns = ItemColumns(["t", "l", "f"])
    for number in range(30_000):
        item, text = f"i{number % 100}", f"t{number}"
        columns.put(item, {"t": text, "l": [text, "all"], "f": number % 2 == 0})
        if number % 7 == 0:
            columns.drop(item)

    assert len(columns.vocabulary) < 25_000
    ids = list(columns.place)
    for item in ids:
        text = columns.features(item)["t"]
        assert columns.features(item)["l"] == [text, "all"]
        assert int(text[1:]) >= 29_900
    for text in ("item.t in item.l", "'all' in item.l", "item.t.startsWith('t299')"):
        node = parse(text, "filter")
        condition = compile_condition(node, field_kinds(node, "filter"))
        assert condition(Frame(columns, columns.rows(ids), {}, {}, TIME, [])).yes.all()


def test_of_each_text_it_is_found_out_once_what_it_begins_with():
    columns, asked = ItemColumns(["t"]), []
    for number in range(50):
        columns.put(f"i{number}", {"t": f"t{number}"})
        found = columns.vocabulary.texts_that(
            "starts",
            "t4",
            lambda text: asked.append(text) or text.startswith("t4"),
            np.arange(number + 2, dtype=np.int32),
        )
        assert found.tolist() == [text.startswith("t4") for text in columns.vocabulary.texts]
    assert sorted(asked) == sorted(columns.vocabulary.texts)


def test_items_come_change_and_go():
    columns = ItemColumns(["n", "t"])
    for number in range(1000):
        columns.put(f"i{number}", {"n": float(number), "t": f"t{number % 7}"})
    columns.put("i3", {"t": "new"})
    columns.drop("i4")
    columns.put("other", {"n": -1.0})
    node = parse("item.n < 5 || item.t == 'new'", "filter")
    condition = compile_condition(node, field_kinds(node, "filter"))
    ids = ["i1", "i3", "i4", "other", "i999", "unknown"]
    found = condition(Frame(columns, columns.rows(ids), {}, {}, TIME, []))
    assert found.yes.tolist() == [True, True, False, True, False, False]
    assert found.no.tolist() == [False, False, False, False, True, False]
    assert len(columns.place) == 1000
    assert named_fields(node) == [Field("item", "n"), Field("item", "t")]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.sampled_from([None, {}, {"n": 1.0}, {"n": "x"}, {"n": [], "t": "x"}, {"t": "y"}]),
        ),
        max_size=12,
    )
)
def test_which_kind_all_values_of_a_column_have_is_known_however_items_come_and_go(steps):
    columns = ItemColumns(["n", "t"])
    there: dict[str, dict[str, Any]] = {"first": {"n": 2.0}, "second": {"n": 3.0, "t": "z"}}
    columns.load(list(there), [[each.get(name) for each in there.values()] for name in "nt"])
    for item, own in steps:
        if own is None:
            columns.drop(item)
            there.pop(item, None)
        else:
            columns.put(item, own)
            there[item] = own

        for name in "nt":
            kinds = {CODES_BY_TYPE.get(type(each.get(name)), LACKING) for each in there.values()}
            assert columns.columns[name].only_kind == (kinds.pop() if len(kinds) == 1 else None)
