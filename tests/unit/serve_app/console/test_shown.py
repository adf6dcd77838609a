"""Numbers as pages show them: rounded for a person, and as they were answered for a program."""

import html

import msgspec
import pytest

from serve_app.console import shown
from serve_app.console.charts import ChartLine, line_chart
from serve_app.console.located import Located, maybe, pairs, unlocated


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (1234567, "1,234,567"),
        (0.0, "0"),
        (0.123456, "0.1235"),
        (12.3456, "12.35"),
        (12345.6, "12,346"),
        (0.9999999, "1"),
        (1200.0, "1,200"),
        (-0.5, "-0.5"),
        (1.5e-9, "1.5e-09"),
        (2.5e12, "2.5e+12"),
    ],
)
def test_a_number_is_rounded_for_a_person_and_whole_for_a_program(number, text):
    html = str(shown.shown_number(Located({"a": {"b": number}}).a.b))
    assert (
        html == f'<data value="{msgspec.json.encode(number).decode()}" data-of="a.b">{text}</data>'
    )


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (94107123.0, "94107123"),
        (1764511200000.0, "1764511200000"),
        (-0.0, "0"),
        (2024, "2024"),
        (1e300, "1e+300"),
        (48.85661234, "48.8566"),
        (123456789.125, "123456789.125"),
    ],
)
def test_a_whole_number_that_was_sent_is_shown_in_full(sent, text):
    """A postcode or a time is told from its neighbours."""
    assert f">{text}</data>" in shown.shown_value(Located({"zip": sent}).zip)


@pytest.mark.parametrize(
    ("sent", "begins"),
    [("<b>" * 200, "&lt;b&gt;"), (["a tag"] * 200, "a tag, a tag"), ("&" * 161, "&amp;" * 160)],
)
def test_a_long_text_among_many_is_shown_by_its_beginning(sent, begins):
    """It is cut before it is escaped: no half of an entity stands there."""
    told = str(shown.shown_briefly(Located({"text": sent}).text))
    assert told.startswith(begins)
    assert told.endswith("…")
    assert len(html.unescape(told)) == shown.BRIEF + 1
    assert shown.shown_briefly("short") == "short"
    assert ">7</data>" in shown.shown_briefly(7)


@pytest.mark.parametrize("unknown", [None, float("nan"), float("inf")])
@pytest.mark.parametrize(
    "show", [shown.shown_number, shown.shown_change, shown.shown_share, shown.shown_span]
)
def test_what_is_not_known_is_no_number(show, unknown):
    assert "not known" in show(unknown)


def test_shares_changes_spans_and_times():
    assert ">12.3%<" in shown.shown_share(0.12345)
    assert ">+0.12<" in shown.shown_change(0.12)
    assert ">-3<" in shown.shown_change(-3)
    assert ">3 days<" in shown.shown_span(3 * 86_400)
    assert ">90 seconds<" in shown.shown_span(90)
    assert ">1 second<" in shown.shown_span(1.2)
    assert ">2026-11-29 20:00:00<" in shown.shown_time("2026-11-29T22:00:00+02:00")
    assert ">1970-01-01 00:00:01<" in shown.shown_time(1000)

    # A moment that no calendar has in UTC stands as it was sent: the page is answered all the same.
    for sent in ("9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", 10**18, "9<b>"):
        assert f">{html.escape(str(sent))}<" in shown.shown_time(sent)
    assert shown.moment_text(10**18) == "1,000,000,000,000,000,000 ms"


def test_a_part_of_an_answer_knows_where_it_stands():
    answer = Located({"rows": [{"x": 1}, {"x": 2}], "map": {"items": 3}, "none": None})
    assert [str(row.x) for row in answer.rows] == ["1", "2"]
    assert shown.path_to(answer.rows[1].x) == "rows.1.x"
    assert [(name, unlocated(value)) for name, value in pairs(answer.map)] == [("items", 3)]
    assert maybe(answer, "none", "x") is None
    assert maybe(answer, "missing") is None
    assert not answer.none
    with pytest.raises(AttributeError):
        _ = answer.missing


def test_a_chart_has_no_style_of_its_own_and_shows_all_that_is_known():
    line = ChartLine("<b>", [(0, 1.0), (1, float("nan")), (2, 3.0)], [0.0, 0.1, 0.2], [4, 4, 4])
    svg = str(line_chart([line], "a <b> chart", ("first", "last"), zero=True))
    assert "style" not in svg
    assert "a &lt;b&gt; chart" in svg
    assert svg.count("<polyline") == svg.count("<polygon") == 1
    assert "nan" not in svg


def test_a_chart_of_one_point_is_none():
    assert line_chart([ChartLine("a", [(1, 1.0)])], "x", ("", "")) == ""
