"""The report of a search for hyperparameters as one HTML page that needs nothing else."""

from html import escape

from simulator.pages import LEFT, STYLE, WIDTH, AxisScale, colour_of, svg_picture
from simulator.ranking.report import Metric
from simulator.tuning.report import SourceTrial, TuningReport, describe_values, search_facts


def search_page(report: TuningReport) -> str:
    """Return the whole page: what each source is fitted with, and every trial."""
    facts = "".join(f"<li>{escape(fact)}</li>" for fact in search_facts(report))
    parts = [
        (
            "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport'"
            " content='width=device-width'>"
        ),
        (
            f"<title>Search: {escape(report.data)}</title><style>{STYLE}</style><body>"
            f"<h1>What the sources of {escape(report.data)} are fitted with</h1><ul>{facts}</ul>"
        ),
        "<h2>What was chosen</h2>",
        _choices(report),
    ]
    for choice in report.choices:
        trials = [trial for trial in report.trials if trial.source == choice.source]
        parts += [f"<h2>{escape(choice.source)}</h2>", _chart(trials), _trials(trials)]
    return "\n".join(parts) + "</body></html>\n"


def _choices(report: TuningReport) -> str:
    lines = [
        (
            "<table><tr><th>source<th>unchanged<th>best<th>test<th>gain on the test part"
            "<th>fitted with</tr>"
        )
    ]

    for choice in report.choices:
        fitted = f"{describe_values(choice.values)}: {choice.reason}"
        lines.append(
            f"<tr><td>{escape(choice.source)}<td class='n'>{_shown(choice.unchanged)}"
            f"<td class='n'>{_shown(choice.best)}<td class='n'>{_shown(choice.test.value)}"
            f"<td>{_gain(choice.gain)}<td>{escape(fitted)}</tr>"
        )
    return (
        "<p class='soft'>nDCG@10. Unchanged and best: on the selecting part, by which trials were"
        " compared. Test: of the best, on the part that no choice has seen. Gain: over the"
        " unchanged values on the same users there, with its 95% interval.</p>"
        + "\n".join(lines)
        + "</table>"
    )


def _chart(trials: list[SourceTrial]) -> str:
    """Draw nDCG by trial: a whole fit filled, one in part as a ring."""
    judged = [trial for trial in trials if trial.ndcg is not None]
    if not judged:
        return ""
    figures = [trial.ndcg or 0.0 for trial in judged]
    across = AxisScale(min(figures), max(figures), LEFT - 90, WIDTH - 40)
    shapes, height = across.vertical_lines(70), 40
    for trial in judged:
        what = f"trial {trial.trial}: {describe_values(trial.values)}: {trial.ndcg:.4f}"
        fill = colour_of(2 if trial.trial == 0 else 0) if trial.share == 1 else "none"
        shapes.append(
            f"<circle cx='{across(trial.ndcg or 0.0):.1f}' cy='{height}' r='6' fill='{fill}'"
            f" fill-opacity='.6' stroke='{colour_of(2 if trial.trial == 0 else 0)}'>"
            f"<title>{escape(what)}</title></circle>"
        )
    return svg_picture(92, shapes)


def _trials(trials: list[SourceTrial]) -> str:
    lines = ["<table><tr><th>trial<th>values<th>epochs<th>nDCG@10<th>s<th></tr>"]
    for trial in trials:
        what = trial.note or ("goes on" if trial.share < 1 else "best") * trial.kept
        lines.append(
            f"<tr><td>{trial.trial}<td>{escape(describe_values(trial.values))}"
            f"<td class='n'>{trial.share:.0%}<td class='n'>{_shown(trial.ndcg)}"
            f"<td class='n'>{trial.seconds:.1f}<td>{escape(what)}</tr>"
        )
    return (
        "<p class='soft'>Each circle is a trial: filled, if it was fitted for all of its epochs;"
        " the unchanged values in another colour.</p>" + "\n".join(lines) + "</table>"
    )


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _gain(metric: Metric) -> str:
    if metric.value is None or metric.low is None or metric.high is None:
        return ""
    return f"{metric.value:+.4f} ({metric.low:+.4f} … {metric.high:+.4f})"
