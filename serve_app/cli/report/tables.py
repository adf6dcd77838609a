"""The report of ``banditloop report`` for a terminal."""

import math
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from serve_app.cli.replay.tables import COLOURS as VERDICT_COLOURS
from serve_app.cli.terminal import empty_table
from simulator.pages import describe_time
from simulator.report.page import SHOWN_GROUPS
from simulator.report.report import (
    ApprenticeWorth,
    ExplorationPrice,
    ExposureReport,
    GroupSummary,
    PolicyReport,
    SegmentDifference,
    Uplift,
    describe_share,
    describe_span,
)
from simulator.report.shadows.worth import ShadowWorth

COLOURS = {
    "better": "bold green",
    "apprentice_better": "bold green",
    "worse": "bold red",
    "log_untrusted": "bold red",
    "assignment_broken": "bold red",
    "shadow_better": "bold green",
    "shadow_worse": "bold red",
    "shadow_refused": "bold red",
    "shadow_failed": "bold red",
}


def policy_report_tables(report: PolicyReport) -> list[Table | Text]:
    """Return the report in the order in which a person reads it: first what it comes to."""
    verdict = report.verdict
    parts: list[Table | Text] = [
        Text.assemble(
            f"{report.policy}: ",
            (verdict.code, COLOURS.get(verdict.code, "bold yellow")),
            f": {verdict.message}",
        ),
        Text(f"what to do: {verdict.action}"),
    ]
    for caution in report.cautions:
        parts += [
            Text.assemble((caution.code, "yellow"), f": {caution.message}"),
            Text(f"what to do: {caution.action}"),
        ]

    parts.append(_read(report))
    if report.uplift is not None:
        parts.append(_uplift(report.uplift))
    if report.segments:
        parts.append(_segments(report.segments))
    if report.signals:
        parts.append(_signals(report))
    if report.choices:
        parts.append(_choices(report))
    if report.exposure is not None:
        parts.append(_exposure(report.exposure))
    if report.sources:
        parts.append(_sources(report))
    if report.exploration is not None:
        parts.append(_exploration(report.exploration))
    return [*parts, *_not_served(report)]


def _not_served(report: PolicyReport) -> list[Table | Text]:
    """Return what policies would have earned that chose for nobody."""
    parts: list[Table | Text] = []
    if report.shadows:
        parts.append(_shadows(report.shadows))
        parts += [_verdict_on(each) for each in report.shadows]
    if report.apprentice is not None:
        parts.append(_apprentice(report.apprentice))
    return parts


def _read(report: PolicyReport) -> Table:
    read = report.range
    table = empty_table("what", "value", title="what was read", show_header=False)
    if read.last_ms:
        table.add_row("from", f"{describe_time(read.first_ms)} UTC")
        table.add_row("to", f"{describe_time(read.last_ms)} UTC")
    table.add_row("decisions", f"{read.decisions:,}")
    table.add_row("slots", f"{read.rows:,}")
    table.add_row("mean reward of a slot", _number(read.mean_reward))
    table.add_row("windows open", f"{read.waiting:,}")
    return table


def _apprentice(found: ApprenticeWorth) -> Table:
    served = ", ".join(f"{name} {count:,}" for name, count in found.served.items())
    table = empty_table("what", "value", title="beside the baseline", show_header=False)
    table.add_row("decisions looked at", f"{found.rows:,}")
    table.add_row("whose choice was served", served)
    table.add_row("the policy would have chosen alike", f"{found.agreed:.1%}")
    table.add_row("choices that might have been others", f"{found.explored:.1%}")
    table.add_row("the baseline earns", _number(found.earned))

    known = math.isfinite(found.value)
    table.add_row("the policy would earn", f"{found.value:.6g}" if known else "not known")
    if known:
        table.add_row("difference", f"{found.difference:+.4g} {_interval(found.low, found.high)}")
    table.add_row(found.verdict, found.reason)

    if found.page is not None:
        page, knows = found.page, math.isfinite(found.page.value)
        table.add_row("a page of the baseline earns", f"{page.earned:.6g}")
        table.add_row("a page of the policy would", f"{page.value:.6g}" if knows else "not known")
        if knows:
            between = _interval(page.low, page.high)
            table.add_row("difference of a page", f"{page.difference:+.4g} {between}")
        table.add_row(page.verdict, page.reason)
    return table


def _uplift(uplift: Uplift) -> Table:
    caption = "nothing to compare: one of the two groups has no decision"
    if math.isfinite(uplift.difference):
        caption = f"difference {uplift.difference:+.6g}"
        if share := describe_share(uplift.difference, uplift.holdout.mean):
            caption += f" ({share})"
        caption += f", interval {_interval(uplift.low, uplift.high)}, p = {uplift.p_value:.3g}"
        caption += ": both hold at every look"
        if not uplift.conclusive and uplift.answer_s:
            caption += (
                f"\nif it stays so, an answer comes in about {describe_span(uplift.answer_s)}"
            )

    table = empty_table(
        *("group", "units", "decisions", "mean reward", "standard error", "per unit"),
        title="uplift over the holdout, per decision",
        numbers=("units", "decisions", "mean reward", "standard error", "per unit"),
        caption=caption,
    )
    for name, group in (("policy", uplift.policy), ("holdout", uplift.holdout)):
        table.add_row(name, *_cells(group), _number(group.per_unit))
    return table


