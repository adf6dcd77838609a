"""A report as one HTML page that needs nothing else: estimates with intervals, rewards over time, weights, actions."""

import json
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from simulator.learners.curve import CurvePoint
from simulator.ope.charts import ActionShares, TimeBucket
from simulator.replay.report import (
    NO_LOWER_END,
    EvaluationReport,
    PolicyComparison,
    PolicyResult,
    SearchSummary,
    Trial,
    log_remarks,
)

COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5")
SIGNS = {"reliable": "●", "weak": "◐", "unreliable": "○"}
WIDTH, LEFT = 760, 150
STYLE = """
:root { color-scheme: light dark; --ink: #1b1e23; --soft: #6b7280; --line: #d8dce2; --paper: #fff; --card: #f6f7f9 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #9aa0a6; --line: #3a3f47; --paper: #16181c;
  --card: #1e2126 } }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2.2rem }
p, td, th { max-width: 46rem } .soft { color: var(--soft) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { color: var(--soft); font-weight: 500 } td.n { text-align: right }
.reliable { color: #2f9e44 } .weak { color: #d9820f } .unreliable { color: #d6336c }
code { overflow-wrap: anywhere } summary { cursor: pointer; color: var(--soft) }
svg { width: 100%; height: auto; background: var(--card); border-radius: 6px }
text { fill: var(--ink); font-size: 12px }
.axis { stroke: var(--line) } .soft text, text.soft { fill: var(--soft) }
"""


def html_page(report: EvaluationReport) -> str:
    """The whole page."""
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
            _intervals(report),
            _verdicts(report),
        ]
    if report.search is not None:
        parts += ["<h2>The search</h2>", _trials(report.search)]
    parts += [_curve(result) for result in report.results if result.curve]
    if report.comparisons:
        parts += ["<h2>Differences on the same rows</h2>", _comparisons(report.comparisons)]
    if report.charts is not None:
        if len(report.charts.times) > 1:
            parts += ["<h2>Reward over time</h2>", _times(report.charts.times, report)]
        parts += ["<h2>Importance weights</h2>", _weights(report)]
        if report.charts.actions:
            parts += ["<h2>Support by action</h2>", _actions(report.charts.actions, report)]
    return "\n".join(parts) + "</body></html>\n"


def _summary(report: EvaluationReport) -> str:
    log = report.log
    said = [f"{log.rows:,} rows"]
    said += [f"{what}: {how}" for what, how in log_remarks(log)]
    if log.last_ms:
        said.append(f"{_when(log.first_ms)} to {_when(log.last_ms)}")
    if math.isfinite(log.mean_reward):
        said.append(f"mean reward {log.mean_reward:.6g}, least propensity {log.min_propensity:.3g}")
    best = ""
    if report.comparisons:
        best = "No policy is shown to be better than every other."
        if report.winner is not None:
            best = f"<b>{escape(report.winner)}</b> is better than every other, as far as this log can tell."
    model = ""
    if report.reward_model is not None:
        model = f"<p class='soft'>{escape(report.reward_model.said)}</p>"
    return f"<p class='soft'>{escape('; '.join(said))}.</p>{model}<p>{best}</p>"


def _legend(report: EvaluationReport) -> str:
    names = (
        f"<span style='color:{colour}'>■</span> {escape(result.policy)}"
        for result, colour in zip(report.results, _colours(), strict=False)
    )
    return f"<p>{'&ensp;'.join(names)}&ensp;<span class='soft'>● reliable ◐ weak ○ unreliable</span></p>"


def _intervals(report: EvaluationReport) -> str:
    rows = [
        (name, number, result.policy, result.estimates[name])
        for name in _estimators(report)
        for number, result in enumerate(report.results)
        if name in result.estimates
    ]
    ends = [end for *_, each in rows for end in (*each.interval, each.value) if math.isfinite(end)]
    scale = AxisScale(min(ends, default=0.0), max(ends, default=1.0), LEFT, WIDTH - 20)
    shapes, at, before = [], 16.0, ""
    for name, number, policy, each in rows:
        if name != before:
            at += 8
            shapes.append(f"<text x='10' y='{at + 4:.0f}'>{escape(name)}</text>")
        before = name
        low, high = (scale(end) for end in each.interval)
        colour = COLOURS[number % len(COLOURS)]
        said = f"{policy}, {name}: {each.value:.6g} in {_range(each.interval)}, {each.verdict}: {each.reason}"
        shapes.append(
            f"<g><title>{escape(said)}</title><line x1='{low:.1f}' x2='{high:.1f}' y1='{at:.0f}'"
            f" y2='{at:.0f}'"
            f" stroke='{colour}' stroke-width='2'/><text x='{scale(each.value):.1f}'"
            f" y='{at + 5:.0f}' fill='{colour}'"
            f" style='fill:{colour};font-size:15px'"
            f" text-anchor='middle'>{SIGNS[each.verdict]}</text></g>"
        )
        at += 16
    return _svg(at + 26, scale.axis(at + 6) + shapes)


