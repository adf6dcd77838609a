"""A policy's report as one HTML page that needs nothing else."""

import math
from collections.abc import Callable, Sequence
from html import escape

from simulator.pages import COLOURS, STYLE, WIDTH, AxisScale, describe_time, svg_picture
from simulator.report.report import (
    ApprenticeWorth,
    Drift,
    ExplorationPrice,
    ExposureReport,
    GroupExposure,
    GroupOutcome,
    PageWorth,
    PolicyReport,
    SegmentDifference,
    StretchOfTime,
    Uplift,
    describe_share,
    describe_span,
)
from simulator.report.shadows.section import shadows_section
from simulator.report.verdicts import Verdict

SHOWN_GROUPS = 30
"""Groups of items on the page, the most shown."""
TONES = {
    "better": "reliable",
    "apprentice_better": "reliable",
    "worse": "unreliable",
    "log_untrusted": "unreliable",
    "assignment_broken": "unreliable",
}
"""The colour of a verdict, by its code; others are between."""


def policy_page(report: PolicyReport) -> str:
    """Return the whole page: the verdict, the uplift over time, segments, rewards, choices."""
    name = escape(report.policy)
    parts = [
        (
            "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport'"
            " content='width=device-width, initial-scale=1'>"
        ),
        f"<title>What {name} is worth</title><style>{STYLE}",
        ".wide { overflow-x: auto } th.n { text-align: right } td.n { white-space: nowrap }",
        "@media (max-width: 40rem) { text { font-size: 17px } }</style></head><body>",
        f"<main><h1>What {name} is worth</h1>",
        _verdict(report.verdict),
        _read(report),
    ]
    for title, there, made in _sections(report):
        if there:
            parts += [f"<h2>{title}</h2>", made()]
    return "\n".join(parts) + "</main></body></html>\n"


def _sections(report: PolicyReport) -> list[tuple[str, object, Callable[[], str]]]:
    """Return the parts below the verdict: a title, whether there is anything, and what makes it."""
    uplift, exploration, apprentice = report.uplift, report.exploration, report.apprentice
    return [
        ("To be known beside it", report.cautions, lambda: "".join(map(_caution, report.cautions))),
        ("Uplift over the holdout", uplift, lambda: _uplift(uplift) if uplift else ""),
        ("By segment", report.segments, lambda: _segments(report.segments)),
        ("Reward over time", len(report.times) > 1, lambda: _times(report.times)),
        ("Reward events, as they came", report.signals, lambda: _signals(report)),
        ("What was chosen", report.choices, lambda: _choices(report)),
        (
            "What groups of items were shown",
            report.exposure,
            lambda: _exposure(report.exposure) if report.exposure else "",
        ),
        ("What groups of users got", report.outcomes, lambda: _outcomes(report.outcomes)),
        ("Sources", report.sources, lambda: _sources(report)),
        (
            "The price of exploration",
            exploration,
            lambda: _exploration(exploration) if exploration else "",
        ),
        ("Shadows", report.shadows, lambda: shadows_section(report.shadows)),
        (
            "Beside the baseline",
            apprentice,
            lambda: _apprentice(apprentice) if apprentice else "",
        ),
        ("What has moved", report.drifts, lambda: _drifts(report.drifts)),
        ("What the doctor found", report.findings, lambda: _findings(report)),
    ]


def _verdict(verdict: Verdict) -> str:
    tone = TONES.get(verdict.code, "weak")
    return (
        f"<p><b class='{tone}'>{escape(verdict.code)}</b>: {escape(verdict.message)}.</p>"
        f"<p>What to do: {escape(verdict.action)}.</p>"
    )


def _caution(caution: Verdict) -> str:
    return (
        f"<p><b class='weak'>{escape(caution.code)}</b>: {escape(caution.message)}."
        f" <span class='soft'>What to do: {escape(caution.action)}.</span></p>"
    )


def _read(report: PolicyReport) -> str:
    read = report.range
    facts = [f"{read.decisions:,} decisions with {read.rows:,} slots"]
    if read.last_ms:
        facts.append(f"{describe_time(read.first_ms)} to {describe_time(read.last_ms)} UTC")
    if math.isfinite(read.mean_reward):
        facts.append(f"mean reward of a slot {read.mean_reward:.6g}")
    if read.waiting:
        facts.append(f"{read.waiting:,} more wait for their windows to close")
    return f"<p class='soft'>{'; '.join(facts)}.</p>"


