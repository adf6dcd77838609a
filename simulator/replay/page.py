"""A report as one HTML page that needs nothing else."""

import json
import math
from collections.abc import Sequence
from html import escape

from simulator.ope.estimators import Estimate
from simulator.pages import STYLE, colour_of, describe_time
from simulator.replay.page_charts import (
    actions_chart,
    curve_chart,
    describe_interval,
    describe_lower_end,
    intervals_chart,
    times_chart,
    trials_chart,
    weights_chart,
)
from simulator.replay.report import (
    EvaluationReport,
    PolicyComparison,
    PolicyResult,
    SearchSummary,
    SlotExamination,
    log_remarks,
)


def html_page(report: EvaluationReport) -> str:
    """Return the whole page: estimates with intervals, rewards over time, weights, actions."""
    parts = [
        (
            "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport'"
            " content='width=device-width'>"
        ),
        (
            f"<title>Replay</title><style>{STYLE}</style><body><h1>What other policies would have"
            " earned</h1>"
        ),
        _summary(report),
    ]

    if any(result.estimates for result in report.results):
        parts += [
            "<h2>Estimates, with intervals</h2>",
            _legend(report),
            intervals_chart(report.results),
            _verdicts(report),
        ]
    if any(result.slots for result in report.results):
        parts += ["<h2>What each slot earns</h2>", _slots(report.results)]
    if report.examination:
        parts += ["<h2>What an action earns by slot</h2>", _examination(report.examination)]
    if report.search is not None:
        parts += ["<h2>The search</h2>", _search(report.search)]
    parts += [_learning(result) for result in report.results if result.curve]
    if report.comparisons:
        parts += ["<h2>Differences on the same rows</h2>", _comparisons(report.comparisons)]

    # Charts follow the estimates: they say where these come from.
    if report.charts is not None:
        policies = [result.policy for result in report.results]
        if len(report.charts.times) > 1:
            parts += ["<h2>Reward over time</h2>", times_chart(report.charts.times, policies)]
        parts += ["<h2>Importance weights</h2>", weights_chart(report.charts)]
        if report.charts.actions:
            parts += ["<h2>Support by action</h2>", actions_chart(report.charts.actions, policies)]

    return "\n".join(parts) + "</body></html>\n"


def _summary(report: EvaluationReport) -> str:
    log = report.log
    facts = [f"{log.rows:,} rows"]
    facts += [f"{what}: {how}" for what, how in log_remarks(log)]
    if log.last_ms:
        facts.append(f"{describe_time(log.first_ms)} to {describe_time(log.last_ms)}")
    if math.isfinite(log.mean_reward):
        facts.append(
            f"mean reward {log.mean_reward:.6g}, least propensity {log.min_propensity:.3g}"
        )

    # A winner needs somebody to win against.
    best = ""
    if report.comparisons:
        best = "No policy is shown to be better than every other."
        if report.winner is not None:
            best = (
                f"<b>{escape(report.winner)}</b> is better than every other, as far as this log can"
                " tell."
            )
    model = ""
    if report.reward_model is not None:
        model = f"<p class='soft'>{escape(report.reward_model.sentence)}</p>"
    return f"<p class='soft'>{escape('; '.join(facts))}.</p>{model}<p>{best}</p>"


def _legend(report: EvaluationReport) -> str:
    names = (
        f"<span style='color:{colour_of(number)}'>■</span> {escape(result.policy)}"
        for number, result in enumerate(report.results)
    )
    return (
        f"<p>{'&ensp;'.join(names)}&ensp;"
        "<span class='soft'>● reliable ◐ weak ○ unreliable</span></p>"
    )


def _verdicts(report: EvaluationReport) -> str:
    lines = [
        (
            "<table><tr><th>policy<th>estimator<th>value<th>interval<th>ESS<th>max"
            " weight<th>verdict</tr>"
        )
    ]
    for result in report.results:
        for name, estimate in result.estimates.items():
            lines.append(f"<tr><td>{escape(result.policy)}<td>{name}{_figures(estimate)}</tr>")
        lines += [f"<tr><td colspan='7' class='soft'>{escape(note)}</tr>" for note in result.notes]
    return "\n".join(lines) + "</table>"