def _verdicts(report: EvaluationReport) -> str:
    lines = [
        (
            "<table><tr><th>policy<th>estimator<th>value<th>interval<th>ESS<th>max"
            " weight<th>verdict</tr>"
        )
    ]
    for result in report.results:
        for name, each in result.estimates.items():
            lines.append(
                f"<tr><td>{escape(result.policy)}<td>{name}<td"
                f" class='n'>{each.value:.6g}<td>{_range(each.interval)}"
                f"<td class='n'>{each.ess:,.0f}<td class='n'>{each.max_weight:.4g}"
                f"<td><b class='{each.verdict}'>{each.verdict}</b> <span"
                f" class='soft'>{escape(each.reason)}</span></tr>"
            )
        lines += [f"<tr><td colspan='7' class='soft'>{escape(note)}</tr>" for note in result.notes]
    return "\n".join(lines) + "</table>"


def _trials(search: SearchSummary) -> str:
    """Each trial's DR value and the lower end it was ranked by, rung by rung.

    A line follows a spec that went on.
    """
    drawn = [each for each in search.trials if math.isfinite(each.value)]
    rungs = sorted({each.rung for each in drawn})
    values = [end for each in drawn for end in _ends(each)]
    height = AxisScale(min(values, default=0.0), max(values, default=1.0), 240, 20)
    wide = (WIDTH - 100) / max(1, len(rungs))
    shapes, places = height.ticks(60), dict[tuple[str, int], tuple[float, float]]()
    for rung in rungs:
        trials = [each for each in drawn if each.rung == rung]
        for number, each in enumerate(trials):
            places[each.spec, rung] = (
                80 + wide * (rung + 0.8 * number / max(1, len(trials))),
                height(each.value),
            )
        for below, said in ((262, f"rung {rung + 1}"), (278, f"{trials[0].rows:,} rows")):
            shapes.append(
                f"<text class='soft' x='{80 + wide * rung:.0f}' y='{below}'>{said}</text>"
            )
    for each in drawn:
        x, y = places[each.spec, each.rung]
        after = places.get((each.spec, each.rung + 1))
        colour = COLOURS[0] if each.kept else "var(--soft)"
        if after:
            shapes.append(
                f"<line x1='{x:.1f}' y1='{y:.1f}' x2='{after[0]:.1f}' y2='{after[1]:.1f}'"
                f" stroke='{colour}'"
                " opacity='.35'/>"
            )
        low = height(_ends(each)[0])
        said = f"{each.spec}: {each.value:.6g}, at least {_lower(each)}, {each.verdict}"
        shapes.append(
            f"<g><title>{escape(said)}</title><line x1='{x:.1f}' x2='{x:.1f}' y1='{y:.1f}'"
            f" y2='{low:.1f}'"
            f" stroke='{colour}' stroke-width='2'/><text x='{x:.1f}' y='{y + 5:.1f}'"
            " text-anchor='middle'"
            f" style='fill:{colour};font-size:13px'>{SIGNS[each.verdict]}</text></g>"
        )
    rows = "".join(
        f"<tr><td>{each.rung + 1}<td>{escape(each.spec)}<td class='n'>{each.rows:,}<td"
        f" class='n'>{_lower(each)}"
        f"<td class='n'>{each.value:.6g}<td><b class='{each.verdict}'>{each.verdict}</b>"
        f"<td>{'goes on' * each.kept}</tr>"
        for each in search.trials
    )
    return (
        "<p class='soft'>DR value of each spec on the rows that select, down to the lower end of"
        " its interval, by which"
        " specs are ranked; rung by rung, with the rows that were learned from. Those in colour"
        " went on. What the"
        " finalists earn on rows that no choice has seen is above.</p>"
        f"{_svg(288, shapes)}<p>Best: <code>{escape(json.dumps(search.best))}</code></p>"
        "<details><summary>Every trial</summary><table><tr><th>rung<th>spec<th>learned from<th>DR"
        " at least<th>DR"
        f"<th>verdict<th></tr>{rows}</table></details>"
    )