def _uplift(uplift: Uplift) -> str:
    share = describe_share(uplift.difference, uplift.holdout.mean)
    if not math.isfinite(uplift.difference):
        return "<p>There is nothing to compare: one of the two groups has no decision.</p>"
    said = (
        f"Per decision {uplift.difference:+.6g}{f' ({share})' if share else ''}, interval"
        f" {_interval(uplift.low, uplift.high)}, p = {uplift.p_value:.3g}. Both hold at every look:"
        " look as often as you like, and stop when you like."
    )
    if not uplift.conclusive and uplift.answer_s:
        said += f" If it stays so, an answer comes in about {describe_span(uplift.answer_s)}."
    rows = "".join(
        f"<tr><td>{name}<td class='n'>{group.units:,}<td class='n'>{group.decisions:,}"
        f"<td class='n'>{group.mean:.6g}<td class='n'>{_finite(group.stderr)}"
        f"<td class='n'>{group.per_unit:.6g}</tr>"
        for name, group in (("policy", uplift.policy), ("holdout", uplift.holdout))
    )
    heads = _heads("group", "units", "decisions", "mean reward", "standard error", "per unit")
    return f"<p>{said}</p>{_looks(uplift)}<div class='wide'><table>{heads}{rows}</table></div>"


def _looks(uplift: Uplift) -> str:
    """Draw the difference and its interval as they were at each look."""
    looks = [look for look in uplift.looks if math.isfinite(look.low)]
    if len(looks) < 2:
        return ""
    # The first intervals are wide: the chart is made for the later half.
    shown = [0.0, *(end for look in looks[len(looks) // 2 :] for end in (look.low, look.high))]
    room = 0.5 * (max(shown) - min(shown))
    height = AxisScale(min(shown) - room, max(shown) + room, 200, 20)
    across = AxisScale(0.0, float(looks[-1].decisions), 60, WIDTH - 20)

    upper = [f"{across(float(each.decisions)):.1f},{height(each.high):.1f}" for each in looks]
    lower = [f"{across(float(each.decisions)):.1f},{height(each.low):.1f}" for each in looks]
    middle = [
        f"{across(float(each.decisions)):.1f},{height(each.difference):.1f}" for each in looks
    ]
    shapes = [
        (
            f"<polygon points='{' '.join([*upper, *reversed(lower)])}' fill='{COLOURS[0]}'"
            " opacity='.2'/>"
        ),
        (
            f"<polyline points='{' '.join(middle)}' fill='none' stroke='{COLOURS[0]}'"
            " stroke-width='2'/>"
        ),
        (
            f"<line x1='60' x2='{WIDTH - 20}' y1='{height(0.0):.1f}' y2='{height(0.0):.1f}'"
            " stroke='var(--ink)' stroke-dasharray='4'/>"
        ),
    ]
    note = (
        "<p class='soft'>The difference and its interval after so many decisions. The dashed line"
        " is no difference.</p>"
    )
    axes = [*across.vertical_lines(220), *height.horizontal_lines(60)]
    return note + svg_picture(240, [*axes, *shapes], "the uplift and its interval")


def _segments(segments: Sequence[SegmentDifference]) -> str:
    heads = _heads(
        "segment", "units", "held out", "policy", "holdout", "difference", "interval", "p (Holm)"
    )
    rows = "".join(
        f"<tr><td>{escape(each.field)} = {escape(each.value)}<td class='n'>{each.policy.units:,}"
        f"<td class='n'>{each.holdout.units:,}<td class='n'>{each.policy.mean:.5g}"
        f"<td class='n'>{each.holdout.mean:.5g}"
        f"<td class='n'><{_weight(each)}>{each.difference:+.4g}</{_weight(each)}>"
        f"<td class='n'>{_interval(each.low, each.high)}<td class='n'>{each.adjusted:.3g}</tr>"
        for each in segments
    )
    return (
        "<p class='soft'>All intervals hold at once, at every look; what is bold is significant"
        f" among so many.</p><div class='wide'><table>{heads}{rows}</table></div>"
    )


def _weight(segment: SegmentDifference) -> str:
    return "b" if segment.conclusive else "span"


def _times(times: Sequence[StretchOfTime]) -> str:
    across = AxisScale(float(times[0].start_ms), float(times[-1].start_ms), 60, WIDTH - 20)
    lines = [[(each.start_ms, each.policy) for each in times]]
    lines.append([(each.start_ms, each.holdout) for each in times])
    values = [value for line in lines for _, value in line if math.isfinite(value)]
    height = AxisScale(min(values, default=0.0), max(values, default=1.0), 200, 20)

    shapes = []
    for number, line in enumerate(lines):
        points = " ".join(
            f"{across(float(at)):.1f},{height(value):.1f}"
            for at, value in line
            if math.isfinite(value)
        )
        shapes.append(
            f"<polyline points='{points}' fill='none' stroke='{COLOURS[number]}'"
            " stroke-width='1.5'/>"
        )

    labels = "".join(
        f"<text class='soft' x='{across(float(at)):.0f}' y='222' text-anchor='{anchor}'>"
        f"{describe_time(at)}</text>"
        for at, anchor in ((times[0].start_ms, "start"), (times[-1].start_ms, "end"))
    )
    legend = "&ensp;".join(
        f"<span style='color:{COLOURS[number]}'>■</span> {name}"
        for number, name in enumerate(("policy", "holdout"))
    )
    return f"<p>{legend}</p>" + svg_picture(
        232, [*height.horizontal_lines(60), *shapes, labels], "mean rewards over time"
    )


def _signals(report: PolicyReport) -> str:
    rows = "".join(
        f"<tr><td>{escape(each.signal) or '(none)'}<td class='n'>{each.events:,}"
        f"<td class='n'>{each.total:.6g}</tr>"
        for each in report.signals
    )
    return f"<table>{_heads('signal', 'events', 'sum')}{rows}</table>"


def _choices(report: PolicyReport) -> str:
    heads = _heads("group", "choices", "items", "as many equal", "head share", "novelty bits")
    rows = "".join(
        f"<tr><td>{name}<td class='n'>{each.choices:,}<td class='n'>{each.items:,}"
        f"<td class='n'>{each.effective:,.1f}<td class='n'>{each.head:.1%}"
        f"<td class='n'>{each.novelty:.2f}</tr>"
        for name, each in report.choices.items()
    )
    said = ""
    if report.coverage is not None:
        said = (
            f"<p class='soft'>In the newest {report.looked_at:,} slots there were"
            f" {report.coverage.candidates:,} different items to choose among, and"
            f" {report.coverage.chosen:,} of them were chosen.</p>"
        )
    return f"{said}<div class='wide'><table>{heads}{rows}</table></div>"


def _exposure(exposure: ExposureReport) -> str:
    """Return a row for each group: its share as a bar with its interval, and the floor."""
    shown = exposure.groups[:SHOWN_GROUPS]
    most = max((each.high for each in shown), default=1.0)
    rows = "".join(
        f"<tr><td>{escape(each.group) or '(none)'}<td class='n'>{each.chosen:,}"
        f"<td class='n'>{_share(each, exposure.floor)}"
        f"<td class='n'>{each.low:.2%} … {each.high:.2%}<td>{_bar(each, most, exposure.floor)}</tr>"
        for each in shown
    )
    said = f"Groups by the feature <b>{escape(exposure.field)}</b>, of what the policy drew."
    if exposure.floor is not None:
        said += f" Each is to have {exposure.floor:.1%} at least, as the dashed line shows."
    if (more := len(exposure.groups) - len(shown)) > 0:
        said += f" {more:,} more groups are in the JSON."
    heads = _heads("group", "shown", "share", "interval (95%)", "")
    return f"<p class='soft'>{said}</p><div class='wide'><table>{heads}{rows}</table></div>"


def _share(group: GroupExposure, floor: float | None) -> str:
    """Return a share, marked where it is surely below the floor."""
    if floor is not None and group.high < floor:
        return f"<b class='unreliable'>{group.share:.2%}</b>"
    return f"{group.share:.2%}"


def _bar(group: GroupExposure, most: float, floor: float | None) -> str:
    across = AxisScale(0.0, most, 0, 200)
    line = (
        ""
        if floor is None
        else (
            f"<line x1='{across(floor):.1f}' x2='{across(floor):.1f}' y1='0' y2='14'"
            " stroke='var(--ink)' stroke-dasharray='3'/>"
        )
    )
    return (
        "<svg width='200' height='14' role='img' aria-hidden='true'>"
        f"<rect width='{across(group.share):.1f}' y='3' height='8' fill='{COLOURS[0]}'/>"
        f"<line x1='{across(group.low):.1f}' x2='{across(group.high):.1f}' y1='7' y2='7'"
        f" stroke='var(--ink)'/>{line}</svg>"
    )


def _outcomes(outcomes: Sequence[GroupOutcome]) -> str:
    heads = _heads("group", "decisions", "users", "mean reward", "interval (95%)")
    rows = "".join(
        f"<tr><td>{escape(each.field)} = {escape(each.value)}<td class='n'>{each.decisions:,}"
        f"<td class='n'>{each.units:,}<td class='n'>{each.mean:.5g}"
        f"<td class='n'>{_interval(each.low, each.high)}</tr>"
        for each in outcomes
    )
    return (
        "<p class='soft'>What a decision of the policy earned, users being what is independent.</p>"
        f"<div class='wide'><table>{heads}{rows}</table></div>"
    )


def _sources(report: PolicyReport) -> str:
    heads = _heads("source", "proposes", "items", "chosen", "alone", "earned", "others earn")
    rows = "".join(
        f"<tr><td>{escape(each.source)}<td class='n'>{each.proposed:.1%}"
        f"<td class='n'>{each.candidates:.1f}<td class='n'>{each.chosen:.1%}"
        f"<td class='n'>{each.alone:.1%}<td class='n'>{_finite(each.earned)}"
        f"<td class='n'>{_finite(each.others)}</tr>"
        for each in report.sources
    )
    return (
        f"<p class='soft'>In the newest {report.looked_at:,} slots: how often a source proposed"
        " anything, how many items, how often what it proposed was chosen, how often nobody else"
        " had proposed that, and the mean reward then and otherwise.</p>"
        f"<div class='wide'><table>{heads}{rows}</table></div>"
    )


def _exploration(price: ExplorationPrice) -> str:
    if not math.isfinite(price.price):
        return f"<p>What exploration costs is not known: {escape(price.reason)}.</p>"
    return (
        f"<p>Always choosing the likeliest action would have earned {price.price:+.4g} per slot"
        f" ({_interval(price.low, price.high)}), by doubly robust evaluation of"
        f" {price.rows:,} slots: <b class='{price.verdict}'>{price.verdict}</b>"
        f" <span class='soft'>{escape(price.reason)}</span>.</p>"
    )


def _apprentice(found: ApprenticeWorth) -> str:
    known = math.isfinite(found.value)
    would = (
        f"It is estimated to earn {found.value:.6g}, {found.difference:+.4g} more"
        f" ({_interval(found.low, found.high)})"
        if known
        else "What it would earn is not known"
    )
    served = ", ".join(f"{escape(name)} {count:,}" for name, count in found.served.items())
    return (
        f"<p>The policy would have chosen what was served in {_percent(found.agreed)} of"
        f" {found.rows:,} decisions; {found.explored:.1%} of the choices might have been others."
        f" The baseline earns {_finite(found.earned)}. {would}:"
        f" <b class='{found.verdict}'>{found.verdict}</b>"
        f" <span class='soft'>{escape(found.reason)}</span>.</p>"
        f"{'' if found.page is None else _pages_of(found.page)}"
        f"<p class='soft'>Whose choice was served: {served}.</p>"
    )


def _pages_of(found: PageWorth) -> str:
    would = "what one of the policy's would earn is not known"
    if math.isfinite(found.value):
        would = (
            f"one of the policy's is estimated to earn {found.value:.6g}, {found.difference:+.4g}"
            f" more ({_interval(found.low, found.high)})"
        )
    return (
        f"<p>A whole page of the baseline's earns {_finite(found.earned)}; {would}:"
        f" <b class='{found.verdict}'>{found.verdict}</b>"
        f" <span class='soft'>{escape(found.reason)}</span>.</p>"
    )


def _drifts(drifts: Sequence[Drift]) -> str:
    heads = _heads("what", "moved", "by chance")
    rows = "".join(
        f"<tr><td>{each.what} {escape(each.name)}<td class='n'>{each.distance:.1%}"
        f"<td class='n'>{each.by_chance:.1%}</tr>"
        for each in sorted(drifts, key=lambda each: -each.distance)
    )
    return (
        "<p class='soft'>Share of the newest decisions that would have to be others to be as the"
        f" first were.</p><table>{heads}{rows}</table>"
    )


def _findings(report: PolicyReport) -> str:
    return "".join(
        f"<p><b>{escape(each.check)}</b>, {each.severity}: {escape(each.message)}."
        f" <span class='soft'>{escape(each.action)}</span></p>"
        for each in report.findings
    )


def _heads(first: str, *others: str) -> str:
    return f"<tr><th>{first}" + "".join(f"<th class='n'>{each}" for each in others) + "</tr>"


def _interval(low: float, high: float) -> str:
    return f"{low:+.4g} … {high:+.4g}" if math.isfinite(low) else "none yet"


def _percent(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "-"


def _finite(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "-"