def _slots(results: Sequence[PolicyResult]) -> str:
    lines = [
        (
            "<table><tr><th>policy<th>estimator<th>slot<th>value<th>interval<th>ESS<th>max"
            " weight<th>verdict</tr>"
        )
    ]
    for result in results:
        for name, slots in result.slots.items():
            lines += [
                f"<tr><td>{escape(result.policy)}<td>{name}<td class='n'>{slot}"
                f"{_figures(estimate)}</tr>"
                for slot, estimate in enumerate(slots)
            ]
    return "\n".join(lines) + "</table>"


def _examination(slots: Sequence[SlotExamination]) -> str:
    rows = "".join(
        f"<tr><td class='n'>{slot}<td class='n'>{each.value:.4g}"
        f"<td>{describe_interval(each.interval)}"
        f"<td><b class='{each.verdict}'>{each.verdict}</b> <span"
        f" class='soft'>{escape(each.reason)}</span></tr>"
        for slot, each in enumerate(slots)
    )
    return (
        "<p class='soft'>What a uniformly drawn action earns, over what it earns in the first slot:"
        " how often a slot is looked at, if items do not compete.</p>"
        f"<table><tr><th>slot<th>over the first<th>interval<th>verdict</tr>{rows}</table>"
    )


def _figures(estimate: Estimate) -> str:
    """Return the cells of an estimate, from its value to its verdict and the reason for it."""
    return (
        f"<td class='n'>{estimate.value:.6g}<td>{describe_interval(estimate.interval)}"
        f"<td class='n'>{estimate.ess:,.0f}<td class='n'>{estimate.max_weight:.4g}"
        f"<td><b class='{estimate.verdict}'>{estimate.verdict}</b> <span"
        f" class='soft'>{escape(estimate.reason)}</span>"
    )


def _search(search: SearchSummary) -> str:
    """Return the trials as a chart and a table."""
    rows = "".join(
        f"<tr><td>{trial.rung + 1}<td>{escape(trial.spec)}<td class='n'>{trial.rows:,}<td"
        f" class='n'>{describe_lower_end(trial)}"
        f"<td class='n'>{trial.value:.6g}<td><b class='{trial.verdict}'>{trial.verdict}</b>"
        f"<td>{'goes on' * trial.kept}</tr>"
        for trial in search.trials
    )

    # Which rows select, and which check, is what a reader needs to trust the choice.
    return (
        "<p class='soft'>DR value of each spec on the rows that select, down to the lower end of"
        " its interval, by which specs are ranked; rung by rung, with the rows that were learned"
        " from. Those in colour went on. What the finalists earn on rows that no choice has seen"
        " is above.</p>"
        f"{trials_chart(search.trials)}<p>Best: <code>{escape(json.dumps(search.best))}</code></p>"
        "<details><summary>Every trial</summary><table><tr><th>rung<th>spec<th>learned from<th>DR"
        f" at least<th>DR<th>verdict<th></tr>{rows}</table></details>"
    )


def _comparisons(comparisons: Sequence[PolicyComparison]) -> str:
    lines = [
        (
            "<table><tr><th>left less right<th>estimator<th>difference<th>interval<th>p"
            " (Holm)<th>verdict</tr>"
        )
    ]
    for comparison in comparisons:
        result = comparison.result
        weight = "b" if result.conclusive else "span"
        lines.append(
            f"<tr><td>{escape(comparison.left)} less {escape(comparison.right)}"
            f"<td>{comparison.estimator}<td"
            f" class='n'><{weight}>{result.difference:.6g}</{weight}>"
            f"<td>{describe_interval(result.interval)}"
            f"<td class='n'>{result.adjusted:.3g}<td><b"
            f" class='{result.verdict}'>{result.verdict}</b></tr>"
        )
    return "\n".join(lines) + "</table>"


def _learning(result: PolicyResult) -> str:
    """Return how a policy did as it learned."""
    numbers = ", ".join(
        f"{name.replace('_', ' ')} {value:,.6g}" for name, value in result.learned.items()
    )
    return (
        f"<h2>{escape(result.policy)}, {result.method}: as it learned</h2>"
        f"<p class='soft'>{escape(numbers)}</p>{curve_chart(result.curve)}"
    )