def _ends(trial: Trial) -> tuple[float, float]:
    """Of what is drawn of a trial.

    Its value alone, if it has no lower end that could be relied on.
    """
    return (trial.lower if trial.lower > NO_LOWER_END else trial.value, trial.value)


def _lower(trial: Trial) -> str:
    return f"{trial.lower:.6g}" if trial.lower > NO_LOWER_END else "-"


def _comparisons(given: Sequence[PolicyComparison]) -> str:
    lines = [
        (
            "<table><tr><th>left less right<th>estimator<th>difference<th>interval<th>p"
            " (Holm)<th>verdict</tr>"
        )
    ]
    for each in given:
        result = each.result
        weight = "b" if result.shown else "span"
        lines.append(
            f"<tr><td>{escape(each.left)} less {escape(each.right)}<td>{each.estimator}"
            "<td"
            f" class='n'><{weight}>{result.difference:.6g}</{weight}><td>{_range(result.interval)}"
            f"<td class='n'>{result.adjusted:.3g}<td><b"
            f" class='{result.verdict}'>{result.verdict}</b></tr>"
        )
    return "\n".join(lines) + "</table>"


def _curve(result: PolicyResult) -> str:
    scale = AxisScale(0.0, float(result.curve[-1].rows), 60, WIDTH - 20)
    found = [point.value for point in result.curve if math.isfinite(point.value)]
    height = AxisScale(min(found, default=0.0), max(found, default=1.0), 200, 20)
    points: Iterable[CurvePoint] = (point for point in result.curve if math.isfinite(point.value))
    path = " ".join(f"{scale(float(point.rows)):.1f},{height(point.value):.1f}" for point in points)
    said = ", ".join(
        f"{name.replace('_', ' ')} {value:,.6g}" for name, value in result.learned.items()
    )
    title = f"<h2>{escape(result.policy)}, {result.method}: as it learned</h2><p class='soft'>{escape(said)}</p>"
    line = f"<polyline points='{path}' fill='none' stroke='{COLOURS[0]}' stroke-width='2'/>"
    return title + _svg(240, [*scale.axis(220), *height.ticks(60), line])


def _times(times: Sequence[TimeBucket], report: EvaluationReport) -> str:
    across = AxisScale(float(times[0].start_ms), float(times[-1].start_ms), 60, WIDTH - 20)
    values = [
        value
        for bucket in times
        for value in (bucket.reward, *bucket.values.values())
        if math.isfinite(value)
    ]
    height = AxisScale(min(values), max(values), 200, 20)
    shapes = []
    for result, colour in zip(report.results, _colours(), strict=False):
        given = ((bucket, bucket.values.get(result.policy, math.nan)) for bucket in times)
        points = " ".join(
            f"{across(float(b.start_ms)):.1f},{height(v):.1f}" for b, v in given if math.isfinite(v)
        )
        shapes.append(
            f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='1.5'/>"
        )
    labels = "".join(
        f"<text class='soft' x='{across(float(each.start_ms)):.0f}' y='222' text-anchor='{anchor}'>"
        f"{_when(each.start_ms)}</text>"
        for each, anchor in ((times[0], "start"), (times[-1], "end"))
    )
    note = "<p class='soft'>IPS value of each policy in each stretch of the log; of the logging policy, its reward.</p>"
    return note + _svg(232, [*height.ticks(60), *shapes, labels])


