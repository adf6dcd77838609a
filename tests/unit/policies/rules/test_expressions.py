"""What may stand in an expression of a rule, and what an error says of what may not."""

import time
from collections.abc import Callable

import pytest
from celpy.celparser import CELParseError, CELParser
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.errors import SpecError
from policies.rules.cel.reader import parse
from policies.rules.expressions import Field, Has, ListOf, Literal, Operation, conjuncts
from policies.rules.kinds import field_kinds

N, T = Field("item", "n"), Field("context", "t")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("item.n > -1", Operation(">", (N, Literal(-1.0)))),
        ("item['n'] == 0x10", Operation("==", (N, Literal(16.0)))),
        ("item.n in [1, 2.5]", Operation("in", (N, ListOf((1.0, 2.5))))),
        (r"context.t == 'a\'b\n'", Operation("==", (T, Literal("a'b\n")))),
        (r"context.t == '\x41\u00e9\101\\q'", Operation("==", (T, Literal("A\u00e9A\\q")))),
        (r"context.t == r'\q'", Operation("==", (T, Literal(r"\q")))),
        ("!has(item.n)", Operation("!", (Has(N),))),
        ("(item.n)", N),
        (
            "1 - 2 - 3 > 0",
            Operation(
                ">",
                (
                    Operation("-", (Operation("-", (Literal(1.0), Literal(2.0))), Literal(3.0))),
                    Literal(0.0),
                ),
            ),
        ),
        (
            "true && (item.n > 1 && false) // why",
            Operation("&&", (Literal(True), Operation(">", (N, Literal(1.0))), Literal(False))),
        ),
        (
            "true ? false : item.n > 1",
            Operation("?:", (Literal(True), Literal(False), Operation(">", (N, Literal(1.0))))),
        ),
        ("context.t.startsWith('x')", Operation("startsWith", (T, Literal("x")))),
    ],
)
def test_it_is_read_as_cel_is(text, expected):
    assert parse(text, "filter") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('item.t == """a\nb"""', Operation("==", (Field("item", "t"), Literal("a\nb")))),
        (r"context.t == r'\'", Operation("==", (T, Literal("\\")))),
        (".item.n > - 1", Operation(">", (N, Operation("neg", (Literal(1.0),))))),
        ("(item).n > --1", Operation(">", (N, Operation("neg", (Literal(-1.0),))))),
        (
            "item.n - -1 * 2. > .5e1 || !item.n",
            Operation(
                "||",
                (
                    Operation(
                        ">",
                        (
                            Operation("-", (N, Operation("*", (Literal(-1.0), Literal(2.0))))),
                            Literal(5.0),
                        ),
                    ),
                    Operation("!", (N,)),
                ),
            ),
        ),
    ],
)
def test_so_are_texts_and_signs(text, expected):
    assert parse(text, "filter") == expected


SIGNS = ["item", "context", ".", "n", "[", "]", "(", ")", "'t'", '"', "'", "\\", "r'x'", "1", "2.5"]
SIGNS += ["0x1", "-", "+", "*", "!", "&&", "||", "==", "<", " in ", "?", ":", ",", "true", "null"]
SIGNS += ["has(item.n)", "size(", "item.n", "context.t", ".startsWith('x')", " ", "//", "\n", "{"]


@given(st.lists(st.sampled_from([*SIGNS, "}"]), max_size=9).map("".join))
@settings(max_examples=500, deadline=None)
def test_what_is_no_cel_is_not_read(text):
    try:
        parse(text, "filter")
    except SpecError:
        return
    try:
        CELParser().parse(text)
    except CELParseError:
        pytest.fail(f"it was read, and cel-python refuses it: {text!r}")


def used_s(work: Callable[[], object]) -> float:
    """Seconds of processor that some work takes at least."""

    def once() -> float:
        began = time.thread_time()
        work()
        return time.thread_time() - began

    return min(once() for _ in range(3))


def refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse(text, "filter")


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        ("item.t == '", "a"),
        ("item.t == r'''", "a"),
        ("item.n > ", "9 "),
        ("", "item.n>"),
        ("", "!"),
        ("", "'"),
        ("//", "//"),
        ("item", ".item"),
        ("1 ", "? 1 "),
        ("true && ", "(true ? "),
    ],
)
def test_what_does_not_end_is_refused_in_time_that_grows_with_its_length_alone(begin, more):
    few, many = (f"{begin}{more * count}" for count in (24, 9_900 // len(more)))
    within_s = 0.02 + 50 * used_s(lambda: parse("item.n > 1 && context.t in item.l", "filter"))
    assert used_s(lambda: refused(few)) < within_s
    assert used_s(lambda: refused(many)) < 40 * within_s


def test_long_chains_are_read_side_by_side():
    assert len(conjuncts(parse(" && ".join(["item.n > 1"] * 500), "filter"))) == 500
    assert len(parse(" || ".join(["item.n > 1"] * 500), "filter").args) == 500
    assert conjuncts(parse("item.f", "filter")) == (Field("item", "f"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  ", "is empty"),
        (r"context.t == 'a\q'", r"\\q is no escape of a text: write \\\\ for a backslash"),
        (r'context.t == "\x4"', r"\\x is no escape"),
        (r"context.t in ['\\\d']", r"\\d is no escape"),
        ("item.n >", r"line 1, column 8: this is no expression, near 'item.n >'"),
        ("item.n > 1\n  && item.m >> 2", r"line 2, column 14.*item.m >> 2"),
        ("item.n > 1 &" * 9000, "108,000 characters, and 10,000 are the most"),
        ("(" * 1000 + "true" + ")" * 1000, "column 51: brackets stand more than 50 deep"),
        ("[" * 5000, "brackets stand more than 50 deep"),
        ("!" * 60 + "item.f", "nested more than 50 deep"),
        ("-" * 5000 + "1 > 0", "nested more than 50 deep"),
        ("true ? " * 60 + "true" + " : true" * 60, "more than 50 deep"),
        ("true ? true : " * 60 + "true", "nested more than 50 deep"),
        ("stock > 1", "there is no 'stock': fields are of item, context, profile, time"),
        ("itm.stock > 1", "there is no 'itm'"),
        ("item > 1", "item alone says nothing: name a field, such as item.name"),
        ("item.a.b > 1", "a field of a field"),
        ("item[1] > 1", "a field in brackets is a text"),
        ("siez(item.l) > 1", "no function 'siez': did you mean size?"),
        ("item.l.all(x, x > 1)", "no function 'all'"),
        ("size(item.l, item.m) > 1", "size takes 1, not 2"),
        ("item.l.size(2) > 1", "size takes 0, not 1"),
        ("item.a.has()", r"has is written as in has\(item.stock\)"),
        ("contains(item.a, 'x')", r"contains is written as in item.title.contains"),
        ("item.t.startsWith() ", "startsWith takes 1, not 0"),
        ("has(1)", "has asks about a field"),
        ("1 < 2 < 3", "two comparisons in a row"),
        ("item.n in [1, 'a']", "numbers, or of texts, not of both"),
        ("item.n in [item.m]", "a list is of numbers, texts or flags"),
        ("item.n == null", "null is no number, text or flag"),
        ("item.n == 1u", "1u is no number, text or flag"),
        ("{'a': 1}.a > 1", "a field of a field"),
        ("item.n > {'a': 1}", "a map has no meaning in a rule"),
        ("item.n < " + "9" * 5000, "99999999999999999999… is no number or text"),
        ("item.n < " + "9" * 400, "99999999999999999999… is no number or text"),
        ("item.n < 0x" + "f" * 5000, "is no number or text"),
        ("item.t == '\\U00110000'", "is no number or text"),
        ("1" + "+1" * 4900 + " > item.n", "more than 50 of"),
        ("!(" * 30 + "1" + "+1" * 30 + " > item.n" + ")" * 30, "nested more than 50 deep"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text, message):
    with pytest.raises(SpecError, match=message) as caught:
        parse(text, "filter")
    assert caught.value.target == "filter"
    assert "filter" not in str(caught.value), "whoever prints the field would print it twice"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("item.a > context.b && item.c == 'x'", {"a": "number", "b": "number", "c": "text"}),
        ("item.a == context.b", {"a": None, "b": None}),
        (
            "item.a == context.b && context.b == context.c && item.a in ['x']",
            dict.fromkeys("abc", "text"),
        ),
        ("item.a && !item.b || has(item.c)", {"a": "flag", "b": "flag", "c": None}),
        (
            "context.a in item.b && size(item.b) > item.c",
            {"a": "text", "b": "texts", "c": "number"},
        ),
        ("(item.a ? item.b : item.c) > 1", {"a": "flag", "b": "number", "c": "number"}),
        (
            "(item.a ? item.b : item.c) == item.d && item.d > 3",
            {"a": "flag", "b": "number", "c": "number", "d": "number"},
        ),
        (
            "(" * 45 + "item.a == item.b" + ") == true" * 45,
            {"a": None, "b": None},
        ),
        (
            "(" + "item.a ? item.b : " * 48 + "item.b) == item.c",
            {"a": "flag", "b": None, "c": None},
        ),
        (
            "item.id in profile.view && item.a.contains('x')",
            {"id": "text", "view": "texts", "a": "text"},
        ),
        ("time.hour > item.a", {"hour": "number", "a": "number"}),
    ],
)
def test_kinds_are_found_out_from_how_fields_are_used(text, expected):
    found = field_kinds(parse(text, "filter"), "filter")
    assert {field.name: kind for field, kind in found.items()} == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item.n > 1 && item.n == 'x'", "item.n is a number in one place and a text in another"),
        ("item.n > 'x'", "'x' is a text, where a number has to stand"),
        ("item.n + 1", r"what \+ gives is a number, where a flag has to stand"),
        (
            "item.a == context.b && item.a > 1 && context.b == 'x'",
            "is a number in one place and a text in another",
        ),
        ("item.id > 1", "item.id is a text in one place and a number in another"),
        ("profile.view > 1", "profile.view is a list in one place"),
        ("time.minute > 1", "there is no time.minute: of time there are hour, weekday, now"),
        (
            "item.l == item.l2 && size(item.l) > 1 && 'x' in item.l2 && item.l == item.l2",
            "lists are not compared",
        ),
        ("item.l == context.a && 'x' in item.l", "lists are not compared"),
        ("'x' in (item.f ? item.l : item.m)", "lists are not compared, nor chosen from"),
        ("'x' in (item.f ? item.l : ['x'])", "lists are not compared, nor chosen from"),
        ("!(item.n > 1) > 2", "what ! gives is a flag, where a number has to stand"),
        ("true ? 1 : 2", "where a flag has to stand"),
        ("'text'", "'text' is a text, where a flag has to stand"),
        ("[1]", "what is in brackets is a list, where a flag has to stand"),
    ],
)
def test_what_is_used_as_what_it_is_not_is_an_error(text, message):
    with pytest.raises(SpecError, match=message):
        field_kinds(parse(text, "filter"), "filter")