def _cells(group: GroupSummary) -> tuple[str, str, str, str]:
    return (
        f"{group.units:,}",
        f"{group.decisions:,}",
        _number(group.mean),
        _number(group.stderr, 4),
    )


def _segments(segments: Sequence[SegmentDifference]) -> Table:
    numbers = ("units", "held out", "difference", "interval", "p (Holm)")
    table = empty_table(
        *("segment", *numbers),
        title="uplift by segment; all intervals hold at once, at every look",
        numbers=numbers,
    )
    for each in segments:
        star = " *" if each.conclusive else ""
        table.add_row(
            f"{each.field} = {each.value}",
            f"{each.policy.units:,}",
            f"{each.holdout.units:,}",
            f"{each.difference:+.4g}",
            _interval(each.low, each.high),
            f"{each.adjusted:.3g}{star}",
        )
    return table


def _signals(report: PolicyReport) -> Table:
    table = empty_table(
        *("signal", "events", "sum", "mean"),
        title="reward events, as they came",
        numbers=("events", "sum", "mean"),
    )
    for each in report.signals:
        mean = each.total / each.events
        table.add_row(
            each.signal or "(none)", f"{each.events:,}", f"{each.total:.6g}", f"{mean:.6g}"
        )
    return table


def _choices(report: PolicyReport) -> Table:
    heads = ("choices", "items", "as many equal", "head share", "novelty bits")
    said = None
    if report.coverage is not None:
        of = f"{report.coverage.chosen:,} of {report.coverage.candidates:,} candidates"
        said = f"in the newest {report.looked_at:,} slots {of} were chosen"
    table = empty_table("group", *heads, title="what was chosen", numbers=heads, caption=said)
    for name, each in report.choices.items():
        table.add_row(
            name,
            f"{each.choices:,}",
            f"{each.items:,}",
            f"{each.effective:,.1f}",
            f"{each.head:.1%}",
            f"{each.novelty:.2f}",
        )
    return table


def _exposure(exposure: ExposureReport) -> Table:
    numbers = ("shown", "share", "interval")
    floor = "" if exposure.floor is None else f"; each is to have {exposure.floor:.1%} at least"
    table = empty_table(
        *("group", *numbers), title=f"items by {exposure.field}{floor}", numbers=numbers
    )
    for each in exposure.groups[:SHOWN_GROUPS]:
        table.add_row(
            each.group or "(none)",
            f"{each.chosen:,}",
            f"{each.share:.2%}",
            f"{each.low:.2%} … {each.high:.2%}",
        )
    return table


def _sources(report: PolicyReport) -> Table:
    heads = ("proposes", "items", "chosen", "alone", "earned", "others earn")
    table = empty_table(
        *("source", *heads),
        title=f"sources, in the newest {report.looked_at:,} slots",
        numbers=heads,
    )
    for each in report.sources:
        shares = (f"{each.chosen:.1%}", f"{each.alone:.1%}")
        table.add_row(
            each.source,
            f"{each.proposed:.1%}",
            f"{each.candidates:.1f}",
            *shares,
            _number(each.earned, 5),
            _number(each.others, 5),
        )
    return table


def _exploration(price: ExplorationPrice) -> Text:
    known = f"{price.price:+.4g} per slot, {_interval(price.low, price.high)}"
    return Text.assemble(
        f"price of exploration: {known if math.isfinite(price.price) else 'not known'}, ",
        (price.verdict, VERDICT_COLOURS[price.verdict]),
        f": {price.reason}",
    )


def _shadows(shadows: Sequence[ShadowWorth]) -> Table:
    numbers = ("slots", "would earn", "served", "difference", "interval")
    table = empty_table(
        *("shadow", *numbers),
        title="shadows, by doubly robust evaluation; an interval holds at one look",
        numbers=numbers,
        whole=("shadow", "interval"),
    )
    for each in shadows:
        known = math.isfinite(each.difference)
        table.add_row(
            each.name,
            f"{each.rows:,}",
            f"{each.value:.5g}" if known else "-",
            f"{each.served:.5g}" if known else "-",
            f"{each.difference:+.4g}" if known else "-",
            _interval(each.low, each.high) if known else "-",
        )
    return table


def _verdict_on(shadow: ShadowWorth) -> Text:
    verdict = shadow.verdict
    return Text.assemble(
        f"{shadow.name}: ",
        (verdict.code, COLOURS.get(verdict.code, "bold yellow")),
        f": {verdict.message}; {shadow.decisions:,} decisions followed,"
        f" {describe_span(shadow.behind_s)} behind\nwhat to do: {verdict.action}",
    )


def _number(value: float, digits: int = 6) -> str:
    return f"{value:.{digits}g}" if math.isfinite(value) else "-"


def _interval(low: float, high: float) -> str:
    return f"{low:+.4g} … {high:+.4g}" if math.isfinite(low) else "none yet"
