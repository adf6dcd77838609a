"""The pictures of an evaluation of sources, as SVG."""

from collections.abc import Callable, Mapping, Sequence
from html import escape

from simulator.pages import LEFT, WIDTH, AxisScale, colour_of, svg_picture
from simulator.ranking.report import Metric, PoolRow, RankerResult, RankingReport

ROW, NARROW_ROW = 22, 14
"""Pixels from one row to the next."""


def quality_chart(report: RankingReport) -> str:
    """Draw nDCG with its interval, the best row first."""
    rows = sorted(enumerate(report.results), key=lambda row: -(row[1].metrics["ndcg"].value or 0.0))
    ends = [row.metrics["ndcg"].high or 0.0 for _, row in rows]
    scale = AxisScale(0.0, max(ends, default=1.0), LEFT, WIDTH - 20)

    shapes, at = list[str](), 20.0
    for number, row in rows:
        metric = row.metrics["ndcg"]
        value, low, high = metric.value or 0.0, metric.low or 0.0, metric.high or 0.0
        colour = _colour(report, number)
        title = f"{row.name}: nDCG@{report.k} {value:.4f} in {low:.4f} … {high:.4f}. {row.note}"
        shapes.append(
            f"<g><title>{escape(title)}</title>"
            f"<text x='10' y='{at + 4:.0f}'>{escape(row.name[:20])}</text>"
            f"<rect x='{LEFT}' y='{at - 7:.0f}' width='{scale(value) - LEFT:.1f}' height='14'"
            f" fill='{colour}' opacity='.75'/>"
            f"<line x1='{scale(low):.1f}' x2='{scale(high):.1f}' y1='{at:.0f}' y2='{at:.0f}'"
            " stroke='var(--ink)' stroke-width='1.5'/></g>"
        )
        at += ROW
    return svg_picture(at + 20, scale.vertical_lines(at) + shapes)


def trade_chart(report: RankingReport, across: str, label: str) -> str:
    """Draw nDCG against another metric: what a better list costs, or brings.

    Args:
        report: the evaluation.
        across: the metric, one that every row has.
        label: its name for a reader.
    """
    points = [
        (number, row, row.metrics[across].value, row.metrics["ndcg"].value)
        for number, row in enumerate(report.results)
    ]
    known = [(n, row, x, y) for n, row, x, y in points if x is not None and y is not None]
    if not known:
        return ""
    width = AxisScale(0.0, 1.1 * max(x for *_, x, _ in known), 60, WIDTH - 60)
    height = AxisScale(0.0, 1.1 * max(y for *_, y in known), 240, 20)

    shapes = width.vertical_lines(244) + height.horizontal_lines(60)
    taken = list[tuple[float, float]]()
    for number, row, x, y in known:
        # Names that would lie on each other stand one below the other.
        left, top = width(x) + 8, height(y) + 4
        while any(abs(left - there) < 90 and abs(top - down) < 12 for there, down in taken):
            top += 12
        taken.append((left, top))
        if top > height(y) + 4:
            shapes.append(
                f"<line x1='{width(x):.1f}' x2='{left - 2:.1f}' y1='{height(y):.1f}'"
                f" y2='{top - 4:.1f}' stroke='{_colour(report, number)}' opacity='.5'/>"
            )
        shapes.append(
            f"<g><title>{escape(row.name)}: {label} {x:.4f}, nDCG {y:.4f}</title>"
            f"<circle cx='{width(x):.1f}' cy='{height(y):.1f}' r='5'"
            f" fill='{_colour(report, number)}'/>"
            f"<text x='{left:.1f}' y='{top:.1f}'>{escape(row.name[:20])}</text></g>"
        )
    shapes.append(
        f"<text class='soft' x='{WIDTH - 20}' y='276' text-anchor='end'>{escape(label)} →</text>"
        "<text class='soft' x='10' y='14'>↑ nDCG</text>"
    )
    return svg_picture(284, shapes)


def groups_chart(
    report: RankingReport, groups: Sequence[str], of: Callable[[RankerResult], Mapping[str, Metric]]
) -> str:
    """Draw each row's figure in each group, one below the other, each with its name.

    Args:
        report: the evaluation.
        groups: those that anybody is in.
        of: from a row to its figures by group.
    """
    ends = [of(row)[group].high or 0.0 for row in report.results for group in groups]
    scale = AxisScale(0.0, max(ends, default=1.0), LEFT, WIDTH - 20)
    shapes, at = list[str](), 18.0

    for group in groups:
        shapes.append(f"<text x='10' y='{at + 4:.0f}' font-weight='bold'>{escape(group)}</text>")
        at += NARROW_ROW
        for number, row in enumerate(report.results):
            metric = of(row)[group]
            if metric.value is None:
                continue
            low, high = scale(metric.low or metric.value), scale(metric.high or metric.value)
            colour = _colour(report, number)
            title = f"{row.name}, {group}: {metric.value:.4f}"
            shapes.append(
                f"<g><title>{escape(title)}</title>"
                f"<text class='soft' x='{LEFT - 10}' y='{at + 4:.0f}' text-anchor='end'"
                f" font-size='11'>{escape(row.name[:20])}</text>"
                f"<line x1='{low:.1f}' x2='{high:.1f}'"
                f" y1='{at:.0f}' y2='{at:.0f}' stroke='{colour}' stroke-width='2'/>"
                f"<circle cx='{scale(metric.value):.1f}' cy='{at:.0f}' r='4' fill='{colour}'/></g>"
            )
            at += NARROW_ROW
        at += 8
    return svg_picture(at + 14, scale.vertical_lines(at - 4) + shapes)


def pools_chart(rows: Sequence[PoolRow]) -> str:
    """Draw the recall of pools against their size."""
    size = AxisScale(0.0, 1.05 * max(row.size for row in rows), 60, WIDTH - 60)
    height = AxisScale(0.0, max(row.recall for row in rows), 220, 20)
    path = " ".join(f"{size(row.size):.1f},{height(row.recall):.1f}" for row in rows)

    shapes = [
        *size.vertical_lines(224),
        *height.horizontal_lines(60),
        f"<polyline points='{path}' fill='none' stroke='{colour_of(0)}' stroke-width='2'/>",
    ]
    shapes += [
        f"<circle cx='{size(row.size):.1f}' cy='{height(row.recall):.1f}' r='4'"
        f" fill='{colour_of(0)}'/>"
        f"<text x='{size(row.size):.1f}' y='{height(row.recall) - 8:.1f}' text-anchor='middle'>"
        f"{row.limit}</text>"
        for row in rows
    ]
    shapes.append(
        f"<text class='soft' x='{WIDTH - 20}' y='256' text-anchor='end'>candidates in the pool →"
        "</text><text class='soft' x='10' y='14'>↑ recall</text>"
    )
    return svg_picture(264, shapes)


def _colour(report: RankingReport, number: int) -> str:
    """Return a row's colour: fusions are grey, others have one each, as far as colours go."""
    if report.results[number].kind == "fusion":
        return "#8a929c"
    return colour_of(sum(row.kind != "fusion" for row in report.results[:number]))


def legend(report: RankingReport) -> str:
    """Return which colour is whose."""
    names = [
        f"<span style='color:{_colour(report, number)}'>■</span> {escape(row.name)}"
        for number, row in enumerate(report.results)
        if row.kind != "fusion"
    ]
    if any(row.kind == "fusion" for row in report.results):
        names.append("<span style='color:#8a929c'>■</span> fusions of all sources")
    return f"<p>{'&ensp;'.join(names)}</p>"