def _weights(report: EvaluationReport) -> str:
    charts = report.charts
    assert charts is not None  # noqa: S101 - the caller looked
    shapes, at = [], 10.0
    step = (WIDTH - LEFT - 20) / len(charts.edges)
    for (policy, counts), colour in zip(charts.weights.items(), _colours(), strict=False):
        most = max(counts) or 1
        shapes.append(f"<text x='10' y='{at + 44:.0f}'>{escape(policy[:20])}</text>")
        for number, count in enumerate(counts):
            tall = 50 * math.log1p(count) / math.log1p(most)
            edge = charts.edges[number]
            shapes.append(
                f"<g><title>{escape(policy)}: {count:,} rows of weight from {edge:.3g}</title><rect"
                f" x='{LEFT + number * step:.1f}' y='{at + 50 - tall:.1f}' width='{step - 1:.1f}'"
                f" height='{tall:.1f}'"
                f" fill='{colour}'/></g>"
            )
        at += 60
    labels = [
        f"<text class='soft' x='{LEFT + number * step:.1f}' y='{at + 12:.0f}'>{edge:.3g}</text>"
        for number, edge in enumerate(charts.edges)
        if edge == 0.0 or abs(math.log10(edge) - round(math.log10(edge))) < 1e-9
    ]
    return "<p class='soft'>Rows by weight; heights are logarithms.</p>" + _svg(
        at + 22, shapes + labels
    )


def _actions(actions: Sequence[ActionShares], report: EvaluationReport) -> str:
    most = max(max(each.share, *each.shares.values()) for each in actions) or 1.0
    shapes, at = [], 18.0
    for each in actions:
        shapes.append(f"<text x='10' y='{at + 4:.0f}'>{escape(each.action[:20])}</text>")
        wide = (WIDTH - LEFT - 20) * each.share / most
        shapes.append(
            f"<rect x='{LEFT}' y='{at - 5:.0f}' width='{wide:.1f}' height='10' fill='var(--line)'/>"
        )
        for result, colour in zip(report.results, _colours(), strict=False):
            share = each.shares.get(result.policy, 0.0)
            x = LEFT + (WIDTH - LEFT - 20) * share / most
            said = f"{result.policy}: {share:.2%} of choices; the log {each.share:.2%}"
            shapes.append(
                f"<g><title>{escape(said)}</title><circle cx='{x:.1f}' cy='{at:.0f}' r='4'"
                f" fill='{colour}'/></g>"
            )
        at += 17
    note = "<p class='soft'>Grey: how often the log chose the action. Dots: the share each policy gives it.</p>"
    return note + _svg(at, shapes)


class AxisScale:
    """From values to places, with a few round ticks."""

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        if not high > low:
            low, high = low - 0.5, high + 0.5
        self._low, self._high, self._start, self._stop = low, high, start, stop

    def __call__(self, value: float) -> float:
        """Where a value is; at the edge if it is beyond."""
        share = (min(max(value, self._low), self._high) - self._low) / (self._high - self._low)
        return self._start + share * (self._stop - self._start)

    def _round(self) -> list[float]:
        rough = (self._high - self._low) / 5
        step = 10.0 ** math.floor(math.log10(rough))
        step *= next(times for times in (1, 2, 5, 10) if step * times >= rough)
        first = math.ceil(self._low / step)
        return [step * number for number in range(first, math.floor(self._high / step) + 1)]

    def axis(self, y: float) -> list[str]:
        """Vertical lines down to ``y``, with their values below."""
        return [
            f"<line class='axis' x1='{self(tick):.1f}' x2='{self(tick):.1f}' y1='8' y2='{y:.0f}'/>"
            f"<text class='soft' x='{self(tick):.1f}' y='{y + 14:.0f}'"
            f" text-anchor='middle'>{tick:.6g}</text>"
            for tick in self._round()
        ]

    def ticks(self, x: float) -> list[str]:
        """Horizontal lines from ``x``, with their values before."""
        return [
            f"<line class='axis' x1='{x:.0f}' x2='{WIDTH - 20}' y1='{self(tick):.1f}'"
            f" y2='{self(tick):.1f}'/>"
            f"<text class='soft' x='{x - 6:.0f}' y='{self(tick) + 4:.1f}'"
            f" text-anchor='end'>{tick:.4g}</text>"
            for tick in self._round()
        ]


def _svg(height: float, shapes: Sequence[str]) -> str:
    return f"<svg viewBox='0 0 {WIDTH} {height:.0f}' role='img'>{''.join(shapes)}</svg>"


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.6g} … {interval[1]:.6g}"


def _estimators(report: EvaluationReport) -> list[str]:
    return list(dict.fromkeys(name for result in report.results for name in result.estimates))


def _colours() -> Iterable[str]:
    while True:
        yield from COLOURS


def _when(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
