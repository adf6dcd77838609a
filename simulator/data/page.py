"""A data set as one HTML page that needs nothing else."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from html import escape

from simulator.data.statistics import Activity, DataSummary, TypeCount
from simulator.pages import LEFT, STYLE, WIDTH, AxisScale, colour_of, describe_time, svg_picture

SPANS = ((1, "day"), (7, "week"), (28, "4 weeks"), (91, "13 weeks"), (364, "52 weeks"))
MOST_BARS = 120
"""Bars that fit beside each other: longer times are shown by the week, and so on."""
MOST_TYPES = 7
"""Types with a colour of their own; the others are one."""
OTHERS = "other types"
CARDS = """
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .8rem }
.cards div { background: var(--card); border-radius: 6px; padding: .7rem .9rem }
.cards b { display: block; font-size: 1.3rem; font-weight: 600 }
ul { padding-left: 1.2rem; max-width: 46rem }
"""


def data_page(summary: DataSummary) -> str:
    """Return the whole page: what is in the data set, and what that means."""
    parts = [
        (
            "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport'"
            " content='width=device-width'>"
        ),
        (
            f"<title>{escape(summary.name)}</title><style>{STYLE}{CARDS}</style><body>"
            f"<h1>What is in {escape(summary.name)}</h1>"
        ),
        f"<p class='soft'>{escape(origin_of(summary))}</p>",
        _cards(summary),
    ]
    if summary.remarks:
        parts += ["<h2>What this means</h2>", _list(summary.remarks)]
    if summary.days:
        parts += [f"<h2>Events per {_span(summary)[1]}</h2>", _days_chart(summary)]
    parts += ["<h2>Types of events</h2>", _types(summary.types)]
    if summary.values is not None:
        parts += ["<h2>Values</h2>", _values(summary)]

    parts += [
        "<h2>How much is known of each user</h2>",
        _activity(summary.users, "users"),
        "<h2>How much is known of each item</h2>",
        _activity(summary.items, "items"),
        "<h2>How popular the popular items are</h2>",
        _popularity(summary),
        "<h2>What was read, and what was left out</h2>",
        _dropped(summary),
        _columns(summary),
    ]
    return "\n".join(parts) + "</body></html>\n"


def origin_of(summary: DataSummary) -> str:
    """Return where a data set comes from, and its span, in a sentence."""
    source = ", ".join(summary.origin[:5]) + (" …" if len(summary.origin) > 5 else "")
    made = f"From {source}" if source else "Written by a program"
    if summary.preset:
        made += f", preset {summary.preset}"
    if summary.first_ms is None or summary.last_ms is None:
        return f"{made}; no event has a time."
    return f"{made}; {describe_time(summary.first_ms)} to {describe_time(summary.last_ms)} UTC."


def facts_of(summary: DataSummary) -> list[tuple[str, str]]:
    """Return the figures that a reader wants first: what, and how many."""
    facts = [
        ("events", f"{summary.events:,}"),
        ("users", f"{summary.users.count:,}"),
        ("items", f"{summary.items.count:,}"),
        ("median events per user", f"{summary.users.median:g}"),
        ("density", f"{summary.density:.3%}"),
        ("repeated pairs", f"{summary.repeats:.1%}"),
        ("equal events", f"{summary.duplicates:,}"),
    ]
    if summary.first_ms is not None and summary.last_ms is not None:
        days = (summary.last_ms - summary.first_ms) / 86_400_000
        facts.insert(3, ("days", f"{days:,.0f}" if days >= 10 else f"{days:.1f}"))
    return facts


def _cards(summary: DataSummary) -> str:
    cells = "".join(
        f"<div><b>{escape(value)}</b><span class='soft'>{escape(name)}</span></div>"
        for name, value in facts_of(summary)
    )
    return (
        f"<div class='cards'>{cells}</div><p class='soft'>Density: the share of all pairs of user"
        " and item that have an event. Repeated pairs: the share of events whose user had one with"
        " the item before. Equal events: those that equal another one in user, item, type and"
        " time.</p>"
    )


def _list(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(each)}</li>" for each in sentences) + "</ul>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """Return a table whose last ``numbers`` columns are numbers."""
    words = len(heads) - numbers
    head = "".join(
        f"<th{' style=text-align:right' if at >= words else ''}>{escape(name)}"
        for at, name in enumerate(heads)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=n' if at >= words else ''}>{escape(cell)}" for at, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _types(types: Sequence[TypeCount]) -> str:
    return _table(
        ("type", "events", "share", "weight"),
        [
            (each.type, f"{each.events:,}", f"{each.share:.1%}", f"{each.weight:g}")
            for each in types
        ],
        3,
    )


def _span(summary: DataSummary) -> tuple[int, str]:
    """Return how many days a bar stands for, and what that is called."""
    days = [date.fromisoformat(day) for day in summary.days]
    whole = (days[-1] - days[0]).days + 1
    return next((span for span in SPANS if whole <= span[0] * MOST_BARS), SPANS[-1])


def _days_chart(summary: DataSummary) -> str:
    """Draw events over time, one bar a day or a longer span, by type."""
    names = [each.type for each in summary.types[:MOST_TYPES]]
    if len(summary.types) > MOST_TYPES:
        names.append(OTHERS)
    first, length = date.fromisoformat(next(iter(summary.days))), _span(summary)[0]

    bars: dict[int, Counter[str]] = {}
    for day, counts in summary.days.items():
        bar = bars.setdefault((date.fromisoformat(day) - first).days // length, Counter())
        for kind, count in counts.items():
            bar[kind if kind in names else OTHERS] += count

    number = max(bars) + 1
    step = (WIDTH - 80) / number
    height = AxisScale(0.0, max(bar.total() for bar in bars.values()), 200, 20)
    shapes = height.horizontal_lines(60)
    for at, bar in bars.items():
        begin, below, rects = first + timedelta(days=at * length), 0, []
        for place, name in enumerate(names):
            low, high = height(below), height(below + bar[name])
            rects.append(
                f"<rect x='{60 + at * step:.1f}' y='{high:.1f}' width='{max(step - 1, 0.6):.1f}'"
                f" height='{low - high:.1f}' fill='{colour_of(place)}'/>"
            )
            below += bar[name]
        title = "; ".join(f"{name} {bar[name]:,}" for name in names)
        shapes.append(f"<g><title>{begin}: {escape(title)}</title>{''.join(rects)}</g>")

    shapes += _day_labels(first, number, length, step)
    return _legend(names) + svg_picture(232, shapes)


def _day_labels(first: date, number: int, length: int, step: float) -> list[str]:
    """Return the dates below some of the bars."""
    every = max(1, math.ceil(number / 6))
    return [
        f"<text class='soft' x='{60 + at * step:.0f}' y='220'>{first + timedelta(days=at * length)}"
        "</text>"
        for at in range(0, number, every)
        if 60 + at * step < WIDTH - 70
    ]


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    return (
        "<p>"
        + "&ensp;".join(
            f"<span style='color:{colour_of(number)}'>■</span> {escape(name)}"
            for number, name in enumerate(names)
        )
        + "</p>"
    )


def _bars_chart(bars: Mapping[str, int]) -> str:
    """Draw a count for each name, one below the other, with its share."""
    whole, most = sum(bars.values()) or 1, max(bars.values(), default=1) or 1
    shapes, at = [], 18.0
    for name, count in bars.items():
        width = (WIDTH - LEFT - 150) * count / most
        shapes.append(
            f"<text x='10' y='{at + 4:.0f}'>{escape(name)}</text><rect x='{LEFT}' y='{at - 7:.0f}'"
            f" width='{width:.1f}' height='14' fill='{colour_of(0)}'/><text class='soft'"
            f" x='{LEFT + width + 8:.0f}' y='{at + 4:.0f}'>{count:,} ({count / whole:.1%})</text>"
        )
        at += 20
    return svg_picture(at, shapes)


def _activity(activity: Activity, what: str) -> str:
    return (
        f"<p class='soft'>{activity.count:,} {what} by their number of events: {activity.mean:,.1f}"
        f" on average, median {activity.median:g}, {activity.most:,} at most."
        f" <b>{activity.few:.1%} have fewer than 5.</b></p>{_bars_chart(activity.bands)}"
    )


def _values(summary: DataSummary) -> str:
    values = summary.values
    if values is None:
        return ""
    scale = summary.weights.rating_scale
    use = f"ratings from {scale[0]:g} to {scale[1]:g}" if scale else "not taken for ratings"
    said = (
        f"<p class='soft'>{values.events:,} events have one: {values.least:g} to {values.most:g},"
        f" {values.mean:.3g} on average; {use}.</p>"
    )
    return said + (_bars_chart(values.counts) if values.counts else "")


def _popularity(summary: DataSummary) -> str:
    """Draw the share of events that the most popular items have."""
    popularity = summary.popularity
    across, up = AxisScale(0, 100, 60, WIDTH - 20), AxisScale(0, 100, 240, 20)
    points = " ".join(
        f"{across(share):.1f},{up(100 * events):.1f}"
        for share, events in enumerate(popularity.curve)
    )
    even = (
        f"<line class='axis' x1='{across(0):.0f}' y1='{up(0):.0f}' x2='{across(100):.0f}'"
        f" y2='{up(100):.0f}' stroke-dasharray='4 4'/>"
    )
    line = f"<polyline points='{points}' fill='none' stroke='{colour_of(0)}' stroke-width='2'/>"
    shares = ", ".join(f"{share} have {events:.1%}" for share, events in popularity.top.items())
    return (
        "<p class='soft'>Across: the most popular items, in % of all that have events. Up: their"
        f" share of the events, in %. Of the items, the top {escape(shares)}. Gini"
        f" index {popularity.gini:.2f}: 0 if all items were alike (the broken line), 1 if one had"
        " all.</p>"
        + svg_picture(262, [*across.vertical_lines(240), *up.horizontal_lines(60), even, line])
    )


def dropped_rows(summary: DataSummary) -> list[tuple[str, str, str, str]]:
    """Return what was left out: the reason, how many rows, their share, and one of them."""
    return [
        (
            reason.replace("_", " "),
            f"{each.rows:,}",
            f"{each.rows / summary.rows_read:.2%}" if summary.rows_read else "",
            (f"{each.file} row {each.row:,} " if each.file else "") + each.example,
        )
        for reason, each in sorted(summary.dropped.items(), key=lambda each: -each[1].rows)
        if each.rows
    ]


def _dropped(summary: DataSummary) -> str:
    rows = dropped_rows(summary)
    said = f"<p class='soft'>{summary.rows_read:,} rows were read, {summary.events:,} kept.</p>"
    if not rows:
        return said
    return said + _table(
        ("reason", "an example", "rows", "share"),
        [(reason, example[:200], count, share) for reason, count, share, example in rows],
        2,
    )


def columns_read(summary: DataSummary) -> list[tuple[str, str]]:
    """Return which columns were taken for what, and the features there are."""
    rows = [(f"events: {name}", column) for name, column in summary.columns.items()]
    rows += [(f"items: {name}", kind) for name, kind in summary.item_columns.items()]
    rows += [(f"users: {name}", kind) for name, kind in summary.user_columns.items()]
    return rows


def _columns(summary: DataSummary) -> str:
    rows = columns_read(summary)
    parts = []
    if rows:
        parts.append(_table(("field", "column of the file, or kind of feature"), rows))
    if summary.left_out:
        parts.append(
            _table(
                ("values left out, by column", "values"),
                [(name, f"{count:,}") for name, count in summary.left_out.items()],
                1,
            )
        )
    if summary.notes:
        parts.append(_list(summary.notes))
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    return "".join(parts) + f"<p class='soft'>Written by banditloop data show, {made} UTC.</p>"
