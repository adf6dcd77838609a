"""The report of ``banditloop replay`` for a terminal."""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from serve_app.cli.terminal import empty_table
from simulator.ope.estimators import Estimate
from simulator.replay.over_time import OverTime
from simulator.replay.report import (
    EvaluationReport,
    PolicyResult,
    SearchSummary,
    SlotExamination,
    log_remarks,
)

MOST_WINDOWS_SHOWN = 48
COLOURS = {"reliable": "green", "weak": "yellow", "unreliable": "red"}


def report_tables(report: EvaluationReport) -> list[Table | Text]:
    """Return the report in the order in which a person reads it."""
    tables: list[Table | Text] = []
    if notes := log_remarks(report.log):
        tables.append(_log_table(notes))
    if report.search is not None:
        tables.append(_search_table(report.search))

    for result in report.results:
        tables.append(_policy_table(result))
        tables += [_slot_table(result, *slots) for slots in result.slots.items()]
        tables += [_time_table(result, each) for each in result.over_time]

    if report.examination:
        tables.append(_examination_table(report.examination))
    if report.reward_model is not None:
        tables.append(Text(report.reward_model.sentence))
    if report.comparisons:
        tables.append(_comparison_table(report))
    return tables


def _log_table(notes: Sequence[tuple[str, str]]) -> Table:
    table = empty_table("what", "how", title="log", show_header=False)
    for what, how in notes:
        table.add_row(what, how)
    return table


def _search_table(search: SearchSummary) -> Table:
    numbers = ("rung", "learned from", "DR at least", "DR")
    table = empty_table(
        *("rung", "spec", "learned from", "DR at least", "DR", "verdict", ""),
        title="search",
        numbers=numbers,
        whole=("verdict",),
        caption=f"best: {json.dumps(search.best)}",
    )

    for trial in search.trials:
        # A bound that cannot be relied on is not shown.
        lower = f"{trial.lower:.6g}" if trial.verdict != "unreliable" else "-"
        verdict = Text(trial.verdict, COLOURS[trial.verdict])
        cells = (str(trial.rung), trial.spec, f"{trial.rows:,}", lower, f"{trial.value:.6g}")
        table.add_row(*cells, verdict, "goes on" if trial.kept else "")
    return table


def _policy_table(result: PolicyResult) -> Table:
    title = f"{result.policy} · {result.method}"
    caption = "\n".join([*result.notes, *_reasons(result)]) or None
    if not result.estimates:
        return _learned_table(result, title, caption)

    table = empty_table(
        *("estimator", "value", "interval", "ESS", "max weight", "verdict"),
        title=title,
        numbers=("value", "ESS", "max weight"),
        whole=("estimator", "verdict"),
        caption=caption,
    )

    for name, estimate in result.estimates.items():
        table.add_row(name, *_figures(estimate))
    return table


def _slot_table(result: PolicyResult, name: str, slots: Sequence[Estimate]) -> Table:
    """Return what each slot of a page earns."""
    table = empty_table(
        *("slot", "value", "interval", "ESS", "max weight", "verdict"),
        title=f"{result.policy} · by slot ({name})",
        numbers=("slot", "value", "ESS", "max weight"),
        whole=("verdict",),
    )
    for slot, estimate in enumerate(slots):
        table.add_row(str(slot), *_figures(estimate))
    return table


def _time_table(result: PolicyResult, found: OverTime) -> Table:
    """Return what a policy earns by windows of time, the latest ones."""
    latest = found.points[-MOST_WINDOWS_SHOWN:]
    more = len(found.points) - len(latest)
    table = empty_table(
        *("from", "rows", "value", "interval", "verdict", "so far"),
        title=f"{result.policy} · every {_span(found.every_s)} ({found.estimator})",
        numbers=("rows", "value", "so far"),
        whole=("from", "verdict"),
        caption=f"{more:,} earlier ones are in the report (--json, --out)" if more else None,
    )
    for point in latest:
        start = datetime.fromtimestamp(point.start_ms / 1000, UTC).isoformat(" ", "seconds")
        low, high = point.interval
        told = f"{point.value:.6g}", f"{low:.6g} … {high:.6g}"
        value, interval = told if math.isfinite(low) else ("-", "-")
        verdict = Text(point.verdict, COLOURS.get(point.verdict, ""))
        cells = (start.removesuffix("+00:00"), f"{point.rows:,}", value, interval)
        table.add_row(*cells, verdict, f"{point.so_far:.6g}")
    return table


def _span(seconds: int) -> str:
    """Return a span of time as the option takes it."""
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    unit, size = next(each for each in units if seconds % each[1] == 0)
    return f"{seconds // size}{unit}"


def _examination_table(slots: Sequence[SlotExamination]) -> Table:
    """Return how much of what an action earns it earns in each slot."""
    values = ", ".join(f"{min(max(each.value, 0.001), 1.0):.3g}" for each in slots)
    table = empty_table(
        *("slot", "over the first", "interval", "verdict"),
        title="what an action earns by slot",
        numbers=("slot", "over the first"),
        whole=("verdict",),
        caption=f"if items do not compete, a learner may know it: examination: [{values}]",
    )
    for slot, each in enumerate(slots):
        low, high = each.interval
        verdict = Text(each.verdict, COLOURS[each.verdict])
        table.add_row(str(slot), f"{each.value:.4g}", f"{low:.4g} … {high:.4g}", verdict)
    return table


def _figures(estimate: Estimate) -> tuple[str | Text, ...]:
    """Return the cells of an estimate, from its value to its verdict."""
    low, high = estimate.interval
    return (
        f"{estimate.value:.6g}",
        f"{low:.6g} … {high:.6g}",
        f"{estimate.ess:,.0f}",
        f"{estimate.max_weight:.4g}",
        Text(estimate.verdict, COLOURS[estimate.verdict]),
    )


def _learned_table(result: PolicyResult, title: str, caption: str | None) -> Table:
    """Return the figures of a policy that learned from the log as it went through it."""
    table = empty_table("what", "value", title=title, numbers=("value",), caption=caption)
    if result.average_loss is not None:
        table.add_row("average loss", f"{result.average_loss:.6f}")
    for name, value in result.learned.items():
        table.add_row(name.replace("_", " "), f"{value:.6g}")
    return table


def _reasons(result: PolicyResult) -> list[str]:
    """Return why estimates are not reliable, each reason once with all its estimators."""
    estimators: dict[str, list[str]] = {}
    for name, estimate in result.estimates.items():
        if estimate.verdict != "reliable":
            estimators.setdefault(f"{estimate.verdict}: {estimate.reason}", []).append(name)
    return [f"{', '.join(names)} {reason}" for reason, names in estimators.items()]


def _comparison_table(report: EvaluationReport) -> Table:
    best = "no policy is shown to be better than every other"
    if report.winner:
        best = f"best: {report.winner}"
    table = empty_table(
        *("left less right", "estimator", "difference", "interval", "p (Holm)", "verdict"),
        title="differences on the same rows",
        numbers=("difference", "p (Holm)"),
        whole=("estimator", "verdict"),
        caption=best,
    )

    for pair in report.comparisons:
        comparison = pair.result
        low, high = comparison.interval
        # A star marks a difference that is significant after the correction.
        star = " *" if comparison.conclusive else ""
        table.add_row(
            f"{pair.left} - {pair.right}",
            pair.estimator,
            f"{comparison.difference:.6g}",
            f"{low:.6g} … {high:.6g}",
            f"{comparison.adjusted:.3g}{star}",
            Text(comparison.verdict, COLOURS[comparison.verdict]),
        )
    return table
